//! A packet(7) socket on one interface: sees what a filter lets through, above the link header, and sends ARP and
//! neighbour discovery. Needs CAP_NET_RAW.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use libc::sock_filter as Instruction;

use crate::neighbour::{Mac, group_mac};
use crate::sys::{self, check, check_size};

/// What the interface takes in.
#[derive(Clone, Copy)]
#[repr(u16)]
pub enum Addressed {
    /// PACKET_MR_PROMISC.
    ToAnybody = 1,
    /// PACKET_MR_ALLMULTI.
    ToGroups = 2,
}

pub struct Received {
    /// Ethertype.
    pub protocol: u16,
    pub from: Mac,
    /// Octets of the packet that are in the buffer.
    pub length: usize,
}

pub struct PacketSocket {
    fd: OwnedFd,
    link: u32,
}

impl PacketSocket {
    /// For sending.
    pub fn open(link: u32) -> io::Result<PacketSocket> {
        let socket = PacketSocket { fd: sys::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0)?, link };
        socket.bind(0)?;
        Ok(socket)
    }

    /// Hears what the filter accepts of what is addressed to this host, to groups, or to anybody.
    pub fn listen(link: u32, filter: &[Instruction], whose: Addressed) -> io::Result<PacketSocket> {
        let fd = sys::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0)?;
        let socket = PacketSocket { fd, link };
        sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER)?;
        socket.set_filter(filter)?;
        socket.bind((libc::ETH_P_ALL as u16).to_be())?;
        let membership = Membership { link: link as i32, kind: whose as u16, length: 0, address: [0; 8] };
        sys::set_option(&socket, libc::SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership)?;
        Ok(socket)
    }

    /// Whether this process may have such sockets.
    pub fn allowed() -> io::Result<()> {
        sys::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0).map(drop)
    }

    pub fn set_filter(&self, filter: &[Instruction]) -> io::Result<()> {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        sys::set_option(self, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program)
    }

    /// Still on this interface; false after it has gone, although another has its name or index.
    pub fn is_on(&self, link: u32) -> bool {
        self.link == link && self.address().is_ok_and(|address| address.sll_ifindex == link as i32)
    }

    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut address = empty_address();
        let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        let (start, size) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: buffer, address and length are valid for writes of the sizes given.
        let received =
            unsafe { libc::recvfrom(self.as_raw_fd(), start, size, 0, (&raw mut address).cast(), &mut length) };
        let length = check_size(received)?;
        let from = address.sll_addr[..6].try_into().unwrap_or_default();
        Ok(Received { protocol: u16::from_be(address.sll_protocol), from, length })
    }

    /// The interface's hardware address if it is an Ethernet one.
    pub fn mac(&self) -> Option<Mac> {
        let address = self.address().ok()?;
        let ethernet = address.sll_hatype == libc::ARPHRD_ETHER && address.sll_halen == 6;
        ethernet.then(|| address.sll_addr[..6].try_into().ok()).flatten()
    }

    /// To the group that the packet is for.
    pub fn send(&self, protocol: u16, packet: &[u8]) -> io::Result<()> {
        self.send_to(group_mac(packet), protocol, packet)
    }

    pub fn send_to(&self, mac: Mac, protocol: u16, packet: &[u8]) -> io::Result<()> {
        let mut address = empty_address();
        address.sll_protocol = protocol.to_be();
        address.sll_ifindex = self.link as i32;
        address.sll_halen = 6;
        address.sll_addr[..6].copy_from_slice(&mac);
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: packet and address are valid for reads of the sizes given.
        let sent = unsafe {
            let (start, size) = (packet.as_ptr().cast(), packet.len());
            libc::sendto(self.as_raw_fd(), start, size, 0, (&raw const address).cast(), length)
        };
        check_size(sent).map(drop)
    }

    fn bind(&self, protocol: u16) -> io::Result<()> {
        let mut address = empty_address();
        (address.sll_protocol, address.sll_ifindex) = (protocol, self.link as i32);
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: address is a sockaddr_ll of the length given.
        check(unsafe { libc::bind(self.as_raw_fd(), (&raw const address).cast(), length) }).map(drop)
    }

    fn address(&self) -> io::Result<libc::sockaddr_ll> {
        let mut address = empty_address();
        let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: address and length are valid for writes of the sizes given.
        check(unsafe { libc::getsockname(self.as_raw_fd(), (&raw mut address).cast(), &mut length) })?;
        Ok(address)
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// `struct packet_mreq`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Membership {
    link: i32,
    kind: u16,
    length: u16,
    address: [u8; 8],
}

fn empty_address() -> libc::sockaddr_ll {
    // SAFETY: all-zero bytes are a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address
}

const RECEIVE_BUFFER: i32 = 64 << 10;
const PACKET_ADD_MEMBERSHIP: i32 = 1;
