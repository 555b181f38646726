//! Nodes with Docker on them: its containers and its published ports reach the holder, and
//! never a service of their own host's without the lease.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_tests::lab::docker::Docker;
use vip_tests::lab::echo::{EchoServer, ask_tcp, ask_udp};
use vip_tests::lab::rig::{ArpProbes, Rig};
use vip_tests::lab::{
    GROUP, LEASE, Lab, LabSpec, Netns, Node, SERVICE_PORT, VIP, clock, find_vip_ctl, wait_until,
};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long a question may stay unanswered where no answer is expected.
const BRIEF: Duration = Duration::from_millis(500);
/// The service of the node itself, at the VIP.
const AT_HOST: SocketAddrV4 = SocketAddrV4::new(VIP, SERVICE_PORT);
/// The port that each node publishes for its first container.
const PUBLISHED: u16 = SERVICE_PORT + 1;
const AT_CONTAINER: SocketAddrV4 = SocketAddrV4::new(VIP, PUBLISHED);

/// A cluster whose nodes have Docker.
struct Swarm {
    rig: Rig,
    // By node.
    dockers: Vec<(String, Docker)>,
    _echoes: Vec<EchoServer>,
}

/// How a node's published service is called, by whether a container's own network asks (its
/// proxy answers) or anybody else.
fn published(node: &str, through: &str) -> String {
    format!("{node}-{through}")
}

impl Swarm {
    fn new() -> Result<Self> {
        let spec = LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?));
        let lab = Lab::new(&spec)?;
        let (mut dockers, mut echoes) = (Vec::new(), Vec::new());
        for node in lab.nodes() {
            node.ns().enter(|| std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1"))??;
            let docker = Docker::install(&lab, node, PUBLISHED)?;
            let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PUBLISHED);
            let served = published(node.name(), "container");
            echoes.push(EchoServer::start(&docker.containers[0], &served, any)?);
            // Docker's own process for the port, which takes what is not translated.
            echoes.push(EchoServer::start(node.ns(), &published(node.name(), "proxy"), any)?);
            dockers.push((node.name().to_owned(), docker));
        }
        let rig = Rig::start(lab, &spec, ArpProbes::On, |_| ())?;
        Ok(Self { rig, dockers, _echoes: echoes })
    }

    fn node(&self, name: &str) -> Result<&Node> {
        self.rig.lab.node(name)
    }

    /// Who may be answered, and by whom, while `holder` has the VIP; not on `but`, where no
    /// agent runs.
    fn reach(&self, holder: &str, but: Option<&str>) -> Result<()> {
        let client = &self.rig.lab.client()?.ns;
        reaches("the client", client, AT_HOST, holder)?;
        reaches("the client", client, AT_CONTAINER, &published(holder, "container"))?;
        for (on, docker) in self.dockers.iter().filter(|(on, _)| Some(&**on) != but) {
            let host = self.node(on)?.ns();
            let [first, second] = &docker.containers;
            let askers =
                [("the host", host), ("1st", first), ("2nd", second), ("another network", &docker.other)];
            for (who, from) in askers {
                reaches(&format!("{who} on {on}"), from, AT_HOST, holder)?;
            }
            let through = if on == holder { "proxy" } else { "container" };
            for (who, from) in [("1st", first), ("2nd", second)] {
                reaches(&format!("{who} on {on}"), from, AT_CONTAINER, &published(holder, through))?;
            }
            if on == holder {
                reaches(on, host, AT_CONTAINER, &published(holder, "container"))?;
            } else {
                // Docker translates these to its own container, before they can be routed.
                self.unreached(on, &[("the host", host), ("another network", &docker.other)], AT_CONTAINER)?;
            }
        }
        Ok(())
    }

    /// Nobody of these is answered by the node that they are on.
    fn unreached(&self, on: &str, askers: &[(&str, &Netns)], at: SocketAddrV4) -> Result<()> {
        for (who, from) in askers {
            for ask in [ask_tcp, ask_udp] {
                let said = ask(from, at, BRIEF);
                ensure!(
                    said.as_deref().map_or(true, |by| !by.starts_with(on)),
                    "{who} on {on} at {at}, without the lease: answered by {said:?}"
                );
            }
        }
        Ok(())
    }

    /// The same for all that is on a node.
    fn unreached_on(&self, on: &str) -> Result<()> {
        let (_, docker) = self.dockers.iter().find(|(name, _)| name == on).context("no such node")?;
        let [first, second] = &docker.containers;
        let host = self.node(on)?.ns();
        let askers =
            [("the host", host), ("1st", first), ("2nd", second), ("another network", &docker.other)];
        [AT_HOST, AT_CONTAINER].iter().try_for_each(|at| self.unreached(on, &askers, *at))
    }
}

/// The route follows the lease a moment after the map does.
fn reaches(who: &str, from: &Netns, at: SocketAddrV4, by: &str) -> Result<()> {
    for ask in [ask_tcp, ask_udp] {
        let mut said = Ok(String::new());
        wait_until(clock::now().plus(PATIENCE), || {
            said = ask(from, at, BRIEF);
            said.as_deref().is_ok_and(|answer| answer == by)
        });
        assert_eq!(said.with_context(|| format!("{who} at {at}"))?, by, "{who} at {at}");
    }
    Ok(())
}

#[lab_test("nft")]
fn containers_and_published_ports_reach_the_holder_and_never_a_host_without_the_lease() -> Result<()> {
    let swarm = Swarm::new()?;
    let first = swarm.rig.holder()?.name().to_owned();
    swarm.reach(&first, None)?;

    let start = clock::now();
    swarm.node(&first)?.succeed(&["switchover", GROUP])?;
    let second = swarm.rig.expect_move(start, &first)?.0.name().to_owned();
    swarm.reach(&second, None).context("after a planned move")?;

    let start = clock::now();
    swarm.node(&second)?.kill_agent()?;
    let third = swarm.rig.expect_move(start, &second)?.0.name().to_owned();
    swarm.unreached_on(&second).context("the agent is killed")?;
    swarm.reach(&third, Some(&second)).context("after the agent was killed")?;
    swarm.node(&second)?.start_agent()?;
    swarm.rig.lab.wait_quorate(PATIENCE)?;
    swarm.reach(&third, None).context("the agent is back")
}
