//! How the program on the way in runs on an interface.

/// How it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Mode {
    /// What suits the interface; vip-ctl says which.
    #[default]
    Auto,
    /// XDP in the driver, or not at all.
    Native,
    /// At tc, behind the stack's receive path: on any interface, also beside another
    /// XDP program.
    Tc,
    /// XDP in the stack, after the driver: slower, and on any interface.
    Generic,
}

/// Every mode.
pub const MODES: [Mode; 4] = [Mode::Auto, Mode::Native, Mode::Tc, Mode::Generic];

impl Mode {
    /// The word for it, as on the command line and in `vip.toml`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Tc => "tc",
            Self::Generic => "generic",
        }
    }

    /// The mode with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        MODES.into_iter().find(|mode| mode.name() == name)
    }
}
