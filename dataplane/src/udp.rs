//! One unconnected wildcard UDP socket per family, with segmentation (UDP_SEGMENT) and aggregation (UDP_GRO).

use std::ffi::c_int;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::outer_header::{DEFAULT_TTL, Outer};
use crate::peer::Path;
use crate::stats::{Counter, Stats};
use crate::sys::{self, RawAddress, check, check_size, get_option_int, set_option};

pub struct UdpSocket {
    fd: OwnedFd,
    v6: bool,
    pub gro: bool,
    /// UDP_SEGMENT works; cleared when the kernel refuses it.
    pub gso: bool,
}

impl UdpSocket {
    pub fn open(port: u16, v6: bool, stats: &mut Stats) -> io::Result<UdpSocket> {
        let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        let fd = sys::socket(family, libc::SOCK_DGRAM, 0)?;
        let any: IpAddr = if v6 {
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1 as c_int)?;
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1 as c_int)?;
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1 as c_int)?;
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1 as c_int)?;
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, c_int::from(DEFAULT_TTL))?;
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            set_option(&fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1 as c_int)?;
            set_option(&fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1 as c_int)?;
            set_option(&fd, libc::IPPROTO_IP, libc::IP_RECVTTL, 1 as c_int)?;
            set_option(&fd, libc::IPPROTO_IP, libc::IP_TTL, c_int::from(DEFAULT_TTL))?;
            Ipv4Addr::UNSPECIFIED.into()
        };
        for (force, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
            if set_option(&fd, libc::SOL_SOCKET, force, BUFFER).is_err() {
                stats.count(Counter::FallbackSocketBuffer);
                set_option(&fd, libc::SOL_SOCKET, plain, BUFFER)?;
            }
        }
        let gro = set_option(&fd, libc::SOL_UDP, libc::UDP_GRO, 1 as c_int).is_ok();
        if !gro {
            stats.count(Counter::FallbackUdpGro);
        }
        let gso = get_option_int(&fd, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok();
        if !gso {
            stats.count(Counter::FallbackUdpGso);
        }
        let socket = UdpSocket { fd, v6, gro, gso };
        socket.set_fragmentation(false)?;
        sys::bind(&socket.fd, SocketAddr::new(any, port))?;
        Ok(socket)
    }

    /// Sends `bytes` as datagrams of `segment` octets (the last may be shorter) in one call.
    #[inline]
    pub fn send(&self, path: Path, outer: Outer, bytes: &[u8], segment: usize) -> io::Result<()> {
        let mut control = ControlWriter::new();
        if bytes.len() > segment {
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &(segment as u16).to_ne_bytes());
        }
        let [tos, ttl] = match self.v6 {
            true => [(libc::IPPROTO_IPV6, libc::IPV6_TCLASS), (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT)],
            false => [(libc::IPPROTO_IP, libc::IP_TOS), (libc::IPPROTO_IP, libc::IP_TTL)],
        };
        if outer.tos != 0 {
            control.push(tos.0, tos.1, &c_int::from(outer.tos).to_ne_bytes());
        }
        if outer.ttl != DEFAULT_TTL {
            control.push(ttl.0, ttl.1, &c_int::from(outer.ttl).to_ne_bytes());
        }
        match path.local {
            Some(IpAddr::V4(local)) if !self.v6 => {
                let mut info = [0; size_of::<libc::in_pktinfo>()];
                info[4..8].copy_from_slice(&local.octets());
                control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(IpAddr::V6(local)) if self.v6 => {
                let mut info = [0; size_of::<libc::in6_pktinfo>()];
                info[..16].copy_from_slice(&local.octets());
                control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            _ => {}
        }
        let mut address = RawAddress::from(path.remote);
        let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        // SAFETY: all-zero bytes are a valid msghdr.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_name = address.pointer_mut().cast();
        message.msg_namelen = address.length();
        message.msg_iov = &mut vector;
        message.msg_iovlen = 1;
        if control.length > 0 {
            message.msg_control = control.space.as_mut_ptr().cast();
            message.msg_controllen = control.length as _;
        }
        // SAFETY: every pointer in message refers to a local or to `bytes`, all alive through the call.
        check_size(unsafe { libc::sendmsg(self.fd.as_raw_fd(), &message, libc::MSG_DONTWAIT) }).map(drop)
    }

    /// Sends one datagram that may be fragmented on its way, for what must not be made smaller.
    pub fn send_fragmented(&self, path: Path, outer: Outer, bytes: &[u8]) -> io::Result<()> {
        self.set_fragmentation(true)?;
        let result = self.send(path, outer, bytes, bytes.len());
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

/// The own address that packets on this path come from. None without a route.
pub fn source_address(path: Path) -> Option<IpAddr> {
    if path.local.is_some() {
        return path.local;
    }
    let v6 = path.remote.is_ipv6();
    let fd = sys::socket(if v6 { libc::AF_INET6 } else { libc::AF_INET }, libc::SOCK_DGRAM, 0).ok()?;
    sys::connect(&fd, path.remote).ok()?;
    sys::local_address(&fd)
}

/// One received message: a datagram, or several of equal size from one sender.
#[derive(Clone, Copy)]
pub struct Received {
    pub start: usize,
    pub length: usize,
    /// Size of each datagram in it; the last may be shorter.
    pub segment: usize,
    pub path: Path,
    pub outer: Outer,
}

/// Buffers of the receive path: one hot buffer while the kernel aggregates, else many.
pub struct Receiver {
    pub arena: Vec<u8>,
    buffers: Option<Box<MessageBuffers>>,
    at_once: usize,
}

struct MessageBuffers {
    headers: [libc::mmsghdr; MESSAGES],
    vectors: [libc::iovec; MESSAGES],
    names: [RawAddress; MESSAGES],
    controls: [[u64; CONTROL_WORDS]; MESSAGES],
}

impl Receiver {
    pub fn new() -> Receiver {
        // SAFETY: all-zero bytes are valid for these plain C structures.
        let buffers = unsafe { Box::new(std::mem::zeroed()) };
        Receiver { arena: vec![0; MESSAGES * MESSAGE_SIZE], buffers: Some(buffers), at_once: MESSAGES }
    }

    /// Stands in while the real one is in use.
    pub fn empty() -> Receiver {
        Receiver { buffers: None, arena: Vec::new(), at_once: 0 }
    }

    /// Fills `out` with what has arrived. `WouldBlock` when nothing has.
    pub fn receive(&mut self, socket: &UdpSocket, out: &mut Vec<Received>) -> io::Result<()> {
        out.clear();
        let Some(buffers) = self.buffers.as_deref_mut() else { return Ok(()) };
        let base = self.arena.as_mut_ptr();
        for i in 0..self.at_once {
            // SAFETY: i < MESSAGES, so the offset is within the arena.
            let start = unsafe { base.add(i * MESSAGE_SIZE) };
            buffers.vectors[i] = libc::iovec { iov_base: start.cast(), iov_len: MESSAGE_SIZE };
            buffers.names[i] = RawAddress::empty();
            let header = &mut buffers.headers[i].msg_hdr;
            header.msg_name = buffers.names[i].pointer_mut().cast();
            header.msg_namelen = buffers.names[i].length();
            header.msg_iov = &mut buffers.vectors[i];
            header.msg_iovlen = 1;
            header.msg_control = buffers.controls[i].as_mut_ptr().cast();
            header.msg_controllen = size_of::<[u64; CONTROL_WORDS]>() as _;
            header.msg_flags = 0;
        }
        // SAFETY: the first at_once headers describe memory owned by self, which nothing else touches meanwhile.
        let count = check(unsafe {
            libc::recvmmsg(
                socket.fd.as_raw_fd(),
                buffers.headers.as_mut_ptr(),
                self.at_once as u32,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        })? as usize;
        let mut aggregated = false;
        for i in 0..count {
            let header = &buffers.headers[i];
            let length = (header.msg_len as usize).min(MESSAGE_SIZE);
            let Some(remote) = buffers.names[i].decode() else { continue };
            let mut received = Received {
                start: i * MESSAGE_SIZE,
                length,
                segment: length,
                path: Path { remote, local: None },
                // Without a word on the TTL it does not shorten the inner one.
                outer: Outer { tos: 0, ttl: u8::MAX },
            };
            read_control(&header.msg_hdr, &mut received);
            aggregated |= received.segment < length;
            if header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0 {
                out.push(received);
            }
        }
        // A single hot buffer stays in the cache; many are better when each datagram comes alone.
        self.at_once = if aggregated { 1 } else { MESSAGES };
        Ok(())
    }
}

fn read_control(header: &libc::msghdr, received: &mut Received) {
    // SAFETY: the kernel filled the control buffer; the CMSG macros stay within msg_controllen.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: at is null or points to a header inside the control buffer.
    while let Some(head) = unsafe { at.as_ref() } {
        // SAFETY: the data follows the header inside the buffer.
        let data = unsafe { libc::CMSG_DATA(at) };
        let length = head.cmsg_len - (data as usize - at as usize);
        // SAFETY: cmsg_len covers the data, which the kernel wrote.
        let data = unsafe { std::slice::from_raw_parts(data, length) };
        match (head.cmsg_level, head.cmsg_type) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                if let Some(size) = data.first_chunk::<4>() {
                    received.segment = (c_int::from_ne_bytes(*size).max(1) as usize).min(received.length.max(1));
                }
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => received.outer.tos = data.first().copied().unwrap_or(0),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                received.outer.tos = data.first_chunk::<4>().map_or(0, |v| c_int::from_ne_bytes(*v) as u8);
            }
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                received.outer.ttl = data.first_chunk::<4>().map_or(u8::MAX, |v| c_int::from_ne_bytes(*v) as u8);
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // ipi_spec_dst: the local address; ipi_addr could be a broadcast address.
                if let Some(octets) = data.get(4..8).and_then(|o| <[u8; 4]>::try_from(o).ok()) {
                    received.path.local = Some(IpAddr::from(octets));
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                if let Some(octets) = data.first_chunk::<16>() {
                    received.path.local = Some(IpAddr::from(*octets));
                }
            }
            _ => {}
        }
        // SAFETY: header and at are from the same message.
        at = unsafe { libc::CMSG_NXTHDR(header, at) };
    }
}

struct ControlWriter {
    space: [u64; CONTROL_WORDS],
    length: usize,
}

impl ControlWriter {
    fn new() -> ControlWriter {
        ControlWriter { space: [0; CONTROL_WORDS], length: 0 }
    }

    fn push(&mut self, level: c_int, name: c_int, data: &[u8]) {
        let head = size_of::<libc::cmsghdr>();
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
        let (space, length) =
            unsafe { (libc::CMSG_SPACE(data.len() as u32) as usize, libc::CMSG_LEN(data.len() as u32)) };
        debug_assert!(self.length + space <= size_of_val(&self.space));
        let header = libc::cmsghdr { cmsg_len: length as _, cmsg_level: level, cmsg_type: name };
        // SAFETY: the space was sized for the four messages a send can carry; cmsghdr is plain data, the buffer is
        // aligned to 8 and every CMSG_SPACE is a multiple of 8.
        unsafe {
            let at = self.space.as_mut_ptr().cast::<u8>().add(self.length);
            at.cast::<libc::cmsghdr>().write(header);
            std::ptr::copy_nonoverlapping(data.as_ptr(), at.add(head), data.len());
        }
        self.length += space;
    }
}

/// An aggregated datagram has at most 64 KiB.
const MESSAGE_SIZE: usize = 65_536;
const MESSAGES: usize = 16;
const CONTROL_WORDS: usize = 24;
const BUFFER: c_int = 8 << 20;
