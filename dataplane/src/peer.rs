//! What is known of one peer: its locators and endpoint, its sessions, and the timers between them.
//!
//! A peer has a `current` session to send with, the `previous` one for packets still on their way, and `pending`
//! ones: sessions this host answered but has not yet heard the initiator use. Sending with those could talk to
//! nobody. Several initiations of ours may be under way at once, because retries come faster than a long round
//! trip; the first response wins.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::handshake::{Attempt, Mac, PublicKey};
use crate::session::{REJECT_AFTER_TIME, Session};
use crate::time::{Time, seconds};
use crate::tunnel::{PathMtu, Paths, Recovery, Uplink};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct PeerId(pub u32);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Locator {
    pub address: SocketAddr,
    pub priority: u8,
    pub weight: u8,
}

/// Where packets go, and the own address and interface they leave by when that matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path {
    pub remote: SocketAddr,
    pub local: Option<IpAddr>,
    /// Index of the interface; 0: the one that the kernel's routes say. Not 0 only with `local`.
    pub link: u32,
}

impl Path {
    pub fn to(remote: SocketAddr) -> Path {
        Path { remote, local: None, link: 0 }
    }

    /// Nothing that is known of both differs.
    pub fn is_same_way(&self, other: &Path) -> bool {
        self.remote == other.remote
            && (self.link == other.link || self.link == 0 || other.link == 0)
            && (self.local == other.local || self.local.is_none() || other.local.is_none())
    }
}

pub struct Peer {
    pub key: PublicKey,
    /// Known by `peer-set`, not only named by a mapping.
    pub configured: bool,
    pub sync: u64,
    /// Usable ones, best first.
    pub locators: Vec<Locator>,
    pub endpoint: Option<Path>,
    pub current: Option<Session>,
    pub previous: Option<Session>,
    pub pending: Vec<Session>,
    /// There has been a session since this process was started, or the machine slept.
    pub known: bool,
    /// Is to be spoken to when this host is awake.
    pub greet_later: bool,
    pub handshake: Option<Handshaking>,
    /// (epoch, sequence) of the last initiation accepted.
    pub last_order: Option<(u64, u64)>,
    pub cookie: Option<(Mac, Time)>,
    pub last_received: Option<Time>,
    /// The same of data, and of data sent.
    pub data_received: Option<Time>,
    pub data_sent: Option<Time>,
    pub silence: Option<Silence>,
    pub keepalive_at: Option<Time>,
    pub probes: VecDeque<SentProbe>,
    pub asked: Vec<AskedProbe>,
    pub roam: Option<Roam>,
    /// The way out by which this host last spoke to the peer because of a change.
    pub spoken_by: Option<Uplink>,
    pub rtt: Option<Duration>,
    /// The longest of late, falling slowly.
    pub slowest_rtt: Duration,
    /// That of a handshake, until a probe says better.
    pub first_rtt: Option<Duration>,
    pub recovery: Recovery,
    pub paths: Paths,
    pub path_mtu: PathMtu,
    pub tx_bytes: u64,
    pub rx_bytes: u64,
    pub scheduled: Time,
}

pub struct Handshaking {
    pub tries: u32,
    pub next: Time,
    /// When somebody last had something to send.
    pub wanted: Time,
    pub attempts: VecDeque<Attempt>,
}

/// Data was sent and nothing authentic has come since.
pub struct Silence {
    pub since: Time,
    pub step: u32,
    pub next: Time,
}

pub struct SentProbe {
    pub token: u64,
    pub sent: Time,
}

/// A probe the agent asked for.
pub struct AskedProbe {
    pub token: u64,
    pub next: Time,
    pub deadline: Time,
}

/// This host's own locators changed and the peer has not been heard since.
pub struct Roam {
    pub started: Time,
    pub step: usize,
    pub next: Time,
    /// Shortest wait before a probe is repeated.
    pub least_wait: Duration,
    /// Replies to older probes prove nothing.
    pub first_token: u64,
    /// There was no route to send by.
    pub failed: bool,
    /// A probe was answered.
    pub answered: bool,
    /// The peer has said what it received.
    pub reported: bool,
    /// Not this host has moved: a path was left for another.
    pub failover: bool,
}

impl Peer {
    pub fn new(key: PublicKey) -> Peer {
        Peer {
            key,
            configured: false,
            sync: 0,
            locators: Vec::new(),
            endpoint: None,
            current: None,
            previous: None,
            pending: Vec::new(),
            known: false,
            greet_later: false,
            handshake: None,
            last_order: None,
            cookie: None,
            last_received: None,
            data_received: None,
            data_sent: None,
            silence: None,
            keepalive_at: None,
            probes: VecDeque::new(),
            asked: Vec::new(),
            roam: None,
            spoken_by: None,
            rtt: None,
            slowest_rtt: Duration::ZERO,
            first_rtt: None,
            recovery: Recovery::default(),
            paths: Paths::default(),
            path_mtu: PathMtu::new(),
            tx_bytes: 0,
            rx_bytes: 0,
            scheduled: Time::NEVER,
        }
    }

    /// Largest inner packet worth sending to this peer in one outer packet.
    pub fn inner_limit(&self, now: Time) -> usize {
        usize::from(self.path_mtu.uncut(now)).saturating_sub(self.outer_overhead())
    }

    /// Largest inner packet that is known to reach this peer, for what can be cut.
    pub fn proven_limit(&self) -> usize {
        usize::from(self.path_mtu.size()).saturating_sub(self.outer_overhead())
    }

    /// Octets around the inner packet, from the outer IP header on.
    pub fn outer_overhead(&self) -> usize {
        let remote = self.endpoint.map(|e| e.remote).or(self.locators.first().map(|l| l.address));
        if remote.is_some_and(|a| a.is_ipv6()) { OVERHEAD_V6 } else { OVERHEAD_V4 }
    }

    pub fn session_with_index(&mut self, index: u32) -> Option<(&mut Session, Slot)> {
        if let Some(session) = self.current.as_mut().filter(|s| s.local_index == index) {
            return Some((session, Slot::Current));
        }
        if let Some(session) = self.previous.as_mut().filter(|s| s.local_index == index) {
            return Some((session, Slot::Previous));
        }
        let at = self.pending.iter().position(|s| s.local_index == index)?;
        Some((&mut self.pending[at], Slot::Pending(at)))
    }

    pub fn is_up(&self, now: Time) -> bool {
        self.current.as_ref().is_some_and(|s| s.may_send(now))
    }

    pub fn next_deadline(&self) -> Time {
        let sessions = self.pending.iter().map(|s| s.created + PENDING_LIFETIME);
        let expiry = self.current.iter().chain(&self.previous).map(|s| s.created + REJECT_AFTER_TIME);
        let asked = self.asked.iter().map(|a| a.next.min(a.deadline));
        sessions
            .chain(expiry)
            .chain(asked)
            .chain(self.handshake.as_ref().map(|h| h.next))
            .chain(self.silence.as_ref().map(|s| s.next))
            .chain(self.keepalive_at)
            .chain(self.roam.as_ref().map(|r| r.next))
            .chain(self.recovery.next_deadline())
            .chain(self.path_mtu.next_deadline())
            .chain(self.paths.next_deadline())
            .min()
            .unwrap_or(Time::NEVER)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    Current,
    Previous,
    Pending(usize),
}

pub const OVERHEAD_V4: usize = 20 + 8 + crate::wire::DATA_OVERHEAD;
pub const OVERHEAD_V6: usize = 40 + 8 + crate::wire::DATA_OVERHEAD;
pub const PENDING_LIFETIME: Duration = seconds(15);
