//! A virtual machine on a node: its cable is a port of the bridge that is the node's
//! interface, so that it is on the segment as clients are. vip does not run there.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use super::{Client, INTERFACE, Lab, Netns, Node};

/// See the module.
#[derive(Debug)]
pub struct Guest {
    /// Its namespace, its address in the VIPs' subnet, and its name.
    pub host: Client,
    /// The node that it is on.
    node: Netns,
    /// The node's end of its cable, as libvirt calls it.
    pub port: String,
}

impl Guest {
    /// Starts a guest on `node`, whose interface has to be a bridge, with the address
    /// 10.77.0.`number`. `mac` is the hardware address of the node's end, where that is of
    /// interest: without one of its own, a bridge has the lowest of its ports'.
    ///
    /// # Errors
    /// When `ip` fails, also because the lab has that address already.
    pub fn start(lab: &Lab, node: &Node, number: u8, mac: Option<&str>) -> Result<Self> {
        let name = format!("guest{number}");
        let ns = Netns::create(&lab.id().netns(&name))?;
        let (port, address) = (format!("vnet{number}"), Ipv4Addr::new(10, 77, 0, number));
        // As libvirt does: higher than every card's, unless somebody wants it otherwise.
        let mac = mac.map_or_else(|| format!("fe:54:00:00:00:{number:02x}"), str::to_owned);
        node.ns()
            .ip_batch(&format!(
                "link add {port} address {mac} type veth peer name {INTERFACE} netns {}\n\
                 link set {port} master {INTERFACE} up\n",
                ns.name()
            ))
            .with_context(|| format!("plugging {name} into the bridge of {}", node.name()))?;
        ns.ip_batch(&format!("addr add {address}/24 dev {INTERFACE}\nlink set {INTERFACE} up\n"))?;
        Ok(Self { host: Client { name, ns, address }, node: node.ns().clone(), port })
    }

    /// Ends it: its cable goes.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn stop(self) -> Result<()> {
        self.node.ip(&format!("link del {}", self.port)).map(drop)
    }
}
