//! Code between the engine and the world that is broken on purpose, each time in
//! one line: a check must find what that does, or it proves nothing. This file
//! lists the mutants; the broken line itself says how it is broken. The engine
//! has a list of its own, and so has `vip-ctl`.
//!
//! Without the feature `mutants`, which no release has, asking is `false` at
//! compile time.

/// Defines `Mutant`, with a name for people and, where it does no harm, the
/// reason; and `is`, which asks for one. A name begins with the module whose
/// tests run first. The environment (`VIP_MUTANT`) chooses the one for this
/// process; if the name is none of these, `others` gets it. A test named `list`
/// prints them all.
#[macro_export]
macro_rules! mutants {
    (
        list: $list:literal;
        others: $others:path;
        $($(#[doc = $doc:literal])* $variant:ident = $name:literal $(, harmless = $why:literal)?;)*
    ) => {
        /// One way to break the glue.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Mutant {
            $($(#[doc = $doc])* $variant,)*
        }

        #[cfg(feature = "mutants")]
        impl Mutant {
            /// All of them, each with its name, and why no check can notice it, if none
            /// can.
            pub(crate) const ALL: &[(Self, &str, Option<&str>)] =
                &[$((Self::$variant, $name, $crate::mutants!(@why $($why)?))),*];

            /// The one with this name.
            pub(crate) fn by_name(name: &str) -> Option<Self> {
                Self::ALL.iter().find(|(_, known, _)| *known == name).map(|(mutant, ..)| *mutant)
            }
        }

        /// The mutant that this process is, if it is one of these.
        #[cfg(feature = "mutants")]
        static CHOSEN: std::sync::OnceLock<Option<Mutant>> = std::sync::OnceLock::new();

        /// Is the glue broken like that?
        #[cfg(feature = "mutants")]
        pub(crate) fn is(mutant: Mutant) -> bool {
            let chosen = CHOSEN.get_or_init(|| {
                let name = std::env::var("VIP_MUTANT").ok()?;
                let ours = Mutant::by_name(&name);
                if ours.is_none() {
                    $others(&name);
                }
                ours
            });
            *chosen == Some(mutant)
        }

        /// Is the glue broken like that? It is not.
        #[cfg(not(feature = "mutants"))]
        pub(crate) const fn is(_mutant: Mutant) -> bool {
            false
        }

        #[cfg(all(test, feature = "mutants"))]
        mod tests {
            /// `cargo xtask mutants` reads what this prints.
            #[test]
            fn each_has_a_name_and_is_told() {
                println!();
                let mut names = std::collections::BTreeSet::new();
                for (_, name, harmless) in super::Mutant::ALL {
                    println!("{}\t{name}\t{}", $list, harmless.unwrap_or_default());
                    assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{name:?}");
                    assert!(names.insert(name), "{name} twice");
                }
            }
        }
    };
    (@why $why:literal) => { Some($why) };
    (@why) => { None };
}

mutants! {
    list: "lease";
    others: choose_engine;
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
    FirstHookFrees = "departure-waits-for-one-hook-only";
    /// A move goes on waiting when its lease is lost.
    LostHoldsUp = "departure-waits-for-a-lost-lease";
    /// A hook that does not end holds a move up for ever.
    HookHoldsUp = "departure-waits-for-ever";
    /// The hook of a repeated request runs again.
    HookAgain = "departure-runs-the-hook-of-each-repetition";
    /// Nothing is announced again when a cut has healed.
    HealsUntold = "loop-announces-nothing-after-a-cut";
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
    NothingUncovered = "table-waits-for-no-cover";
    /// The window takes note of a datagram before its tag was verified.
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
    /// Nodes of generations far apart are heard (rule 10).
    AnyDistance = "transport-hears-any-generation";
    /// Different nodes under one generation are heard (rule 10).
    AnyNodes = "transport-hears-other-nodes-of-its-generation";
    /// The direction is not in a key.
    SameBothWays = "transport-one-key-both-ways";
    /// The kernel is told one of a session's keys.
    OneHeaderKey = "transport-bounds-with-one-key";
    /// Payloads of an unknown incarnation use up the limit for handshakes.
    OneLimit = "transport-one-limit-for-all-kinds";
    /// A key file that others can read is taken.
    OpenKeyFile = "keyfile-readable-by-others";
    /// Commands about other groups than the loop has are done by number.
    OtherTable = "loop-does-commands-of-another-table";
    /// Groups that end are not given up before others get their numbers.
    NotRetired = "loop-retires-nothing";
    /// What follows from silence is judged in each turn, whatever mail is unread.
    JudgesUnread = "loop-judges-with-mail-unread";
    /// What follows from silence is judged only when all mail is read.
    JudgesWhenDrained = "loop-never-judges-in-a-flood";
    /// Datagrams leave before the words that come before them are in the map (rule
    /// 7).
    SendsFirst = "loop-sends-before-the-word";
    /// The loop stops before it has released.
    StopsAtOnce = "loop-stops-without-a-release";
}

/// Breaks the engines of this process by the mutant of this name; false if that
/// is none of theirs.
#[cfg(feature = "mutants")]
fn choose_engine(name: &str) -> bool {
    let engines = vip_engine::Mutant::by_name(name);
    engines.is_some_and(|mutant| {
        vip_engine::choose(mutant);
        true
    })
}

/// Is this the name of a mutant of the engine or of this package? If it is one of
/// the engine's, chooses it.
#[cfg(feature = "mutants")]
#[must_use]
pub fn is_one(name: &str) -> bool {
    Mutant::by_name(name).is_some() || choose_engine(name)
}

/// Breaks this process, with its engines, by the mutant that the environment
/// names (`VIP_MUTANT`). Call it before making any engine.
///
/// # Panics
/// If there is no such mutant.
#[cfg(feature = "mutants")]
pub fn choose() {
    if let Ok(name) = std::env::var("VIP_MUTANT") {
        assert!(is_one(&name), "there is no mutant {name:?}");
    }
}
