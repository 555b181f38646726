//! Glue that is broken on purpose, each time in one line of its own: whoever
//! checks it must find what that does, or the check proves nothing. Where a
//! line is broken is said there; which lines there are, is here. The lease
//! engine and what the lease thread decides have lists of their own.
//!
//! Without the feature `mutants`, which nothing that ships has, asking is
//! `false` at compile time.

vip_lease::mutants! {
    list: "glue";
    others: choose_other;
    /// Which votes may be given is not written down.
    VotesUnrecorded = "votes-not-recorded";
    /// A start writes down its own lease, not the longest whose votes count.
    VotesShortened = "votes-shortened-by-a-start";
    /// The silence is as long as this lease, whatever was voted for before.
    OwnSilence = "votes-silence-for-the-own-lease-only";
    /// Votes from before this boot count for nothing.
    BootForgets = "votes-forgotten-by-a-boot";
    /// Votes are those of this boot, whichever gave them.
    AnyBoot = "votes-of-another-boot-are-of-this-one";
    /// Epochs may fall.
    EpochsFall = "memory-epochs-fall";
    /// After an orderly end numbers are left out as after a crash.
    EndKeepsCeiling = "memory-keeps-its-ceiling";
    /// An orderly end makes up for a crash before it.
    EndForgetsFloor = "memory-forgets-the-crash-before";
    /// What can't be read was never written.
    BrokenIsEmpty = "memory-broken-record-is-empty";
    /// Two voters come or go in one step (rule 10).
    TwoAtOnce = "membership-two-voters-at-once";
    /// A generation may be left out (rule 10).
    Leap = "membership-leaps-over-a-generation";
    /// Nobody is waited for before the next generation (rule 10).
    Unconfirmed = "membership-waits-for-nobody";
    /// A voter that left no trace can be removed unheard, whether it was added lately or not.
    RemoveUnheard = "membership-removes-an-old-voter-unheard";
    /// A node without a record has no doubt.
    NoDoubt = "membership-believed-without-a-record";
    /// Another cluster's record is taken for this one's.
    AnyCluster = "membership-of-another-cluster";
    /// A voter may get another id.
    Renumbered = "membership-renumbers-a-voter";
    /// Whoever is not in the membership itself vouches for it.
    AnybodyVouches = "join-believes-who-is-joining-too";
    /// Who takes part in another generation vouches for this one.
    AnyGeneration = "join-believes-another-generation";
    /// What was said of a group's eligibility is not said again after a reload.
    NotToldAnew = "eligibility-not-told-after-a-reload";
    /// Verdicts are forgotten at a reload.
    VerdictsForgotten = "eligibility-verdicts-forgotten-by-a-reload";
    /// A check that has changed keeps its verdict.
    VerdictKept = "eligibility-verdict-of-a-changed-check";
    /// A node is well before its checks have said so.
    WellUnseen = "eligibility-before-a-verdict";
    /// A cable that was pulled out is no trouble.
    CarrierUnseen = "eligibility-without-carrier";
    /// Who can't serve keeps its leases, where the unwell do.
    KeepsInTrouble = "eligibility-keeps-what-it-cannot-serve";
    /// A group that came later is announced first.
    LastFirst = "announcer-last-come-first-served";
    /// Each claim of a rival is answered at once.
    DefendsAlways = "announcer-answers-every-claim";
    /// A group is announced once.
    AnnouncedOnce = "announcer-repeats-nothing";
    /// An interface that is stuck is tried for ever.
    TriedForEver = "announcer-tries-for-ever";
    /// Repairs wait until nothing is told any more.
    RepairsLate = "keeper-repairs-only-when-idle";
    /// What is to be remembered is written by chance only.
    WritesLate = "keeper-writes-when-something-else-happens";
    /// A verdict rises by one run too few.
    RisesEarly = "verdict-rises-one-run-early";
    /// A verdict falls by one run too few.
    FallsEarly = "verdict-falls-one-run-early";
    /// Runs that fail count, also with others in between.
    FailuresAddUp = "verdict-adds-failures-up";
    /// The first failure is enough for the first verdict.
    FirstFails = "verdict-falls-by-the-first-run";
    /// Two agents of one node have its lock.
    SharedLock = "lock-shared";
}

/// Breaks what is below, if this is the name of one of its mutants.
///
/// # Panics
/// If it is not: then there is no such mutant.
#[cfg(feature = "mutants")]
fn choose_other(name: &str) {
    assert!(vip_lease::is_mutant(name), "there is no mutant {name:?}");
}
