//! Messages on the way. They are a set that grows: each may arrive at any later
//! moment, in any order, any number of times, or never. That is loss, delay,
//! reordering and duplication at once.
//!
//! Everything else here keeps the set small, by leaving out messages that can
//! have no effect. Each rule has its argument beside it.

use std::mem::discriminant;

use vip_engine::{About, Ballot, Claim, Refused};

use super::{
    local::{Envelope, Local},
    scope::PLACES,
    table::{EventKey, MessageId, Step},
    world::{Cluster, World},
};

impl Cluster {
    /// Everything that may still arrive.
    pub(super) fn on_the_way<'a>(
        &'a self,
        world: &'a World,
    ) -> impl Iterator<Item = std::sync::Arc<Envelope>> + 'a {
        world.net.iter().map(|&message| self.table.message(message))
    }

    /// Puts messages on their way; `carried`: the first message of a new ballot
    /// gets there.
    pub(super) fn send(&self, world: &mut World, sent: &[MessageId], carried: bool) {
        let new: Vec<_> =
            sent.iter().copied().filter(|&message| self.would_add(world, message, carried)).collect();
        if !new.is_empty() {
            let mut net = new;
            net.extend_from_slice(&world.net);
            net.sort_unstable();
            net.dedup();
            world.net = net.into();
        }
    }

    /// Does the first word of a step's new ballot, if it has one, get anywhere?
    pub(super) fn carries_ballot(&self, world: &World, step: &Step) -> bool {
        !step.new_ballot || (world.ballots > 0 && (step.stands || self.scope.renewals))
    }

    /// Does a step say nothing that is not on its way already?
    pub(super) fn says_nothing(&self, world: &World, step: &Step) -> bool {
        let carried = self.carries_ballot(world, step);
        step.sent.iter().all(|&message| !self.would_add(world, message, carried))
    }

    fn would_add(&self, world: &World, message: MessageId, carried: bool) -> bool {
        world.net.binary_search(&message).is_err()
            && self.carries(message, carried)
            && self.is_news(world, message)
    }

    /// Some messages are always lost, which is a thing that may happen.
    fn carries(&self, message: MessageId, first_words: bool) -> bool {
        match self.table.message(message).about {
            // Beyond the number of ballots that the scope allows. A renewal
            // begins with its second phase.
            About::Prepare { .. } | About::Propose { claim: Claim::Held | Claim::Forced, .. } => first_words,
            // It ends the repetition of a Release, and what would be repeated
            // is on its way anyway.
            About::Released { .. } | About::Stale { .. } | About::Unheard { .. } => false,
            // For people; nobody's vote depends on it.
            About::Holding { .. } => self.scope.holding,
            About::Promise { .. }
            | About::Propose { .. }
            | About::Accept { .. }
            | About::Refuse { .. }
            | About::Release { .. }
            | About::AskReady { .. }
            | About::Ready { .. } => true,
        }
    }

    /// Does a Promise tell anything that another one on its way does not? The
    /// answer to a Prepare that came twice may differ in the epoch, which is
    /// for people, and in whether the acceptor has a lease of the asking node,
    /// which matters to a process that adopts a lease after its start alone.
    fn is_news(&self, world: &World, message: MessageId) -> bool {
        let new = self.table.message(message);
        let About::Promise { ballot, yours, .. } = new.about else { return true };
        let adopts = self.local(world, usize::from(new.to)).starts > 1;
        !self.on_the_way(world).any(|old| {
            let About::Promise { ballot: of, yours: told, .. } = old.about else { return false };
            (old.from, old.to, of) == (new.from, new.to, ballot)
                && (!adopts || told.is_some() == yours.is_some())
        })
    }

    /// Removes messages that can have no effect any more.
    pub(super) fn prune(&self, world: &mut World) {
        // Any message may affect a process that starts anew.
        if self.scope.old_datagrams && world.restarts > 0 {
            return;
        }
        let locals = std::array::from_fn(|node| self.local(world, node));
        let matters = |&message: &MessageId| self.matters(world, &locals, message);
        if !world.net.iter().all(matters) {
            world.net = world.net.iter().copied().filter(matters).collect();
        }
    }

    /// May this message have an effect at any time from now on?
    fn matters(&self, world: &World, locals: &[std::sync::Arc<Local>; PLACES], message: MessageId) -> bool {
        let envelope = self.table.message(message);
        let (from, to) = (&locals[usize::from(envelope.from)], &locals[usize::from(envelope.to)]);
        if to.engine.is_none() {
            return false;
        }
        // Is the attempt that an answer answers under way, for all we know?
        let now = self.scope.clock(usize::from(envelope.to), world.tick);
        let listens = |ballot| to.listens(ballot, now);
        match envelope.about {
            About::Accept { .. } if self.scope.late_accepts => true,
            About::Promise { ballot, .. } | About::Accept { ballot } => listens(ballot),
            About::Refuse { ballot, because } => match because {
                // It may tell a holder that its lease is no longer one, also
                // when it comes late: of a later grant than any that the node
                // knows of, or of one that begins its rounds anew.
                Refused::Held { ballot: other, epoch, .. } => {
                    let engine = to.engine.as_ref().map(|engine| engine.status(now));
                    let known =
                        engine.and_then(|status| status.groups.iter().next().map(|group| group.epoch));
                    listens(ballot)
                        || known < Some(epoch)
                        || to.latest < Some(other)
                        || !self.is_ignored(world, message)
                }
                // Too late, it changes the number of the node's next ballot
                // and nothing else.
                Refused::Promised { .. } | Refused::Reserved { .. } | Refused::Silent { .. } => {
                    listens(ballot)
                }
            },
            About::Prepare { ballot } | About::Propose { ballot, .. } => {
                let now = self.scope.clock(usize::from(envelope.from), world.tick);
                from.listens(ballot, now) || !self.is_settled(world, message)
            }
            // What has been released stays so; a question is answered once.
            About::Release { .. } | About::Ready { .. } => !self.is_ignored(world, message),
            About::AskReady { .. }
            | About::Released { .. }
            | About::Holding { .. }
            | About::Stale { .. }
            | About::Unheard { .. } => true,
        }
    }

    /// Does the message change nothing and lead to nothing?
    fn is_ignored(&self, world: &World, message: MessageId) -> bool {
        let (changes, step) = self.try_out(world, message);
        !changes && step.sent.iter().all(|&sent| !self.carries(sent, true))
    }

    /// Nobody waits for an answer to this any more. Will it also never change the
    /// acceptor? An acceptor never goes back behind what it has promised or seen
    /// released. So it has nothing to learn if it answers that the ballot is too
    /// low, or promises what it had promised before. A Propose that it had
    /// accepted before is different: accepting it again would make its lease last
    /// longer.
    fn is_settled(&self, world: &World, message: MessageId) -> bool {
        let low = discriminant(&Refused::Promised { ballot: Ballot::default() });
        let (changes, step) = self.try_out(world, message);
        !changes
            && step.sent.iter().all(|&answer| match self.table.message(answer).about {
                About::Promise { .. } => true,
                About::Refuse { because, .. } => discriminant(&because) == low,
                About::Prepare { .. }
                | About::Propose { .. }
                | About::Accept { .. }
                | About::Holding { .. }
                | About::Release { .. }
                | About::Released { .. }
                | About::AskReady { .. }
                | About::Ready { .. }
                | About::Stale { .. }
                | About::Unheard { .. } => false,
            })
    }

    fn try_out(&self, world: &World, message: MessageId) -> (bool, std::sync::Arc<Step>) {
        let node = usize::from(self.table.message(message).to);
        let step = self.step(world, node, EventKey::Deliver(message));
        (step.next != world.nodes[node], step)
    }
}
