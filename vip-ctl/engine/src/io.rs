//! The engine's inputs and outputs as types. The event loop carries the outputs
//! out (on a socket, a map, a clock).

use std::{fmt, net::IpAddr};

use vip_common::{BootNs, Lease};

use super::{
    by_group::ByGroup,
    config::{CommandId, Epoch, GroupId, NodeId, Pause, Role},
    message::{Packet, StaleClient},
};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Time has passed, and there may be unread packets: this node's own leases
    /// run out and their renewals begin, but the engine concludes nothing from
    /// anybody's silence.
    Clock,
    /// Time has passed, and the event loop has handed over every packet that had
    /// arrived: now the engine judges what follows from silence. A node that was
    /// late itself would otherwise take peers for gone whose packets wait in its
    /// socket.
    Wake,
    /// A packet has arrived, authenticated, from the peer's adopted incarnation.
    Message {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        packet: Packet,
    },
    /// The peer's process is another one than before: what the former process
    /// said of itself no longer counts. Comes before the first packet of the new
    /// one.
    PeerStarted {
        /// Which peer.
        peer: NodeId,
    },
    /// From now on this ceiling is on disk, as the floor of the next
    /// incarnation's epochs.
    Ceiling {
        /// The epoch.
        ceiling: Epoch,
    },
    /// Whether this node could serve a group (rule 12). Until the first one
    /// for a group, the node does not stand for it.
    Eligible {
        /// The group.
        group: GroupId,
        /// Carrier, health checks and the like, all taken together.
        eligible: bool,
    },
    /// This node could serve a group but is not well, and the group shall stay
    /// where it is until another node is ready to take it (rule 12): this node
    /// keeps a lease until then, and without one it is not eligible. Ends with
    /// the next [`Input::Eligible`].
    Unwell {
        /// The group.
        group: GroupId,
    },
    /// Whether this node would answer none of the group's VIPs if it had the
    /// lease, because no majority has those VIPs in its configuration yet. Then
    /// it takes no lease, and keeps the one that it has.
    /// [`super::Engine::reload`] ends it for all groups.
    Mute {
        /// The group.
        group: GroupId,
        /// True if it is so.
        on: bool,
    },
    /// Whether this node has something to do between a grant of this group and
    /// its service. If so, it does not call itself ready between a grant and
    /// [`Input::Serving`]; so others see whether its fence is open.
    Prepares {
        /// The group.
        group: GroupId,
        /// True if it has.
        on: bool,
    },
    /// This node has done what it had to do after the grant: it serves the group.
    Serving {
        /// The group.
        group: GroupId,
    },
    /// It has failed: the lease goes to the best node that is ready, or to
    /// nobody, also in a pause. This node is not eligible until the next
    /// [`Input::Eligible`].
    PromoteFailed {
        /// The group.
        group: GroupId,
    },
    /// A client sends packets for a VIP of this group to this node. The holder hears of
    /// it, if that is another node.
    Stale {
        /// The group.
        group: GroupId,
        /// The client.
        client: StaleClient,
    },
    /// Nobody on this node's segment answers for a VIP of each of these groups. The holder
    /// hears of it, if that is another node.
    Unheard {
        /// Each group, and one VIP of it.
        vips: Vec<(GroupId, IpAddr)>,
    },
    /// A person or a program gives a command; [`Output::Done`] always answers it.
    Command {
        /// The caller's number for the command.
        id: CommandId,
        /// What is wanted.
        command: Command,
    },
    /// Release everything, then say [`Output::Stopped`].
    Stop,
}

/// A command, given at any node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Command {
    /// Give the lease to `to`: by switchover if another node holds it; if nobody
    /// does, `to` stands at once.
    Promote {
        /// The group.
        group: GroupId,
        /// Who shall have it.
        to: NodeId,
    },
    /// The holder hands over to the best other node. Without one it releases, and
    /// stays away until a person promotes it or another node has held the group.
    Demote {
        /// The group.
        group: GroupId,
    },
    /// The holder hands over, or keeps the lease if nobody can take it.
    Switchover {
        /// The group.
        group: GroupId,
        /// To whom; `None` leaves the choice to the holder.
        to: Option<NodeId>,
    },
    /// This node takes the lease by its own vote alone, whoever else may have it:
    /// two nodes may then answer. Give it to the node that shall have the lease.
    Force {
        /// The group.
        group: GroupId,
    },
    /// A node hands over what it holds and takes nothing more, or may take leases
    /// again.
    Standby {
        /// Which node.
        node: NodeId,
        /// True to put it on standby.
        on: bool,
        /// Release also groups that nobody else can take at present.
        force: bool,
    },
    /// Switch automatic moves off in the whole cluster, or on again.
    Pause {
        /// True to pause.
        on: bool,
    },
}

impl Command {
    /// The group that it is about; `None` if it is about nodes.
    #[must_use]
    pub const fn group(self) -> Option<GroupId> {
        match self {
            Self::Promote { group, .. }
            | Self::Demote { group }
            | Self::Switchover { group, .. }
            | Self::Force { group } => Some(group),
            Self::Standby { .. } | Self::Pause { .. } => None,
        }
    }

    /// Makes it about another group, if it is about one.
    pub(super) const fn set_group(&mut self, to: GroupId) {
        match self {
            Self::Promote { group, .. }
            | Self::Demote { group }
            | Self::Switchover { group, .. }
            | Self::Force { group } => *group = to,
            Self::Standby { .. } | Self::Pause { .. } => {}
        }
    }

    /// The node that it names.
    #[must_use]
    pub const fn to(self) -> Option<NodeId> {
        match self {
            Self::Promote { to, .. } => Some(to),
            Self::Switchover { to, .. } => to,
            Self::Demote { .. } | Self::Force { .. } | Self::Standby { .. } | Self::Pause { .. } => None,
        }
    }
}

/// What the event loop has to do. It does each one before it polls the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Write the lease word into the map.
    StoreLease {
        /// The group.
        group: GroupId,
        /// The word.
        lease: Lease,
    },
    /// Send a packet; it may be lost.
    Send {
        /// To whom.
        to: NodeId,
        /// The packet.
        packet: Packet,
    },
    /// Tell the network that the group's VIPs are here now.
    Announce {
        /// The group.
        group: GroupId,
    },
    /// State or holder of a group has changed, as this node sees it.
    Changed(Transition),
    /// This node votes for no grant beyond `ceiling` until that is on disk, which
    /// [`Input::Ceiling`] tells. Such votes wait.
    RaiseCeiling {
        /// The epoch.
        ceiling: Epoch,
    },
    /// What shall outlive this incarnation has changed; [`Output::Changed`] has
    /// the epochs.
    Remember {
        /// Is this node on standby?
        standby: bool,
        /// The cluster's pause.
        pause: Pause,
    },
    /// A command's answer.
    Done {
        /// The caller's number.
        id: CommandId,
        /// What came of it.
        outcome: Result<Completed, Refusal>,
    },
    /// Tell this client alone where the VIP is: it has missed that.
    Correct {
        /// The client, of a VIP that this node holds.
        client: StaleClient,
    },
    /// A peer hears nobody answer for a VIP that this node holds.
    Unheard {
        /// The VIP.
        vip: IpAddr,
        /// The peer.
        by: NodeId,
    },
    /// Everything is released; the process may go.
    Stopped,
}

/// State of a group on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupState {
    /// Just started: keeping silence, or eligibility is not known yet.
    Init,
    /// Could take the lease.
    Standby,
    /// Holds the lease.
    Active,
    /// Not eligible.
    Fault,
    /// Demoted by hand, and nobody else has held the group since.
    Paused,
    /// Votes only.
    Witness,
    /// Learns only, without a vote.
    Observer,
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Init => "init",
            Self::Standby => "standby",
            Self::Active => "active",
            Self::Fault => "fault",
            Self::Paused => "paused",
            Self::Witness => "witness",
            Self::Observer => "observer",
        })
    }
}

/// What brought a change about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The node has started, or its silence is over.
    Started,
    /// A majority gave this node the lease.
    Elected,
    /// Found in the map at the start; the lease goes on.
    Adopted,
    /// This node's lease ran out before a majority renewed it.
    Expired,
    /// This node's renewal met another node's newer lease.
    Superseded,
    /// Handed over by command.
    HandedOver,
    /// Demoted by command.
    Demoted,
    /// Promoted by command.
    Promoted,
    /// Carrier, health checks or the like.
    Eligibility,
    /// What this node had to do between the grant and the service has failed.
    PromoteFailed,
    /// The agent is stopping.
    Stopping,
    /// The node was put on standby, or taken off it.
    Standby,
    /// Taken by force, without a majority.
    Forced,
    /// Two holders of a pair met, and the other one's epoch is higher.
    Merged,
    /// Another node's lease began.
    HolderSeen,
    /// Another node's lease ran out.
    HolderExpired,
    /// Another node released its lease.
    HolderReleased,
    /// The group is no longer in the configuration, or its label is another one
    /// now.
    Removed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Started => "started",
            Self::Elected => "elected",
            Self::Adopted => "adopted",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
            Self::HandedOver => "handed_over",
            Self::Demoted => "demoted",
            Self::Promoted => "promoted",
            Self::Eligibility => "eligibility",
            Self::PromoteFailed => "pre_promote_failed",
            Self::Stopping => "stopping",
            Self::Standby => "standby",
            Self::Forced => "forced",
            Self::Merged => "merged",
            Self::HolderSeen => "holder_seen",
            Self::HolderExpired => "holder_expired",
            Self::HolderReleased => "holder_released",
            Self::Removed => "removed",
        })
    }
}

/// The outcome of a command, as this node's own acceptor sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Completed {
    /// This node has the lease now.
    HeldBy(NodeId),
    /// The holder has released it and nobody else has it.
    Released,
    /// The node is on standby and holds nothing, or it is not on standby any more.
    Standby(bool),
    /// Every voter that is heard has paused, or goes on.
    Paused(bool),
}

/// Why a node did not do a command. Unless stated, the lease is where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refusal {
    /// The configuration has no such group.
    #[error("no such group")]
    NoSuchGroup,
    /// The configuration has no such node.
    #[error("no such node")]
    NoSuchNode,
    /// This node hears less than a majority of the voters.
    #[error("no quorum: this node does not hear a majority of the voters")]
    NoQuorum,
    /// This node has just started and does not know the holder yet.
    #[error("this node has just started; try again in a moment")]
    Starting,
    /// This node is stopping.
    #[error("this node is stopping")]
    Stopping,
    /// Nobody holds the group.
    #[error("nobody holds the group")]
    NotHeld,
    /// Witnesses and observers never hold.
    #[error("the target is a witness or an observer and never holds a lease")]
    TargetNeverHolds,
    /// The target can't serve the group at present.
    #[error("the target is not ready to take the group")]
    TargetNotReady,
    /// This node does not hear the target.
    #[error("this node does not hear the target")]
    TargetSilent,
    /// No other node can take the group at present.
    #[error("no other node is ready to take the group")]
    NoTarget,
    /// The holder lost the lease before it could hand it over.
    #[error("the holder lost the lease meanwhile")]
    NotHolder,
    /// Another command for the group is under way, or too many commands are.
    #[error("another command is under way; try again")]
    Busy,
    /// This node has seen no outcome in time; it may still come.
    #[error("timed out: this node saw no outcome")]
    Timeout,
}

/// The move of a group, as far as this node can predict it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupMove {
    /// The group.
    pub group: GroupId,
    /// The latest grant of it that this node knows of.
    pub epoch: Epoch,
    /// Its holder; `None` if nobody has it.
    pub from: Option<NodeId>,
    /// Who would take it; `None` if it would be released and nobody is ready.
    pub to: Option<NodeId>,
    /// The successor has other groups than this node: the holder asks it first,
    /// and it may say no.
    pub is_asked: bool,
}

/// What a command would do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Foreseen {
    /// Nothing: the outcome is there already.
    Nothing,
    /// One group moves.
    Moves(GroupMove),
    /// This node holds the group without a majority, whoever else may hold it.
    Forced(GroupId),
    /// A node goes on standby, and these groups move before that.
    Standby(NodeId, Vec<GroupMove>),
    /// A node takes groups again.
    Unstandby(NodeId),
    /// Automatic moves are switched off (`true`) or on again.
    Paused(bool),
}

impl Foreseen {
    /// The groups that move.
    pub fn moves(&self) -> impl Iterator<Item = &GroupMove> {
        let moves = match self {
            Self::Moves(only) => std::slice::from_ref(only),
            Self::Standby(_, moves) => moves,
            Self::Nothing | Self::Forced(_) | Self::Unstandby(_) | Self::Paused(_) => &[],
        };
        moves.iter()
    }
}

/// Who takes a group if its holder dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Heir {
    /// This node, when the lease has run out.
    Node(NodeId),
    /// This node, if it is ready. Only that node can tell, since its groups
    /// differ from those of the node that answers here.
    Perhaps(NodeId),
    /// Nobody: no other node is ready for it.
    NobodyReady,
    /// Nobody: automatic moves are switched off.
    Paused,
    /// Nobody: in pair mode with `hold`, a person has to promote a node.
    PairHolds,
    /// Nobody: this many voters would be left, too few for a majority.
    NoMajority(usize),
}

/// What the engine knows at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Status {
    /// Does this node hear a majority of the voters, itself included?
    pub quorate: bool,
    /// Is this node keeping its silence after the start (rule 5)?
    pub silent: bool,
    /// Are automatic moves switched off in the cluster?
    pub paused: bool,
    /// Pair mode: has this node not heard the other for T_accept, so that it acts
    /// on its own vote (rule 13)?
    pub alone: bool,
    /// How many more grants this node can vote for before its disk must have a
    /// higher ceiling.
    pub grants_left: u64,
    /// By [`NodeId`].
    pub nodes: Vec<NodeStatus>,
    /// All groups.
    pub groups: ByGroup<GroupStatus>,
}

/// A group's state on a node, or its holder, as it has just become: one type
/// from here to the keeper. What goes on from there by a group's name instead
/// of its number (hooks, events) has types of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transition {
    /// The group.
    pub group: GroupId,
    /// This node's state.
    pub state: GroupState,
    /// The latest grant that this node knows of.
    pub epoch: Epoch,
    /// What brought the change about.
    pub reason: Reason,
    /// Who holds it.
    pub holder: Option<NodeId>,
}

/// What this node knows of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeStatus {
    /// What it does.
    pub role: Role,
    /// When this node last heard it, on its own clock; for this node itself: now.
    pub last_heard: Option<BootNs>,
    /// Did this node hear it recently enough for it to count for the quorum (if
    /// it has a vote)?
    pub present: bool,
    /// Is it on standby, by what it last said?
    pub standby: bool,
    /// Does it have other groups than this node? Then this node can't know
    /// whether it is ready for one, and has to ask.
    pub differs: bool,
}

/// What this node knows of one group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupStatus {
    /// This node's state.
    pub state: GroupState,
    /// Who holds it, by this node's own acceptor and the holder's word.
    pub holder: Option<NodeId>,
    /// The latest grant that this node knows of.
    pub epoch: Epoch,
    /// When this node's own lease ends, if it has one.
    pub expiry: Option<BootNs>,
    /// Is that lease held by force, without a majority?
    pub forced: bool,
    /// Present nodes that could take the lease, as each last said of itself.
    pub ready: Vec<NodeId>,
    /// Who takes it if its holder dies, or now if it has none.
    pub heir: Heir,
}
