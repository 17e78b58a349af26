//! What is about to be sent: sealed datagrams, in batches of equal size to one peer that can go as one message each
//! (UDP_SEGMENT); all batches go with one system call.
//!
//! The datagrams lie one behind the other in one hot buffer, those of a batch not always side by side. Per peer they
//! leave in the order in which they were put in: only the peer's last batch takes more.

use std::ops::Range;

use crate::outer_header::Outer;
use crate::peer::{Path, PeerId};

pub struct SendQueue {
    buffer: Box<[u8]>,
    length: usize,
    batches: Vec<Batch>,
    /// So many of `batches` are in use; the others are kept for their memory.
    used: usize,
    /// The batch that takes the datagram for which room was made last.
    open: usize,
}

pub struct Batch {
    pub target: Target,
    /// Size of each datagram; the last may be shorter.
    pub segment: usize,
    /// How many datagrams.
    pub count: usize,
    /// Where they are in the queue's buffer; neighbours are one piece.
    pub pieces: Vec<Range<usize>>,
    closed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub peer: PeerId,
    pub path: Path,
    pub outer: Outer,
    /// Whether it matters what fits the path: not for agents' few words, of which a thousand peers may get one each.
    pub searches: bool,
}

impl SendQueue {
    pub fn new() -> SendQueue {
        SendQueue { buffer: vec![0; CAPACITY].into(), length: 0, batches: Vec::new(), used: 0, open: 0 }
    }

    /// Stands in while the real one is being sent; nothing is put into it.
    pub fn empty() -> SendQueue {
        SendQueue { buffer: Box::default(), length: 0, batches: Vec::new(), used: 0, open: 0 }
    }

    /// Chooses the batch for the next datagram, of `size` octets. False when the queue has to be sent first.
    #[inline]
    pub fn make_room(&mut self, target: Target, size: usize) -> bool {
        if self.used > 0 && self.length + size > MAX_BYTES {
            return false;
        }
        match self.last_of(target.peer) {
            Some(at) if self.batches[at].takes(target, size) => self.open = at,
            _ if self.used == MAX_BATCHES => return false,
            _ => self.begin(target, size),
        }
        true
    }

    /// As `make_room` for `count` datagrams of `size` octets that shall arrive in one piece, to be written as one.
    pub fn make_room_for_all(&mut self, target: Target, count: usize, size: usize) -> bool {
        if self.used > 0 && self.length + count * size > MAX_BYTES {
            return false;
        }
        if let Some(at) = self.last_of(target.peer) {
            let batch = &mut self.batches[at];
            batch.closed |= batch.segment != size || batch.count + count > MAX_SEGMENTS;
        }
        true
    }

    /// Where the next datagram is to be written.
    #[inline]
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.buffer[self.length..]
    }

    /// Takes what was written to `space`, after `make_room` for it.
    #[inline]
    pub fn commit(&mut self, size: usize) {
        let end = self.length + size;
        let batch = &mut self.batches[self.open];
        match batch.pieces.last_mut() {
            Some(piece) if piece.end == self.length => piece.end = end,
            _ => batch.pieces.push(self.length..end),
        }
        batch.closed = size < batch.segment;
        batch.count += 1;
        self.length = end;
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// What is here is worth a call of its own.
    pub fn is_large(&self) -> bool {
        self.length >= MAX_BYTES / 2
    }

    pub fn octets(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    pub fn batches(&self) -> &[Batch] {
        &self.batches[..self.used]
    }

    pub fn clear(&mut self) {
        (self.length, self.used, self.open) = (0, 0, 0);
    }

    #[inline]
    fn last_of(&self, peer: PeerId) -> Option<usize> {
        self.batches[..self.used].iter().rposition(|batch| batch.target.peer == peer)
    }

    fn begin(&mut self, target: Target, segment: usize) {
        match self.batches.get_mut(self.used) {
            Some(batch) => {
                (batch.target, batch.segment, batch.count, batch.closed) = (target, segment, 0, false);
                batch.pieces.clear();
            }
            None => self.batches.push(Batch { target, segment, count: 0, pieces: Vec::new(), closed: false }),
        }
        self.open = self.used;
        self.used += 1;
    }
}

impl Batch {
    #[inline]
    fn takes(&self, target: Target, size: usize) -> bool {
        !self.closed
            && size <= self.segment
            && self.count < MAX_SEGMENTS
            && self.pieces.len() < MAX_PIECES
            && self.target == target
    }

    /// Each datagram's place.
    pub fn datagrams(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let segment = self.segment.max(1);
        self.pieces.iter().flat_map(move |piece| {
            piece.clone().step_by(segment).map(move |start| start..(start + segment).min(piece.end))
        })
    }
}

/// Kernels before 6.9 take no more.
const MAX_SEGMENTS: usize = 64;
const MAX_BATCHES: usize = 64;
/// An IPv4 datagram takes 65507 octets.
pub const MAX_BYTES: usize = 65_000;
/// A single datagram may be longer than a batch, up to a whole IP packet and its overhead.
const CAPACITY: usize = 2 * 65_536 + 64;
/// As many as there may be datagrams.
pub const MAX_PIECES: usize = MAX_SEGMENTS;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outer_header::Outer;

    fn target(peer: u32, tos: u8) -> Target {
        let remote = std::net::SocketAddr::from(([192, 0, 2, peer as u8], 4341));
        Target { peer: PeerId(peer), path: Path::to(remote), outer: Outer { tos, ttl: 64 }, searches: true }
    }

    fn put(queue: &mut SendQueue, target: Target, fill: u8, size: usize) {
        assert!(queue.make_room(target, size));
        queue.space()[..size].fill(fill);
        queue.commit(size);
    }

    /// For each batch its peer and the first octet and the size of its datagrams.
    fn contents(queue: &SendQueue) -> Vec<(u32, Vec<(u8, usize)>)> {
        let datagrams = |batch: &Batch| {
            let all: Vec<_> = batch.datagrams().map(|place| (queue.octets()[place.start], place.len())).collect();
            assert_eq!(all.len(), batch.count);
            (batch.target.peer.0, all)
        };
        queue.batches().iter().map(datagrams).collect()
    }

    #[test]
    fn flows_to_many_peers_share_a_call() {
        let mut queue = SendQueue::new();
        for n in 0..3 {
            for peer in 1..=4 {
                put(&mut queue, target(peer, 0), n, 96);
            }
        }
        let wanted: Vec<_> = (1..=4).map(|peer| (peer, vec![(0, 96), (1, 96), (2, 96)])).collect();
        assert_eq!(contents(&queue), wanted);
        queue.clear();
        assert!(queue.is_empty() && queue.batches().is_empty());
    }

    #[test]
    fn the_order_to_a_peer_is_kept() {
        let mut queue = SendQueue::new();
        for (n, (size, tos)) in [(500, 0), (100, 0), (500, 0), (600, 0), (600, 2), (600, 0)].into_iter().enumerate() {
            put(&mut queue, target(1, tos), n as u8, size);
        }
        let wanted = [vec![(0, 500), (1, 100)], vec![(2, 500)], vec![(3, 600)], vec![(4, 600)], vec![(5, 600)]];
        assert_eq!(contents(&queue), wanted.map(|datagrams| (1, datagrams)));
    }

    #[test]
    fn a_superpacket_stays_in_one_message() {
        let mut queue = SendQueue::new();
        for n in 0..30 {
            put(&mut queue, target(1, 0), n, 1000);
        }
        assert!(!queue.make_room_for_all(target(1, 0), 40, 1000), "does not fit the buffer");
        assert!(queue.make_room_for_all(target(1, 0), 20, 900));
        put(&mut queue, target(1, 0), 77, 900);
        assert_eq!(queue.batches().len(), 2);
        queue.clear();
        for n in 0..40 {
            put(&mut queue, target(1, 0), n, 100);
        }
        assert!(queue.make_room_for_all(target(1, 0), 30, 100));
        put(&mut queue, target(1, 0), 77, 100);
        assert_eq!(queue.batches().iter().map(|batch| batch.count).collect::<Vec<_>>(), [40, 1]);
    }

    #[test]
    fn bounds() {
        let mut queue = SendQueue::new();
        for _ in 0..MAX_SEGMENTS + 1 {
            put(&mut queue, target(1, 0), 0, 50);
        }
        assert_eq!(queue.batches().iter().map(|batch| batch.count).collect::<Vec<_>>(), [MAX_SEGMENTS, 1]);
        queue.clear();
        for peer in 0..MAX_BATCHES as u32 {
            put(&mut queue, target(peer, 0), 0, 50);
        }
        assert!(!queue.make_room(target(1000, 0), 50) && queue.make_room(target(3, 0), 50));
        queue.clear();
        put(&mut queue, target(1, 0), 0, MAX_BYTES + 500);
        assert!(!queue.make_room(target(1, 0), 50));
    }
}
