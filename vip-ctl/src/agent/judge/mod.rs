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
use vip_common::BootNs;
use vip_lease::Eligible;

pub use self::links::{HostLinks, Links, program_trouble};

use self::{
    eligibility::{Judge, News, Trouble, down, taken},
    links::without_program,
};
use super::{
    checks::Board,
    heartbeat::{self, WatchedThread},
    messages::{Heard, Notice, Silent, Tell},
};
use crate::{
    clock, config,
    host::{Interface, Watched},
    mutant::{self, Mutant},
};

/// How often the watchdog hears of a judge that has nothing to do.
const BEAT: Duration = Duration::from_millis(250);
/// How often to check that the programs are on their interfaces: netlink reports
/// nothing when a program's link goes with its pin.
const PROGRAM_POLL: Duration = Duration::from_secs(1);
/// How long a node that has just started waits for its peers to say whether its answers
/// arrive, before it takes a group.
pub const PROOF_MAX: Duration = Duration::from_secs(2);
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
    /// Interfaces whose answers do not arrive at the peers, with a sentence on each.
    pub silent: BTreeMap<String, String>,
    /// Until when this node is not ready, unless its peers say before that whether they hear
    /// its interfaces.
    pub unproved_until: Option<BootNs>,
    /// Interfaces whose program is away or answers nobody, after the keeper's last try to
    /// attach it, with a sentence on each.
    pub unprogrammed: BTreeMap<String, String>,
    /// Polls since the keeper was told of that.
    pub polls_without: u32,
    /// Why this node could not serve, when people were last told of it: empty if it could. What
    /// peers say in other words is no news.
    pub told: Option<String>,
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
        let waited = lock(serving).wait_for_proof(clock::now());
        waited.into_iter().for_each(|notice| drop(tell.send(notice)));
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
                Heard::Silent(Silent { unwell, unheard }) => {
                    (self.silent, self.unproved_until) = (unwell, None);
                    told.extend((!unheard.is_empty()).then_some(Notice::Unheard(unheard)));
                    is_news = true;
                }
                Heard::Mute(groups) => {
                    self.judge.note_mute(groups);
                    is_news = true;
                }
                // A port that is new below one of ours is the keeper's first, who calls `looked`.
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

    /// Where no peer has said anything in time, there may be none that could.
    fn wait_for_proof(&mut self, now: BootNs) -> Option<Notice> {
        if self.unproved_until.is_none_or(|until| now < until) || mutant::is(Mutant::WaitsForProof) {
            return None;
        }
        self.unproved_until = None;
        self.judge()
    }

    /// Looks for an interface that is there without our program. The keeper
    /// attaches programs, so this runs after its try.
    fn look_at_programs(&mut self) {
        match self.links.present() {
            Ok(present) => {
                let ours = present.values().filter(|link| self.interfaces.contains(&link.name));
                let trouble = |link: &Interface| self.links.program_trouble(link, &present);
                self.unprogrammed =
                    ours.filter_map(|link| Some((link.name.clone(), trouble(link)?))).collect();
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
        let without = self.interfaces.iter().filter(is_without);
        self.unprogrammed = without.map(|name| (name.clone(), without_program(name))).collect();
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
        let unproved =
            |name: &String| self.unproved_until.map(|_| format!("{name}: no peer has heard it yet"));
        let silent = |name: &String| {
            let known = self.silent.get(name).filter(|_| !mutant::is(Mutant::ServesUnheard));
            known.cloned().or_else(|| unproved(name))
        };
        let trouble = |name: &String| {
            let without = || self.unprogrammed.get(name).cloned();
            let sure = down(name, &present).or_else(|| taken(name, &present)).or_else(without);
            let sure = sure.map(Trouble::Sure);
            Some((name.clone(), sure.or_else(|| silent(name).map(Trouble::Said))?))
        };
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
        let told = match &bad {
            None => String::new(),
            Some(Trouble::Sure(why)) => why.clone(),
            Some(Trouble::Said(_)) => "peers say so".to_owned(),
        };
        let is_news = self.told.replace(told) != self.told;
        is_news.then(|| Notice::CanServe { because: bad.map(|trouble| trouble.why().to_owned()) })
    }
}

#[cfg(test)]
mod tests;
