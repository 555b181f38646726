//! A node with Docker's networks as Docker makes them by default: the bridge `docker0` with
//! containers as its ports, a network of somebody's own beside it, and its rules for both,
//! as its nftables backend and `iptables-nft` write them. Docker itself does not run.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use super::load::nft;
use super::{INTERFACE, Lab, Netns, Node};

/// The default network's bridge.
pub const DOCKER0: &str = "docker0";
/// The bridge of a network that `docker network create` made.
pub const OWN_NETWORK: &str = "br-app";

/// See the module.
#[derive(Debug)]
pub struct Docker {
    /// Two containers on [`DOCKER0`], of which the first one's port is published.
    pub containers: [Netns; 2],
    /// One on [`OWN_NETWORK`].
    pub other: Netns,
}

impl Docker {
    /// The first container's address, which is the same on all nodes.
    pub const FIRST: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);

    /// Sets it up on `node`; the first container's `port` is published on all addresses.
    ///
    /// # Errors
    /// When `ip` or `nft` fails.
    pub fn install(lab: &Lab, node: &Node, port: u16) -> Result<Self> {
        let host = node.ns();
        for (bridge, gateway) in [(DOCKER0, "172.17.0.1"), (OWN_NETWORK, "172.18.0.1")] {
            host.ip_batch(&format!(
                "link add {bridge} type bridge\naddr add {gateway}/16 dev {bridge}\nlink set {bridge} up\n"
            ))?;
        }
        let container = |number: u8, bridge: &str, [a, b]: [u8; 2]| {
            let ns = Netns::create(&lab.id().netns(&format!("{}-c{number}", node.name())))?;
            host.ip_batch(&format!(
                "link add veth{number} type veth peer name {INTERFACE} netns {}\n\
                 link set veth{number} master {bridge} up\n",
                ns.name()
            ))?;
            ns.ip_batch(&format!(
                "addr add {a}.{b}.0.{number}/16 dev {INTERFACE}\nlink set {INTERFACE} up\n\
                 route add default via {a}.{b}.0.1\n"
            ))?;
            Ok::<_, anyhow::Error>(ns)
        };
        let docker = Self {
            containers: [container(2, DOCKER0, [172, 17])?, container(3, DOCKER0, [172, 17])?],
            other: container(4, OWN_NETWORK, [172, 18])?,
        };
        host.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))??;
        nft(host, &rules(port)).with_context(|| format!("Docker's rules on {}", node.name()))?;
        Ok(docker)
    }
}

/// Docker's rules, with a process that answers on the published port beside them
/// (`userland-proxy`, as by default): what comes from the container's own network is not
/// translated.
fn rules(port: u16) -> String {
    let first = Docker::FIRST;
    let published = format!("iifname != {DOCKER0} meta l4proto {{ tcp, udp }} th dport {port}");
    format!(
        "table ip nat {{ \
           chain DOCKER {{ iifname {DOCKER0} return; {published} dnat to {first}; }}; \
           chain PREROUTING {{ type nat hook prerouting priority dstnat; \
             fib daddr type local jump DOCKER; }}; \
           chain OUTPUT {{ type nat hook output priority -100; \
             ip daddr != 127.0.0.0/8 fib daddr type local jump DOCKER; }}; \
           chain POSTROUTING {{ type nat hook postrouting priority srcnat; \
             ip saddr 172.17.0.0/16 oifname != {DOCKER0} masquerade; \
             ip saddr 172.18.0.0/16 oifname != {OWN_NETWORK} masquerade; }}; \
         }}; \
         table ip raw {{ \
           chain PREROUTING {{ type filter hook prerouting priority raw; \
             ip daddr {first} iifname != {DOCKER0} drop; }}; \
         }}; \
         table ip filter {{ \
           chain FORWARD {{ type filter hook forward priority filter; policy drop; \
             ct state related,established accept; \
             oifname {DOCKER0} ip daddr {first} meta l4proto {{ tcp, udp }} th dport {port} accept; \
             iifname {DOCKER0} oifname {OWN_NETWORK} drop; iifname {OWN_NETWORK} oifname {DOCKER0} drop; \
             iifname {{ {DOCKER0}, {OWN_NETWORK} }} accept; }}; \
         }}"
    )
}
