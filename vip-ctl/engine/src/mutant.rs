//! Engines that are broken on purpose, each in one line of its own: whoever
//! checks the engine must find what they do, or the check proves nothing. Where
//! a line is broken is said there; which lines there are, is here.
//!
//! Without the feature `mutants`, which nothing that ships has, [`Broken`] is
//! empty, and asking it is `false` at compile time.

#[cfg(feature = "mutants")]
use std::sync::OnceLock;

/// Defines [`Mutant`], with a name for people and why it does no harm, if so.
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

            /// Why nothing can notice it, if nothing can.
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
    /// A handover proposes the successor under the holder's own ballot (rule 8).
    SameBallot = "another-owner-under-same-ballot";
    /// T_hold is T_accept, without a margin for clocks (rule 4).
    NoMargin = "no-margin-for-clocks";
    /// Any Accept counts, whatever ballot it answers (rule 2).
    AnyAccept = "accepts-of-any-ballot";
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
}

/// The mutant of this process, if it is one.
#[cfg(feature = "mutants")]
static CHOSEN: OnceLock<Option<Mutant>> = OnceLock::new();

/// Breaks every engine that this process makes from now on, but those that
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
