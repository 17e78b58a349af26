//! ICMP errors about the outer path, as the kernel keeps them in a UDP socket's error queue (ip(7), IP_RECVERR).

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use crate::engine::Engine;
use crate::stats::Counter;
use crate::sys::{RawAddress, check_size};
use crate::udp::UdpSocket;
use crate::wire::DATA_HEADER;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OuterError {
    /// Where the packet was to go.
    pub to: SocketAddr,
    pub problem: OuterProblem,
    /// How the packet's UDP payload began, if enough of it was quoted.
    pub quoted: Option<[u8; DATA_HEADER]>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OuterProblem {
    /// Routers before RFC 1191 say 0.
    TooBig {
        mtu: u32,
    },
    Unreachable,
    TimeExceeded,
}

impl Engine {
    /// Empties the error queues of a family's sockets, bounded. True when there was an ICMP error: then the last call on the socket
    /// may have failed for that, and not for what it was to send.
    pub(crate) fn read_outer_errors(&mut self, v6: bool) -> bool {
        let mut found = false;
        for _ in 0..ERRORS_AT_ONCE {
            let own = if v6 { &self.initiations6 } else { &self.initiations4 };
            let data = if v6 { &self.udp6 } else { &self.udp4 };
            let mut sockets = data.iter().chain(own.iter().map(|own| &own.socket));
            let Some(error) = sockets.find_map(|socket| next_error(socket).ok()) else { break };
            let Some(error) = error else { continue };
            found = true;
            if self.icmp.allow_outer(self.now) {
                self.tunnel.handle_outer_error(&error, self.now);
            } else {
                self.tunnel.stats.count(Counter::OuterIcmpIgnored);
            }
        }
        found
    }
}

/// The next ICMP error; `Ok(None)` for one of another origin. `WouldBlock` when there is none.
fn next_error(socket: &UdpSocket) -> io::Result<Option<OuterError>> {
    let mut quoted = [0u8; DATA_HEADER];
    let found = read_error(socket, &mut quoted)?;
    Ok(found.map(|(to, problem, length)| {
        let quoted = (length == DATA_HEADER).then_some(quoted);
        OuterError { to, problem, quoted }
    }))
}

/// As `next_error`: where the packet was to go, the problem, and how many octets of its UDP payload are in `quoted`.
pub(crate) fn read_error(
    socket: &UdpSocket,
    quoted: &mut [u8],
) -> io::Result<Option<(SocketAddr, OuterProblem, usize)>> {
    let mut name = RawAddress::empty();
    let mut control = [0u64; CONTROL_WORDS];
    let mut vector = libc::iovec { iov_base: quoted.as_mut_ptr().cast(), iov_len: quoted.len() };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = name.pointer_mut().cast();
    message.msg_namelen = name.length();
    message.msg_iov = &mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: every pointer in message refers to a local that lives through the call.
    let length = check_size(unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, flags) })?;
    // SAFETY: the kernel filled the control buffer; the macros stay within msg_controllen.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(&message) };
    let mut problem = None;
    // SAFETY: at is null or points to a header inside the control buffer.
    while let Some(head) = unsafe { at.as_ref() } {
        if matches!((head.cmsg_level, head.cmsg_type), (libc::IPPROTO_IP, libc::IP_RECVERR))
            || matches!((head.cmsg_level, head.cmsg_type), (libc::IPPROTO_IPV6, libc::IPV6_RECVERR))
        {
            // SAFETY: the data of such a message begins with this structure, which need not be aligned.
            let error = unsafe { libc::CMSG_DATA(at).cast::<libc::sock_extended_err>().read_unaligned() };
            problem = classify(error.ee_origin, error.ee_type, error.ee_code, error.ee_info);
        }
        // SAFETY: message and at belong together.
        at = unsafe { libc::CMSG_NXTHDR(&message, at) };
    }
    Ok(problem.zip(name.decode()).map(|(problem, to)| (to, problem, length)))
}

pub(crate) fn classify(origin: u8, kind: u8, code: u8, info: u32) -> Option<OuterProblem> {
    match (origin, kind, code) {
        (libc::SO_EE_ORIGIN_ICMP, 3, 4) | (libc::SO_EE_ORIGIN_ICMP6, 2, _) => Some(OuterProblem::TooBig { mtu: info }),
        (libc::SO_EE_ORIGIN_ICMP, 3, _) | (libc::SO_EE_ORIGIN_ICMP6, 1, _) => Some(OuterProblem::Unreachable),
        (libc::SO_EE_ORIGIN_ICMP, 11, _) | (libc::SO_EE_ORIGIN_ICMP6, 3, _) => Some(OuterProblem::TimeExceeded),
        (libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6, _, _) => Some(OuterProblem::Unreachable),
        _ => None,
    }
}

const ERRORS_AT_ONCE: usize = 64;
/// The error with the address of who found it, and what the socket wants to be told of each packet.
const CONTROL_WORDS: usize = 32;
