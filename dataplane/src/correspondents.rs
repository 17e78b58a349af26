//! Who exchanged packets with the EIDs of this host lately, so that a new owner of one can speak first to them.
//!
//! Noted when a flow is looked at anyway, and not again for the same EID and peer within a second.

use std::net::IpAddr;
use std::time::Duration;

use crate::fast_hash::FastMap;
use crate::forwarding::Forwarding;
use crate::peer::PeerId;
use crate::prefix::Prefix;
use crate::time::{Time, seconds};

pub struct Correspondents {
    eids: FastMap<IpAddr, FastMap<PeerId, Time>>,
    entries: usize,
    /// What was noted in the last second, by the peer's lowest bits.
    recent: Box<[Option<Recent>]>,
    next_sweep: Time,
}

#[derive(Clone, Copy)]
struct Recent {
    eid: IpAddr,
    peer: PeerId,
    until: Time,
}

impl Correspondents {
    pub fn new() -> Correspondents {
        Correspondents {
            eids: FastMap::default(),
            entries: 0,
            recent: vec![None; RECENT].into(),
            next_sweep: Time::default(),
        }
    }

    /// A packet between `eid`, if it is or was one of this host, and the peer.
    #[inline]
    pub fn note(&mut self, eid: IpAddr, peer: PeerId, table: &Forwarding, now: Time) {
        let recent = &mut self.recent[peer.0 as usize % RECENT];
        if recent.is_some_and(|r| r.peer == peer && r.eid == eid && now < r.until) {
            return;
        }
        *recent = Some(Recent { eid, peer, until: now + seconds(1) });
        if table.is_or_was_own(eid) {
            self.record(eid, peer, now);
        }
    }

    /// Those of all EIDs in `prefix`, newest first.
    pub fn of(&self, prefix: &Prefix, now: Time) -> Vec<PeerId> {
        let mut latest: FastMap<PeerId, Time> = FastMap::default();
        for (_, peers) in self.eids.iter().filter(|(eid, _)| prefix.contains(**eid)) {
            for (peer, at) in peers.iter().filter(|(_, at)| now.since(**at) < LATELY) {
                let known = latest.entry(*peer).or_insert(*at);
                *known = (*known).max(*at);
            }
        }
        let mut found: Vec<(PeerId, Time)> = latest.into_iter().collect();
        found.sort_by_key(|(peer, at)| (std::cmp::Reverse(*at), *peer));
        found.truncate(MAX_CORRESPONDENTS);
        found.into_iter().map(|(peer, _)| peer).collect()
    }

    /// The id may be given to another peer.
    pub fn forget(&mut self, peer: PeerId) {
        self.recent[peer.0 as usize % RECENT].take_if(|r| r.peer == peer);
        for peers in self.eids.values_mut() {
            self.entries -= usize::from(peers.remove(&peer).is_some());
        }
        self.eids.retain(|_, peers| !peers.is_empty());
    }

    fn record(&mut self, eid: IpAddr, peer: PeerId, now: Time) {
        if let Some(at) = self.eids.get_mut(&eid).and_then(|peers| peers.get_mut(&peer)) {
            *at = now;
            return;
        }
        if now >= self.next_sweep {
            self.sweep(now);
        }
        let of_eid = self.eids.get(&eid).map_or(0, FastMap::len);
        if self.entries < MAX_ENTRIES && of_eid < MAX_CORRESPONDENTS {
            self.eids.entry(eid).or_default().insert(peer, now);
            self.entries += 1;
        }
    }

    fn sweep(&mut self, now: Time) {
        for peers in self.eids.values_mut() {
            peers.retain(|_, at| now.since(*at) < LATELY);
        }
        self.eids.retain(|_, peers| !peers.is_empty());
        self.entries = self.eids.values().map(FastMap::len).sum();
        self.next_sweep = now + SWEEP;
    }
}

const LATELY: Duration = seconds(120);
const SWEEP: Duration = seconds(10);
const MAX_CORRESPONDENTS: usize = 4096;
const MAX_ENTRIES: usize = 1 << 16;
const RECENT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarding::{Departed, LocalEid};
    use crate::hold::HoldQueue;

    const A: PeerId = PeerId(1);
    /// In the same place of `recent` as A.
    const B: PeerId = PeerId(1 + RECENT as u32);

    fn at(second: u64) -> Time {
        Time::from_millis(second * 1000)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn host(text: &str) -> Prefix {
        Prefix::host(ip(text))
    }

    fn table() -> Forwarding {
        let mut table = Forwarding::new();
        let held = HoldQueue::default();
        let (redirect_from, since) = (None, Time::default());
        let local = LocalEid { generation: 1, interface: None, live: true, redirect_from, held, since, sync: 0 };
        table.locals.insert("10.1.0.0/16".parse().unwrap(), local);
        let departed = Departed { generation: 1, redirect: None, until: at(30), held: HoldQueue::default() };
        table.departed.insert(host("10.2.0.1"), departed);
        table
    }

    #[test]
    fn newest_first_and_only_lately() {
        let (mut seen, table) = (Correspondents::new(), table());
        seen.note(ip("10.1.0.1"), A, &table, at(0));
        seen.note(ip("10.1.0.1"), B, &table, at(1));
        seen.note(ip("10.1.0.2"), PeerId(7), &table, at(2));
        assert_eq!(seen.of(&host("10.1.0.1"), at(3)), [B, A]);
        seen.note(ip("10.1.0.1"), A, &table, at(5));
        assert_eq!(seen.of(&host("10.1.0.1"), at(5)), [A, B]);
        assert_eq!(seen.of(&"10.1.0.0/16".parse().unwrap(), at(5)), [A, PeerId(7), B]);
        assert_eq!(seen.of(&host("10.1.0.1"), at(121)), [A]);
        assert!(seen.of(&host("10.1.0.1"), at(125)).is_empty());
    }

    #[test]
    fn only_of_eids_that_are_or_were_here() {
        let (mut seen, table) = (Correspondents::new(), table());
        seen.note(ip("10.2.0.1"), A, &table, at(0));
        seen.note(ip("10.9.0.1"), A, &table, at(0));
        assert_eq!(seen.of(&"0.0.0.0/0".parse().unwrap(), at(1)), [A]);
        assert_eq!(seen.of(&host("10.2.0.1"), at(1)), [A]);
    }

    #[test]
    fn a_forgotten_peer_is_nobody_s_correspondent() {
        let (mut seen, table) = (Correspondents::new(), table());
        seen.note(ip("10.1.0.1"), A, &table, at(0));
        seen.forget(A);
        assert!(seen.of(&host("10.1.0.1"), at(0)).is_empty() && seen.entries == 0);
        seen.note(ip("10.1.0.1"), A, &table, at(0));
        assert_eq!(seen.of(&host("10.1.0.1"), at(0)), [A]);
    }

    #[test]
    fn bounded_for_each_eid_and_in_all_and_room_again_later() {
        let (mut seen, table) = (Correspondents::new(), table());
        for eid in 0..40u8 {
            for peer in 0..5000 {
                seen.note(IpAddr::from([10, 1, 0, eid]), PeerId(peer), &table, at(0));
            }
        }
        assert_eq!(seen.of(&host("10.1.0.0"), at(0)).len(), MAX_CORRESPONDENTS);
        assert_eq!(seen.entries, MAX_ENTRIES);
        seen.note(ip("10.1.0.0"), PeerId(9000), &table, at(130));
        assert_eq!(seen.of(&host("10.1.0.0"), at(130)), [PeerId(9000)]);
        assert_eq!(seen.entries, 1);
    }
}
