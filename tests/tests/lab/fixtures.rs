//! Packet fixtures through `BPF_PROG_TEST_RUN`: the real programs in the real
//! kernel, frame in, verdict, bytes and counters out, one row a branch.

mod forwarded;
mod frames;
mod gates;
mod heard;
mod verified;
mod virtual_macs;

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use aya::programs::{
    ProgramInfo, SchedClassifier, TestRun, TestRunOptions, Xdp,
    links::{FdLink, PinnedLink},
    loaded_programs,
};
use nix::sched::{CloneFlags, unshare};
use vip_common::{
    Counter::{self, *},
    Fence, GroupMode, Heard, IfaceConfig, Lease, VipSlot,
    counter::COUNTERS,
    event::EventKind,
    heartbeat::{
        Admits, HEADER_LEN, HEADER_TAG_AT, HeaderKey, KIND_DATA, SessionBounds, SessionKey, WIRE_VERSION,
    },
    layout::ANYWHERE,
    names,
    verdict::{CLASSES, Class, Verdict, ruling},
};
use vip_ctl::{
    clock,
    dataplane::{
        Site, bpffs,
        heartbeat::HeartbeatGuard,
        load::{Loaded, load},
        local_in::{self, LocalIn},
        observe::Events,
    },
};
use vip_tests::lab::wire::{run_netfilter, run_socket_filter};
use vip_tests_macros::lab_test;

use self::frames::{arp, datagram, ethernet, ipv4};

const VIP: [u8; 4] = [10, 77, 9, 1];
const OTHER: [u8; 4] = [10, 77, 9, 99];
const CLIENT: [u8; 4] = [10, 77, 9, 50];
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// A test run without a context comes in by the loopback device.
const TEST_IFINDEX: u32 = 1;
/// Long enough that no lease of a row runs out while it is looked at.
const HOLD: Duration = Duration::from_secs(30);

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const TC_NEXT: u32 = u32::MAX;
const TC_DROP: u32 = 2;
const TC_REDIRECT: u32 = 7;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

/// What the lease map says while a row runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    OpenByHand,
    NoLease,
    Expired,
    /// Ends further away than any lease of the group can.
    TooFar,
    /// The lease word of a group that is worked by hand, in a group that an agent has.
    ByHandInCluster,
}

const CLOSED: [(State, usize); 4] =
    [(State::NoLease, 0), (State::Expired, 1), (State::TooFar, 2), (State::ByHandInCluster, 2)];

/// Every state of a lease, with what the fence says of it.
const STATES: [(State, Fence); 6] = [
    (State::Open, Fence::Open),
    (State::OpenByHand, Fence::Open),
    (State::NoLease, Fence::NoLease),
    (State::Expired, Fence::Expired),
    (State::TooFar, Fence::Invalid),
    (State::ByHandInCluster, Fence::Invalid),
];

/// The two programs on the way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Xdp,
    Tc,
}

/// The programs over maps of their own, which are removed again.
struct Bench {
    way: Way,
    loaded: Loaded,
    events: Events,
    dir: PathBuf,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // A test that failed has said so already.
        let _ = bpffs::remove(&self.dir);
    }
}

impl Bench {
    /// One for each way in.
    fn both(name: &str) -> Result<[Self; 2]> {
        let mut at_tc = Self::new(&format!("{name}-tc"))?;
        at_tc.way = Way::Tc;
        Ok([Self::new(name)?, at_tc])
    }

    fn new(name: &str) -> Result<Self> {
        let dir = PathBuf::from(format!("/sys/fs/bpf/vip-fixtures-{}-{name}", std::process::id()));
        let mut loaded = load(&dir, 16)?;
        let group = loaded.plane.put_group("db", GroupMode::Cluster, HOLD)?;
        loaded.plane.put_vips([(IpAddr::from(VIP), group, Site::default())])?;
        let iface = IfaceConfig { mac: OUR_MAC, ..IfaceConfig::default() };
        loaded.plane.set_iface(TEST_IFINDEX, iface)?;
        let events = Events::open(&dir)?;
        Ok(Self { way: Way::Xdp, loaded, events, dir })
    }

    /// Gives the VIP another interface of its own.
    fn set_home(&mut self, home: u32) -> Result<()> {
        let group = self.loaded.plane.find_group("db")?.index;
        self.loaded.plane.put_vips([(IpAddr::from(VIP), group, Site { home, ..Site::default() })])?;
        Ok(())
    }

    fn set(&mut self, state: State) -> Result<()> {
        let mode = if state == State::OpenByHand { GroupMode::Manual } else { GroupMode::Cluster };
        let plane = &mut self.loaded.plane;
        let group = plane.put_group("db", mode, HOLD)?;
        let now = clock::now();
        plane.leases().store(
            group,
            match state {
                State::Open => Lease::until(now.plus(HOLD / 2)),
                State::OpenByHand | State::ByHandInCluster => Lease::MANUAL,
                State::NoLease => Lease::NONE,
                State::Expired => Lease(now.0 - 1),
                State::TooFar => Lease::until(now.plus(HOLD * 2)),
            },
        );
        Ok(())
    }

    /// Runs the program on the way in; the verdict is in XDP's words.
    fn way_in(&mut self, frame: &[u8]) -> Result<(u32, Vec<u8>)> {
        if self.way == Way::Tc {
            let (verdict, out) = self.tc(names::PROG_INGRESS_TC, frame)?;
            let verdict = match verdict {
                TC_NEXT => XDP_PASS,
                TC_DROP => XDP_DROP,
                TC_REDIRECT => XDP_TX,
                other => bail!("the program returns {other}"),
            };
            return Ok((verdict, out));
        }
        let program: &mut Xdp =
            self.loaded.ebpf.program_mut(names::PROG_INGRESS).context("ingress")?.try_into()?;
        run(program, frame)
    }

    fn tc(&mut self, name: &str, frame: &[u8]) -> Result<(u32, Vec<u8>)> {
        let program: &mut SchedClassifier = self.loaded.ebpf.program_mut(name).context("gate")?.try_into()?;
        run(program, frame)
    }

    /// Runs the gate at IP level, which is attached in a namespace of its own until the
    /// pins go; the verdict is in netfilter's words.
    fn gate_at_ip_level(&mut self, frame: &[u8]) -> Result<u32> {
        let pin = |program| bpffs::links_dir(&self.dir).join(program);
        let (link, asked) = (pin(names::PROG_LOCAL_IN), pin(names::PROG_LOCAL_IN_NFT));
        if !link.exists() && !asked.exists() {
            let (ebpf, dir) = (&self.loaded.ebpf, &self.dir);
            let attached = std::thread::scope(|scope| {
                let inside = scope.spawn(|| {
                    unshare(CloneFlags::CLONE_NEWNET)?;
                    anyhow::Ok(local_in::attach(ebpf, dir)?)
                });
                inside.join().map_err(|_| anyhow!("attaching panicked"))?
            })?;
            ensure!(attached == LocalIn::Attached, "{attached:?}");
        }
        if !link.exists() {
            let program = ProgramInfo::from_pin(asked)?;
            let drops = run_socket_filter(program.fd()?.as_fd(), frame)? != 0;
            return Ok(if drops { NF_DROP } else { NF_ACCEPT });
        }
        let id = FdLink::from(PinnedLink::from_pin(link)?).info()?.program_id();
        let program = loaded_programs().filter_map(Result::ok).find(|program| program.id() == id);
        run_netfilter(program.context("the link's program")?.fd()?.as_fd(), frame)
    }

    /// Every counter of the VIP and of the node.
    fn counters(&self) -> Result<Vec<u64>> {
        let plane = &self.loaded.plane;
        let entry = plane.vips()?.remove(&IpAddr::from(VIP)).context("the VIP")?;
        let mut all = plane.counters(entry.slot)?.frames.to_vec();
        all.extend(plane.counters(VipSlot::NODE)?.frames);
        Ok(all)
    }

    /// Runs a row and tells exactly which counters rose.
    fn counted<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<(T, Vec<Counter>)> {
        let before = self.counters()?;
        let result = run(self)?;
        let after = self.counters()?;
        let both = COUNTERS.iter().chain(COUNTERS);
        let mut rose = Vec::new();
        for (counter, (before, after)) in both.zip(before.iter().zip(&after)) {
            for _ in *before..*after {
                rose.push(*counter);
            }
        }
        Ok((result, rose))
    }
}

fn run<P>(program: &P, frame: &[u8]) -> Result<(u32, Vec<u8>)>
where
    P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = aya::programs::TestRunResult>,
{
    let mut out = vec![0; frame.len() + 64];
    let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
    let result = program.test_run(options)?;
    out.truncate(result.data_size_out as usize);
    Ok((result.return_value, out))
}

const TAGS: [&[u16]; 4] = [&[], &[0x8100], &[0x88a8], &[0x88a8, 0x8100]];

#[lab_test]
fn every_cell_of_the_table_of_verdicts() -> Result<()> {
    for mut bench in Bench::both("table")? {
        for &class in CLASSES {
            let (program, frame) = match class {
                Class::ArpRequest | Class::ArpRequestElsewhere => {
                    (names::PROG_INGRESS, ethernet(&[], 0x0806, &arp(1, CLIENT_MAC, CLIENT, VIP)))
                }
                Class::ArpClaim | Class::ArpClaimElsewhere => {
                    (names::PROG_INGRESS, ethernet(&[], 0x0806, &arp(2, PEER_MAC, VIP, VIP)))
                }
                Class::IpIn => (names::PROG_INGRESS, ethernet(&[], 0x0800, &ipv4(CLIENT, VIP, 0, 0))),
                Class::ArpOut | Class::ArpOutElsewhere => {
                    (names::PROG_EGRESS, ethernet(&[], 0x0806, &arp(2, OUR_MAC, VIP, CLIENT)))
                }
                Class::IpOut => (names::PROG_EGRESS, ethernet(&[], 0x0800, &ipv4(VIP, CLIENT, 0, 0))),
                Class::IpLocal => (names::PROG_LOCAL, ethernet(&[], 0x0800, &ipv4(VIP, VIP, 0, 0))),
                Class::IpForward | Class::MacIn | Class::MacOut => continue, // `forwarded`, `virtual_macs`
                Class::IpLocalIn => (names::PROG_LOCAL_IN, ethernet(&[], 0x0800, &ipv4(CLIENT, VIP, 0, 0))),
            };
            let is = |other| program == other;
            let (is_ingress, is_netfilter) = (is(names::PROG_INGRESS), is(names::PROG_LOCAL_IN));
            // IP packets don't ask whose interface it is.
            bench.set_home(if class == class.elsewhere() { TEST_IFINDEX + 1 } else { ANYWHERE })?;
            for (state, fence) in STATES {
                bench.set(state)?;
                let ((returned, _), rose) = bench.counted(|b| match program {
                    names::PROG_INGRESS => b.way_in(&frame),
                    names::PROG_LOCAL_IN => Ok((b.gate_at_ip_level(&frame)?, Vec::new())),
                    gate => b.tc(gate, &frame),
                })?;
                let ruling = ruling(class, fence);
                let expected = match (ruling.verdict, is_ingress) {
                    (Verdict::Drop, false) if is_netfilter => NF_DROP,
                    (Verdict::Pass | Verdict::Answer | Verdict::Steer, false) if is_netfilter => NF_ACCEPT,
                    (Verdict::Pass, true) => XDP_PASS,
                    (Verdict::Drop, true) => XDP_DROP,
                    (Verdict::Answer | Verdict::Steer, true) => XDP_TX,
                    (Verdict::Drop, false) => TC_DROP,
                    (Verdict::Pass | Verdict::Answer | Verdict::Steer, false) => TC_NEXT,
                };
                assert_eq!(
                    (returned, rose),
                    (expected, Vec::from_iter(ruling.counter)),
                    "{class:?} {state:?}"
                );
                let told = bench.events.next().map(|event| event.kind);
                assert_eq!(told, ruling.event.map(|kind| kind as u32), "{class:?} {state:?}");
                assert!(bench.events.next().is_none(), "{class:?} {state:?}");
            }
        }
    }
    Ok(())
}

#[lab_test]
fn arp_requests() -> Result<()> {
    for mut bench in Bench::both("arp")? {
        for tags in TAGS {
            // An ordinary request, and an address probe (RFC 5227).
            for sender in [CLIENT, [0; 4]] {
                let frame = ethernet(tags, 0x0806, &arp(1, CLIENT_MAC, sender, VIP));
                for open in [State::Open, State::OpenByHand] {
                    bench.set(open)?;
                    let ((verdict, out), rose) = bench.counted(|b| b.way_in(&frame))?;
                    assert_eq!(verdict, XDP_TX, "{open:?} {tags:x?}");
                    let at = 14 + 4 * tags.len();
                    let mut expected = frame.clone();
                    expected[..6].copy_from_slice(&CLIENT_MAC);
                    expected[6..12].copy_from_slice(&OUR_MAC);
                    let mut reply = arp(2, OUR_MAC, VIP, sender);
                    reply[18..24].copy_from_slice(&CLIENT_MAC);
                    expected[at..at + 28].copy_from_slice(&reply);
                    assert_eq!(out, expected, "{open:?} {tags:x?}");
                    assert_eq!(rose, [ArpRequestAnswered]);
                }
                for (state, which) in CLOSED {
                    bench.set(state)?;
                    let ((verdict, out), rose) = bench.counted(|b| b.way_in(&frame))?;
                    assert_eq!((verdict, &out), (XDP_DROP, &frame), "{state:?} {tags:x?}");
                    let counter = [ArpRequestNoLease, ArpRequestExpired, ArpRequestInvalid][which];
                    assert_eq!(rose, [counter], "{state:?}");
                }
            }
        }
    }
    Ok(())
}

#[lab_test]
fn ip_to_the_vip() -> Result<()> {
    for mut bench in Bench::both("ip")? {
        let packets = [
            ipv4(CLIENT, VIP, 0, 0),
            ipv4(CLIENT, VIP, 0, 3),      // with options
            ipv4(CLIENT, VIP, 0x2000, 0), // first fragment
            ipv4(CLIENT, VIP, 0x00b9, 0), // a later one, without ports
        ];
        for tags in TAGS {
            for packet in &packets {
                let frame = ethernet(tags, 0x0800, packet);
                for open in [State::Open, State::OpenByHand] {
                    bench.set(open)?;
                    let ((verdict, out), rose) = bench.counted(|b| b.way_in(&frame))?;
                    assert_eq!((verdict, out, rose), (XDP_PASS, frame.clone(), vec![IpInPassed]), "{open:?}");
                }
                for (state, which) in CLOSED {
                    bench.set(state)?;
                    let ((verdict, out), rose) = bench.counted(|b| b.way_in(&frame))?;
                    let counter = [IpInNoLease, IpInExpired, IpInInvalid][which];
                    assert_eq!((verdict, out, rose), (XDP_DROP, frame.clone(), vec![counter]), "{state:?}");
                }
            }
        }
    }
    Ok(())
}

#[lab_test]
fn claims_of_the_vip_by_others() -> Result<()> {
    for mut bench in Bench::both("claim")? {
        for (state, counter, kind) in [
            (State::Open, ArpClaimConflict, EventKind::ClaimConflict),
            (State::NoLease, ArpClaimSeen, EventKind::ClaimSeen),
            (State::Expired, ArpClaimSeen, EventKind::ClaimSeen),
        ] {
            bench.set(state)?;
            for op in [1, 2] {
                let frame = ethernet(&[], 0x0806, &arp(op, PEER_MAC, VIP, VIP));
                let ((verdict, out), rose) = bench.counted(|b| b.way_in(&frame))?;
                assert_eq!((verdict, out, rose), (XDP_PASS, frame.clone(), vec![counter]), "{state:?} {op}");
                let event = bench.events.next().context("an event")?;
                assert_eq!((event.kind, event.vip, event.mac), (kind as u32, VIP, PEER_MAC));
                assert_eq!(event.ifindex, TEST_IFINDEX);
                assert!(bench.events.next().is_none());
            }
            let own = ethernet(&[], 0x0806, &arp(1, OUR_MAC, VIP, VIP));
            let ((verdict, _), rose) = bench.counted(|b| b.way_in(&own))?;
            assert_eq!((verdict, rose), (XDP_PASS, vec![]), "our own announcement, echoed");
            assert!(bench.events.next().is_none());
        }
    }
    Ok(())
}

#[lab_test]
fn what_is_none_of_our_business_passes_untouched() -> Result<()> {
    for mut bench in Bench::both("foreign")? {
        bench.set(State::NoLease)?;
        let mut odd_arp = arp(1, CLIENT_MAC, CLIENT, VIP);
        odd_arp[4] = 8; // hardware addresses of eight bytes: not Ethernet's
        let rows = [
            ("ARP for another address", ethernet(&[], 0x0806, &arp(1, CLIENT_MAC, CLIENT, OTHER))),
            ("ARP reply between others", ethernet(&[], 0x0806, &arp(2, CLIENT_MAC, CLIENT, OTHER))),
            ("ARP of another kind", ethernet(&[], 0x0806, &odd_arp)),
            ("IPv4 to another address", ethernet(&[], 0x0800, &ipv4(CLIENT, OTHER, 0, 0))),
            ("IPv4 from the VIP, coming in", ethernet(&[], 0x0800, &ipv4(VIP, CLIENT, 0, 0))),
            ("IPv6", ethernet(&[], 0x86dd, &[0x60; 40])),
            ("an unknown protocol", ethernet(&[0x8100], 0x88cc, &[0; 40])),
        ];
        for (what, frame) in rows {
            let ((verdict, out), rose) = bench.counted(|b| b.way_in(&frame))?;
            assert_eq!((verdict, out, rose), (XDP_PASS, frame, vec![]), "{what}");
        }
        let tagged = ethernet(&[0x88a8, 0x8100, 0x8100], 0x0800, &ipv4(CLIENT, VIP, 0, 0));
        let ((verdict, out), rose) = bench.counted(|b| b.way_in(&tagged))?;
        assert_eq!((verdict, out, rose), (XDP_PASS, tagged.clone(), vec![FrameTagged]), "a third tag");
        let ((verdict, _), rose) = bench.counted(|b| b.tc(names::PROG_EGRESS, &tagged))?;
        assert_eq!((verdict, rose), (TC_DROP, vec![FrameTaggedOut]), "a third tag on the way out");
    }
    Ok(())
}

#[lab_test]
fn truncated_frames_pass_on_the_way_in_and_are_held_back_on_the_way_out() -> Result<()> {
    for mut bench in Bench::both("short")? {
        bench.set(State::Open)?;
        // With the length that the way in needs, and the one that the gate needs.
        let whole = [
            (ethernet(&[], 0x0806, &arp(1, CLIENT_MAC, CLIENT, VIP)), 14 + 28, 14 + 28),
            (ethernet(&[0x8100], 0x0800, &ipv4(CLIENT, VIP, 0, 0)), 18 + 20, 18 + 16),
        ];
        for (frame, needed, needed_out) in whole {
            // The kernel's test run wants at least an Ethernet header.
            for len in 14..needed {
                let cut = &frame[..len];
                let ((verdict, out), rose) = bench.counted(|b| b.way_in(cut))?;
                assert_eq!((verdict, &out[..], rose), (XDP_PASS, cut, vec![FrameTruncated]), "{len} bytes");
                let ((verdict, _), rose) = bench.counted(|b| b.tc(names::PROG_EGRESS, cut))?;
                let held_back = (TC_DROP, vec![FrameTruncatedOut]);
                let expected = if len < needed_out { held_back } else { (TC_NEXT, vec![]) };
                assert_eq!((verdict, rose), expected, "{len} bytes on the way out");
            }
            let ((verdict, _), _) = bench.counted(|b| b.way_in(&frame[..needed]))?;
            assert_ne!(verdict, XDP_DROP, "{needed} bytes are enough");
        }
    }
    Ok(())
}

#[lab_test]
fn a_mac_that_is_not_known_is_not_made_up() -> Result<()> {
    let dir = PathBuf::from(format!("/sys/fs/bpf/vip-fixtures-{}-nomac", std::process::id()));
    let mut loaded = load(&dir, 16)?;
    let group = loaded.plane.put_group("db", GroupMode::Cluster, HOLD)?;
    loaded.plane.put_vips([(IpAddr::from(VIP), group, Site::default())])?;
    let events = Events::open(&dir)?;
    let mut bench = Bench { way: Way::Xdp, loaded, events, dir };
    bench.set(State::Open)?;
    let frame = ethernet(&[], 0x0806, &arp(1, CLIENT_MAC, CLIENT, VIP));
    let ((verdict, out), rose) = bench.counted(|b| b.way_in(&frame))?;
    assert_eq!((verdict, out, rose), (XDP_DROP, frame, vec![ArpRequestNoMac]));
    Ok(())
}

#[lab_test]
fn what_comes_to_the_agents_port() -> Result<()> {
    const RUNS: usize = 400;
    for mut bench in Bench::both("heartbeat")? {
        let mut guard = HeartbeatGuard::open(&bench.dir)?;
        let key = HeaderKey::new(*b"sixteen bytes of");
        let keys = [SessionKey::default(), SessionKey::new(9, key)];
        let bounds = SessionBounds { from: 1, to: 2, highest: u64::from(u32::MAX), keys };
        let payload = |counter: u64| {
            let mut header = [0; HEADER_LEN];
            (header[0], header[1], header[2], header[37], header[45]) = (WIRE_VERSION, KIND_DATA, 9, 1, 2);
            header[46..54].copy_from_slice(&counter.to_be_bytes());
            let tag = key.tag(&header);
            header[HEADER_TAG_AT..].copy_from_slice(&tag.to_le_bytes());
            [&header[..], &[7; 20]].concat()
        };
        let (new, old) = (payload(bounds.highest + 1), payload(bounds.highest));
        for (agent, peer) in [("10.77.9.10:7077", "10.77.9.11:7077"), ("[fd77::a]:7077", "[fd77::b]:7077")] {
            let (agent, peer): (SocketAddr, SocketAddr) = (agent.parse()?, peer.parse()?);
            let stranger = SocketAddr::new(peer.ip(), 7078);
            let mut dropped = |source, bytes: &[u8]| {
                let frame = datagram(source, agent, bytes);
                let (runs, rose) = bench.counted(|bench| {
                    (0..RUNS).map(|_| Ok(bench.way_in(&frame)?.0)).collect::<Result<Vec<u32>>>()
                })?;
                let dropped = runs.iter().filter(|verdict| **verdict == XDP_DROP).count();
                assert_eq!(rose.len(), dropped, "each is counted, and nothing else: {rose:?}");
                Ok::<_, anyhow::Error>((dropped, rose.first().copied()))
            };
            // All of RUNS but about one in sixteen, chosen at random.
            let most = RUNS * 8 / 10..RUNS;
            assert_eq!(dropped(stranger, &new)?, (0, None), "no agent listens");
            guard.admit(agent, [(peer, Admits::All)])?;
            let (strangers, counter) = dropped(stranger, &new)?;
            assert!(most.contains(&strangers) && counter == Some(HeartbeatStranger), "{strangers}");
            assert_eq!(dropped(peer, b"x")?, (0, None));
            guard.admit(agent, [(peer, Admits::Payloads(bounds))])?;
            assert_eq!(dropped(peer, &new)?, (0, None));
            let mut forged = payload(bounds.highest + 100);
            forged[HEADER_TAG_AT] ^= 1;
            for bytes in [&new[..HEADER_LEN - 1], b""] {
                let (flood, counter) = dropped(peer, bytes)?;
                assert!(most.contains(&flood) && counter == Some(HeartbeatFlood), "{flood} {bytes:?}");
            }
            // Almost nothing passes that names the session and is no new payload.
            for bytes in [&old, &forged] {
                let (flood, counter) = dropped(peer, bytes)?;
                assert!(flood >= RUNS * 95 / 100 && counter == Some(HeartbeatFlood), "{flood} {bytes:?}");
            }
            // A former peer is a stranger.
            guard.admit(agent, [])?;
            assert_eq!(dropped(peer, &new)?.1, Some(HeartbeatStranger));
            guard.lift()?;
            assert_eq!(dropped(stranger, &new)?, (0, None));
        }
    }
    Ok(())
}
