//! The life of a session: how it begins, is renewed, survives moves and restarts, and ends.

use std::net::SocketAddr;
use std::time::Duration;

use super::simulation::{Node, Packet, World, kind};
use super::*;
use crate::handshake::Attempt;
use crate::time::millis;

#[test]
fn a_session_takes_one_round_trip_and_carries_data_both_ways() {
    let mut world = World::pair();
    assert!(!world.send(0, 1));
    world.run(millis(20));
    assert!(world.is_up(0) && world.is_up(1));
    assert!(world.send(0, 1) && world.send(1, 0));
    world.run(millis(20));
    assert_eq!((world.nodes[0].data, world.nodes[1].data), (1, 1));
    assert_eq!(world.count(0, Counter::HandshakesInitiated), 1);
}

#[test]
fn sessions_that_another_machine_may_have_too_are_renewed_and_nothing_is_lost() {
    let mut world = World::pair();
    world.send(0, 1);
    world.run(millis(50));
    let before = [0, 1].map(|node| world.session(node).local_index);
    let sent = |world: &World| world.nodes.iter().map(|node| node.data).sum::<u64>();
    let had = sent(&world);
    assert!(world.send(0, 1) && world.send(1, 0));
    world.nodes[0].tunnel.renew_sessions(0, world.now);
    for _ in 0..10 {
        assert!(world.send(0, 1) && world.send(1, 0));
        world.run(millis(5));
    }
    world.run(millis(50));
    assert_eq!(sent(&world) - had, 22);
    for node in [0, 1] {
        assert_ne!(world.session(node).local_index, before[node]);
    }
    assert_eq!(world.session(0).remote_index, world.session(1).local_index);
}

#[test]
fn a_clock_put_ahead_costs_one_handshake() {
    let mut world = World::pair();
    world.send(0, 1);
    world.run(millis(50));
    let had = world.count(0, Counter::HandshakesInitiated);
    world.nodes[0].tunnel.clock_put_ahead(0, world.now);
    world.run(millis(50));
    assert_eq!(world.count(0, Counter::HandshakesInitiated) - had, 1);
}

#[test]
fn lost_initiation_and_lost_response_are_made_up_for() {
    for lost in [Kind::Initiation, Kind::Response] {
        let mut world = World::pair();
        world.loses_first(2, Some(lost));
        world.send(0, 1);
        world.run(millis(350));
        assert!(world.is_up(0) && world.is_up(1), "{lost:?}");
    }
}

#[test]
fn retries_faster_than_the_round_trip_do_no_harm() {
    let mut world = World::pair();
    world.latency = millis(400);
    world.send(0, 1);
    world.run(millis(2500));
    assert!(world.count(0, Counter::HandshakesInitiated) > 1);
    for _ in 0..5 {
        assert!(world.send(0, 1) && world.send(1, 0));
    }
    world.run(millis(500));
    assert_eq!((world.nodes[0].data, world.nodes[1].data), (5, 5));
}

#[test]
fn simultaneous_initiations_converge() {
    let mut world = World::pair();
    world.send(0, 1);
    world.send(1, 0);
    world.run(millis(100));
    for _ in 0..3 {
        assert!(world.send(0, 1) && world.send(1, 0));
        world.run(millis(20));
    }
    assert_eq!((world.nodes[0].data, world.nodes[1].data), (3, 3));
    let remote = |world: &World, node: usize| world.session(node).remote_index;
    assert_eq!(remote(&world, 0), world.session(1).local_index);
    assert_eq!(remote(&world, 1), world.session(0).local_index);
    let initiated = world.count(0, Counter::HandshakesInitiated) + world.count(1, Counter::HandshakesInitiated);
    assert_eq!(initiated, 2);
}

#[test]
fn simultaneous_initiations_converge_also_when_packets_overtake_each_other() {
    for lateness in 0..3_u32.pow(6) {
        for first in [0, 1] {
            let mut world = World::pair();
            let second = 1 - first;
            let (key, locators) = (world.nodes[first].key, world.locators(first));
            let id = world.nodes[second].tunnel.find(&key).unwrap();
            world.nodes[second].tunnel.remove_peer(id, false);
            world.send(first, second);
            world.run(millis(7));
            world.lateness = lateness;
            let now = world.now;
            world.nodes[second].tunnel.set_peer(key, locators, 0, now);
            world.send(second, first);
            world.run(millis(40));
            for _ in 0..2 {
                assert!(world.send(0, 1) && world.send(1, 0), "{lateness}, {first} first");
                world.run(millis(20));
            }
            let used = |node: usize| (world.session(node).local_index, world.session(node).remote_index);
            let (one, other) = (used(0), used(1));
            assert_eq!(one, (other.1, other.0), "{lateness}, {first} first");
            assert_eq!((world.nodes[0].data, world.nodes[1].data), (2, 2), "{lateness}, {first} first");
        }
    }
}

// Attack: an initiation of a session that is up, again | 1 | counted as a copy; no answer
#[test]
fn attack_initiation_replayed() {
    let mut world = World::pair();
    world.send(0, 1);
    world.run(millis(20));
    let initiation = world.log.iter().find(|p| kind(&p.bytes) == Some(Kind::Initiation)).unwrap().clone();
    world.run(millis(500));
    let replies = world.log.len();
    world.deliver(&initiation);
    world.run(millis(20));
    assert_eq!(world.count(1, Counter::HandshakesCopied), 1);
    assert_eq!(world.log.len(), replies);
}

#[test]
fn a_locator_that_leads_nowhere_or_to_somebody_else_costs_no_time() {
    let mut world = World::pair();
    let [nowhere, elsewhere]: [SocketAddr; 2] = ["10.0.0.9:4341".parse().unwrap(), "10.0.0.2:4341".parse().unwrap()];
    world.dead.push(nowhere);
    let stranger = Node::new(7, 1);
    world.nodes.push(Node { address: elsewhere, ..stranger });
    let mut locators = world.locators(1);
    locators.extend([nowhere, elsewhere].map(|address| Locator { address, priority: 0, weight: 1 }));
    let (key, now) = (world.nodes[1].key, world.now);
    world.nodes[0].tunnel.set_peer(key, locators, 0, now);
    world.send(0, 1);
    world.run(millis(20));
    assert!(world.is_up(0));
    assert_eq!(world.endpoint(0), world.nodes[1].address);
    assert_eq!(world.count(2, Counter::DropAuth), 1);
    assert_eq!(world.count(0, Counter::HandshakesInitiated), 1);
}

#[test]
fn of_an_initiation_that_comes_by_several_locators_one_is_answered() {
    let mut world = World::pair();
    let second: SocketAddr = "198.51.100.2:4341".parse().unwrap();
    world.nodes[1].aliases.push(second);
    let mut locators = world.locators(1);
    locators.push(Locator { address: second, priority: 2, weight: 1 });
    let (key, now) = (world.nodes[1].key, world.now);
    world.nodes[0].tunnel.set_peer(key, locators, 0, now);
    world.send(0, 1);
    world.run(millis(20));
    assert!(world.is_up(0) && world.is_up(1));
    assert_eq!((world.count(1, Counter::HandshakesCopied), world.count(1, Counter::HandshakesRejected)), (1, 0));
    assert_eq!(world.log.iter().filter(|p| kind(&p.bytes) == Some(Kind::Response)).count(), 1);
}

#[test]
fn a_restored_snapshot_uses_no_key_again_and_is_heard_at_once() {
    let mut world = World::pair();
    world.send(0, 1);
    world.run(millis(20));
    let copied = world.session(0).local_index;
    // What the machine did after the copy was made, the peer remembers.
    let sequence = world.nodes[0].tunnel.sequence;
    world.run(seconds(150));
    world.send(0, 1);
    world.run(millis(20));
    assert_ne!(world.session(0).local_index, copied);
    world.nodes[0].tunnel.sequence = sequence;
    let now = world.now;
    world.nodes[0].tunnel.forget_sessions(0, now);
    assert!(!world.is_up(0) && !world.send(0, 1));
    world.run(millis(20));
    assert!(world.is_up(0) && world.is_up(1) && world.send(0, 1) && world.send(1, 0));
    assert_eq!(world.count(1, Counter::HandshakesRejected), 0);
}

#[test]
fn the_responder_does_not_speak_before_it_heard_the_session_used() {
    let mut world = World::pair();
    world.loses(|kind| kind == Some(Kind::Control));
    world.send(0, 1);
    world.run(millis(20));
    assert!(world.is_up(0) && !world.is_up(1));
    assert!(world.send(0, 1));
    world.run(millis(20));
    assert!(world.is_up(1) && world.send(1, 0));
}

#[test]
fn sessions_are_renewed_under_traffic_without_loss() {
    let mut world = World::pair();
    world.send(0, 1);
    world.run(millis(20));
    let mut sent = 0;
    for _ in 0..4000 {
        sent += u64::from(world.send(0, 1));
        world.run(millis(100));
        assert!(world.session(0).age(world.now) < seconds(125));
    }
    world.run(millis(100));
    assert_eq!((sent, world.nodes[1].data), (4000, 4000));
    assert_eq!(world.count(0, Counter::Rekeys), 3);
}

#[test]
fn a_stranger_is_parked_until_it_is_known() {
    let mut world = World::pair();
    let (key, locators) = (world.nodes[0].key, world.locators(0));
    let id = world.nodes[1].tunnel.find(&key).unwrap();
    world.nodes[1].tunnel.remove_peer(id, false);
    world.send(0, 1);
    world.run(millis(40));
    assert!(!world.is_up(0));
    assert_eq!(world.nodes[1].strangers, [key]);
    let now = world.now;
    world.nodes[1].tunnel.set_peer(key, locators, 0, now);
    world.run(millis(20));
    assert!(world.is_up(0) && world.is_up(1));
    assert_eq!(world.count(0, Counter::HandshakesInitiated), 1);
}

#[test]
fn a_roam_is_known_to_the_peer_after_half_a_round_trip() {
    let mut world = World::pair();
    world.send(0, 1);
    world.run(millis(30));
    world.send(0, 1);
    world.run(millis(30));
    let late = world.log.iter().rfind(|p| kind(&p.bytes) == Some(Kind::Data)).unwrap().clone();
    let new = "192.0.2.99:4341".parse().unwrap();
    world.nodes[0].address = new;
    world.nodes[0].tunnel.locators_changed(world.now);
    world.run(millis(6));
    assert_eq!(world.endpoint(1), new);
    world.run(millis(6));
    assert_eq!(world.nodes[0].handovers, [millis(10)]);
    // A packet from before must not move the peer back, whether it is a replay or only late.
    world.deliver(&late);
    assert_eq!(world.endpoint(1), new);
    assert_eq!(world.nodes[1].moves, [new]);
}

#[test]
fn a_late_packet_does_not_move_the_peer_back() {
    let mut world = World::pair();
    world.send(0, 1);
    world.run(millis(30));
    world.latency = millis(50);
    world.send(0, 1);
    let (old, new) = (world.nodes[0].address, "192.0.2.99:4341".parse().unwrap());
    world.run(Duration::ZERO);
    world.latency = millis(5);
    world.nodes[0].address = new;
    world.nodes[0].tunnel.locators_changed(world.now);
    world.run(millis(100));
    assert_eq!(world.nodes[1].data, 1);
    assert_ne!(old, new);
    assert_eq!(world.endpoint(1), new);
}

#[test]
fn a_lost_first_word_after_a_roam_is_repeated_soon() {
    let mut world = World::pair();
    world.send(0, 1);
    world.run(millis(30));
    // Each word is a probe and a report.
    world.loses_first(4, None);
    world.nodes[0].address = "192.0.2.99:4341".parse().unwrap();
    world.nodes[0].tunnel.locators_changed(world.now);
    world.run(millis(100));
    assert_eq!(world.nodes[0].handovers, [millis(60)]);
}

#[test]
fn a_restarted_peer_speaks_first_when_it_hears_an_unknown_session() {
    let mut world = World::pair();
    world.send(0, 1);
    world.run(millis(30));
    world.restart(1, 2);
    world.send(0, 1);
    world.run(millis(30));
    assert_eq!(world.count(1, Counter::HandshakesInitiated), 1);
    assert!(world.send(0, 1));
    world.run(millis(30));
    assert_eq!(world.nodes[1].numbers, [0, 1], "what the former process did not get is sent again");
}

#[test]
fn data_without_an_answer_is_asked_after() {
    let mut world = World::pair();
    world.send(0, 1);
    world.run(millis(30));
    world.send(0, 1);
    world.run(millis(1700));
    assert_eq!(world.count(0, Counter::ProbesSent), 1);
    world.dead.push(world.nodes[1].address);
    world.send(0, 1);
    world.run(seconds(6));
    assert!(world.count(0, Counter::HandshakesInitiated) > 1);
}

#[test]
fn received_data_without_an_answer_is_kept_alive() {
    let mut world = World::pair();
    world.send(0, 1);
    world.run(millis(30));
    world.send(0, 1);
    world.run(seconds(9));
    let before = world.log.len();
    world.run(seconds(2));
    let after: Vec<_> = world.log.iter().skip(before).map(|p| kind(&p.bytes)).collect();
    assert_eq!(after, [Some(Kind::Control)]);
}

#[test]
fn attempts_end_when_nobody_wants_them() {
    let mut world = World::pair();
    world.dead.push(world.nodes[1].address);
    world.send(0, 1);
    world.run(seconds(120));
    let tries = world.count(0, Counter::HandshakesInitiated);
    assert!((15..35).contains(&tries), "{tries}");
    world.run(seconds(100));
    assert_eq!(world.count(0, Counter::HandshakesInitiated), tries);
    world.send(0, 1);
    assert_eq!(world.count(0, Counter::HandshakesInitiated), tries + 1);
}

#[test]
fn new_locators_restart_attempts() {
    let mut world = World::pair();
    let key = world.nodes[1].key;
    let now = world.now;
    world.nodes[0].tunnel.set_peer(key, Vec::new(), 0, now);
    world.send(0, 1);
    world.run(seconds(10));
    let locators = world.locators(1);
    let now = world.now;
    world.nodes[0].tunnel.set_peer(key, locators, 0, now);
    world.run(millis(20));
    assert!(world.is_up(0));
}

// Attack: valid initiations of a stranger from 256 addresses | 300 | cookies are demanded; a real peer gets through
#[test]
fn attack_flood_of_initiations() {
    let mut world = World::pair();
    let stranger = Identity::new([77; 32], [9; 32], 7).unwrap();
    for n in 0..300 {
        let order = (1, n);
        let (bytes, _) = Attempt::start(&stranger, Suite::AesGcm, &world.nodes[1].key, 5, order, None).unwrap();
        let from = SocketAddr::new([203, 0, 113, n as u8].into(), 4341);
        world.deliver(&Packet { at: world.now, from, to: world.nodes[1].address, bytes });
    }
    assert!(world.count(1, Counter::CookiesSent) >= 100);
    world.send(0, 1);
    world.run(millis(300));
    assert!(world.is_up(0) && world.is_up(1));
    assert!(world.count(0, Counter::HandshakesInitiated) >= 2);
}

#[test]
fn a_cookie_costs_a_round_trip_and_no_pause() {
    let mut world = World::pair();
    let busy = Identity::new([77; 32], [9; 32], 7).unwrap();
    for n in 0..300 {
        let (bytes, _) = Attempt::start(&busy, Suite::AesGcm, &world.nodes[1].key, 5, (1, n), None).unwrap();
        let from = SocketAddr::new([203, 0, 113, n as u8].into(), 4341);
        world.deliver(&Packet { at: world.now, from, to: world.nodes[1].address, bytes });
    }
    world.send(0, 1);
    world.run(millis(25));
    assert!(world.is_up(0) && world.is_up(1));
    assert_eq!(world.count(0, Counter::HandshakesInitiated), 2);
}

#[test]
fn a_peer_that_has_forgotten_the_session_gets_one_after_it_was_asked_about_in_vain() {
    let mut world = World::pair();
    let key = world.nodes[1].key;
    world.nodes[0].tunnel.probe(&key, 1, world.now);
    world.run(millis(100));
    let (own, locators) = (world.nodes[0].key, world.locators(0));
    let id = world.nodes[1].tunnel.find(&own).unwrap();
    world.nodes[1].tunnel.remove_peer(id, false);
    world.nodes[0].tunnel.probe(&key, 2, world.now);
    world.run(seconds(3));
    assert_eq!(world.nodes[0].probes.last(), Some(&(2, None)));
    let now = world.now;
    world.nodes[1].tunnel.set_peer(own, locators, 0, now);
    world.run(millis(50));
    assert!(world.is_up(1));
    assert_eq!(world.session(0).remote_index, world.session(1).local_index);
}

#[test]
fn who_is_asked_about_has_its_path_mtu_found_before_anything_is_sent() {
    let mut world = World::pair();
    let key = world.nodes[1].key;
    world.interface_mtu = Some(1500);
    world.nodes[0].tunnel.probe(&key, 1, world.now);
    world.run(millis(200));
    assert_eq!(world.peer(0).path_mtu.size(), 1480);
}

#[test]
fn probes_answer_with_or_without_a_session() {
    let mut world = World::pair();
    let key = world.nodes[1].key;
    world.nodes[0].tunnel.probe(&key, 1, world.now);
    world.run(millis(100));
    world.nodes[0].tunnel.probe(&key, 2, world.now);
    world.run(millis(100));
    world.dead.push(world.nodes[1].address);
    world.nodes[0].tunnel.probe(&key, 3, world.now);
    world.nodes[0].tunnel.probe(&[8; 32], 4, world.now);
    world.run(seconds(3));
    let rtt = Some(millis(10));
    assert_eq!(world.nodes[0].probes, [(1, rtt), (2, rtt), (4, None), (3, None)]);
}

// Attack: packets of every kind of a session with a bit flipped, two thirds whole and one third cut, from elsewhere |
// 5000 | nothing moves, nothing is delivered; the session goes on
#[test]
fn attack_packets_with_a_bit_flipped_or_cut_short() {
    let mut world = World::pair();
    world.send(0, 1);
    world.run(millis(30));
    let mut state = 11u64;
    let samples: Vec<Packet> = world.log.iter().cloned().collect();
    for round in 0..5000usize {
        let mut packet = samples[round % samples.len()].clone();
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let at = (state >> 33) as usize % packet.bytes.len();
        packet.bytes[at] ^= 1 << (state % 8);
        if state.is_multiple_of(3) {
            packet.bytes.truncate(at);
        }
        packet.from = "203.0.113.1:1".parse().unwrap();
        world.deliver(&packet);
    }
    assert_eq!(world.endpoint(1), world.nodes[0].address);
    assert!(world.send(0, 1) && world.send(1, 0));
    world.run(millis(20));
    assert_eq!((world.nodes[0].data, world.nodes[1].data), (1, 1));
}
