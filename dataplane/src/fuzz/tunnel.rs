//! Two tunnels, a hostile network between them and a clock that jumps: whatever is delivered was sent by the other
//! end, once, and timers always come to rest.

use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Input;
use crate::handshake::{Identity, PublicKey, Suite};
use crate::outer_error::{OuterError, classify};
use crate::peer::{Locator, Path, PeerId};
use crate::retransmit::Limits;
use crate::time::{Time, millis};
use crate::tunnel::{Output, Tunnel, Uplink};
use crate::wire::{DATA_HEADER, DATA_OVERHEAD, Header, Kind, TAG};

struct World {
    now: Time,
    nodes: Vec<Node>,
    wire: VecDeque<Datagram>,
}

struct Node {
    tunnel: Tunnel,
    key: PublicKey,
    address: SocketAddr,
    sent: u64,
    received: HashSet<u64>,
}

struct Datagram {
    from: SocketAddr,
    to: usize,
    bytes: Vec<u8>,
}

/// A list of steps, each an octet and what it needs.
pub fn tunnel(data: &[u8]) {
    let mut input = Input(data);
    let mut world =
        World { now: Time::from_nanos(1_000_000_000), nodes: [1, 2].map(node).into(), wire: VecDeque::new() };
    for n in [0, 1] {
        world.introduce(n);
    }
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
        world.rest();
    }
}

fn node(n: u8) -> Node {
    let Some(identity) = Identity::new([n; 32], [9; 32], 7) else { panic!("no identity") };
    let key = identity.public;
    let mut tunnel = Tunnel::new(Suite::AesGcm, Limits::default());
    tunnel.configure(identity, 1);
    Node { tunnel, key, address: SocketAddr::new([192, 0, 2, n].into(), 4341), sent: 0, received: HashSet::new() }
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        let step = input.u8();
        let n = usize::from(step >> 7);
        let now = self.now;
        match step & 0x1f {
            // The usual course of things is the most probable one.
            0..=4 => self.send(n, 8 + usize::from(input.u8()) * 6),
            5..=9 => self.deliver_oldest(),
            10 => (0..8).for_each(|_| self.deliver_oldest()),
            11 => {
                let at = input.below(64);
                self.deliver_copy(at, |_| {});
            }
            12 => {
                let at = input.below(64);
                let (place, difference) = (usize::from(input.u16()), input.u8());
                self.deliver_copy(at, |bytes| {
                    let place = place % bytes.len();
                    bytes[place] ^= difference;
                });
            }
            13 => {
                let at = input.below(64);
                let length = usize::from(input.u16());
                self.deliver_copy(at, |bytes| bytes.truncate(length));
            }
            14 => {
                let length = usize::from(input.u8());
                let bytes = input.take(length).to_vec();
                self.wire.push_front(Datagram { from: self.nodes[1 - n].address, to: n, bytes });
                self.deliver_oldest();
            }
            15 => {
                self.wire.pop_front();
            }
            16 => self.wire.clear(),
            17 => self.advance(millis(u64::from(input.u8()))),
            18 => self.advance(millis(u64::from(input.u16()))),
            19 => self.advance(millis(1 << input.below(20))),
            20 => {
                self.nodes[n].address = SocketAddr::new([192, 0, 2, input.u8()].into(), 4341);
                self.nodes[n].tunnel.locators_changed(now);
            }
            21 => self.introduce(n),
            22 => {
                let locators = (0..input.below(5)).map(|_| locator(input)).collect();
                let key = self.nodes[1 - n].key;
                self.nodes[n].tunnel.set_peer(key, locators, 0, now);
            }
            23 => {
                if let Some(id) = self.peer_of(n) {
                    self.nodes[n].tunnel.remove_peer(id, input.u8() & 1 == 0);
                    // As a process that was started again: what it received before may come once more.
                    self.nodes[n].received.clear();
                }
            }
            24 => {
                let [origin, kind, code] = input.array();
                let info = u32::from(input.u16());
                let quoted = self.wire.iter().find(|d| d.to != n).and_then(|d| d.bytes.first_chunk()).copied();
                if let Some(problem) = classify(origin, kind, code, info) {
                    let error = OuterError { to: self.nodes[1 - n].address, problem, quoted };
                    self.nodes[n].tunnel.handle_outer_error(&error, now);
                }
            }
            25 => {
                let key = self.nodes[1 - n].key;
                self.nodes[n].tunnel.probe(&key, u64::from(input.u8()), now);
            }
            26 => {
                let routes = (0..input.below(4)).map(|_| uplink(input)).collect();
                self.nodes[n].tunnel.set_uplinks(routes);
            }
            27 => {
                let epoch = input.u64() >> 8;
                let Some(identity) = Identity::new([1 + n as u8; 32], [9 - (epoch & 1) as u8; 32], 7) else { return };
                self.nodes[n].tunnel.configure(identity, epoch);
            }
            28 => {
                if let Some(id) = self.peer_of(n) {
                    let (ceiling, inner) = (input.u16(), u32::from(input.u16()));
                    self.nodes[n].tunnel.set_path_ceiling(id, ceiling, inner, self.now);
                }
            }
            29 => {
                // Sealed for nobody, with the index of a session.
                let length = usize::from(input.u8());
                let rest = input.take(length).to_vec();
                let at = input.below(64);
                self.deliver_copy(at, |bytes| {
                    bytes.truncate(DATA_HEADER);
                    bytes.extend_from_slice(&rest);
                });
            }
            30 if step & RARE == RARE => {
                self.nodes[n].tunnel.fall_asleep(0, now);
                // Some of what was sent last comes once more after the waking.
                self.nodes[n].received.clear();
            }
            31 if step & RARE == RARE => self.nodes[n].tunnel.resumed(now),
            _ => {
                self.nodes[n].tunnel.expire_kept(now);
            }
        }
    }

    fn peer_of(&self, n: usize) -> Option<PeerId> {
        self.nodes[n].tunnel.find(&self.nodes[1 - n].key)
    }

    fn introduce(&mut self, n: usize) {
        let other = &self.nodes[1 - n];
        let (key, locators) = (other.key, vec![Locator { address: other.address, priority: 1, weight: 1 }]);
        self.nodes[n].tunnel.set_peer(key, locators, 0, self.now);
    }

    /// A packet that says its number and who sends it.
    fn send(&mut self, n: usize, length: usize) {
        let Some(id) = self.peer_of(n) else { return };
        let now = self.now;
        let node = &mut self.nodes[n];
        let Some((session, path)) = node.tunnel.session_for_sending(id, now) else { return };
        let mut payload = vec![n as u8; length];
        payload[..8].copy_from_slice(&node.sent.to_be_bytes());
        let mut bytes = vec![0; length + DATA_OVERHEAD];
        assert_eq!(session.seal(Kind::Data, &payload, &mut bytes), Some(bytes.len()));
        node.sent += 1;
        node.tunnel.keep(id, path, &bytes, bytes.len(), now);
        node.tunnel.sent_data(id, bytes.len(), now);
        node.tunnel.sent_size(id, bytes.len(), now);
        self.put(n, path, bytes);
    }

    fn put(&mut self, n: usize, path: Path, bytes: Vec<u8>) {
        if self.wire.len() == MAX_WIRE {
            self.wire.pop_front();
        }
        let from = path.local.map_or(self.nodes[n].address, |local| SocketAddr::new(local, 4341));
        self.wire.push_back(Datagram { from, to: 1 - n, bytes });
    }

    fn deliver_oldest(&mut self) {
        if let Some(datagram) = self.wire.pop_front() {
            self.deliver(datagram);
            self.drain();
        }
    }

    fn deliver_copy(&mut self, at: usize, change: impl FnOnce(&mut Vec<u8>)) {
        let Some(datagram) = self.wire.get(at % self.wire.len().max(1)) else { return };
        let mut bytes = datagram.bytes.clone();
        change(&mut bytes);
        let copy = Datagram { from: datagram.from, to: datagram.to, bytes };
        self.deliver(copy);
        self.drain();
    }

    fn deliver(&mut self, datagram: Datagram) {
        let Datagram { from, to, mut bytes } = datagram;
        let Ok(header) = Header::parse(&bytes) else { return };
        let (now, other_sent) = (self.now, self.nodes[1 - to].sent);
        let node = &mut self.nodes[to];
        let path = Path { remote: from, local: Some(node.address.ip()), link: 0 };
        match header.kind {
            Kind::Initiation | Kind::Response | Kind::CookieReply => {
                node.tunnel.handle_handshake(path, header, &bytes, now);
            }
            Kind::Control => {
                let _ = node.tunnel.open(path, header, &mut bytes, now);
            }
            Kind::Data | Kind::DataPartial => {
                if node.tunnel.open(path, header, &mut bytes, now).is_ok() {
                    let payload = &bytes[DATA_HEADER..bytes.len() - TAG];
                    let Some((number, rest)) = payload.split_first_chunk() else { panic!("a packet nobody sent") };
                    let number = u64::from_be_bytes(*number);
                    assert!(number < other_sent && rest.iter().all(|octet| usize::from(*octet) == 1 - to));
                    assert!(node.received.insert(number), "packet {number} was delivered twice");
                }
            }
        }
    }

    /// Carries out what the tunnels have said.
    fn drain(&mut self) {
        for n in [0, 1] {
            let mut outputs = 0;
            while let Some(output) = self.nodes[n].tunnel.poll() {
                outputs += 1;
                assert!(outputs < 10_000, "one step made {outputs} outputs");
                match output {
                    Output::Transmit { path, bytes, .. }
                    | Output::Resend { path, bytes, .. }
                    | Output::SizeProbe { path, bytes, .. } => self.put(n, path, bytes),
                    Output::ProbeResult { .. }
                    | Output::SessionUp(_)
                    | Output::EndpointChanged(_)
                    | Output::UnknownPeer(_)
                    | Output::PeerMoved { .. }
                    | Output::Handover { .. }
                    | Output::UplinksChanged => {}
                }
            }
        }
    }

    fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
    }

    /// All that is due now is done, and then nothing more is due now.
    fn rest(&mut self) {
        self.drain();
        for n in [0, 1] {
            let mut calls = 0;
            while self.nodes[n].tunnel.next_timeout() <= self.now {
                self.nodes[n].tunnel.handle_timeout(self.now);
                calls += 1;
                assert!(calls < 100, "timers do not come to rest");
            }
        }
        self.drain();
    }
}

fn locator(input: &mut Input<'_>) -> Locator {
    let [a, b, priority, weight] = input.array();
    let ip: IpAddr = if a & 1 == 0 {
        [192, 0, 2, b].into()
    } else {
        [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b].into()
    };
    Locator { address: SocketAddr::new(ip, 4341), priority, weight }
}

fn uplink(input: &mut Input<'_>) -> Uplink {
    let [link, address, state] = input.array();
    let destination = crate::prefix::Prefix { address: IpAddr::from([0; 4]), length: 0 };
    let (address, up, version) = ([192, 0, 2, address].into(), state & 1 == 0, u64::from(state >> 6));
    Uplink { link: u32::from(link % 4), address, destination, gateway: None, up, version }
}

/// One in four.
const RARE: u8 = 0x60;
const MAX_STEPS: usize = 300;
const MAX_WIRE: usize = 64;
