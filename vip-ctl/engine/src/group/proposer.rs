//! The asking half of a node: attempts to get, renew or adopt a lease, each under
//! its own ballot (rules 1, 2, 5 and 6). [`super::candidacy`] says when to stand.
//!
//! A candidate asks in two phases. The first tells the candidate the highest
//! epoch, and its rivals that they are too late. The second alone excludes a
//! second holder: an acceptor accepts no lease beside another's. So a renewal,
//! whose epoch is known and stays, has only the second.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use vip_common::{BootNs, Lease};

use super::{
    Group, Held,
    acceptor::{OwnPhase, Promised},
};
use crate::{
    config::{CEILING_WAIT, Epoch, NodeId, NodeSet, RETRY_MIN, Timing},
    io::{Output, Reason},
    message::{About, Ballot, Claim, Refused},
    mutant::Mutant,
    node::Node,
};

/// Doublings of the back-off after which lost duels no longer lengthen it.
const DUELS_MAX: u32 = 5;

/// What an attempt is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A new grant.
    Stand,
    /// The same grant for longer.
    Renew,
    /// The same grant for longer, during the silence after a start: by the votes
    /// of the other acceptors alone, each of which still has this node's lease.
    Adopt,
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// `epoch`: the highest that a promise named.
    Preparing { epoch: Epoch },
    /// `epoch`: the value proposed, fixed from here on.
    Proposing { epoch: Epoch, accepted: NodeSet },
}

/// An attempt under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Attempt {
    ballot: Ballot,
    kind: Kind,
    phase: Phase,
    promised: NodeSet,
    /// The acceptors that refused, and until when each would refuse again.
    refused: BTreeMap<NodeId, BootNs>,
    /// When the first message was sent: the lease counts from here (rule 2).
    sent: BootNs,
    resend: BootNs,
    /// An acceptor that refused has accepted another candidate's lease, and
    /// nobody is known to hold that one.
    contended: bool,
    /// It has won already; by force, it goes on to ask for the others' votes.
    won: bool,
}

impl Attempt {
    pub fn next_deadline(&self, timing: &Timing) -> BootNs {
        if self.won { self.resend } else { self.resend.min(self.sent.plus(timing.patience)) }
    }

    /// Does the attempt have this ballot?
    pub fn is_of(&self, ballot: Ballot) -> bool {
        self.ballot == ballot
    }

    /// Has the attempt won the lease already?
    pub const fn is_won(&self) -> bool {
        self.won
    }
}

/// Why a candidate's attempt failed.
enum Failure {
    /// Another ballot was higher.
    Duel,
    /// Enough acceptors refuse until then to exclude a majority.
    Blocked(BootNs),
    /// Too few acceptors have answered.
    Unanswered,
}

impl Group {
    /// Repeats and ends attempts that have not been answered.
    pub fn judge_attempt(&mut self, node: &mut Node) {
        if let Some(attempt) = &self.attempt {
            let over = self.lease.is_none_or(|lease| lease.renew_at <= node.now);
            if attempt.won && over {
                self.attempt = None;
            } else if !attempt.won && attempt.sent.plus(node.timing.patience) <= node.now {
                match attempt.kind {
                    Kind::Stand => self.fail_candidacy(&Failure::Unanswered, node),
                    Kind::Renew | Kind::Adopt => self.retry_renewal(Duration::ZERO, node),
                }
            } else if attempt.resend <= node.now {
                self.resend(node);
            }
        }
    }

    /// Begins a renewal that is due.
    pub fn drive_renewal(&mut self, node: &mut Node) {
        if self.attempt.is_none() && self.lease.is_some_and(|lease| lease.renew_at <= node.now) {
            let is_silent = self.acceptor.silent_until(node.now).is_some();
            self.start(if is_silent { Kind::Adopt } else { Kind::Renew }, node);
        }
    }

    /// The round of a new ballot: higher than any that this node has seen.
    ///
    /// Renewals that begin together share a round: a few bytes name them all.
    fn next_round(&mut self, kind: Kind, node: &mut Node) -> u64 {
        let step = u64::from(!node.broken.is(Mutant::SameRound));
        let own = self.round.max(self.acceptor.round()).saturating_add(step);
        self.round = match kind {
            Kind::Renew => own.max(node.renewal_round.unwrap_or(node.round.saturating_add(step))),
            Kind::Stand | Kind::Adopt => own,
        };
        if kind == Kind::Renew {
            node.renewal_round = Some(self.round);
        }
        node.round = node.round.max(self.round);
        self.round
    }

    /// The epoch to propose, where this node need not ask an acceptor for it.
    fn known_epoch(&self, kind: Kind, node: &Node) -> Option<Epoch> {
        match kind {
            Kind::Renew => self.lease.and_then(|lease| lease.epoch),
            Kind::Stand => node.broken.is(Mutant::StandsInOnePhase).then(|| self.acceptor.epoch()),
            Kind::Adopt => node.broken.is(Mutant::AdoptsInOnePhase).then(|| self.acceptor.epoch()),
        }
    }

    /// Begins an attempt under a new ballot.
    pub fn start(&mut self, kind: Kind, node: &mut Node) {
        let round = self.next_round(kind, node);
        let ballot = Ballot { round, incarnation: node.config.incarnation, node: node.me() };
        self.used = Some(ballot);
        node.renewing |= kind != Kind::Stand;
        // Acceptors that missed an earlier release accept higher ballots.
        self.releasing = None;
        self.attempt = Some(Attempt {
            ballot,
            kind,
            phase: Phase::Preparing { epoch: Epoch::default() },
            promised: NodeSet::default(),
            refused: BTreeMap::new(),
            sent: node.now,
            resend: node.now.plus(node.timing.retry),
            contended: false,
            won: false,
        });
        if let Some(epoch) = self.known_epoch(kind, node) {
            self.propose(epoch, node);
            return;
        }
        node.tell_voters(self.id, About::Prepare { ballot });
        match self.prepare_own(ballot, kind, node) {
            Ok(promise) => self.on_promise(node.me(), ballot, promise.epoch, promise.yours, node),
            Err(because) => self.on_refuse(node.me(), ballot, because, node),
        }
    }

    /// May this node's own acceptor vote on this in its silence?
    fn is_through_silence(&self, kind: Kind, node: &Node) -> bool {
        match kind {
            Kind::Adopt => node.config.needs_all() || node.broken.is(Mutant::AdoptsByOwnVote),
            Kind::Stand => node.broken.is(Mutant::StandsInSilence),
            Kind::Renew => false,
        }
    }

    /// This node's own answer to its own first phase.
    fn prepare_own(&mut self, ballot: Ballot, kind: Kind, node: &Node) -> Result<Promised, Refused> {
        if self.is_through_silence(kind, node) {
            let answer = self.acceptor.renew_own(OwnPhase::Prepare { ballot }, node.now);
            return answer.map(|promise| Promised { yours: Some(promise.epoch), ..promise });
        }
        if self.forced.is_some() {
            self.acceptor.prepare(ballot, node.now)
        } else {
            self.promise(ballot, node)
        }
    }

    /// This node's own answer to its own second phase.
    fn propose_own(
        &mut self,
        ballot: Ballot,
        kind: Kind,
        epoch: Epoch,
        node: &mut Node,
    ) -> Result<(), Refused> {
        // Force promises nothing about epochs, and must work with a full disk.
        if kind == Kind::Stand && self.forced.is_none() && !node.is_below_ceiling(epoch) {
            return Err(Refused::Silent { remaining: CEILING_WAIT });
        }
        let (now, accept) = (node.now, node.keep());
        if self.is_through_silence(kind, node) {
            return self.acceptor.renew_own(OwnPhase::Propose { ballot, epoch, accept }, now).map(|_| ());
        }
        self.acceptor.propose(ballot, epoch, self.claim_of(kind), now, accept)
    }

    /// An acceptor has promised.
    pub fn on_promise(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        told: Epoch,
        yours: Option<Epoch>,
        node: &mut Node,
    ) {
        let needed = self.votes_needed(node);
        let any = node.broken.is(Mutant::AnyPromise);
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| any || attempt.ballot == ballot) else {
            return;
        };
        let votes = node.config.votes(from) || node.broken.is(Mutant::CountsAnybody);
        let proves = yours.is_some() || node.broken.is(Mutant::AdoptsUnproven);
        if !votes || (attempt.kind == Kind::Adopt && !proves) {
            return;
        }
        attempt.refused.remove(&from);
        let late = !attempt.promised.contains(from);
        attempt.promised.insert(from);
        match &mut attempt.phase {
            Phase::Preparing { epoch } => {
                let told = match attempt.kind {
                    Kind::Stand | Kind::Renew => told,
                    Kind::Adopt => yours.unwrap_or_default(),
                };
                *epoch = told.max(*epoch);
                let epoch = *epoch;
                if attempt.promised.len() >= needed {
                    self.propose(epoch, node);
                }
            }
            Phase::Proposing { epoch, .. } => {
                // The others got the proposal without being waited for.
                if attempt.kind == Kind::Adopt && late {
                    let epoch = *epoch;
                    node.tell(from, self.id, About::Propose { ballot, epoch, claim: Claim::Held });
                }
            }
        }
    }

    /// Second phase: a majority has promised, or no promise is needed.
    fn propose(&mut self, told: Epoch, node: &mut Node) {
        let Some(attempt) = &mut self.attempt else { return };
        let (ballot, kind) = (attempt.ballot, attempt.kind);
        let epoch = match kind {
            Kind::Stand if node.broken.is(Mutant::SameEpoch) => told,
            // The highest of a majority, and of this node, which may not be in it.
            Kind::Stand if node.broken.is(Mutant::OwnEpochForgotten) => told.next(),
            Kind::Stand => told.max(self.acceptor.epoch()).next(),
            Kind::Renew if node.broken.is(Mutant::RenewalsRaise) => told.next(),
            Kind::Renew | Kind::Adopt => self.lease.and_then(|lease| lease.epoch).unwrap_or(told),
        };
        attempt.phase = Phase::Proposing { epoch, accepted: NodeSet::default() };
        attempt.resend = node.now.plus(node.timing.retry);
        if node.broken.is(Mutant::LeaseFromPropose) {
            attempt.sent = node.now;
        }
        self.leftover = true;
        let promised = attempt.promised;
        let claim = self.claim_of(kind);
        for peer in node.config.peers() {
            // Observers take note of every lease.
            if kind != Kind::Adopt || promised.contains(peer) || !node.config.votes(peer) {
                node.tell(peer, self.id, About::Propose { ballot, epoch, claim });
            }
        }
        match self.propose_own(ballot, kind, epoch, node) {
            Ok(()) => self.on_accept(node.me(), ballot, node),
            Err(because) => self.on_refuse(node.me(), ballot, because, node),
        }
    }

    /// An acceptor has accepted.
    pub fn on_accept(&mut self, from: NodeId, ballot: Ballot, node: &mut Node) {
        let needed = self.votes_needed(node);
        let any = node.broken.is(Mutant::AnyAccept);
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| any || attempt.ballot == ballot) else {
            return;
        };
        let Phase::Proposing { epoch, accepted } = &mut attempt.phase else { return };
        let counts = attempt.kind != Kind::Adopt
            || attempt.promised.contains(from)
            || node.broken.is(Mutant::AdoptsByAnyAccept);
        if !(node.config.votes(from) || node.broken.is(Mutant::CountsAnybody)) || !counts {
            return;
        }
        attempt.refused.remove(&from);
        accepted.insert(from);
        let votes = accepted.len();
        if votes < needed {
            return;
        }
        let (kind, epoch, sent, won) = (attempt.kind, *epoch, attempt.sent, attempt.won);
        if votes >= node.config.majority() && !node.broken.is(Mutant::ForcedForEver) {
            // From here on a lease by force is an ordinary one.
            self.forced = None;
        }
        if self.forced.is_some() {
            attempt.won = true;
        } else {
            self.attempt = None;
        }
        if !won {
            self.win(ballot, kind, epoch, sent, node);
        }
    }

    /// Enough acceptors have accepted: this node has the lease until T_hold after
    /// it sent the attempt's first message (rule 2).
    fn win(&mut self, ballot: Ballot, kind: Kind, epoch: Epoch, sent: BootNs, node: &mut Node) {
        let until = sent.plus(node.timing.hold);
        if until <= node.now && !node.broken.is(Mutant::WinsTooLate) {
            self.attempt = None;
            return;
        }
        self.leftover = false;
        self.duels = 0;
        self.at_once = false;
        self.abstaining = false;
        self.was_mine = true;
        let first_adopted = kind == Kind::Adopt && self.lease.is_some_and(|lease| lease.ballot.is_none());
        self.lease = Some(Held {
            ballot: Some(ballot),
            epoch: Some(epoch),
            until,
            renew_at: sent.plus(node.timing.renew),
        });
        node.outputs.push_back(Output::StoreLease { group: self.id, lease: Lease::until(until) });
        match kind {
            Kind::Stand => {
                self.reason = if self.forced.is_some() { Reason::Forced } else { Reason::Elected };
                self.preparing = self.prepares;
                if self.preparing {
                    // Goes in the packet that tells of the lease, or right behind it.
                    node.heartbeat_at = node.now;
                }
                if !node.broken.is(Mutant::NoAnnouncement) {
                    node.outputs.push_back(Output::Announce { group: self.id });
                }
                node.tell_all(self.id, About::Holding { ballot });
            }
            Kind::Adopt if first_adopted => self.reason = Reason::Adopted,
            Kind::Renew | Kind::Adopt => {}
        }
    }

    /// How many votes the attempt under way needs.
    fn votes_needed(&self, node: &Node) -> usize {
        if self.forced.is_some() {
            return 1;
        }
        let too_few = usize::from(node.broken.is(Mutant::MinorityWins));
        node.votes_needed(self.attempt.as_ref().is_some_and(|attempt| attempt.kind == Kind::Stand))
            .saturating_sub(too_few)
            .max(1)
    }

    /// Counts the votes again: fewer than before may be enough.
    pub fn recount(&mut self, node: &mut Node) {
        let needed = self.votes_needed(node);
        let Some(attempt) = &self.attempt else { return };
        let ballot = attempt.ballot;
        let mine = node.me();
        match attempt.phase {
            Phase::Preparing { epoch } if attempt.promised.len() >= needed => self.propose(epoch, node),
            Phase::Proposing { accepted, .. } if accepted.contains(mine) => {
                self.on_accept(mine, ballot, node)
            }
            Phase::Preparing { .. } | Phase::Proposing { .. } => {}
        }
    }

    /// An acceptor has refused.
    pub fn on_refuse(&mut self, from: NodeId, ballot: Ballot, because: Refused, node: &mut Node) {
        let until = match because {
            Refused::Held { ballot: other, epoch, claim, remaining } => {
                self.round = self.round.max(other.round);
                // The holder's own answer to a question by a holder is sure.
                let is_sure = claim == Claim::Held && from == other.node && self.is_renewal(ballot);
                if self.superseded_by(other, (epoch, claim), is_sure, node) {
                    self.release(None, Reason::Superseded, node);
                    return;
                }
                node.now.plus(remaining)
            }
            Refused::Promised { ballot: higher } => {
                self.round = self.round.max(higher.round);
                node.now
            }
            Refused::Reserved { remaining, .. } | Refused::Silent { remaining } => node.now.plus(remaining),
        };
        let needed = self.votes_needed(node);
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.ballot == ballot) else { return };
        if attempt.won || !node.config.votes(from) {
            return;
        }
        attempt.contended |= matches!(because, Refused::Held { claim: Claim::Asked, .. });
        attempt.refused.insert(from, until);
        let outbid = matches!(because, Refused::Promised { .. });
        if !outbid {
            // Asks again when that acceptor is free, if that is soon.
            attempt.resend = attempt.resend.min(until.max(node.now.plus(RETRY_MIN)));
        }
        let voters = node.config.voters().len();
        let hopeless = voters - attempt.refused.len() < needed;
        match attempt.kind {
            Kind::Stand if outbid => self.fail_candidacy(&Failure::Duel, node),
            // One of several candidates may win, or none of them.
            Kind::Stand if hopeless && attempt.contended => {
                self.duels = self.duels.max(1);
                self.fail_candidacy(&Failure::Duel, node);
            }
            Kind::Stand if hopeless => {
                // Enough acceptors are free again once this many refusals have ended.
                let mut free: Vec<_> = attempt.refused.values().copied().collect();
                free.sort_unstable();
                let missing = needed - (voters - free.len());
                let until = free.get(missing - 1).copied().unwrap_or(until);
                self.fail_candidacy(&Failure::Blocked(until), node);
            }
            Kind::Renew | Kind::Adopt if hopeless => {
                // An even higher ballot works at once; a general refusal lasts.
                let pause = if outbid { RETRY_MIN } else { node.timing.slot };
                self.retry_renewal(pause, node);
            }
            Kind::Stand | Kind::Renew | Kind::Adopt => {}
        }
    }

    /// On what grounds this node has its lease.
    pub fn claim(&self) -> Claim {
        match (&self.lease, self.forced) {
            (None, _) => Claim::Asked,
            (Some(_), None) => Claim::Held,
            (Some(_), Some(_)) => Claim::Forced,
        }
    }

    /// On what grounds it has the lease if this attempt succeeds.
    fn claim_of(&self, kind: Kind) -> Claim {
        match (kind, self.forced) {
            (_, Some(_)) => Claim::Forced,
            (Kind::Stand, None) => Claim::Asked,
            (Kind::Renew | Kind::Adopt, None) => Claim::Held,
        }
    }

    /// Rule 13: where both nodes of a pair hold, the one with the higher epoch
    /// stays, and the other one releases when it hears of that. Between equal
    /// epochs the higher rank stays.
    pub fn yield_to(&mut self, from: NodeId, epoch: Epoch, held: bool, node: &mut Node) {
        let Some(lease) = self.lease.filter(|_| held && node.config.pair.is_some()) else { return };
        let place = |epoch: Epoch, member| {
            let epoch = if node.broken.is(Mutant::MergesByRank) { Epoch(0) } else { epoch };
            let rank = node.config.rank(self.id, member).filter(|_| !node.broken.is(Mutant::MergesByEpoch));
            (epoch, Reverse(rank))
        };
        if !node.broken.is(Mutant::NeverMerges)
            && place(epoch, from) > place(lease.epoch.unwrap_or_default(), node.me())
        {
            self.release(None, Reason::Merged, node);
        }
    }

    /// This node still has the lease; it tries again under a higher ballot.
    fn retry_renewal(&mut self, pause: Duration, node: &Node) {
        self.attempt = None;
        if let Some(lease) = &mut self.lease {
            let pause = if node.broken.is(Mutant::RenewsLate) { node.timing.accept } else { pause };
            lease.renew_at = node.now.plus(pause);
        }
    }

    /// The attempt failed: sets when to stand again, but for the rank's delay.
    fn fail_candidacy(&mut self, failure: &Failure, node: &mut Node) {
        self.attempt = None;
        let successor = self.acceptor.reserved_for(node.me(), node.now);
        self.at_once = successor;
        if successor {
            // The old holder's release is still on its way to the other acceptors.
            self.stand_after = node.now.plus(RETRY_MIN);
            return;
        }
        match failure {
            Failure::Duel => {
                // The lower the rank, the longer; and longer each time, so that
                // candidates end up further apart than a round trip.
                let duels = if node.broken.is(Mutant::NoBackOff) { 0 } else { self.duels };
                let slots = (1 << duels.min(DUELS_MAX)) - 1;
                self.duels = self.duels.saturating_add(1);
                let rank = self.rank.unwrap_or_default() + 1;
                let backoff =
                    node.timing.slot.saturating_mul(slots).min(node.timing.accept / 2).saturating_mul(rank);
                self.stand_after = node.now.plus(backoff.max(RETRY_MIN));
                // A waiting candidate must not stand in the way: the promises that it has
                // won would keep the other candidate out for T_accept, again and again.
                if !backoff.is_zero() {
                    self.clean_up(node);
                }
            }
            Failure::Blocked(until) => {
                self.stand_after = (*until).max(node.now.plus(RETRY_MIN));
                self.clean_up(node);
            }
            Failure::Unanswered => {
                self.stand_after = node.now.plus(RETRY_MIN);
                self.clean_up(node);
            }
        }
    }

    /// Asks those acceptors again that have not agreed, under the same ballot.
    fn resend(&mut self, node: &mut Node) {
        let claim = self.attempt.as_ref().map_or(Claim::Asked, |attempt| self.claim_of(attempt.kind));
        let Some(attempt) = &mut self.attempt else { return };
        if node.broken.is(Mutant::NeverRepeats) {
            attempt.resend = node.now.plus(node.timing.accept);
            return;
        }
        attempt.resend = node.now.plus(node.timing.retry);
        if node.broken.is(Mutant::LeaseFromPropose) && matches!(attempt.phase, Phase::Proposing { .. }) {
            attempt.sent = node.now;
        }
        let ballot = attempt.ballot;
        for peer in node.config.voting_peers() {
            match attempt.phase {
                Phase::Preparing { .. } if !attempt.promised.contains(peer) => {
                    node.tell(peer, self.id, About::Prepare { ballot });
                }
                Phase::Proposing { epoch, accepted } if !accepted.contains(peer) => {
                    if attempt.kind != Kind::Adopt || attempt.promised.contains(peer) {
                        node.tell(peer, self.id, About::Propose { ballot, epoch, claim });
                    }
                }
                Phase::Preparing { .. } | Phase::Proposing { .. } => {}
            }
        }
    }
}
