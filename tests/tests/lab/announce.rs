//! What a host on the network hears when many VIPs move at once, and what an agent does that may
//! not announce them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use vip_tests::lab::ears::{Arp, Ears};
use vip_tests::lab::{
    GROUP, GroupSpec, INTERFACE, Lab, LabSpec, Nic, Node, VIP, clock, find_vip_ctl, wait_until,
};
use vip_tests_macros::lab_test;

const LEASE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(30);
/// So many that announcing the VIPs of one group takes longer than the time until the first
/// repeat.
const GROUPS: u8 = 3;
const VIPS_PER_GROUP: u16 = 800;
/// How often the groups move. If the machine stands still while the agent announces, the order
/// can be wrong through no fault of vip; one move in the right order is enough.
const MOVES: usize = 3;

/// The VIPs of a group; more than the lab's own network has room for.
fn vips(group: u8) -> impl Iterator<Item = Ipv4Addr> {
    (0..VIPS_PER_GROUP).map(move |number| {
        let [high, low] = number.to_be_bytes();
        Ipv4Addr::new(10, 80 + group, high, low)
    })
}

fn spec() -> Result<LabSpec> {
    let group = |number| GroupSpec { name: format!("g{number}"), vips: vips(number).collect() };
    let spec = LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)).with_witness();
    Ok(LabSpec { groups: (0..GROUPS).map(group).collect(), ..spec })
}

/// Listens until each of `all` VIPs was announced, and requires that none is repeated before
/// that.
fn firsts_first(ears: &Ears, all: usize) -> Result<()> {
    let deadline = clock::now().plus(PATIENCE);
    let mut once = BTreeSet::new();
    let mut last = None;
    while once.len() < all {
        ensure!(clock::now() < deadline, "{} of {all} VIPs were announced", once.len());
        for vip in ears.hear()?.iter().filter_map(Arp::announced) {
            // The agent sends a VIP again at once if only some of its frames could leave.
            let again = !once.insert(vip) && last != Some(vip) && once.len() < all;
            ensure!(!again, "{vip} again, when {} of {all} VIPs were announced", once.len());
            last = Some(vip);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Puts `node` on standby, which is refused for as long as it does not know
/// that the other one can serve.
fn stand_by(node: &Node) -> Result<()> {
    let stands_by = || node.run(&["standby"]).is_ok_and(|output| output.status.success());
    ensure!(wait_until(clock::now().plus(PATIENCE), stands_by), "{}:\n{}", node.name(), node.log_tail());
    Ok(())
}

/// Waits until `node` has every group.
fn wait_all(node: &Node) -> Result<()> {
    let has_all = || node.status().is_ok_and(|s| s.groups.iter().all(|group| group.state == "active"));
    ensure!(wait_until(clock::now().plus(PATIENCE), has_all), "{}:\n{}", node.name(), node.log_tail());
    Ok(())
}

#[lab_test]
fn each_vip_is_announced_once_before_any_is_announced_again() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    lab.start_agents(PATIENCE)?;
    let [one, two, ..] = lab.nodes() else { bail!("a lab of three") };
    let (mut from, mut to) = (one, two);
    let mut wrong = Vec::new();
    // The first move only brings all groups to one node.
    stand_by(from)?;
    wait_all(to)?;
    from.succeed(&["unstandby"])?;
    for _ in 0..MOVES {
        (from, to) = (to, from);
        let ears = Ears::open(lab.switch(), to.name())?;
        stand_by(from)?;
        let order = firsts_first(&ears, usize::from(GROUPS) * usize::from(VIPS_PER_GROUP));
        let Err(e) = order else { return Ok(()) };
        wrong.push(format!("{e:#}"));
        wait_all(to)?;
        from.succeed(&["unstandby"])?;
    }
    bail!("in each of {MOVES} moves: {}", wrong.join("; "))
}

#[lab_test]
fn a_hardware_address_that_changes_is_announced_at_once() -> Result<()> {
    let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    lab.start_agents(PATIENCE)?;
    let holder = lab.wait_holder(GROUP, PATIENCE)?;
    let ears = Ears::open(&lab.client()?.ns, INTERFACE)?;
    let announced = || -> Result<BTreeSet<[u8; 6]>> {
        let heard = ears.hear()?;
        Ok(heard.iter().filter(|arp| arp.announced() == Some(VIP)).map(|arp| arp.mac).collect())
    };
    // What the agent has read of the maps is fresh, and would serve for ten seconds.
    ensure!(wait_until(clock::now().plus(PATIENCE), || announced().is_ok_and(|macs| macs.len() == 1)));
    holder.ns().ip(&format!("link set {INTERFACE} address 02:00:00:00:77:01"))?;
    let mac = [2, 0, 0, 0, 0x77, 1];
    let start = clock::now();
    let is_told = || announced().is_ok_and(|macs| macs.contains(&mac));
    ensure!(wait_until(start.plus(PATIENCE), is_told), "the new one is never announced");
    let took = clock::now().since(start);
    ensure!(took < Duration::from_secs(6), "announced after {took:?}");
    std::thread::sleep(Duration::from_millis(2_500));
    ensure!(announced()? == BTreeSet::from([mac]), "the former one is announced:\n{}", holder.log_tail());
    Ok(())
}

#[lab_test]
fn a_port_whose_cable_comes_back_hears_where_the_vips_are() -> Result<()> {
    let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)).on(Nic::Bridge))?;
    for node in lab.nodes() {
        // Nothing is announced by itself, after the first time.
        let group = format!("name = \"{GROUP}\"\n");
        let settings = "garp_master_refresh = \"0s\"\ngarp_master_repeat = 1\ngarp_master_delay = \"0s\"\n";
        let text = std::fs::read_to_string(node.config_file())?;
        node.write_config(&text.replace("[node]\n", &format!("[node]\n{settings}")))?;
        // With a second port, a bridge keeps its carrier when the first has none.
        node.ns().ip_batch(&format!(
            "link add guest type veth peer name guest1\nlink set guest master {INTERFACE} up\nlink set guest1 up\n"
        ))?;
        ensure!(text.contains(&group), "{text}");
    }
    lab.start_agents(PATIENCE)?;
    let holder = lab.wait_holder(GROUP, PATIENCE)?;
    let ears = Ears::open(&lab.client()?.ns, INTERFACE)?;
    let announced = || ears.hear().is_ok_and(|heard| heard.iter().any(|arp| arp.announced() == Some(VIP)));
    // Until all is quiet.
    std::thread::sleep(Duration::from_secs(8));
    announced();
    std::thread::sleep(Duration::from_secs(3));
    ensure!(!announced(), "it is announced all the time");
    // Shorter than anybody waits for a holder.
    let switch = lab.switch();
    switch.ip_batch(&format!("link set {0} down\nlink set {0} up\n", holder.name()))?;
    ensure!(wait_until(clock::now().plus(PATIENCE), announced), "nobody says where it is");
    ensure!(lab.wait_holder(GROUP, PATIENCE)?.name() == holder.name(), "it has moved");
    Ok(())
}

/// Takes CAP_NET_RAW away from what `command` starts, for good.
fn without_packet_sockets(command: &mut Command) {
    const CAP_NET_RAW: libc::c_ulong = 13;
    // SAFETY: between fork and exec the closure makes one system call on
    // numbers, and allocates nothing.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_CAPBSET_DROP, CAP_NET_RAW, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

#[lab_test]
fn an_agent_that_can_announce_nothing_does_not_start() -> Result<()> {
    let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    let [mute, others @ ..] = lab.nodes() else { bail!("a lab of three") };
    mute.succeed(&["keygen", lab.key_file().to_str().context("the key file's path")?])?;
    let mut command = mute.vip_ctl()?;
    command.args(["agent", "--config"]).arg(mute.config_file()).stderr(Stdio::piped());
    without_packet_sockets(&mut command);
    let mut agent = command.spawn().context("starting an agent")?;
    if !wait_until(clock::now().plus(PATIENCE), || !matches!(agent.try_wait(), Ok(None))) {
        agent.kill()?;
    }
    let output = agent.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(77) && said.contains("packet socket"), "{output:?}");
    // It has left nothing behind: the other agents work, and so does this one with the
    // capability.
    for node in others {
        node.start_agent()?;
    }
    mute.start_agent()?;
    lab.wait_quorate(PATIENCE)?;
    lab.wait_holder(GROUP, PATIENCE).map(drop)
}
