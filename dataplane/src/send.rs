//! Sending the queue with as few system calls as the kernel allows: one for each address family, one message for each
//! batch, or for each datagram where UDP_SEGMENT does not work.

use std::ffi::c_int;
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::AsRawFd;

use crate::batch::{Batch, SendQueue, Target};
use crate::outer_header::{DEFAULT_TTL, Outer};
use crate::peer::Path;
use crate::sys::{RawAddress, check};
use crate::udp::{UdpSocket, is_lost_at_once};

/// Memory for the messages of a call.
pub struct Sender {
    messages: Vec<Message>,
    places: Vec<Range<usize>>,
    vectors: Vec<libc::iovec>,
    names: Vec<RawAddress>,
    controls: Vec<ControlWriter>,
    headers: Vec<libc::mmsghdr>,
}

pub struct Message {
    /// Which batch of the queue it is of.
    pub batch: usize,
    pub target: Target,
    pub segment: usize,
    /// How many datagrams.
    pub count: usize,
    places: Range<usize>,
}

impl Sender {
    pub fn new() -> Sender {
        Sender {
            messages: Vec::new(),
            places: Vec::new(),
            vectors: Vec::new(),
            names: Vec::new(),
            controls: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// Makes messages of the queue's batches for one address family, beginning with batch `from`.
    pub fn prepare(&mut self, queue: &SendQueue, v6: bool, segmentation: bool, from: usize) {
        self.messages.clear();
        self.places.clear();
        let batches = queue.batches().iter().enumerate().skip(from);
        let of_family = |batch: &Batch| batch.count > 0 && batch.target.path.remote.is_ipv6() == v6;
        for (at, batch) in batches.filter(|(_, batch)| of_family(batch)) {
            if segmentation || batch.count == 1 {
                self.add(at, batch, batch.count, batch.pieces.iter().cloned());
            } else {
                for datagram in batch.datagrams() {
                    self.add(at, batch, 1, std::iter::once(datagram));
                }
            }
        }
    }

    fn add(&mut self, at: usize, batch: &Batch, count: usize, places: impl Iterator<Item = Range<usize>>) {
        let start = self.places.len();
        self.places.extend(places);
        let places = start..self.places.len();
        self.messages.push(Message { batch: at, target: batch.target, segment: batch.segment, count, places });
    }

    pub fn message(&self, at: usize) -> Option<&Message> {
        self.messages.get(at)
    }

    /// Where the datagrams of a message are in the queue's buffer.
    pub fn places(&self, message: &Message) -> &[Range<usize>] {
        &self.places[message.places.clone()]
    }

    /// Sends from message `from` on with one call. Returns how many messages went; none with an error.
    pub fn send(&mut self, socket: &UdpSocket, octets: &[u8], from: usize) -> io::Result<usize> {
        let messages = &self.messages[from..self.messages.len().min(from + MAX_MESSAGES)];
        let Some((first, last)) = messages.first().zip(messages.last()) else { return Ok(0) };
        let first_place = first.places.start;
        self.vectors.clear();
        self.vectors.extend(self.places[first_place..last.places.end].iter().map(|place| {
            let piece = &octets[place.clone()];
            libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() }
        }));
        self.names.clear();
        self.names.extend(messages.iter().map(|message| RawAddress::from(message.target.path.remote)));
        self.controls.clear();
        self.controls.extend(messages.iter().map(|message| {
            let segment = (message.count > 1).then_some(message.segment as u16);
            ControlWriter::for_message(message.target.path, message.target.outer, segment)
        }));
        self.headers.clear();
        let parts = messages.iter().zip(&mut self.names).zip(&mut self.controls);
        self.headers.extend(parts.map(|((message, name), control)| {
            let vectors = &mut self.vectors[message.places.start - first_place..message.places.end - first_place];
            libc::mmsghdr { msg_hdr: message_header(name, vectors, control), msg_len: 0 }
        }));
        // SAFETY: the headers describe `octets` and memory of self that is not touched between their making and the
        // end of the call.
        let result = check(unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as u32,
                libc::MSG_DONTWAIT as _,
            )
        });
        match result {
            Err(error) if is_lost_at_once(&error) => Ok(1),
            result => result.map(|sent| sent as usize),
        }
    }
}

/// A header that points to what it is given, which has to live as long as it is used.
pub fn message_header(name: &mut RawAddress, vectors: &mut [libc::iovec], control: &mut ControlWriter) -> libc::msghdr {
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = name.pointer_mut().cast();
    header.msg_namelen = name.length();
    header.msg_iov = vectors.as_mut_ptr();
    header.msg_iovlen = vectors.len() as _;
    if control.length > 0 {
        header.msg_control = control.space.as_mut_ptr().cast();
        header.msg_controllen = control.length as _;
    }
    header
}

/// The control messages of one message.
pub struct ControlWriter {
    space: [u64; CONTROL_WORDS],
    length: usize,
}

impl ControlWriter {
    /// `segment`: the kernel is to cut the message into datagrams of so many octets.
    pub fn for_message(path: Path, outer: Outer, segment: Option<u16>) -> ControlWriter {
        let mut control = ControlWriter { space: [0; CONTROL_WORDS], length: 0 };
        let v6 = path.remote.is_ipv6();
        if let Some(segment) = segment {
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        let [tos, ttl] = match v6 {
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
            Some(IpAddr::V4(local)) if !v6 => {
                let mut info = [0; size_of::<libc::in_pktinfo>()];
                info[..4].copy_from_slice(&path.link.to_ne_bytes());
                info[4..8].copy_from_slice(&local.octets());
                control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(IpAddr::V6(local)) if v6 => {
                let mut info = [0; size_of::<libc::in6_pktinfo>()];
                info[..16].copy_from_slice(&local.octets());
                info[16..20].copy_from_slice(&path.link.to_ne_bytes());
                control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            _ => {}
        }
        control
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

/// What the kernel takes at once.
const MAX_MESSAGES: usize = 1024;
/// UDP_SEGMENT, the traffic class, the TTL and the packet information with their heads take 14.
const CONTROL_WORDS: usize = 16;
