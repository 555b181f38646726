//! Gratuitous ARP: tells the network, and every client's neighbour table, where
//! the VIP is now.
//!
//! The egress gate decides whether such a frame may leave, by the same lease: so
//! a late announcement misleads nobody.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use vip_common::{IfaceConfig, VipEntry};

use crate::mutant::{self, Mutant};

/// Bytes of an ARP frame without padding.
const FRAME_LEN: usize = 42;
/// ETH_P_ARP.
pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
/// ARP's operations.
const REQUEST: u8 = 1;
const REPLY: u8 = 2;

/// A frame that tells where a VIP is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// RFC 5227's announcement: a request in which sender and target are the VIP.
    Request,
    /// RFC 2002's gratuitous reply.
    Reply,
    /// The VIP's question for an address that is nobody's: whoever knows the VIP updates
    /// what it knows (RFC 826). Bridges with `neigh_suppress` flood it, and not the others.
    Question,
}

/// The frames that announce a VIP once, since some neighbours only heed the one, some only
/// the other.
pub const FORMS: [Form; 2] = [Form::Request, Form::Reply];
/// The same behind bridges that keep announcements back.
pub const ASKING: [Form; 2] = [Form::Question, Form::Reply];

/// All hosts of the segment.
const BROADCAST: [u8; 6] = [0xff; 6];
/// As the kernel wants it in an address: all address families fit.
#[expect(clippy::cast_possible_truncation, reason = "AF_PACKET is 17")]
const AF_PACKET: u16 = libc::AF_PACKET as u16;
/// Bytes of a link-layer address.
#[expect(clippy::cast_possible_truncation, reason = "a sockaddr_ll has 20 bytes")]
pub(super) const ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

/// Where a VIP is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The interface's index.
    pub ifindex: u32,
    /// The interface's own MAC.
    pub iface: [u8; 6],
    /// The MAC that the VIP is at: that one, or the group's virtual one.
    pub mac: [u8; 6],
}

impl At {
    /// A VIP's place on the interface with this index and entry.
    #[must_use]
    pub const fn of(vip: VipEntry, ifindex: u32, iface: IfaceConfig) -> Self {
        Self { ifindex, iface: iface.mac, mac: vip.mac_on(iface) }
    }
}

/// A socket that sends announcements.
pub struct Announcer {
    socket: OwnedFd,
}

impl Announcer {
    /// Opens the socket; it receives nothing.
    ///
    /// # Errors
    /// If the kernel refuses: CAP_NET_RAW is needed.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        Ok(Self { socket })
    }

    /// Announces `vip`, once in each of these forms.
    ///
    /// # Errors
    /// If a frame can't be queued: ENOBUFS for one that the egress gate held
    /// back or a full queue dropped, EAGAIN where too many wait in the socket,
    /// others for an interface that is down or gone; `Unsupported` for an IPv6
    /// VIP, which ARP has no room for.
    pub fn announce(&self, at: At, vip: IpAddr, forms: [Form; 2]) -> io::Result<()> {
        self.tell_by(forms, BROADCAST, at, vip)
    }

    /// The same by [`FORMS`], to the host with the hardware address `to` alone.
    ///
    /// # Errors
    /// As [`Announcer::announce`].
    pub fn tell(&self, to: [u8; 6], at: At, vip: IpAddr) -> io::Result<()> {
        self.tell_by(FORMS, to, at, vip)
    }

    fn tell_by(&self, forms: [Form; 2], to: [u8; 6], at: At, vip: IpAddr) -> io::Result<()> {
        let vip = ipv4(vip)?;
        for form in forms {
            self.send(at.ifindex, &telling(form, to, at, vip))?;
        }
        Ok(())
    }

    /// Asks all hosts of an interface's segment for `vip`, in the name of `own`; without an
    /// address of one's own by an address probe (RFC 5227). `mac` is the interface's.
    ///
    /// # Errors
    /// As [`Announcer::announce`].
    pub fn ask(&self, ifindex: u32, mac: [u8; 6], own: Option<Ipv4Addr>, vip: IpAddr) -> io::Result<()> {
        let mut frame = frame(REQUEST, BROADCAST, mac, ipv4(vip)?);
        frame[28..32].copy_from_slice(&own.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        self.send(ifindex, &frame)
    }

    /// Asks the host at the hardware address `to` alone for an address that it may have. In
    /// nobody's name (RFC 5227), so that it changes no host's neighbour entries. `mac` is the
    /// interface's.
    ///
    /// # Errors
    /// As [`Announcer::announce`].
    pub fn ask_one(&self, to: [u8; 6], ifindex: u32, mac: [u8; 6], address: Ipv4Addr) -> io::Result<()> {
        let mut frame = frame(REQUEST, to, mac, address);
        frame[28..32].fill(0);
        self.send(ifindex, &frame)
    }

    fn send(&self, ifindex: u32, frame: &[u8; FRAME_LEN]) -> io::Result<()> {
        let ifindex = i32::try_from(ifindex).map_err(io::Error::other)?;
        let mut address = libc::sockaddr_ll { sll_ifindex: ifindex, sll_halen: 6, ..link(ETHERTYPE_ARP) };
        address.sll_addr[..6].copy_from_slice(&frame[..6]);
        // SAFETY: both pointers and lengths describe live values of this call.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                ADDRESS_LEN,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// The address of a packet socket: this protocol, by any interface.
pub(super) const fn link(protocol: u16) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: AF_PACKET,
        sll_protocol: protocol.to_be(),
        sll_ifindex: 0,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

fn ipv4(vip: IpAddr) -> io::Result<Ipv4Addr> {
    match vip {
        IpAddr::V4(vip) => Ok(vip),
        IpAddr::V6(_) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "ARP has no room for an IPv6 address"))
        }
    }
}

fn telling(form: Form, to: [u8; 6], at: At, vip: Ipv4Addr) -> [u8; FRAME_LEN] {
    let op = match form {
        Form::Request | Form::Question => REQUEST,
        Form::Reply => REPLY,
    };
    let mut frame = frame(op, to, at.mac, vip);
    if form == Form::Question {
        frame[38..42].copy_from_slice(&IfaceConfig::test_address(at.iface));
    }
    // All holders have a virtual MAC: by this mark they know their own announcements from
    // another's. Nobody heeds the target's hardware address in a request (RFC 826), and Linux
    // insists on the sender's in a gratuitous reply.
    if op == REQUEST && at.mac != at.iface && !mutant::is(Mutant::Unmarked) {
        frame[32..38].copy_from_slice(&at.iface);
    }
    frame
}

/// An ARP packet in which sender and target are the VIP.
fn frame(op: u8, to: [u8; 6], mac: [u8; 6], vip: Ipv4Addr) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&mac);
    frame[12..14].copy_from_slice(&ETHERTYPE_ARP.to_be_bytes());
    frame[14..20].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
    frame[21] = op;
    frame[22..28].copy_from_slice(&mac);
    frame[28..32].copy_from_slice(&vip.octets());
    if op == REPLY {
        frame[32..38].copy_from_slice(&mac);
    }
    frame[38..42].copy_from_slice(&vip.octets());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_say_the_vip_is_at_the_mac() {
        let (mac, iface) = ([2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 1]);
        let at = |iface| At { ifindex: 7, iface, mac };
        for (form, op) in [(Form::Request, 1), (Form::Reply, 2), (Form::Question, 1)] {
            let mut frame = telling(form, BROADCAST, at(iface), Ipv4Addr::new(10, 0, 1, 12));
            let own = telling(form, BROADCAST, at(mac), Ipv4Addr::new(10, 0, 1, 12));
            let mark = |frame: [u8; FRAME_LEN]| <[u8; 6]>::try_from(&frame[32..38]).expect("six");
            assert_eq!((mark(frame), mark(own)), if op == 1 { (iface, [0; 6]) } else { (mac, mac) });
            if form == Form::Question {
                assert_eq!(frame[38..42], IfaceConfig::test_address(iface));
                frame[38..42].copy_from_slice(&[10, 0, 1, 12]);
            }
            assert_eq!(frame[..6], [0xff; 6]);
            assert_eq!((&frame[6..12], &frame[22..28]), (&mac[..], &mac[..]));
            assert_eq!(frame[20..22], [0, op]);
            assert_eq!((&frame[28..32], &frame[38..42]), (&[10, 0, 1, 12][..], &[10, 0, 1, 12][..]));
        }
    }

    #[test]
    fn an_ipv6_vip_is_refused() {
        // No frame is made, so any file will do.
        let announcer = Announcer { socket: std::fs::File::open("/dev/null").unwrap().into() };
        let at = At { ifindex: 7, iface: [2, 0, 0, 0, 0, 7], mac: [2, 0, 0, 0, 0, 7] };
        let refused = announcer.announce(at, "2001:db8::12".parse().unwrap(), FORMS);
        assert_eq!(refused.expect_err("it is no IPv4 address").kind(), io::ErrorKind::Unsupported);
    }
}
