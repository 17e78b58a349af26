//! Searches and black holes on a virtual clock.

use super::path_mtu::{PathMtu, Verdict};
use super::simulation::World;
use crate::stats::Counter;
use crate::time::{Time, millis, seconds};
use std::time::Duration;

#[test]
fn a_path_that_takes_what_the_interface_does_is_known_after_one_round_trip() {
    let mut path = Simulation::new(1480, 1480);
    assert_eq!(path.machine.size(), 1280);
    path.send(1000);
    path.run(path.rtt);
    assert_eq!(path.machine.size(), 1480);
    assert_eq!(path.probes, 6);
    path.run(seconds(3600));
    assert_eq!(path.probes, 6);
}

#[test]
fn short_packets_alone_begin_a_search_later_and_not_all_at_once() {
    let mut begun: Vec<Duration> = Vec::new();
    for lot in [0, 300, 1000] {
        let mut path = Simulation::new(1480, 1480);
        path.machine.spread(lot);
        let since = path.now;
        while path.probes == 0 {
            path.send(100);
            path.run(millis(10));
        }
        begun.push(path.now.since(since));
        path.run(path.rtt);
        assert_eq!(path.machine.size(), 1480);
    }
    assert!(begun[0] >= seconds(1) && begun[2] <= seconds(4), "{begun:?}");
    assert!(begun.windows(2).all(|two| two[1] - two[0] > millis(500)), "{begun:?}");
    let mut path = Simulation::new(1480, 1480);
    path.send(100);
    path.run(millis(100));
    path.send(577);
    assert_eq!(path.probes, 6, "a longer one does not wait");
    path.run(seconds(10));
    assert_eq!(path.probes, 6);
    path.machine.restart(false);
    path.send(100);
    path.run(millis(100));
    assert_eq!(path.probes, 6, "a new path, a new wait");
}

#[test]
fn a_search_that_a_router_was_faster_than_is_not_begun_again() {
    let mut path = Simulation::new(1000, 1480);
    path.send(100);
    path.machine.hint(1000, path.now);
    path.run(millis(900));
    let (found, probes) = (path.machine.size(), path.probes);
    assert!((992..=1000).contains(&found), "{found}");
    path.run(seconds(5));
    assert_eq!((path.machine.size(), path.probes), (found, probes));
}

#[test]
fn where_there_is_nothing_to_find_out_no_search_is_due_for_ever() {
    // IPv6 over an interface that takes no more than IPv6 demands.
    let mut path = Simulation::new(1280, 1280);
    path.machine.restart(true);
    path.send(100);
    let due = path.machine.next_deadline().unwrap();
    path.machine.handle_timeout(due);
    assert_eq!((path.machine.size(), path.machine.next_deadline()), (1280, None));
}

#[test]
fn a_path_that_was_silent_is_left_alone_whatever_was_to_begin() {
    let mut path = Simulation::new(0, 1480);
    path.send(100);
    path.machine.hint(1000, path.now);
    path.run(seconds(60));
    assert_eq!(path.probes, 2 * 5, "the hint's, and no search since nothing was sent");
}

#[test]
fn any_path_is_found_to_within_a_few_octets() {
    for mtu in [1280, 1281, 1300, 1399, 1400, 1420, 1472, 1492, 1499, 1500, 4000, 8999, 9000] {
        for ceiling in [1480, 1500, 9000] {
            let mut path = Simulation::new(mtu, ceiling);
            path.send(1200);
            path.run(seconds(3));
            let right = mtu.min(ceiling);
            let found = path.machine.size();
            assert!(found <= right && right - found <= 8, "{found} for {mtu} below {ceiling}");
        }
    }
}

#[test]
fn an_ipv4_path_below_the_base_is_found_too() {
    let mut path = Simulation::new(1000, 1480);
    path.send(1200);
    path.run(seconds(3));
    assert!((992..=1000).contains(&path.machine.size()), "{}", path.machine.size());
    let mut path = Simulation::new(1000, 1500);
    path.machine.restart(true);
    path.send(1200);
    path.run(seconds(3));
    assert_eq!(path.machine.size(), 1280);
}

#[test]
fn the_largest_sizes_there_are_do_not_overflow() {
    for mtu in [u16::MAX - 1, u16::MAX] {
        let mut path = Simulation::new(mtu, u16::MAX);
        path.send(1200);
        path.run(seconds(3));
        assert_eq!(path.machine.size(), u16::MAX - 1);
        path.mtu = 1500;
        path.machine.hint(u16::MAX, path.now);
        path.send(u16::MAX);
        path.run(seconds(3));
        assert!((1492..=1500).contains(&path.machine.size()), "{}", path.machine.size());
    }
}

#[test]
fn random_loss_does_not_hide_a_size() {
    let mut path = Simulation::new(1480, 1480);
    path.lose_every = Some(3);
    path.send(1400);
    path.run(seconds(3));
    assert_eq!(path.machine.size(), 1480);
    for _ in 0..600 {
        path.send(1400);
        path.run(millis(100));
        assert_eq!(path.machine.size(), 1480);
    }
}

#[test]
fn a_black_hole_is_left_within_a_second_under_traffic() {
    for rtt in [1, 20, 80] {
        let mut path = Simulation::new(1480, 1480);
        path.rtt = millis(rtt);
        path.send(1480);
        path.run(seconds(2));
        path.mtu = 1400;
        let since = path.now;
        while path.machine.size() > 1400 {
            path.send(1480);
            path.run(millis(10));
        }
        assert!(path.now.since(since) < millis(800), "{:?} at a round trip of {rtt} ms", path.now.since(since));
        path.run(seconds(2));
        assert!((1392..=1400).contains(&path.machine.size()), "{}", path.machine.size());
        assert_eq!(path.verdicts.iter().filter(|v| **v == Verdict::BlackHole).count(), 1);
    }
}

#[test]
fn a_flow_that_stalls_in_the_black_hole_is_helped_without_sending_more() {
    let mut path = Simulation::new(1480, 1480);
    path.send(1480);
    path.run(seconds(2));
    path.send(1480);
    path.mtu = 1400;
    path.run(seconds(1));
    assert!(path.machine.size() <= 1400);
}

#[test]
fn silence_and_delay_are_not_taken_for_a_black_hole() {
    let mut path = Simulation::new(1480, 1480);
    path.send(1480);
    path.run(seconds(2));
    path.rtt = seconds(2);
    for _ in 0..100 {
        path.send(1480);
        path.run(millis(100));
    }
    path.mtu = 0;
    for _ in 0..200 {
        path.send(1480);
        path.run(millis(100));
    }
    assert_eq!(path.machine.size(), 1480);
    assert!(path.probes < 100, "{}", path.probes);
}

#[test]
fn short_packets_need_no_confirmation() {
    let mut path = Simulation::new(1480, 1480);
    path.send(100);
    path.run(seconds(5));
    let before = path.probes;
    for _ in 0..100 {
        path.send(1200);
        path.run(millis(100));
    }
    assert_eq!(path.probes, before);
}

#[test]
fn a_path_that_became_wider_is_noticed_by_and_by() {
    let mut path = Simulation::new(1400, 1480);
    path.send(1400);
    path.run(seconds(3));
    path.mtu = 1500;
    let since = path.now;
    while path.machine.size() < 1480 {
        path.send(1300);
        path.run(millis(100));
        assert!(path.now.since(since) < seconds(11));
    }
}

#[test]
fn a_narrow_path_is_not_asked_for_more_often_than_need_be() {
    let mut path = Simulation::new(1400, 1480);
    path.send(1200);
    path.run(seconds(3));
    let before = path.probes;
    for _ in 0..36_000 {
        path.send(1200);
        path.run(millis(100));
    }
    assert!(path.probes - before < 400, "{}", path.probes - before);
}

#[test]
fn the_word_of_a_router_is_verified_and_then_exact() {
    let mut path = Simulation::new(1480, 1480);
    path.send(1480);
    path.run(seconds(1));
    path.machine.hint(1337, path.now);
    path.run(millis(100));
    assert_eq!(path.machine.size(), 1480);
    path.mtu = 1337;
    path.machine.hint(1337, path.now);
    path.run(millis(300));
    assert_eq!(path.machine.size(), 1337);
    path.machine.hint(100, path.now);
    path.run(seconds(1));
    assert_eq!(path.machine.size(), 1337);
}

#[test]
fn what_the_own_kernel_refuses_is_not_waited_for() {
    let mut path = Simulation::new(1480, 9000);
    path.local_mtu = 1480;
    path.send(1200);
    path.run(millis(200));
    assert!((1472..=1480).contains(&path.machine.size()), "{}", path.machine.size());
}

#[test]
fn nobody_is_refused_on_a_guess_while_the_first_answers_come() {
    let mut path = Simulation::new(1400, 1480);
    assert_eq!(path.machine.uncut(path.now), 1480);
    path.send(1200);
    assert_eq!(path.machine.uncut(path.now), 1480);
    path.run(seconds(3));
    assert_eq!(path.machine.uncut(path.now), path.machine.size());
    path.machine.restart(false);
    path.machine.set_ceiling(1480);
    path.mtu = 0;
    path.send(1200);
    path.run(millis(999));
    assert_eq!((path.machine.size(), path.machine.uncut(path.now)), (1280, 1480));
    path.run(millis(2));
    assert_eq!(path.machine.uncut(path.now), 1280);
}

#[test]
fn two_hosts_find_their_path_and_find_it_again_after_a_roam() {
    let mut world = World::pair();
    world.interface_mtu = Some(1500);
    world.send(0, 1);
    world.run(millis(100));
    assert!(world.send_sized(0, 1, 1400));
    world.run(millis(100));
    assert_eq!(world.peer(0).path_mtu.size(), 1480);
    assert_eq!(world.count(0, Counter::PathMtuRaised), 1);
    world.path_mtu = 1300;
    world.nodes[0].address = "192.0.2.99:4341".parse().unwrap();
    world.nodes[0].tunnel.locators_changed(world.now);
    world.run(millis(30));
    for from in [0, 1] {
        assert_eq!(world.peer(from).proven_limit(), 1280 - 60);
        assert_eq!(world.peer(from).inner_limit(world.now), 1420);
        world.send(from, 1 - from);
    }
    world.run(seconds(5));
    for from in [0, 1] {
        assert!((1292..=1300).contains(&world.peer(from).path_mtu.size()));
    }
    assert_eq!(world.count(0, Counter::PathMtuBlackHoles), 0);
}

/// One machine on a path, whose other end answers.
struct Simulation {
    machine: PathMtu,
    now: Time,
    rtt: Duration,
    /// 0 loses everything.
    mtu: u16,
    local_mtu: u16,
    lose_every: Option<usize>,
    replies: Vec<(Time, u64)>,
    probes: usize,
    verdicts: Vec<Verdict>,
}

impl Simulation {
    fn new(mtu: u16, ceiling: u16) -> Simulation {
        let mut machine = PathMtu::new();
        machine.set_ceiling(ceiling);
        Simulation {
            machine,
            now: Time::from_millis(5000),
            rtt: millis(20),
            mtu,
            local_mtu: u16::MAX,
            lose_every: None,
            replies: Vec::new(),
            probes: 0,
            verdicts: Vec::new(),
        }
    }

    fn send(&mut self, size: u16) {
        self.machine.sent(size, self.now);
        self.send_probes();
    }

    fn send_probes(&mut self) {
        while let Some(probe) = self.machine.poll_probe() {
            if probe.size > self.local_mtu {
                self.machine.refused(probe.token, self.now);
                continue;
            }
            self.probes += 1;
            let lost = self.lose_every.is_some_and(|n| self.probes.is_multiple_of(n));
            if !lost && self.mtu > 0 && probe.size <= self.mtu {
                self.replies.push((self.now + self.rtt, probe.token));
            }
        }
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let reply = self.replies.iter().copied().min();
            let arrival = reply.map_or(Time::NEVER, |(at, _)| at);
            let deadline = self.machine.next_deadline().unwrap_or(Time::NEVER).max(self.now);
            if arrival.min(deadline) > end {
                self.now = end;
                return;
            }
            let verdict = if arrival <= deadline {
                let (at, token) = reply.unwrap();
                self.replies.retain(|r| *r != (at, token));
                self.now = at;
                self.machine.answered(token, at)
            } else {
                self.now = deadline;
                self.machine.handle_timeout(deadline)
            };
            self.verdicts.extend(verdict);
            self.send_probes();
        }
    }
}
