//! All peers and their sessions as one state machine without I/O: packets, commands and `now` go in; packets to
//! send and events come out of `poll`. The data path borrows sessions from it directly. The reactions to handshake
//! messages are in `handshaking`, those to time, silence and changes of locators in `liveness`.

#[cfg(test)]
mod attack_tests;
mod greetings;
mod handshaking;
#[cfg(test)]
mod limits_tests;
mod liveness;
#[cfg(test)]
mod many_peers_tests;
mod outer_error;
mod path_mtu;
#[cfg(test)]
mod path_mtu_tests;
mod paths;
#[cfg(test)]
mod paths_tests;
mod recent;
mod recovery;
#[cfg(test)]
mod recovery_tests;
#[cfg(test)]
mod simulation;
mod sleep;
#[cfg(test)]
mod tests;
mod uplinks;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::fast_hash::FastMap;
use crate::handshake::{CookieJar, Identity, PublicKey, Suite, random_u64};
use crate::initiation_gate::InitiationGate;
use crate::load::LoadMeter;
use crate::peer::{Locator, Path, Peer, PeerId, Silence, Slot};
use crate::retransmit::{Limits, Pool};
use crate::session::{OpenError, Session};
use crate::stats::{Counter, Stats};
use crate::time::{Time, seconds};
use crate::wire::{Control, DATA_HEADER, Header, Kind, TAG};

use greetings::Greetings;
use handshaking::MAX_INDICES;
use paths::order_locators;
use recent::RecentInitiations;
use sleep::Sleep;

pub use path_mtu::PathMtu;
pub use paths::Paths;
pub use recovery::Recovery;
pub use uplinks::{Uplink, Uplinks};

pub enum Output {
    Transmit {
        peer: Option<PeerId>,
        path: Path,
        bytes: Vec<u8>,
    },
    /// A datagram that a roam has lost.
    Resend {
        peer: PeerId,
        path: Path,
        bytes: Vec<u8>,
    },
    /// Finds out whether a datagram of this size passes.
    SizeProbe {
        peer: PeerId,
        path: Path,
        token: u64,
        bytes: Vec<u8>,
    },
    /// Packets that waited for a session can go.
    SessionUp(PeerId),
    /// The path to the peer may have another MTU now.
    EndpointChanged(PeerId),
    UnknownPeer(PublicKey),
    PeerMoved {
        key: PublicKey,
        remote: SocketAddr,
    },
    Handover {
        key: PublicKey,
        took: Duration,
    },
    ProbeResult {
        token: u64,
        rtt: Option<Duration>,
    },
    /// One of this host's uplinks is dead, or alive again.
    UplinksChanged,
}

pub struct Tunnel {
    identity: Option<Identity>,
    suite: Suite,
    epoch: u64,
    sequence: u64,
    peers: Vec<Option<Peer>>,
    /// Empty slots of `peers`.
    free: Vec<usize>,
    by_key: HashMap<PublicKey, PeerId>,
    by_index: FastMap<u32, PeerId>,
    index_limit: usize,
    timers: BinaryHeap<Reverse<(Time, PeerId)>>,
    parked: Vec<Parked>,
    greetings: Greetings,
    sleep: Sleep,
    recent: RecentInitiations,
    gate: InitiationGate,
    load: LoadMeter,
    cookies: CookieJar,
    cookies_rotate: Time,
    next_token: u64,
    pub uplinks: Uplinks,
    /// Changes of this host's locators may be acted on as often as intervals have passed since then.
    changes_since: Time,
    /// When one is acted on that had to wait.
    changed_at: Option<Time>,
    /// After the last change, before somebody who has not answered is spoken to again.
    least_wait: Duration,
    /// When a peer last answered the first word after a change of this host's locators.
    roam_answered: Time,
    outputs: VecDeque<Output>,
    pool: Pool,
    pub stats: Stats,
}

/// A valid initiation of a key not known yet.
struct Parked {
    key: PublicKey,
    path: Path,
    message: Vec<u8>,
    until: Time,
}

impl Tunnel {
    pub fn new(suite: Suite, retransmit: Limits) -> Tunnel {
        Tunnel {
            identity: None,
            suite,
            epoch: 0,
            sequence: 0,
            peers: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            by_index: FastMap::default(),
            index_limit: MAX_INDICES,
            timers: BinaryHeap::new(),
            parked: Vec::new(),
            greetings: Greetings::default(),
            sleep: Sleep::default(),
            recent: RecentInitiations::default(),
            gate: InitiationGate::new(),
            load: LoadMeter::new(),
            cookies: CookieJar::new(),
            cookies_rotate: Time::default(),
            next_token: random_u64() >> 16,
            uplinks: Uplinks::default(),
            changes_since: Time::default(),
            changed_at: None,
            least_wait: Duration::ZERO,
            roam_answered: Time::default(),
            outputs: VecDeque::new(),
            pool: Pool::new(retransmit),
            stats: Stats::new(),
        }
    }

    /// Another key or instance drops all sessions; peers stay.
    pub fn configure(&mut self, identity: Identity, epoch: u64) {
        self.epoch = self.epoch.max(epoch);
        if self.identity.as_ref().is_some_and(|old| old.same_secrets(&identity)) {
            return;
        }
        self.identity = Some(identity);
        self.drop_sessions();
    }

    fn drop_sessions(&mut self) {
        self.by_index.clear();
        self.parked.clear();
        for peer in self.peers.iter_mut().flatten() {
            (peer.current, peer.previous, peer.handshake) = (None, None, None);
            peer.pending.clear();
            peer.recovery.ring.clear(&mut self.pool);
        }
    }

    /// Of the handshakes begun from now on.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn public_key(&self) -> Option<PublicKey> {
        self.identity.as_ref().map(|i| i.public)
    }

    pub fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers.get(id.0 as usize)?.as_ref()
    }

    pub fn peer_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(id.0 as usize)?.as_mut()
    }

    pub fn peers(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        self.peers.iter().enumerate().filter_map(|(i, p)| Some((PeerId(i as u32), p.as_ref()?)))
    }

    pub fn find(&self, key: &PublicKey) -> Option<PeerId> {
        self.by_key.get(key).copied()
    }

    /// The peer of that key, made if need be: a mapping may name a peer before `peer-set` does.
    pub fn intern(&mut self, key: PublicKey) -> PeerId {
        if let Some(id) = self.find(&key) {
            return id;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.peers.push(None);
            self.peers.len() - 1
        });
        let id = PeerId(slot as u32);
        self.peers[slot] = Some(self.unmet(key));
        self.by_key.insert(key, id);
        id
    }

    fn unmet(&self, key: PublicKey) -> Peer {
        let mut peer = Peer::new(key);
        let own = self.public_key().unwrap_or_default();
        peer.path_mtu.spread(u32::from_le_bytes(std::array::from_fn(|at| own[at] ^ key[at])));
        peer
    }

    pub fn set_peer(&mut self, key: PublicKey, mut locators: Vec<Locator>, sync: u64, now: Time) -> PeerId {
        order_locators(&mut locators, &self.public_key().unwrap_or_default(), &key);
        let id = self.intern(key);
        let Some(peer) = self.peer_mut(id) else { return id };
        peer.sync = sync;
        let changed = peer.locators != locators;
        let first = !std::mem::replace(&mut peer.configured, true);
        peer.locators = locators;
        if changed {
            if peer.is_up(now) {
                self.leave_unlisted_endpoint(id, now);
            } else if let Some(handshake) = peer.handshake.as_mut() {
                (handshake.tries, handshake.next) = (0, now);
            }
            self.outputs.push_back(Output::EndpointChanged(id));
            self.count_paths(id);
            self.look_for_better(id, now);
        }
        if first {
            self.answer_parked(&key, now);
        }
        self.reschedule(id);
        id
    }

    /// Forgets sessions, locators and who it is; the slot goes when no mapping needs it.
    pub fn remove_peer(&mut self, id: PeerId, still_named: bool) {
        let Some(mut peer) = self.peers.get_mut(id.0 as usize).and_then(Option::take) else { return };
        peer.recovery.ring.clear(&mut self.pool);
        self.by_key.remove(&peer.key);
        self.by_index.retain(|_, owner| *owner != id);
        for asked in &peer.asked {
            self.outputs.push_back(Output::ProbeResult { token: asked.token, rtt: None });
        }
        if still_named {
            self.by_key.insert(peer.key, id);
            let last_order = peer.last_order;
            self.peers[id.0 as usize] = Some(Peer { last_order, ..self.unmet(peer.key) });
        } else {
            self.free.push(id.0 as usize);
        }
    }

    /// The session to send data with. Without one, a handshake is under way after this call.
    #[inline]
    pub fn session_for_sending(&mut self, id: PeerId, now: Time) -> Option<(&mut Session, Path)> {
        let peer = self.peers.get(id.0 as usize)?.as_ref()?;
        match &peer.current {
            Some(session) if session.may_send(now) && peer.endpoint.is_some() => {
                if session.is_old_for_sending(now) && peer.handshake.is_none() {
                    self.want_session(id, now);
                }
            }
            _ => {
                self.want_session(id, now);
                return None;
            }
        }
        let peer = self.peers[id.0 as usize].as_mut()?;
        Some((peer.current.as_mut()?, peer.endpoint?))
    }

    /// Data went out to the peer.
    #[inline]
    pub fn sent_data(&mut self, id: PeerId, bytes: usize, now: Time) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        peer.tx_bytes += bytes as u64;
        peer.keepalive_at = None;
        peer.data_sent = Some(now);
        if peer.silence.is_none() {
            let next = now + peer.patience(now);
            peer.silence = Some(Silence { since: now, step: 0, next });
            if next < peer.scheduled {
                self.reschedule(id);
            }
            self.resume_trials(id, now);
        }
    }

    /// Decrypts a data or control packet in place. `Ok` is the sender; its plaintext is
    /// `packet[DATA_HEADER..len - TAG]`, and control has been handled.
    #[inline]
    pub fn open(&mut self, path: Path, header: Header, packet: &mut [u8], now: Time) -> Result<PeerId, Counter> {
        let path = self.uplinks.arrived(path);
        let Some(&id) = self.by_index.get(&header.index) else {
            self.heard_unknown_index(path, now);
            return Err(Counter::DropUnknownIndex);
        };
        let peer = self.peers[id.0 as usize].as_mut().ok_or(Counter::DropUnknownIndex)?;
        let (session, slot) = peer.session_with_index(header.index).ok_or(Counter::DropUnknownIndex)?;
        if !session.may_receive(now) {
            return Err(Counter::DropUnknownIndex);
        }
        let opened = session.open(packet);
        if opened.is_ok() {
            session.heard = now;
        }
        let rekey = session.is_old_for_receiving(now);
        let opened = opened.map_err(|error| match error {
            OpenError::Auth => Counter::DropAuth,
            OpenError::Replay if peer.recovery.explains_duplicates(now) => Counter::RetransmitDuplicates,
            OpenError::Replay => Counter::DropReplay,
        })?;
        peer.rx_bytes += packet.len() as u64;
        let about_path =
            header.kind == Kind::Control && Control::is_about_path(&packet[DATA_HEADER..packet.len() - TAG]);
        peer.last_received = Some(now);
        if !about_path && peer.silence.take().is_some() && peer.roam.is_none() {
            peer.paths.end_search();
        }
        self.uplinks.heard(&path, now);
        if let Slot::Pending(at) = slot {
            self.confirm(id, at, now);
        }
        let followed = slot == Slot::Previous && self.follow(id);
        let peer = self.peers[id.0 as usize].as_mut().ok_or(Counter::DropUnknownIndex)?;
        // A late packet of an older session or counter must not move the peer back.
        let latest = match slot {
            Slot::Previous if followed => true,
            Slot::Previous => peer.current.as_ref().is_none_or(|c| !c.replay.received_any()),
            Slot::Current | Slot::Pending(_) => true,
        };
        if opened.newest && latest && peer.endpoint != Some(path) && !about_path && !peer.paths.is_abandoned(&path, now)
        {
            self.follow_to(id, path, now);
        }
        if rekey {
            self.want_session(id, now);
        }
        if header.kind == Kind::Control {
            let newest = opened.newest && latest;
            let plaintext = &packet[DATA_HEADER..packet.len() - TAG];
            self.handle_control(id, path, plaintext, newest, header.index, now);
        } else if let Some(peer) = self.peer_mut(id) {
            peer.data_received = Some(now);
            if peer.keepalive_at.is_none() {
                peer.keepalive_at = Some(now + KEEPALIVE);
                if now + KEEPALIVE < peer.scheduled {
                    self.reschedule(id);
                }
            }
        }
        Ok(id)
    }

    pub fn next_timeout(&self) -> Time {
        let parked = self.parked.iter().map(|p| p.until).min().unwrap_or(Time::NEVER);
        let own = self.changed_at.unwrap_or(Time::NEVER).min(self.uplinks.next_timeout());
        let own = own.min(self.greetings.next_timeout()).min(self.sleep.next_timeout());
        self.timers.peek().map_or(Time::NEVER, |Reverse((at, _))| *at).min(parked).min(own)
    }

    pub fn handle_timeout(&mut self, now: Time) {
        if now >= self.cookies_rotate {
            self.cookies.rotate();
            self.cookies_rotate = now + seconds(120);
        }
        self.parked.retain(|parked| parked.until > now);
        if now >= self.sleep.next_timeout() {
            self.wake(now);
        }
        if self.changed_at.is_some_and(|at| now >= at) {
            self.locators_changed(now);
        }
        if now >= self.uplinks.next_timeout() {
            self.handle_uplinks_timeout(now);
        }
        if now >= self.greetings.next_timeout() {
            self.handle_greetings_timeout(now);
        }
        // Each peer once: one that is due again at once has its turn in the next call, after the packets.
        let mut due = Vec::new();
        while let Some(&Reverse((at, id))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            if let Some(peer) = self.peer_mut(id).filter(|peer| peer.scheduled == at) {
                peer.scheduled = Time::NEVER;
                due.push(id);
            }
        }
        for id in due {
            self.handle_peer_timeout(id, now);
            self.reschedule(id);
        }
    }

    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn ids(&self) -> Vec<PeerId> {
        self.peers().map(|(id, _)| id).collect()
    }

    /// Enters the peer's next deadline; entries overtaken by an earlier one are skipped when they come up.
    fn reschedule(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let deadline = peer.next_deadline();
        if deadline < peer.scheduled {
            peer.scheduled = deadline;
            self.timers.push(Reverse((deadline, id)));
        }
    }
}

const KEEPALIVE: Duration = seconds(10);
