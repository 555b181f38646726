//! The judge's thread: it tells the engine which groups this node can serve.
//! Verdicts on checks and changes of interfaces have a channel of their own to
//! it, so that none of them waits for the keeper's work: routes, repairs, a
//! reload, the log.
//! It writes no log while others wait: after it has told the engine, it tells the
//! keeper what people need to know.

pub mod eligibility;
mod links;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
    time::Duration,
};

use tracing::error;
use vip_lease::Eligible;

pub use self::links::{HostLinks, Links};

use self::eligibility::{Judge, News, down};
use super::{
    checks::Board,
    heartbeat::{self, WatchedThread},
    messages::{Heard, Notice, Tell},
};
use crate::{
    clock, config,
    host::Watched,
    mutant::{self, Mutant},
};

/// How often the watchdog hears of a judge that has nothing to do.
const BEAT: Duration = Duration::from_millis(250);
/// How often to check that the programs are on their interfaces: netlink reports
/// nothing when a program's link goes with its pin.
const PROGRAM_POLL: Duration = Duration::from_secs(1);
/// After how many polls the keeper tries again to attach one.
const POLLS_WITHOUT: u32 = 5;

/// Both channels for what netlink and the checks report.
#[derive(Clone)]
pub struct Listeners {
    /// To the keeper, which handles one notice after the other.
    pub keeper: Sender<Notice>,
    /// To the judge; a node that never holds has none.
    pub judge: Option<Sender<Heard>>,
}

impl Listeners {
    /// Passes a message of netlink to both; false if nobody listens any more.
    #[must_use]
    pub fn watched(&self, watched: Watched) -> bool {
        if let Some(judge) = &self.judge {
            // The judge ends with the keeper.
            let _ = judge.send(Heard::Watched(watched.clone()));
        }
        self.keeper.send(Notice::Watched(watched)).is_ok()
    }
}

/// What this node can serve, and whom to tell.
pub struct Serving<T, L> {
    /// To the lease loop.
    pub lease_loop: T,
    /// The interfaces.
    pub links: L,
    /// The interfaces that the data plane has to be on.
    pub interfaces: Vec<String>,
    /// Those of them on which VIPs are announced that name none.
    pub announcing: Vec<String>,
    /// The eligibility of every group.
    pub judge: Judge,
    /// Where `status` and the metrics read it.
    pub board: Arc<Board>,
    /// Interfaces without a program, after the keeper's last try to attach it.
    pub unprogrammed: BTreeSet<String>,
    /// Polls since the keeper was told of that.
    pub polls_without: u32,
    /// Could this node serve at all, at the last judgement?
    pub can_serve: Option<bool>,
    /// Groups are about to get other numbers: the judge says nothing until then.
    pub is_held: bool,
}

/// The keeper's handle to the judge. It keeps neither thread from ending. Its
/// calls return what people need to know.
pub struct Handle<T, L>(Arc<Mutex<Serving<T, L>>>);

impl<T: Tell, L: Links> Handle<T, L> {
    /// A handle for the keeper.
    #[must_use]
    pub fn new(serving: &Arc<Mutex<Serving<T, L>>>) -> Self {
        Self(Arc::clone(serving))
    }

    /// The keeper has taken care of the programs on this node's interfaces.
    #[must_use]
    pub fn looked(&self) -> Option<Notice> {
        let mut serving = lock(&self.0);
        serving.look_at_programs();
        serving.judge()
    }

    /// Once this returns, the judge says nothing of groups before
    /// [`Handle::regroup`].
    pub fn hold(&self) {
        lock(&self.0).is_held = true;
    }

    /// The groups have other numbers now. The judge withholds its verdict on
    /// those in `withheld` until [`Handle::admit`].
    #[must_use]
    pub fn regroup(
        &self,
        interfaces: &[String],
        groups: &[config::Group],
        withheld: &BTreeSet<String>,
    ) -> Option<Notice> {
        let mut serving = lock(&self.0);
        serving.is_held = false;
        serving.interfaces = interfaces.to_vec();
        let announcing = serving.announcing.clone();
        serving.judge.regroup(groups, &announcing, withheld);
        serving.judge()
    }

    /// This node now has everything that its groups need.
    #[must_use]
    pub fn admit(&self) -> Option<Notice> {
        let mut serving = lock(&self.0);
        serving.judge.admit();
        serving.judge()
    }
}

fn lock<S>(serving: &Mutex<S>) -> MutexGuard<'_, S> {
    // A panic of either thread ends the process.
    serving.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs until nobody is left who could send it anything. `tell` goes to the
/// keeper, which ends after that.
pub fn run<T: Tell, L: Links>(
    serving: &Mutex<Serving<T, L>>,
    heard: &Receiver<Heard>,
    tell: &Sender<Notice>,
) {
    heartbeat::beat(WatchedThread::Judge);
    let first = {
        let mut serving = lock(serving);
        serving.look_at_programs();
        serving.judge()
    };
    // The keeper ends only after this.
    first.into_iter().for_each(|notice| drop(tell.send(notice)));
    let mut polled = clock::now();
    loop {
        heartbeat::beat(WatchedThread::Judge);
        if clock::now().since(polled) >= PROGRAM_POLL {
            polled = clock::now();
            lock(serving).poll_programs().into_iter().for_each(|notice| drop(tell.send(notice)));
        }
        match heard.recv_timeout(BEAT) {
            Ok(first) => {
                let told = lock(serving).hear(std::iter::once(first).chain(heard.try_iter()));
                told.into_iter().for_each(|notice| drop(tell.send(notice)));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl<T: Tell, L: Links> Serving<T, L> {
    /// Takes note of every message that waits, then judges them together. Returns
    /// what people need to know, after it has told the engine.
    fn hear(&mut self, heard: impl Iterator<Item = Heard>) -> Vec<Notice> {
        let mut is_news = false;
        let mut told = Vec::new();
        for heard in heard {
            match heard {
                Heard::Checked { group, check, trouble } => {
                    self.judge.note(&group, &check, trouble.clone());
                    told.push(Notice::Checked { group, check, trouble });
                    is_news = true;
                }
                Heard::Watched(Watched::Link(link)) => {
                    is_news |= self.interfaces.contains(&link.name) || self.judge.tracks(&link.name);
                }
                Heard::Watched(Watched::Gone(_) | Watched::Missed) => is_news = true,
                Heard::Watched(Watched::Disturbed | Watched::RouteGone(_) | Watched::Neighbour) => {}
            }
        }
        if is_news {
            told.extend(self.judge());
        }
        told
    }

    /// Looks for an interface that is there without our program. The keeper
    /// attaches programs, so this runs after its try.
    fn look_at_programs(&mut self) {
        match self.links.present() {
            Ok(present) => {
                let ours = present.values().filter(|link| self.interfaces.contains(&link.name));
                let without = ours.filter(|link| !self.links.has_program(link));
                self.unprogrammed = without.map(|link| link.name.clone()).collect();
            }
            Err(e) => error!("{e}"),
        }
    }

    /// Has a program gone by itself? Then tells the engine at once, and has the
    /// keeper attach it again.
    fn poll_programs(&mut self) -> Vec<Notice> {
        if self.is_held {
            return Vec::new();
        }
        if !self.unprogrammed.is_empty() {
            // The obstacle to the keeper's last try may be gone.
            self.polls_without = (self.polls_without + 1) % POLLS_WITHOUT;
            return (self.polls_without == 0)
                .then_some(Notice::Watched(Watched::Missed))
                .into_iter()
                .collect();
        }
        let is_without = |name: &&String| match self.links.named(name) {
            // Netlink reports an interface that is away.
            Ok(link) => link.is_some_and(|link| self.links.lost_program(&link)),
            Err(e) => {
                error!("{e}");
                false
            }
        };
        self.unprogrammed = self.interfaces.iter().filter(is_without).cloned().collect();
        if !self.unprogrammed.is_empty() {
            return self.judge().into_iter().chain([Notice::Watched(Watched::Missed)]).collect();
        }
        self.poll_gates()
    }

    /// Does a program of somebody else come before one of ours at tc, or is the gate at IP
    /// level gone? Then has the keeper put ours where they belong. Two that both want to be first take turns
    /// of some seconds.
    fn poll_gates(&mut self) -> Vec<Notice> {
        if self.polls_without > 0 {
            self.polls_without -= 1;
            return Vec::new();
        }
        let is_displaced = |name: &str| {
            let link = self.links.named(name).ok().flatten();
            link.is_some_and(|link| self.links.is_displaced(&link))
        };
        let mut gates = self.interfaces.iter().map(String::as_str).chain(["lo"]);
        // Asks in any case: this is how it learns that the gate was there.
        let is_lost = self.links.lost_local_in() && !mutant::is(Mutant::LocalInUnwatched);
        if !is_lost && !self.links.has_low_settings() && !gates.any(is_displaced) {
            return Vec::new();
        }
        self.polls_without = POLLS_WITHOUT;
        vec![Notice::Watched(Watched::Missed)]
    }

    /// Tells the engine which groups this node can serve: every interface that a group
    /// is announced on is there, up, has a carrier and our program, and the group's own
    /// conditions are met. Returns what people need to know.
    fn judge(&mut self) -> Option<Notice> {
        if self.is_held {
            return None;
        }
        let present = match self.links.present() {
            Ok(present) => present,
            Err(e) => {
                error!("{e}");
                return None;
            }
        };
        let without = |name: &String| {
            self.unprogrammed.contains(name).then(|| format!("{name} has no program on the way in"))
        };
        let trouble = |name: &String| Some((name.clone(), down(name, &present).or_else(|| without(name))?));
        let troubles: BTreeMap<_, _> = self.interfaces.iter().filter_map(trouble).collect();
        // One that is guarded only keeps nobody from anything.
        let mut ours = self.interfaces.iter().filter(|name| self.judge.announces(name));
        let bad = ours.find_map(|name| troubles.get(name)).cloned();
        let news = self.judge.judge(troubles, &present);
        let words: Vec<_> = news.iter().filter_map(|news| Some((news.group, news.word?))).collect();
        if !words.is_empty() && !self.lease_loop.eligible(words) {
            error!("the lease loop has ended");
        }
        for News { group, word, why } in news {
            self.board.judge(self.judge.name(group), word == Some(Eligible::Yes), why);
        }
        let can_serve = Some(bad.is_none());
        (std::mem::replace(&mut self.can_serve, can_serve) != can_serve)
            .then_some(Notice::CanServe { because: bad })
    }
}

#[cfg(test)]
mod tests {
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
        host::{HostError, Interface},
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

        fn has_program(&self, _: &Interface) -> bool {
            self.asked.set(self.asked.get() + 1);
            self.program.get()
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
            unprogrammed: BTreeSet::new(),
            polls_without: 0,
            can_serve: None,
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
        Heard::Checked {
            group: format!("g{number:05}"),
            check: "x".into(),
            trouble: trouble.map(str::to_owned),
        }
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
        let [Notice::CanServe { because: Some(because) }, Notice::Watched(Watched::Missed)] = &told[..]
        else {
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
}
