//! Handshakes with many peers for which no packet waits: of a process that was just started, and of one whose sessions
//! may be another machine's as well.
//!
//! A few go out at once, the others one each `INTERVAL`, so that a thousand take about a second: no buffer overflows, and
//! packets flow in between. Who sent or received data last comes first. A new process remembers nothing of that, so
//! those come first that are heard in sessions of its predecessor. Who is sent to does not wait for this at all.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::Tunnel;
use crate::peer::{Peer, PeerId};
use crate::time::{Time, millis};

#[derive(Default)]
pub struct Greetings {
    waiting: VecDeque<PeerId>,
    /// By their locators, to know them when they are heard.
    by_address: HashMap<SocketAddr, PeerId>,
    /// Sessions made since then need no other.
    since: Time,
    /// Greetings may go out as intervals have passed since then.
    spoken: Time,
}

impl Greetings {
    pub fn next_timeout(&self) -> Time {
        if self.waiting.is_empty() { Time::NEVER } else { self.spoken + INTERVAL }
    }

    pub fn into_waiting(self) -> VecDeque<PeerId> {
        self.waiting
    }
}

impl Tunnel {
    /// To all peers that are known when this process has just been told of them: those who talked to the process before
    /// learn that it is gone.
    pub fn greet(&mut self, now: Time) {
        let fresh = |peer: &Peer| peer.configured && peer.current.is_none() && peer.handshake.is_none();
        let ids = self.peers().filter(|(_, peer)| fresh(peer)).map(|(id, _)| id).collect();
        self.greet_in_turn(ids, now);
    }

    /// The sessions may be those of another machine as well: new ones take their place, and what is under way in the
    /// old ones still arrives. `wall_seconds` as for `forget_sessions`.
    pub(super) fn renew_sessions(&mut self, wall_seconds: u64, now: Time) {
        self.raise_epoch(wall_seconds);
        let ids = self.peers().filter(|(_, peer)| peer.is_up(now)).map(|(id, _)| id).collect();
        self.greet_in_turn(ids, now);
    }

    /// The sessions are also those of the machine that this one was copied from: none of their keys is used again, and
    /// the peers that were up are spoken to anew. `wall_seconds` since 1970: what was initiated after the copy was
    /// made must be older than what is initiated now.
    pub fn forget_sessions(&mut self, wall_seconds: u64, now: Time) {
        self.forget_all();
        self.sleep.end(now);
        self.raise_epoch(wall_seconds);
        self.greet_forgotten(now);
    }

    pub(super) fn greet_in_turn(&mut self, mut ids: Vec<PeerId>, now: Time) {
        let traffic = |id: &PeerId| self.peer(*id).and_then(|peer| peer.data_sent.max(peer.data_received));
        ids.sort_by_key(|id| Reverse(traffic(id)));
        let wanted: HashSet<PeerId> = ids.iter().copied().collect();
        let left = std::mem::take(&mut self.greetings).waiting;
        ids.extend(left.into_iter().filter(|id| !wanted.contains(id)));
        let locators = |id: &PeerId| self.peer(*id).map_or(&[][..], |peer| &peer.locators);
        let by_address = ids.iter().flat_map(|id| locators(id).iter().map(|l| (l.address, *id))).collect();
        self.greetings = Greetings { waiting: ids.into(), by_address, since: now, spoken: now };
        self.greet_next(AT_ONCE, now);
    }

    pub(super) fn handle_greetings_timeout(&mut self, now: Time) {
        let due = now.since(self.greetings.spoken).as_nanos() / INTERVAL.as_nanos();
        self.greet_next(due.min(AFTER_A_DELAY), now);
    }

    fn greet_next(&mut self, count: u128, now: Time) {
        self.greetings.spoken = now;
        let mut spoken = 0;
        while spoken < count
            && let Some(id) = self.greetings.waiting.pop_front()
        {
            let since = self.greetings.since;
            let waits = |peer: &Peer| {
                peer.handshake.is_none() && peer.current.as_ref().is_none_or(|session| session.created < since)
            };
            if self.peer(id).is_some_and(waits) {
                self.want_session(id, now);
                spoken += 1;
            }
        }
        if self.greetings.waiting.is_empty() {
            self.greetings = Greetings::default();
        }
    }

    /// Somebody at that address uses a session that this process does not have. True if it is to be greeted anyway.
    pub(super) fn greet_sooner(&mut self, address: SocketAddr) -> bool {
        let Greetings { waiting, by_address, .. } = &mut self.greetings;
        let Some(id) = by_address.remove(&address) else { return false };
        waiting.push_front(id);
        true
    }
}

const AT_ONCE: u128 = 64;
const INTERVAL: Duration = millis(1);
/// When this process, or its machine, had no time for several intervals.
const AFTER_A_DELAY: u128 = 4;
