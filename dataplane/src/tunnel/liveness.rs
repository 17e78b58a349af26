//! Liveness of the tunnel's peers: probes, keepalives, silence under traffic, and roaming of either side.

use std::time::Duration;

use super::handshaking::GIVE_UP;
use super::paths::{MAX_PATHS, OTHERS_AT_FIRST};
use super::{Output, Tunnel};
use crate::handshake::PublicKey;
use crate::peer::{AskedProbe, PENDING_LIFETIME, Path, PeerId, Roam, SentProbe};
use crate::stats::Counter;
use crate::time::{Time, millis, seconds};
use crate::wire::{Control, DATA_OVERHEAD, Kind, Report};

impl Tunnel {
    /// This host's addresses, links or routes changed: speak at once to every active peer to whom another way leads
    /// now, or who has not answered. Of many changes in a row the later ones are merged.
    pub fn locators_changed(&mut self, now: Time) {
        let earned = now.since(self.changes_since).as_nanos() / CHANGE_INTERVAL.as_nanos();
        if earned >= u128::from(CHANGES_AT_ONCE) {
            self.changes_since = now - CHANGE_INTERVAL * CHANGES_AT_ONCE;
        } else if earned == 0 {
            self.changed_at = Some(self.changes_since + CHANGE_INTERVAL);
            return;
        }
        self.changes_since = self.changes_since + CHANGE_INTERVAL;
        self.changed_at = None;
        let mut concerned = self.ids();
        concerned.retain(|&id| self.takes_another_way(id));
        self.least_wait = ROAM_SHARE * u32::try_from(concerned.len()).unwrap_or(u32::MAX);
        for &id in &concerned {
            self.speak_first(id, now);
            let way = self.peer(id).and_then(|peer| self.uplinks.way(&peer.endpoint?)).cloned();
            if let Some(peer) = self.peer_mut(id) {
                peer.spoken_by = way;
            }
        }
        // Each has heard of the change before any hears more.
        for id in concerned {
            if self.peer(id).is_some_and(|peer| peer.is_up(now)) {
                self.outputs.push_back(Output::EndpointChanged(id));
                self.report_first(id, now);
            }
        }
    }

    /// This host was suspended: speak to every active peer, whichever way leads there. Once for each sleep.
    pub fn resumed(&mut self, now: Time) {
        if self.wake(now) || self.sleep.is_just_over(now) {
            return;
        }
        for peer in self.peers.iter_mut().flatten() {
            peer.spoken_by = None;
        }
        self.locators_changed(now);
    }

    fn takes_another_way(&self, id: PeerId) -> bool {
        let Some(peer) = self.peer(id) else { return false };
        let way = peer.endpoint.and_then(|path| self.uplinks.way(&path));
        let waits = peer.handshake.is_some() || peer.roam.as_ref().is_some_and(|roam| roam.failed);
        way.is_none() || way != peer.spoken_by.as_ref() || waits
    }

    /// Through the path in use if it is still there, or through the best that is.
    fn speak_first(&mut self, id: PeerId, now: Time) {
        let Some(peer) = self.peer_mut(id) else { return };
        if let Some(handshake) = peer.handshake.as_mut() {
            (handshake.tries, handshake.next) = (0, now);
        }
        if let Some(endpoint) = peer.endpoint
            && !self.uplinks.has(&endpoint)
        {
            let again = self.uplinks.paths_to(endpoint.remote).into_iter().next();
            let other = || {
                let locators = &self.peer(id)?.locators;
                locators.iter().find_map(|l| self.uplinks.paths_to(l.address).into_iter().next())
            };
            match again.or_else(other) {
                Some(path) if path.remote != endpoint.remote => self.move_endpoint(id, path, now),
                path => {
                    if let Some(peer) = self.peer_mut(id) {
                        peer.endpoint = Some(path.unwrap_or(Path::to(endpoint.remote)));
                    }
                }
            }
        }
        if self.peer(id).is_some_and(|peer| peer.is_up(now)) {
            self.probe_first(id, false, now);
            self.forget_path_mtu(id);
        }
        self.reschedule(id);
    }

    /// Probes with reports until the peer has answered both.
    pub(super) fn start_roam(&mut self, id: PeerId, failover: bool, now: Time) {
        self.probe_first(id, failover, now);
        self.report_first(id, now);
    }

    /// What `report_first` completes.
    fn probe_first(&mut self, id: PeerId, failover: bool, now: Time) {
        let (first_token, least_wait) = (self.next_token, self.least_wait);
        let Some(peer) = self.peer_mut(id) else { return };
        let Some(path) = peer.endpoint else { return };
        // A failover within a roam ends it.
        let (started, failover) = match &peer.roam {
            Some(roam) if !roam.failed && !roam.answered => (roam.started, roam.failover && failover),
            _ => (now, failover),
        };
        let least_wait = if failover { Duration::ZERO } else { least_wait };
        let next = now + ROAM_STEPS[0].max(least_wait);
        peer.paths.end_search();
        peer.roam = Some(Roam {
            started,
            step: 1,
            next,
            least_wait,
            first_token,
            failed: false,
            answered: false,
            reported: false,
            failover,
        });
        peer.recovery.forget_roam();
        self.send_probe(id, path, now);
    }

    fn report_first(&mut self, id: PeerId, now: Time) {
        let Some(peer) = self.peer(id) else { return };
        let (Some(path), Some(token)) = (peer.endpoint, peer.roam.as_ref().map(|roam| roam.first_token)) else {
            return;
        };
        self.send_reports(id, path, false, token, token, now);
    }

    /// A packet of ours could not be sent because there is no route.
    pub fn no_route(&mut self, id: PeerId, path: &Path) {
        if let Some(peer) = self.peer_mut(id)
            && peer.endpoint.is_some_and(|endpoint| endpoint.remote == path.remote)
            && let Some(roam) = peer.roam.as_mut()
        {
            roam.failed = true;
        }
    }

    /// The own address or interface that packets were to leave by is gone. True if those in use were.
    pub fn forget_way(&mut self, id: PeerId, path: &Path) -> bool {
        match self.peer_mut(id).and_then(|p| p.endpoint.as_mut()) {
            Some(endpoint) if endpoint == path => {
                (endpoint.local, endpoint.link) = (None, 0);
                true
            }
            _ => false,
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
        self.handle_doubt(id, now);
        self.handle_trials(id, now);
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
        let Some(silent_for) = peer.silence.as_ref().filter(|s| now >= s.next).map(|s| now.since(s.since)) else {
            return;
        };
        if silent_for >= SILENCE_BEFORE_HANDSHAKE || !peer.is_up(now) {
            // The next data packet starts this anew; until then the handshake's own timer goes on.
            peer.silence = None;
            return self.want_session(id, now);
        }
        if self.take_answered_path(id, now) {
            return;
        }
        let Some(peer) = self.peer_mut(id) else { return };
        let Some(silence) = peer.silence.as_mut() else { return };
        let step = silence.step;
        silence.step += 1;
        let wait = peer.paths.wait_after(step, silent_for);
        silence.next = (now + wait).min((silence.since + SILENCE_BEFORE_HANDSHAKE).max(now));
        self.search(id, true, if step == 0 { OTHERS_AT_FIRST } else { MAX_PATHS }, now);
    }

    fn handle_roam(&mut self, id: PeerId, now: Time) {
        if self.peer(id).is_none_or(|p| p.roam.as_ref().is_none_or(|r| now < r.next))
            || self.take_answered_path(id, now)
        {
            return;
        }
        let last_answer = self.roam_answered;
        let Some(peer) = self.peer_mut(id) else { return };
        let Some(roam) = peer.roam.as_mut() else { return };
        // While others answer, the hosts or the network are busy with the first word: a second one would make it worse.
        let flows_until = last_answer + ROAM_PAUSE.min(roam.least_wait);
        if now < flows_until && now.since(roam.started) < LONGEST_ROAM_PAUSE {
            roam.next = flows_until;
            return;
        }
        let answered = roam.answered;
        let Some(step) = ROAM_STEPS.get(roam.step).filter(|_| !answered || roam.step < REPORT_STEPS) else {
            peer.roam = None;
            if answered {
                return;
            }
            // It has not heard of the change, so it is to hear of the next one.
            peer.spoken_by = None;
            return self.want_session(id, now);
        };
        roam.step += 1;
        roam.next = now + (*step).max(roam.least_wait);
        if !peer.is_up(now) {
            peer.roam = None;
            return;
        }
        if let Some(path) = peer.endpoint {
            self.send_roam_probe(id, path, now);
        }
        if !answered {
            self.search(id, false, MAX_PATHS, now);
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
        let (mut due, mut in_vain) = (false, false);
        peer.asked.retain_mut(|asked| {
            if now >= asked.deadline {
                in_vain = true;
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
            self.expect_long_packets(id, now);
        } else if in_vain || waiting && !up {
            // The peer may have forgotten the session: nothing else would show before there is something to send.
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

    /// `session`: the index of the one it came in.
    pub(super) fn handle_control(
        &mut self,
        id: PeerId,
        path: Path,
        plaintext: &[u8],
        newest: bool,
        session: u32,
        now: Time,
    ) {
        match Control::parse(plaintext) {
            None => self.stats.count(Counter::DropMalformed),
            Some(Control::Keepalive | Control::Unknown) => {}
            Some(Control::Started(answered)) => self.send_lost_with_restart(id, session, answered, now),
            Some(Control::ProbeRequest(token)) => {
                self.send_control(id, path, &Control::ProbeReply(token).bytes(), now);
            }
            Some(Control::ProbeReply(token)) => self.handle_probe_reply(id, token, now),
            Some(Control::SizeProbe(token)) => {
                self.send_control(id, path, &Control::SizeReply(token).bytes(), now);
            }
            Some(Control::SizeReply(token)) => self.handle_size_reply(id, token, now),
            Some(Control::PathRequest(token)) => self.handle_path_request(id, path, token, now),
            Some(Control::PathReply(token)) => self.handle_path_reply(id, token, now),
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
        peer.heard_rtt(rtt);
        for asked in peer.asked.drain(..) {
            self.outputs.push_back(Output::ProbeResult { token: asked.token, rtt: Some(rtt) });
        }
        if let Some(roam) = peer.roam.as_mut().filter(|r| token >= r.first_token && !r.answered) {
            roam.answered = true;
            peer.paths.end_search();
            if !roam.failover {
                self.roam_answered = now;
                self.outputs.push_back(Output::Handover { key: peer.key, took: now.since(roam.started) });
            }
        }
        peer.roam.take_if(|roam| roam.answered && roam.reported);
    }

    pub(super) fn leave_unlisted_endpoint(&mut self, id: PeerId, now: Time) {
        let Some(peer) = self.peer(id) else { return };
        let listed = peer.endpoint.is_some_and(|e| peer.locators.iter().any(|l| l.address == e.remote));
        let mut ways = peer.locators.iter().filter_map(|l| self.uplinks.paths_to(l.address).into_iter().next());
        let Some(best) = ways.next().filter(|_| !listed) else { return };
        // While this host is moving too, the peer has not said that it is still there.
        let both = peer.roam.as_ref().is_some_and(|roam| !roam.answered);
        if both || peer.last_received.is_none_or(|at| now.since(at) >= STALE_ENDPOINT) {
            self.move_endpoint(id, best, now);
        }
        if both {
            self.start_roam(id, false, now);
        } else {
            self.send_probe(id, best, now);
        }
    }

    pub(super) fn move_endpoint(&mut self, id: PeerId, path: Path, now: Time) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let before = peer.endpoint.replace(path);
        if before.is_some_and(|before| before.is_same_way(&path)) {
            return;
        }
        peer.recovery.epoch = peer.recovery.epoch.wrapping_add(1);
        peer.paths.forget_confirmation();
        peer.path_mtu.restart(path.remote.is_ipv6());
        self.outputs.push_back(Output::EndpointChanged(id));
        if before.is_some_and(|before| before.remote != path.remote) {
            self.stats.count(Counter::Roams);
            self.outputs.push_back(Output::PeerMoved { key: peer.key, remote: path.remote });
        }
        self.count_paths(id);
        self.look_for_better(id, now);
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

/// Changes of this host's locators that are acted on at once, and how soon there may be another one.
const CHANGES_AT_ONCE: u32 = 16;
const CHANGE_INTERVAL: Duration = millis(25);
const MAX_PROBES: usize = 32;
const SILENCE_BEFORE_HANDSHAKE: Duration = seconds(5);
const STALE_ENDPOINT: Duration = seconds(1);
/// So many of the waits below are used for a report after a probe was answered.
const REPORT_STEPS: usize = 6;
const PROBE_DEADLINE: Duration = seconds(2);
const PROBE_REPEAT: Duration = millis(300);
/// Share of each peer in the shortest wait: those that have not answered yet are not to be kept from it by repetitions.
const ROAM_SHARE: Duration = Duration::from_micros(100);
/// After the last answer of any peer, before the others are asked again; not longer than the shortest wait.
const ROAM_PAUSE: Duration = millis(20);
/// Since the first word, for answers that trickle.
const LONGEST_ROAM_PAUSE: Duration = millis(250);
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
