//! Engines that are broken on purpose, each in one line of its own: the model
//! check must find what they do, or it proves nothing. Where a line is broken
//! is said there; which lines there are, is here.
//!
//! Without the feature `mutants`, which nothing that ships has, [`Broken`] is
//! empty, and asking it is `false` at compile time.

#[cfg(feature = "mutants")]
use vip_common::{BootNs, Lease};

#[cfg(feature = "mutants")]
use super::{
    config::NodeId,
    group::{Group, Held},
    io::{Output, Reason},
    message::{About, Ballot},
    node::Node,
};

/// One way to break the protocol.
#[cfg_attr(not(feature = "mutants"), expect(dead_code, reason = "one is asked for with the feature only"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutant {
    /// After a start a node is silent for half of T_accept (rule 5).
    ShortSilence,
    /// An acceptor keeps what it accepted for half of T_hold (rules 3 and 4).
    ShortAcceptor,
    /// The lease counts from the last sending of the Propose (rule 2).
    LeaseFromPropose,
    /// The release is on the wire before the map is cleared (rule 7).
    ReleaseBeforeStore,
    /// An acceptor gives another owner's unexpired lease away (rule 3).
    Overwrite,
    /// A handover proposes the successor under the holder's own ballot (rule 8).
    SameBallot,
    /// T_hold is T_accept, without a margin for clocks (rule 4).
    NoMargin,
    /// Any Accept counts, whatever ballot it answers (rule 2).
    AnyAccept,
    /// A renewal goes on after the release, and brings the lease back (rule 7).
    LateRenewal,
}

/// How an engine is broken, if it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Broken(#[cfg(feature = "mutants")] Option<Mutant>);

impl Broken {
    /// By this mutant.
    #[cfg(feature = "mutants")]
    pub const fn by(mutant: Mutant) -> Self {
        Self(Some(mutant))
    }

    /// Is it broken by this one?
    #[cfg(feature = "mutants")]
    pub fn is(self, mutant: Mutant) -> bool {
        self.0 == Some(mutant)
    }

    /// Is it broken by this one? It is not.
    #[cfg(not(feature = "mutants"))]
    pub const fn is(self, _mutant: Mutant) -> bool {
        false
    }
}

/// What [`Mutant::SameBallot`] remembers.
#[cfg(feature = "mutants")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Given {
    /// The old holder: under which ballot it has proposed whom.
    to: Option<(Ballot, NodeId)>,
    /// The successor: when it said that it is ready.
    ready_at: Option<BootNs>,
}

/// [`Mutant::SameBallot`], a handover as it might have been: the holder
/// proposes the successor as the owner of the ballot that won it the lease,
/// counts Accepts of that ballot, and tells the successor that it has won. The
/// Release message stands for that Propose, a Holding in the successor's name
/// for the word that it has won.
#[cfg(feature = "mutants")]
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
            | About::Ready { .. } => false,
        }
    }
}
