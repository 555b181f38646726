//! What nodes say to each other: ballots, messages and packets as types. How
//! they look as bytes is in [`super::wire`]; who may send them, and how that
//! is authenticated, is the transport's business.

use std::time::Duration;

use super::{
    config::{CommandId, Epoch, GroupId, Incarnation, NodeId, Pause},
    io::{Command, Refusal},
};

/// The most bytes that an encoded [`Packet`] has: what fits an IPv6 minimum
/// MTU of 1280 with room for the transport's header and tag.
pub const PAYLOAD_MAX: usize = 1200;

/// Number of an attempt to get a lease (rule 1). One ballot, one value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Rises with every attempt of a node.
    pub round: u64,
    /// Keeps ballots of different starts of one node apart.
    pub incarnation: Incarnation,
    /// Who makes the attempt, and who owns the lease if it succeeds.
    pub node: NodeId,
}

/// By what a node has a lease that it asks acceptors to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// It has not: it is a candidate, as far as is known.
    Asked,
    /// By the votes of a majority.
    Held,
    /// By its own vote alone, by force. What a majority has voted for does not
    /// give way to it.
    Forced,
}

impl Claim {
    /// Does its owner hold the lease, by whatever?
    #[must_use]
    pub const fn is_held(self) -> bool {
        !matches!(self, Self::Asked)
    }
}

/// Why an acceptor does not go along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// It holds another owner's unexpired lease (rule 3).
    Held {
        /// The ballot of that lease; its node is the owner.
        ballot: Ballot,
        /// The number of its grant.
        epoch: Epoch,
        /// By what its owner has it.
        claim: Claim,
        /// How long the acceptor will keep it.
        remaining: Duration,
    },
    /// It promised a higher ballot, or this one and lower ones were released.
    Promised {
        /// The ballot to exceed.
        ballot: Ballot,
    },
    /// The group is kept for a successor (rule 8).
    Reserved {
        /// Who that is.
        successor: NodeId,
        /// How much longer.
        remaining: Duration,
    },
    /// It has just started and keeps silence (rule 5), or it waits for its disk
    /// before it votes for a higher epoch.
    Silent {
        /// How much longer.
        remaining: Duration,
    },
}

/// Number of a holder's question whether a target is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// A command as the cluster knows it: the sender completes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// The start of the node that the command was given to.
    pub incarnation: Incarnation,
    /// Its number there.
    pub command: CommandId,
}

/// What the node that a command was forwarded to makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is under way; the outcome is for the asking node to see.
    Started {
        /// Who takes the lease; `None` if it is released to nobody.
        successor: Option<NodeId>,
    },
    /// It is not done, and the lease stays where it is.
    Refused(Refusal),
}

/// One message; a packet carries many.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// I am here, and for these groups I could take the lease.
    Heartbeat {
        /// The group that `ready` begins with.
        first: GroupId,
        /// Group by group.
        ready: Vec<bool>,
    },
    /// What a node says about itself and the cluster; goes with every heartbeat.
    Node {
        /// Is the sender on standby?
        standby: bool,
        /// The cluster's pause, as the sender knows it.
        pause: Pause,
        /// The highest epoch that it may have accepted, in any group.
        highest: Epoch,
    },
    /// A command for the holder (or, if nobody holds, for the node to promote).
    Request {
        /// The command's number.
        request: RequestId,
        /// The grant that it was meant for: a later one is not touched by it.
        epoch: Epoch,
        /// The command.
        command: Command,
    },
    /// Answer to Request.
    Verdict {
        /// The command's number.
        request: RequestId,
        /// The answer.
        verdict: Verdict,
    },
    /// About the lease of one group.
    Group {
        /// The group.
        group: GroupId,
        /// What it says.
        about: About,
    },
}

/// What a message says about the lease of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum About {
    /// First phase: may this ballot go ahead?
    Prepare {
        /// The ballot.
        ballot: Ballot,
    },
    /// It may; lower ones may not any more.
    Promise {
        /// The ballot that was asked for.
        ballot: Ballot,
        /// The highest epoch that this acceptor has accepted, expired or not.
        epoch: Epoch,
        /// The epoch of the asking node's own lease, if this acceptor has it unexpired.
        yours: Option<Epoch>,
    },
    /// Second phase: take note that the ballot's node has the lease.
    Propose {
        /// The ballot.
        ballot: Ballot,
        /// Number of the grant.
        epoch: Epoch,
        /// By what the sender has the lease, or wants to.
        claim: Claim,
    },
    /// Noted.
    Accept {
        /// The ballot that was proposed.
        ballot: Ballot,
    },
    /// A majority has accepted this ballot: the sender holds the lease. For
    /// people and commands; nobody's vote depends on it, and if it is lost,
    /// the next renewal tells the same.
    Holding {
        /// The ballot that won.
        ballot: Ballot,
    },
    /// No, to a Prepare or a Propose.
    Refuse {
        /// The ballot that was asked for.
        ballot: Ballot,
        /// Why.
        because: Refused,
    },
    /// The sender's lease is over (rule 7); its map was cleared before.
    Release {
        /// The highest ballot that this incarnation of the sender has used.
        ballot: Ballot,
        /// Who shall have the lease next (rule 8).
        successor: Option<NodeId>,
    },
    /// A Release has arrived.
    Released {
        /// The ballot of that Release.
        ballot: Ballot,
    },
    /// Could you take the lease?
    AskReady {
        /// Number of the question.
        ask: AskId,
    },
    /// Answer to AskReady.
    Ready {
        /// Number of the question.
        ask: AskId,
        /// The answer.
        ready: bool,
    },
}

/// What one input has for one peer, in as many datagrams as it takes; or what
/// came in one of those.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Packet {
    /// In the order of sending.
    pub messages: Vec<Message>,
}
