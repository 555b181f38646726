//! What nodes say to each other: ballots, messages and packets as types.
//! [`super::wire`] has their bytes; the transport decides who may send them, and
//! authenticates them.

use std::{net::IpAddr, time::Duration};

use super::{
    config::{CommandId, Epoch, GroupId, Incarnation, NodeId, Pause},
    io::{Command, Refusal},
};

/// The most bytes of an encoded [`Packet`]: fits an IPv6 minimum MTU of 1280 with
/// room for the transport's header and tag.
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

/// On what grounds a node asks acceptors to keep a lease for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// It asks for the lease: it is a candidate, as far as the sender knows.
    Asked,
    /// By the votes of a majority.
    Held,
    /// It holds the lease by its own vote alone, by force. A lease of a majority
    /// does not give way to it.
    Forced,
}

impl Claim {
    /// Does its owner hold the lease, by a majority or by force?
    #[must_use]
    pub const fn is_held(self) -> bool {
        !matches!(self, Self::Asked)
    }
}

/// Why an acceptor refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// It holds another owner's unexpired lease (rule 3).
    Held {
        /// The ballot of that lease; its node is the owner.
        ballot: Ballot,
        /// The number of its grant.
        epoch: Epoch,
        /// On what grounds its owner has it.
        claim: Claim,
        /// How long the acceptor will keep it.
        remaining: Duration,
    },
    /// It promised a higher ballot, or this one and lower ones were released.
    Promised {
        /// The ballot to exceed.
        ballot: Ballot,
    },
    /// The acceptor keeps the group for a successor (rule 8).
    Reserved {
        /// Who that is.
        successor: NodeId,
        /// How much longer.
        remaining: Duration,
    },
    /// The acceptor has just started and keeps silence (rule 5), or it waits for
    /// its disk before it votes for a higher epoch.
    Silent {
        /// How much longer.
        remaining: Duration,
    },
}

/// Number of a holder's question whether a target is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// A command as the cluster knows it: unique together with the node that sends
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// The start of the node that the command was given to.
    pub incarnation: Incarnation,
    /// Its number there.
    pub command: CommandId,
}

/// The answer of the node to which a command was forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is under way; the asking node watches for the outcome itself.
    Started {
        /// Who takes the lease; `None` if the holder releases it to nobody.
        successor: Option<NodeId>,
    },
    /// The node does not do it, and the lease stays where it is.
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
        /// The highest epoch that the sender may have accepted, in any group.
        highest: Epoch,
    },
    /// A command for the holder (or, if nobody holds, for the node to promote).
    Request {
        /// The command's number.
        request: RequestId,
        /// The grant that the command was meant for: it leaves a later one alone.
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
    /// Where answers arrive between the sender's interfaces and the receiver's. No lease
    /// depends on it, and the engine leaves it alone.
    Paths(Paths),
}

/// The most interfaces that a [`Paths`] tells of, in each of its lists.
pub const PATHS_MAX: usize = 24;

/// What one node tells another of the ways between their interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Paths {
    /// The sender's interfaces that answer for VIPs: ask these.
    pub ends: Vec<PathEnd>,
    /// What the sender knows of the receiver's interfaces.
    pub seen: Vec<PathSeen>,
}

/// An interface with the data plane on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PathEnd {
    /// Its hardware address, by which its test address is known.
    pub mac: [u8; 6],
    /// An address that the host's own stack answers for there; no other interface of the
    /// node has it.
    pub address: IpAddr,
}

/// What somebody on the segment has found about an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PathSeen {
    /// The interface's address: a VLAN's has the hardware address of the one below it.
    pub address: IpAddr,
    /// Do the data plane's answers arrive? False only where those of the host's own stack
    /// do, to questions of the same time.
    pub arrives: bool,
}

/// A client whose neighbour entry for a VIP is stale: it still sends to a node that
/// does not hold the VIP, since it has missed what the holder announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StaleClient {
    /// The VIP that it sends to.
    pub vip: IpAddr,
    /// Its hardware address, or that of the router that it is behind.
    pub mac: [u8; 6],
}

/// What a message says about the lease of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum About {
    /// First phase: may this ballot go ahead?
    Prepare {
        /// The ballot.
        ballot: Ballot,
    },
    /// It may; lower ballots may no longer.
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
        /// On what grounds the sender has the lease, or asks for it.
        claim: Claim,
    },
    /// Noted.
    Accept {
        /// The ballot that was proposed.
        ballot: Ballot,
    },
    /// A majority has accepted this ballot: the sender holds the lease. This is
    /// for people and commands: no vote depends on it, and if it is lost, the
    /// next renewal says the same.
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
        /// The node that shall have the lease next (rule 8).
        successor: Option<NodeId>,
    },
    /// The sender has received a Release.
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
    /// To the holder: the sender gets packets of this client, and drops them. No vote
    /// depends on it.
    Stale {
        /// The client.
        client: StaleClient,
    },
    /// To the holder: nobody on the sender's segment answers for this VIP of the group. No
    /// vote depends on it.
    Unheard {
        /// The VIP.
        vip: IpAddr,
    },
}

/// What one input has for one peer, in as many datagrams as that takes; or the
/// content of one received datagram.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Packet {
    /// In the order of sending.
    pub messages: Vec<Message>,
}
