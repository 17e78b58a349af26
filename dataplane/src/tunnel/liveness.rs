//! Liveness of the tunnel's peers: probes, keepalives, silence under traffic, and roaming of either side.

use std::time::Duration;

use super::handshaking::GIVE_UP;
use super::{Output, Tunnel};
use crate::handshake::PublicKey;
use crate::peer::{AskedProbe, PENDING_LIFETIME, Path, PeerId, Roam, SentProbe};
use crate::stats::Counter;
use crate::time::{Time, millis, seconds};
use crate::wire::{Control, DATA_OVERHEAD, Kind, Report};

impl Tunnel {
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
                    Some(roam) if !roam.failed && !roam.answered => roam.started,
                    _ => now,
                };
                let next = now + ROAM_STEPS[0];
                let Some(path) = peer.endpoint else { continue };
                let first_token = self.next_token;
                if let Some(peer) = self.peer_mut(id) {
                    let roam =
                        Roam { started, step: 1, next, first_token, failed: false, answered: false, reported: false };
                    peer.roam = Some(roam);
                    peer.recovery.forget_roam();
                }
                self.send_roam_probe(id, path, now);
                self.forget_path_mtu(id);
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

    pub(super) fn handle_peer_timeout(&mut self, id: PeerId, now: Time) {
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
                self.send_control(id, path, &Control::Keepalive.bytes(), now);
            }
        }
        self.handle_silence(id, now);
        self.handle_roam(id, now);
        self.handle_resending(id, now);
        self.handle_path_mtu_timeout(id, now);
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
        let wait = if step == 0 { millis(100) } else { first_wait.max(silent_for / 2) };
        silence.next = (now + wait).min((silence.since + SILENCE_BEFORE_HANDSHAKE).max(now));
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
        let answered = roam.answered;
        let Some(step) = ROAM_STEPS.get(roam.step).filter(|_| !answered || roam.step < REPORT_STEPS) else {
            peer.roam = None;
            if answered {
                return;
            }
            return self.want_session(id, now);
        };
        roam.step += 1;
        roam.next = now + *step;
        if !peer.is_up(now) {
            peer.roam = None;
            return;
        }
        let paths = if answered { peer.endpoint.into_iter().collect() } else { peer.candidates() };
        for path in paths.into_iter().take(MAX_LOCATORS) {
            self.send_roam_probe(id, path, now);
        }
    }

    /// A probe, and what has been received so far.
    fn send_roam_probe(&mut self, id: PeerId, path: Path, now: Time) {
        let token = self.next_token;
        self.send_probe(id, path, now);
        if let Some(roam) = self.peer(id).and_then(|p| p.roam.as_ref()).map(|r| r.first_token) {
            self.send_reports(id, path, false, token, roam, now);
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

    pub(super) fn send_probe(&mut self, id: PeerId, path: Path, now: Time) {
        let token = self.next_token;
        self.next_token += 1;
        if let Some(peer) = self.peer_mut(id) {
            peer.probes.push_back(SentProbe { token, sent: now });
            if peer.probes.len() > MAX_PROBES {
                peer.probes.pop_front();
            }
        }
        self.stats.count(Counter::ProbesSent);
        self.send_control(id, path, &Control::ProbeRequest(token).bytes(), now);
    }

    pub(super) fn send_control(&mut self, id: PeerId, path: Path, plaintext: &[u8], now: Time) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let Some(session) = peer.current.as_mut().filter(|s| s.may_send(now)) else { return };
        let mut bytes = vec![0; plaintext.len() + DATA_OVERHEAD];
        if session.seal(Kind::Control, plaintext, &mut bytes).is_some() {
            peer.tx_bytes += bytes.len() as u64;
            self.outputs.push_back(Output::Transmit { peer: Some(id), path, bytes });
        }
    }

    pub(super) fn handle_control(&mut self, id: PeerId, path: Path, plaintext: &[u8], newest: bool, now: Time) {
        match Control::parse(plaintext) {
            None => self.stats.count(Counter::DropMalformed),
            Some(Control::Keepalive | Control::Unknown) => {}
            Some(Control::ProbeRequest(token)) => {
                self.send_control(id, path, &Control::ProbeReply(token).bytes(), now);
            }
            Some(Control::ProbeReply(token)) => self.handle_probe_reply(id, token, now),
            Some(Control::SizeProbe(token)) => {
                self.send_control(id, path, &Control::SizeReply(token).bytes(), now);
            }
            Some(Control::SizeReply(token)) => self.handle_size_reply(id, token, now),
            Some(Control::Report) => match Report::parse(plaintext) {
                Some(report) => self.handle_report(id, path, &report, newest, now),
                None => self.stats.count(Counter::DropMalformed),
            },
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
        if let Some(roam) = peer.roam.as_mut().filter(|r| token >= r.first_token && !r.answered) {
            roam.answered = true;
            self.outputs.push_back(Output::Handover { key: peer.key, took: now.since(roam.started) });
        }
        peer.roam.take_if(|roam| roam.answered && roam.reported);
    }

    pub(super) fn leave_unlisted_endpoint(&mut self, id: PeerId, now: Time) {
        let Some(peer) = self.peer_mut(id) else { return };
        let listed = peer.endpoint.is_some_and(|e| peer.locators.iter().any(|l| l.address == e.remote));
        let Some(best) = peer.locators.first().map(|l| Path::to(l.address)).filter(|_| !listed) else { return };
        if peer.last_received.is_none_or(|at| now.since(at) >= STALE_ENDPOINT) {
            self.move_endpoint(id, best);
        }
        self.send_probe(id, best, now);
    }

    pub(super) fn move_endpoint(&mut self, id: PeerId, path: Path) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let before = peer.endpoint.replace(path);
        if before.map(|p| p.remote) == Some(path.remote) {
            return;
        }
        peer.recovery.epoch = peer.recovery.epoch.wrapping_add(1);
        peer.path_mtu.restart(path.remote.is_ipv6());
        self.outputs.push_back(Output::EndpointChanged(id));
        if before.is_some() {
            self.stats.count(Counter::Roams);
            self.outputs.push_back(Output::PeerMoved { key: peer.key, remote: path.remote });
        }
    }

    pub(super) fn send_asked_probes_now(&mut self, id: PeerId, now: Time) {
        if let Some(peer) = self.peer_mut(id) {
            for asked in &mut peer.asked {
                asked.next = now;
            }
        }
        self.send_asked_probes(id, now);
    }
}

const MAX_LOCATORS: usize = 8;
const MAX_PROBES: usize = 32;
const SILENCE_BEFORE_HANDSHAKE: Duration = seconds(5);
const STALE_ENDPOINT: Duration = seconds(1);
/// So many of the waits below are used for a report after a probe was answered.
const REPORT_STEPS: usize = 6;
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
