//! A cluster on one machine: a switch, nodes and clients, each in a network
//! namespace of its own, with the real kernel and the real `vip-ctl` in it.
//! Shared by the demo and the integration tests.
//!
//! Nothing here judges vip: probes and the capture report what was on the wire;
//! tests and the demo judge it. Nothing here touches the host's own network.

pub mod account;
pub mod beside;
pub mod browser;
pub mod capture;
pub mod cards;
pub mod cleanup;
pub mod clock;
pub mod disk;
pub mod docker;
pub mod ears;
pub mod echo;
pub mod flood;
pub mod guest;
pub mod http;
pub mod killed;
pub mod leases;
pub mod load;
pub mod netns;
pub mod nic;
pub mod node;
pub mod probe;
pub mod rig;
pub mod skip;
pub mod slow;
pub mod snapshot;
pub mod stall;
pub mod status;
pub mod systemd;
pub mod terminal;
pub mod trunk;
pub mod wan;
pub mod wire;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use vip_common::BootNs;

pub use self::cleanup::LabId;
pub use self::netns::Netns;
pub use self::nic::Nic;
pub use self::node::Node;

/// The interface that nodes and clients have.
pub const INTERFACE: &str = "eth0";
/// The UDP port that agents talk to each other on.
pub const AGENT_PORT: u16 = 7077;
/// The port of the echo services.
pub const SERVICE_PORT: u16 = 7000;
/// The name of the one group that [`LabSpec::three_nodes`] has.
pub const GROUP: &str = "db";
/// The VIP that [`LabSpec::three_nodes`] has.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// T_accept for tests about what happens, not about how fast: so long that a
/// machine which stands still for some hundred milliseconds, as a busy virtual
/// one does, moves nothing that the test did not move.
pub const LEASE: Duration = Duration::from_secs(1);
/// Most nodes and most clients of a lab: both fit the one /24 beside the VIPs.
const HOSTS_MAX: usize = 50;

/// A node's place in [`Lab::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub usize);

/// One node to be.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// Its name, also in vip's configuration.
    pub name: String,
    /// Whether it only votes.
    pub witness: bool,
    /// Its priority in every group.
    pub priority: u8,
}

/// One group to be.
#[derive(Clone, Debug)]
pub struct GroupSpec {
    /// Its name.
    pub name: String,
    /// Its VIPs, out of 10.77.0.100 to 10.77.0.199.
    pub vips: Vec<Ipv4Addr>,
}

/// The parts of a lab.
#[derive(Clone, Debug)]
pub struct LabSpec {
    /// The nodes, in the order of their addresses.
    pub nodes: Vec<NodeSpec>,
    /// The clients' names.
    pub clients: Vec<String>,
    /// The groups in every node's configuration.
    pub groups: Vec<GroupSpec>,
    /// T_accept in every node's configuration.
    pub lease: Duration,
    /// Further lines of `[cluster]` in every node's configuration.
    pub cluster: String,
    /// What the nodes' interfaces are; clients have a veth.
    pub nic: Nic,
    /// Whether nodes send on to the holder what clients send to them by mistake.
    pub steers: bool,
    /// The `vip-ctl` to run; none for a lab without vip.
    pub vip_ctl: Option<PathBuf>,
}

impl LabSpec {
    /// Three nodes (`db-a`, `db-b`, `db-c`, falling priority), one client, the
    /// group [`GROUP`] with [`VIP`].
    #[must_use]
    pub fn three_nodes(lease: Duration, vip_ctl: Option<PathBuf>) -> Self {
        let node = |name: &str, priority| NodeSpec { name: name.to_owned(), witness: false, priority };
        Self {
            nodes: vec![node("db-a", 150), node("db-b", 120), node("db-c", 100)],
            clients: vec!["client".to_owned()],
            groups: vec![GroupSpec { name: GROUP.to_owned(), vips: vec![VIP] }],
            lease,
            cluster: String::new(),
            nic: Nic::Veth,
            steers: true,
            vip_ctl,
        }
    }

    /// The first two nodes alone, as a pair that does `what` without the other.
    #[must_use]
    pub fn pair(mut self, what: &str) -> Self {
        self.nodes.truncate(2);
        self.cluster = format!("pair = \"{what}\"\n");
        self
    }

    /// The same with nodes whose interfaces are of this kind.
    #[must_use]
    pub fn on(mut self, nic: Nic) -> Self {
        self.nic = nic;
        self
    }

    /// The same with nodes that send nothing on.
    #[must_use]
    pub fn without_steering(mut self) -> Self {
        self.steers = false;
        self
    }

    /// The same with a witness, `tie`, in the third node's place.
    #[must_use]
    pub fn with_witness(mut self) -> Self {
        self.nodes.truncate(2);
        self.nodes.push(NodeSpec { name: "tie".to_owned(), witness: true, priority: 100 });
        self
    }
}

/// A client: a host on the switch without vip.
#[derive(Debug)]
pub struct Client {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub ns: Netns,
    /// Its address.
    pub address: Ipv4Addr,
}

/// A switch with nodes and clients; removed with all its processes on drop.
#[derive(Debug)]
pub struct Lab {
    id: LabId,
    lease: Duration,
    switch: Netns,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    ownership: Option<cleanup::Ownership>,
}

impl Lab {
    /// Sweeps what crashed labs left, then builds the lab; no agent runs yet.
    ///
    /// # Errors
    /// When a tool is missing or the kernel refuses something; what had been
    /// built by then is removed.
    pub fn new(spec: &LabSpec) -> Result<Self> {
        if spec.nodes.len() > HOSTS_MAX || spec.clients.len() > HOSTS_MAX {
            bail!("a lab has at most {HOSTS_MAX} nodes and {HOSTS_MAX} clients");
        }
        cleanup::sweep()?;
        let id = LabId::new()?;
        // From here on, dropping the ownership removes whatever has been made.
        let ownership = cleanup::Ownership::take(id.clone())?;
        let switch = Netns::create(&id.netns("switch"))?;
        switch.ip_batch(
            "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             link set br0 up\n",
        )?;
        let mut clients = Vec::new();
        for (name, host) in spec.clients.iter().zip(201_u8..) {
            let address = Ipv4Addr::new(10, 77, 0, host);
            let ns = nic::plug_in((&id, &switch), name, address, Nic::Veth)?;
            clients.push(Client { name: name.clone(), ns, address });
        }
        let mut nodes = Vec::new();
        for (node, host) in spec.nodes.iter().zip(1_u8..) {
            let address = Ipv4Addr::new(10, 77, 0, host);
            let ns = nic::plug_in((&id, &switch), &node.name, address, spec.nic)?;
            nodes.push(Node::new(&id, node, ns, (switch.clone(), spec.nic), address, spec.vip_ctl.clone())?);
        }
        let lab = Self { id, lease: spec.lease, switch, nodes, clients, ownership: Some(ownership) };
        for node in &lab.nodes {
            node.write_config(&config_text(spec, &lab, node))?;
        }
        Ok(lab)
    }

    /// The lab's id.
    #[must_use]
    pub fn id(&self) -> &LabId {
        &self.id
    }

    /// T_accept of the cluster.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// The switch's namespace.
    #[must_use]
    pub fn switch(&self) -> &Netns {
        &self.switch
    }

    /// The nodes, in the order of the specification.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The clients, in the order of the specification.
    #[must_use]
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// The node `name`.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes
            .iter()
            .find(|node| node.name() == name)
            .with_context(|| format!("the lab has no node {name}"))
    }

    /// The first client.
    ///
    /// # Errors
    /// When the lab has none.
    pub fn client(&self) -> Result<&Client> {
        self.clients.first().context("this lab has no client")
    }

    /// The nodes that can hold a VIP.
    pub fn candidates(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| !node.is_witness())
    }

    /// Makes the cluster's key and starts an agent on every node; waits until
    /// all of them answer on their sockets and hear a majority.
    ///
    /// # Errors
    /// When an agent ends or isn't there within `patience`; the message has
    /// the last lines of its log.
    pub fn start_agents(&self, patience: Duration) -> Result<()> {
        let Some(first) = self.nodes.first() else { bail!("this lab has no nodes") };
        let key = self.key_file();
        if !key.exists() {
            let key = key.to_str().context("the path of the key file is not UTF-8")?;
            first.succeed(&["keygen", key])?;
        }
        for node in &self.nodes {
            node.start_agent()?;
        }
        self.wait_quorate(patience)
    }

    /// Waits until every running agent answers and hears a majority.
    ///
    /// # Errors
    /// When one ends meanwhile, or `patience` is over.
    pub fn wait_quorate(&self, patience: Duration) -> Result<()> {
        let deadline = clock::now().plus(slow::patient(patience));
        for node in self.nodes.iter().filter(|node| node.has_agent()) {
            node.wait_quorate(deadline)?;
        }
        // The others hear of it by the next heartbeat.
        std::thread::sleep(self.lease() / 4);
        Ok(())
    }

    /// Waits until exactly one node says that it is `active` in `group`, and
    /// every other running agent names it as the holder; returns that node.
    ///
    /// # Errors
    /// When `patience` is over; the message has what each node said last.
    pub fn wait_holder(&self, group: &str, patience: Duration) -> Result<&Node> {
        let deadline = clock::now().plus(slow::patient(patience));
        loop {
            let mut said = Vec::new();
            let mut active = Vec::new();
            let mut named = Vec::new();
            for node in self.nodes.iter().filter(|node| node.has_agent()) {
                let status = node.status();
                let seen = status.as_ref().ok().and_then(|s| s.group(group)).cloned();
                match (&seen, &status) {
                    (Some(seen), _) => {
                        said.push(format!("{}: {} (holder {:?})", node.name(), seen.state, seen.holder));
                        if seen.state == "active" {
                            active.push(node);
                        }
                        named.push(seen.holder.clone());
                    }
                    (None, Ok(_)) => said.push(format!("{}: knows no group {group}", node.name())),
                    (None, Err(e)) => {
                        said.push(format!("{}: {e:#}", node.name()));
                        named.push(None);
                    }
                }
            }
            if let [holder] = active[..]
                && named.iter().all(|name| name.as_deref() == Some(holder.name()))
            {
                return Ok(holder);
            }
            if clock::now() >= deadline {
                bail!(
                    "the nodes have not agreed on a holder of {group} within {patience:?}: {}",
                    said.join("; ")
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Keeps every node from hearing any other, while the clients still reach
    /// all of them (bridge ports that are isolated from each other); or ends that.
    ///
    /// # Errors
    /// When the bridge refuses.
    pub fn partition(&self, apart: bool) -> Result<()> {
        let how = if apart { "on" } else { "off" };
        let lines: String = self
            .nodes
            .iter()
            .flat_map(Node::ports)
            .map(|port| format!("link set {port} type bridge_slave isolated {how}\n"))
            .collect();
        self.switch.ip_batch(&lines)
    }

    /// Keeps `node` and the others from hearing each other, while they hear
    /// one another and the clients reach all of them; or ends that.
    ///
    /// # Errors
    /// When a route is refused.
    pub fn separate(&self, node: &Node, apart: bool) -> Result<()> {
        let how = if apart { "add" } else { "del" };
        for other in self.nodes.iter().filter(|other| other.name() != node.name()) {
            for (at, to) in [(node, other), (other, node)] {
                at.ns().ip(&format!("route {how} blackhole {}/32", to.address()))?;
            }
        }
        Ok(())
    }

    /// Keeps broadcasts from the first client, announcements among them, or ends that. The
    /// nodes are told its hardware address: to ask for that takes a broadcast, too.
    ///
    /// # Errors
    /// When the bridge refuses.
    pub fn keep_broadcasts_from_client(&self, keep: bool) -> Result<()> {
        let client = self.client()?;
        let mac = client.ns.mac(INTERFACE)?;
        for node in &self.nodes {
            node.ns().ip(&format!("neigh replace {} lladdr {mac} dev {INTERFACE}", client.address))?;
        }
        let how = if keep { "off" } else { "on" };
        self.switch.ip(&format!("link set {} type bridge_slave bcast_flood {how}", client.name)).map(drop)
    }

    /// The cluster's key, shared by the nodes of a lab.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.id.dir().join("cluster.key")
    }

    /// Leaves the lab and its agents in place when this handle is dropped, and
    /// after the process has ended. [`cleanup::remove`] takes it away.
    ///
    /// # Errors
    /// When the mark can't be written.
    pub fn keep(&mut self) -> Result<()> {
        self.ownership.as_mut().map_or(Ok(()), cleanup::Ownership::keep)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.ownership = None;
        for node in &self.nodes {
            node.reap();
        }
    }
}

/// The configuration of `node`, as `vip-ctl agent --config` reads it.
fn config_text(spec: &LabSpec, lab: &Lab, node: &Node) -> String {
    let mut text = format!(
        "[node]\nname = \"{}\"\ninterface = \"{INTERFACE}\"\n{}{}\n\
         [cluster]\nname = \"lab\"\nkey_file = \"{}\"\nlease = \"{}\"\n{}",
        node.name(),
        spec.nic.config(),
        if spec.steers { "" } else { "steer = false\n" },
        lab.key_file().display(),
        humantime::format_duration(spec.lease),
        spec.cluster,
    );
    for peer in &lab.nodes {
        let (name, address) = (peer.name(), peer.address());
        text += &format!("[[cluster.node]]\nname = \"{name}\"\naddress = \"{address}:{AGENT_PORT}\"\n");
        if peer.is_witness() {
            text += "witness = true\n";
        }
    }
    let ranks: Vec<String> =
        spec.nodes.iter().filter(|n| !n.witness).map(|n| format!("{} = {}", n.name, n.priority)).collect();
    for group in &spec.groups {
        let vips: Vec<String> = group.vips.iter().map(|vip| format!("\"{vip}\"")).collect();
        text += &format!(
            "\n[[group]]\nname = \"{}\"\nvips = [{}]\npriority = {{ {} }}\npreempt = false\n",
            group.name,
            vips.join(", "),
            ranks.join(", ")
        );
    }
    text
}

/// Calls `ready` every few milliseconds until it is true or `deadline` has
/// passed; returns whether it became true.
pub fn wait_until(deadline: BootNs, mut ready: impl FnMut() -> bool) -> bool {
    loop {
        if ready() {
            return true;
        }
        if clock::now() >= deadline || cleanup::interrupted() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The `vip-ctl` to test: the file named by `VIP_CTL`, else the release build
/// in the target directory that this program itself is in.
///
/// # Errors
/// One sentence that says how to build it.
pub fn find_vip_ctl() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("VIP_CTL").map(PathBuf::from) {
        if !path.is_file() {
            bail!("VIP_CTL names {}, which is not a file", path.display());
        }
        return Ok(path);
    }
    let own = std::env::current_exe().context("finding this program's own file")?;
    own.ancestors()
        .map(|dir: &Path| dir.join("release/vip-ctl"))
        .find(|path| path.is_file())
        .context("there is no release build of vip-ctl: run `cargo xtask build`")
}

/// The first step of a program that builds labs for people: catches signals, and
/// checks that this process may build a lab. `what` names the program in
/// messages. Returns the `vip-ctl` to run.
///
/// # Errors
/// When this process may not build a lab, or there is no such `vip-ctl`.
pub fn begin(what: &str, vip_ctl: Option<&Path>) -> Result<PathBuf> {
    cleanup::catch_signals()?;
    if let Some(why) = skip::lacking() {
        bail!("{what} {why}: it builds network namespaces and loads XDP programs");
    }
    match vip_ctl {
        Some(path) => path.canonicalize().with_context(|| format!("cannot find {}", path.display())),
        None => find_vip_ctl(),
    }
}
