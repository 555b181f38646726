//! Requests of other threads to the lease loop, and the handle to send them.

use std::{collections::BTreeMap, net::IpAddr, sync::mpsc::Sender};

use nix::sys::eventfd::EventFd;
use tokio::sync::oneshot;
use vip_common::GroupIndex;
use vip_lease::{Eligible, Hook, Regroup, Snapshot, gate::Ticket};

use super::{Report, Tell};
use crate::engine::{
    Command, Completed, Epoch, Foreseen, GroupId, Label, NodeId, PathEnd, PathSeen, Refusal,
};

/// A request of another thread to the loop.
pub enum Ask {
    /// Do a person's command, and send its outcome. It names groups by their
    /// numbers in that table; while the loop has another one, the answer is
    /// "busy".
    Command(Command, u64, oneshot::Sender<Result<Completed, Refusal>>),
    /// Send what a command would do.
    Foresee(Command, u64, oneshot::Sender<Result<Foreseen, Refusal>>),
    /// Go on with other groups, then send [`LeaseNotice::Regrouped`].
    Regroup(Box<Regroup>),
    /// Announce a group again, if it is here: it has new VIPs.
    Announce(Label),
    /// Announce every group that is here again: hosts on the network may have missed something.
    AnnounceAll,
    /// Send what the engine knows.
    Status(oneshot::Sender<Snapshot>),
    /// This ceiling is on disk.
    Ceiling(Epoch),
    /// The judge's verdicts on groups.
    Eligible(Vec<(GroupId, Eligible)>),
    /// A hook that the loop waits for has ended; true if it succeeded.
    HookEnded(Hook, Ticket, bool),
    /// Tell the peers which interfaces of this node to ask, and each of them what was found
    /// about its own.
    Paths(Vec<PathEnd>, BTreeMap<NodeId, Vec<PathSeen>>),
    /// Tell the holders that nobody answers for these VIPs, one of each group.
    Unheard(Vec<(GroupIndex, IpAddr)>),
    /// Release everything and end.
    Stop,
    /// End at once and leave the leases as they are: the next agent adopts them,
    /// or they run out.
    Leave,
}

/// A handle by which other threads ask the loop.
#[derive(Clone)]
pub struct Asker {
    sender: Sender<Ask>,
    wake: std::sync::Arc<EventFd>,
}

impl Asker {
    /// Pairs a channel's sender with the descriptor that wakes the loop.
    #[must_use]
    pub const fn new(sender: Sender<Ask>, wake: std::sync::Arc<EventFd>) -> Self {
        Self { sender, wake }
    }

    /// Sends a request; false if the loop has ended.
    #[must_use]
    pub fn ask(&self, ask: Ask) -> bool {
        self.sender.send(ask).is_ok() && self.wake.write(1).is_ok()
    }

    /// Sends a request and waits for the reply; `None` if the loop has ended.
    pub async fn ask_for<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        if !self.ask(ask(reply)) {
            return None;
        }
        answer.await.ok()
    }

    /// [`Asker::ask_for`], for a thread that may block: it waits for as long as
    /// the loop does not answer.
    pub fn ask_for_blocking<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        if !self.ask(ask(reply)) {
            return None;
        }
        answer.blocking_recv().ok()
    }
}

impl Report for Asker {
    fn ended(&self, hook: Hook, ticket: Ticket, well: bool) {
        // A loop that has ended waits for nothing.
        let _ = self.ask(Ask::HookEnded(hook, ticket, well));
    }
}

impl Tell for Asker {
    fn eligible(&self, groups: Vec<(GroupId, Eligible)>) -> bool {
        self.ask(Ask::Eligible(groups))
    }

    fn regroup(&self, regroup: Regroup) -> bool {
        self.ask(Ask::Regroup(Box::new(regroup)))
    }

    fn ceiling(&self, ceiling: Epoch) -> bool {
        self.ask(Ask::Ceiling(ceiling))
    }

    fn announce(&self, label: Label) -> bool {
        self.ask(Ask::Announce(label))
    }

    fn announce_all(&self) -> bool {
        self.ask(Ask::AnnounceAll)
    }
}
