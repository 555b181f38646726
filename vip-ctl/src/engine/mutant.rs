//! Engines that are broken on purpose, each in one line of its own: the model
//! check must find what they do, or it proves nothing. Where a line is broken
//! is said there; which lines there are, is here.
//!
//! Without the feature `mutants`, which nothing that ships has, [`Broken`] is
//! empty, and asking it is `false` at compile time.

/// One way to break the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutant {
    /// After a start a node is silent for half of T_accept (rule 5).
    ShortSilence,
    /// An acceptor keeps what it accepted for half of T_hold (rules 3 and 4).
    ShortAcceptor,
    /// The lease counts from the last sending of the Propose (rule 2).
    LeaseFromPropose,
    /// The release is on the wire before the map is cleared (rule 7).
    ReleaseBeforeStore,
    /// An acceptor gives another owner's unexpired lease away (rule 3).
    Overwrite,
    /// T_hold is T_accept, without a margin for clocks (rule 4).
    NoMargin,
    /// Any Accept counts, whatever ballot it answers (rule 2).
    AnyAccept,
    /// A renewal goes on after the release, and brings the lease back (rule 7).
    LateRenewal,
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
