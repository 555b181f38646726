//! A second network of a lab, with a client: a switch of its own, to which every node that
//! can hold has a cable, or a VLAN on the first one.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::{INTERFACE, Lab, Netns, Node};

/// The VLAN of [`Wan::on_vlan`], and the client's interface below it.
const VLAN: u16 = 7;
const TRUNK: &str = "trunk0";

/// See the module.
#[derive(Debug)]
pub struct Wan {
    /// The client's namespace; its interface is [`INTERFACE`].
    pub client: Netns,
    /// The switch's; its ports have the nodes' names, where it is one of its own.
    pub switch: Netns,
}

impl Wan {
    /// The client's address in 203.0.113.0/29.
    pub const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
    /// A VIP in that subnet.
    pub const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

    /// Makes it; no node has an address there.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn new(lab: &Lab) -> Result<Self> {
        let switch = Netns::create(&lab.id().netns("wan"))?;
        switch.ip_batch(
            "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\nlink set br0 up\n",
        )?;
        let cable = |port: &str, ns: &Netns, end: &str| {
            switch.ip_batch(&format!(
                "link add {port} type veth peer name {end} netns {}\nlink set {port} master br0 up\n",
                ns.name()
            ))?;
            ns.ip(&format!("link set {end} up"))
        };
        for node in lab.candidates() {
            cable(node.name(), node.ns(), &Self::interface(node))?;
        }
        let client = Netns::create(&lab.id().netns("wanclient"))?;
        cable("client", &client, INTERFACE)?;
        client.ip(&format!("addr add {}/29 dev {INTERFACE}", Self::CLIENT))?;
        Ok(Self { client, switch })
    }

    /// Makes it a VLAN on the interfaces that the nodes have already, whose switch lets all tags
    /// through.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn on_vlan(lab: &Lab) -> Result<Self> {
        let vlan = |ns: &Netns, below: &str, name: &str| {
            ns.ip(&format!("link add link {below} name {name} type vlan id {VLAN}"))?;
            ns.ip(&format!("link set {name} up"))
        };
        for node in lab.candidates() {
            vlan(node.ns(), INTERFACE, &Self::interface(node))?;
        }
        let client = Netns::create(&lab.id().netns("wanclient"))?;
        lab.switch().ip_batch(&format!(
            "link add wanclient type veth peer name {TRUNK} netns {}\nlink set wanclient master br0 up\n",
            client.name()
        ))?;
        client.ip(&format!("link set {TRUNK} up"))?;
        vlan(&client, TRUNK, INTERFACE)?;
        client.ip(&format!("addr add {}/29 dev {INTERFACE}", Self::CLIENT))?;
        Ok(Self { client, switch: lab.switch().clone() })
    }

    /// The interface of a node in this network, which has another name on each node.
    #[must_use]
    pub fn interface(node: &Node) -> String {
        format!("wan-{}", node.name())
    }
}
