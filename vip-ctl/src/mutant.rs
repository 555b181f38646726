//! Code that is broken on purpose, each time in one line: a check must find what
//! that does, or it proves nothing. This file lists the mutants; the broken line
//! itself says how it is broken. The lease engine and the lease thread's core
//! have lists of their own.
//!
//! Without the feature `mutants`, which no release has, asking is `false` at
//! compile time.

vip_lease::mutants! {
    list: "glue";
    others: choose_other;
    /// The record of votes that may be given is not written.
    VotesUnrecorded = "votes-not-recorded";
    /// A start records its own lease, not the longest whose votes count.
    VotesShortened = "votes-shortened-by-a-start";
    /// The silence is as long as this process's lease, whatever was voted for
    /// before.
    OwnSilence = "votes-silence-for-the-own-lease-only";
    /// Votes from before this boot count for nothing.
    BootForgets = "votes-forgotten-by-a-boot";
    /// Votes count as those of this boot, whichever boot they are from.
    AnyBoot = "votes-of-another-boot-are-of-this-one";
    /// Epochs may fall.
    EpochsFall = "memory-epochs-fall";
    /// After an orderly end numbers are left out as after a crash.
    EndKeepsCeiling = "memory-keeps-its-ceiling";
    /// An orderly end makes up for a crash before it.
    EndForgetsFloor = "memory-forgets-the-crash-before";
    /// A record that can't be read counts as never written.
    BrokenIsEmpty = "memory-broken-record-is-empty";
    /// Two voters come or go in one step (rule 10).
    TwoAtOnce = "membership-two-voters-at-once";
    /// A generation may be left out (rule 10).
    Leap = "membership-leaps-over-a-generation";
    /// The next generation waits for no voter (rule 10).
    Unconfirmed = "membership-waits-for-nobody";
    /// A voter that left no trace can be removed unheard, whether it was added lately or not.
    RemoveUnheard = "membership-removes-an-old-voter-unheard";
    /// A node without a record has no doubt.
    NoDoubt = "membership-believed-without-a-record";
    /// Another cluster's record is taken for this one's.
    AnyCluster = "membership-of-another-cluster";
    /// A voter may get another id.
    Renumbered = "membership-renumbers-a-voter";
    /// A node that is not in the membership itself vouches for it.
    AnybodyVouches = "join-believes-who-is-joining-too";
    /// A node that takes part in another generation vouches for this one.
    AnyGeneration = "join-believes-another-generation";
    /// After a reload, a group's eligibility is not told again.
    NotToldAnew = "eligibility-not-told-after-a-reload";
    /// Verdicts are forgotten at a reload.
    VerdictsForgotten = "eligibility-verdicts-forgotten-by-a-reload";
    /// A check that has changed keeps its verdict.
    VerdictKept = "eligibility-verdict-of-a-changed-check";
    /// A node is well before its checks have said so.
    WellUnseen = "eligibility-before-a-verdict";
    /// A cable that was pulled out is no trouble.
    CarrierUnseen = "eligibility-without-carrier";
    /// An interface whose frames a bond takes serves as before.
    ServesAsPort = "eligibility-by-a-port-of-a-bond";
    /// An interface on which nothing of a group is announced counts for it.
    EveryInterface = "eligibility-by-every-interface";
    /// A node that can't serve keeps its leases, as an unwell one does.
    KeepsInTrouble = "eligibility-keeps-what-it-cannot-serve";
    /// The judge does not notice that the gate at IP level is gone.
    LocalInUnwatched = "judge-does-not-miss-the-gate-at-ip-level";
    /// A rule of the gate at IP level counts also behind another one, and in a table that sleeps.
    AnyRuleGuards = "gate-at-ip-level-behind-any-rule";
    /// Announcements of a virtual MAC do not say whose they are.
    Unmarked = "announcer-does-not-mark-a-virtual-mac";
    /// A virtual MAC is put where nobody could receive what is for it.
    DeafServes = "node-serves-where-it-is-deaf-to-a-virtual-mac";
    /// A virtual MAC is taken on interfaces that its group is not announced on.
    MacEverywhere = "node-takes-a-virtual-mac-on-every-interface";
    /// A group that came later is announced first.
    LastFirst = "announcer-last-come-first-served";
    /// Each claim of a rival is answered at once.
    DefendsAlways = "announcer-answers-every-claim";
    /// A group is announced once.
    AnnouncedOnce = "announcer-repeats-nothing";
    /// A VIP is announced in the forms alone that some bridges keep back.
    NeverAsks = "announcer-never-by-a-question";
    /// An interface that is stuck is tried for ever.
    TriedForEver = "announcer-tries-for-ever";
    /// A VIP is announced on interfaces that are not its own.
    AnnouncedEverywhere = "announcer-on-every-interface";
    /// A burst has room for VIPs on interfaces that are not their own.
    PacedByAll = "announcer-paces-by-every-interface";
    /// Frames leave in bursts where an admin wants a time between two.
    BurstsAnyway = "announcer-ignores-the-interval";
    /// An interface gets its gateways before the programs look at them.
    GatewaysUnseen = "gateways-before-their-bit";
    /// A node on another segment takes what it can't hear for silence.
    DeafAlarms = "prober-alarms-where-it-hears-nothing";
    /// One question without an answer is silence.
    AlarmsEarly = "prober-alarms-at-the-first-loss";
    /// What peers say of a node costs it what it holds, with nobody else to take it.
    SaidIsSure = "eligibility-takes-what-is-said-for-sure";
    /// A node that nobody hears serves all the same.
    ServesUnheard = "judge-serves-where-nobody-hears-it";
    /// A node without peers on its segment never serves.
    WaitsForProof = "judge-waits-for-proof-for-ever";
    /// A host that is away is one whose data plane is silent.
    HostMissed = "prober-takes-a-host-that-is-away-for-silence";
    /// Whoever hears nobody's test answers is believed.
    DeafBelieved = "prober-believes-whom-it-does-not-hear";
    /// Whose answers arrive in one network is believed of another one.
    FarBelieved = "prober-believes-of-a-network-what-it-hears-in-another";
    /// One peer that hears nothing outvotes all that do.
    OneCondemns = "prober-is-condemned-by-one";
    /// What peers hear of a VIP's former holder is held against the next one.
    SilenceInherited = "prober-holds-silence-against-the-next-holder";
    /// One peer that hears nobody answer for a VIP outvotes all others.
    OneSilences = "prober-gives-a-group-up-for-one";
    /// One word of each peer is enough.
    OneWordSilences = "prober-gives-a-group-up-for-one-word";
    /// What peers did not hear before a node answered at all is held against it.
    SilentBeforehand = "prober-holds-against-a-node-what-was-before-it";
    /// A group that was given up for silence never comes back.
    SilentForEver = "prober-gives-a-group-up-for-ever";
    /// Frames are sent on to a node whose data plane is not heard.
    SteersUnheard = "prober-steers-to-whom-it-does-not-hear";
    /// A cable that comes back is not noticed.
    CableMissed = "keeper-does-not-notice-a-cable-that-comes-back";
    /// Repairs wait until the keeper has no notices any more.
    RepairsLate = "keeper-repairs-only-when-idle";
    /// The memory is only written when something else happens.
    WritesLate = "keeper-writes-when-something-else-happens";
    /// A verdict rises by one run too few.
    RisesEarly = "verdict-rises-one-run-early";
    /// A verdict falls by one run too few.
    FallsEarly = "verdict-falls-one-run-early";
    /// Runs that fail count, also with others in between.
    FailuresAddUp = "verdict-adds-failures-up";
    /// The first failure is enough for the first verdict.
    FirstFails = "verdict-falls-by-the-first-run";
    /// A panic on a thread that leases depend on ends that thread alone.
    OutlivesPanic = "threads-outlive-a-panic";
    /// A gate by clsact goes behind the filters of others.
    FilterLast = "gate-by-clsact-behind-others";
    /// Two agents of one node have its lock.
    SharedLock = "lock-shared";
}

/// Breaks one of the packages below, if this is the name of one of its mutants.
///
/// # Panics
/// If it is not: then there is no such mutant.
#[cfg(feature = "mutants")]
fn choose_other(name: &str) {
    assert!(vip_lease::is_mutant(name), "there is no mutant {name:?}");
}
