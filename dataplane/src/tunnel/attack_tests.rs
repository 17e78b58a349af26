//! Attackers who see every packet, send what they like from any address, and read disks and memory afterwards.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::simulation::{Node, Packet, World, kind};
use super::*;
use crate::handshake::observer::{Stolen, dh, ephemeral_1, ephemeral_2, opens};
use crate::handshake::{Attempt, append_macs};
use crate::replay::WINDOW;
use crate::session::REJECT_AFTER_MESSAGES;
use crate::time::millis;
use crate::wiping::wipe_stack;
use crate::wire::{INITIATION, LISP_HEADER, MAC, NOISE_1};
use crate::x25519::disclosed;

/// Two hosts with a session that has carried data both ways.
fn up() -> World {
    let mut world = World::pair();
    world.send(0, 1);
    world.run(millis(30));
    assert!(world.send(0, 1) && world.send(1, 0));
    world.run(millis(30));
    assert_eq!((world.nodes[0].data, world.nodes[1].data), (1, 1));
    world
}

/// Whatever was tried: the session is the same, nobody has moved, and data goes both ways.
fn goes_on(world: &mut World, session: u32) {
    assert_eq!(world.session(0).local_index, session);
    assert_eq!((world.endpoint(0), world.endpoint(1)), (world.nodes[1].address, world.nodes[0].address));
    let before = (world.nodes[0].data, world.nodes[1].data);
    assert!(world.send(0, 1) && world.send(1, 0));
    world.run(millis(30));
    assert_eq!((world.nodes[0].data, world.nodes[1].data), (before.0 + 1, before.1 + 1));
}

fn captured(world: &World, wanted: Kind) -> Vec<Packet> {
    world.log.iter().filter(|packet| kind(&packet.bytes) == Some(wanted)).cloned().collect()
}

fn elsewhere(n: u16) -> SocketAddr {
    SocketAddr::new([203, 0, (n >> 8) as u8, n as u8].into(), 4341)
}

// Attack: every data packet of a session again, in order, backwards, and from elsewhere | 57 | dropped as replays and
// counted; the session goes on
#[test]
fn attack_data_replayed() {
    let mut world = up();
    for _ in 0..18 {
        world.send(0, 1);
    }
    world.run(millis(30));
    let (session, before) = (world.session(0).local_index, world.count(1, Counter::DropReplay));
    let data: Vec<Packet> =
        captured(&world, Kind::Data).into_iter().filter(|p| p.to == world.nodes[1].address).collect();
    let moved = data.iter().map(|packet| Packet { from: elsewhere(1), ..packet.clone() });
    let again: Vec<Packet> = data.iter().cloned().chain(data.iter().rev().cloned()).chain(moved).collect();
    let (tried, received) = (again.len() as u64, world.nodes[1].data);
    for packet in &again {
        world.deliver(packet);
    }
    assert_eq!((tried, world.count(1, Counter::DropReplay) - before, world.nodes[1].data), (57, 57, received));
    goes_on(&mut world, session);
}

// Attack: packets that were held back, within the window and behind it | 2 | the late one is taken once, the one behind
// the window not at all
#[test]
fn attack_packets_held_back() {
    let mut world = up();
    let session = world.session(0).local_index;
    let hold = |world: &mut World| {
        world.loses_first(1, Some(Kind::Data));
        world.send(0, 1);
        let (key, now) = (world.nodes[1].key, world.now);
        let tunnel = &mut world.nodes[0].tunnel;
        let id = tunnel.find(&key).unwrap();
        let (session, path) = tunnel.session_for_sending(id, now).unwrap();
        let mut bytes = vec![0; 8 + crate::wire::DATA_OVERHEAD];
        session.seal(Kind::Data, &[7; 8], &mut bytes).unwrap();
        world.loses(|_| false);
        Packet { at: now, from: world.nodes[0].address, to: path.remote, bytes }
    };
    let behind = hold(&mut world);
    for _ in 0..WINDOW {
        assert!(world.send(0, 1));
    }
    world.run(millis(20));
    let late = hold(&mut world);
    assert!(world.send(0, 1));
    world.run(millis(20));
    let (data, replays) = (world.nodes[1].data, world.count(1, Counter::DropReplay));
    for packet in [&behind, &late, &late] {
        world.deliver(packet);
    }
    assert_eq!((world.nodes[1].data, world.count(1, Counter::DropReplay)), (data + 1, replays + 2));
    goes_on(&mut world, session);
}

// Attack: a data packet with each bit of its header flipped, and with every counter of 0, one, the next, the last and
// beyond | 133 | dropped as of an unknown session, by authentication or as malformed
#[test]
fn attack_data_with_another_header() {
    let mut world = up();
    let session = world.session(0).local_index;
    let packet = captured(&world, Kind::Data).into_iter().find(|p| p.to == world.nodes[1].address).unwrap();
    let flipped = (0..128).map(|bit| {
        let mut bytes = packet.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    let counted = [0, 1, 2, REJECT_AFTER_MESSAGES, u64::MAX].map(|counter: u64| {
        let mut bytes = packet.bytes.clone();
        bytes[8..16].copy_from_slice(&counter.to_be_bytes());
        bytes
    });
    let forged: Vec<Vec<u8>> = flipped.chain(counted).filter(|bytes| *bytes != packet.bytes).collect();
    let data = world.nodes[1].data;
    for bytes in &forged {
        world.deliver(&Packet { from: elsewhere(1), bytes: bytes.clone(), ..packet.clone() });
    }
    assert_eq!(world.nodes[1].data, data);
    goes_on(&mut world, session);
}

// Attack: a packet of every kind of a session, cut at every length and longer by 1 to 32 octets | more than 500 |
// dropped; the session goes on
#[test]
fn attack_packets_of_another_length() {
    let mut world = up();
    let session = world.session(0).local_index;
    let data = (world.nodes[0].data, world.nodes[1].data);
    let mut tried = 0;
    for packet in world.log.clone() {
        let lengths = (0..packet.bytes.len()).chain(packet.bytes.len() + 1..=packet.bytes.len() + 32);
        for length in lengths {
            let mut bytes = packet.bytes.clone();
            bytes.resize(length, 0);
            world.deliver(&Packet { from: elsewhere(1), bytes, ..packet.clone() });
            tried += 1;
        }
    }
    assert!(tried > 500, "{tried}");
    assert_eq!((world.nodes[0].data, world.nodes[1].data), data);
    goes_on(&mut world, session);
}

// Attack: every packet of a session back to who sent it | all of a session | dropped; no session, no move, no data
#[test]
fn attack_own_packets_reflected() {
    let mut world = up();
    let session = world.session(0).local_index;
    let data = (world.nodes[0].data, world.nodes[1].data);
    let completed = world.count(0, Counter::HandshakesCompleted);
    for packet in world.log.clone() {
        for from in [packet.to, elsewhere(1)] {
            world.deliver(&Packet { from, to: packet.from, ..packet.clone() });
        }
    }
    world.run(millis(30));
    assert_eq!((world.nodes[0].data, world.nodes[1].data), data);
    assert_eq!(world.count(0, Counter::HandshakesCompleted), completed);
    goes_on(&mut world, session);
}

// Attack: the response of a session again, from the peer and from elsewhere | 2 | dropped and counted; the session stays
#[test]
fn attack_response_replayed() {
    let mut world = up();
    let (session, before) = (world.session(0).local_index, world.count(0, Counter::DropUnknownIndex));
    let response = captured(&world, Kind::Response).remove(0);
    world.deliver(&response);
    world.deliver(&Packet { from: elsewhere(1), ..response });
    assert_eq!(world.count(0, Counter::DropUnknownIndex), before + 2);
    goes_on(&mut world, session);
}

// Attack: data of one peer under the session index of another, both ways round | 2 | dropped by authentication
#[test]
fn attack_session_of_another_peer() {
    let mut world = World::pair();
    world.nodes.push(Node::new(2, 1));
    for (a, b) in [(1, 2), (2, 1)] {
        let (key, locators, now) = (world.nodes[b].key, world.locators(b), world.now);
        world.nodes[a].tunnel.set_peer(key, locators, 0, now);
    }
    for from in [0, 2] {
        world.send(from, 1);
        world.run(millis(30));
        assert!(world.send(from, 1));
        world.run(millis(30));
    }
    let of = |world: &World, from: usize| {
        let address = world.nodes[from].address;
        captured(world, Kind::Data).into_iter().rfind(|packet| packet.from == address).unwrap()
    };
    let (one, other) = (of(&world, 0), of(&world, 2));
    let before = world.count(1, Counter::DropAuth);
    for (packet, index) in [(&one, &other), (&other, &one)] {
        let mut swapped = packet.clone();
        swapped.bytes[1..4].copy_from_slice(&index.bytes[1..4]);
        swapped.from = index.from;
        world.deliver(&swapped);
    }
    assert_eq!((world.count(1, Counter::DropAuth), world.nodes[1].data), (before + 2, 2));
}

// Attack: an initiation in the receiver's own name, by somebody who has its private key | 1 | refused and counted; the
// agent is not asked
#[test]
fn attack_initiation_with_the_receivers_own_key() {
    let mut world = World::pair();
    let itself = Identity::new([2; 32], [9; 32], 7).unwrap();
    let (bytes, _) = Attempt::start(&itself, Suite::AesGcm, &itself.public, 5, (9, 9), None).unwrap();
    world.deliver(&Packet { at: world.now, from: elsewhere(1), to: world.nodes[1].address, bytes });
    assert_eq!((world.count(1, Counter::HandshakesRejected), world.log.len()), (1, 0));
    assert!(world.nodes[1].strangers.is_empty());
}

// Attack: an initiation and data of a peer that was removed | 2 | no answer, no session; the data is dropped
#[test]
fn attack_peer_that_was_removed() {
    let mut world = up();
    let key = world.nodes[0].key;
    let id = world.nodes[1].tunnel.find(&key).unwrap();
    world.nodes[1].tunnel.remove_peer(id, false);
    let (data, unknown) = (world.nodes[1].data, world.count(1, Counter::DropUnknownIndex));
    assert!(world.send(0, 1));
    world.run(millis(30));
    assert_eq!((world.nodes[1].data, world.count(1, Counter::DropUnknownIndex)), (data, unknown + 1));
    let (responses, now) = (captured(&world, Kind::Response).len(), world.now);
    world.nodes[0].tunnel.forget_sessions(0, now);
    world.run(seconds(20));
    assert!(!world.is_up(0));
    assert_eq!((captured(&world, Kind::Response).len(), world.nodes[1].data), (responses, data));
}

// Attack: the initiation of an earlier session to a host that was restarted, from elsewhere | 1 | answered to nobody's
// use: no session, and the real peer is back within two seconds
#[test]
fn attack_initiation_replayed_after_a_restart() {
    let mut world = up();
    let initiation = captured(&world, Kind::Initiation).remove(0);
    world.restart(1, 2);
    world.deliver(&Packet { from: elsewhere(1), ..initiation.clone() });
    world.run(millis(100));
    assert!(!world.is_up(1));
    for _ in 0..19 {
        world.send(0, 1);
        world.run(millis(100));
    }
    assert!(world.is_up(0) && world.is_up(1) && world.nodes[1].data > 0);
    assert_eq!(world.endpoint(1), world.nodes[0].address);
    let refused = world.count(1, Counter::HandshakesRejected) + world.count(1, Counter::HandshakesCopied);
    world.deliver(&Packet { from: elsewhere(2), ..initiation });
    assert_eq!(world.count(1, Counter::HandshakesRejected) + world.count(1, Counter::HandshakesCopied), refused + 1);
}

// Attack: an initiation with the peer's own keys, but the state of an older copy of it | 1 | refused and counted; the
// session goes on
#[test]
fn attack_initiation_of_an_older_copy() {
    let mut world = up();
    let session = world.session(0).local_index;
    let copy = Identity::new([1; 32], [9; 32], 7).unwrap();
    let (bytes, _) = Attempt::start(&copy, Suite::AesGcm, &world.nodes[1].key, 5, (0, u64::MAX), None).unwrap();
    world.deliver(&Packet { at: world.now, from: elsewhere(1), to: world.nodes[1].address, bytes });
    assert_eq!(world.count(1, Counter::HandshakesRejected), 1);
    goes_on(&mut world, session);
}

// Attack: cookie replies that nobody asked for, made up, or changed in any bit | 418 | dropped and counted; the handshake
// completes without a cookie
#[test]
fn attack_forged_cookie_replies() {
    let mut world = World::pair();
    world.dead.push(world.nodes[1].address);
    world.send(0, 1);
    world.run(millis(50));
    world.dead.clear();
    let peer = world.peer(0);
    let index = peer.handshake.as_ref().unwrap().attempts[0].index;
    let header = |index| Header { index, instance: 7, kind: Kind::CookieReply }.bytes();
    let mut forged: Vec<Vec<u8>> =
        vec![[&header(index ^ 1)[..], &[7; 44]].concat(), [&header(index)[..], &[7; 44]].concat()];
    let stranger = Identity::new([2; 32], [9; 32], 7).unwrap();
    let (mut initiation, _) =
        Attempt::start(&stranger, Suite::AesGcm, &world.nodes[1].key, index, (1, 1), None).unwrap();
    initiation.truncate(INITIATION - 2 * MAC);
    append_macs(&mut initiation, &world.nodes[1].key, None);
    let genuine = CookieJar::new().reply(&stranger, &initiation, b"source").unwrap();
    forged.extend((0..8 * genuine.len()).map(|bit| {
        let mut copy = genuine.clone();
        copy[bit / 8] ^= 1 << (bit % 8);
        copy
    }));
    for bytes in &forged {
        world.deliver(&Packet {
            at: world.now,
            from: world.nodes[1].address,
            to: world.nodes[0].address,
            bytes: bytes.clone(),
        });
    }
    assert_eq!(forged.len(), 418);
    assert!(world.peer(0).cookie.is_none());
    assert!(world.count(0, Counter::DropAuth) > 300 && world.count(0, Counter::DropUnknownIndex) >= 1);
    world.run(millis(300));
    assert!(world.is_up(0) && world.is_up(1));
}

// Attack: initiations with a right first MAC, each from another made-up address, for four seconds | 50,000 a second |
// a session with 1000 packets a second loses none, a new peer is in within two seconds, and memory is bounded
#[test]
fn attack_fifty_thousand_initiations_a_second() {
    let mut world = up();
    world.nodes.push(Node::new(2, 1));
    for (a, b) in [(1, 2), (2, 1)] {
        let (key, locators, now) = (world.nodes[b].key, world.locators(b), world.now);
        world.nodes[a].tunnel.set_peer(key, locators, 0, now);
    }
    let head =
        [&Header { index: 0, instance: 7, kind: Kind::Initiation }.bytes()[..], &[0, 0, 0, 5, 1, 0, 0, 0]].concat();
    let initiations: Vec<Vec<u8>> = (0..2000u16)
        .map(|n| {
            let noise: Vec<u8> = (0..NOISE_1).map(|at| (at as u16).wrapping_mul(31).wrapping_add(n) as u8).collect();
            let mut message = [&head[..], &noise].concat();
            append_macs(&mut message, &world.nodes[1].key, None);
            message
        })
        .collect();
    let (before, mut sent, mut in_after) = (world.nodes[1].data, 0u64, None);
    for n in 0..200_000u32 {
        let from = SocketAddr::new(
            [198, 18 | (n >> 16) as u8 & 1, (n >> 8) as u8, n as u8].into(),
            1024 + (n % 60_000) as u16,
        );
        let bytes = initiations[n as usize % initiations.len()].clone();
        world.deliver(&Packet { at: world.now, from, to: world.nodes[1].address, bytes });
        if n % 50 == 49 {
            sent += u64::from(world.send(0, 1));
            world.run(millis(1));
        }
        if n >= 50_000 && n % 1000 == 0 && in_after.is_none() {
            if world.send(2, 1) {
                in_after = Some((n - 50_000) / 50);
            }
            assert!(world.nodes[1].tunnel.parked.len() <= 64 && world.nodes[1].tunnel.load.sources() <= 2000);
        }
        world.log.clear();
    }
    world.run(millis(20));
    assert_eq!(sent, 4000);
    assert!(in_after.is_some_and(|milliseconds| milliseconds < 2000), "{in_after:?}");
    assert!(world.nodes[1].data - before >= sent);
    assert!(world.count(1, Counter::HandshakesRejected) > 140_000);
}

// Attack: initiations without a right first MAC, a half of them with the claim of a cookie, each from another made-up
// address, for two seconds | 100,000 | refused before they use up a budget: a peer has its session after the first
// round trip, without a cookie
#[test]
fn attack_initiations_of_hosts_that_know_no_key() {
    let mut world = World::pair();
    let other = Identity::new([77; 32], [9; 32], 7).unwrap();
    let (bytes, _) = Attempt::start(&other, Suite::AesGcm, &other.public, 5, (1, 1), None).unwrap();
    let (before, end) = (world.count(1, Counter::DropAuth), bytes.len() - 1);
    for n in 0..100_000u32 {
        let mut bytes = bytes.clone();
        bytes[end] = (n & 1) as u8;
        let from = SocketAddr::new(n.wrapping_mul(2_654_435_761).to_be_bytes().into(), 4341);
        world.deliver(&Packet { at: world.now, from, to: world.nodes[1].address, bytes });
        if n % 50 == 49 {
            world.run(millis(1));
        }
    }
    world.send(0, 1);
    world.run(millis(25));
    assert!(world.is_up(0) && world.is_up(1));
    assert_eq!((world.count(0, Counter::HandshakesInitiated), world.count(1, Counter::CookiesSent)), (1, 0));
    assert_eq!(world.count(1, Counter::DropAuth) - before, 100_000);
    assert_eq!(world.count(1, Counter::HandshakesRejected), 0);
}

// Attack: initiations from made-up addresses with keys that nobody has heard of, below the rate that counts as load |
// 1000 in ten seconds | 64 wait at once; whom the agent vouches for meanwhile gets in
#[test]
fn attack_strangers_who_fill_the_waiting_room() {
    let mut world = World::pair();
    let (key, locators) = (world.nodes[0].key, world.locators(0));
    let id = world.nodes[1].tunnel.find(&key).unwrap();
    world.nodes[1].tunnel.remove_peer(id, false);
    let flood = |world: &mut World, n: u16| {
        let mut private = [0xee; 32];
        private[..2].copy_from_slice(&n.to_be_bytes());
        let stranger = Identity::new(private, [9; 32], 7).unwrap();
        let (bytes, _) = Attempt::start(&stranger, Suite::AesGcm, &world.nodes[1].key, 5, (1, 1), None).unwrap();
        world.deliver(&Packet { at: world.now, from: elsewhere(n), to: world.nodes[1].address, bytes });
        world.run(millis(10));
        assert!(world.nodes[1].tunnel.parked.len() <= 65);
    };
    for n in 0..500 {
        flood(&mut world, n);
    }
    world.send(0, 1);
    for n in 500..1000 {
        flood(&mut world, n);
    }
    assert!(world.nodes[1].strangers.contains(&key), "the real one was asked about");
    let now = world.now;
    world.nodes[1].tunnel.set_peer(key, locators, 0, now);
    world.run(seconds(6));
    assert!(world.is_up(0) && world.is_up(1));
}

// Attack: all packets of two sessions, and afterwards the private keys of both hosts and the pre-shared key | every
// packet, with each secret that these keys give | none is opened; with an ephemeral key as well, all are
#[test]
fn attack_static_keys_stolen_after_the_capture() {
    disclosed::start();
    let mut world = up();
    for _ in 0..140 {
        assert!(world.send(0, 1) && world.send(1, 0));
        world.run(seconds(1));
    }
    assert_eq!(world.count(0, Counter::HandshakesCompleted), 2, "the session was renewed once");
    let ephemeral = disclosed::take();
    let stolen = stolen();
    let opened = |secrets: &dyn Fn(&Packet, &Packet) -> Vec<[u8; 32]>| {
        let keys: Vec<[u8; 32]> = handshakes(&world)
            .filter_map(|(one, two)| stolen.open(&one.bytes, &two.bytes, &secrets(&one, &two)))
            .flat_map(|(_, keys)| keys)
            .collect();
        world.log.iter().filter(|packet| keys.iter().any(|key| opens(key, &packet.bytes))).count()
    };
    let sealed = captured(&world, Kind::Data).len() + captured(&world, Kind::Control).len();
    assert!(sealed > 280);
    assert_eq!(opened(&|one, two| stolen.secrets(&one.bytes, &two.bytes)), 0);
    let with_ephemeral = |one: &Packet, two: &Packet| {
        let seen = [ephemeral_1(&one.bytes), ephemeral_2(&two.bytes)];
        ephemeral.iter().flat_map(|key| seen.map(|point| dh(key, &point))).collect()
    };
    assert_eq!(opened(&with_ephemeral), sealed);
}

// Attack: a search of the whole memory of the process for the keys of a session that has ended, and for the ephemeral
// keys and the chaining key of one that is up | 3 | found while they are needed, and nothing of them afterwards
#[test]
fn attack_memory_searched_for_keys() {
    disclosed::start();
    let mut world = World::pair();
    world.send(0, 1);
    let handshaking = Memory::read(1);
    world.run(millis(30));
    assert!(world.send(0, 1));
    world.run(millis(30));
    assert_eq!(world.nodes[1].data, 1);
    let established = Memory::read(2);
    for (node, private) in [(0, 3), (1, 4)] {
        world.nodes[node].tunnel.configure(Identity::new([private; 32], [9; 32], 7).unwrap(), 1);
    }
    wipe_stack();
    let ended = Memory::read(4);

    let ephemeral = disclosed::take();
    let (one, two) = handshakes(&world).next().unwrap();
    let seen = ephemeral_2(&two.bytes);
    let secrets: Vec<[u8; 32]> = ephemeral.iter().map(|key| dh(key, &seen)).collect();
    let (chaining, keys) = stolen().open(&one.bytes, &two.bytes, &secrets).unwrap();
    assert!(handshaking.count(&ephemeral[0]) > 0, "an ephemeral key of a handshake that is under way");
    for key in &keys {
        assert!(established.count(key) > 0, "a key of a session that is up");
        assert_eq!(ended.count(key), 0, "a key of a session that has ended");
    }
    for secret in ephemeral.iter().chain([&chaining]) {
        assert_eq!((established.count(secret), ended.count(secret)), (0, 0), "a secret of the handshake");
    }
}

fn stolen() -> Stolen {
    Stolen { initiator: [1; 32], responder: [2; 32], preshared: [9; 32], instance: 7 }
}

/// Initiations of the first host with their responses.
fn handshakes(world: &World) -> impl Iterator<Item = (Packet, Packet)> {
    let responses = captured(world, Kind::Response);
    captured(world, Kind::Initiation).into_iter().filter_map(move |initiation| {
        let answers = |response: &&Packet| response.bytes[1..4] == initiation.bytes[LISP_HEADER + 1..LISP_HEADER + 4];
        let response = responses.iter().find(answers)?.clone();
        Some((initiation, response))
    })
}

/// All that this process can write to, as it is now. Each octet is changed, and in each copy otherwise, so that none is
/// found in a later one.
struct Memory {
    octets: Vec<u8>,
    mask: u8,
}

impl Memory {
    fn read(mask: u8) -> Memory {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let file = File::open("/proc/self/mem").unwrap();
        let mut octets = Vec::new();
        for line in maps.lines().filter(|line| line.contains(" rw")) {
            let (from, to) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
            let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
            let mut region = vec![0; (to - from) as usize];
            // A part that another test has given back meanwhile is none of ours.
            if let Ok(length) = file.read_at(&mut region, from) {
                octets.extend(region[..length].iter().map(|octet| octet ^ mask));
            }
        }
        Memory { octets, mask }
    }

    fn count(&self, secret: &[u8; 32]) -> usize {
        let masked = secret.map(|octet| octet ^ self.mask);
        self.octets.windows(32).filter(|octets| octets[0] == masked[0] && *octets == masked).count()
    }
}
