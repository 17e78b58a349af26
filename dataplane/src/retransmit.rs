//! What was sent to a peer lately, as it was sent: sealed datagrams that can go out again when a roam has lost them.
//!
//! Each peer has a `Ring` in chunks of a common `Pool`. A ring is bounded by octets, by age and by the receiver's
//! replay window, the pool by octets. Chunks are allocated when traffic needs them and given back when it ends.
//! Copying costs, so traffic that would run through the ring before a roam is noticed is not kept: see `Gate`.
//! A datagram goes out again at most once for each report of the peer (see `tunnel/recovery.rs`), and the replay
//! window of the receiver makes it arrive once.

use std::collections::VecDeque;
use std::time::Duration;

use crate::replay::WINDOW;
use crate::time::{Time, millis, seconds};
use crate::wire::DATA_OVERHEAD;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Octets kept for each peer; 0 keeps nothing.
    pub bytes: usize,
    pub age: Duration,
    /// Octets kept for all peers together.
    pub total: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bytes: 8 << 20, age: seconds(2), total: 64 << 20 }
    }
}

pub struct Pool {
    pub limits: Limits,
    free: Vec<Chunk>,
    in_use: usize,
}

type Chunk = Box<[u8]>;

impl Pool {
    pub fn new(limits: Limits) -> Pool {
        Pool { limits, free: Vec::new(), in_use: 0 }
    }

    pub fn is_enabled(&self) -> bool {
        self.limits.bytes > 0
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.in_use * CHUNK
    }

    pub fn keeps_memory(&self) -> bool {
        self.in_use > 0 || !self.free.is_empty()
    }

    fn take(&mut self) -> Option<Chunk> {
        if (self.in_use + 1) * CHUNK > self.limits.total {
            return None;
        }
        self.in_use += 1;
        Some(self.free.pop().unwrap_or_else(|| vec![0; CHUNK].into()))
    }

    fn put(&mut self, chunk: Chunk) {
        self.in_use -= 1;
        self.free.push(chunk);
    }

    /// Frees some of what is not in use. True when that was the last of all.
    pub fn shrink(&mut self) -> bool {
        let before = self.free.len();
        self.free.truncate(before / 2);
        before > 0 && self.free.is_empty() && self.in_use == 0
    }
}

/// One datagram in the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept {
    /// The receiver's session index and the counter, as the datagram says them.
    pub index: u32,
    pub counter: u64,
    /// Which of the peer's endpoints it was sent to last, and when.
    pub epoch: u32,
    pub sent: Time,
    since: Time,
    chunk: u64,
    offset: u32,
    length: u32,
}

#[derive(Default)]
pub struct Ring {
    kept: VecDeque<Kept>,
    /// Number of `kept[0]`, counted since the ring was made.
    first: u64,
    chunks: VecDeque<Chunk>,
    first_chunk: u64,
    /// Octets used of the last chunk.
    used: usize,
}

impl Ring {
    /// Keeps a copy of a datagram. Returns how many were lost to the bounds by that, perhaps this one.
    #[inline]
    pub fn push(&mut self, pool: &mut Pool, datagram: &[u8], epoch: u32, now: Time) -> u64 {
        let length = datagram.len();
        let mut lost = 0;
        let Some(head) = datagram.first_chunk::<16>().filter(|_| (DATA_OVERHEAD..=CHUNK).contains(&length)) else {
            return 1;
        };
        if self.kept.len() as u64 >= WINDOW {
            self.pop(pool);
            lost += 1;
        }
        if self.chunks.is_empty() || self.used + length > CHUNK {
            let full = (self.chunks.len() + 1) * CHUNK > pool.limits.bytes.max(CHUNK);
            let fresh = match if full { None } else { pool.take() } {
                Some(chunk) => chunk,
                None => {
                    lost += self.lose_first_chunk();
                    match self.chunks.pop_front() {
                        Some(chunk) => {
                            self.first_chunk += 1;
                            chunk
                        }
                        None => return lost + 1,
                    }
                }
            };
            self.chunks.push_back(fresh);
            self.used = 0;
        }
        let chunk = self.first_chunk + self.chunks.len() as u64 - 1;
        let Some(space) = self.chunks.back_mut() else { return lost + 1 };
        space[self.used..self.used + length].copy_from_slice(datagram);
        let [_, i0, i1, i2, _, _, _, _, c0, c1, c2, c3, c4, c5, c6, c7] = *head;
        self.kept.push_back(Kept {
            index: u32::from_be_bytes([0, i0, i1, i2]),
            counter: u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]),
            epoch,
            sent: now,
            since: now,
            chunk,
            offset: self.used as u32,
            length: length as u32,
        });
        self.used += length;
        lost
    }

    pub fn expire(&mut self, pool: &mut Pool, now: Time) {
        while self.kept.front().is_some_and(|kept| now.since(kept.since) > pool.limits.age) {
            self.pop(pool);
        }
    }

    pub fn clear(&mut self, pool: &mut Pool) {
        self.first += self.kept.len() as u64;
        self.kept = VecDeque::new();
        self.free_chunks(pool);
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// All that is kept, each with its number.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Kept)> {
        (self.first..).zip(&self.kept)
    }

    pub fn get(&self, number: u64) -> Option<(&Kept, &[u8])> {
        let kept = self.kept.get(usize::try_from(number.checked_sub(self.first)?).ok()?)?;
        let chunk = self.chunks.get((kept.chunk - self.first_chunk) as usize)?;
        Some((kept, chunk.get(kept.offset as usize..(kept.offset + kept.length) as usize)?))
    }

    /// The number that the next one gets.
    pub fn next_number(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    pub fn sent_again(&mut self, number: u64, epoch: u32, now: Time) {
        if let Some(kept) = number.checked_sub(self.first).and_then(|at| self.kept.get_mut(at as usize)) {
            (kept.epoch, kept.sent) = (epoch, now);
        }
    }

    fn pop(&mut self, pool: &mut Pool) {
        if self.kept.pop_front().is_some() {
            self.first += 1;
        }
        self.free_chunks(pool);
    }

    fn free_chunks(&mut self, pool: &mut Pool) {
        let needed = self.kept.front().map(|kept| kept.chunk);
        while needed.is_none_or(|needed| self.first_chunk < needed)
            && let Some(chunk) = self.chunks.pop_front()
        {
            pool.put(chunk);
            self.first_chunk += 1;
        }
    }

    fn lose_first_chunk(&mut self) -> u64 {
        let before = self.kept.len();
        while self.kept.front().is_some_and(|kept| kept.chunk == self.first_chunk) {
            self.kept.pop_front();
        }
        let lost = (before - self.kept.len()) as u64;
        self.first += lost;
        lost
    }
}

/// Closed while the peer's traffic would fill its ring in less than `MINIMUM_HISTORY`: what is missing after a roam
/// would not be in the ring any more, and keeping it would cost a tenth of the throughput.
pub struct Gate {
    open: bool,
    since: Time,
    bytes: usize,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate { open: true, since: Time::default(), bytes: 0 }
    }
}

impl Gate {
    #[inline]
    pub fn admits(&mut self, bytes: usize, limits: &Limits, now: Time) -> bool {
        let elapsed = now.since(self.since);
        if elapsed >= if self.open { GATE_STEP } else { GATE_CLOSED } {
            self.open = self.bytes as u128 * MINIMUM_HISTORY.as_nanos() <= limits.bytes as u128 * elapsed.as_nanos();
            (self.since, self.bytes) = (now, 0);
        }
        self.bytes += bytes;
        self.open
    }
}

/// Numbers of kept datagrams that go out again, a few at a time.
#[derive(Default)]
pub struct Resending {
    pub queue: VecDeque<u64>,
    pub next: Option<Time>,
    budget_since: Time,
    budget_used: usize,
}

impl Resending {
    /// A peer that reports again and again gets no more than is kept for it at once, in the time it is kept.
    pub fn spend(&mut self, bytes: usize, limits: &Limits, now: Time) -> bool {
        if now.since(self.budget_since) >= limits.age {
            (self.budget_since, self.budget_used) = (now, 0);
        }
        self.budget_used += bytes;
        self.budget_used <= limits.bytes.max(CHUNK)
    }
}

const CHUNK: usize = 32 << 10;
const GATE_STEP: Duration = millis(10);
/// A short pause in fast traffic does not open it.
const GATE_CLOSED: Duration = millis(50);
/// A ring of 8 MiB takes traffic of 1 Gbit/s for so long.
const MINIMUM_HISTORY: Duration = millis(64);
pub const RESEND_STEP: Duration = millis(1);
/// At 1 ms a step some 200 Mbit/s: more would queue before a slower path and delay what is sent now.
pub const RESEND_AT_ONCE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(counter: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![counter as u8; length];
        bytes[..8].copy_from_slice(&[0x89, 0, 0, 5, 0, 0, 7, 0]);
        bytes[8..16].copy_from_slice(&counter.to_be_bytes());
        bytes
    }

    fn pool(bytes: usize, total: usize) -> Pool {
        Pool::new(Limits { bytes, age: seconds(2), total })
    }

    #[test]
    fn what_is_kept_comes_back_as_it_was() {
        let (mut pool, mut ring) = (pool(1 << 20, 1 << 20), Ring::default());
        for counter in 0..200 {
            assert_eq!(ring.push(&mut pool, &datagram(counter, 100 + counter as usize * 7), 1, Time::default()), 0);
        }
        for (number, kept) in ring.iter() {
            assert_eq!((kept.counter, kept.index, kept.epoch), (number, 5, 1));
            assert_eq!(ring.get(number).unwrap().1, datagram(number, 100 + number as usize * 7));
        }
        assert_eq!(ring.get(200), None);
        assert_eq!(ring.push(&mut pool, &[0; 20], 1, Time::default()), 1);
        assert_eq!(ring.push(&mut pool, &vec![0; CHUNK + 1], 1, Time::default()), 1);
    }

    #[test]
    fn bounded_by_octets_window_and_pool() {
        let (mut all, mut ring) = (pool(4 * CHUNK, 1 << 20), Ring::default());
        let lost: u64 = (0..1000).map(|c| ring.push(&mut all, &datagram(c, 1000), 1, Time::default())).sum();
        assert_eq!(ring.iter().count() as u64 + lost, 1000);
        assert!(all.bytes() == 4 * CHUNK && ring.iter().count() > 3 * (CHUNK / 1000));
        let oldest = ring.iter().next().unwrap().0;
        assert!(ring.get(oldest - 1).is_none());
        assert_eq!(ring.get(oldest).unwrap().1, datagram(oldest, 1000));

        let (mut all, mut ring) = (pool(8 << 20, 64 << 20), Ring::default());
        let lost: u64 = (0..10_000).map(|c| ring.push(&mut all, &datagram(c, 50), 1, Time::default())).sum();
        assert_eq!((ring.iter().count() as u64, lost), (WINDOW, 10_000 - WINDOW));

        let mut all = pool(8 << 20, 8 * CHUNK);
        let mut rings: Vec<Ring> = (0..20).map(|_| Ring::default()).collect();
        let mut lost = 0;
        for (n, ring) in rings.iter_mut().enumerate() {
            lost += ring.push(&mut all, &datagram(n as u64, 1000), 1, Time::default());
        }
        assert_eq!((all.bytes(), lost), (8 * CHUNK, 12));
        for ring in &mut rings {
            ring.clear(&mut all);
        }
        assert_eq!((all.bytes(), all.in_use), (0, 0));
    }

    #[test]
    fn age_gives_everything_back() {
        let (mut all, mut ring) = (pool(8 << 20, 64 << 20), Ring::default());
        let at = Time::from_millis;
        for counter in 0..3000 {
            ring.push(&mut all, &datagram(counter, 1400), 1, at(counter));
            ring.expire(&mut all, at(counter));
        }
        assert_eq!(ring.iter().count(), 2001);
        ring.expire(&mut all, at(4000));
        assert_eq!(ring.iter().next().unwrap().1.counter, 2000);
        ring.expire(&mut all, at(6000));
        assert!(ring.is_empty() && all.bytes() == 0 && !all.free.is_empty());
        let shrunk = (0..20).filter(|_| all.shrink()).count();
        assert_eq!((shrunk, all.free.len()), (1, 0));
        assert_eq!(ring.push(&mut all, &datagram(1, 100), 1, at(7000)), 0);
        assert_eq!(ring.iter().map(|(n, k)| (n, k.counter)).collect::<Vec<_>>(), [(3000, 1)]);
    }

    #[test]
    fn the_gate_closes_above_a_gigabit_and_opens_again() {
        let (limits, mut gate) = (Limits::default(), Gate::default());
        let megabyte_per_ms = |gate: &mut Gate, from: u64| {
            (from..from + 30).map(|ms| gate.admits(1 << 20, &limits, Time::from_millis(ms))).collect::<Vec<_>>()
        };
        let admitted = megabyte_per_ms(&mut gate, 1000);
        assert_eq!((admitted[..10].contains(&false), admitted[10..].contains(&true)), (false, false));
        for ms in 1030..1200 {
            let open = gate.admits(1 << 17, &limits, Time::from_millis(ms));
            assert!(if ms < 1050 { !open } else { open || ms < 1110 }, "{ms}");
        }
        assert!(megabyte_per_ms(&mut gate, 2000)[10..].iter().all(|open| !open));
    }

    #[test]
    fn resending_has_a_budget() {
        let (limits, mut resending) = (Limits { bytes: CHUNK, ..Limits::default() }, Resending::default());
        let at = Time::from_millis;
        assert!(resending.spend(CHUNK, &limits, at(5000)) && !resending.spend(1, &limits, at(6999)));
        assert!(resending.spend(1, &limits, at(7000)));
    }
}
