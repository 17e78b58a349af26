//! Hosts with their tunnels and the network between them, in tests: on a virtual clock, with packets that are late, lost,
//! too long, or from elsewhere.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::*;
use crate::retransmit::Limits;
use crate::time::millis;
use crate::wire::DATA_OVERHEAD;

#[derive(Clone)]
pub struct Packet {
    pub at: Time,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

pub struct Node {
    pub tunnel: Tunnel,
    pub key: PublicKey,
    pub address: SocketAddr,
    pub aliases: Vec<SocketAddr>,
    /// Interfaces and their addresses, when there are several.
    pub uplinks: Vec<(u32, IpAddr)>,
    /// How often it said that its uplinks are other ones.
    pub uplink_changes: u32,
    pub data: u64,
    /// Data packets sent, and the numbers of those received.
    pub sent: u64,
    pub numbers: Vec<u64>,
    pub strangers: Vec<PublicKey>,
    pub moves: Vec<SocketAddr>,
    pub handovers: Vec<Duration>,
    pub probes: Vec<(u64, Option<Duration>)>,
}

pub type Loss = Box<dyn FnMut(Option<Kind>) -> bool>;

pub struct World {
    pub now: Time,
    pub latency: Duration,
    /// By how many milliseconds the next packets are late: a digit to the base 3 for each.
    pub lateness: u32,
    pub nodes: Vec<Node>,
    pub wire: VecDeque<Packet>,
    /// Everything that was sent and not lost.
    pub log: VecDeque<Packet>,
    loss: Loss,
    /// Addresses that nothing reaches.
    pub dead: Vec<SocketAddr>,
    /// Of all hosts; none are known without it.
    pub interface_mtu: Option<u16>,
    /// Of the network between the hosts.
    pub path_mtu: usize,
    /// Pairs of addresses, from and to, between which everything is lost without a word.
    pub cut: Vec<(IpAddr, IpAddr)>,
}

impl World {
    pub fn pair() -> World {
        let nodes = (0..2).map(|n| Node::new(n, 1)).collect();
        let mut world = World {
            now: Time::from_millis(1000),
            latency: millis(5),
            lateness: 0,
            nodes,
            wire: VecDeque::new(),
            log: VecDeque::new(),
            loss: Box::new(|_| false),
            dead: Vec::new(),
            interface_mtu: None,
            path_mtu: usize::MAX,
            cut: Vec::new(),
        };
        world.introduce();
        world
    }

    fn introduce(&mut self) {
        for (a, b) in [(0, 1), (1, 0)] {
            let (key, locators, now) = (self.nodes[b].key, self.locators(b), self.now);
            self.nodes[a].tunnel.set_peer(key, locators, 0, now);
        }
    }

    pub fn locators(&self, node: usize) -> Vec<Locator> {
        vec![Locator { address: self.nodes[node].address, priority: 1, weight: 1 }]
    }

    pub fn loses(&mut self, loss: impl FnMut(Option<Kind>) -> bool + 'static) {
        self.loss = Box::new(loss);
    }

    /// Loses the first packets, of one kind or of any.
    pub fn loses_first(&mut self, count: u32, which: Option<Kind>) {
        let mut left = count;
        self.loses(move |kind| {
            let hit = left > 0 && (which.is_none() || kind == which);
            left -= u32::from(hit);
            hit
        });
    }

    pub fn restart(&mut self, node: usize, epoch: u64) {
        let address = self.nodes[node].address;
        self.nodes[node] = Node { address, ..Node::new(node, epoch) };
        self.introduce();
    }

    /// One data packet; false when there is no session yet.
    pub fn send(&mut self, from: usize, to: usize) -> bool {
        self.send_sized(from, to, 100)
    }

    pub fn send_sized(&mut self, from: usize, to: usize, length: usize) -> bool {
        let key = self.nodes[to].key;
        let now = self.now;
        let node = &mut self.nodes[from];
        let id = node.tunnel.find(&key).unwrap();
        let mut bytes = vec![0; length + DATA_OVERHEAD];
        let mut payload = vec![1; length];
        payload[..8].copy_from_slice(&node.sent.to_be_bytes());
        let Some((session, path)) = node.tunnel.session_for_sending(id, now) else {
            self.collect();
            return false;
        };
        session.seal(Kind::Data, &payload, &mut bytes).unwrap();
        node.sent += 1;
        node.tunnel.keep(id, path, &bytes, bytes.len(), now);
        node.tunnel.sent_data(id, bytes.len(), now);
        node.tunnel.sent_size(id, bytes.len(), now);
        let packet = Packet { at: now + self.latency, from: node.source(path), to: path.remote, bytes };
        self.put(packet);
        true
    }

    pub fn put(&mut self, mut packet: Packet) {
        packet.at = packet.at + millis(u64::from(self.lateness % 3));
        self.lateness /= 3;
        let passes = packet.bytes.len() + 28 <= self.path_mtu;
        let cut = self.cut.contains(&(packet.from.ip(), packet.to.ip()));
        if passes && !cut && !(self.loss)(kind(&packet.bytes)) && !self.dead.contains(&packet.to) {
            self.log.push_back(packet.clone());
            self.wire.push_back(packet);
        }
    }

    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.collect();
            let arrival = self.wire.iter().map(|p| p.at).min().unwrap_or(Time::NEVER);
            let timeout = self.nodes.iter().map(|n| n.tunnel.next_timeout()).min().unwrap_or(Time::NEVER);
            let next = arrival.min(timeout);
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            if arrival <= timeout {
                let at = self.wire.iter().position(|p| p.at == arrival).unwrap();
                let packet = self.wire.remove(at).unwrap();
                self.deliver(&packet);
            } else {
                for node in &mut self.nodes {
                    node.tunnel.handle_timeout(self.now);
                }
            }
        }
    }

    pub fn deliver(&mut self, packet: &Packet) {
        let reaches = |n: &&mut Node| n.address == packet.to || n.aliases.contains(&packet.to);
        let now = self.now;
        if let Some(node) = self.nodes.iter_mut().find(reaches) {
            node.receive(packet, now);
        }
        self.collect();
    }

    fn collect(&mut self) {
        let mut packets = Vec::new();
        for node in &mut self.nodes {
            while let Some(output) = node.tunnel.poll() {
                match output {
                    Output::Transmit { path, bytes, .. } | Output::Resend { path, bytes, .. } => {
                        let from = node.source(path);
                        packets.push(Packet { at: self.now + self.latency, from, to: path.remote, bytes });
                    }
                    Output::SizeProbe { path, bytes, .. } => {
                        packets.push(Packet {
                            at: self.now + self.latency,
                            from: node.source(path),
                            to: path.remote,
                            bytes,
                        });
                    }
                    Output::UnknownPeer(key) => node.strangers.push(key),
                    Output::PeerMoved { remote, .. } => node.moves.push(remote),
                    Output::Handover { took, .. } => node.handovers.push(took),
                    Output::ProbeResult { token, rtt } => node.probes.push((token, rtt)),
                    Output::UplinksChanged => node.uplink_changes += 1,
                    Output::EndpointChanged(id) => {
                        if let Some(mtu) = self.interface_mtu {
                            node.tunnel.set_path_ceiling(id, mtu, 1420, self.now);
                        }
                    }
                    Output::SessionUp(_) => {}
                }
            }
        }
        for packet in packets {
            self.put(packet);
        }
    }

    pub fn peer(&self, node: usize) -> &Peer {
        let key = self.nodes[1 - node].key;
        let tunnel = &self.nodes[node].tunnel;
        tunnel.peer(tunnel.find(&key).unwrap()).unwrap()
    }

    pub fn is_up(&self, node: usize) -> bool {
        self.peer(node).is_up(self.now)
    }

    pub fn session(&self, node: usize) -> &Session {
        self.peer(node).current.as_ref().unwrap()
    }

    pub fn endpoint(&self, node: usize) -> SocketAddr {
        self.peer(node).endpoint.unwrap().remote
    }

    pub fn count(&self, node: usize, counter: Counter) -> u64 {
        self.nodes[node].tunnel.stats.value(counter)
    }
}

impl Node {
    pub fn new(n: usize, epoch: u64) -> Node {
        let identity = Identity::new([n as u8 + 1; 32], [9; 32], 7).unwrap();
        let key = identity.public;
        let mut tunnel = Tunnel::new(Suite::AesGcm, Limits::default());
        tunnel.configure(identity, epoch);
        Node {
            tunnel,
            key,
            address: SocketAddr::new([192, 0, 2, n as u8 + 1].into(), 4341),
            aliases: Vec::new(),
            uplinks: Vec::new(),
            uplink_changes: 0,
            data: 0,
            sent: 0,
            numbers: Vec::new(),
            strangers: Vec::new(),
            moves: Vec::new(),
            handovers: Vec::new(),
            probes: Vec::new(),
        }
    }

    fn source(&self, path: Path) -> SocketAddr {
        let own = |address: &&SocketAddr| address.is_ipv6() == path.remote.is_ipv6();
        let usual = || std::iter::once(&self.address).chain(&self.aliases).find(own).copied();
        path.local.map(|ip| SocketAddr::new(ip, 4341)).or_else(usual).unwrap_or(self.address)
    }

    fn receive(&mut self, packet: &Packet, now: Time) {
        let local = packet.to.ip();
        let link = self.uplinks.iter().find(|(_, address)| *address == local).map_or(0, |(link, _)| *link);
        let path = Path { remote: packet.from, local: Some(local), link };
        let mut bytes = packet.bytes.clone();
        let Ok(header) = Header::parse(&bytes) else { return };
        match header.kind {
            Kind::Data | Kind::DataPartial | Kind::Control => match self.tunnel.open(path, header, &mut bytes, now) {
                Ok(_) if header.kind == Kind::Data => {
                    self.data += 1;
                    let number = bytes[DATA_HEADER..].first_chunk().unwrap();
                    self.numbers.push(u64::from_be_bytes(*number));
                }
                Ok(_) => {}
                Err(reason) => self.tunnel.stats.count(reason),
            },
            _ => self.tunnel.handle_handshake(path, header, &bytes, now),
        }
    }
}

pub fn kind(bytes: &[u8]) -> Option<Kind> {
    Header::parse(bytes).ok().map(|h| h.kind)
}
