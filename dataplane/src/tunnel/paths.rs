//! Which of several paths to a peer is used. A path is one of its locators and one of this host's uplinks.
//!
//! - The peer's locators are in the order of priority; those of equal priority in an order of this pair of hosts,
//!   by weight, so that many peers spread as the weights say and each one stays where it is.
//! - Under silence (data was sent and nothing authentic came) the path in use and others are asked, all at once. An
//!   answer through another one counts only when the one in use has had time to answer too; then it is left at once,
//!   and what it lost is sent again as after a roam. Silence in one direction only is enough: either end notices that
//!   it hears nothing, or is asked about the path in use while it sends: then the other end hears nothing. Traffic that is one-way by nature gets its answers
//!   on the path in use and moves nothing.
//! - Questions and answers about paths never move the other end; the packets that follow a decision do.
//! - A better path (a locator before the one in use, through the same uplink) is asked once a second while data is
//!   sent, and less often if it does not answer. It is taken back after answers without a gap for some time; that time
//!   doubles if it fails again soon, or if the peer leaves it. Each end improves only on the locator of the other, and
//!   on the family only for a better priority, so that they do not pull in turns. The own uplink that the kernel prefers is taken back in the same way if the peer sends no data and so
//!   will not do it.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};
use std::net::SocketAddr;
use std::time::Duration;

use super::Tunnel;
use crate::handshake::PublicKey;
use crate::peer::{Locator, Path, Peer, PeerId};
use crate::stats::Counter;
use crate::time::{Time, millis, seconds};
use crate::wire::Control;

/// A peer's part in this.
#[derive(Default)]
pub struct Paths {
    /// There is more than one.
    several: bool,
    asked: VecDeque<Asked>,
    /// When a question about the path in use was last answered by it.
    confirmed: Option<Time>,
    search: Option<Search>,
    doubt: Option<Doubt>,
    /// Packets that were on their way must not bring it back.
    abandoned: Option<(Path, Time)>,
    turns: Turns,
    better: Vec<Better>,
    next_trial: Option<Time>,
    trial_step: Duration,
    proof: Duration,
    returned: Option<Time>,
}

struct Asked {
    token: u64,
    path: Path,
    sent: Time,
}

/// For a path instead of one that is silent.
struct Search {
    since: Time,
    answered: Vec<(Path, Duration)>,
}

/// The peer asks about the path in use, as if it heard nothing of what this host sends.
struct Doubt {
    step: u32,
    next: Time,
}

/// How often in a row this host followed the peer to where it had just come from.
#[derive(Default)]
struct Turns {
    count: u32,
    last: Time,
    from: Option<Path>,
}

/// A path before the one in use.
struct Better {
    path: Path,
    /// Of the answers without a gap.
    proven_since: Option<Time>,
    heard: bool,
}

impl Paths {
    pub fn next_deadline(&self) -> Option<Time> {
        self.next_trial.into_iter().chain(self.doubt.as_ref().map(|doubt| doubt.next)).min()
    }

    /// The wait after question number `step` about a path that is silent for so long.
    pub fn wait_after(&self, step: u32, silent_for: Duration) -> Duration {
        let steps = if self.several { &SEARCH_STEPS[..] } else { &SEARCH_STEPS[..3] };
        match steps.get(step as usize) {
            Some(wait) => *wait,
            None if self.several => silent_for / 2,
            None => SILENCE.max(silent_for / 2),
        }
    }

    #[inline]
    pub fn is_abandoned(&self, path: &Path, now: Time) -> bool {
        self.abandoned.is_some_and(|(old, until)| now < until && old.is_same_way(path))
    }

    /// The path in use is left, by this host's decision or by the peer's. True if it was taken back only lately, and
    /// so must prove itself for longer the next time.
    pub fn note_relapse(&mut self, now: Time) -> bool {
        let proof = self.proof.max(PROOF);
        let relapse = self.returned.take().is_some_and(|at| now.since(at) < RELAPSE.max(proof * 2));
        if relapse {
            self.proof = (proof * 2).min(LONGEST_PROOF);
        }
        relapse
    }

    /// This host goes from `old` to `new`, where the peer's packets come from.
    pub fn note_followed(&mut self, old: Path, new: &Path, swift: Duration, now: Time) {
        let turns = &mut self.turns;
        let back = turns.from.is_some_and(|from| from.is_same_way(new)) && now.since(turns.last) < swift;
        *turns = Turns { count: if back { turns.count + 1 } else { 0 }, last: now, from: Some(old) };
    }

    /// Two hosts that send by two paths at the same time, and each follow the other, swap them again and again.
    pub fn goes_round(&self, swift: Duration, now: Time) -> bool {
        self.turns.count >= TURNS && now.since(self.turns.last) < swift
    }

    /// Of the path that was in use.
    pub fn forget_confirmation(&mut self) {
        self.confirmed = None;
    }

    /// Something was heard on the path in use; that does not say that the peer hears this host.
    pub fn end_search(&mut self) {
        if self.doubt.is_none() {
            self.search = None;
        }
    }
}

/// By priority, and for the pair of keys by weight: the share of peers that begin with a locator is its weight's.
pub fn order_locators(locators: &mut Vec<Locator>, own: &PublicKey, peer: &PublicKey) {
    locators.retain(|l| l.priority != UNUSABLE_PRIORITY);
    // The smallest of exponential variables with the weights as rates is each one with its weight's share.
    let lot = |locator: &Locator| {
        let mut hasher = DefaultHasher::new();
        hasher.write(own);
        hasher.write(peer);
        hasher.write(locator.address.to_string().as_bytes());
        let uniform = (hasher.finish() >> 11) as f64 / (1u64 << 53) as f64;
        -(uniform + f64::MIN_POSITIVE).ln() / f64::from(locator.weight.max(1))
    };
    locators.sort_by(|a, b| {
        let by_weight = || (a.weight == 0).cmp(&(b.weight == 0)).then_with(|| lot(a).total_cmp(&lot(b)));
        a.priority.cmp(&b.priority).then_with(by_weight)
    });
}

impl Tunnel {
    /// Every path to try: the one in use, then by the order of locators and uplinks.
    pub(super) fn candidates(&self, peer: &Peer) -> Vec<Path> {
        let mut paths: Vec<Path> = peer.endpoint.into_iter().collect();
        let remotes = peer.endpoint.iter().map(|e| e.remote).chain(peer.locators.iter().map(|l| l.address));
        for remote in remotes {
            for path in self.uplinks.paths_to(remote) {
                if paths.len() < MAX_PATHS && paths.iter().all(|p| !p.is_same_way(&path)) {
                    paths.push(path);
                }
            }
        }
        // Better an error of the kernel's than nothing.
        paths.extend(peer.locators.first().map(|l| Path::to(l.address)).filter(|_| paths.is_empty()));
        paths
    }

    pub(super) fn count_paths(&mut self, id: PeerId) {
        let several = self.peer(id).is_some_and(|peer| self.candidates(peer).len() > 1);
        if let Some(peer) = self.peer_mut(id) {
            peer.paths.several = several;
        }
    }

    /// Asks about the path in use, if it is silent, and about some others.
    pub(super) fn search(&mut self, id: PeerId, include_endpoint: bool, others: usize, now: Time) {
        let Some(peer) = self.peer(id) else { return };
        let candidates = self.candidates(peer);
        let in_use = usize::from(peer.endpoint.is_some());
        let first = if include_endpoint { 0 } else { in_use };
        if let Some(peer) = self.peer_mut(id) {
            peer.paths.search.get_or_insert(Search { since: now, answered: Vec::new() });
        }
        for path in candidates.into_iter().take(in_use + others).skip(first) {
            self.ask_path(id, path, now);
        }
    }

    pub(super) fn ask_path(&mut self, id: PeerId, path: Path, now: Time) {
        let token = self.next_token;
        self.next_token += 1;
        let Some(peer) = self.peer_mut(id) else { return };
        peer.paths.asked.push_back(Asked { token, path, sent: now });
        if peer.paths.asked.len() > MAX_ASKED {
            peer.paths.asked.pop_front();
        }
        self.stats.count(Counter::ProbesSent);
        self.send_control(id, path, &Control::PathRequest(token).bytes(), now);
    }

    pub(super) fn handle_path_reply(&mut self, id: PeerId, token: u64, now: Time) {
        let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let Some(at) = peer.paths.asked.iter().position(|a| a.token == token) else { return };
        let Some(Asked { path, sent, .. }) = peer.paths.asked.remove(at) else { return };
        let rtt = now.since(sent);
        for better in peer.paths.better.iter_mut().filter(|b| b.path.is_same_way(&path)) {
            better.heard = true;
        }
        if peer.endpoint.is_some_and(|endpoint| endpoint.is_same_way(&path)) {
            peer.heard_rtt(rtt);
            peer.silence = None;
            peer.paths.doubt = None;
            peer.paths.confirmed = Some(now);
            if peer.roam.is_none() {
                peer.paths.search = None;
            }
            return;
        }
        let Some(search) = peer.paths.search.as_mut() else { return };
        if search.answered.len() < MAX_PATHS && search.answered.iter().all(|(p, _)| !p.is_same_way(&path)) {
            search.answered.push((path, rtt));
        }
        if self.take_answered_path(id, now) {
            return;
        }
        // Not before the path in use has had its time.
        let Some(peer) = self.peer_mut(id) else { return };
        let Some(decision) = peer.decision_time() else { return };
        if let Some(doubt) = peer.paths.doubt.as_mut() {
            doubt.next = doubt.next.min(decision);
        } else if let Some(silence) = peer.silence.as_mut() {
            silence.next = silence.next.min(decision);
        } else if let Some(roam) = peer.roam.as_mut().filter(|r| !r.answered) {
            roam.next = roam.next.min(decision);
        }
        self.reschedule(id);
    }

    /// The peer asked about a path. If it is the one by which data went to it just now, it may not have come.
    pub(super) fn handle_path_request(&mut self, id: PeerId, path: Path, token: u64, now: Time) {
        self.send_control(id, path, &Control::PathReply(token).bytes(), now);
        let Some(peer) = self.peer_mut(id) else { return };
        let in_use = peer.endpoint.is_some_and(|endpoint| endpoint.is_same_way(&path));
        let sending = peer.data_sent.is_some_and(|at| now.since(at) < SILENCE_WITH_OTHERS * 2);
        // The peer may ask because this host has asked: without this they would make each other ask for ever.
        let for_now = SILENCE_WITH_OTHERS + peer.time_to_answer();
        let confirmed = peer.paths.confirmed.is_some_and(|at| now.since(at) < for_now);
        if in_use && sending && peer.paths.several && peer.paths.doubt.is_none() && !confirmed {
            peer.paths.doubt = Some(Doubt { step: 0, next: now });
            self.handle_doubt(id, now);
            self.reschedule(id);
        }
    }

    pub(super) fn handle_doubt(&mut self, id: PeerId, now: Time) {
        let is_due = |peer: &&mut Peer| peer.paths.doubt.as_ref().is_some_and(|doubt| now >= doubt.next);
        let Some(peer) = self.peer_mut(id).filter(is_due) else { return };
        // Without a session there is nothing to doubt and nobody who could be asked.
        if !peer.is_up(now) {
            peer.paths.doubt = None;
            return;
        }
        if self.take_answered_path(id, now) {
            return;
        }
        let Some(peer) = self.peer_mut(id) else { return };
        let Some(doubt) = peer.paths.doubt.as_mut() else { return };
        let Some(wait) = SEARCH_STEPS.get(doubt.step as usize) else {
            peer.paths.doubt = None;
            return;
        };
        doubt.step += 1;
        doubt.next = now + *wait;
        self.search(id, true, OTHERS_AT_FIRST, now);
    }

    /// Leaves a silent path for the best that has answered. True if so.
    pub(super) fn take_answered_path(&mut self, id: PeerId, now: Time) -> bool {
        let Some(peer) = self.peer(id) else { return false };
        let lost =
            peer.silence.is_some() || peer.paths.doubt.is_some() || peer.roam.as_ref().is_some_and(|r| !r.answered);
        if !lost || peer.decision_time().is_none_or(|at| now < at) {
            return false;
        }
        let answered = peer.paths.search.as_ref().map_or(&[][..], |s| &s.answered[..]);
        let Some(&(path, rtt)) = answered.iter().min_by_key(|(path, rtt)| (peer.rank(path), *rtt)) else {
            return false;
        };
        let silent_since = peer.silence.as_ref().map(|s| s.since);
        let old = peer.endpoint;
        self.stats.count(Counter::PathFailovers);
        if let Some(peer) = self.peer_mut(id) {
            let paths = &mut peer.paths;
            if !paths.note_relapse(now) {
                paths.proof = PROOF;
            }
            (peer.rtt, peer.slowest_rtt) = (Some(rtt), rtt);
        }
        self.take_path(id, path, now);
        if let (Some(old), Some(since)) = (old, silent_since) {
            self.suspect_uplink(&old, &path, since, now);
        }
        true
    }

    /// The peer's packets come by `path`, which is not the one in use.
    pub(super) fn follow_to(&mut self, id: PeerId, path: Path, now: Time) {
        let own = self.public_key();
        let Some(peer) = self.peer_mut(id) else { return };
        let swift = peer.time_to_answer() + TURN_MARGIN;
        // One of the two stays until the other has come.
        if peer.paths.goes_round(swift, now) && own.is_some_and(|own| own < peer.key) {
            return;
        }
        let left = peer.endpoint.filter(|endpoint| !endpoint.is_same_way(&path));
        if let Some(left) = left {
            peer.paths.note_relapse(now);
            peer.paths.note_followed(left, &path, swift, now);
        }
        self.move_endpoint(id, path, now);
        if let Some(left) = left {
            self.peer_left_uplink(id, &left, &path, now);
        }
    }

    /// From now on packets go this way, and what the one before has lost goes again.
    pub(super) fn take_path(&mut self, id: PeerId, path: Path, now: Time) {
        let Some(peer) = self.peer_mut(id) else { return };
        peer.paths.abandoned = peer.endpoint.map(|old| (old, now + STAYS_ABANDONED));
        (peer.paths.search, peer.paths.doubt) = (None, None);
        peer.silence = None;
        self.move_endpoint(id, path, now);
        self.start_roam(id, true, now);
    }

    /// Begins to ask about paths before the one in use, if there are any and data is sent.
    #[inline]
    pub(super) fn resume_trials(&mut self, id: PeerId, now: Time) {
        if let Some(peer) = self.peers.get_mut(id.0 as usize).and_then(Option::as_mut)
            && !peer.paths.better.is_empty()
            && peer.paths.next_trial.is_none()
        {
            peer.paths.next_trial = Some(now + TRIAL_STEP);
            self.reschedule(id);
        }
    }

    pub(super) fn look_for_better(&mut self, id: PeerId, now: Time) {
        let Some(peer) = self.peer(id) else { return };
        let mut better = self.better_paths(peer, now);
        let Some(peer) = self.peer_mut(id) else { return };
        for known in peer.paths.better.drain(..) {
            if let Some(same) = better.iter_mut().find(|b| b.path == known.path) {
                *same = known;
            }
        }
        peer.paths.next_trial = peer.paths.next_trial.filter(|_| !better.is_empty());
        peer.paths.better = better;
        peer.paths.trial_step = TRIAL_STEP;
        self.resume_trials(id, now);
    }

    fn better_paths(&self, peer: &Peer, now: Time) -> Vec<Better> {
        let Some(endpoint) = peer.endpoint else { return Vec::new() };
        let priority = peer.locators.get(peer.rank(&endpoint)).map_or(u8::MAX, |l| l.priority);
        let before = peer.locators.iter().take(peer.rank(&endpoint)).filter(|locator| {
            // The lot is drawn by each end for itself: in another family they would pull in turns.
            locator.address.is_ipv6() == endpoint.remote.is_ipv6() || locator.priority < priority
        });
        let by_locator = before.filter_map(|locator| {
            let mut ways = self.uplinks.paths_to(locator.address).into_iter();
            ways.find(|w| w.link == endpoint.link || w.link == 0 || endpoint.link == 0)
        });
        let others_turn = peer.data_received.is_some_and(|at| now.since(at) < ONE_WAY);
        let ways = if others_turn { Vec::new() } else { self.uplinks.paths_to(endpoint.remote) };
        let by_uplink = ways.into_iter().take_while(|w| !w.is_same_way(&endpoint));
        let all = by_locator.chain(by_uplink).filter(|path| !path.is_same_way(&endpoint)).take(MAX_BETTER);
        all.map(|path| Better { path, proven_since: None, heard: false }).collect()
    }

    pub(super) fn handle_trials(&mut self, id: PeerId, now: Time) {
        let Some(peer) = self.peer_mut(id).filter(|p| p.paths.next_trial.is_some_and(|at| now >= at)) else { return };
        peer.paths.next_trial = None;
        if !peer.is_up(now) || peer.data_sent.is_none_or(|at| now.since(at) > ACTIVE) {
            for better in &mut peer.paths.better {
                better.proven_since = None;
            }
            return;
        }
        let proof = peer.paths.proof.max(PROOF);
        let (mut proven, mut any) = (None, false);
        for better in &mut peer.paths.better {
            better.proven_since = if better.heard { better.proven_since.or(Some(now)) } else { None };
            any |= std::mem::take(&mut better.heard);
            if better.proven_since.is_some_and(|since| now.since(since) >= proof) {
                proven = proven.or(Some(better.path));
            }
        }
        if let Some(path) = proven {
            peer.paths.returned = Some(now);
            self.stats.count(Counter::PathReturns);
            return self.take_path(id, path, now);
        }
        peer.paths.trial_step =
            if any { TRIAL_STEP } else { (peer.paths.trial_step * 2).clamp(TRIAL_STEP, LONGEST_TRIAL_STEP) };
        peer.paths.next_trial = Some(now + peer.paths.trial_step);
        let asked: Vec<Path> = peer.paths.better.iter().map(|b| b.path).collect();
        for path in asked {
            self.ask_path(id, path, now);
        }
    }
}

impl Peer {
    /// The place of a path's locator; after all others if it is not listed.
    fn rank(&self, path: &Path) -> usize {
        self.locators.iter().position(|l| l.address == path.remote).unwrap_or(self.locators.len())
    }

    /// How long data may stay unanswered before the path is asked: not long if there are others, or if the peer may
    /// have others and sends too, since then only this host can notice that it does not hear it.
    #[inline]
    pub fn patience(&self, now: Time) -> Duration {
        let two_way = self.data_received.is_some_and(|at| now.since(at) < TWO_WAY);
        if self.paths.several || two_way { SILENCE_WITH_OTHERS } else { SILENCE }
    }

    /// When the path in use has had its time to answer.
    fn decision_time(&self) -> Option<Time> {
        // A host that was busy answers late; after a change of locators nothing speaks for the path in use.
        let margin = if self.roam.as_ref().is_some_and(|roam| !roam.answered) { millis(10) } else { millis(40) };
        self.paths.search.as_ref().map(|search| search.since + self.time_to_answer() + margin)
    }

    /// It is spoken to there, or says that it can be.
    pub fn may_be_at(&self, remote: SocketAddr) -> bool {
        self.endpoint.is_some_and(|endpoint| endpoint.remote == remote)
            || self.locators.iter().any(|locator| locator.address == remote)
    }

    /// More than its answers have taken lately.
    pub fn time_to_answer(&self) -> Duration {
        let slowest = self.slowest_rtt.max(self.rtt.or(self.first_rtt).unwrap_or(UNKNOWN_RTT));
        slowest.min(LONGEST_GRACE).mul_f32(1.5)
    }

    pub fn heard_rtt(&mut self, rtt: Duration) {
        self.rtt = Some(rtt);
        self.slowest_rtt = rtt.max(self.slowest_rtt - self.slowest_rtt.saturating_sub(rtt) / 4);
    }
}

pub(super) const OTHERS_AT_FIRST: usize = 2;
pub(super) const MAX_PATHS: usize = 8;
const UNUSABLE_PRIORITY: u8 = 255;
const SILENCE: Duration = millis(1500);
const SILENCE_WITH_OTHERS: Duration = millis(90);
/// Waits between the questions about a silent path while there are others.
const SEARCH_STEPS: [Duration; 8] =
    [millis(30), millis(30), millis(30), millis(60), millis(100), millis(200), millis(400), millis(800)];
const UNKNOWN_RTT: Duration = millis(100);
const LONGEST_GRACE: Duration = seconds(1);
const TURNS: u32 = 4;
/// Besides the round trip, between two turns of such a swap.
const TURN_MARGIN: Duration = millis(50);
const STAYS_ABANDONED: Duration = millis(300);
const MAX_ASKED: usize = 64;
const MAX_BETTER: usize = 3;
const TRIAL_STEP: Duration = seconds(1);
const LONGEST_TRIAL_STEP: Duration = seconds(30);
/// Who sent data so lately may be about to send more.
const ACTIVE: Duration = seconds(10);
const TWO_WAY: Duration = seconds(1);
const ONE_WAY: Duration = seconds(10);
const PROOF: Duration = seconds(5);
const LONGEST_PROOF: Duration = seconds(320);
const RELAPSE: Duration = seconds(60);
