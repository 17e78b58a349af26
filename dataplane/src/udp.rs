//! Unconnected wildcard UDP sockets, of one family each. Batches are sent by `send.rs` and received by `receive.rs`;
//! which datagrams have a socket of their own is in `initiation_socket.rs`.

use std::ffi::c_int;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use libc::sock_filter as Instruction;

use crate::offload::Offloads;
use crate::outer_header::{DEFAULT_TTL, Outer};
use crate::peer::Path;
use crate::send::{ControlWriter, message_header};
use crate::stats::{Counter, Stats};
use crate::sys::{self, RawAddress, check_size, get_option_int, set_option};

pub struct UdpSocket {
    fd: OwnedFd,
    v6: bool,
    pub gro: bool,
    /// UDP_SEGMENT works; cleared when the kernel refuses it.
    pub gso: bool,
}

impl UdpSocket {
    pub fn open(port: u16, v6: bool, wanted: Offloads, stats: &mut Stats) -> io::Result<UdpSocket> {
        let socket = UdpSocket::unbound(v6, BUFFER, wanted, stats)?;
        let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        sys::bind(&socket, SocketAddr::new(any, port))?;
        Ok(socket)
    }

    /// Another socket on the port of this one. It gets the datagrams for which `steering`, which sees the payload,
    /// returns 1, and this one those for which it returns 0.
    pub fn open_beside(
        &self,
        steering: &[Instruction],
        buffer: c_int,
        wanted: Offloads,
        stats: &mut Stats,
    ) -> io::Result<UdpSocket> {
        // With the same offloads: where the kernel aggregates, it asks any of the two whether it may.
        let second = UdpSocket::unbound(self.v6, buffer, wanted, stats)?;
        let address = sys::local_address(self).ok_or(io::ErrorKind::AddrNotAvailable)?;
        // Only now: this socket was bound as the only one, so two processes do not share a port by mistake.
        for socket in [self, &second] {
            set_option(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1 as c_int)?;
        }
        sys::bind(&second, address)?;
        let program = libc::sock_fprog { len: steering.len() as u16, filter: steering.as_ptr().cast_mut() };
        set_option(self, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, program)?;
        Ok(second)
    }

    pub fn unbound(v6: bool, buffer: c_int, wanted: Offloads, stats: &mut Stats) -> io::Result<UdpSocket> {
        let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        let fd = sys::socket(family, libc::SOCK_DGRAM, 0)?;
        if v6 {
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1 as c_int)?;
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1 as c_int)?;
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1 as c_int)?;
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1 as c_int)?;
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, c_int::from(DEFAULT_TTL))?;
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1 as c_int)?;
        } else {
            set_option(&fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1 as c_int)?;
            set_option(&fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1 as c_int)?;
            set_option(&fd, libc::IPPROTO_IP, libc::IP_RECVTTL, 1 as c_int)?;
            set_option(&fd, libc::IPPROTO_IP, libc::IP_TTL, c_int::from(DEFAULT_TTL))?;
            set_option(&fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1 as c_int)?;
        }
        for (force, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
            if set_option(&fd, libc::SOL_SOCKET, force, buffer).is_err() {
                stats.count(Counter::FallbackSocketBuffer);
                set_option(&fd, libc::SOL_SOCKET, plain, buffer)?;
            }
        }
        let gro = wanted.udp_gro && set_option(&fd, libc::SOL_UDP, libc::UDP_GRO, 1 as c_int).is_ok();
        if wanted.udp_gro && !gro {
            stats.count(Counter::FallbackUdpGro);
        }
        let gso = wanted.udp_gso && get_option_int(&fd, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok();
        if wanted.udp_gso && !gso {
            stats.count(Counter::FallbackUdpGso);
        }
        let socket = UdpSocket { fd, v6, gro, gso };
        socket.set_fragmentation(false)?;
        Ok(socket)
    }

    /// Sends one datagram.
    pub fn send(&self, path: Path, outer: Outer, bytes: &[u8]) -> io::Result<()> {
        let mut control = ControlWriter::for_message(path, outer, None);
        let mut address = RawAddress::from(path.remote);
        let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let message = message_header(&mut address, std::slice::from_mut(&mut vector), &mut control);
        // SAFETY: every pointer in message refers to a local or to `bytes`, all alive through the call.
        let result = check_size(unsafe { libc::sendmsg(self.fd.as_raw_fd(), &message, libc::MSG_DONTWAIT) });
        match result {
            Err(error) if is_lost_at_once(&error) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Sends one datagram that may be fragmented on its way, for what must not be made smaller.
    pub fn send_fragmented(&self, path: Path, outer: Outer, bytes: &[u8]) -> io::Result<()> {
        self.set_fragmentation(true)?;
        let result = self.send(path, outer, bytes);
        self.set_fragmentation(false)?;
        result
    }

    fn set_fragmentation(&self, allowed: bool) -> io::Result<()> {
        // The values of IP_MTU_DISCOVER and IPV6_MTU_DISCOVER are the same. The kernel's own idea of the path's MTU,
        // which anybody's ICMP can change, stays out of it.
        let value = if allowed { libc::IP_PMTUDISC_DONT } else { libc::IP_PMTUDISC_PROBE };
        if self.v6 {
            // No router cuts IPv6: fragments are made small enough for every path here.
            let size: c_int = if allowed { 1280 } else { 0 };
            set_option(&self.fd, libc::IPPROTO_IPV6, libc::IPV6_MTU, size)?;
            set_option(&self.fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, value)
        } else {
            set_option(&self.fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, value)
        }
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The device's queue is full: to be lost there is no more an error than to be lost on the way. The kernel says so only
/// to sockets that want to hear of errors.
pub fn is_lost_at_once(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}

/// The own address that packets on this path come from. None without a route.
pub fn source_address(path: Path) -> Option<IpAddr> {
    if path.local.is_some() {
        return path.local;
    }
    let v6 = path.remote.is_ipv6();
    let fd = sys::socket(if v6 { libc::AF_INET6 } else { libc::AF_INET }, libc::SOCK_DGRAM, 0).ok()?;
    sys::connect(&fd, path.remote).ok()?;
    sys::local_address(&fd).map(|address| address.ip())
}

/// Asked for as 8 MiB, which the kernel doubles: an aggregated message of 64 KiB is one unit.
const BUFFER: c_int = 8 << 20;
