//! `vip.toml` and the files of `conf.d`: what they may say, and the validated
//! [`Config`] that the rest of the program trusts. Nothing here looks at
//! interfaces, opens the key file or uses the network: a configuration is right
//! or wrong by its text alone.
//!
//! The texts go through three steps. `sections` takes each value out of the TOML
//! and checks it on its own, `cross_check` compares them with each other, and the
//! result is the `Config`. All mistakes in all files are reported at once, each
//! with its file, line and column and a sentence that says how to mend it.

mod cross_check;
mod digest;
mod sections;
#[cfg(test)]
mod tests;
mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use self::text::files::File;
pub use self::{
    sections::{
        api::{Api, Tls},
        garp::{Garp, INTERVAL_MAX, REFRESH_MIN, REPEAT_MAX},
        group::prefix_of,
        health::{Check, CheckKind, Health, Url, WhenAllFail},
        hooks::{self, Hooks},
        self_test::SelfTest,
    },
    text::{
        files::{names as more_files, unread as unread_files},
        report::{ConfigError, ConfigErrors, Place},
    },
};
use crate::{
    engine::{self, GroupId, PeerLoss, Role},
    home::Home,
    mode::Mode,
};

// What the reference says of checks.
#[cfg(test)]
pub(crate) use self::sections::health::{
    CHECKS_MAX, COMM_LEN_MAX, COUNT_MAX as CHECK_COUNT_MAX, FALL_DEFAULT, INTERVAL as CHECK_INTERVAL,
    INTERVAL_DEFAULT as CHECK_INTERVAL_DEFAULT, RISE_DEFAULT, TIMEOUT_DEFAULT as CHECK_TIMEOUT_DEFAULT,
    TIMEOUT_MIN as CHECK_TIMEOUT_MIN,
};

/// The shortest `lease` that can be configured (T_accept): what timers manage
/// with real-time priority.
pub const LEASE_MIN: Duration = Duration::from_millis(20);
/// The longest `lease` that can be configured (T_accept). A restarted node keeps
/// silent for that long.
pub const LEASE_MAX: Duration = Duration::from_secs(10);
/// The `lease` (T_accept) if none is configured.
pub const LEASE_DEFAULT: Duration = Duration::from_millis(200);
/// The priority of a node for a group that sets none.
pub const PRIORITY_DEFAULT: u8 = 100;
/// The highest priority; 0 and 255 are left free, as in VRRP.
pub const PRIORITY_MAX: u8 = 254;
/// The most voters that a cluster can have.
pub const VOTERS_MAX: usize = engine::VOTERS_MAX;
/// The most nodes that a cluster can have, observers among them.
pub const NODES_MAX: usize = engine::MEMBERS_MAX;
/// How long a node of higher priority must have been ready before it takes a
/// group over, if the group sets `preempt` without a delay.
pub const PREEMPT_DELAY_DEFAULT: Duration = Duration::from_secs(30);
/// The longest startup or preemption delay.
pub const DELAY_MAX: Duration = Duration::from_secs(24 * 3600);
/// The longest name of a cluster or node, in bytes; Linux host names have as many.
pub const NAME_LEN_MAX: usize = 64;
/// The longest name of an interface, in bytes: the kernel's IFNAMSIZ less its NUL.
pub const INTERFACE_LEN_MAX: usize = 15;

/// A valid configuration, seen from one of its nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node's name.
    pub node_name: String,
    /// This node's [`Node::id`].
    pub me: u8,
    /// How long after its start this node takes no group by itself.
    pub startup_delay: Duration,
    /// How often this node announces its VIPs.
    pub garp: Garp,
    /// What follows where this node's answers do not arrive at its peers.
    pub self_test: SelfTest,
    /// Does it send on to the holder what clients send to it by mistake?
    pub steer: bool,
    /// The interfaces to attach the data plane to; never empty on a node that can
    /// hold.
    pub interfaces: Vec<String>,
    /// How the program on the way in shall run on those of them for which that is said.
    pub modes: BTreeMap<String, Mode>,
    /// Those of them that are guarded, and nothing more: no VIP is answered or announced
    /// there.
    pub silent: BTreeSet<String>,
    /// The cluster.
    pub cluster: Cluster,
    /// The groups, sorted by name; a group's index is its number on the wire.
    pub groups: Vec<Group>,
    /// HTTP over TCP, if it is configured.
    pub api: Option<Api>,
}

/// The cluster, the same on all of its nodes but for the key file's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// The file with the pre-shared keys; a relative path is taken from the
    /// configuration file's directory.
    pub key_file: PathBuf,
    /// `T_accept` of the lease rules: how long an acceptor keeps a grant.
    pub lease: Duration,
    /// Pair mode, and what a node does that does not hear the other one; `None`:
    /// a majority decides.
    pub pair: Option<PeerLoss>,
    /// Number of the membership: rises by one with each node added or removed
    /// (docs/protocol.md, rule 10).
    pub generation: u32,
    /// The nodes, sorted by name.
    pub nodes: Vec<Node>,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number on the wire, below [`NODES_MAX`]: as configured, or its place
    /// among the names.
    pub id: u8,
    /// Its name.
    pub name: String,
    /// Where its agent listens, by UDP.
    pub address: SocketAddr,
    /// Its role.
    pub role: Role,
    /// Its hardware address, for peers on its link to pin.
    pub mac: Option<[u8; 6]>,
}

impl Node {
    /// Can it hold a lease?
    #[must_use]
    pub fn can_hold(&self) -> bool {
        self.role == Role::Node
    }
}

/// VIPs that move together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its VIPs, sorted.
    pub vips: Vec<IpAddr>,
    /// The interface and the prefix on this node of those of them that have any.
    pub homes: BTreeMap<IpAddr, Home>,
    /// Are they gateways, through which hosts send to elsewhere?
    pub is_gateway: bool,
    /// The MAC that its VIPs are announced and answered with, on whichever node; `None` for
    /// that of the holder's interface.
    pub virtual_mac: Option<[u8; 6]>,
    /// The priority of every node that can hold, by its name; higher is preferred.
    pub priorities: BTreeMap<String, u8>,
    /// How long a node of higher priority must have been ready before it takes
    /// the group over; `None`: it never does.
    pub preempt: Option<Duration>,
    /// Conditions that a node must meet to hold it.
    pub health: Health,
    /// The hooks and webhook for its moves on this node.
    pub hooks: Hooks,
}

impl Cluster {
    /// The node with this id.
    #[must_use]
    pub fn node(&self, id: u8) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }
}

impl Config {
    /// Reads and validates the file at `path` and those of the directory
    /// `conf.d` next to it. The node's name is this host's unless the file
    /// says otherwise.
    ///
    /// # Errors
    /// All mistakes in them.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let mut files = vec![File::read(path, "name another with --config")];
        files.extend(File::read_more(path));
        let host_name = nix::unistd::gethostname().map_err(|error| {
            text::files::refused(
                path,
                format!("this host's name can't be read ({error}): set name under [node]"),
            )
        })?;
        Self::of_files(path, &files, &host_name.to_string_lossy())
    }

    /// Validates `text` in the place of the file at `path`, with those of the
    /// directory `conf.d` next to it.
    ///
    /// # Errors
    /// All mistakes in them.
    pub fn parse_with_more(text: &str, path: &Path, host_name: &str) -> Result<Self, ConfigErrors> {
        let mut files = vec![File::new(path, text)];
        files.extend(File::read_more(path));
        Self::of_files(path, &files, host_name)
    }

    /// Validates `text` alone; `path` is the file that errors name, and to whose
    /// directory a relative key file belongs.
    ///
    /// # Errors
    /// All mistakes in it.
    pub fn parse(text: &str, path: &Path, host_name: &str) -> Result<Self, ConfigErrors> {
        Self::of_files(path, &[File::new(path, text)], host_name)
    }

    /// Validates files; the main one, at `path`, comes first.
    fn of_files(path: &Path, files: &[File], host_name: &str) -> Result<Self, ConfigErrors> {
        let mut report = text::files::report(files);
        let tables = text::files::parse(files, &mut report);
        let (main, more): (Vec<_>, Vec<_>) = tables.iter().partition(|(index, _)| *index == 0);
        let whole = tables.len() == files.len();
        let more: Vec<_> = more.iter().flat_map(|(_, table)| sections::groups(table, &mut report)).collect();
        let has_more = !more.is_empty() || !whole;
        let draft = main.first().map(|(_, table)| sections::document(table, has_more, &mut report));
        // The rest of a broken file would cause errors that are not real.
        let Some(mut draft) = draft.filter(|_| whole) else { return Err(report.into_errors()) };
        draft.groups.extend(more);
        let config = cross_check::check(draft, path, host_name, &mut report);
        debug_assert_ne!(config.is_none(), report.is_empty(), "refused if and only if there is a reason");
        config.ok_or_else(|| report.into_errors())
    }

    /// A digest that is equal on nodes whose configurations agree in what must be
    /// the same at any time: the cluster's name, lease and mode.
    #[must_use]
    pub fn digest(&self) -> u64 {
        digest::digest(self)
    }

    /// The interfaces on which VIPs without one of their own are announced.
    pub fn announcing(&self) -> impl Iterator<Item = &String> {
        self.interfaces.iter().filter(|name| !self.silent.contains(*name))
    }

    /// The group with this number.
    #[must_use]
    pub fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(id.place())
    }
    /// A number that is equal on nodes whose configurations have the same
    /// nodes. Within one generation it must be; see [`Cluster::generation`].
    #[must_use]
    pub fn nodes_digest(&self) -> u64 {
        digest::nodes(self)
    }

    /// A digest that is equal on nodes whose configurations have the same groups.
    /// It differs while the nodes get other groups, one after the other.
    #[must_use]
    pub fn groups_digest(&self) -> u64 {
        digest::groups(&self.groups)
    }

    /// The keys that differ in `next` and that an agent only reads at its start;
    /// each as the file has it.
    #[must_use]
    pub fn needs_restart(&self, next: &Self) -> Vec<&'static str> {
        let (now, then) = (&self.cluster, &next.cluster);
        [
            ("[node] name", self.node_name != next.node_name || self.me != next.me),
            ("[node] interface", self.interfaces != next.interfaces),
            ("[node] mode", self.modes != next.modes),
            ("[node] garp_*", self.garp != next.garp),
            ("[node] self_test", self.self_test != next.self_test),
            ("[node] steer", self.steer != next.steer),
            ("[[node.interface]] announce", self.silent != next.silent),
            ("[node] startup_delay", self.startup_delay != next.startup_delay),
            ("[api]", self.api != next.api),
            ("[cluster] name", now.name != then.name),
            ("[cluster] key_file", now.key_file != then.key_file),
            ("[cluster] lease", now.lease != then.lease),
            ("[cluster] pair", now.pair != then.pair),
            ("[cluster] generation", now.generation != then.generation),
            ("[[cluster.node]]", now.nodes != then.nodes),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
    }

    /// The node that this configuration is seen from.
    ///
    /// # Panics
    /// Never: a configuration without it is refused.
    #[must_use]
    pub fn this_node(&self) -> &Node {
        self.cluster.node(self.me).expect("a configuration has the node that it is seen from")
    }
}

/// The tables of the file, and the keys that each of them has.
#[cfg(test)]
pub(crate) const fn keys() -> &'static [(&'static str, &'static [&'static str])] {
    text::section::KEYS
}
