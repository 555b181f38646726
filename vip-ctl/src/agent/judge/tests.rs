//! The judge on an invented host.

use std::{
    cell::{Cell, RefCell},
    sync::mpsc::channel,
    thread,
};

use vip_lease::Regroup;

use super::*;
use crate::{
    config::{Check, CheckKind, Group, Health, Hooks},
    engine::{Epoch, GroupId, Label},
    host::HostError,
};

const PATIENCE: Duration = Duration::from_secs(20);

type Said = Vec<(GroupId, Eligible)>;

/// What the lease loop is told in a test.
struct Loop(Box<dyn Fn(Said) -> bool + Send>);

impl Tell for Loop {
    fn eligible(&self, groups: Said) -> bool {
        (self.0)(groups)
    }

    fn regroup(&self, _: Regroup) -> bool {
        true
    }

    fn ceiling(&self, _: Epoch) -> bool {
        true
    }

    fn announce(&self, _: Label) -> bool {
        true
    }

    fn announce_all(&self) -> bool {
        true
    }
}

/// The interfaces of an invented host, with a count of the questions.
struct Made {
    links: RefCell<BTreeMap<u32, Interface>>,
    program: Cell<bool>,
    /// The index of the interface whose gate is not the first; 0 for none.
    displaced: Cell<u32>,
    lost_local_in: Cell<bool>,
    low_settings: Cell<bool>,
    asked: Cell<usize>,
}

impl Links for Made {
    fn present(&self) -> Result<BTreeMap<u32, Interface>, HostError> {
        self.asked.set(self.asked.get() + 1);
        Ok(self.links.borrow().clone())
    }

    fn named(&self, name: &str) -> Result<Option<Interface>, HostError> {
        Ok(self.links.borrow().values().find(|link| link.name == name).cloned())
    }

    fn program_trouble(&self, link: &Interface, _: &BTreeMap<u32, Interface>) -> Option<String> {
        self.asked.set(self.asked.get() + 1);
        (!self.program.get()).then(|| without_program(&link.name))
    }

    fn lost_program(&self, _: &Interface) -> bool {
        !self.program.get()
    }

    fn is_displaced(&self, link: &Interface) -> bool {
        self.displaced.get() == link.index
    }

    fn has_low_settings(&self) -> bool {
        self.low_settings.get()
    }

    fn lost_local_in(&self) -> bool {
        self.lost_local_in.get()
    }
}

fn link(carrier: bool) -> Interface {
    Interface { index: 7, name: "eth0".into(), up: true, carrier, ..Interface::default() }
}

fn groups(count: usize) -> Vec<Group> {
    let second = Duration::from_secs(1);
    let check = Check {
        name: "x".into(),
        kind: CheckKind::Process("x".into()),
        interval: second,
        timeout: second,
        rise: 1,
        fall: 1,
    };
    let group = |number: usize| Group {
        name: format!("g{number:05}"),
        vips: Vec::new(),
        homes: BTreeMap::new(),
        is_gateway: false,
        virtual_mac: None,
        priorities: BTreeMap::new(),
        preempt: None,
        hooks: Hooks::default(),
        health: Health { checks: vec![check.clone()], ..Health::default() },
    };
    (0..count).map(group).collect()
}

fn serving(count: usize) -> (Serving<Loop, Made>, Receiver<Said>) {
    let (words, words_rx) = channel();
    let links = RefCell::new([(7, link(true))].into());
    let serving = Serving {
        lease_loop: Loop(Box::new(move |said| words.send(said).is_ok())),
        links: Made {
            links,
            program: Cell::new(true),
            displaced: Cell::new(0),
            lost_local_in: Cell::new(false),
            low_settings: Cell::new(false),
            asked: Cell::new(0),
        },
        interfaces: vec!["eth0".into()],
        announcing: vec!["eth0".into()],
        judge: Judge::new(&groups(count), &["eth0".into()]),
        board: Arc::new(Board::default()),
        silent: BTreeMap::new(),
        unproved_until: None,
        unprogrammed: BTreeMap::new(),
        polls_without: 0,
        told: None,
        is_held: false,
    };
    (serving, words_rx)
}

#[test]
fn a_gate_that_is_not_the_first_or_gone_is_the_keepers_and_costs_no_lease() {
    let (mut serving, words) = serving(1);
    serving.judge();
    while words.try_recv().is_ok() {}
    assert!(serving.poll_programs().is_empty());
    serving.links.displaced.set(7);
    let told = |serving: &mut Serving<Loop, Made>| {
        (0..=POLLS_WITHOUT * 2).flat_map(|_| serving.poll_programs()).count()
    };
    assert_eq!(told(&mut serving), 2, "it is told at once, and then not at every poll");
    assert!(words.try_recv().is_err(), "the engine is told something");
    serving.links.displaced.set(0);
    assert_eq!(told(&mut serving), 0);
    serving.links.lost_local_in.set(true);
    assert_eq!(told(&mut serving), 2);
    serving.links.lost_local_in.set(false);
    serving.links.low_settings.set(true);
    assert_eq!(told(&mut serving), 2);
    assert!(words.try_recv().is_err(), "the engine is told something");
}

fn checked(number: usize, trouble: Option<&str>) -> Heard {
    Heard::Checked { group: format!("g{number:05}"), check: "x".into(), trouble: trouble.map(str::to_owned) }
}

#[test]
fn ten_thousand_verdicts_are_one_look_at_the_interfaces_and_one_word() {
    let (mut serving, words) = serving(10_000);
    let told = serving.hear((0..10_000).map(|number| checked(number, None)));
    assert_eq!(serving.links.asked.get(), 1);
    let said: Vec<_> = words.try_iter().collect();
    assert_eq!(said.len(), 1);
    assert!(said[0].len() == 10_000 && said[0].iter().all(|(_, word)| *word == Eligible::Yes));
    assert_eq!(told.len(), 10_001, "people are told of every verdict");
    assert!(matches!(told.last(), Some(Notice::CanServe { because: None })));
}

#[test]
fn a_program_that_goes_without_a_word_is_missed_and_brought_back_by_the_keeper() {
    let (mut serving, words) = serving(1);
    serving.hear([checked(0, None)].into_iter());
    assert_eq!(words.recv().unwrap(), [(GroupId(0), Eligible::Yes)]);
    assert!(serving.poll_programs().is_empty(), "it is there");
    serving.links.program.set(false);
    let told = serving.poll_programs();
    assert_eq!(words.recv().unwrap(), [(GroupId(0), Eligible::No)]);
    let [Notice::CanServe { because: Some(because) }, Notice::Watched(Watched::Missed)] = &told[..] else {
        panic!("{told:?}")
    };
    assert!(because.contains("eth0 has no program on the way in"), "{because}");
    // Only the keeper can tell whether it is back, and it tries again.
    let told: Vec<_> = (0..POLLS_WITHOUT * 2).flat_map(|_| serving.poll_programs()).collect();
    assert!(matches!(&told[..], [Notice::Watched(Watched::Missed), _]), "{told:?}");
    assert!(words.try_recv().is_err(), "and the engine knows");
    serving.links.program.set(true);
    serving.look_at_programs();
    serving.judge();
    assert_eq!(words.recv().unwrap(), [(GroupId(0), Eligible::Yes)]);
}

#[test]
fn an_interface_that_becomes_a_port_serves_nothing_until_it_is_none() {
    let (mut serving, words) = serving(1);
    serving.hear([checked(0, None)].into_iter());
    assert_eq!(words.recv().unwrap(), [(GroupId(0), Eligible::Yes)]);
    let bond = Interface { index: 9, name: "bond0".into(), kind: Some("bond".into()), ..link(true) };
    serving.links.links.borrow_mut().insert(9, bond);
    let mut becomes = |carrier, controller| {
        let port = Interface { controller, ..link(carrier) };
        serving.links.links.borrow_mut().insert(7, port.clone());
        serving.hear([Heard::Watched(Watched::Link(port))].into_iter())
    };
    // It has to be down to become a port, which is another reason.
    let told = becomes(false, None);
    assert!(matches!(&told[..], [Notice::CanServe { because: Some(why) }] if why == "eth0 has no carrier"));
    assert_eq!(words.recv().unwrap(), [(GroupId(0), Eligible::No)]);
    let told = becomes(true, Some(9));
    let [Notice::CanServe { because: Some(why) }] = &told[..] else { panic!("{told:?}") };
    assert!(why.starts_with("eth0 is a port of bond0"), "{why}");
    assert_eq!(words.recv().unwrap(), [(GroupId(0), Eligible::No)]);
    assert!(becomes(true, Some(9)).is_empty(), "that is no news");
    assert!(matches!(&becomes(true, None)[..], [Notice::CanServe { because: None }]));
    assert_eq!(words.recv().unwrap(), [(GroupId(0), Eligible::Yes)]);
}

#[test]
fn a_keeper_that_is_busy_holds_up_no_verdict_and_no_carrier() {
    let (serving, words) = serving(2);
    let serving = Arc::new(Mutex::new(serving));
    let ((lane, heard), (tell, told)) = (channel(), channel());
    let judge = thread::spawn({
        let serving = Arc::clone(&serving);
        move || run(&serving, &heard, &tell)
    });
    // Nobody reads what the keeper is told.
    lane.send(checked(0, None)).unwrap();
    lane.send(checked(1, None)).unwrap();
    let mut yes = Vec::new();
    while yes.len() < 2 {
        yes.extend(words.recv_timeout(PATIENCE).unwrap());
    }
    assert!(yes.iter().all(|(_, word)| *word == Eligible::Yes));
    lane.send(checked(1, Some("refused"))).unwrap();
    assert_eq!(words.recv_timeout(PATIENCE).unwrap(), [(GroupId(1), Eligible::No)]);
    lock(&serving).links.links.borrow_mut().insert(7, link(false));
    lane.send(Heard::Watched(Watched::Link(link(false)))).unwrap();
    assert_eq!(words.recv_timeout(PATIENCE).unwrap()[0], (GroupId(0), Eligible::No));
    // The keeper's handle keeps neither thread from ending.
    let _keeper = Handle::new(&serving);
    drop(lane);
    judge.join().unwrap();
    assert!(told.iter().count() >= 4);
}

#[test]
fn nothing_is_said_while_groups_get_other_numbers() {
    let (mut made, words) = serving(1);
    made.hear([checked(0, None)].into_iter());
    assert_eq!(words.try_iter().count(), 1);
    let serving = Arc::new(Mutex::new(made));
    let handle = Handle::new(&serving);
    handle.hold();
    lock(&serving).hear([checked(0, Some("refused"))].into_iter());
    assert_eq!(words.try_iter().count(), 0);
    // The group goes on as number 1; number 0 is new, and its VIPs are not there yet.
    let mut next = groups(1);
    next.insert(0, Group { name: "a".into(), health: Health::default(), ..next[0].clone() });
    assert!(handle.regroup(&["eth0".into()], &next, &["a".to_owned()].into()).is_none());
    assert_eq!(words.try_iter().collect::<Vec<_>>(), [[(GroupId(1), Eligible::No)]]);
    assert!(handle.admit().is_none());
    assert_eq!(words.try_iter().collect::<Vec<_>>(), [[(GroupId(0), Eligible::Yes)]]);
}

#[test]
fn a_missing_program_counts_after_the_keeper_has_tried_to_put_it_on() {
    let (mut made, words) = serving(1);
    made.hear([checked(0, None)].into_iter());
    assert_eq!(words.try_iter().count(), 1);
    made.links.program.set(false);
    assert!(made.hear([Heard::Watched(Watched::Link(link(true)))].into_iter()).is_empty());
    assert_eq!(words.try_iter().count(), 0);
    let Some(Notice::CanServe { because: Some(why) }) = Handle::new(&Arc::new(Mutex::new(made))).looked()
    else {
        panic!()
    };
    assert_eq!(why, "eth0 has no program on the way in");
    assert_eq!(words.try_iter().collect::<Vec<_>>(), [[(GroupId(0), Eligible::No)]]);
}

#[test]
fn who_is_not_heard_serves_nothing_and_who_has_no_peers_waits_no_longer_than_it_must() {
    let (mut made, words) = serving(1);
    let begin = clock::now();
    made.unproved_until = Some(begin.plus(PROOF_MAX));
    made.hear([checked(0, None)].into_iter());
    assert_eq!(words.try_iter().collect::<Vec<_>>(), [[(GroupId(0), Eligible::Unwell)]]);
    assert!(made.wait_for_proof(begin).is_none());
    // Nobody says anything.
    assert!(matches!(made.wait_for_proof(begin.plus(PROOF_MAX)), Some(Notice::CanServe { because: None })));
    assert_eq!(words.try_iter().collect::<Vec<_>>(), [[(GroupId(0), Eligible::Yes)]]);
    // Or the peers do.
    let silent: BTreeMap<_, _> = [("eth0".to_owned(), "nobody hears it".to_owned())].into();
    let unheard: BTreeSet<_> = silent.keys().cloned().collect();
    let told = made.hear([Heard::Silent(Silent { unwell: silent, unheard })].into_iter());
    let [Notice::Unheard(unheard), Notice::CanServe { because: Some(why) }] = &told[..] else {
        panic!("{told:?}")
    };
    assert!(unheard.contains("eth0") && why == "nobody hears it");
    assert_eq!(words.try_iter().collect::<Vec<_>>(), [[(GroupId(0), Eligible::Unwell)]]);
    made.unproved_until = Some(begin.plus(PROOF_MAX));
    made.hear([Heard::Silent(Silent::default())].into_iter());
    assert_eq!(words.try_iter().collect::<Vec<_>>(), [[(GroupId(0), Eligible::Yes)]]);
}
