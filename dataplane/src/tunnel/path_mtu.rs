//! The largest outer packet that reaches a peer, found by probing (DPLPMTUD, RFC 8899).
//!
//! A path starts at `BASE`, which nearly every path takes, and is searched as soon as something is sent that not every
//! path takes; while there are only shorter packets a `lull` passes first, as a host with a thousand correspondents
//! has better things to do in the moment of its move. A round is a few probes of sizes between what is known to pass
//! and what is known not to, the longest first, so the common case is one round trip. The last packet of each try is a
//! short one. Only its answer lets a long one count as lost, and only `TRIES` such losses give a verdict: a path that
//! is silent or slow says nothing about sizes, and there is no round-trip timer to get wrong under load.
//!
//! While packets longer than `BASE` go out, the size in use is confirmed in the same way every `CONFIRM_INTERVAL`.
//! That finds a path which became narrower without a word (a black hole): back to `BASE`, and a search from there.
//! What ICMP says only brings the confirmation forward. A size that did not pass is tried again after `RAISE_FIRST`,
//! then ever more seldom. Nothing is sent to a peer that nothing is sent to.
//!
//! Two limits come out. What can be cut without loss (TCP) follows `size`, the proven one. What would have to be
//! refused follows `uncut`, which hopes for the best for the first second of a search: the refusal is remembered by
//! its receiver for minutes, so it has to name the right size.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Output, Tunnel};
use crate::log;
use crate::peer::{OVERHEAD_V6, PeerId};
use crate::stats::Counter;
use crate::time::{Time, millis, seconds};
use crate::wire::{Control, DATA_OVERHEAD, Kind};

/// All sizes are of outer IP packets.
pub struct PathMtu {
    v6: bool,
    /// What the own interface takes and the TUN can fill; 0 while unknown.
    ceiling: u16,
    /// Known to pass, or hoped to.
    low: u16,
    /// `low` has been answered on this path.
    proven: bool,
    /// Known not to pass, or one more than `ceiling`.
    high: u16,
    /// A router's word on what passes.
    hint: Option<u16>,
    searched: bool,
    /// While a search finds its first answers nobody is refused on a guess; none before it has begun.
    hopeful_until: Option<Time>,
    /// Before short packets alone begin a search.
    lull: Duration,
    /// When that is over.
    begin_at: Option<Time>,
    round: Option<Round>,
    /// Something longer than `BASE` was sent since the last confirmation.
    long_sent: bool,
    confirm_at: Time,
    raise_at: Time,
    raise_wait: Duration,
    retry_at: Time,
    rtt: Option<Duration>,
    next_token: u64,
    due: VecDeque<SizeProbe>,
}

/// `size` 0 is the short one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SizeProbe {
    pub token: u64,
    pub size: u16,
}

struct Round {
    purpose: Purpose,
    /// Not answered yet, longest first.
    sizes: Vec<u16>,
    sent: Vec<(SizeProbe, u32)>,
    attempt: u32,
    /// Tries in which the short probe was answered and others were not.
    failures: u32,
    /// Tries without any answer.
    silences: u32,
    started: Time,
    /// The short probe of this try was answered; what comes until then was only overtaken.
    verdict_at: Option<Time>,
    again_at: Time,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    Search,
    Confirm,
}

/// What became of the size in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Raised,
    BlackHole,
}

impl PathMtu {
    pub fn new() -> PathMtu {
        PathMtu {
            v6: false,
            ceiling: 0,
            low: BASE,
            proven: false,
            high: BASE,
            hint: None,
            searched: false,
            hopeful_until: None,
            lull: LULL,
            begin_at: None,
            round: None,
            long_sent: false,
            confirm_at: Time::default(),
            raise_at: Time::NEVER,
            raise_wait: RAISE_FIRST,
            retry_at: Time::default(),
            rtt: None,
            next_token: 1,
            due: VecDeque::new(),
        }
    }

    /// Largest packet that is known to pass, or `BASE`.
    pub fn size(&self) -> u16 {
        self.low
    }

    /// Largest packet worth sending if it cannot be cut.
    pub fn uncut(&self, now: Time) -> u16 {
        let hopeful = !self.searched && self.hopeful_until.is_none_or(|until| now < until);
        if hopeful { self.low.max(self.high - 1) } else { self.low }
    }

    /// The path is another one, of which nothing is known.
    pub fn restart(&mut self, v6: bool) {
        let (ceiling, next_token, lull) = (self.ceiling, self.next_token, self.lull);
        *self = PathMtu { v6, next_token, lull, ..PathMtu::new() };
        if ceiling > 0 {
            self.set_ceiling(ceiling);
        }
    }

    /// `lot`: by which hosts that begin at the same moment differ.
    pub fn spread(&mut self, lot: u32) {
        self.lull = LULL + LULL_SPREAD * (lot % LULL_LOTS) / LULL_LOTS;
    }

    /// What the own end of the path takes.
    pub fn set_ceiling(&mut self, ceiling: u16) {
        if ceiling == self.ceiling {
            return;
        }
        let before = std::mem::replace(&mut self.ceiling, ceiling);
        if self.high > before || self.high > ceiling {
            self.high = ceiling.saturating_add(1);
        }
        self.low = self.low.min(ceiling);
        self.round = None;
        self.searched &= ceiling <= before;
    }

    /// A datagram went out as an outer packet of `size`. True when `next_deadline` may have changed.
    #[inline]
    pub fn sent(&mut self, size: u16, now: Time) -> bool {
        self.long_sent |= size > BASE;
        if self.round.is_some() || now < self.retry_at || self.ceiling == 0 {
            return false;
        }
        if !self.searched && size <= FLOOR_V4 && self.begin_at.is_none_or(|at| now < at) {
            return self.begin_at.replace(self.begin_at.unwrap_or(now + self.lull)).is_none();
        }
        if !self.searched || now >= self.raise_at {
            self.begin_search(now);
            return true;
        }
        self.long_sent && self.low > BASE
    }

    fn begin_search(&mut self, now: Time) {
        if self.searched {
            self.high = self.ceiling.saturating_add(1);
        } else {
            self.hopeful_until = self.hopeful_until.or(Some(now + HOPE));
        }
        self.search(now);
    }

    /// A router said that packets longer than `size` do not pass.
    pub fn hint(&mut self, size: u16, now: Time) {
        if size >= self.high || size < self.floor() {
            return;
        }
        self.hint = Some(size);
        if size >= self.low {
            return;
        }
        if self.round.as_ref().is_none_or(|round| round.purpose == Purpose::Search) {
            self.begin(Purpose::Confirm, vec![self.low], now);
        }
    }

    /// The peer has received the probe.
    pub fn answered(&mut self, token: u64, now: Time) -> Option<Verdict> {
        let round = self.round.as_mut()?;
        let (probe, attempt) = round.sent.iter().find(|(probe, _)| probe.token == token).copied()?;
        if probe.size == 0 {
            if attempt == round.attempt && round.verdict_at.is_none() {
                let rtt = now.since(round.started);
                round.verdict_at = Some(now + OVERTAKING);
                self.rtt = Some(rtt);
            }
            return None;
        }
        round.sizes.retain(|size| *size > probe.size);
        let done = round.sizes.is_empty();
        self.proven |= probe.size >= self.low;
        let raised = probe.size > self.low;
        self.low = self.low.max(probe.size);
        self.high = self.high.max(self.low + 1);
        if done {
            self.end_round(now);
        }
        raised.then_some(Verdict::Raised)
    }

    /// The own kernel did not take the probe.
    pub fn refused(&mut self, token: u64, now: Time) {
        let Some(round) = self.round.as_mut() else { return };
        let Some(size) = round.sent.iter().find(|(probe, _)| probe.token == token).map(|(probe, _)| probe.size) else {
            return;
        };
        if size == 0 || size <= self.low {
            return;
        }
        self.high = self.high.min(size);
        round.sizes.retain(|kept| *kept < size);
        if round.sizes.is_empty() {
            self.end_round(now);
        }
    }

    pub fn next_deadline(&self) -> Option<Time> {
        if !self.due.is_empty() {
            return Some(Time::default());
        }
        match &self.round {
            Some(round) => Some(round.verdict_at.unwrap_or(round.again_at)),
            None if self.long_sent && self.searched && self.low > BASE => Some(self.confirm_at),
            None => self.begin_at,
        }
    }

    pub fn handle_timeout(&mut self, now: Time) -> Option<Verdict> {
        let Some(round) = self.round.as_mut() else {
            if self.long_sent && self.searched && self.low > BASE && now >= self.confirm_at {
                self.long_sent = false;
                self.begin(Purpose::Confirm, vec![self.low], now);
            } else if self.begin_at.is_some_and(|at| now >= at) {
                self.begin_search(now);
            }
            return None;
        };
        if round.verdict_at.is_some_and(|at| now >= at) {
            round.failures += 1;
            if round.failures >= TRIES || (self.hint.is_some() && round.purpose == Purpose::Confirm) {
                return self.failed(now);
            }
        } else if round.verdict_at.is_none() && now >= round.again_at {
            round.silences += 1;
            if round.silences >= MAX_SILENCES {
                // Whether the peer is there at all is found out elsewhere.
                self.round = None;
                (self.retry_at, self.confirm_at, self.hopeful_until) = (now + RETRY, now + RETRY, None);
                return None;
            }
        } else {
            return None;
        }
        self.send_try(now);
        None
    }

    pub fn poll_probe(&mut self) -> Option<SizeProbe> {
        self.due.pop_front()
    }

    /// The sizes left in the round do not pass.
    fn failed(&mut self, now: Time) -> Option<Verdict> {
        let round = self.round.take()?;
        let before = self.low;
        self.high = round.sizes.iter().copied().min().unwrap_or(self.high).min(self.high);
        if self.high > self.low {
            self.end_round(now);
            return None;
        }
        // What was in use does not pass any more, or never did.
        self.low = if before > BASE { BASE } else { self.floor() };
        (self.proven, self.searched, self.raise_wait) = (false, false, RAISE_FIRST);
        self.high = before.max(self.low + 1);
        self.hopeful_until = Some(now + HOPE);
        self.search(now);
        (before > self.low).then_some(Verdict::BlackHole)
    }

    fn end_round(&mut self, now: Time) {
        let purpose = self.round.take().map(|round| round.purpose);
        if purpose == Some(Purpose::Confirm) {
            (self.hint, self.confirm_at) = (None, now + CONFIRM_INTERVAL);
        } else {
            self.search(now);
        }
    }

    fn search(&mut self, now: Time) {
        let width = self.high.saturating_sub(self.low + 1);
        let right_hint = self.hint == Some(self.low);
        if (width < PRECISION || right_hint) && (self.proven || self.floor() == self.low) {
            return self.settle(now);
        }
        let mut sizes: Vec<u16> = (0..SIZES_AT_ONCE)
            .map(|i| self.low + (u32::from(width) * (SIZES_AT_ONCE - i) / SIZES_AT_ONCE) as u16)
            .filter(|size| *size > self.low)
            .collect();
        sizes.extend(self.hint.filter(|hint| (self.low + 1..self.high).contains(hint)));
        if !self.proven {
            sizes.push(self.low);
        }
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.dedup();
        self.begin(Purpose::Search, sizes, now);
    }

    fn settle(&mut self, now: Time) {
        self.searched = true;
        self.begin_at = None;
        self.hint = None;
        self.confirm_at = now + CONFIRM_INTERVAL;
        self.raise_at = Time::NEVER;
        if self.low < self.ceiling {
            self.raise_at = now + self.raise_wait;
            self.raise_wait = (self.raise_wait * 2).min(RAISE_LAST);
        } else {
            self.raise_wait = RAISE_FIRST;
        }
    }

    fn begin(&mut self, purpose: Purpose, sizes: Vec<u16>, now: Time) {
        // What comes of this round decides when the next one begins.
        self.begin_at = None;
        self.round = Some(Round {
            purpose,
            sizes,
            sent: Vec::new(),
            attempt: 0,
            failures: 0,
            silences: 0,
            started: now,
            verdict_at: None,
            again_at: now,
        });
        self.send_try(now);
    }

    fn send_try(&mut self, now: Time) {
        let wait = self.rtt.map_or(UNKNOWN_RTT, |rtt| rtt * 2 + OVERTAKING);
        let Some(round) = self.round.as_mut() else { return };
        round.attempt += 1;
        (round.started, round.verdict_at) = (now, None);
        round.again_at = now + wait * (1 << round.silences.min(4));
        self.due.clear();
        for size in round.sizes.iter().copied().chain([0]) {
            let probe = SizeProbe { token: self.next_token, size };
            self.next_token += 1;
            round.sent.push((probe, round.attempt));
            self.due.push_back(probe);
        }
    }

    /// The least that the underlay has to take.
    fn floor(&self) -> u16 {
        if self.v6 { FLOOR_V6 } else { FLOOR_V4 }
    }
}

impl Tunnel {
    /// A datagram with so many octets of UDP payload went to the peer.
    #[inline]
    pub fn sent_size(&mut self, id: PeerId, payload: usize, now: Time) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let size = payload + peer.outer_overhead() - DATA_OVERHEAD;
        if peer.path_mtu.sent(size.min(usize::from(u16::MAX)) as u16, now) {
            self.send_size_probes(id, now);
            self.reschedule(id);
        }
    }

    /// `ceiling`: the own interface's MTU towards the peer. `inner`: the TUN's.
    pub fn set_path_ceiling(&mut self, id: PeerId, ceiling: u16, inner: u32, now: Time) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let useful = (inner as usize + peer.outer_overhead()).min(usize::from(u16::MAX)) as u16;
        peer.path_mtu.set_ceiling(ceiling.min(useful));
        if !peer.asked.is_empty() && peer.is_up(now) {
            self.expect_long_packets(id, now);
        }
    }

    /// Whoever is asked about will be sent to.
    pub(super) fn expect_long_packets(&mut self, id: PeerId, now: Time) {
        self.sent_size(id, usize::from(BASE) - OVERHEAD_V6, now);
    }

    /// The way to the peer may lead through other networks now.
    pub(super) fn forget_path_mtu(&mut self, id: PeerId) {
        let Some(peer) = self.peer_mut(id) else { return };
        let v6 = peer.endpoint.is_some_and(|endpoint| endpoint.remote.is_ipv6());
        peer.path_mtu.restart(v6);
    }

    /// ICMP said of a packet to this peer that no more than `size` octets pass.
    pub(super) fn size_hint(&mut self, id: PeerId, size: u16, now: Time) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        peer.path_mtu.hint(size, now);
        self.send_size_probes(id, now);
        self.reschedule(id);
    }

    pub fn size_probe_refused(&mut self, id: PeerId, token: u64, now: Time) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        peer.path_mtu.refused(token, now);
        self.send_size_probes(id, now);
        self.reschedule(id);
    }

    pub(super) fn handle_size_reply(&mut self, id: PeerId, token: u64, now: Time) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let verdict = peer.path_mtu.answered(token, now);
        self.note_verdict(id, verdict);
        self.send_size_probes(id, now);
        self.reschedule(id);
    }

    pub(super) fn handle_path_mtu_timeout(&mut self, id: PeerId, now: Time) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        if peer.path_mtu.next_deadline().is_none_or(|at| now < at) {
            return;
        }
        let verdict = peer.path_mtu.handle_timeout(now);
        self.note_verdict(id, verdict);
        self.send_size_probes(id, now);
    }

    fn note_verdict(&mut self, id: PeerId, verdict: Option<Verdict>) {
        let (Some(peer), Some(verdict)) = (self.peer(id), verdict) else { return };
        let size = peer.path_mtu.size();
        match verdict {
            Verdict::Raised => self.stats.count(Counter::PathMtuRaised),
            Verdict::BlackHole => {
                log::debug("long packets to a peer vanish", &[("now", &size)]);
                self.stats.count(Counter::PathMtuBlackHoles);
            }
        }
    }

    fn send_size_probes(&mut self, id: PeerId, now: Time) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let overhead = peer.outer_overhead();
        while let Some(SizeProbe { token, size }) = peer.path_mtu.poll_probe() {
            let Some(path) = peer.endpoint else { continue };
            let Some(session) = peer.current.as_mut().filter(|s| s.may_send(now)) else { continue };
            let mut plaintext = Control::SizeProbe(token).bytes().to_vec();
            plaintext.resize(plaintext.len().max(usize::from(size).saturating_sub(overhead)), 0);
            let mut bytes = vec![0; plaintext.len() + DATA_OVERHEAD];
            if session.seal(Kind::Control, &plaintext, &mut bytes).is_some() {
                peer.tx_bytes += bytes.len() as u64;
                self.stats.count(Counter::SizeProbesSent);
                self.outputs.push_back(Output::SizeProbe { peer: id, path, token, bytes });
            }
        }
    }
}

const LULL: Duration = seconds(1);
const LULL_SPREAD: Duration = seconds(3);
const LULL_LOTS: u32 = 1024;
/// RFC 8899 section 5.1.2; also the least IPv6 promises.
const BASE: u16 = 1280;
const FLOOR_V4: u16 = 576;
const FLOOR_V6: u16 = 1280;
const SIZES_AT_ONCE: u32 = 4;
/// Closer than this is not worth another round.
const PRECISION: u16 = 8;
/// MAX_PROBES of RFC 8899.
const TRIES: u32 = 3;
const MAX_SILENCES: u32 = 5;
const RETRY: Duration = seconds(1);
const CONFIRM_INTERVAL: Duration = millis(400);
const RAISE_FIRST: Duration = seconds(10);
/// PMTU_RAISE_TIMER of RFC 8899.
const RAISE_LAST: Duration = seconds(600);
const HOPE: Duration = seconds(1);
/// A long packet may be overtaken by a short one by so much.
const OVERTAKING: Duration = millis(10);
const UNKNOWN_RTT: Duration = millis(250);
