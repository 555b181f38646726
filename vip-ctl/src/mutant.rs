//! Glue that is broken on purpose, each time in one line of its own: whoever
//! checks it must find what that does, or the check proves nothing. Where a
//! line is broken is said there; which lines there are, is here. The lease
//! engine has a list of its own.
//!
//! Without the feature `mutants`, which nothing that ships has, asking is
//! `false` at compile time.

#[cfg(feature = "mutants")]
use std::sync::OnceLock;

/// Defines [`Mutant`], with a name for people and why it does no harm, if so.
/// A name begins with the module whose tests are asked first.
macro_rules! mutants {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal $(, harmless = $why:literal)?;)*) => {
        /// One way to break the glue.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Mutant {
            $($(#[doc = $doc])* $variant,)*
        }

        #[cfg(feature = "mutants")]
        impl Mutant {
            /// All of them, each with its name, and why nothing can notice it, if nothing can.
            const ALL: &[(Self, &str, Option<&str>)] =
                &[$((Self::$variant, $name, mutants!(@why $($why)?))),*];
        }
    };
    (@why $why:literal) => { Some($why) };
    (@why) => { None };
}

mutants! {
    /// A group with a `pre_promote` is open before that has ended.
    OpenAtOnce = "gate-opens-without-its-hook";
    /// The end of an older run opens a gate.
    OpenByAnyRun = "gate-opens-by-an-older-run";
    /// A word that ran out while the hook ran goes into the map.
    OpenTooLate = "gate-opens-for-a-lease-that-ran-out";
    /// A `pre_promote` that failed opens the gate.
    OpenInVain = "gate-opens-after-a-failed-hook";
    /// A release is kept back while a hook runs.
    ReleaseKeptBack = "gate-keeps-a-release-back";
    /// A node does not stay away from a group whose `pre_promote` failed.
    NotBarred = "gate-failed-hook-bars-nothing";
    /// A lease that was found in the map waits for a hook.
    AdoptedShut = "gate-shuts-an-adopted-lease";
    /// Groups forget at a reload what they wait for.
    GateForgets = "gate-forgets-what-it-waits-for-at-a-reload";
    /// A move goes ahead when the first of its hooks has ended.
    FirstHookFrees = "parting-waits-for-one-hook-only";
    /// A move that waits goes on waiting when its lease is lost.
    LostHoldsUp = "parting-waits-for-a-lost-lease";
    /// A hook that does not end holds a move up for ever.
    HookHoldsUp = "parting-waits-for-ever";
    /// The hook of a repeated request runs again.
    HookAgain = "parting-runs-the-hook-of-each-repetition";
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
    /// A former set is kept although one of its VIPs is in another group now.
    MovedVipKept = "table-keeps-a-set-whose-vip-has-moved";
    /// VIPs that were added are answered before a lease has them.
    AnswersAtOnce = "table-answers-added-vips-at-once";
    /// The set that leases are asked for is forgotten with the oldest.
    ForgetsAsked = "table-forgets-the-set-it-asks-for";
    /// No group ever ends.
    NothingEnds = "table-ends-no-group";
    /// A label does not say which VIPs the group has.
    LabelOfName = "table-label-is-the-name";
    /// No VIP waits for a lease that has it, for all that the loop is told.
    NothingUncovered = "reload-waits-for-no-cover";
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
    /// The window takes note of a datagram that nobody sealed.
    WindowBeforeTag = "transport-window-before-the-tag";
    /// The window forgets the oldest that it should tell.
    WindowShort = "transport-window-tells-one-too-many";
    /// A peer that is adopted again begins with an empty window.
    WindowEmpty = "transport-window-begins-empty";
    /// A challenge uses the counter of the datagram before it.
    CounterAgain = "transport-challenge-reuses-a-counter";
    /// Any response is an echo.
    AnyEcho = "transport-response-without-proof";
    /// A nonce may be echoed twice.
    EchoTwice = "transport-echo-counts-twice";
    /// Doubt about an outstanding challenge is forgotten.
    NoDoubtLeft = "transport-forgets-doubt";
    /// What was sealed for a former incarnation of this node is for this one.
    FormerMe = "transport-takes-a-former-incarnations-mail";
    /// A key is any of those that are accepted.
    AnyKey = "transport-key-id-is-no-matter";
    /// Nodes of another configuration are heard.
    AnyConfig = "transport-hears-another-configuration";
    /// Nodes of generations far apart are heard.
    AnyDistance = "transport-hears-any-generation";
    /// The direction is not in a key.
    SameBothWays = "transport-one-key-both-ways";
    /// Payloads of an unknown life use up what is looked at of handshakes.
    OneLimit = "transport-one-limit-for-all-kinds";
    /// A key file that others can read is taken.
    OpenKeyFile = "keyfile-readable-by-others";
    /// Two agents of one node have its lock.
    SharedLock = "lock-shared";
    /// Commands about other groups than the loop has are done by number.
    OtherTable = "loop-does-commands-of-another-table";
    /// Groups that end are not given up before others get their numbers.
    NotRetired = "loop-retires-nothing";
    /// The loop stops before it has released.
    StopsAtOnce = "loop-stops-without-a-release";
}

/// The mutant that this process is, if it is one.
#[cfg(feature = "mutants")]
static CHOSEN: OnceLock<Option<Mutant>> = OnceLock::new();

/// Is the glue broken like that?
#[cfg(feature = "mutants")]
pub(crate) fn is(mutant: Mutant) -> bool {
    *CHOSEN.get_or_init(chosen) == Some(mutant)
}

/// Is the glue broken like that? It is not.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn is(_mutant: Mutant) -> bool {
    false
}

/// The one that whoever runs the tests wants to see caught (`VIP_MUTANT`). It
/// may be one of the engine's instead, which is chosen here as well.
///
/// # Panics
/// If there is no such mutant.
#[cfg(feature = "mutants")]
fn chosen() -> Option<Mutant> {
    let name = std::env::var("VIP_MUTANT").ok()?;
    let ours = Mutant::ALL.iter().find(|(_, known, _)| *known == name).map(|(mutant, ..)| *mutant);
    if ours.is_none() {
        let engines = crate::engine::Mutant::by_name(&name);
        crate::engine::choose(engines.unwrap_or_else(|| panic!("there is no mutant {name:?}")));
    }
    ours
}

/// Has this process broken, with its engines, if the environment says which way
/// (`VIP_MUTANT`). To be called before any engine is made.
///
/// # Panics
/// If there is no such mutant.
#[cfg(feature = "mutants")]
pub fn choose() {
    CHOSEN.get_or_init(chosen);
}

#[cfg(all(test, feature = "mutants"))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// `cargo xtask mutants` reads what this prints.
    #[test]
    fn each_has_a_name_and_is_told() {
        println!();
        let mut names = BTreeSet::new();
        for (_, name, harmless) in Mutant::ALL {
            println!("glue\t{name}\t{}", harmless.unwrap_or_default());
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{name:?}");
            assert!(names.insert(name), "{name} twice");
        }
    }
}
