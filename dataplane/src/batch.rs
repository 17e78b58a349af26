//! The send buffer: sealed datagrams of equal size to one peer, sent with one call (UDP_SEGMENT).

use crate::outer_header::Outer;
use crate::peer::{Path, PeerId};

pub struct SendBatch {
    buffer: Box<[u8]>,
    length: usize,
    segment: usize,
    count: usize,
    /// A shorter datagram ends the batch.
    closed: bool,
    pub target: Option<Target>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub peer: PeerId,
    pub path: Path,
    pub outer: Outer,
}

impl SendBatch {
    pub fn new() -> SendBatch {
        SendBatch { buffer: vec![0; CAPACITY].into(), length: 0, segment: 0, count: 0, closed: false, target: None }
    }

    /// Stands in while the real one is being sent; nothing is put into it.
    pub fn empty() -> SendBatch {
        SendBatch { buffer: Box::default(), length: 0, segment: 0, count: 0, closed: false, target: None }
    }

    /// Whether a datagram of `size` may follow what is in here.
    #[inline]
    pub fn fits(&self, target: Target, size: usize) -> bool {
        self.target.is_none_or(|present| present == target)
            && !self.closed
            && self.count < MAX_SEGMENTS
            && self.length + size <= MAX_BYTES
            && (self.count == 0 || size <= self.segment)
    }

    /// Whether so many datagrams of `size` would fit.
    pub fn has_room(&self, count: usize, size: usize) -> bool {
        self.count + count <= MAX_SEGMENTS && self.length + count * size <= MAX_BYTES
    }

    /// Where the next datagram is to be written.
    #[inline]
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.buffer[self.length..]
    }

    #[inline]
    pub fn commit(&mut self, target: Target, size: usize) {
        if self.count == 0 {
            self.segment = size;
        }
        self.target = Some(target);
        self.closed = size < self.segment;
        self.count += 1;
        self.length += size;
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// The datagrams and their size.
    pub fn contents(&self) -> (&[u8], usize) {
        (&self.buffer[..self.length], self.segment)
    }

    pub fn clear(&mut self) {
        (self.length, self.segment, self.count, self.closed, self.target) = (0, 0, 0, false, None);
    }
}

/// Kernels before 6.9 take no more.
const MAX_SEGMENTS: usize = 64;
/// An IPv4 datagram takes 65507 octets.
pub const MAX_BYTES: usize = 65_000;
/// A single datagram may be longer than a batch, up to a whole IP packet and its overhead.
const CAPACITY: usize = 2 * 65_536 + 64;
