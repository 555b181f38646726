//! The loop itself, on a node that is its cluster's only voter and has no data
//! plane: what it tells, and in which order.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::sys::eventfd::EfdFlags;
use vip_lease::{
    Eligible, Regroup,
    gate::{GateRule, Gates},
    transport::{Identity, KeyId, KeyRing, Psk, Transport},
};

use super::*;
use crate::{
    agent::messages::{Asker, Tell as _},
    engine::{
        ByGroup, Command, Engine, EngineConfig, Epoch, GroupSpec, GroupState, Incarnation, Label, LabelSpec,
        Labels, NodeSpec, Reason, Reloaded, Role,
    },
};

const ACCEPT: Duration = Duration::from_millis(500);
/// A machine may stand still for long.
const PATIENCE: Duration = Duration::from_secs(30);
const TABLE: u64 = 7;
const ME: NodeId = NodeId(0);

struct Loop {
    asker: Asker,
    notices: Receiver<Notice>,
    thread: JoinHandle<io::Result<()>>,
}

fn label(group: u64) -> LabelSpec {
    LabelSpec { current: Label(group), formers: Vec::new(), asks: Label(group) }
}

fn start(groups: u16) -> Loop {
    let nodes = vec![NodeSpec { role: Role::Node }];
    let specs = vec![GroupSpec::default(); usize::from(groups)];
    let config = EngineConfig::new(ME, Incarnation(1), nodes, specs, ACCEPT);
    let (now, labels) = (clock::now(), (0..groups).map(|group| label(group.into())).collect::<Vec<_>>());
    let identity = Identity {
        me: ME.0,
        incarnation: 1,
        cluster: "shop".into(),
        config_digest: 1,
        generation: 1,
        nodes_digest: 1,
        is_member: true,
        peers: Vec::new(),
    };
    let keys = KeyRing::new((KeyId(1), Psk::new([1; 32])), None).expect("one key");
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    socket.set_nonblocking(true).expect("set");
    let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).expect("made"));
    let ((sender, asks), (tell, notices)) = (channel(), channel());
    let parts = Parts {
        labels: Labels::new(&config, &labels, TABLE, now),
        engine: Engine::new(config, &[], now),
        uncovered: Vec::new(),
        mute: Vec::new(),
        transport: Transport::new(identity, keys, [1; 32]),
        gates: Gates::new(vec![GateRule::default(); usize::from(groups)].into(), &[]),
        me: ME,
    };
    let lease_loop = LeaseLoop {
        parts,
        socket,
        guard: SourceGuard::default(),
        addresses: BTreeMap::new(),
        plane: None,
        asks,
        wake: Arc::clone(&wake),
        tell,
        announcer: channel().0,
        hooks: channel().0,
        prober: channel().0,
    };
    let thread = thread::spawn(move || lease_loop.run());
    let started = Loop { asker: Asker::new(sender, wake), notices, thread };
    assert!(started.asker.eligible((0..groups).map(|group| (GroupId(group), Eligible::Yes)).collect()));
    started
}

impl Loop {
    /// The next change that is told; `None` once the loop has other groups.
    fn next(&self) -> Option<(GroupId, GroupState, Reason)> {
        loop {
            let notice = self.notices.recv_timeout(PATIENCE).expect("a notice");
            if let Notice::Lease(LeaseNotice::Changed { transition: told, .. }) = notice {
                return Some((told.group, told.state, told.reason));
            }
            if matches!(notice, Notice::Lease(LeaseNotice::Regrouped)) {
                return None;
            }
            // How late the machine is, say.
        }
    }

    fn wait_until_active(&self, group: u16) {
        while !matches!(self.next(), Some((of, GroupState::Active, _)) if of == GroupId(group)) {}
    }

    /// Waits for the end; returns the changes of groups that were told by then.
    fn end(self) -> Vec<(GroupId, GroupState)> {
        self.thread.join().expect("no panic").expect("no error");
        let change = |notice| {
            if let Notice::Lease(LeaseNotice::Changed { transition, .. }) = notice {
                Some((transition.group, transition.state))
            } else {
                None
            }
        };
        self.notices.try_iter().filter_map(change).collect()
    }
}

#[test]
fn a_command_about_other_groups_than_the_loop_has_is_not_done() {
    let lease_loop = start(1);
    lease_loop.wait_until_active(0);
    let demote = |table| {
        let command = Command::Demote { group: GroupId(0) };
        lease_loop.asker.ask_for_blocking(|reply| Ask::Command(command, table, reply)).expect("an answer")
    };
    // The number may be that of another group by now.
    assert_eq!(demote(TABLE + 1), Err(Refusal::Busy));
    let snapshot = lease_loop.asker.ask_for_blocking(Ask::Status).expect("an answer");
    assert_eq!(snapshot.engine.groups[GroupId(0)].holder, Some(ME));
    assert!(lease_loop.asker.ask(Ask::Leave));
    lease_loop.end();
}

#[test]
fn groups_that_end_are_given_up_before_others_get_their_numbers() {
    let lease_loop = start(2);
    let mut active = 0;
    while active < 2 {
        active += usize::from(matches!(lease_loop.next(), Some((_, GroupState::Active, _))));
    }
    // The first one ends, and the second one gets its number.
    let regroup = Regroup {
        ended: vec![GroupId(0)],
        groups: vec![Reloaded { was: Some(GroupId(1)), spec: GroupSpec::default(), epoch: Epoch::default() }]
            .into(),
        labels: vec![label(1)],
        table: TABLE + 1,
        index: ByGroup::new(),
        uncovered: Vec::new(),
        mute: Vec::new(),
        rules: vec![GateRule::default()].into(),
    };
    assert!(lease_loop.asker.regroup(regroup));
    let change = lease_loop.next();
    let Some((GroupId(0), state, Reason::Removed)) = change else { panic!("{change:?} before the release") };
    assert_ne!(state, GroupState::Active);
    assert_eq!(lease_loop.next(), None, "and nothing else before the new numbers");
    let snapshot = lease_loop.asker.ask_for_blocking(Ask::Status).expect("an answer");
    let holders: Vec<_> = snapshot.engine.groups.iter().map(|group| group.holder).collect();
    assert_eq!((snapshot.table, holders), (TABLE + 1, vec![Some(ME)]), "it goes on");
    assert!(lease_loop.asker.ask(Ask::Leave));
    lease_loop.end();
}

#[test]
fn a_loop_that_stops_has_released_and_one_that_leaves_has_not() {
    for (ask, released) in [(Ask::Stop, true), (Ask::Leave, false)] {
        let lease_loop = start(1);
        lease_loop.wait_until_active(0);
        assert!(lease_loop.asker.ask(ask));
        let told = lease_loop.end();
        let gave_up = told.iter().any(|(_, state)| *state != GroupState::Active);
        assert_eq!(gave_up, released, "{told:?}");
    }
}
