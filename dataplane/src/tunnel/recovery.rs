//! Nothing lost on a roam: both ends say what they have, and what is missing goes out again on the new path.
//!
//! Who moved sends a report with each of its first probes. The other end answers with its own, and sends again what
//! the mover has not: of the packets that went to another endpoint all, of those to this endpoint only what is older
//! than a round trip, as the rest is still on its way. The mover sends again what the answer lacks of all that it
//! sent before the report that was answered. A report counts once for each roam and session, only from the peer's
//! present endpoint and only as the newest packet, so that nobody can use an old one.
//!
//! A peer whose data plane was started again, or forgot its sessions to sleep, can report nothing, but says so in its
//! first session. What was sent to it since it was heard last, and a round trip before, is sealed for the new session
//! and goes out again; of that, what the peer still received comes twice.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Output, Tunnel};
use crate::peer::{Path, PeerId};
use crate::replay::WINDOW;
use crate::retransmit::{Gate, Kept, RESEND_AT_ONCE, RESEND_STEP, Resending, Ring};
use crate::session::Session;
use crate::stats::Counter;
use crate::time::{Time, millis, seconds};
use crate::wire::{Answered, DATA_HEADER, Header, Report, TAG};

/// A peer's part in this.
#[derive(Default)]
pub struct Recovery {
    pub ring: Ring,
    gate: Gate,
    /// Counts the peer's endpoints.
    pub epoch: u32,
    pub resending: Resending,
    /// Reports to the peer since this host's last change of locators.
    asked: VecDeque<(u64, Time)>,
    answers: Seen,
    requests: Seen,
    /// When the peer was last told to send again.
    reported: Option<Time>,
    /// The session in which the peer said that it was started.
    started: Option<u32>,
}

/// The sessions of one roam that have been reported.
#[derive(Default)]
struct Seen {
    roam: u64,
    indexes: Vec<u32>,
}

impl Seen {
    fn is_first(&mut self, roam: u64, index: u32) -> bool {
        if self.roam != roam {
            (self.roam, self.indexes) = (roam, Vec::new());
        }
        let first = !self.indexes.contains(&index) && self.indexes.len() < MAX_SESSIONS;
        if first {
            self.indexes.push(index);
        }
        first
    }
}

impl Recovery {
    pub fn next_deadline(&self) -> Option<Time> {
        self.resending.next
    }

    /// What comes twice now was sent again on our word.
    pub fn explains_duplicates(&self, now: Time) -> bool {
        self.reported.is_some_and(|at| now.since(at) < DUPLICATES_AFTER_REPORT)
    }

    pub fn forget_roam(&mut self) {
        self.asked.clear();
    }
}

impl Tunnel {
    /// The peer's process is a new one. `peer.previous` is what it has lost, as long as `session`, in which it said so
    /// and its first, is the current one: held back until the next, the word would be about a session of its own.
    /// `answered`: sessions that the new process has, though it has not heard in them yet.
    pub(super) fn send_lost_with_restart(&mut self, id: PeerId, session: u32, answered: Answered, now: Time) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let round_trip = peer.rtt.or(peer.first_rtt).unwrap_or(UNKNOWN_RTT);
        let (Some(old), Some(new)) = (peer.previous.as_ref(), peer.current.as_mut()) else { return };
        // Both are with the new process, which has lost nothing of the one put back.
        if old.crossed(new) || answered.contains(old.remote_index) || new.local_index != session {
            return;
        }
        if peer.recovery.started.replace(new.local_index) == Some(new.local_index) {
            return;
        }
        let since = old.heard - round_trip;
        let Recovery { ring, resending, epoch, .. } = &mut peer.recovery;
        ring.expire(&mut self.pool, now);
        let lost = |kept: &Kept| kept.index == old.remote_index && kept.sent >= since;
        let numbers: Vec<u64> = ring.iter().filter(|(_, kept)| lost(kept)).map(|(number, _)| number).collect();
        resending.queue.clear();
        let mut overflowed = 0;
        for number in numbers {
            let Some((_, datagram)) = ring.get(number) else {
                overflowed += 1;
                continue;
            };
            let mut opened = datagram.to_vec();
            let mut sealed = vec![0; opened.len()];
            let kind = Header::parse(&opened).map(|header| header.kind);
            let plain = DATA_HEADER..opened.len().saturating_sub(TAG);
            if let Ok(kind) = kind
                && old.reopen(&mut opened).is_some()
                && new.seal(kind, &opened[plain], &mut sealed).is_some()
            {
                let number = ring.next_number();
                overflowed += ring.push(&mut self.pool, &sealed, *epoch, now);
                resending.queue.push_back(number);
            }
        }
        self.stats.add(Counter::RetransmitOverflowed, overflowed);
        self.handle_resending(id, now);
    }

    /// Sealed datagrams of `segment` octets went to the peer.
    #[inline]
    pub fn keep(&mut self, id: PeerId, path: Path, datagrams: &[u8], segment: usize, now: Time) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut).filter(|_| self.pool.is_enabled())
        else {
            return;
        };
        let at_endpoint = peer.endpoint.is_some_and(|endpoint| endpoint.remote == path.remote);
        let Recovery { ring, gate, epoch, .. } = &mut peer.recovery;
        if !gate.admits(datagrams.len(), &self.pool.limits, now) {
            let lost = datagrams.len().div_ceil(segment.max(1));
            return self.stats.add(Counter::RetransmitOverflowed, lost as u64);
        }
        let epoch = epoch.wrapping_sub(u32::from(!at_endpoint));
        ring.expire(&mut self.pool, now);
        let (mut count, mut lost) = (0, 0);
        for datagram in datagrams.chunks(segment.max(1)) {
            lost += ring.push(&mut self.pool, datagram, epoch, now);
            count += 1;
        }
        self.stats.add(Counter::RetransmitKept, count);
        self.stats.add(Counter::RetransmitOverflowed, lost);
    }

    /// Lets go of what is too old. True when no memory is held any more.
    pub fn expire_kept(&mut self, now: Time) -> bool {
        for peer in self.peers.iter_mut().flatten() {
            peer.recovery.ring.expire(&mut self.pool, now);
            if peer.recovery.ring.is_empty() {
                peer.recovery.ring.clear(&mut self.pool);
            }
        }
        self.pool.shrink()
    }

    pub fn keeps_memory(&self) -> bool {
        self.pool.keeps_memory()
    }

    /// Tells the peer what has been received in each session that it may use.
    pub(super) fn send_reports(&mut self, id: PeerId, path: Path, reply: bool, token: u64, roam: u64, now: Time) {
        let Some(peer) = self.peer_mut(id) else { return };
        let report = |session: &Session| {
            let (first, next, bits) = session.replay.state();
            Report { reply, token, roam, index: session.local_index, first, next, bits: bits.into() }.bytes()
        };
        let retired_lately = peer.current.as_ref().is_some_and(|c| c.age(now) < RETIRED_LATELY);
        let previous = peer.previous.as_ref().filter(|_| retired_lately);
        let reports: Vec<_> = peer.current.iter().chain(previous).chain(&peer.pending).map(report).collect();
        peer.recovery.reported = Some(now);
        if !reply {
            peer.recovery.asked.push_back((token, now));
            if peer.recovery.asked.len() > MAX_ASKED {
                peer.recovery.asked.pop_front();
            }
        }
        for report in reports {
            self.send_control(id, path, &report, now);
        }
    }

    /// `newest`: no packet of the peer before had a higher counter.
    pub(super) fn handle_report(&mut self, id: PeerId, path: Path, report: &Report, newest: bool, now: Time) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        if report.reply {
            let Some(&(_, asked)) = peer.recovery.asked.iter().find(|(token, _)| *token == report.token) else {
                return;
            };
            if let Some(roam) = peer.roam.as_mut().filter(|roam| !roam.reported && report.token >= roam.first_token) {
                roam.reported = true;
                if !roam.failover {
                    self.roam_answered = now;
                }
            }
            peer.roam.take_if(|roam| roam.reported && roam.answered);
            if peer.recovery.answers.is_first(report.roam, report.index) {
                self.send_again(id, report, |_, sent| sent < asked, now);
            }
        } else if newest && peer.endpoint == Some(path) {
            let on_its_way = peer.rtt.or(peer.first_rtt).unwrap_or(UNKNOWN_RTT).mul_f32(1.25) + millis(5);
            let epoch = peer.recovery.epoch;
            let first = peer.recovery.requests.is_first(report.roam, report.index);
            // Answered every time: an answer may be lost.
            self.send_reports(id, path, true, report.token, report.roam, now);
            if first {
                self.send_again(id, report, |to, sent| to != epoch || now.since(sent) > on_its_way, now);
            }
        }
    }

    /// Queues what the report lacks and `lost` says, given the endpoint a packet was sent to and when.
    fn send_again(&mut self, id: PeerId, report: &Report, lost: impl Fn(u32, Time) -> bool, now: Time) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        peer.recovery.ring.expire(&mut self.pool, now);
        let Recovery { ring, resending, .. } = &mut peer.recovery;
        let missing = ring
            .iter()
            .filter(|(_, kept)| kept.index == report.index && report.is_missing(kept.counter))
            .filter(|(_, kept)| lost(kept.epoch, kept.sent))
            .map(|(number, _)| number);
        // Those of other sessions, or of a report just before, stay in the queue; each is in it once.
        let mut queue: Vec<u64> = resending.queue.drain(..).chain(missing).collect();
        queue.sort_unstable();
        queue.dedup();
        resending.queue = queue.into();
        self.handle_resending(id, now);
    }

    pub(super) fn handle_resending(&mut self, id: PeerId, now: Time) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let Some(path) = peer.endpoint else { return };
        let Recovery { ring, resending, epoch, .. } = &mut peer.recovery;
        if resending.next.is_some_and(|next| now < next) {
            return;
        }
        resending.next = None;
        let (mut sent, mut too_late) = (0, 0);
        while sent < RESEND_AT_ONCE
            && let Some(number) = resending.queue.pop_front()
        {
            let datagram = ring.get(number).filter(|(kept, _)| {
                let session = [&peer.current, &peer.previous].into_iter().flatten();
                session.into_iter().any(|s| s.remote_index == kept.index && s.next_counter() - kept.counter <= WINDOW)
            });
            match datagram {
                Some((_, bytes)) if resending.spend(bytes.len(), &self.pool.limits, now) => {
                    let bytes = bytes.to_vec();
                    peer.tx_bytes += bytes.len() as u64;
                    self.outputs.push_back(Output::Resend { peer: id, path, bytes });
                    ring.sent_again(number, *epoch, now);
                    sent += 1;
                }
                _ => too_late += 1,
            }
        }
        if !resending.queue.is_empty() {
            resending.next = Some(now + RESEND_STEP);
        }
        self.stats.add(Counter::RetransmitResent, sent as u64);
        self.stats.add(Counter::RetransmitOverflowed, too_late);
        self.reschedule(id);
    }
}

/// Current, previous and pending ones.
const MAX_SESSIONS: usize = 8;
const MAX_ASKED: usize = 32;
const UNKNOWN_RTT: Duration = millis(100);
const RETIRED_LATELY: Duration = seconds(10);
const DUPLICATES_AFTER_REPORT: Duration = seconds(2);
