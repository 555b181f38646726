//! Engines that are broken on purpose, each in one line: a check of the engine
//! must find what they do, or the check proves nothing. This file lists the
//! mutants; the broken line itself says how it is broken.
//!
//! Without the feature `mutants`, which no release has, [`Broken`] is empty, and
//! asking it is `false` at compile time.

#[cfg(feature = "mutants")]
use std::sync::OnceLock;

/// Defines [`Mutant`], with a name for people and, where it does no harm, the
/// reason.
macro_rules! mutants {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal $(, harmless = $why:literal)?;)*) => {
        /// One way to break the engine.
        #[cfg_attr(not(feature = "mutants"), expect(dead_code, reason = "one is asked for with the feature only"))]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant {
            $($(#[doc = $doc])* $variant,)*
        }

        #[cfg(feature = "mutants")]
        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// What reports call it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Why no check can notice it; `None` if one can.
            #[must_use]
            pub const fn harmless(self) -> Option<&'static str> {
                match self { $(Self::$variant => mutants!(@why $($why)?),)* }
            }

            /// The one of this name.
            #[must_use]
            pub fn by_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|mutant| mutant.name() == name)
            }
        }
    };
    (@why $why:literal) => { Some($why) };
    (@why) => { None };
}

mutants! {
    /// After a start a node is silent for half of T_accept (rule 5).
    ShortSilence = "silence-too-short";
    /// An acceptor keeps what it accepted for half of T_hold (rules 3 and 4).
    ShortAcceptor = "acceptor-shorter-than-holder";
    /// The lease counts from the last sending of the Propose (rule 2).
    LeaseFromPropose = "lease-clock-at-propose";
    /// The release is on the wire before the map is cleared (rule 7).
    ReleaseBeforeStore = "release-before-map-write";
    /// An acceptor gives another owner's unexpired lease away (rule 3).
    Overwrite = "overwrites-sticky-acceptor";
    /// A handover proposes the successor under the holder's own ballot (rules
    /// 1 and 8).
    SameBallot = "another-owner-under-same-ballot";
    /// T_hold is T_accept, without a margin for clocks (rule 4).
    NoMargin = "no-margin-for-clocks";
    /// Any Accept counts, whatever ballot it answers (rule 2).
    AnyAccept = "accepts-of-any-ballot";
    /// A new attempt has the round of the last one, and so its ballot (rule 1).
    SameRound = "rounds-do-not-rise";
    /// Any Promise counts, whatever ballot it answers (rule 2).
    AnyPromise = "promises-of-any-ballot";
    /// A renewal goes on after the release, and brings the lease back (rule 7).
    LateRenewal = "renewal-after-release";
    /// A node stands in its silence, by its own vote, too (rule 5).
    StandsInSilence = "stands-in-its-silence";
    /// An acceptor in its silence accepts a Propose (rule 5).
    ProposeInSilence = "accepts-a-propose-in-its-silence";
    /// A candidate waits for the slot of the node whose lease ran out (rule 9).
    WaitsForTheDead = "waits-for-the-dead-holders-slot";
    /// A node that has said that it is ready goes on standby all the same.
    ForgetsPromise = "forgets-that-it-said-ready";
    /// A node that is to go on standby releases to nobody where nobody is ready.
    LeavesToNobody = "leaves-to-nobody";
    /// An acceptor that refuses for another's lease promises all the same (rule 3).
    PromisesWhileHeld = "promises-to-whom-it-refuses";
    /// An acceptor takes ballots lower than what it has promised (rule 3).
    BelowPromise = "accepts-below-its-promise";
    /// An acceptor takes ballots that were released (rule 7).
    ReleasedCounts = "released-ballots-count";
    /// A released group is kept for nobody (rule 8).
    NoReservation = "no-reservation-for-the-successor";
    /// A repeated release reserves the group again (rule 8).
    EndlessReservation = "duplicates-reserve-again";
    /// A late release takes the lease of the node's next process away (rule 7).
    ReleasesReborn = "release-of-a-former-incarnation";
    /// A late release takes a newer lease of the same process away (rule 7).
    ReleasesNewer = "late-release-takes-a-newer-lease";
    /// An acceptor that takes note believes a lease that its own process has
    /// released.
    LearnsReleased = "believes-what-was-released";
    /// An acceptor that takes note believes the last message, whoever sent it.
    LearnsAnything = "believes-the-last-word";
    /// An acceptor that accepts keeps the reservation before it.
    KeepsReservation = "reservation-outlives-the-lease", harmless = "it ends before the lease does, and a release replaces it";
    /// An acceptor does not remember the epochs that it accepts.
    ForgetsEpoch = "acceptor-forgets-epochs";
    /// Any word of a holder confirms what was accepted from another.
    ConfirmsAny = "confirms-any-ballot";
    /// An observer votes (rule 11).
    ObserversVote = "observers-vote";
    /// A node stands that never holds, such as a witness (rule 11).
    WitnessesStand = "witnesses-stand";
    /// A voter votes for members that never hold (rules 10 and 11).
    VotesForAnybody = "votes-for-who-never-holds";
    /// An acceptor in its silence takes no note of holders (rule 5).
    NoNoteInSilence = "takes-no-note-in-its-silence";
    /// Votes of members without a vote count (rule 11).
    CountsAnybody = "counts-votes-of-non-voters";
    /// A new process counts promises of acceptors that have forgotten its lease (rule 5).
    AdoptsUnproven = "adopts-without-proof";
    /// A new process counts its own vote for its lease, which others could have
    /// without it (rule 5).
    AdoptsByOwnVote = "adopts-by-its-own-vote";
    /// A new process counts Accepts of acceptors that have not proved that they
    /// have its lease (rule 5).
    AdoptsByAnyAccept = "adopts-by-any-accept";
    /// A lease takes one vote less than a majority.
    MinorityWins = "a-vote-too-few";
    /// A new grant has the number of the last one.
    SameEpoch = "epochs-do-not-rise";
    /// A renewal has a new number.
    RenewalsRaise = "renewals-raise-the-epoch";
    /// A lease that is over by the time of its votes is stored (rule 2).
    WinsTooLate = "wins-what-is-over";
    /// A takeover is not announced.
    NoAnnouncement = "takes-over-in-silence";
    /// A holder keeps its lease whatever a refusal says of another's.
    NeverSuperseded = "never-superseded";
    /// A holder keeps its lease whatever a holder of the same epoch says itself.
    EpochsDecide = "the-holders-own-word-never-supersedes";
    /// A holder gives way to an attempt that is older than its own grant.
    OlderAttemptsSupersede = "gives-way-to-an-older-attempt";
    /// A holder gives way to one of an earlier grant that goes on after a pause.
    OwnWordSupersedes = "the-holders-own-word-always-supersedes";
    /// A holder gives way to one that has no more than its own vote.
    ForceSupersedes = "force-supersedes-a-majority";
    /// A lease of an earlier grant ends this one if its ballot is higher.
    BallotsSupersede = "higher-ballots-supersede";
    /// A holder gives way to what a failed attempt has left behind.
    AlwaysSuperseded = "superseded-by-leftovers";
    /// Two holders of a pair that meet both go on (rule 13).
    NeverMerges = "two-of-a-pair-go-on";
    /// Where two holders of a pair meet, the one of higher rank stays, also with
    /// the lower epoch (rule 13).
    MergesByRank = "pair-merges-by-rank";
    /// Two holders of a pair that have one epoch both stay (rule 13).
    MergesByEpoch = "pair-merges-by-epoch-alone";
    /// The holder of a pair that stays does not announce its VIPs again (rule 13).
    MergesInSilence = "pair-merges-without-announcing";
    /// The holder of a pair needs the other's vote to go on (rule 13).
    PairHolderAsks = "pair-holder-needs-the-other";
    /// A renewal that failed is tried again after a whole T_accept (rule 6).
    RenewsLate = "retries-renewals-late";
    /// Candidates that lost a duel stand again at once.
    NoBackOff = "duels-without-back-off";
    /// An acceptor that has not answered is not asked again.
    NeverRepeats = "asks-once-only";
    /// A lease by force never becomes an ordinary one.
    ForcedForEver = "forced-for-ever";
    /// A holder that can't serve keeps its lease (rule 12).
    KeepsUnfit = "unfit-holder-keeps";
    /// A holder that is not well releases, although nobody is ready (rule 12).
    UnwellLetsGo = "unwell-holder-releases-to-nobody";
    /// A pause keeps no lease where it is.
    PauseLetsGo = "unfit-holder-leaves-in-a-pause";
    /// An attempt goes on after eligibility is lost (rule 12).
    UnfitCandidate = "unfit-candidate-goes-on";
    /// A node on standby keeps what it holds.
    KeepsOnStandby = "standby-keeps-leases";
    /// Whatever is in the map is taken for a lease (rule 5).
    AdoptsAnything = "adopts-impossible-words";
    /// A node believes in its lease after it has run out.
    EndlessLease = "own-lease-never-ends";
    /// A renewal goes on after its lease has run out.
    AttemptOutlivesLease = "renewal-outlives-the-lease";
    /// A node says that it is ready whenever it is asked (rule 8).
    AlwaysReady = "says-ready-when-it-is-not";
    /// Force takes what this node's own acceptor knows another to hold.
    ForceOverwrites = "force-overwrites-what-it-knows";
    /// A node stands that hears no majority.
    StandsWithoutQuorum = "stands-without-a-quorum";
    /// A pause keeps nobody from standing.
    MovesInAPause = "moves-in-a-pause";
    /// A node stands that is not eligible (rule 12).
    StandsUnfit = "stands-where-it-can-not-serve";
    /// A node stands for a group of which it would answer nothing.
    StandsMute = "stands-where-it-answers-nothing";
    /// A node on standby stands.
    StandsOnStandby = "stands-on-standby";
    /// A demoted node stands again by itself.
    StandsDemoted = "stands-after-its-demotion";
    /// A node stands before its startup delay is over.
    NoStartupDelay = "no-startup-delay";
    /// Priority delays nobody's candidacy (rule 9).
    NoRank = "everybody-is-first";
    /// Every node that could hold the lease asks for it, not only the best one
    /// (rule 9).
    AnyPreempts = "anybody-preempts";
    /// Preemption goes on in a pause.
    PreemptsInAPause = "preempts-in-a-pause";
    /// Preemption waits for no delay (rule 9).
    PreemptsAtOnce = "preempts-at-once";
    /// What a failed attempt has left with acceptors stays there.
    NoCleanUp = "leftovers-stay";
    /// A release that was lost is not repeated.
    ReleasesOnce = "releases-are-not-repeated";
    /// A node that stops does not wait for its successor.
    LeavesAtOnce = "stops-before-its-successor-has-it";
    /// A release does not clear the map (rule 7).
    ReleaseKeepsMap = "release-leaves-the-map";
    /// A holder releases without asking the target (rule 8).
    HandsOverUnasked = "releases-before-the-target-is-ready";
    /// An answer to an earlier question counts (rule 8).
    AnyAnswer = "any-ready-counts";
    /// A demotion to nobody keeps the node from nothing.
    DemotedComesBack = "demoted-comes-back";
    /// Force is force also where a majority is there.
    ForcesWithQuorum = "forces-with-a-quorum";
    /// A repeated request is served again.
    ServesTwice = "serves-requests-twice";
    /// A command that was meant for another grant moves this one.
    AnyGrant = "commands-of-another-grant";
    /// A command is never answered with a timeout.
    NoTimeout = "commands-without-an-end";
    /// The last word heard on the pause counts, however old.
    OlderPauseWins = "an-older-word-on-the-pause-wins";
    /// A pause is answered before all have it.
    PauseUnconfirmed = "pause-is-answered-unconfirmed";
    /// A node of a pair takes by its own vote while it hears the other (rule 13).
    PairTakesHearing = "pair-takes-what-it-hears";
    /// A pair that holds takes what it does not hear (rule 13).
    PairHoldTakes = "pair-that-holds-takes";
    /// A pair that holds answers for VIPs that its other node may answer for under
    /// another group (rule 13).
    PairHoldSettles = "pair-that-holds-settles-alone";
    /// A holder asks a node to take over that never said that it is ready.
    AnyTarget = "any-node-is-a-target";
    /// A holder asks nodes that have other groups first (rule 8).
    AsksDifferingFirst = "asks-differing-nodes-first";
    /// A holder whose target says no asks that one again, not the next one (rule
    /// 8).
    AsksTheSameAgain = "asks-no-other-target";
    /// A grant is accepted whose epoch the disk does not know of.
    BeyondCeiling = "accepts-beyond-the-ceiling";
    /// After a crash the epochs go on from what was written last.
    ForgetsFloor = "forgets-what-it-may-have-accepted";
    /// A candidate takes no account of an epoch that only it knows.
    OwnEpochForgotten = "forgets-the-epoch-that-it-knows";
    /// What others may have accepted raises no ceiling.
    CeilingsLag = "ceilings-lag-behind-others";
    /// A voter votes at once on a set of VIPs that is new in a group.
    ChangedSetVotes = "changed-sets-are-voted-on-at-once";
    /// A node asks under a new set once a majority has had it for T_accept by its
    /// own clock, without a margin for theirs.
    AsksTooEarly = "asks-under-a-new-set-too-early";
    /// A number of a group is taken for one of ours, whatever groups the peer has.
    NumbersOfAnyTable = "numbers-of-any-table";
    /// A peer is told numbers of groups before it is known to have the same.
    NumbersToAnybody = "numbers-to-anybody";
    /// A candidate takes the highest epoch that it knows itself for the highest.
    StandsInOnePhase = "stands-in-one-phase";
    /// A process that has just started asks nobody for the proof of its lease.
    AdoptsInOnePhase = "adopts-in-one-phase";
    /// What a peer's former process said of itself is still believed.
    TrustsTheDead = "believes-a-former-process";
    /// What follows from silence is judged before the mail is read.
    TimersBeforeMail = "timers-before-mail";
    /// A reload judges what follows from silence, whatever lies unread.
    ReloadJudges = "reload-judges-before-the-mail";
    /// A node that stops releases nothing.
    StopKeeps = "stops-with-its-leases";
    /// A group that ends is not released.
    RetireKeeps = "retired-groups-keep-their-lease";
    /// A group that is new on a running node is not silent (rule 5).
    NewGroupVotes = "new-groups-vote-at-once";
}

/// The mutant of this process, if it is one.
#[cfg(feature = "mutants")]
static CHOSEN: OnceLock<Option<Mutant>> = OnceLock::new();

/// Breaks every engine that this process makes from now on, except those that
/// [`crate::Engine::mutated`] makes.
///
/// # Panics
/// If engines were made or a mutant was chosen before.
#[cfg(feature = "mutants")]
pub fn choose(mutant: Mutant) {
    assert_eq!(*CHOSEN.get_or_init(|| Some(mutant)), Some(mutant), "it is too late to choose a mutant");
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

    /// By the one that was chosen for this process.
    #[cfg(feature = "mutants")]
    pub fn chosen() -> Self {
        #[cfg(test)]
        return Self(*CHOSEN.get_or_init(super::tests::chosen_mutant));
        #[cfg(not(test))]
        Self(*CHOSEN.get_or_init(|| None))
    }

    /// By nothing.
    #[cfg(not(feature = "mutants"))]
    pub const fn chosen() -> Self {
        Self()
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
