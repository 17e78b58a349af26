//! What happens at the ends of the number spaces: 24-bit session indices, 64-bit counters.

use super::simulation::World;
use super::*;
use crate::session::{REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES};
use crate::time::millis;

fn up() -> World {
    let mut world = World::pair();
    world.send(0, 1);
    world.run(millis(20));
    assert!(world.is_up(0) && world.is_up(1));
    world
}

fn skip(world: &mut World, node: usize, counter: u64) {
    let key = world.nodes[1 - node].key;
    let tunnel = &mut world.nodes[node].tunnel;
    let id = tunnel.find(&key).unwrap();
    tunnel.peer_mut(id).unwrap().current.as_mut().unwrap().skip_to(counter);
}

#[test]
fn who_has_sent_many_packets_renews_the_session_without_loss() {
    for node in [0, 1] {
        let mut world = up();
        skip(&mut world, node, REKEY_AFTER_MESSAGES - 2);
        for _ in 0..20 {
            assert!(world.send(node, 1 - node));
            world.run(millis(5));
        }
        world.run(millis(50));
        assert_eq!(world.nodes[1 - node].data, 20);
        assert!(world.session(node).next_counter() < 1000);
        assert_eq!(world.count(node, Counter::HandshakesInitiated), 1 + u64::from(node == 0));
    }
}

#[test]
fn no_counter_is_used_beyond_the_last_one() {
    let mut world = up();
    skip(&mut world, 0, REJECT_AFTER_MESSAGES - 3);
    world.loses(|kind| matches!(kind, Some(Kind::Initiation | Kind::Response)));
    let sent = (0..10).filter(|_| world.send(0, 1)).count();
    world.run(millis(3000));
    assert_eq!((sent, world.nodes[1].data), (3, 3));
    assert_eq!(world.session(0).next_counter(), REJECT_AFTER_MESSAGES);
    assert!(!world.send(0, 1), "what keeps the session alive has not made room");
    world.loses(|_| false);
    world.run(millis(2500));
    assert!(world.send(0, 1));
    world.run(millis(20));
    assert_eq!(world.nodes[1].data, 4);
    assert!(world.session(0).next_counter() < 1000);
}

#[test]
fn without_a_free_index_there_is_no_handshake_and_with_one_there_is() {
    for node in [0, 1] {
        let mut world = World::pair();
        world.nodes[node].tunnel.index_limit = 0;
        world.send(0, 1);
        world.run(millis(4000));
        assert!(!world.is_up(0) && !world.is_up(1));
        let rejected = world.count(node, Counter::HandshakesRejected);
        assert_eq!(rejected > 0, node == 1, "{rejected}");
        world.nodes[node].tunnel.index_limit = 8;
        world.send(0, 1);
        world.run(millis(4000));
        assert!(world.is_up(0) && world.is_up(1), "{node}");
    }
}
