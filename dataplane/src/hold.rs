//! Packets that wait for something: a mapping, a session, an interface. All bounded by count, bytes and age.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use crate::fast_hash::FastMap;
use crate::forwarding::Origin;
use crate::prefix::Prefix;
use crate::time::{Time, millis, seconds};

/// A frame in TUN format (vnet header and IP packet) and where it came from.
pub struct Held {
    pub frame: Box<[u8]>,
    pub since: Time,
    pub from: Origin,
}

impl Held {
    /// Whose sender nothing proves.
    fn is_plain(&self) -> bool {
        matches!(self.from, Origin::Rloc(_))
    }
}

#[derive(Default)]
pub struct HoldQueue {
    held: VecDeque<Held>,
    bytes: usize,
}

impl HoldQueue {
    /// False, and nothing kept, when the limits are reached.
    pub fn push(&mut self, held: Held, limit: Limit) -> bool {
        if self.held.len() >= limit.packets || self.bytes + held.frame.len() > limit.bytes {
            return false;
        }
        self.bytes += held.frame.len();
        self.held.push_back(held);
        true
    }

    pub fn pop(&mut self) -> Option<Held> {
        let held = self.held.pop_front()?;
        self.bytes -= held.frame.len();
        Some(held)
    }

    pub fn pop_older(&mut self, age: Duration, now: Time) -> Option<Held> {
        if now.since(self.held.front()?.since) < age {
            return None;
        }
        self.pop()
    }

    /// Of those that wait for a session; what was held for a workload before may be as old as that. `waited`: how long
    /// what came at a time has been waiting.
    pub fn pop_without_session(&mut self, waited: impl Fn(Time) -> Duration) -> Option<Held> {
        let Held { since, from, .. } = self.held.front()?;
        let lifetime = if *from == Origin::Host { SESSION_LIFETIME } else { INTERFACE_LIFETIME };
        if waited(*since) < lifetime { None } else { self.pop() }
    }

    pub fn len(&self) -> usize {
        self.held.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn append(&mut self, mut other: HoldQueue) {
        self.bytes += other.bytes;
        self.held.append(&mut other.held);
    }
}

#[derive(Clone, Copy)]
pub struct Limit {
    pub packets: usize,
    pub bytes: usize,
}

/// How much more the queues of peers and interfaces may hold together. What leaves them makes room when they are
/// measured, every EXPIRY_STEP.
pub struct Room {
    left: usize,
}

impl Room {
    pub fn new() -> Room {
        Room { left: ROOM }
    }

    /// False, and nothing kept, without room here or in the queue. Half of it is not for plain packets.
    pub fn push(&mut self, queue: &mut HoldQueue, held: Held, limit: Limit) -> bool {
        let size = held.frame.len();
        let reserved = if held.is_plain() { ROOM / 2 } else { 0 };
        let kept = size + reserved <= self.left && queue.push(held, limit);
        if kept {
            self.left -= size;
        }
        kept
    }

    pub fn measure<'a>(&mut self, queues: impl Iterator<Item = &'a HoldQueue>) {
        self.left = ROOM.saturating_sub(queues.map(HoldQueue::bytes).sum());
    }
}

/// What an EID's packets wait for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    /// No mapping of the destination.
    Destination,
    /// No mapping of the source.
    Source,
    /// The source's mapping names another peer; perhaps it is old.
    Conflict,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HoldKey {
    pub eid: IpAddr,
    pub why: Why,
}

/// Held packets by EID. Plain ones, of which anybody can make up any number, may take a quarter.
#[derive(Default)]
pub struct Holds {
    queues: FastMap<HoldKey, Waiting>,
    bytes: usize,
    plain_bytes: usize,
    /// Queues that a plain packet began.
    plain_eids: usize,
}

struct Waiting {
    queue: HoldQueue,
    plain_bytes: usize,
    began_plain: bool,
    started: Time,
    told: Time,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HoldResult {
    pub kept: bool,
    /// The agent is to be told (again).
    pub tell: bool,
}

impl Holds {
    pub fn hold(&mut self, key: HoldKey, held: Held, now: Time) -> HoldResult {
        let (size, plain) = (held.frame.len(), held.is_plain());
        let share = if plain { PLAIN_SHARE } else { 1 };
        let (bytes, eids) = if plain { (self.plain_bytes, self.plain_eids) } else { (self.bytes, self.queues.len()) };
        let fits = bytes + size <= TOTAL_BYTES / share && self.bytes + size <= TOTAL_BYTES;
        let is_room = eids < MAX_EIDS / share && self.queues.len() < MAX_EIDS;
        if !fits || (!is_room && !self.queues.contains_key(&key)) {
            return HoldResult { kept: false, tell: false };
        }
        let mut tell = false;
        let waiting = self.queues.entry(key).or_insert_with(|| {
            tell = true;
            self.plain_eids += usize::from(plain);
            Waiting { queue: HoldQueue::default(), plain_bytes: 0, began_plain: plain, started: now, told: now }
        });
        if now.since(waiting.told) >= seconds(1) {
            (tell, waiting.told) = (true, now);
        }
        let kept = waiting.queue.push(held, EID_LIMIT);
        if kept {
            self.bytes += size;
            let plain_size = if plain { size } else { 0 };
            self.plain_bytes += plain_size;
            waiting.plain_bytes += plain_size;
        }
        HoldResult { kept, tell }
    }

    /// Takes out everything whose EID is in `prefix`.
    pub fn release(&mut self, prefix: &Prefix) -> Vec<HoldQueue> {
        let keys: Vec<HoldKey> = if prefix.is_host() {
            [Why::Destination, Why::Source, Why::Conflict]
                .map(|why| HoldKey { eid: prefix.address, why })
                .into_iter()
                .filter(|key| self.queues.contains_key(key))
                .collect()
        } else {
            self.queues.keys().filter(|key| prefix.contains(key.eid)).copied().collect()
        };
        keys.iter().filter_map(|key| self.take(key)).collect()
    }

    pub fn expire(&mut self, now: Time) -> Vec<(HoldKey, HoldQueue)> {
        let due: Vec<HoldKey> =
            self.queues.iter().filter(|(key, w)| now.since(w.started) >= lifetime(key.why)).map(|(k, _)| *k).collect();
        due.into_iter().filter_map(|key| Some((key, self.take(&key)?))).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    pub fn packets(&self) -> usize {
        self.queues.values().map(|w| w.queue.len()).sum()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn take(&mut self, key: &HoldKey) -> Option<HoldQueue> {
        let waiting = self.queues.remove(key)?;
        self.bytes -= waiting.queue.bytes();
        self.plain_bytes -= waiting.plain_bytes;
        self.plain_eids -= usize::from(waiting.began_plain);
        Some(waiting.queue)
    }
}

fn lifetime(why: Why) -> Duration {
    match why {
        Why::Destination | Why::Source => seconds(3),
        Why::Conflict => seconds(1),
    }
}

/// How often the queues are looked through.
pub const EXPIRY_STEP: Duration = millis(100);
pub const SESSION_LIMIT: Limit = Limit { packets: 1024, bytes: 1 << 20 };
const SESSION_LIFETIME: Duration = seconds(3);
/// Of some EIDs whose new owner is to be spoken to for the first time.
pub const REDIRECT_LIMIT: Limit = Limit { packets: 4 * INTERFACE_LIMIT.packets, bytes: 4 * INTERFACE_LIMIT.bytes };
pub const INTERFACE_LIMIT: Limit = Limit { packets: 8192, bytes: 4 << 20 };
pub const INTERFACE_LIFETIME: Duration = seconds(5);
/// A workload that has just come speaks at its full rate, for the few round trips that its mappings take.
const EID_LIMIT: Limit = Limit { packets: 1024, bytes: 1 << 20 };
const TOTAL_BYTES: usize = 16 << 20;
const ROOM: usize = 64 << 20;
const MAX_EIDS: usize = 4096;
const PLAIN_SHARE: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::PeerId;

    fn held(size: usize, now: Time) -> Held {
        Held { frame: vec![0; size].into(), since: now, from: Origin::Host }
    }

    fn key(n: u32, why: Why) -> HoldKey {
        HoldKey { eid: IpAddr::from(n.to_be_bytes()), why }
    }

    #[test]
    fn bounded_per_eid_and_in_all() {
        let (mut holds, now) = (Holds::default(), Time::from_millis(1));
        for i in 0..EID_LIMIT.packets + 6 {
            let result = holds.hold(key(1, Why::Destination), held(100, now), now);
            assert_eq!(result, HoldResult { kept: i < EID_LIMIT.packets, tell: i == 0 });
        }
        assert!(!holds.hold(key(2, Why::Source), held(EID_LIMIT.bytes + 1, now), now).kept);
        for n in 0..10_000 {
            holds.hold(key(n + 10, Why::Destination), held(10, now), now);
        }
        assert!(holds.packets() <= EID_LIMIT.packets + MAX_EIDS);
        let mut holds = Holds::default();
        for n in 0..200 {
            holds.hold(key(n, Why::Destination), held(200 << 10, now), now);
        }
        assert!(holds.bytes() <= TOTAL_BYTES && holds.bytes() > TOTAL_BYTES - (256 << 10));
    }

    // Attack: plain packets from made-up EIDs, and large ones, as many as are held | 5000 and 200 | others are still held
    #[test]
    fn attack_plain_packets_that_wait_for_a_mapping() {
        let now = Time::from_millis(1);
        let plain = |size| Held { from: Origin::Rloc(IpAddr::from([192, 0, 2, 7])), ..held(size, now) };
        let mut holds = Holds::default();
        for (packets, size) in [(5000, 10), (200, 200 << 10)] {
            for n in 0..packets {
                holds.hold(key(n, Why::Source), plain(size), now);
            }
            assert!(holds.hold(key(9999, Why::Destination), held(1400, now), now).kept);
            assert!(holds.bytes() <= TOTAL_BYTES / PLAIN_SHARE + 2 * 1400);
        }
        holds.expire(Time::from_millis(60_000));
        assert_eq!((holds.bytes(), holds.plain_bytes, holds.plain_eids), (0, 0, 0));
        let (mut room, mut queues) = (Room::new(), [HoldQueue::default(), HoldQueue::default()]);
        let no_limit = Limit { packets: usize::MAX, bytes: usize::MAX };
        while room.push(&mut queues[0], plain(64 << 10), no_limit) {}
        assert!(room.push(&mut queues[1], held(1400, now), SESSION_LIMIT));
    }

    #[test]
    fn told_once_a_second_and_released() {
        let mut holds = Holds::default();
        let at = Time::from_millis;
        assert!(holds.hold(key(1, Why::Source), held(10, at(0)), at(0)).tell);
        assert!(!holds.hold(key(1, Why::Source), held(10, at(999)), at(999)).tell);
        assert!(holds.hold(key(1, Why::Source), held(10, at(1000)), at(1000)).tell);
        assert!(holds.hold(key(1, Why::Conflict), held(10, at(1000)), at(1000)).tell);
        let prefix = Prefix { address: IpAddr::from([0, 0, 0, 0]), length: 8 };
        assert_eq!(holds.release(&prefix).iter().map(HoldQueue::len).sum::<usize>(), 4);
        assert_eq!((holds.bytes(), holds.packets()), (0, 0));
    }

    #[test]
    fn what_was_redirected_waits_longer_for_a_session() {
        let mut queue = HoldQueue::default();
        let redirected = Held { from: Origin::Peer(PeerId(1)), ..held(10, Time::from_millis(0)) };
        assert!(queue.push(redirected, REDIRECT_LIMIT) && queue.push(held(10, Time::from_millis(0)), SESSION_LIMIT));
        let after = |ms| move |since| Time::from_millis(ms).since(since);
        assert!(queue.pop_without_session(after(4999)).is_none());
        assert!(queue.pop_without_session(after(5000)).is_some_and(|h| h.from != Origin::Host));
        assert!(queue.pop_without_session(after(5000)).is_some_and(|h| h.from == Origin::Host));
    }

    #[test]
    fn queues_together_are_bounded_and_what_leaves_makes_room() {
        let (mut room, now) = (Room::new(), Time::from_millis(1));
        let mut queues: Vec<HoldQueue> = (0..40).map(|_| HoldQueue::default()).collect();
        let mut kept = 0;
        for queue in &mut queues {
            while room.push(queue, held(64 << 10, now), INTERFACE_LIMIT) {
                kept += 64 << 10;
            }
        }
        assert_eq!(kept, ROOM);
        queues[0].pop();
        assert!(!room.push(&mut queues[30], held(64 << 10, now), INTERFACE_LIMIT));
        room.measure(queues.iter());
        assert!(room.push(&mut queues[30], held(64 << 10, now), INTERFACE_LIMIT));
    }

    #[test]
    fn expires() {
        let mut holds = Holds::default();
        let at = Time::from_millis;
        holds.hold(key(1, Why::Destination), held(10, at(0)), at(0));
        holds.hold(key(1, Why::Conflict), held(10, at(0)), at(0));
        assert!(holds.expire(at(900)).is_empty());
        assert_eq!(holds.expire(at(1000))[0].0.why, Why::Conflict);
        assert_eq!(holds.expire(at(3000)).len(), 1);
        assert!(holds.is_empty());
    }
}
