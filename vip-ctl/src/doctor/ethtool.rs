//! What a driver says of itself and its interface, read as ethtool(8) does, by
//! ioctl: unlike sysfs, that always means this process's network namespace.

use std::{io, os::fd::AsRawFd as _};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// SIOCETHTOOL of linux/sockios.h.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// Commands of linux/ethtool.h.
const GET_DRIVER: u32 = 0x0000_0003;
const GET_FLAGS: u32 = 0x0000_0025;
/// Flags in the answer to [`GET_FLAGS`].
const FLAG_LRO: u32 = 1 << 15;
const FLAG_VLAN_RX: u32 = 1 << 8;

/// The flags that matter to XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offloads {
    /// Frames are merged in the NIC, before any program sees them.
    pub(super) lro: bool,
    /// The NIC removes VLAN tags from received frames.
    pub(super) vlan_rx: bool,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    rest: [u8; 64],
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// The name of the driver behind an interface.
///
/// # Errors
/// If the driver doesn't say.
pub(super) fn driver(interface: &str) -> io::Result<String> {
    let mut info = DriverInfo {
        command: GET_DRIVER,
        driver: [0; 32],
        version: [0; 32],
        firmware: [0; 32],
        bus: [0; 32],
        rest: [0; 64],
    };
    ask(interface, &mut info)?;
    let end = info.driver.iter().position(|byte| *byte == 0).unwrap_or(info.driver.len());
    Ok(String::from_utf8_lossy(&info.driver[..end]).into_owned())
}

/// The offloads that are on.
///
/// # Errors
/// If the driver doesn't say.
pub(super) fn offloads(interface: &str) -> io::Result<Offloads> {
    let mut value = Value { command: GET_FLAGS, data: 0 };
    ask(interface, &mut value)?;
    Ok(Offloads { lro: value.data & FLAG_LRO != 0, vlan_rx: value.data & FLAG_VLAN_RX != 0 })
}

/// The largest packet that the interface takes, in bytes.
///
/// # Errors
/// If there is no such interface.
pub(super) fn mtu(interface: &str) -> io::Result<u32> {
    let request = call(interface, libc::SIOCGIFMTU, std::ptr::null_mut())?;
    // SAFETY: the kernel has written the MTU in its place.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    u32::try_from(mtu).map_err(io::Error::other)
}

/// Asks one question: `T` is the structure of the command in its first field.
fn ask<T>(interface: &str, question: &mut T) -> io::Result<()> {
    call(interface, SIOCETHTOOL, std::ptr::from_mut(question).cast()).map(drop)
}

/// One ioctl about an interface. `data` is null, or a structure beyond which the
/// kernel writes nothing.
fn call(interface: &str, number: libc::c_ulong, data: *mut libc::c_char) -> io::Result<libc::ifreq> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all zeros is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = data;
    // SAFETY: the request lives through the call, and so does its data, which
    // every caller borrows or leaves null.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), number as _, &raw mut request) };
    if result == 0 { Ok(request) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_are_the_kernels() {
        assert_eq!(size_of::<DriverInfo>(), 196);
        assert_eq!(size_of::<Value>(), 8);
    }

    #[test]
    fn an_interface_that_is_not_there_says_nothing() {
        assert!(driver("vip-no-such-if").is_err());
        assert!(mtu("vip-no-such-if").is_err());
        assert!(mtu("lo").is_ok_and(|mtu| mtu > 0));
        assert!(offloads("a-name-far-too-long-for-linux").is_err());
    }
}
