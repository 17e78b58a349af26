//! A host with a thousand correspondents moves: real packets over real sockets, and how long it takes.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::sys;
use crate::time::millis;

#[test]
fn a_thousand_correspondents_follow_a_move() {
    let sockets: [UdpSocket; 3] = std::array::from_fn(|_| socket());
    let [before, after, theirs] = sockets.each_ref().map(|s| s.local_addr().unwrap());
    let [_, own_socket, their_socket] = sockets;
    let (mut mover, mut others) = (tunnel(0), (1..=PEERS).map(tunnel).collect::<Vec<_>>());
    for other in &mut others {
        meet(&mut mover, other, before, theirs);
    }
    let mut by_index: HashMap<u32, Vec<usize>> = HashMap::new();
    for (n, other) in others.iter().enumerate() {
        by_index.entry(the_peer(other).current.as_ref().unwrap().local_index).or_default().push(n);
    }

    let all_moved = AtomicBool::new(false);
    let started = sys::now();
    std::thread::scope(|scope| {
        let correspondents = scope.spawn(|| {
            let mut buffer = vec![0; 65_536];
            let mut moved = 0;
            while moved < PEERS {
                let Ok((length, remote)) = their_socket.recv_from(&mut buffer) else { continue };
                let path = Path { local: Some(theirs.ip()), ..Path::to(remote) };
                let header = Header::parse(&buffer[..length]).unwrap();
                for &n in &by_index[&header.index] {
                    let was = the_peer(&others[n]).endpoint.unwrap().remote;
                    let _ = others[n].open(path, header, &mut buffer[..length].to_vec(), sys::now());
                    moved += usize::from(was == before && the_peer(&others[n]).endpoint.unwrap().remote == after);
                    send_all(&mut others[n], &their_socket);
                }
            }
            all_moved.store(true, Ordering::Release);
            sys::now()
        });
        mover.locators_changed(started);
        let spoken = send_all(&mut mover, &own_socket);
        let spoke = sys::now().since(started);
        assert_eq!(spoken, 2 * PEERS, "a probe and a report to each, before any answer");
        let mut buffer = vec![0; 65_536];
        while !all_moved.load(Ordering::Acquire) {
            assert!(sys::now().since(started) < seconds(60));
            if let Ok((length, remote)) = own_socket.recv_from(&mut buffer) {
                let header = Header::parse(&buffer[..length]).unwrap();
                let _ = mover.open(Path::to(remote), header, &mut buffer[..length], sys::now());
            }
            mover.handle_timeout(sys::now());
            send_all(&mut mover, &own_socket);
        }
        let took = correspondents.join().unwrap().since(started);
        println!("{PEERS} correspondents: spoken to after {spoke:?}, all switched after {took:?}");
    });
}

#[test]
fn a_thousand_correspondents_hear_of_a_move_before_one_hears_more() {
    let [own, theirs] = ["192.0.2.1:4341", "198.51.100.1:4341"].map(|address| address.parse().unwrap());
    let mut mover = tunnel(0);
    for n in 1..=PEERS {
        meet(&mut mover, &mut tunnel(n), own, theirs);
    }
    while mover.poll().is_some() {}
    mover.locators_changed(sys::now());
    let mut first = Vec::new();
    while first.len() < PEERS
        && let Some(output) = mover.poll()
    {
        if let Output::Transmit { peer, .. } = output {
            first.push(peer.unwrap().0);
        }
    }
    first.sort_unstable();
    assert_eq!(first, (0..PEERS as u32).collect::<Vec<_>>());
}

#[test]
fn a_thousand_correspondents_have_time_to_answer_before_they_are_asked_again() {
    let own = "192.0.2.1:4341".parse().unwrap();
    let theirs = "198.51.100.1:4341".parse().unwrap();
    for (count, again) in [(1, millis(20)), (PEERS, millis(100))] {
        let mut mover = tunnel(0);
        for n in 1..=count {
            meet(&mut mover, &mut tunnel(n), own, theirs);
        }
        let now = sys::now();
        while mover.poll().is_some() {}
        mover.locators_changed(now);
        let mut spoken = |at: Time| {
            mover.handle_timeout(at);
            std::iter::from_fn(|| mover.poll()).filter(|o| matches!(o, Output::Transmit { .. })).count()
        };
        assert_eq!(spoken(now), 2 * count, "a probe and a report to each at once");
        assert_eq!(spoken(now + again - millis(1)), 0);
        assert!(spoken(now + again) >= 2 * count);
    }
}

#[test]
fn a_thousand_correspondents_are_not_asked_again_while_answers_come() {
    let [own, theirs] = ["192.0.2.1:4341", "198.51.100.1:4341"].map(|address| address.parse().unwrap());
    let (mut mover, mut others) = (tunnel(0), (1..=PEERS).map(tunnel).collect::<Vec<_>>());
    for other in &mut others {
        meet(&mut mover, other, own, theirs);
    }
    let started = sys::now();
    while mover.poll().is_some() {}
    mover.locators_changed(started);
    let words: Vec<_> = std::iter::from_fn(|| mover.poll())
        .filter_map(|output| match output {
            Output::Transmit { peer, bytes, .. } => Some((peer.unwrap().0 as usize, bytes)),
            _ => None,
        })
        .collect();
    // All but the last ten hear the probe, and then the report: one each tenth of a millisecond.
    let mut at = started;
    for (n, mut bytes) in words.into_iter().filter(|(n, _)| *n < PEERS - 10) {
        at = at + Duration::from_micros(110);
        mover.handle_timeout(at);
        assert_eq!(transmitted(&mut mover), 0, "asked again after {:?}", at.since(started));
        let header = Header::parse(&bytes).unwrap();
        let _ = others[n].open(Path::to(own), header, &mut bytes, at);
        carry(&mut others[n], &mut mover, theirs, at);
    }
    assert!(at.since(started) > millis(200));
    mover.handle_timeout(at + millis(19));
    assert_eq!(transmitted(&mut mover), 0);
    mover.handle_timeout(at + millis(21));
    assert!(transmitted(&mut mover) >= 20, "a probe and a report to each that has not answered");
}

#[test]
fn a_thousand_sessions_are_renewed_one_after_the_other_the_busy_ones_first() {
    let [own, theirs] = ["192.0.2.1:4341", "198.51.100.1:4341"].map(|address| address.parse().unwrap());
    let mut host = tunnel(0);
    for n in 1..=PEERS {
        meet(&mut host, &mut tunnel(n), own, theirs);
    }
    while host.poll().is_some() {}
    let started = sys::now();
    let busy: Vec<PeerId> = (300..320).map(PeerId).collect();
    for id in &busy {
        host.sent_data(*id, 100, started);
    }
    host.renew_sessions(0, started);
    let first = initiated(&mut host);
    assert!(busy.iter().all(|id| first.contains(id)) && first.len() < 100, "{first:?}");
    let all = initiated_within(&mut host, started, seconds(1));
    assert_eq!(first.len() + all.len(), PEERS, "each once");
}

#[test]
fn a_thousand_peers_are_greeted_within_a_second_those_that_are_heard_first() {
    let mut host = tunnel(0);
    let address = |n: usize| SocketAddr::new([192, 0, (n >> 8) as u8, n as u8].into(), 4341);
    let started = sys::now();
    for n in 1..=PEERS {
        let locators = vec![Locator { address: address(n), priority: 1, weight: 100 }];
        host.set_peer(tunnel(n).public_key().unwrap(), locators, 0, started);
    }
    host.greet(started);
    let first = initiated(&mut host);
    let heard: Vec<usize> = (500..600).collect();
    for n in &heard {
        host.heard_unknown_index(Path::to(address(*n)), started);
    }
    assert!(initiated(&mut host).is_empty(), "not in a burst");
    let next = initiated_within(&mut host, started, millis(100));
    let ids = |n: &usize| host.find(&tunnel(*n).public_key().unwrap()).unwrap();
    let mut expected: Vec<PeerId> = heard.iter().map(ids).collect();
    expected.sort_unstable();
    let mut sooner = next.clone();
    sooner.sort_unstable();
    assert_eq!(sooner, expected);
    let last = initiated_within(&mut host, started + millis(100), millis(900));
    assert_eq!(first.len() + next.len() + last.len(), PEERS, "each once");
}

#[test]
fn a_host_that_has_no_time_greets_no_more_at_once_for_it() {
    let mut host = tunnel(0);
    let started = sys::now();
    for n in 1..=PEERS {
        let locators = vec![Locator { address: "198.51.100.1:4341".parse().unwrap(), priority: 1, weight: 100 }];
        host.set_peer(tunnel(n).public_key().unwrap(), locators, 0, started);
    }
    host.greet(started);
    let _ = initiated(&mut host);
    host.handle_timeout(started + seconds(60));
    let mut late = initiated(&mut host);
    late.retain(|id| host.peer(*id).unwrap().handshake.as_ref().unwrap().tries == 1);
    assert_eq!(late.len(), 4);
}

fn transmitted(host: &mut Tunnel) -> usize {
    std::iter::from_fn(|| host.poll()).filter(|output| matches!(output, Output::Transmit { .. })).count()
}

/// Whom initiations go to.
fn initiated(host: &mut Tunnel) -> Vec<PeerId> {
    let mut peers = Vec::new();
    while let Some(output) = host.poll() {
        if let Output::Transmit { peer: Some(id), bytes, .. } = output
            && Header::parse(&bytes).is_ok_and(|header| header.kind == Kind::Initiation)
        {
            peers.push(id);
        }
    }
    peers
}

/// For the first time, with the clock of a loop that turns every millisecond.
fn initiated_within(host: &mut Tunnel, from: Time, time: Duration) -> Vec<PeerId> {
    let mut peers = Vec::new();
    let mut now = from;
    while now < from + time {
        now = now + millis(1);
        host.handle_timeout(now);
        for id in initiated(host) {
            if host.peer(id).unwrap().handshake.as_ref().unwrap().tries == 1 {
                peers.push(id);
            }
        }
    }
    peers
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let _ = sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8i32 << 20);
    socket
}

fn tunnel(n: usize) -> Tunnel {
    let mut private = [1; 32];
    private[..8].copy_from_slice(&n.to_be_bytes());
    let mut tunnel = Tunnel::new(Suite::AesGcm, Limits::default());
    tunnel.configure(Identity::new(private, [9; 32], 7).unwrap(), 1);
    tunnel
}

/// A session between two, without a network.
fn meet(mover: &mut Tunnel, other: &mut Tunnel, own: SocketAddr, theirs: SocketAddr) {
    let now = sys::now();
    let locator = |address| vec![Locator { address, priority: 1, weight: 100 }];
    let id = mover.set_peer(other.public_key().unwrap(), locator(theirs), 0, now);
    other.set_peer(mover.public_key().unwrap(), locator(own), 0, now);
    mover.want_session(id, now);
    while carry(mover, other, own, now) + carry(other, mover, theirs, now) > 0 {}
    assert!(mover.peer(id).unwrap().is_up(now) && the_peer(other).is_up(now));
}

fn carry(from: &mut Tunnel, to: &mut Tunnel, source: SocketAddr, now: Time) -> usize {
    let mut carried = 0;
    while let Some(output) = from.poll() {
        let Output::Transmit { mut bytes, .. } = output else { continue };
        carried += 1;
        let header = Header::parse(&bytes).unwrap();
        match header.kind {
            Kind::Data | Kind::DataPartial | Kind::Control => drop(to.open(Path::to(source), header, &mut bytes, now)),
            _ => to.handle_handshake(Path::to(source), header, &bytes, now),
        }
    }
    carried
}

fn the_peer(tunnel: &Tunnel) -> &Peer {
    tunnel.peers().next().unwrap().1
}

/// How many packets that were.
fn send_all(tunnel: &mut Tunnel, socket: &UdpSocket) -> usize {
    let mut sent = 0;
    while let Some(output) = tunnel.poll() {
        if let Output::Transmit { path, bytes, .. } = output {
            sent += socket.send_to(&bytes, path.remote).map_or(0, |_| 1);
        }
    }
    sent
}

const PEERS: usize = 1000;
