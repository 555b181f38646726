//! The voting half of a node, for one group: rules 3, 5, 7 and 8.
//! [`super::candidacy`] and [`super::proposer`] have what the node asks of other
//! acceptors.

use std::time::Duration;

use vip_common::BootNs;

use super::Group;
use crate::{
    config::{CEILING_WAIT, Epoch, NodeId, Role},
    message::{About, Ballot, Claim, Refused},
    mutant::{Broken, Mutant},
    node::Node,
};

/// A lease that was accepted; the ballot's node owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Accepted {
    pub ballot: Ballot,
    pub epoch: Epoch,
    /// Receipt + T_accept, on this node's clock.
    pub until: BootNs,
    /// Whether the owner asks for the lease, holds it, or holds it by force, as
    /// far as this acceptor knows.
    pub claim: Claim,
}

/// The successor that acceptors keep a released group for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Reservation {
    successor: NodeId,
    until: BootNs,
}

/// The end of the leases and reservations that kept a node from standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lapsed {
    /// When the last of it ended.
    pub at: BootNs,
    /// Whose lease ran out, if one did.
    pub holder: Option<NodeId>,
}

/// A question of this node's own renewal to its own acceptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnPhase {
    /// First phase.
    Prepare { ballot: Ballot },
    /// Second phase; the lease is kept for `accept`.
    Propose { ballot: Ballot, epoch: Epoch, accept: Duration },
}

/// The content of a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Promised {
    /// The highest epoch accepted so far.
    pub epoch: Epoch,
    /// The epoch of the asking node's own unexpired lease.
    pub yours: Option<Epoch>,
}

/// The acceptor of one group; that of an observer only takes note. During its
/// silence it refuses everybody, this node's own candidacy included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Acceptor {
    /// Until then this acceptor may have forgotten votes that still count (rule
    /// 5).
    silent_until: Option<BootNs>,
    /// Lower ballots are refused.
    promised: Ballot,
    /// This ballot and lower ones are refused (rule 7).
    released: Ballot,
    accepted: Option<Accepted>,
    reserved: Option<Reservation>,
    epoch: Epoch,
    /// This acceptor may have accepted a grant up to this epoch and forgotten it.
    floor: Epoch,
    broken: Broken,
}

impl Acceptor {
    /// An acceptor that has forgotten everything but the highest epoch, or knows
    /// only an upper bound of it (`floor`). It is silent until everything that it
    /// may have forgotten has run out.
    pub fn new(epoch: Epoch, floor: Epoch, silent_until: BootNs, broken: Broken) -> Self {
        let floor = if broken.is(Mutant::ForgetsFloor) { Epoch(0) } else { floor };
        Self { epoch, floor, silent_until: Some(silent_until), broken, ..Self::default() }
    }

    /// One that has run for a while and knows nothing.
    #[cfg(test)]
    pub fn idle() -> Self {
        Self { broken: Broken::chosen(), ..Self::default() }
    }

    /// The end of this acceptor's silence; `None` if it is over (rule 5).
    pub fn silent_until(&self, now: BootNs) -> Option<BootNs> {
        self.silent_until.filter(|until| *until > now)
    }

    /// Forgets what ran out by `now`. If something that kept `me` from standing
    /// ended by that, returns when, and whose lease it was.
    pub fn run_out(&mut self, me: NodeId, now: BootNs) -> Option<Lapsed> {
        self.silent_until = self.silent_until(now);
        let lease = self.accepted.take_if(|lease| lease.until <= now);
        let reserved = self.reserved.take_if(|reservation| reservation.until <= now);
        let lease = lease.filter(|lease| lease.ballot.node != me);
        let reserved = reserved.filter(|kept| kept.successor != me).map(|kept| kept.until);
        let at = lease.map(|lease| lease.until).max(reserved)?;
        Some(Lapsed {
            at,
            holder: lease.filter(|lease| lease.claim.is_held()).map(|lease| lease.ballot.node),
        })
    }

    /// First phase.
    pub fn prepare(&mut self, ballot: Ballot, now: BootNs) -> Result<Promised, Refused> {
        self.heed_silence(now)?;
        self.promise(ballot, now)
    }

    fn promise(&mut self, ballot: Ballot, now: BootNs) -> Result<Promised, Refused> {
        self.admit(ballot, now)?;
        self.promised = ballot;
        let epoch = self.epoch.max(self.floor);
        Ok(Promised { epoch, yours: self.lease(now).map(|lease| lease.epoch) })
    }

    /// Both phases of this node's own renewal where a lease needs every voter's
    /// vote: this acceptor had the lease too, so it can't have forgotten another
    /// one. This is the one exception from the silence (rule 5).
    pub fn renew_own(&mut self, phase: OwnPhase, now: BootNs) -> Result<Promised, Refused> {
        match phase {
            OwnPhase::Prepare { ballot } => self.promise(ballot, now),
            OwnPhase::Propose { ballot, epoch, accept } => {
                self.accept(ballot, epoch, Claim::Held, now, accept)?;
                Ok(Promised { epoch, yours: Some(epoch) })
            }
        }
    }

    /// Second phase; the lease is kept for `accept` from `now`, the receipt.
    pub fn propose(
        &mut self,
        ballot: Ballot,
        epoch: Epoch,
        claim: Claim,
        now: BootNs,
        accept: Duration,
    ) -> Result<(), Refused> {
        if !self.broken.is(Mutant::ProposeInSilence) {
            self.heed_silence(now)?;
        }
        self.accept(ballot, epoch, claim, now, accept)
    }

    fn accept(
        &mut self,
        ballot: Ballot,
        epoch: Epoch,
        claim: Claim,
        now: BootNs,
        accept: Duration,
    ) -> Result<(), Refused> {
        self.admit(ballot, now)?;
        self.promised = ballot;
        let known = self.epoch;
        if !self.broken.is(Mutant::KeepsReservation) {
            self.reserved = None;
        }
        self.epoch = if self.broken.is(Mutant::ForgetsEpoch) { known } else { known.max(epoch) };
        self.accepted = Some(Accepted { ballot, epoch, claim, until: now.plus(accept) });
        Ok(())
    }

    /// Second phase without a vote, for an observer or during the silence:
    /// believes the newest ballot. Returns whether this was it.
    pub fn learn(
        &mut self,
        ballot: Ballot,
        epoch: Epoch,
        claim: Claim,
        now: BootNs,
        accept: Duration,
    ) -> bool {
        // An acceptor that only takes note must not reject a ballot for being low: nobody
        // would raise it. The one ballot that is surely too old comes from before a
        // release by the very process that sends it. That node's next process begins its
        // rounds anew.
        let is_own = (ballot.node, ballot.incarnation) == (self.released.node, self.released.incarnation);
        let is_released = is_own && ballot <= self.released;
        let is_newest =
            self.lease(now).is_none_or(|lease| lease.ballot < ballot || lease.ballot.node == ballot.node)
                && (!is_released || self.broken.is(Mutant::LearnsReleased));
        let is_newest = is_newest || self.broken.is(Mutant::LearnsAnything);
        if is_newest {
            self.epoch = self.epoch.max(epoch);
            self.accepted = Some(Accepted { ballot, epoch, claim, until: now.plus(accept) });
        }
        is_newest
    }

    /// This acceptor may have forgotten what it promised and accepted before its
    /// start. It accepts nothing new until all of that has run out (rule 5).
    fn heed_silence(&self, now: BootNs) -> Result<(), Refused> {
        match self.silent_until(now) {
            Some(until) => Err(Refused::Silent { remaining: until.since(now) }),
            None => Ok(()),
        }
    }

    /// The checks that both phases share. Changes nothing: above all, a
    /// candidate that meets another's lease must not raise `promised`, or an
    /// asymmetric partition would starve the holder (rule 3).
    fn admit(&mut self, ballot: Ballot, now: BootNs) -> Result<(), Refused> {
        if let Some(lease) = self.lease(now)
            && lease.ballot.node != ballot.node
            && !self.broken.is(Mutant::Overwrite)
        {
            let Accepted { ballot: of, epoch, claim, until } = lease;
            if self.broken.is(Mutant::PromisesWhileHeld) {
                self.promised = self.promised.max(ballot);
            }
            return Err(Refused::Held { ballot: of, epoch, claim, remaining: until.since(now) });
        }
        if let Some(kept) = self.reservation(now)
            && kept.successor != ballot.node
        {
            return Err(Refused::Reserved { successor: kept.successor, remaining: kept.until.since(now) });
        }
        let is_low = ballot < self.promised && !self.broken.is(Mutant::BelowPromise);
        let is_over = ballot <= self.released && !self.broken.is(Mutant::ReleasedCounts);
        if is_over || is_low {
            // The higher of both, so that one more attempt is enough.
            return Err(Refused::Promised { ballot: self.promised.max(self.released) });
        }
        Ok(())
    }

    /// The ballot's node has released (rules 7 and 8); its successor, if it names
    /// one, has the group to itself for `reserve`. Returns whether the release
    /// was new here: a duplicate must not reserve the group again.
    ///
    /// Clears only a lease of the very incarnation that releases: a Release that
    /// was on its way while the node restarted says nothing about the lease of
    /// the node's new incarnation.
    pub fn release(
        &mut self,
        ballot: Ballot,
        successor: Option<NodeId>,
        now: BootNs,
        reserve: Duration,
    ) -> bool {
        let broken = self.broken;
        let cleared = self.accepted.take_if(|lease| {
            lease.ballot.node == ballot.node
                && (lease.ballot.incarnation == ballot.incarnation || broken.is(Mutant::ReleasesReborn))
                && (lease.ballot <= ballot || broken.is(Mutant::ReleasesNewer))
        });
        let news = cleared.is_some() || ballot > self.released || self.broken.is(Mutant::EndlessReservation);
        self.released = self.released.max(ballot);
        if news && self.lease(now).is_none() && !self.broken.is(Mutant::NoReservation) {
            self.reserved = successor.map(|successor| Reservation { successor, until: now.plus(reserve) });
        }
        news
    }

    /// [`Mutant::ForceOverwrites`]: forgets the accepted lease, whoever owns it.
    pub fn forget(&mut self) {
        self.accepted = None;
    }

    /// [`Mutant::SameBallot`]: takes `successor` for the owner of what was
    /// accepted under `ballot`, until `until`.
    #[cfg(feature = "mutants")]
    pub fn give(&mut self, ballot: Ballot, successor: NodeId, until: BootNs) {
        if self.accepted.is_none_or(|lease| lease.ballot.node == ballot.node) {
            let ballot = Ballot { node: successor, ..ballot };
            self.accepted = Some(Accepted { ballot, epoch: self.epoch, claim: Claim::Held, until });
        }
    }

    /// The owner says that this ballot has won. Returns whether that is the
    /// lease accepted here.
    pub fn confirm(&mut self, ballot: Ballot, now: BootNs) -> bool {
        let any = self.broken.is(Mutant::ConfirmsAny);
        let Some(lease) = self.accepted.as_mut().filter(|l| l.until > now && (l.ballot == ballot || any))
        else {
            return false;
        };
        if lease.claim == Claim::Asked {
            lease.claim = Claim::Held;
        }
        true
    }

    /// The accepted lease, if it has not run out.
    pub fn lease(&self, now: BootNs) -> Option<Accepted> {
        self.accepted.filter(|lease| lease.until > now)
    }

    fn reservation(&self, now: BootNs) -> Option<Reservation> {
        self.reserved.filter(|kept| kept.until > now)
    }

    /// Is the group kept for `node` at present?
    pub fn reserved_for(&self, node: NodeId, now: BootNs) -> bool {
        self.reservation(now).is_some_and(|kept| kept.successor == node)
    }

    /// Until when this acceptor would refuse `node`, whatever its ballot.
    pub fn blocked_until(&self, node: NodeId, now: BootNs) -> Option<BootNs> {
        let lease = self.lease(now).filter(|lease| lease.ballot.node != node).map(|lease| lease.until);
        let kept = self.reservation(now).filter(|kept| kept.successor != node).map(|kept| kept.until);
        lease.max(kept)
    }

    /// The next moment at which something here runs out.
    pub fn next_deadline(&self) -> Option<BootNs> {
        let lease = self.accepted.map(|lease| lease.until);
        let kept = self.reserved.map(|kept| kept.until);
        lease.into_iter().chain(kept).chain(self.silent_until).min()
    }

    /// The highest round that a new ballot has to exceed.
    pub fn round(&self) -> u64 {
        self.promised.round.max(self.released.round)
    }

    /// The highest epoch accepted so far.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}

impl Group {
    /// Answers a peer's first phase.
    pub fn answer_prepare(&mut self, from: NodeId, ballot: Ballot, node: &mut Node) {
        if !Self::is_asked(node) || !Self::may_hold(from, node) {
            return;
        }
        self.round = self.round.max(ballot.round);
        let answer = self.promise(ballot, node);
        node.tell(
            from,
            self.id,
            match answer {
                Ok(Promised { epoch, yours }) => About::Promise { ballot, epoch, yours },
                Err(because) => About::Refuse { ballot, because: self.as_it_is(because, node) },
            },
        );
    }

    /// First phase. As long as a new epoch would have to wait for the disk, this
    /// node does not promise one either: attempts in vain would use numbers up.
    pub fn promise(&mut self, ballot: Ballot, node: &Node) -> Result<Promised, Refused> {
        let promised = self.acceptor.prepare(ballot, node.now)?;
        if promised.yours.is_none() && !node.is_on_disk(promised.epoch.next()) {
            return Err(Refused::Silent { remaining: CEILING_WAIT });
        }
        Ok(promised)
    }

    /// Answers a peer's second phase.
    pub fn answer_propose(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        epoch: Epoch,
        claim: Claim,
        node: &mut Node,
    ) {
        if !Self::may_hold(from, node) {
            return;
        }
        self.round = self.round.max(ballot.round);
        let (now, accept) = (node.now, node.keep());
        if !Self::is_asked(node) {
            // Nobody relies on an observer's vote, so it may believe the latest ballot.
            if self.acceptor.learn(ballot, epoch, claim, now, accept) {
                self.on_foreign_lease(claim.is_held());
            }
            return;
        }
        self.yield_to(from, epoch, claim.is_held(), node);
        if self.acceptor.silent_until(now).is_some()
            && claim.is_held()
            && self.lease.is_none()
            && !node.broken.is(Mutant::NoNoteInSilence)
        {
            // Not a vote. But after its silence this acceptor refuses other candidates
            // like the acceptors that voted, so the holder's agent can be replaced next.
            self.acceptor.learn(ballot, epoch, claim, now, accept);
        }
        // A renewal has no new epoch, so it never waits for a disk.
        let answer = if node.is_below_ceiling(epoch) || claim == Claim::Held {
            self.acceptor.propose(ballot, epoch, claim, now, accept)
        } else {
            Err(Refused::Silent { remaining: CEILING_WAIT })
        };
        node.tell(
            from,
            self.id,
            match answer {
                Ok(()) => {
                    self.on_foreign_lease(claim.is_held());
                    About::Accept { ballot }
                }
                Err(because) => About::Refuse { ballot, because: self.as_it_is(because, node) },
            },
        );
    }

    /// Says that this node holds only while it does: its acceptor may keep the
    /// lease for longer than the lease lasts.
    fn as_it_is(&self, because: Refused, node: &Node) -> Refused {
        match because {
            Refused::Held { ballot, epoch, remaining, .. } if ballot.node == node.me() => {
                Refused::Held { ballot, epoch, claim: self.claim(), remaining }
            }
            Refused::Held { .. }
            | Refused::Promised { .. }
            | Refused::Reserved { .. }
            | Refused::Silent { .. } => because,
        }
    }

    /// Has this node's acceptor a vote? An observer's has none (rule 11).
    fn is_asked(node: &Node) -> bool {
        node.votes() || node.broken.is(Mutant::ObserversVote)
    }

    /// Can `from` hold leases, as far as this node knows? A node that could in
    /// the generation before, and can't in this one, may not have heard of the
    /// change, and nobody waits until it has (rule 10): it gets no vote here.
    fn may_hold(from: NodeId, node: &Node) -> bool {
        node.config.role(from) == Some(Role::Node) || node.broken.is(Mutant::VotesForAnybody)
    }
}
