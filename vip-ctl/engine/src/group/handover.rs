//! The holder's side of switchover, demotion and promotion elsewhere (rule 8):
//! ask the target, and release only when it is ready. [`crate::command`] knows
//! who asked, and decides whether the outcome has come about.

use vip_common::BootNs;

use super::Group;
use crate::{
    config::{NodeId, NodeSet},
    io::{Reason, Refusal},
    message::{About, AskId, Verdict},
    mutant::Mutant,
    node::{Node, Requester},
};

/// What to do with the lease when a target says no, or there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wish {
    /// This node or nobody.
    To(NodeId),
    /// The best one; if there is none, keep the lease.
    Best,
    /// The best one, since this node is not well; if there is none, keep the lease.
    Unwell,
    /// The best one; if there is none, release all the same, and stay away.
    Away,
    /// The best one; if there is none, a node on standby releases all the same,
    /// and one that only wants to be stays. Standby itself keeps it away.
    Leave,
}

/// A handover whose target has not answered yet. The lease is renewed meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Handover {
    /// Who waits for the verdict; `None` if this node itself wants to hand over.
    requester: Option<Requester>,
    wish: Wish,
    target: NodeId,
    pub ask: AskId,
    tried: NodeSet,
    resend: BootNs,
    until: BootNs,
}

impl Handover {
    pub fn next_deadline(&self) -> BootNs {
        self.resend.min(self.until)
    }
}

impl Group {
    /// Begins to hand this node's lease over.
    pub fn begin_handover(&mut self, requester: Option<Requester>, wish: Wish, node: &mut Node) {
        if self.handover.is_some() {
            node.decide(requester, Verdict::Refused(Refusal::Busy));
            return;
        }
        match wish {
            Wish::To(target) => {
                let refusal = if target == node.me() {
                    node.decide(requester, Verdict::Started { successor: Some(target) });
                    return;
                } else {
                    let is_silent = !node.present(target, node.now);
                    node.can_hold(target).err().or(is_silent.then_some(Refusal::TargetSilent))
                };
                match refusal {
                    Some(refusal) => node.decide(requester, Verdict::Refused(refusal)),
                    None => self.ask(requester, wish, target, NodeSet::default(), node),
                }
            }
            Wish::Best | Wish::Unwell | Wish::Away | Wish::Leave => {
                self.ask_best(requester, wish, NodeSet::default(), node);
            }
        }
    }

    fn ask(
        &mut self,
        requester: Option<Requester>,
        wish: Wish,
        target: NodeId,
        tried: NodeSet,
        node: &mut Node,
    ) {
        let ask = node.next_ask();
        let resend = node.now.plus(node.timing.retry);
        let until = node.now.plus(node.timing.ask);
        self.handover = Some(Handover { requester, wish, target, ask, tried, resend, until });
        node.tell(target, self.id, About::AskReady { ask });
    }

    /// Asks the best target that was not tried yet; without one, does what the
    /// wish says.
    fn ask_best(&mut self, requester: Option<Requester>, wish: Wish, tried: NodeSet, node: &mut Node) {
        match (node.best_target(self.id, tried, None, node.now), wish) {
            (Some(target), _) => self.ask(requester, wish, target, tried, node),
            (None, Wish::Away) => {
                node.decide(requester, Verdict::Started { successor: None });
                self.abstaining = !node.broken.is(Mutant::DemotedComesBack);
                self.release(None, Reason::Demoted, node);
            }
            (None, Wish::Leave) => match &mut node.leaving {
                Some(leaving) if !node.broken.is(Mutant::LeavesToNobody) => leaving.failed = true,
                Some(_) | None => self.release(None, Reason::Standby, node),
            },
            (None, Wish::Best | Wish::Unwell | Wish::To(_)) => {
                node.decide(requester, Verdict::Refused(Refusal::NoTarget));
            }
        }
    }

    /// A target has answered.
    pub fn on_ready(&mut self, from: NodeId, ask: AskId, ready: bool, node: &mut Node) {
        let any = node.broken.is(Mutant::AnyAnswer);
        let Some(handover) = self.handover.take_if(|h| (h.ask == ask || any) && h.target == from) else {
            return;
        };
        if !ready && !node.broken.is(Mutant::HandsOverUnasked) {
            self.next_target(handover, Refusal::TargetNotReady, node);
            return;
        }
        node.decide(handover.requester, Verdict::Started { successor: Some(from) });
        let reason = match handover.wish {
            Wish::To(_) | Wish::Best => Reason::HandedOver,
            Wish::Unwell => Reason::Eligibility,
            Wish::Away => {
                self.abstaining = true;
                Reason::Demoted
            }
            Wish::Leave => Reason::Standby,
        };
        #[cfg(feature = "mutants")]
        if node.broken.is(Mutant::SameBallot) {
            self.propose_other(from, reason, node);
            return;
        }
        self.release(Some(from), reason, node);
    }

    fn next_target(&mut self, handover: Handover, refusal: Refusal, node: &mut Node) {
        let Handover { requester, wish, target, mut tried, .. } = handover;
        match wish {
            Wish::To(_) => node.decide(requester, Verdict::Refused(refusal)),
            Wish::Best | Wish::Unwell | Wish::Away | Wish::Leave => {
                if !node.broken.is(Mutant::AsksTheSameAgain) {
                    tried.insert(target);
                }
                self.ask_best(requester, wish, tried, node);
            }
        }
    }

    /// This node gives up leaving.
    pub fn stay(&mut self) {
        self.handover.take_if(|handover| handover.wish == Wish::Leave);
    }

    /// The lease has ended before a target could take it over.
    pub fn cancel_handover(&mut self, node: &mut Node) {
        let Some(handover) = self.handover.take() else { return };
        let verdict = match handover.wish {
            Wish::To(_) | Wish::Best | Wish::Unwell => Verdict::Refused(Refusal::NotHolder),
            // A released lease is what this command asked for.
            Wish::Away => {
                self.abstaining = true;
                Verdict::Started { successor: None }
            }
            Wish::Leave => Verdict::Started { successor: None },
        };
        node.decide(handover.requester, verdict);
    }

    /// [`crate::Input::PromoteFailed`].
    pub fn promote_failed(&mut self, node: &mut Node) {
        self.eligible = Some(false);
        self.clings = false;
        if self.lease.is_some() {
            let successor = node.best_peer(self.id);
            self.release(successor, Reason::PromoteFailed, node);
            // If no other node takes it, this one may try again, also in a pause.
            self.was_mine = true;
        } else {
            self.attempt = None;
            self.clean_up(node);
        }
    }

    /// Asks again, or gives the target up.
    pub fn drive_handover(&mut self, node: &mut Node) {
        if let Some(handover) = self.handover.take_if(|handover| handover.until <= node.now) {
            self.next_target(handover, Refusal::TargetSilent, node);
        }
        if let Some(handover) = self.handover.as_mut().filter(|handover| handover.resend <= node.now) {
            handover.resend = node.now.plus(node.timing.retry);
            node.tell(handover.target, self.id, About::AskReady { ask: handover.ask });
        }
    }
}
