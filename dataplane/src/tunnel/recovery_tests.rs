//! Roams that lose packets, on a virtual clock: everything arrives, and once.

use std::net::SocketAddr;
use std::time::Duration;

use super::simulation::{Packet, World, kind};
use super::*;
use crate::replay::WINDOW;
use crate::retransmit::Limits;
use crate::time::millis;
use crate::wire::Report;

#[test]
fn what_both_sides_lost_arrives_once() {
    let mut world = traffic();
    world.dead.push(address(1));
    world.loses(|_| true);
    stream(&mut world, 300);
    world.loses(|_| false);
    roam(&mut world, 9);
    stream(&mut world, 100);
    world.run(millis(200));
    all_arrived(&mut world);
    assert_eq!([0, 1].map(|n| world.count(n, Counter::RetransmitResent)), [300, 305]);
    assert_eq!([0, 1].map(|n| world.count(n, Counter::DropReplay)), [0, 0]);
    assert_eq!([0, 1].map(|n| world.count(n, Counter::RetransmitOverflowed)), [0, 0]);
}

#[test]
fn lost_reports_are_repeated_and_nothing_is_sent_twice() {
    for lost in 1..8 {
        let mut world = traffic();
        world.loses(|_| true);
        stream(&mut world, 100);
        world.loses_first(lost, Some(Kind::Control));
        roam(&mut world, 9);
        stream(&mut world, 300);
        world.run(millis(500));
        all_arrived(&mut world);
        let resent = [0, 1].map(|n| world.count(n, Counter::RetransmitResent));
        assert!(resent.iter().all(|n| (100..300).contains(n)), "{lost}: {resent:?}");
    }
}

#[test]
fn a_link_that_was_down_without_a_new_address_loses_nothing() {
    let mut world = traffic();
    world.loses(|_| true);
    stream(&mut world, 200);
    world.loses(|_| false);
    let now = world.now;
    world.nodes[0].tunnel.locators_changed(now);
    stream(&mut world, 100);
    world.run(millis(100));
    all_arrived(&mut world);
    // What was on its way did not go out again.
    let resent = [0, 1].map(|n| world.count(n, Counter::RetransmitResent));
    assert!(resent.iter().all(|n| *n <= 205), "{resent:?}");
}

#[test]
fn a_change_that_lost_nothing_sends_nothing_again() {
    let mut world = traffic();
    for _ in 0..5 {
        let now = world.now;
        world.nodes[0].tunnel.locators_changed(now);
        stream(&mut world, 40);
    }
    world.run(millis(100));
    all_arrived(&mut world);
    assert_eq!([0, 1].map(|n| world.count(n, Counter::RetransmitResent)), [0, 0]);
}

#[test]
fn several_roams_in_a_row_lose_nothing() {
    let mut world = traffic();
    for n in 0..5 {
        world.loses(|_| true);
        stream(&mut world, 20 + 30 * n);
        world.loses(|_| false);
        roam(&mut world, 10 + n as u8);
        stream(&mut world, 3 + n * 7);
    }
    stream(&mut world, 100);
    world.run(millis(500));
    all_arrived(&mut world);
}

#[test]
fn both_sides_move_at_once() {
    let mut world = traffic();
    world.loses(|_| true);
    stream(&mut world, 100);
    world.loses(|_| false);
    roam(&mut world, 9);
    world.nodes[1].tunnel.locators_changed(world.now);
    stream(&mut world, 100);
    world.run(millis(500));
    all_arrived(&mut world);
}

#[test]
fn a_session_renewed_just_before_loses_nothing() {
    let mut world = traffic();
    while world.session(0).age(world.now) < millis(119_990) {
        world.run(millis(10));
    }
    stream(&mut world, 5);
    world.loses(|kind| kind == Some(Kind::Data));
    stream(&mut world, 100);
    assert!(world.session(0).age(world.now) < seconds(1));
    world.loses(|_| true);
    stream(&mut world, 100);
    world.loses(|_| false);
    roam(&mut world, 9);
    stream(&mut world, 10);
    world.run(millis(200));
    all_arrived(&mut world);
    assert!(world.peer(0).previous.is_some());
}

#[test]
fn only_what_is_young_enough_and_inside_the_window_goes_out_again() {
    let mut world = traffic();
    world.loses(|_| true);
    stream(&mut world, 50);
    world.run(millis(1970));
    stream(&mut world, 50);
    world.loses(|_| false);
    roam(&mut world, 9);
    world.run(millis(200));
    let received = world.nodes[0].numbers.len() as u64;
    assert!((50..=81).contains(&(received - 10)), "{received}");

    let mut world = traffic();
    world.loses(|_| true);
    for _ in 0..WINDOW + 500 {
        world.send(0, 1);
    }
    assert_eq!(world.count(0, Counter::RetransmitOverflowed), 510);
    world.run(millis(1));
    world.loses(|_| false);
    roam(&mut world, 9);
    world.run(millis(700));
    let resent = world.count(0, Counter::RetransmitResent);
    assert!(resent > WINDOW - 100 && resent <= WINDOW, "{resent}");
    assert_eq!(world.nodes[1].numbers.len() as u64, 10 + resent);
    assert_eq!(world.count(1, Counter::DropReplay), 0);
}

#[test]
fn what_was_sent_to_a_process_that_died_reaches_the_next_one() {
    for initiator in [0, 1] {
        let mut world = World::pair();
        world.send(initiator, 1 - initiator);
        world.run(seconds(2));
        stream(&mut world, 50);
        let died = world.nodes[1].sent;
        world.dead.push(address(1));
        for _ in 0..60 {
            world.send(1, 0);
            world.run(millis(1));
        }
        world.dead.clear();
        world.restart(0, 2);
        let now = world.now;
        world.nodes[0].tunnel.greet(now);
        world.run(millis(16));
        assert!(world.is_up(0) && world.is_up(1), "{initiator}");
        world.run(millis(30));
        let mut received = world.nodes[0].numbers.clone();
        received.sort_unstable();
        // Two round trips of what the former process may have received already.
        let first = *received.first().unwrap();
        assert!((died - 25..=died - 5).contains(&first), "{initiator}: {first} of {died}");
        assert_eq!(received, (first..world.nodes[1].sent).collect::<Vec<_>>(), "{initiator}");
        assert_eq!(world.count(0, Counter::DropReplay), 0);
        // Once: nothing of it is kept for another time.
        let resent = world.count(1, Counter::RetransmitResent);
        stream(&mut world, 100);
        world.run(millis(100));
        assert_eq!(world.count(1, Counter::RetransmitResent), resent);
    }
}

#[test]
fn a_session_that_is_renewed_by_a_process_that_lives_on_sends_nothing_again() {
    let mut world = traffic();
    let (key, now) = (world.nodes[1].key, world.now);
    let id = world.nodes[0].tunnel.find(&key).unwrap();
    for _ in 0..3 {
        world.run(seconds(2));
        stream(&mut world, 20);
        world.nodes[0].tunnel.want_session(id, now);
        stream(&mut world, 20);
    }
    assert_eq!([0, 1].map(|n| world.count(n, Counter::RetransmitResent)), [0, 0]);
}

#[test]
fn what_goes_out_in_two_sessions_made_at_once_arrives_once() {
    let mut world = World::pair();
    assert!(!world.send(0, 1) && !world.send(1, 0));
    world.run(millis(11));
    assert!(world.send(0, 1) && world.send(1, 0), "each in the session that it initiated");
    world.run(millis(100));
    assert_eq!([0, 1].map(|node: usize| world.nodes[node].numbers.clone()), [[0], [0]]);
}

/// Node 1 is answered before the initiation of node 0 reaches it: that one could be of a process started since.
#[test]
fn what_went_out_before_the_other_initiation_came_arrives_once() {
    let mut world = World::pair();
    assert!(!world.send(0, 1) && !world.send(1, 0));
    let from = world.nodes[0].address;
    let (late, others): (Vec<Packet>, Vec<Packet>) = world.wire.drain(..).partition(|packet| packet.from == from);
    assert_eq!(late.len(), 1);
    world.wire.extend(others);
    world.loses(|kind| kind == Some(Kind::Control));
    world.run(millis(12));
    world.loses(|_| false);
    assert!(world.send(1, 0) && !world.is_up(0));
    let sent: Vec<Packet> = world.wire.drain(..).collect();
    late.iter().for_each(|packet| world.deliver(packet));
    world.run(millis(40));
    assert!(world.is_up(0));
    sent.iter().for_each(|packet| world.deliver(packet));
    world.run(millis(100));
    assert_eq!(world.nodes[0].numbers, [0]);
    assert_eq!(world.count(1, Counter::RetransmitResent), 0);
}

// Attack: initiations recorded from a former process of a peer, and new ones | all | nothing goes out again without the
// new session being used by who holds the keys
#[test]
fn attack_old_initiations_make_nothing_go_out_again() {
    let mut world = traffic();
    world.restart(0, 2);
    let now = world.now;
    world.nodes[0].tunnel.greet(now);
    world.run(seconds(2));
    stream(&mut world, 50);
    let resent = world.count(1, Counter::RetransmitResent);
    let initiations: Vec<Packet> =
        world.log.iter().filter(|p| kind(&p.bytes) == Some(Kind::Initiation)).cloned().collect();
    assert!(initiations.len() >= 2);
    for initiation in initiations {
        world.deliver(&initiation);
    }
    stream(&mut world, 50);
    assert_eq!(world.count(1, Counter::RetransmitResent), resent);
}

// Attack: the word of a peer that it was started, held back until the session after its first | 1 | nothing goes out
// again
#[test]
fn attack_word_of_a_start_held_back_until_the_next_session() {
    let mut world = traffic();
    world.restart(0, 2);
    let (mut held, source) = (Vec::new(), world.nodes[0].address);
    let now = world.now;
    world.nodes[0].tunnel.greet(now);
    for step in 0..60 {
        if step == 40 {
            assert!(world.send(0, 1));
        }
        world.run(millis(1));
        let is_held = |p: &Packet| p.from == source && kind(&p.bytes) == Some(Kind::Control);
        held.extend(world.wire.iter().filter(|p| is_held(p)).cloned());
        world.wire.retain(|p| !is_held(p));
    }
    assert!(held.len() >= 2);
    // Packets go one way: the first session is not heard in any more.
    let talk = |world: &mut World| {
        world.send(1, 0);
        world.run(millis(1));
    };
    for _ in 0..30 {
        talk(&mut world);
    }
    let (key, now) = (world.nodes[0].key, world.now);
    let id = world.nodes[1].tunnel.find(&key).unwrap();
    let rekeys = world.count(1, Counter::Rekeys);
    world.nodes[1].tunnel.want_session(id, now);
    while world.count(1, Counter::Rekeys) == rekeys {
        talk(&mut world);
    }
    assert_eq!(world.count(1, Counter::RetransmitResent), 0);
    for packet in held {
        world.deliver(&packet);
    }
    world.run(millis(30));
    assert_eq!(world.count(1, Counter::RetransmitResent), 0);
}

#[test]
fn memory_is_bounded_and_given_back() {
    let mut world = World::pair();
    let limits = Limits { bytes: 64 << 10, total: 96 << 10, ..Limits::default() };
    world.nodes[0].tunnel.pool.limits = limits;
    world.send(0, 1);
    world.run(millis(30));
    for _ in 0..5000 {
        world.send(0, 1);
        assert!(world.nodes[0].tunnel.pool.bytes() <= limits.bytes);
    }
    let kept = world.peer(0).recovery.ring.iter().count() as u64;
    assert_eq!(world.count(0, Counter::RetransmitKept), kept + world.count(0, Counter::RetransmitOverflowed));
    world.run(seconds(3));
    let now = world.now;
    while !world.nodes[0].tunnel.expire_kept(now) {}
    assert!(!world.nodes[0].tunnel.keeps_memory());
    let key = world.nodes[1].key;
    world.send(0, 1);
    let id = world.nodes[0].tunnel.find(&key).unwrap();
    world.nodes[0].tunnel.remove_peer(id, true);
    assert_eq!(world.nodes[0].tunnel.pool.bytes(), 0);
}

#[test]
fn switched_off_nothing_is_kept_but_the_peer_still_helps() {
    let mut world = World::pair();
    world.nodes[0].tunnel.pool.limits.bytes = 0;
    world.send(0, 1);
    world.run(millis(30));
    stream(&mut world, 10);
    world.run(millis(100));
    world.loses(|_| true);
    stream(&mut world, 100);
    world.loses(|_| false);
    roam(&mut world, 9);
    world.run(millis(200));
    assert_eq!((world.nodes[1].numbers.len(), world.nodes[0].numbers.len()), (10, 110));
    assert_eq!(world.count(0, Counter::RetransmitKept), 0);
}

// Attack: reports of an earlier roam again, from the right and another address, and with each seventh bit flipped |
// every report of a roam | nothing is sent again, nothing moves, traffic goes on
#[test]
fn attack_reports_that_are_old_or_come_from_elsewhere() {
    let mut world = traffic();
    world.loses(|_| true);
    stream(&mut world, 100);
    world.loses(|_| false);
    roam(&mut world, 9);
    world.run(millis(100));
    let resent = world.count(1, Counter::RetransmitResent);
    let reports: Vec<Packet> =
        world.log.iter().filter(|p| kind(&p.bytes) == Some(Kind::Control) && p.to == address(2)).cloned().collect();
    assert!(reports.len() >= 2);
    stream(&mut world, 100);
    for mut report in reports {
        world.deliver(&report);
        report.from = "203.0.113.1:1".parse().unwrap();
        world.deliver(&report);
        for bit in (0..report.bytes.len() * 8).step_by(7) {
            let mut forged = report.clone();
            forged.bytes[bit / 8] ^= 1 << (bit % 8);
            world.deliver(&forged);
        }
    }
    world.run(millis(100));
    assert_eq!(world.count(1, Counter::RetransmitResent), resent);
    assert_eq!(world.endpoint(1), address(9));
    all_arrived(&mut world);
}

#[test]
fn a_report_that_was_overtaken_counts_for_nothing() {
    let mut world = traffic();
    stream(&mut world, 100);
    let (key, now) = (world.nodes[0].key, world.now);
    let tunnel = &mut world.nodes[1].tunnel;
    let id = tunnel.find(&key).unwrap();
    let index = tunnel.peer(id).unwrap().current.as_ref().unwrap().remote_index;
    let nothing = Report { reply: false, token: 1, roam: 1, index, first: 0, next: 0, bits: vec![].into() };
    let path = tunnel.peer(id).unwrap().endpoint.unwrap();
    let elsewhere = Path::to("203.0.113.1:1".parse().unwrap());
    tunnel.handle_report(id, path, &nothing, false, now);
    tunnel.handle_report(id, elsewhere, &nothing, true, now);
    tunnel.handle_report(id, path, &Report { reply: true, ..nothing.clone() }, true, now);
    assert_eq!(tunnel.stats.value(Counter::RetransmitResent), 0);
}

// Attack: authentic reports that nothing was received, each for another roam | 100 | no more goes out again than is
// kept; nothing arrives twice
#[test]
fn attack_demands_to_send_everything_again() {
    let mut world = traffic();
    world.nodes[1].tunnel.pool.limits.bytes = 32 << 10;
    stream(&mut world, 500);
    let key = world.nodes[0].key;
    for roam in 0..100 {
        let now = world.now;
        let tunnel = &mut world.nodes[1].tunnel;
        let id = tunnel.find(&key).unwrap();
        let peer = tunnel.peer(id).unwrap();
        let (path, index) = (peer.endpoint.unwrap(), peer.current.as_ref().unwrap().remote_index);
        let nothing = Report { reply: false, token: roam, roam, index, first: 0, next: 0, bits: vec![].into() };
        tunnel.handle_report(id, path, &nothing, true, now);
        world.run(millis(19));
    }
    let resent = world.count(1, Counter::RetransmitResent);
    assert!(resent <= 2 * (32 << 10) / 132, "{resent}");
    world.run(millis(100));
    assert_eq!(world.nodes[0].numbers.len() as u64, world.nodes[1].sent);
    assert!(world.count(0, Counter::DropReplay) > 0);
}

#[test]
fn resending_is_paced() {
    let mut world = traffic();
    world.loses(|_| true);
    for _ in 0..1000 {
        world.send(1, 0);
    }
    world.loses(|_| false);
    roam(&mut world, 9);
    world.run(millis(10));
    let mut before = world.count(1, Counter::RetransmitResent);
    while before < 1000 {
        world.run(millis(1));
        let after = world.count(1, Counter::RetransmitResent);
        assert!(after - before <= 16 && after > before);
        before = after;
    }
    world.run(millis(10));
    let numbers = &world.nodes[0].numbers;
    assert!(numbers.is_sorted() && numbers.len() == 1010);
}

/// A pair with a session, ten packets each way behind it.
fn traffic() -> World {
    let mut world = World::pair();
    world.send(0, 1);
    world.run(millis(30));
    stream(&mut world, 10);
    world.run(millis(100));
    world
}

/// A packet a millisecond in both directions.
fn stream(world: &mut World, count: usize) {
    for _ in 0..count {
        assert!(world.send(0, 1) && world.send(1, 0));
        world.run(Duration::from_millis(1));
    }
}

/// The first node changes its address.
fn roam(world: &mut World, host: u8) {
    world.nodes[0].address = address(host);
    let now = world.now;
    world.nodes[0].tunnel.locators_changed(now);
}

fn address(host: u8) -> SocketAddr {
    SocketAddr::new([192, 0, 2, host].into(), 4341)
}

fn all_arrived(world: &mut World) {
    for (from, to) in [(0, 1), (1, 0)] {
        let sent = world.nodes[from].sent;
        let numbers = &mut world.nodes[to].numbers;
        numbers.sort_unstable();
        let missing: Vec<u64> = (0..sent).filter(|n| !numbers.contains(n)).collect();
        assert_eq!((missing, numbers.len() as u64), (Vec::new(), sent), "from {from}");
    }
}
