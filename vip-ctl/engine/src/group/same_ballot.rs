//! The mutant [`crate::mutant::Mutant::SameBallot`], which needs more than one
//! line: a handover that gives a second meaning to a message.

use vip_common::{BootNs, Lease};

use super::{Group, Held};
use crate::{
    config::NodeId,
    io::{Output, Reason},
    message::{About, Ballot},
    node::Node,
};

/// What `SameBallot` remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Given {
    /// The old holder: the successor that it has proposed, and under which
    /// ballot.
    to: Option<(Ballot, NodeId)>,
    /// The successor: when it said that it is ready.
    ready_at: Option<BootNs>,
}

/// `SameBallot`, a handover as it might have been: the holder proposes the
/// successor as the owner of the ballot that won the holder its lease, counts
/// Accepts of that ballot, and tells the successor that it has won. In this
/// mutant the Release message serves as that Propose, and a Holding in the
/// successor's name as the word that it has won.
impl Group {
    /// The target is ready: gives it the lease, or means to.
    pub fn propose_other(&mut self, successor: NodeId, reason: Reason, node: &mut Node) {
        let Some(ballot) = self.lease.and_then(|lease| lease.ballot) else { return };
        self.lease = None;
        self.attempt = None;
        self.reason = reason;
        node.outputs.push_back(Output::StoreLease { group: self.id, lease: Lease::NONE });
        self.acceptor.give(ballot, successor, node.now.plus(node.timing.accept));
        self.given.to = Some((ballot, successor));
        node.tell_all(self.id, About::Release { ballot, successor: Some(successor) });
    }

    /// Takes a message of such a handover. Returns whether it was one.
    pub fn receive_other(&mut self, from: NodeId, about: About, node: &mut Node) -> bool {
        match about {
            About::AskReady { .. } if self.able(node) => {
                self.given.ready_at = Some(node.now);
                false
            }
            About::Release { ballot, successor: Some(successor) } => {
                self.acceptor.give(ballot, successor, node.now.plus(node.timing.accept));
                node.tell(from, self.id, About::Accept { ballot });
                true
            }
            // With its own, that is a majority of three. But which value did
            // the acceptor accept under this ballot?
            About::Accept { ballot } if self.given.to.is_some_and(|(given, _)| given == ballot) => {
                if let Some((ballot, successor)) = self.given.to.take() {
                    let ballot = Ballot { node: successor, ..ballot };
                    node.tell(successor, self.id, About::Holding { ballot });
                }
                true
            }
            About::Holding { ballot } if ballot.node == node.me() => {
                let Some(ready_at) = self.given.ready_at.take() else { return false };
                let until = ready_at.plus(node.timing.hold);
                if until > node.now {
                    self.lease = Some(Held { ballot: None, epoch: None, until, renew_at: until });
                    let lease = Lease::until(until);
                    node.outputs.push_back(Output::StoreLease { group: self.id, lease });
                }
                true
            }
            About::Prepare { .. }
            | About::Promise { .. }
            | About::Propose { .. }
            | About::Accept { .. }
            | About::Refuse { .. }
            | About::Holding { .. }
            | About::Release { successor: None, .. }
            | About::Released { .. }
            | About::AskReady { .. }
            | About::Ready { .. }
            | About::Stale { .. }
            | About::Unheard { .. } => false,
        }
    }
}
