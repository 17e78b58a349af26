//! Handshakes of the tunnel: initiations sent and answered, sessions confirmed, strangers parked.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Output, Parked, Tunnel};
use crate::handshake::{Attempt, PublicKey, Received, claims_cookie, random_u64};
use crate::load::Admission;
use crate::peer::{Handshaking, Path, PeerId};
use crate::session::Session;
use crate::stats::Counter;
use crate::time::{Time, millis, seconds};
use crate::wiping::wipe_stack;
use crate::wire::{Answered, Control, Header, INDEX_MASK, Kind};

impl Tunnel {
    /// Makes sure that a handshake is under way.
    pub fn want_session(&mut self, id: PeerId, now: Time) {
        let asleep = self.is_asleep();
        let Some(peer) = self.peer_mut(id) else { return };
        match peer.handshake.as_mut() {
            _ if asleep => peer.greet_later = true,
            Some(handshake) => handshake.wanted = now,
            None => {
                peer.handshake = Some(Handshaking { tries: 0, next: now, wanted: now, attempts: VecDeque::new() });
                self.attempt_handshake(id, now);
                self.reschedule(id);
            }
        }
    }

    /// An initiation, a response or a cookie reply.
    pub fn handle_handshake(&mut self, path: Path, header: Header, message: &[u8], now: Time) {
        let Some(identity) = self.identity.as_ref() else { return };
        if header.instance != identity.instance {
            return self.stats.count(Counter::DropWrongInstance);
        }
        if self.is_asleep() {
            return self.stats.count(Counter::HandshakesRejected);
        }
        let path = self.uplinks.arrived(path);
        match header.kind {
            Kind::CookieReply => return self.handle_cookie(header, message, now),
            Kind::Initiation | Kind::Response => {}
            Kind::Data | Kind::DataPartial | Kind::Control => return,
        }
        // Before any budget: who does not even know our public key is to use up none of them. It costs as little as taking
        // the packet off the socket, of which there are only so many a second (`initiation_socket.rs`).
        if !identity.mac1_ok(message) {
            return self.stats.count(Counter::DropAuth);
        }
        let initiation = header.kind == Kind::Initiation;
        let with_cookie = initiation && claims_cookie(message) && self.gate.is_invited(path.remote, now);
        if initiation && !self.gate.admits(path.remote, with_cookie, now) {
            return self.stats.count(Counter::HandshakesRejected);
        }
        if header.kind == Kind::Response {
            return self.handle_response(path, header, message, now);
        }
        if self.recent.contains(message) {
            return self.stats.count(Counter::HandshakesCopied);
        }
        let source = source_bytes(path.remote);
        match self.load.admit(path.remote.ip(), now, || self.cookies.mac2_ok(message, &source)) {
            Admission::Accept => {
                self.recent.remember(message);
                self.handle_initiation(path, message, now);
                wipe_stack();
            }
            Admission::Refuse => self.stats.count(Counter::HandshakesRejected),
            // A cookie that is none any more is answered like no cookie, and out of the same budget.
            Admission::DemandCookie if with_cookie && !self.gate.admits(path.remote, false, now) => {
                self.stats.count(Counter::HandshakesRejected)
            }
            Admission::DemandCookie => self.demand_cookie(path, message, &source, now),
        }
    }

    fn demand_cookie(&mut self, path: Path, message: &[u8], source: &[u8], now: Time) {
        let Some(identity) = self.identity.as_ref() else { return };
        if let Some(bytes) = self.cookies.reply(identity, message, source) {
            self.stats.count(Counter::CookiesSent);
            self.gate.invite(path.remote, now);
            self.outputs.push_back(Output::Transmit { peer: None, path, bytes });
        }
    }

    /// The initiator used a session that we answered. When both ends initiated at once, the end with the lower key
    /// decides: for its own session if it answered the other's before its own was answered, else for the later, the
    /// other's. What it uses the other end takes as well, here or in `follow`.
    pub(super) fn confirm(&mut self, id: PeerId, at: usize, now: Time) {
        let own_key = self.public_key();
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let confirmed = peer.pending.remove(at);
        peer.first_rtt = Some(confirmed.age(now));
        let decides = own_key.is_some_and(|own| own < peer.key);
        let keep_own =
            peer.current.as_ref().is_some_and(|own| own.crossed(&confirmed) && (decides || own.replay.received_any()));
        let leaves_own = !keep_own && peer.current.as_ref().is_some_and(|own| own.initiator);
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
        self.say_started(id, now);
        if let Some(path) = self.peer(id).and_then(|peer| peer.endpoint).filter(|_| leaves_own) {
            self.send_control(id, path, &Control::Keepalive.bytes(), now);
        }
        self.send_asked_probes_now(id, now);
        self.reschedule(id);
    }

    /// A packet came in `previous`. True, and that is the current session from now on, if it was made at once with the
    /// current one and the lower key, the peer's, has decided for it.
    pub(super) fn follow(&mut self, id: PeerId) -> bool {
        let own_key = self.public_key();
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return false };
        let (Some(current), Some(previous)) = (&peer.current, &peer.previous) else { return false };
        let follows = own_key.is_some_and(|own| own > peer.key) && previous.crossed(current);
        if follows {
            std::mem::swap(&mut peer.current, &mut peer.previous);
        }
        follows
    }

    /// Before anything else in the first session with a peer.
    fn say_started(&mut self, id: PeerId, now: Time) {
        let Some(peer) = self.peer_mut(id).filter(|peer| !peer.known) else { return };
        peer.known = true;
        let indices: Vec<u32> = peer.pending.iter().map(|session| session.local_index).collect();
        if let Some(path) = peer.endpoint {
            self.send_control(id, path, &Control::Started(Answered::new(&indices)).bytes(), now);
        }
    }

    pub(super) fn end_handshake(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        for attempt in peer.handshake.take().into_iter().flat_map(|h| h.attempts) {
            self.by_index.remove(&attempt.index);
        }
    }

    pub(super) fn attempt_handshake(&mut self, id: PeerId, now: Time) {
        let index = self.new_index();
        self.sequence += 1;
        let order = (self.epoch, self.sequence);
        let suite = self.suite;
        let paths = self.peer(id).map_or_else(Vec::new, |peer| self.candidates(peer));
        let (Some(identity), Some(peer)) =
            (self.identity.as_ref(), self.peers.get_mut(id.0 as usize).and_then(Option::as_mut))
        else {
            return;
        };
        let Some(handshake) = peer.handshake.as_mut() else { return };
        if paths.is_empty() || !peer.configured {
            handshake.next = Time::NEVER;
            return;
        }
        let Some(index) = index else {
            handshake.next = now + RETRY_CAP;
            return;
        };
        let first = handshake.tries as usize * MAX_AT_ONCE % paths.len();
        let wait = RETRIES.get(handshake.tries as usize).copied().unwrap_or(RETRY_CAP);
        let jitter = wait.as_nanos() as u64 / 10;
        handshake.next = now + wait + Duration::from_nanos(random_u64() % (jitter + 1));
        handshake.tries += 1;
        let cookie = peer.cookie.as_ref().filter(|(_, since)| now.since(*since) < COOKIE_LIFETIME).map(|(c, _)| c);
        let started = Attempt::start(identity, suite, &peer.key, index, order, cookie);
        wipe_stack();
        let Ok((bytes, mut attempt)) = started else { return };
        if handshake.attempts.len() == MAX_ATTEMPTS
            && let Some(oldest) = handshake.attempts.pop_front()
        {
            self.by_index.remove(&oldest.index);
        }
        attempt.sent = now;
        handshake.attempts.push_back(attempt);
        self.by_index.insert(index, id);
        self.stats.count(Counter::HandshakesInitiated);
        // To all at once: the nearest is answered first, and one that leads nowhere (a private address of another
        // network) costs no time.
        for path in paths.iter().cycle().skip(first).take(paths.len().min(MAX_AT_ONCE)) {
            self.outputs.push_back(Output::Transmit { peer: Some(id), path: *path, bytes: bytes.clone() });
        }
    }

    fn handle_initiation(&mut self, path: Path, message: &[u8], now: Time) {
        let Some(identity) = self.identity.as_ref() else { return };
        let Ok(received) = Received::read(identity, message) else {
            return self.stats.count(Counter::DropAuth);
        };
        let key = received.remote;
        let known = self.find(&key).filter(|id| self.peer(*id).is_some_and(|p| p.configured));
        let Some(id) = known else {
            if key == identity.public {
                return self.stats.count(Counter::HandshakesRejected);
            }
            return self.park(key, path, message, now);
        };
        let Some(index) = self.new_index() else {
            return self.stats.count(Counter::HandshakesRejected);
        };
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
        self.move_endpoint(id, path, now);
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
        let finished = attempt.finish(message);
        wipe_stack();
        let Ok((keys, remote_index)) = finished else { return self.stats.count(Counter::DropAuth) };
        let local_index = attempt.index;
        peer.first_rtt = Some(now.since(attempt.sent));
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
        self.move_endpoint(id, path, now);
        // Lets the responder use the session even when nothing waits to be sent.
        self.send_control(id, path, &Control::Keepalive.bytes(), now);
        self.say_started(id, now);
        self.outputs.push_back(Output::SessionUp(id));
        self.send_asked_probes_now(id, now);
        self.reschedule(id);
    }

    fn handle_cookie(&mut self, header: Header, message: &[u8], now: Time) {
        let Some(&id) = self.by_index.get(&header.index) else {
            return self.stats.count(Counter::DropUnknownIndex);
        };
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let attempts = peer.handshake.as_ref().map(|handshake| &handshake.attempts);
        let Some(attempt) = attempts.and_then(|all| all.iter().find(|attempt| attempt.index == header.index)) else {
            return self.stats.count(Counter::DropUnknownIndex);
        };
        let Some(cookie) = attempt.open_cookie(message) else { return self.stats.count(Counter::DropAuth) };
        let before = peer.cookie.replace((cookie, now));
        // Said again with it at once, but no more often than a cookie lasts: the pauses between attempts hold beyond that.
        if before.is_none_or(|(_, since)| now.since(since) >= COOKIE_LIFETIME) {
            self.attempt_handshake(id, now);
            self.reschedule(id);
        }
    }

    /// Strangers come in with any key and cost the agent a question each. Once several wait, only those that proved
    /// their address join them, and the oldest makes room: what is made up cannot keep a real one out.
    fn park(&mut self, key: PublicKey, path: Path, message: &[u8], now: Time) {
        let parked = Parked { key, path, message: message.to_vec(), until: now + PARKED_LIFETIME };
        if let Some(same) = self.parked.iter_mut().find(|p| p.key == key) {
            *same = parked;
            return;
        }
        let source = source_bytes(path.remote);
        if self.parked.len() >= MAX_PARKED_UNPROVED && !self.cookies.mac2_ok(message, &source) {
            return self.demand_cookie(path, message, &source, now);
        }
        if self.parked.len() == MAX_PARKED {
            self.parked.remove(0);
            self.stats.count(Counter::HandshakesRejected);
        }
        self.parked.push(parked);
        self.stats.count(Counter::HandshakesParked);
        self.outputs.push_back(Output::UnknownPeer(key));
    }

    pub(super) fn answer_parked(&mut self, key: &PublicKey, now: Time) {
        if let Some(at) = self.parked.iter().position(|p| p.key == *key) {
            let parked = self.parked.remove(at);
            self.handle_initiation(parked.path, &parked.message, now);
            wipe_stack();
        }
    }

    /// Somebody at a peer's locator uses a session that this process does not have: it was restarted. Speaking
    /// first saves the peer from finding out by silence.
    pub(super) fn heard_unknown_index(&mut self, path: Path, now: Time) {
        if self.greet_sooner(path.remote) || !self.load.admit_lookup(now) {
            return;
        }
        let silent = self
            .peers()
            .find(|(_, p)| p.configured && p.locators.iter().any(|l| l.address == path.remote))
            .filter(|(_, p)| p.current.is_none() && p.handshake.is_none())
            .filter(|(_, p)| p.pending.iter().all(|session| session.age(now) >= CONFIRMATION))
            .map(|(id, _)| id);
        if let Some(id) = silent {
            self.want_session(id, now);
        }
    }

    fn new_index(&self) -> Option<u32> {
        (self.by_index.len() < self.index_limit)
            .then(|| free_index(|| random_u64() as u32, |index| self.by_index.contains_key(&index)))
    }
}

/// Of 24 bits, not 0 and not taken.
fn free_index(mut random: impl FnMut() -> u32, is_taken: impl Fn(u32) -> bool) -> u32 {
    loop {
        let index = random() & INDEX_MASK;
        if index != 0 && !is_taken(index) {
            return index;
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

/// Session indices in use at once: of 24 bits so many that a free one is found in a few draws.
pub(super) const MAX_INDICES: usize = 15 << 20;
/// Locators that one initiation goes to.
const MAX_AT_ONCE: usize = 8;
const MAX_ATTEMPTS: usize = 8;
const MAX_PENDING: usize = 4;
/// The initiator of a session uses it within this time, or what was answered was a replay.
const CONFIRMATION: Duration = seconds(1);
const MAX_PARKED: usize = 256;
const MAX_PARKED_UNPROVED: usize = 64;
const PARKED_LIFETIME: Duration = seconds(5);
const RETRIES: [Duration; 6] = [millis(100), millis(200), millis(400), millis(800), millis(1000), millis(2000)];
const RETRY_CAP: Duration = seconds(5);
pub(super) const GIVE_UP: Duration = seconds(90);
const COOKIE_LIFETIME: Duration = seconds(120);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_index_has_24_bits_and_is_not_0_or_taken() {
        let mut draws = [0, 0x0100_0000, 0xff00_0007, 0x0200_0005, 5].into_iter();
        assert_eq!(free_index(|| draws.next().unwrap(), |index| index == 7), 5);
        // As full as it may get.
        let mut taken: HashSet<u32> = HashSet::new();
        for _ in 0..2000 {
            let nearly_all = |index: u32| index & 15 != 3 || taken.contains(&index);
            let index = free_index(|| random_u64() as u32, nearly_all);
            assert!((1..=INDEX_MASK).contains(&index) && taken.insert(index));
        }
    }
}
