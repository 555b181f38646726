//! Worlds that are broken on purpose, and the violation that the simulation must
//! find in each: a check that finds nothing anywhere proves nothing.

use std::sync::atomic::AtomicBool;

use super::{Mutant, Violation, parallel::in_order, run_mutant};

/// Seeds within which the simulation must find each violation.
const SEEDS: u64 = 300;

/// A broken world, and whether the simulation noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noticed {
    /// What is broken.
    pub mutant: Mutant,
    /// The seed that has shown it, and with which violation.
    pub by: Option<(u64, Violation)>,
    /// A violation that must not come of it, and did.
    pub wrong: Option<(u64, Violation)>,
}

impl Noticed {
    /// Is the result as it must be?
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.by.is_some() && self.wrong.is_none()
    }
}

/// Breaks the world in every way, on all cores.
#[must_use]
pub fn look_for_all() -> Vec<Noticed> {
    let mut found = Vec::new();
    let look = |place| {
        usize::try_from(place).ok().and_then(|place| Mutant::BROKEN.get(place)).map(|it| it.look_for())
    };
    in_order(0..Mutant::BROKEN.len() as u64, &AtomicBool::new(false), look, |noticed| found.extend(noticed));
    found
}

impl Mutant {
    /// All ways to break the world, those that take longest first.
    const BROKEN: [Self; 9] = [
        Self::HastyKeys,
        Self::ClockRate,
        Self::SendBeforeStore,
        Self::NoSilence,
        Self::ShortAcceptor,
        Self::TimersBeforeMail,
        Self::VotesUnrecorded,
        Self::MixedLeases,
        Self::HastySteps,
    ];

    /// Is this the violation that must come of it?
    const fn shows_as(self, violation: &Violation) -> bool {
        match self {
            Self::TimersBeforeMail => matches!(violation, Violation::StandsUnread(..)),
            // Nodes without a key in common don't hear each other: whatever that
            // costs, it never gives two.
            Self::HastyKeys => !matches!(violation, Violation::TwoHolders { .. }),
            Self::None
            | Self::ClockRate
            | Self::SendBeforeStore
            | Self::NoSilence
            | Self::ShortAcceptor
            | Self::VotesUnrecorded
            | Self::MixedLeases
            | Self::HastySteps => matches!(violation, Violation::TwoHolders { .. }),
        }
    }

    /// Looks for a seed that shows it. If nothing worse must come of it, tries
    /// all of them.
    fn look_for(self) -> Noticed {
        let mut noticed = Noticed { mutant: self, by: None, wrong: None };
        for seed in 0..SEEDS {
            let Err(failure) = run_mutant(seed, self).result else { continue };
            if self.shows_as(&failure.violation) {
                noticed.by.get_or_insert((seed, failure.violation));
                if self != Self::HastyKeys {
                    break;
                }
            } else if self == Self::HastyKeys {
                noticed.wrong = Some((seed, failure.violation));
                break;
            }
        }
        noticed
    }
}
