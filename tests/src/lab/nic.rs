//! How a host's one interface is made: a plain veth, or what people have instead.
//! Whatever it is, it is called [`INTERFACE`], and the switch's port has the host's name.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use super::netns::Netns;
use super::{INTERFACE, LabId, cards, wire};

/// The VLAN of [`Nic::Vlan`].
const VLAN: u16 = 5;
/// What is below the interface, where something is.
const LOWER: &str = "lower0";
/// How both ends of [`Nic::Lacp`] agree.
const LACP: &str = "802.3ad miimon 10 lacp_rate fast";
/// The second interface below a bond.
const OTHER_LOWER: &str = "lower1";

/// What [`INTERFACE`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Nic {
    /// A veth, and a switch's port without a program, as containers have.
    #[default]
    Veth,
    /// A veth whose peer takes what XDP sends: nearest to a card with a driver that runs
    /// XDP.
    Card,
    /// A bridge with the veth as its port, as hosts of virtual machines have.
    Bridge,
    /// A macvlan on the veth.
    Macvlan,
    /// An 802.1Q VLAN on the veth; the switch's port is a trunk.
    Vlan,
    /// An active-backup bond of two veths.
    Bond,
    /// An 802.3ad bond of two veths, agreed upon with the switch.
    Lacp,
    /// A card of virtio, as virtual machines have; only where there are such.
    Virtio,
}

impl Nic {
    /// The `mode` that the data plane shall choose by itself here.
    #[must_use]
    pub const fn mode(self) -> &'static str {
        match self {
            Self::Card | Self::Virtio => "native",
            Self::Veth | Self::Bridge | Self::Macvlan | Self::Vlan | Self::Bond | Self::Lacp => "tc",
        }
    }

    /// Lines for `[node]` in the configuration. To the kernel a card is a veth, so its
    /// mode has to be asked for.
    #[must_use]
    pub const fn config(self) -> &'static str {
        match self {
            Self::Card => "mode = \"native\"\n",
            Self::Veth
            | Self::Bridge
            | Self::Macvlan
            | Self::Vlan
            | Self::Bond
            | Self::Lacp
            | Self::Virtio => "",
        }
    }

    /// The switch's ends of a host's cables.
    #[must_use]
    pub fn cables(self, host: &str) -> Vec<String> {
        match self {
            Self::Vlan => vec![trunk(host)],
            Self::Bond => vec![host.to_owned(), spare(host)],
            Self::Lacp => vec![trunk(host), spare(host)],
            Self::Veth | Self::Card | Self::Bridge | Self::Macvlan | Self::Virtio => vec![host.to_owned()],
        }
    }

    /// The ports of the switch's bridge that a host is on.
    #[must_use]
    pub fn ports(self, host: &str) -> Vec<String> {
        match self {
            Self::Bond => vec![host.to_owned(), spare(host)],
            Self::Veth
            | Self::Card
            | Self::Bridge
            | Self::Macvlan
            | Self::Vlan
            | Self::Lacp
            | Self::Virtio => vec![host.to_owned()],
        }
    }
}

/// The switch's end of a trunk, or of the first cable of a bond that it knows of.
fn trunk(host: &str) -> String {
    format!("t-{host}")
}

/// The switch's end of a bond's second cable.
fn spare(host: &str) -> String {
    format!("s-{host}")
}

/// Lines for `ip` that make a bond of two ports.
fn bond(name: &str, mode: &str, [first, second]: [&str; 2]) -> String {
    format!(
        "link add {name} type bond mode {mode}\nlink set {first} down\nlink set {first} master {name}\n\
         link set {second} down\nlink set {second} master {name}\nlink set {name} up\n"
    )
}

/// Makes a namespace with an interface on the switch.
pub(super) fn plug_in(
    (id, switch): (&LabId, &Netns),
    name: &str,
    address: Ipv4Addr,
    nic: Nic,
) -> Result<Netns> {
    let ns = Netns::create(&id.netns(name))?;
    let inside = ns.name();
    let cable = |port: &str, end: &str| {
        format!("link add {port} type veth peer name {end} netns {inside}\nlink set {port} up\n")
    };
    let end = if matches!(nic, Nic::Veth | Nic::Card | Nic::Virtio) { INTERFACE } else { LOWER };
    match nic {
        Nic::Veth | Nic::Card | Nic::Bridge | Nic::Macvlan => {
            switch.ip_batch(&format!("{}link set {name} master br0\n", cable(name, end)))?;
        }
        Nic::Virtio => {
            let [card, port] = cards::free_pair()?;
            ns.adopt(&card, end)?;
            switch.adopt(&port, name)?;
            switch.ip_batch(&format!("link set {name} master br0 up\n"))?;
        }
        Nic::Vlan => {
            // The trunk is a veth of its own, and the port is its VLAN.
            let trunk = trunk(name);
            switch.ip_batch(&format!(
                "{}link add link {trunk} name {name} type vlan id {VLAN}\nlink set {name} master br0 up\n",
                cable(&trunk, end)
            ))?;
        }
        Nic::Bond => {
            // Two cables to the switch; the first one is the active one.
            let spare = spare(name);
            switch.ip_batch(&format!(
                "{}{}link set {name} master br0\nlink set {spare} master br0\n",
                cable(name, end),
                cable(&spare, OTHER_LOWER)
            ))?;
        }
        Nic::Lacp => {
            let [first, second] = [trunk(name), spare(name)];
            switch.ip_batch(&format!(
                "{}{}{}link set {name} master br0\n",
                cable(&first, end),
                cable(&second, OTHER_LOWER),
                bond(name, LACP, [&first, &second])
            ))?;
        }
    }
    let made = match nic {
        Nic::Veth | Nic::Card | Nic::Virtio => String::new(),
        Nic::Bridge => format!(
            "link add {INTERFACE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             link set {LOWER} master {INTERFACE} up\nlink set {INTERFACE} up\n\
             link set {LOWER} down\nlink set {LOWER} up\n"
        ),
        Nic::Macvlan => {
            format!("link set {LOWER} up\nlink add link {LOWER} name {INTERFACE} type macvlan mode bridge\n")
        }
        Nic::Vlan => {
            format!("link set {LOWER} up\nlink add link {LOWER} name {INTERFACE} type vlan id {VLAN}\n")
        }
        Nic::Bond => bond(INTERFACE, "active-backup miimon 10", [LOWER, OTHER_LOWER]),
        Nic::Lacp => bond(INTERFACE, LACP, [LOWER, OTHER_LOWER]),
    };
    ns.ip_batch(&format!("{made}addr add {address}/24 dev {INTERFACE}\nlink set {INTERFACE} up\n"))
        .with_context(|| format!("making the interface of {name}, a {nic:?}"))?;
    if nic == Nic::Card {
        wire::disable_tx_checksum_offload(&ns, INTERFACE)?;
        wire::attach_pass_all(switch, name)?;
    }
    Ok(ns)
}
