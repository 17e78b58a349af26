//! All peers and their sessions as one state machine without I/O: packets, commands and `now` go in; packets to
//! send and events come out of `poll`. The data path borrows sessions from it directly.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::fast_hash::FastMap;
use crate::handshake::{Attempt, CookieJar, Identity, PublicKey, Received, Suite, random_u64};
use crate::load::{Admission, LoadMeter};
use crate::peer::{
    AskedProbe, Handshaking, Locator, PENDING_LIFETIME, Path, Peer, PeerId, Roam, SentProbe, Silence, Slot,
};
use crate::session::Session;
use crate::stats::{Counter, Stats};
use crate::time::{Time, millis, seconds};
use crate::wire::{Control, DATA_HEADER, DATA_OVERHEAD, Header, INDEX_MASK, Kind, TAG};

pub enum Output {
    Transmit {
        peer: Option<PeerId>,
        path: Path,
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
}

pub struct Tunnel {
    identity: Option<Identity>,
    suite: Suite,
    epoch: u64,
    sequence: u64,
    peers: Vec<Option<Peer>>,
    by_key: HashMap<PublicKey, PeerId>,
    by_index: FastMap<u32, PeerId>,
    timers: BinaryHeap<Reverse<(Time, PeerId)>>,
    parked: Vec<Parked>,
    load: LoadMeter,
    cookies: CookieJar,
    cookies_rotate: Time,
    next_token: u64,
    outputs: VecDeque<Output>,
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
    pub fn new(suite: Suite) -> Tunnel {
        Tunnel {
            identity: None,
            suite,
            epoch: 0,
            sequence: 0,
            peers: Vec::new(),
            by_key: HashMap::new(),
            by_index: FastMap::default(),
            timers: BinaryHeap::new(),
            parked: Vec::new(),
            load: LoadMeter::new(),
            cookies: CookieJar::new(),
            cookies_rotate: Time::default(),
            next_token: random_u64() >> 16,
            outputs: VecDeque::new(),
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
        self.by_index.clear();
        self.parked.clear();
        for peer in self.peers.iter_mut().flatten() {
            (peer.current, peer.previous, peer.handshake) = (None, None, None);
            peer.pending.clear();
        }
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
        let slot = self.peers.iter().position(Option::is_none).unwrap_or_else(|| {
            self.peers.push(None);
            self.peers.len() - 1
        });
        let id = PeerId(slot as u32);
        self.peers[slot] = Some(Peer::new(key));
        self.by_key.insert(key, id);
        id
    }

    pub fn set_peer(&mut self, key: PublicKey, mut locators: Vec<Locator>, sync: u64, now: Time) -> PeerId {
        locators.retain(|l| l.priority != UNUSABLE_PRIORITY);
        locators.sort_by_key(|l| (l.priority, Reverse(l.weight)));
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
        }
        if first {
            self.answer_parked(&key, now);
        }
        self.reschedule(id);
        id
    }

    /// Forgets sessions, locators and who it is; the slot goes when no mapping needs it.
    pub fn remove_peer(&mut self, id: PeerId, still_named: bool) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::take) else { return };
        self.by_key.remove(&peer.key);
        self.by_index.retain(|_, owner| *owner != id);
        for asked in &peer.asked {
            self.outputs.push_back(Output::ProbeResult { token: asked.token, rtt: None });
        }
        if still_named {
            self.by_key.insert(peer.key, id);
            let last_order = peer.last_order;
            self.peers[id.0 as usize] = Some(Peer { last_order, ..Peer::new(peer.key) });
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
        if peer.silence.is_none() {
            let next = now + peer.silence_before_probe();
            peer.silence = Some(Silence { since: now, step: 0, next });
            if next < peer.scheduled {
                self.reschedule(id);
            }
        }
    }

    /// Makes sure that a handshake is under way.
    pub fn want_session(&mut self, id: PeerId, now: Time) {
        let Some(peer) = self.peer_mut(id) else { return };
        match peer.handshake.as_mut() {
            Some(handshake) => handshake.wanted = now,
            None => {
                peer.handshake = Some(Handshaking { tries: 0, next: now, wanted: now, attempts: VecDeque::new() });
                self.attempt_handshake(id, now);
                self.reschedule(id);
            }
        }
    }

    /// Decrypts a data or control packet in place. `Ok` is the sender; its plaintext is
    /// `packet[DATA_HEADER..len - TAG]`, and control has been handled.
    #[inline]
    pub fn open(&mut self, path: Path, header: Header, packet: &mut [u8], now: Time) -> Result<PeerId, Counter> {
        let Some(&id) = self.by_index.get(&header.index) else {
            self.heard_unknown_index(path, now);
            return Err(Counter::DropUnknownIndex);
        };
        let peer = self.peers[id.0 as usize].as_mut().ok_or(Counter::DropUnknownIndex)?;
        let (session, slot) = peer.session_with_index(header.index).ok_or(Counter::DropUnknownIndex)?;
        if !session.may_receive(now) {
            return Err(Counter::DropUnknownIndex);
        }
        let opened = session.open(packet).map_err(|error| match error {
            crate::session::OpenError::Auth => Counter::DropAuth,
            crate::session::OpenError::Replay => Counter::DropReplay,
        })?;
        let rekey = session.is_old_for_receiving(now);
        peer.rx_bytes += packet.len() as u64;
        peer.last_received = Some(now);
        peer.silence = None;
        if let Slot::Pending(at) = slot {
            self.confirm(id, at, now);
        }
        let peer = self.peers[id.0 as usize].as_mut().ok_or(Counter::DropUnknownIndex)?;
        // A late packet of an older session or counter must not move the peer back.
        let latest = match slot {
            Slot::Previous => peer.current.as_ref().is_none_or(|c| !c.replay.received_any()),
            Slot::Current | Slot::Pending(_) => true,
        };
        if opened.newest && latest && peer.endpoint != Some(path) {
            self.move_endpoint(id, path);
        }
        if rekey {
            self.want_session(id, now);
        }
        if header.kind == Kind::Control {
            let control = Control::parse(&packet[DATA_HEADER..packet.len() - TAG]);
            self.handle_control(id, path, control, now);
        } else if let Some(peer) = self.peer_mut(id)
            && peer.keepalive_at.is_none()
        {
            peer.keepalive_at = Some(now + KEEPALIVE);
            if now + KEEPALIVE < peer.scheduled {
                self.reschedule(id);
            }
        }
        Ok(id)
    }

    /// An initiation, a response or a cookie reply.
    pub fn handle_handshake(&mut self, path: Path, header: Header, message: &[u8], now: Time) {
        let Some(identity) = self.identity.as_ref() else { return };
        if header.instance != identity.instance {
            return self.stats.count(Counter::DropWrongInstance);
        }
        match header.kind {
            Kind::CookieReply => return self.handle_cookie(header, message, now),
            Kind::Initiation | Kind::Response => {}
            Kind::Data | Kind::DataPartial | Kind::Control => return,
        }
        if !identity.mac1_ok(message) {
            return self.stats.count(Counter::DropAuth);
        }
        if header.kind == Kind::Response {
            return self.handle_response(path, header, message, now);
        }
        let source = source_bytes(path.remote);
        match self.load.admit(path.remote.ip(), now, || self.cookies.mac2_ok(message, &source)) {
            Admission::Accept => self.handle_initiation(path, message, now),
            Admission::Refuse => self.stats.count(Counter::HandshakesRejected),
            Admission::DemandCookie => {
                if let Some(bytes) = self.cookies.reply(identity, message, &source) {
                    self.stats.count(Counter::CookiesSent);
                    self.outputs.push_back(Output::Transmit { peer: None, path, bytes });
                }
            }
        }
    }

    /// This host's addresses, links or routes changed: speak to every active peer at once.
    pub fn locators_changed(&mut self, now: Time) {
        for id in self.ids() {
            let Some(peer) = self.peer_mut(id) else { continue };
            if let Some(endpoint) = peer.endpoint.as_mut() {
                endpoint.local = None;
            }
            if let Some(handshake) = peer.handshake.as_mut() {
                (handshake.tries, handshake.next) = (0, now);
            }
            if peer.is_up(now) {
                let started = match &peer.roam {
                    Some(roam) if !roam.failed => roam.started,
                    _ => now,
                };
                let next = now + ROAM_STEPS[0];
                let Some(path) = peer.endpoint else { continue };
                let first_token = self.next_token;
                if let Some(peer) = self.peer_mut(id) {
                    peer.roam = Some(Roam { started, step: 1, next, first_token, failed: false });
                }
                self.send_probe(id, path, now);
                self.outputs.push_back(Output::EndpointChanged(id));
            }
            self.reschedule(id);
        }
    }

    /// A packet of ours could not be sent because there is no route.
    pub fn no_route(&mut self, id: PeerId) {
        if let Some(roam) = self.peer_mut(id).and_then(|p| p.roam.as_mut()) {
            roam.failed = true;
        }
    }

    /// The own address that packets were to come from is gone.
    pub fn forget_local_address(&mut self, id: PeerId) {
        if let Some(endpoint) = self.peer_mut(id).and_then(|p| p.endpoint.as_mut()) {
            endpoint.local = None;
        }
    }

    /// One round trip for the agent; answered by `Output::ProbeResult`.
    pub fn probe(&mut self, key: &PublicKey, token: u64, now: Time) {
        let Some(id) = self.find(key) else {
            return self.outputs.push_back(Output::ProbeResult { token, rtt: None });
        };
        if let Some(peer) = self.peer_mut(id) {
            peer.asked.push(AskedProbe { token, next: now, deadline: now + PROBE_DEADLINE });
        }
        self.send_asked_probes(id, now);
        self.reschedule(id);
    }

    pub fn next_timeout(&self) -> Time {
        let parked = self.parked.iter().map(|p| p.until).min().unwrap_or(Time::NEVER);
        self.timers.peek().map_or(Time::NEVER, |Reverse((at, _))| *at).min(parked)
    }

    pub fn handle_timeout(&mut self, now: Time) {
        if now >= self.cookies_rotate {
            self.cookies.rotate();
            self.cookies_rotate = now + seconds(120);
        }
        self.parked.retain(|parked| parked.until > now);
        while let Some(&Reverse((at, id))) = self.timers.peek() {
            if at > now {
                break;
            }
            self.timers.pop();
            let Some(peer) = self.peer_mut(id) else { continue };
            if peer.scheduled != at {
                continue;
            }
            peer.scheduled = Time::NEVER;
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

    fn handle_peer_timeout(&mut self, id: PeerId, now: Time) {
        self.drop_expired_sessions(id, now);
        let Some(peer) = self.peer_mut(id) else { return };
        if let Some(handshake) = &peer.handshake
            && now >= handshake.next
        {
            if now.since(handshake.wanted) > GIVE_UP {
                self.end_handshake(id);
            } else {
                self.attempt_handshake(id, now);
            }
        }
        let Some(peer) = self.peer_mut(id) else { return };
        if peer.keepalive_at.is_some_and(|at| now >= at) {
            peer.keepalive_at = None;
            if let Some(path) = peer.endpoint {
                self.send_control(id, path, Control::Keepalive, now);
            }
        }
        self.handle_silence(id, now);
        self.handle_roam(id, now);
        self.send_asked_probes(id, now);
    }

    fn drop_expired_sessions(&mut self, id: PeerId, now: Time) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        for slot in [&mut peer.current, &mut peer.previous] {
            if let Some(session) = slot.take_if(|s| !s.may_receive(now)) {
                self.by_index.remove(&session.local_index);
            }
        }
        peer.pending.retain(|session| {
            let keep = session.age(now) < PENDING_LIFETIME;
            if !keep {
                self.by_index.remove(&session.local_index);
            }
            keep
        });
    }

    fn handle_silence(&mut self, id: PeerId, now: Time) {
        let Some(peer) = self.peer_mut(id) else { return };
        let first_wait = peer.silence_before_probe();
        let Some(silence) = peer.silence.as_mut().filter(|s| now >= s.next) else { return };
        let silent_for = now.since(silence.since);
        let step = silence.step;
        silence.step += 1;
        silence.next = now + if step == 0 { millis(100).min(first_wait) } else { first_wait.max(silent_for / 2) };
        let up = peer.is_up(now);
        let paths = peer.candidates();
        if silent_for >= SILENCE_BEFORE_HANDSHAKE || !up {
            // The next data packet starts this anew; until then the handshake's own timer goes on.
            peer.silence = None;
            return self.want_session(id, now);
        }
        for path in paths.into_iter().take(if step == 0 { 1 } else { MAX_LOCATORS }) {
            self.send_probe(id, path, now);
        }
    }

    fn handle_roam(&mut self, id: PeerId, now: Time) {
        let Some(peer) = self.peer_mut(id) else { return };
        let Some(roam) = peer.roam.as_mut().filter(|r| now >= r.next) else { return };
        let Some(step) = ROAM_STEPS.get(roam.step) else {
            peer.roam = None;
            return self.want_session(id, now);
        };
        roam.step += 1;
        roam.next = now + *step;
        if !peer.is_up(now) {
            peer.roam = None;
            return;
        }
        for path in peer.candidates().into_iter().take(MAX_LOCATORS) {
            self.send_probe(id, path, now);
        }
    }

    fn send_asked_probes(&mut self, id: PeerId, now: Time) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let up = peer.is_up(now);
        let mut due = false;
        peer.asked.retain_mut(|asked| {
            if now >= asked.deadline {
                self.outputs.push_back(Output::ProbeResult { token: asked.token, rtt: None });
                return false;
            }
            if up && now >= asked.next {
                due = true;
                asked.next = now + PROBE_REPEAT;
            } else if !up {
                // Sent when the session is up.
                asked.next = asked.deadline;
            }
            true
        });
        let (waiting, endpoint) = (!peer.asked.is_empty(), peer.endpoint);
        if due && let Some(path) = endpoint {
            self.send_probe(id, path, now);
        } else if waiting && !up {
            self.want_session(id, now);
        }
    }

    fn send_probe(&mut self, id: PeerId, path: Path, now: Time) {
        let token = self.next_token;
        self.next_token += 1;
        if let Some(peer) = self.peer_mut(id) {
            peer.probes.push_back(SentProbe { token, sent: now });
            if peer.probes.len() > MAX_PROBES {
                peer.probes.pop_front();
            }
        }
        self.stats.count(Counter::ProbesSent);
        self.send_control(id, path, Control::ProbeRequest(token), now);
    }

    fn send_control(&mut self, id: PeerId, path: Path, control: Control, now: Time) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let Some(session) = peer.current.as_mut().filter(|s| s.may_send(now)) else { return };
        let mut bytes = vec![0; Control::LENGTH + DATA_OVERHEAD];
        if session.seal(Kind::Control, &control.bytes(), &mut bytes).is_some() {
            peer.tx_bytes += bytes.len() as u64;
            self.outputs.push_back(Output::Transmit { peer: Some(id), path, bytes });
        }
    }

    fn handle_control(&mut self, id: PeerId, path: Path, control: Option<Control>, now: Time) {
        match control {
            None => self.stats.count(Counter::DropMalformed),
            Some(Control::Keepalive) => {}
            Some(Control::ProbeRequest(token)) => self.send_control(id, path, Control::ProbeReply(token), now),
            Some(Control::ProbeReply(token)) => self.handle_probe_reply(id, token, now),
        }
    }

    fn handle_probe_reply(&mut self, id: PeerId, token: u64, now: Time) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let Some(at) = peer.probes.iter().position(|p| p.token == token) else { return };
        let rtt = now.since(peer.probes[at].sent);
        peer.probes.drain(..=at);
        peer.rtt = Some(rtt);
        for asked in peer.asked.drain(..) {
            self.outputs.push_back(Output::ProbeResult { token: asked.token, rtt: Some(rtt) });
        }
        if let Some(roam) = peer.roam.take_if(|r| token >= r.first_token) {
            self.outputs.push_back(Output::Handover { key: peer.key, took: now.since(roam.started) });
        }
    }

    fn leave_unlisted_endpoint(&mut self, id: PeerId, now: Time) {
        let Some(peer) = self.peer_mut(id) else { return };
        let listed = peer.endpoint.is_some_and(|e| peer.locators.iter().any(|l| l.address == e.remote));
        let Some(best) = peer.locators.first().map(|l| Path::to(l.address)).filter(|_| !listed) else { return };
        if peer.last_received.is_none_or(|at| now.since(at) >= STALE_ENDPOINT) {
            self.move_endpoint(id, best);
        }
        self.send_probe(id, best, now);
    }

    fn move_endpoint(&mut self, id: PeerId, path: Path) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let before = peer.endpoint.replace(path);
        if before.map(|p| p.remote) == Some(path.remote) {
            return;
        }
        self.outputs.push_back(Output::EndpointChanged(id));
        if before.is_some() {
            self.stats.count(Counter::Roams);
            self.outputs.push_back(Output::PeerMoved { key: peer.key, remote: path.remote });
        }
    }

    /// The initiator used a session that we answered. When both ends initiated at once, the session of the lower
    /// key becomes the current one at both.
    fn confirm(&mut self, id: PeerId, at: usize, now: Time) {
        let own_key = self.public_key();
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let confirmed = peer.pending.remove(at);
        let keep_own = peer.current.as_ref().is_some_and(|current| {
            current.initiator
                && now.since(current.created) < SIMULTANEOUS
                && confirmed.created + SIMULTANEOUS > current.created
                && own_key.is_some_and(|own| own < peer.key)
        });
        let retired = if keep_own {
            peer.previous.replace(confirmed)
        } else {
            let current = peer.current.replace(confirmed);
            match current {
                Some(current) => peer.previous.replace(current),
                None => None,
            }
        };
        if let Some(retired) = retired {
            self.by_index.remove(&retired.local_index);
        }
        self.stats.count(Counter::HandshakesCompleted);
        self.end_handshake(id);
        self.outputs.push_back(Output::SessionUp(id));
        self.send_asked_probes_now(id, now);
        self.reschedule(id);
    }

    fn send_asked_probes_now(&mut self, id: PeerId, now: Time) {
        if let Some(peer) = self.peer_mut(id) {
            for asked in &mut peer.asked {
                asked.next = now;
            }
        }
        self.send_asked_probes(id, now);
    }

    fn end_handshake(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        for attempt in peer.handshake.take().into_iter().flat_map(|h| h.attempts) {
            self.by_index.remove(&attempt.index);
        }
    }

    fn attempt_handshake(&mut self, id: PeerId, now: Time) {
        let index = self.new_index();
        self.sequence += 1;
        let order = (self.epoch, self.sequence);
        let suite = self.suite;
        let (Some(identity), Some(peer)) =
            (self.identity.as_ref(), self.peers.get_mut(id.0 as usize).and_then(Option::as_mut))
        else {
            return;
        };
        let paths = peer.candidates();
        let Some(handshake) = peer.handshake.as_mut() else { return };
        if paths.is_empty() || !peer.configured {
            handshake.next = Time::NEVER;
            return;
        }
        let path = paths[handshake.tries as usize % paths.len()];
        let wait = RETRIES.get(handshake.tries as usize).copied().unwrap_or(RETRY_CAP);
        let jitter = wait.as_nanos() as u64 / 10;
        handshake.next = now + wait + Duration::from_nanos(random_u64() % (jitter + 1));
        handshake.tries += 1;
        let cookie = peer.cookie.as_ref().filter(|(_, since)| now.since(*since) < COOKIE_LIFETIME).map(|(c, _)| c);
        let Ok((bytes, attempt)) = Attempt::start(identity, suite, &peer.key, index, order, cookie) else {
            return;
        };
        if handshake.attempts.len() == MAX_ATTEMPTS
            && let Some(oldest) = handshake.attempts.pop_front()
        {
            self.by_index.remove(&oldest.index);
        }
        handshake.attempts.push_back(attempt);
        self.by_index.insert(index, id);
        self.stats.count(Counter::HandshakesInitiated);
        self.outputs.push_back(Output::Transmit { peer: Some(id), path, bytes });
    }

    fn handle_initiation(&mut self, path: Path, message: &[u8], now: Time) {
        let Some(identity) = self.identity.as_ref() else { return };
        let Ok(received) = Received::read(identity, message) else {
            return self.stats.count(Counter::DropAuth);
        };
        let key = received.remote;
        let known = self.find(&key).filter(|id| self.peer(*id).is_some_and(|p| p.configured));
        let Some(id) = known else {
            if key != identity.public {
                self.park(key, path, message, now);
            }
            return;
        };
        let index = self.new_index();
        let (Some(identity), Some(peer)) =
            (self.identity.as_ref(), self.peers.get_mut(id.0 as usize).and_then(Option::as_mut))
        else {
            return;
        };
        if peer.last_order.is_some_and(|last| received.order <= last) {
            return self.stats.count(Counter::HandshakesRejected);
        }
        peer.last_order = Some(received.order);
        let remote_index = received.remote_index;
        let Ok((bytes, keys)) = received.respond(identity, index) else { return };
        let session = Session::new(keys, index, remote_index, identity.instance, false, now);
        if peer.pending.len() == MAX_PENDING {
            let oldest = peer.pending.remove(0);
            self.by_index.remove(&oldest.local_index);
        }
        peer.pending.push(session);
        peer.last_received = Some(now);
        self.by_index.insert(index, id);
        self.outputs.push_back(Output::Transmit { peer: Some(id), path, bytes });
        self.move_endpoint(id, path);
        self.reschedule(id);
    }

    fn handle_response(&mut self, path: Path, header: Header, message: &[u8], now: Time) {
        let instance = header.instance;
        let Some(&id) = self.by_index.get(&header.index) else {
            return self.stats.count(Counter::DropUnknownIndex);
        };
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let Some(attempt) =
            peer.handshake.as_mut().and_then(|h| h.attempts.iter_mut().find(|a| a.index == header.index))
        else {
            return self.stats.count(Counter::DropUnknownIndex);
        };
        let Ok((keys, remote_index)) = attempt.finish(message) else {
            return self.stats.count(Counter::DropAuth);
        };
        let local_index = attempt.index;
        let session = Session::new(keys, local_index, remote_index, instance, true, now);
        peer.last_received = Some(now);
        peer.silence = None;
        if let Some(current) = peer.current.replace(session) {
            self.stats.count(Counter::Rekeys);
            if let Some(retired) = peer.previous.replace(current) {
                self.by_index.remove(&retired.local_index);
            }
        }
        self.end_handshake(id);
        self.by_index.insert(local_index, id);
        self.stats.count(Counter::HandshakesCompleted);
        self.move_endpoint(id, path);
        // Lets the responder use the session even when nothing waits to be sent.
        self.send_control(id, path, Control::Keepalive, now);
        self.outputs.push_back(Output::SessionUp(id));
        self.send_asked_probes_now(id, now);
        self.reschedule(id);
    }

    fn handle_cookie(&mut self, header: Header, message: &[u8], now: Time) {
        let Some(&id) = self.by_index.get(&header.index) else { return };
        let Some(peer) = self.peer_mut(id) else { return };
        let attempt = peer.handshake.as_ref().and_then(|h| h.attempts.iter().find(|a| a.index == header.index));
        if let Some(cookie) = attempt.and_then(|a| a.open_cookie(message)) {
            peer.cookie = Some((cookie, now));
        }
    }

    fn park(&mut self, key: PublicKey, path: Path, message: &[u8], now: Time) {
        let parked = Parked { key, path, message: message.to_vec(), until: now + PARKED_LIFETIME };
        if let Some(same) = self.parked.iter_mut().find(|p| p.key == key) {
            *same = parked;
        } else if self.parked.len() < MAX_PARKED {
            self.parked.push(parked);
            self.stats.count(Counter::HandshakesParked);
            self.outputs.push_back(Output::UnknownPeer(key));
        } else {
            self.stats.count(Counter::HandshakesRejected);
        }
    }

    fn answer_parked(&mut self, key: &PublicKey, now: Time) {
        if let Some(at) = self.parked.iter().position(|p| p.key == *key) {
            let parked = self.parked.swap_remove(at);
            self.handle_initiation(parked.path, &parked.message, now);
        }
    }

    /// Somebody at a peer's locator uses a session that this process does not have: it was restarted. Speaking
    /// first saves the peer from finding out by silence.
    fn heard_unknown_index(&mut self, path: Path, now: Time) {
        if !self.load.admit_lookup(now) {
            return;
        }
        let silent = self
            .peers()
            .find(|(_, p)| p.configured && p.locators.iter().any(|l| l.address == path.remote))
            .filter(|(_, p)| p.current.is_none() && p.pending.is_empty() && p.handshake.is_none())
            .map(|(id, _)| id);
        if let Some(id) = silent {
            self.want_session(id, now);
        }
    }

    fn new_index(&self) -> u32 {
        loop {
            let index = random_u64() as u32 & INDEX_MASK;
            if index != 0 && !self.by_index.contains_key(&index) {
                return index;
            }
        }
    }
}

fn source_bytes(source: SocketAddr) -> Vec<u8> {
    let mut bytes = match source.ip() {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes.extend_from_slice(&source.port().to_be_bytes());
    bytes
}

const UNUSABLE_PRIORITY: u8 = 255;
const MAX_LOCATORS: usize = 8;
const MAX_ATTEMPTS: usize = 8;
const MAX_PENDING: usize = 4;
const MAX_PARKED: usize = 256;
const MAX_PROBES: usize = 32;
const PARKED_LIFETIME: Duration = seconds(5);
const RETRIES: [Duration; 6] = [millis(100), millis(200), millis(400), millis(800), millis(1000), millis(2000)];
const RETRY_CAP: Duration = seconds(5);
const GIVE_UP: Duration = seconds(90);
const COOKIE_LIFETIME: Duration = seconds(120);
const KEEPALIVE: Duration = seconds(10);
const SILENCE_BEFORE_HANDSHAKE: Duration = seconds(5);
const STALE_ENDPOINT: Duration = seconds(1);
const SIMULTANEOUS: Duration = seconds(5);
const PROBE_DEADLINE: Duration = seconds(2);
const PROBE_REPEAT: Duration = millis(300);
/// Waits between the probes after a change of this host's locators.
const ROAM_STEPS: [Duration; 9] = [
    millis(20),
    millis(30),
    millis(50),
    millis(100),
    millis(200),
    millis(400),
    millis(800),
    millis(1600),
    millis(3000),
];
