//! A host behind a node, on a cable of its own: a container, a virtual machine, a
//! neighbour on a second network. vip does not run there, and no program of vip is
//! on its cable.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::{Lab, Netns, Node};

/// The name that the cable has at the host behind the node.
const ITS_END: &str = "up0";

/// See the module.
#[derive(Debug)]
pub struct Beside {
    /// Its namespace.
    pub ns: Netns,
    /// The node's address on the cable.
    pub node: Ipv4Addr,
}

impl Beside {
    /// Links a new namespace to `node`, by a new interface `iface` of that node, in
    /// the subnet 172.31.`subnet`.0/24.
    ///
    /// # Errors
    /// When `ip` fails, also because the lab has that subnet already.
    pub fn new(lab: &Lab, node: &Node, iface: &str, subnet: u8) -> Result<Self> {
        let ns = Netns::create(&lab.id().netns(&format!("beside{subnet}")))?;
        let (ours, its) = (Ipv4Addr::new(172, 31, subnet, 1), Ipv4Addr::new(172, 31, subnet, 2));
        node.ns().ip(&format!("link add {iface} type veth peer name {ITS_END} netns {}", ns.name()))?;
        node.ns().ip(&format!("addr add {ours}/24 dev {iface}"))?;
        node.ns().ip(&format!("link set {iface} up"))?;
        ns.ip(&format!("addr add {its}/24 dev {ITS_END}"))?;
        ns.ip(&format!("link set {ITS_END} up"))?;
        Ok(Self { ns, node: ours })
    }

    /// The node is its router, as a container's host is.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn route_all(&self) -> Result<()> {
        self.ns.ip(&format!("route add default via {}", self.node)).map(drop)
    }

    /// It takes `node` for who has `address`, as one does that has missed what
    /// happened since.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn believes(&self, node: &Node, address: Ipv4Addr, iface: &str) -> Result<()> {
        let mac = node.ns().mac(iface)?;
        self.ns.ip(&format!("route add {address} dev {ITS_END}"))?;
        self.ns.ip(&format!("neigh replace {address} lladdr {mac} dev {ITS_END} nud permanent")).map(drop)
    }
}
