//! Exit codes: sysexits.h where it has one, Pacemaker's above 100, and one of
//! its resource agents'.

/// Why a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It worked.
    Ok = 0,
    /// The command did its work, and found an error: `doctor` on this host.
    Unwell = 1,
    /// OCF's failed promotion: the new holder's `pre_promote` failed, and it has
    /// given the group back.
    PromoteFailed = 9,
    /// EX_USAGE: the command line is wrong.
    Usage = 64,
    /// EX_NOINPUT: the named file or interface does not exist, or can't be used.
    NoInput = 66,
    /// EX_UNAVAILABLE: no data plane is loaded, no agent runs.
    NotLoaded = 69,
    /// EX_SOFTWARE: a bug.
    Software = 70,
    /// EX_OSERR: the kernel refused.
    System = 71,
    /// EX_CANTCREAT: something else is in the place of the file or program, or it
    /// can't be created there.
    Occupied = 73,
    /// EX_TEMPFAIL: busy; try again.
    Busy = 75,
    /// EX_PROTOCOL: the other side speaks another version.
    Protocol = 76,
    /// EX_NOPERM: a permission is missing.
    NoPermission = 77,
    /// EX_CONFIG: the configuration or the key is wrong.
    Config = 78,
    /// Pacemaker's CRM_EX_NOSUCH: no such group, VIP or node.
    NoSuch = 105,
    /// Pacemaker's CRM_EX_QUORUM: no quorum, or this node heard no voter that
    /// takes part in its membership.
    NoQuorum = 106,
    /// Pacemaker's CRM_EX_UNSAFE: it would be unsafe now.
    Unsafe = 107,
    /// CRM_EX_TIMEOUT: the agent, or what it was asked for, took too long.
    Timeout = 124,
}

impl Exit {
    /// Every code.
    const ALL: &[Self] = &[
        Self::Ok,
        Self::Unwell,
        Self::PromoteFailed,
        Self::Usage,
        Self::NoInput,
        Self::NotLoaded,
        Self::Software,
        Self::System,
        Self::Occupied,
        Self::Busy,
        Self::Protocol,
        Self::NoPermission,
        Self::Config,
        Self::NoSuch,
        Self::NoQuorum,
        Self::Unsafe,
        Self::Timeout,
    ];

    /// The exit code with this number; [`Exit::Software`] for one that is none.
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        Self::ALL.iter().copied().find(|exit| *exit as u8 == code).unwrap_or(Self::Software)
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
