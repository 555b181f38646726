//! Errors between user space and the data plane, in sentences that say where and
//! what to do.

use std::{io, net::IpAddr, path::PathBuf};

use aya::programs::{ProgramError, tc::TcError, xdp::XdpError};

use crate::exit::Exit;

/// Why the data plane could not be loaded, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum DataPlaneError {
    /// Nothing is pinned.
    #[error("no data plane is loaded at {}: run `vip-ctl load --iface IFACE --vip ADDRESS`, or start the agent", dir.display())]
    NotLoaded {
        /// Where vip-ctl looked for it.
        dir: PathBuf,
    },
    /// The pinned maps have another layout than those of this version.
    #[error(
        "the pinned maps have layout {found}, this vip-ctl has {ours}, and leases can't go on: restart the agent (`systemctl restart vip-agent`), which hands over what it holds and begins anew; where none runs, `vip-ctl unload` takes them off (or the version that loaded them does)"
    )]
    Layout {
        /// The number in the pinned record.
        found: u32,
        /// The number of this version.
        ours: u32,
    },
    /// The maps that this process has open are no longer pinned.
    #[error(
        "the maps pinned at {} are no longer those that this agent's leases are in: did somebody remove them, or mount another BPF file system there?", dir.display()
    )]
    Replaced {
        /// Where they were pinned.
        dir: PathBuf,
    },
    /// The kernel refused for lack of a privilege.
    #[error("not allowed to {what}: run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN")]
    NoPermission {
        /// What vip-ctl tried.
        what: String,
    },
    /// No such interface in this network namespace.
    #[error("there is no interface {name:?} here: `ip link` lists those that there are")]
    NoInterface {
        /// The name that was given.
        name: String,
    },
    /// Another program sits on the hook.
    #[error("{iface} has another XDP program on it, {owner}: detach that one first, nothing was replaced")]
    Occupied {
        /// The interface.
        iface: String,
        /// The other program's name and id.
        owner: String,
    },
    /// The driver cannot run the program in this mode.
    #[error(
        "{iface} can't run XDP in {mode} mode ({source}): try `--mode tc`, or lower its MTU if it is above 3498"
    )]
    Mode {
        /// The interface.
        iface: String,
        /// The requested mode.
        mode: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another qdisc stands in the place of clsact.
    #[error(
        "{iface} has the qdisc {kind} where clsact has to be: replace it (`tc qdisc replace dev {iface} clsact`, then its filters again), or use Linux 6.6 or newer, where tcx needs none"
    )]
    Qdisc {
        /// The interface.
        iface: String,
        /// What is there, such as `ingress`.
        kind: String,
    },
    /// XDP in native mode would run on other interfaces.
    #[error(
        "{iface} is on top of {lower}: native mode would run there, and answer nobody; write `{iface}:tc`, or mode = \"tc\" in vip.toml"
    )]
    OnTop {
        /// The interface.
        iface: String,
        /// Those below it.
        lower: String,
    },
    /// The maps have no such group or VIP.
    #[error("there is no group or VIP {name:?} here: `vip-ctl status` lists those that there are")]
    NoSuchGroup {
        /// The name that was given.
        name: String,
    },
    /// The VIP is in another group.
    #[error("the VIP {vip} is in group {group:?} already: unload it there first")]
    VipTaken {
        /// The VIP.
        vip: IpAddr,
        /// The group that has it.
        group: String,
    },
    /// The maps have no place for an IPv6 address.
    #[error("the VIP {vip} is IPv6, which isn't there yet: remove it, or write an IPv4 address")]
    Ipv6Vip {
        /// The VIP.
        vip: IpAddr,
    },
    /// No room.
    #[error("there is no room for another {what}: {limit} is the limit; unload and load with a higher one")]
    Full {
        /// What did not fit.
        what: &'static str,
        /// How many fit.
        limit: u32,
    },
    /// The program on the way in keeps no frame log.
    #[error("no frame log is kept: switch it on by `vip-ctl load --iface IFACE --frame-log`")]
    NoFrameLog,
    /// The clocks of kernel and process differ.
    #[error(
        "this process's CLOCK_BOOTTIME is {off_by_ns} ns off the kernel's: it runs in a time namespace, and leases would be wrong; start it outside of it"
    )]
    TimeNamespace {
        /// Process minus kernel, in nanoseconds.
        off_by_ns: i128,
    },
    /// Any other error of the kernel.
    #[error("could not {what}: {message}")]
    Kernel {
        /// What vip-ctl tried.
        what: String,
        /// The error, with its causes.
        message: String,
    },
}

impl DataPlaneError {
    /// An I/O error while doing `what`; a lack of privilege has its own variant.
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::from_source(what.into(), &source)
    }

    /// A map error while doing `what`.
    pub(crate) fn map(what: impl Into<String>, source: aya::maps::MapError) -> Self {
        Self::from_source(what.into(), &source)
    }

    /// Any error, with its whole chain of causes; EPERM or EACCES anywhere in it
    /// means a lack of privilege.
    pub(crate) fn from_source(what: String, source: &(dyn std::error::Error + 'static)) -> Self {
        if let Some(errno) = errno_of(source)
            && (errno == libc::EPERM || errno == libc::EACCES)
        {
            return Self::NoPermission { what };
        }
        let mut message = source.to_string();
        let mut next = source.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            next = cause.source();
        }
        Self::Kernel { what, message }
    }

    /// The process's exit code for this error.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::NotLoaded { .. } | Self::NoFrameLog => Exit::NotLoaded,
            Self::Layout { .. } => Exit::Protocol,
            Self::NoPermission { .. } => Exit::NoPermission,
            Self::NoInterface { .. } => Exit::NoInput,
            Self::Occupied { .. } | Self::Qdisc { .. } => Exit::Occupied,
            Self::Mode { .. }
            | Self::Full { .. }
            | Self::TimeNamespace { .. }
            | Self::Replaced { .. }
            | Self::Kernel { .. } => Exit::System,
            Self::NoSuchGroup { .. } => Exit::NoSuch,
            Self::VipTaken { .. } | Self::Ipv6Vip { .. } | Self::OnTop { .. } => Exit::Usage,
        }
    }
}

/// The first errno in an error's chain of causes.
pub(crate) fn errno_of(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(errno) = errno_at(cause) {
            return Some(errno);
        }
        next = cause.source();
    }
    None
}

/// The errno of one error in the chain. Some of aya's errors include only the
/// text of the error that they wrap, so it is not in the chain.
fn errno_at(cause: &(dyn std::error::Error + 'static)) -> Option<i32> {
    if let Some(e) = cause.downcast_ref::<io::Error>() {
        return e.raw_os_error();
    }
    let tc = |e: &TcError| {
        if let TcError::NetlinkError(e) = e {
            e.raw_os_error()
        } else if let TcError::IoError(e) = e {
            e.raw_os_error()
        } else {
            None
        }
    };
    if let Some(e) = cause.downcast_ref::<TcError>() {
        return tc(e);
    }
    let program = cause.downcast_ref::<ProgramError>()?;
    if let ProgramError::TcError(e) = program {
        tc(e)
    } else if let ProgramError::XdpError(XdpError::NetlinkError(e)) | ProgramError::NetlinkError(e) = program
    {
        e.raw_os_error()
    } else if let ProgramError::IOError(e) = program {
        e.raw_os_error()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_errno_is_found_behind_transparent_wrappers() {
        let gone = || io::Error::from_raw_os_error(libc::ENODEV);
        assert_eq!(errno_of(&gone()), Some(libc::ENODEV));
        assert_eq!(errno_of(&TcError::IoError(gone())), Some(libc::ENODEV));
        assert_eq!(errno_of(&ProgramError::TcError(TcError::IoError(gone()))), Some(libc::ENODEV));
        assert_eq!(errno_of(&TcError::AlreadyAttached), None);
    }

    #[test]
    fn lack_of_privilege_is_told_apart() {
        let denied = TcError::IoError(io::Error::from_raw_os_error(libc::EPERM));
        let error = DataPlaneError::from_source("attach".into(), &denied);
        assert_eq!(error.exit(), Exit::NoPermission);
        let other = TcError::IoError(io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(DataPlaneError::from_source("attach".into(), &other).exit(), Exit::System);
    }
}
