//! Receiving: messages of one or, with UDP_GRO, many datagrams; several messages with one call.

use std::ffi::c_int;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use crate::outer_header::Outer;
use crate::peer::Path;
use crate::sys::{RawAddress, check};
use crate::udp::UdpSocket;

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

/// Buffers of the receive path: a few hot ones while the kernel aggregates, else many.
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
        Receiver { arena: vec![0; MESSAGES * STRIDE], buffers: Some(buffers), at_once: MESSAGES }
    }

    /// Stands in while the real one is in use.
    pub fn empty() -> Receiver {
        Receiver { buffers: None, arena: Vec::new(), at_once: 0 }
    }

    /// Fills `out` with what has arrived; false when that was all. `WouldBlock` when there was nothing.
    pub fn receive(&mut self, socket: &UdpSocket, out: &mut Vec<Received>) -> io::Result<bool> {
        out.clear();
        let Some(buffers) = self.buffers.as_deref_mut() else { return Ok(false) };
        let base = self.arena.as_mut_ptr();
        for i in 0..self.at_once {
            // SAFETY: i < MESSAGES, so the offset is within the arena.
            let start = unsafe { base.add(i * STRIDE) };
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
                socket.as_raw_fd(),
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
            let mut received =
                Received { start: i * STRIDE, length, segment: length, path: Path::to(remote), outer: UNKNOWN };
            read_control(&header.msg_hdr, &mut received);
            aggregated |= received.segment < length;
            if header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0 {
                out.push(received);
            }
        }
        let full = count == self.at_once;
        // Few buffers stay in the cache; many are better when each datagram comes alone.
        self.at_once = if aggregated { AGGREGATED_MESSAGES } else { MESSAGES };
        Ok(full)
    }
}

pub fn read_control(header: &libc::msghdr, received: &mut Received) {
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
                if let Some([a, b, c, d, octets @ ..]) = data.first_chunk::<8>() {
                    received.path.link = u32::from_ne_bytes([*a, *b, *c, *d]);
                    received.path.local = Some(IpAddr::from(*octets));
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                if let Some([octets @ .., a, b, c, d]) = data.first_chunk::<20>() {
                    received.path.link = u32::from_ne_bytes([*a, *b, *c, *d]);
                    received.path.local = Some(IpAddr::from(*octets));
                }
            }
            _ => {}
        }
        // SAFETY: header and at are from the same message.
        at = unsafe { libc::CMSG_NXTHDR(header, at) };
    }
}

/// Without a word on the TTL it does not shorten the inner one.
pub const UNKNOWN: Outer = Outer { tos: 0, ttl: u8::MAX };
/// An aggregated datagram has at most 64 KiB.
const MESSAGE_SIZE: usize = 65_536;
const MESSAGES: usize = 32;
/// More than one, so that a call tells that it took all.
const AGGREGATED_MESSAGES: usize = 2;
/// From buffer to buffer: the starts of short messages fall into different sets of the CPU's caches.
const STRIDE: usize = MESSAGE_SIZE + 2112;
const CONTROL_WORDS: usize = 24;
