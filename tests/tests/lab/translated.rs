//! NAT on a node that takes packets for a VIP elsewhere, as a published port of a container
//! does, or a redirection: the lease counts for those, too.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_common::names;
use vip_tests::lab::beside::Beside;
use vip_tests::lab::echo::{EchoServer, ask_tcp, ask_udp};
use vip_tests::lab::load::nft;
use vip_tests::lab::{
    LEASE, Lab, LabSpec, Netns, Node, SERVICE_PORT, VIP, clock, find_vip_ctl, skip, wait_until,
};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long a question may stay unanswered where no answer is expected.
const BRIEF: Duration = Duration::from_millis(500);
const AT_VIP: SocketAddrV4 = SocketAddrV4::new(VIP, SERVICE_PORT);
/// What the service is called that NAT leads to.
const CONTAINER: &str = "the container";

/// A node that publishes a container's port on all of its addresses.
struct Publishing {
    lab: Lab,
    container: Beside,
    client: Beside,
}

impl Publishing {
    fn new() -> Result<Self> {
        let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
        let node = &lab.nodes()[0];
        let container = Beside::new(&lab, node, "docker0", 1)?;
        let client = Beside::new(&lab, node, "second", 2)?;
        container.route_all()?;
        client.route_all()?;
        node.ns().enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))??;
        node.load()?;
        Ok(Self { lab, container, client })
    }

    fn node(&self) -> &Node {
        &self.lab.nodes()[0]
    }

    /// As Docker has it, for what comes from elsewhere and from the host itself.
    fn publish(&self, to: &str) -> Result<()> {
        let rule = format!("fib daddr type local meta l4proto {{ tcp, udp }} th dport {SERVICE_PORT} {to};");
        nft(
            self.node().ns(),
            &format!(
                "table ip docker {{ \
                 chain in {{ type nat hook prerouting priority dstnat; {rule} }}; \
                 chain out {{ type nat hook output priority -100; {rule} }}; }}"
            ),
        )
    }

    /// What is for the VIP is translated at one hook, whatever the routes say of the VIP.
    fn translate(&self, hook: &str, to: &str) -> Result<()> {
        let rule = format!("ip daddr {VIP} meta l4proto {{ tcp, udp }} th dport {SERVICE_PORT} {to}");
        nft(
            self.node().ns(),
            &format!("table ip own {{ chain translate {{ type nat hook {hook} priority -100; {rule}; }}; }}"),
        )
    }

    /// The service answers each of these at the VIP under the lease, and not otherwise.
    fn follows_the_lease(&self, askers: &[(&str, &Netns)], name: &str) -> Result<()> {
        let silent = |when: &str| -> Result<()> {
            for (who, from) in askers {
                for ask in [ask_tcp, ask_udp] {
                    let said = ask(from, AT_VIP, BRIEF);
                    ensure!(said.is_err(), "{who}, {when}: answered by {said:?}");
                }
            }
            Ok(())
        };
        silent("before it was promoted")?;
        self.node().succeed(&["promote"])?;
        for (who, from) in askers {
            for ask in [ask_tcp, ask_udp] {
                let said = ask(from, AT_VIP, PATIENCE).with_context(|| format!("{who}, active"))?;
                assert_eq!(said, name, "{who}");
            }
        }
        self.node().succeed(&["demote"])?;
        silent("after it was demoted")
    }
}

#[lab_test("nft")]
fn a_published_port_leads_to_the_container_only_under_the_lease() -> Result<()> {
    let node = Publishing::new()?;
    let at = SocketAddrV4::new(Ipv4Addr::new(172, 31, 1, 2), SERVICE_PORT);
    let _echo = EchoServer::start(&node.container.ns, CONTAINER, at)?;
    node.publish(&format!("dnat to {}", at.ip()))?;
    let askers = [
        ("another network", &node.client.ns),
        ("the node itself", node.node().ns()),
        ("the segment", &node.lab.client()?.ns),
    ];
    node.follows_the_lease(&askers, CONTAINER)?;
    let shown = node.node().succeed(&["status", "-o", "json"])?;
    ensure!(shown.contains("ip_local_in_drop_no_lease"), "{shown}");
    // What is for the node's own address is none of the gate's business.
    let own = SocketAddrV4::new(node.node().address(), SERVICE_PORT);
    assert_eq!(ask_tcp(&node.client.ns, own, PATIENCE)?, CONTAINER);
    node.node().succeed(&["unload"])?;
    ensure!(!node.node().bpf_dir().exists(), "pins are left");
    Ok(())
}

#[lab_test("nft")]
fn a_redirection_to_another_port_counts_as_the_vip() -> Result<()> {
    let node = Publishing::new()?;
    let any = |port| SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
    let _echo = EchoServer::start(node.node().ns(), CONTAINER, any(SERVICE_PORT + 1))?;
    node.publish(&format!("redirect to :{}", SERVICE_PORT + 1))?;
    node.follows_the_lease(&[("another network", &node.client.ns)], CONTAINER)
}

#[lab_test("nft")]
fn a_redirection_of_the_nodes_own_processes_counts_as_the_vip() -> Result<()> {
    let node = Publishing::new()?;
    let own = SocketAddrV4::new(Ipv4Addr::LOCALHOST, SERVICE_PORT + 1);
    let _echo = EchoServer::start(node.node().ns(), CONTAINER, own)?;
    node.translate("output", &format!("redirect to :{}", own.port()))?;
    node.follows_the_lease(&[("the node itself", node.node().ns())], CONTAINER)
}

#[lab_test("nft")]
fn a_vip_that_is_translated_to_the_nodes_own_address_follows_the_lease() -> Result<()> {
    let node = Publishing::new()?;
    let own = SocketAddrV4::new(node.node().address(), SERVICE_PORT);
    let _echo = EchoServer::start(node.node().ns(), CONTAINER, own)?;
    node.translate("prerouting", &format!("dnat to {}", own.ip()))?;
    let askers = [("another network", &node.client.ns), ("the segment", &node.lab.client()?.ns)];
    node.follows_the_lease(&askers, CONTAINER)?;
    assert_eq!(ask_tcp(&node.client.ns, own, PATIENCE)?, CONTAINER, "at the node's own address");
    Ok(())
}

#[lab_test("nft")]
fn a_connection_through_nat_ends_with_the_lease() -> Result<()> {
    let node = Publishing::new()?;
    let at = SocketAddrV4::new(Ipv4Addr::new(172, 31, 1, 2), SERVICE_PORT);
    node.publish(&format!("dnat to {}", at.ip()))?;
    node.node().succeed(&["promote"])?;
    let listener = node.container.ns.enter(|| std::net::TcpListener::bind(at))??;
    let mut client = node.client.ns.enter(|| TcpStream::connect_timeout(&AT_VIP.into(), PATIENCE))??;
    let (mut service, _) = listener.accept()?;
    client.set_read_timeout(Some(BRIEF))?;
    service.set_read_timeout(Some(BRIEF))?;
    let mut byte = [0];
    client.write_all(b"a")?;
    service.read_exact(&mut byte)?;
    node.node().succeed(&["demote"])?;
    client.write_all(b"b")?;
    ensure!(service.read_exact(&mut byte).is_err(), "the client reaches the service without a lease");
    service.write_all(b"c")?;
    ensure!(client.read_exact(&mut byte).is_err(), "the service reaches the client without a lease");
    // Both are sent again when the lease is back.
    node.node().succeed(&["promote"])?;
    service.set_read_timeout(Some(PATIENCE))?;
    client.set_read_timeout(Some(PATIENCE))?;
    service.read_exact(&mut byte)?;
    client.read_exact(&mut byte)?;
    Ok(())
}

/// Another data plane of vip's on the same host, which takes a place at each hook.
struct Crowd<'n> {
    node: &'n Node,
    numbers: std::ops::Range<usize>,
}

impl<'n> Crowd<'n> {
    fn new(node: &'n Node, numbers: std::ops::Range<usize>) -> Result<Self> {
        let crowd = Self { node, numbers };
        for number in crowd.numbers.clone() {
            let loaded = crowd.run(number, &["load", "--iface", "docker0:tc"])?;
            ensure!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
        }
        Ok(crowd)
    }

    fn dir(&self, number: usize) -> std::path::PathBuf {
        let mut name = self.node.bpf_dir().as_os_str().to_owned();
        name.push(format!("-{number}"));
        name.into()
    }

    fn run(&self, number: usize, args: &[&str]) -> Result<std::process::Output> {
        let mut command = self.node.vip_ctl()?;
        command.env("VIP_BPF_DIR", self.dir(number));
        command.env("VIP_RUN_DIR", self.node.run_dir().join(number.to_string()));
        Ok(command.args(args).output()?)
    }
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        for number in self.numbers.clone() {
            // The lab's own clean-up knows nothing of them.
            let _unloaded = self.run(number, &["unload"]);
        }
    }
}

#[lab_test]
fn a_gate_that_is_refused_behind_nat_alone_is_told_once_and_guards_the_rest() -> Result<()> {
    const TELLS: &str = "the gate at IP level is not behind NAT";
    let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    let node = &lab.nodes()[0];
    let container = Beside::new(&lab, node, "docker0", 1)?;
    container.route_all()?;
    node.load()?;
    let there = |name: &str| node.bpf_dir().join("links").join(name).exists();
    if !there(names::PROG_TRANSLATED) {
        skip::note("a gate behind NAT", "this kernel has none");
        return Ok(());
    }
    node.succeed(&["unload"])?;
    // All places behind NAT are taken, and one for what the host takes as its own is free.
    let crowd = Crowd::new(node, 0..16)?;
    std::fs::remove_file(crowd.dir(0).join("links").join(names::PROG_LOCAL_IN))?;
    lab.start_agents(PATIENCE)?;
    let log = || std::fs::read_to_string(node.log_file()).unwrap_or_default();
    ensure!(there(names::PROG_LOCAL_IN) && !there(names::PROG_TRANSLATED), "{}", log());
    ensure!(log().contains(TELLS), "{}", log());
    ensure!(node.status()?.warnings.iter().any(|warning| warning.contains(TELLS)), "{:?}", node.status()?);
    ensure!(
        String::from_utf8_lossy(&node.run(&["doctor"])?.stdout).contains(TELLS),
        "the doctor says nothing"
    );
    // Long enough for the judge to look twice.
    std::thread::sleep(Duration::from_secs(12));
    ensure!(log().matches(TELLS).count() == 1 && !log().contains("attaching it again"), "{}", log());
    // What is there is watched as ever.
    std::fs::remove_file(node.bpf_dir().join("links").join(names::PROG_LOCAL_IN))?;
    let is_back = || there(names::PROG_LOCAL_IN);
    ensure!(wait_until(clock::now().plus(PATIENCE), is_back), "{}", log());
    assert_eq!(log().matches(TELLS).count(), 1);
    Ok(())
}
