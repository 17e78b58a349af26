//! The machine is about to sleep. Whoever reads its memory then, or an image of it on disk, is to find no session's keys,
//! and a machine that is woken twice from one image must not count on from the same keys.
//!
//! So all sessions are forgotten, and none is made until the machine is awake: until somebody says so, the clocks do, or
//! `LONGEST` is over, as when the sleep was called off. Then those are spoken to who had a session, or whom something
//! waits for. They hear that the former sessions are lost, and send again the last that was sent in them.

use std::time::Duration;

use super::Tunnel;
use crate::peer::Peer;
use crate::stats::Counter;
use crate::time::{Time, seconds};
use crate::wiping::wipe_stack;
use crate::wire::Control;

#[derive(Default)]
pub struct Sleep {
    asleep: Option<Asleep>,
    /// The last one, from and to.
    over: Option<(Time, Time)>,
}

struct Asleep {
    since: Time,
    until: Time,
    /// The clock at `since`, in seconds since 1970.
    wall_seconds: u64,
}

impl Sleep {
    pub fn next_timeout(&self) -> Time {
        self.asleep.as_ref().map_or(Time::NEVER, |asleep| asleep.until)
    }

    /// All have been spoken to for that.
    pub(super) fn is_just_over(&self, now: Time) -> bool {
        self.over.is_some_and(|(_, woken)| now.since(woken) < JUST_OVER)
    }

    /// Seconds since 1970, if it has not ended before.
    pub(super) fn end(&mut self, now: Time) -> Option<u64> {
        let Asleep { since, wall_seconds, .. } = self.asleep.take()?;
        self.over = Some((since, now));
        Some(wall_seconds + now.since(since).as_secs())
    }
}

impl Tunnel {
    /// Returns how many sessions there were. `wall_seconds` since 1970.
    pub fn fall_asleep(&mut self, wall_seconds: u64, now: Time) -> usize {
        let until = now + LONGEST;
        if let Some(asleep) = self.sleep.asleep.as_mut() {
            asleep.until = until;
            return 0;
        }
        self.stats.count(Counter::Sleeps);
        let up: Vec<_> = self.peers().filter(|(_, peer)| peer.is_up(now)).map(|(id, _)| id).collect();
        // A peer sends again what it sent since it heard this host last, so that is to be now.
        for id in &up {
            let Some(peer) = self.peer(*id) else { continue };
            let keeps = peer.data_received.is_some_and(|at| now.since(at) <= self.pool.limits.age);
            if let Some(path) = peer.endpoint.filter(|_| keeps) {
                self.send_control(*id, path, &Control::Keepalive.bytes(), now);
            }
        }
        self.forget_all();
        for peer in self.peers.iter_mut().flatten() {
            peer.known = false;
        }
        wipe_stack();
        self.sleep.asleep = Some(Asleep { since: now, until, wall_seconds });
        up.len()
    }

    /// The machine is awake. False if it was not known to sleep.
    pub fn wake(&mut self, now: Time) -> bool {
        let Some(wall_seconds) = self.sleep.end(now) else { return false };
        // One that is woken from the same image once more is woken later.
        self.raise_epoch(wall_seconds);
        self.greet_forgotten(now);
        true
    }

    /// To `wall_seconds` since 1970. Perhaps this is a copy, which begins with the time of its original.
    pub fn clock_put_ahead(&mut self, wall_seconds: u64, now: Time) {
        if let Some(asleep) = self.sleep.asleep.as_mut() {
            // There is no session that could be another machine's as well, but the next ones are of a later time.
            asleep.wall_seconds = wall_seconds.saturating_sub(now.since(asleep.since).as_secs());
            return;
        }
        // In this order: `resumed` would begin a handshake anew.
        self.resumed(now);
        self.renew_sessions(wall_seconds, now);
    }

    pub fn is_asleep(&self) -> bool {
        self.sleep.asleep.is_some()
    }

    /// How much of the time from `since` until now was not slept.
    pub fn awake_since(&self, since: Time, now: Time) -> Duration {
        let (from, to) = match (&self.sleep.asleep, self.sleep.over) {
            (Some(asleep), _) => (asleep.since, now),
            (None, Some(over)) => over,
            (None, None) => return now.since(since),
        };
        now.since(since) - to.min(now).since(from.max(since))
    }

    /// The keys of all sessions, and of handshakes; not with whom they were.
    pub(super) fn forget_all(&mut self) {
        for id in std::mem::take(&mut self.greetings).into_waiting() {
            if let Some(peer) = self.peer_mut(id) {
                peer.greet_later = true;
            }
        }
        let had_session = |peer: &Peer| peer.current.is_some() || !peer.pending.is_empty() || peer.handshake.is_some();
        for peer in self.peers.iter_mut().flatten() {
            peer.greet_later |= had_session(peer);
        }
        self.drop_sessions();
    }

    pub(super) fn greet_forgotten(&mut self, now: Time) {
        let ids = self.peers().filter(|(_, peer)| peer.greet_later).map(|(id, _)| id).collect();
        for peer in self.peers.iter_mut().flatten() {
            peer.greet_later = false;
        }
        self.greet_in_turn(ids, now);
    }

    /// Larger than it was, and at least `wall_seconds`.
    pub(super) fn raise_epoch(&mut self, wall_seconds: u64) {
        self.epoch = (self.epoch + 1).max(wall_seconds);
    }
}

/// Between the word that the machine will sleep and the sleep others make themselves ready as well.
pub const LONGEST: Duration = seconds(30);
/// The clocks, and whoever says so, tell of a waking at about the same time.
const JUST_OVER: Duration = seconds(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::PeerId;
    use crate::time::millis;
    use crate::tunnel::simulation::World;

    const WALL: u64 = 1_900_000_000;

    fn up() -> World {
        let mut world = World::pair();
        world.send(0, 1);
        world.run(millis(30));
        assert!(world.is_up(0) && world.is_up(1) && world.send(0, 1) && world.send(1, 0));
        world.run(millis(30));
        world
    }

    fn fall_asleep(world: &mut World) -> usize {
        world.nodes[0].tunnel.fall_asleep(WALL, world.now)
    }

    fn wake(world: &mut World) -> bool {
        world.nodes[0].tunnel.wake(world.now)
    }

    #[test]
    fn a_sleeping_host_has_no_keys_and_makes_none_until_it_is_awake() {
        let mut world = up();
        let initiated = world.count(0, Counter::HandshakesInitiated);
        assert_eq!((fall_asleep(&mut world), fall_asleep(&mut world)), (1, 0));
        for _ in 0..25 {
            assert!(!world.send(0, 1));
            world.send(1, 0);
            world.run(seconds(1));
            let peer = world.peer(0);
            assert!(peer.current.is_none() && peer.previous.is_none() && peer.pending.is_empty());
            assert!(peer.handshake.is_none() && peer.recovery.ring.is_empty());
            assert!(world.nodes[0].tunnel.by_index.is_empty());
        }
        assert_eq!(world.count(0, Counter::HandshakesInitiated), initiated);
        assert!(world.count(0, Counter::HandshakesRejected) > 0, "the peer has begun some");
        assert!(wake(&mut world) && !wake(&mut world));
        world.run(millis(20));
        assert!(world.is_up(0) && world.is_up(1) && world.send(0, 1) && world.send(1, 0));
        assert_eq!(world.count(0, Counter::Sleeps), 1);
    }

    #[test]
    fn who_had_no_session_is_spoken_to_if_something_waits_for_it() {
        let mut world = World::pair();
        assert_eq!(fall_asleep(&mut world), 0);
        assert!(!world.send(0, 1));
        wake(&mut world);
        world.run(millis(20));
        assert!(world.is_up(0) && world.is_up(1));
    }

    #[test]
    fn of_what_a_peer_sends_meanwhile_and_just_before_nothing_is_lost_or_comes_twice() {
        let mut world = up();
        for _ in 0..400 {
            assert!(world.send(1, 0));
            world.run(millis(1));
        }
        fall_asleep(&mut world);
        for _ in 0..200 {
            assert!(world.send(1, 0));
            world.run(millis(1));
        }
        wake(&mut world);
        world.run(millis(500));
        let mut numbers = world.nodes[0].numbers.clone();
        numbers.sort_unstable();
        let sent = world.nodes[1].sent;
        let twice = numbers.len() as u64 - sent;
        numbers.dedup();
        assert_eq!(numbers, (0..sent).collect::<Vec<_>>());
        assert!(twice <= 20, "{twice} packets twice: more than were under way");
    }

    #[test]
    fn a_sleep_that_was_called_off_ends_by_itself() {
        let mut world = up();
        fall_asleep(&mut world);
        world.run(LONGEST - millis(1));
        assert!(!world.is_up(0));
        world.run(millis(30));
        assert!(world.is_up(0) && world.is_up(1));
    }

    #[test]
    fn a_waking_is_acted_on_once_whoever_tells_of_it() {
        let mut world = up();
        let before = world.count(0, Counter::HandshakesInitiated);
        fall_asleep(&mut world);
        world.now = world.now + seconds(3600);
        let now = world.now;
        world.nodes[0].tunnel.handle_timeout(now);
        world.nodes[0].tunnel.resumed(now);
        world.run(millis(4));
        let now = world.now;
        world.nodes[0].tunnel.resumed(now);
        assert!(!wake(&mut world));
        world.run(millis(30));
        assert!(world.is_up(0) && world.is_up(1));
        assert_eq!(world.count(0, Counter::HandshakesInitiated), before + 1);
    }

    #[test]
    fn a_waking_without_a_sleep_loses_nothing() {
        let mut world = up();
        let (session, data) = (world.session(0).local_index, world.nodes[1].data);
        let now = world.now;
        world.nodes[0].tunnel.resumed(now);
        assert!(world.send(0, 1));
        world.run(millis(30));
        assert_eq!((world.session(0).local_index, world.nodes[1].data), (session, data + 1));
    }

    // Attack: an image of a sleeping machine that is woken a second time, when the peer knows what the machine did after
    // the first | 1 | other keys; the peer takes the handshake, as it is of a later time
    #[test]
    fn attack_sleeping_machine_woken_twice() {
        let mut world = up();
        fall_asleep(&mut world);
        let Asleep { since, until, wall_seconds } = world.nodes[0].tunnel.sleep.asleep.take().unwrap();
        let image = |world: &mut World, at: Time| {
            let tunnel = &mut world.nodes[0].tunnel;
            tunnel.sleep.asleep = Some(Asleep { since, until, wall_seconds });
            (tunnel.epoch, tunnel.sequence) = (1, 1);
            world.now = at;
            world.nodes[0].tunnel.resumed(at);
            world.run(millis(30));
            assert!(world.is_up(0) && world.is_up(1) && world.send(0, 1));
        };
        image(&mut world, since + seconds(3600));
        for _ in 0..10 {
            world.nodes[0].tunnel.forget_sessions(0, world.now);
            world.run(millis(30));
        }
        let first = world.nodes[1].tunnel.peers().next().unwrap().1.last_order;
        let (initiation, refused) = (world.log.len(), world.count(1, Counter::HandshakesRejected));
        fall_asleep(&mut world);
        image(&mut world, since + seconds(7200));
        assert!(world.nodes[1].tunnel.peers().next().unwrap().1.last_order > first);
        assert!(world.log.len() > initiation);
        assert_eq!(world.count(1, Counter::HandshakesRejected), refused);
    }

    // Attack: an image of a virtual machine that was told of its sleep, restored twice by a hypervisor, which stops the
    // clocks meanwhile and puts the wall clock right afterwards, before the waking or after it | 2 | the peer takes the
    // handshakes of the second, which is of a later time
    #[test]
    fn attack_sleeping_virtual_machine_restored_twice() {
        for awake_first in [false, true] {
            let mut world = up();
            fall_asleep(&mut world);
            let Asleep { since, until, .. } = world.nodes[0].tunnel.sleep.asleep.take().unwrap();
            let mut restore = |wall_seconds: u64| {
                let tunnel = &mut world.nodes[0].tunnel;
                tunnel.forget_all();
                tunnel.sleep.asleep = Some(Asleep { since, until, wall_seconds: WALL });
                (tunnel.epoch, tunnel.sequence) = (1, 1);
                let now = world.now;
                if awake_first {
                    tunnel.resumed(now);
                }
                tunnel.clock_put_ahead(wall_seconds, now);
                tunnel.resumed(now);
                world.run(millis(300));
                assert!(world.is_up(0) && world.is_up(1) && world.send(0, 1), "{awake_first} {wall_seconds}");
                for _ in 0..10 {
                    let now = world.now;
                    world.nodes[0].tunnel.forget_sessions(0, now);
                    world.run(millis(30));
                }
                world.nodes[1].tunnel.peers().next().unwrap().1.last_order
            };
            let first = restore(WALL + 3600);
            assert!(restore(WALL + 7200) > first, "{awake_first}");
        }
    }

    /// However its sessions are when it falls asleep.
    #[test]
    fn a_sleeping_host_rests() {
        for ms in 0..60 {
            let mut world = World::pair();
            world.loses_first(ms % 7, None);
            for step in 0..ms {
                let (now, id, key) = (world.now, PeerId(0), world.nodes[1].key);
                match step % 13 {
                    5 => world.nodes[0].tunnel.locators_changed(now),
                    8 => world.nodes[0].tunnel.want_session(id, now),
                    11 => world.nodes[0].tunnel.probe(&key, u64::from(step), now),
                    _ => {
                        world.send(0, 1);
                        world.send(1, 0);
                    }
                }
                world.run(millis(u64::from(step)));
            }
            fall_asleep(&mut world);
            let tunnel = &mut world.nodes[0].tunnel;
            let mut turns = 0;
            while let at = tunnel.next_timeout()
                && at < tunnel.sleep.next_timeout()
            {
                tunnel.handle_timeout(at);
                turns += 1;
                assert!(turns < 100, "{ms}");
            }
        }
    }

    // Attack: packets that were recorded before a sleep, again while the machine sleeps and after it | 6 | dropped: nobody
    // has their keys any more
    #[test]
    fn attack_packets_from_before_a_sleep() {
        let mut world = up();
        let to = world.nodes[0].address;
        let recorded: Vec<_> = world.log.iter().filter(|packet| packet.to == to).cloned().collect();
        assert_eq!(recorded.len(), 3);
        fall_asleep(&mut world);
        let (data, unknown) = (world.nodes[0].data, world.count(0, Counter::DropUnknownIndex));
        let replay = |world: &mut World| recorded.iter().for_each(|packet| world.deliver(packet));
        replay(&mut world);
        wake(&mut world);
        world.run(millis(30));
        replay(&mut world);
        assert_eq!(world.nodes[0].data, data);
        assert!(world.count(0, Counter::DropUnknownIndex) >= unknown + 4);
        assert!(world.send(0, 1));
    }

    #[test]
    fn the_time_asleep_is_no_waiting_time() {
        let at = |s: u64| Time::from_millis(s * 1000);
        let mut world = World::pair();
        let tunnel = &mut world.nodes[0].tunnel;
        assert_eq!(tunnel.awake_since(at(4), at(9)), seconds(5));
        tunnel.fall_asleep(WALL, at(10));
        for (since, now, awake) in [(8, 9, 1), (8, 10, 2), (8, 20, 2), (15, 20, 0)] {
            assert_eq!(tunnel.awake_since(at(since), at(now)), seconds(awake));
        }
        tunnel.wake(at(1000));
        for (since, now, awake) in [(8, 1001, 3), (500, 1001, 1), (1000, 1004, 4), (2, 9, 7)] {
            assert_eq!(tunnel.awake_since(at(since), at(now)), seconds(awake));
        }
    }
}
