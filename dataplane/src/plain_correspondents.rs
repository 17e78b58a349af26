//! Which RLOCs exchanged plain packets with the EIDs of this host lately: they are told when a mapping changes (RFC
//! 9301 section 6.1), as nothing in a plain packet moves them.

use std::net::IpAddr;
use std::time::Duration;

use crate::fast_hash::FastMap;
use crate::forwarding::Forwarding;
use crate::prefix::Prefix;
use crate::time::{Time, seconds};

#[derive(Default)]
pub struct PlainCorrespondents {
    seen: FastMap<(IpAddr, IpAddr), Time>,
    last: Option<(IpAddr, IpAddr, Time)>,
    next_sweep: Time,
}

impl PlainCorrespondents {
    /// A packet between `eid`, if it is or was one of this host, and the RLOC. Once a second for the same two.
    #[inline]
    pub fn note(&mut self, eid: IpAddr, rloc: IpAddr, table: &Forwarding, now: Time) {
        if self.last.is_some_and(|(e, r, until)| (e, r) == (eid, rloc) && now < until) {
            return;
        }
        self.last = Some((eid, rloc, now + seconds(1)));
        if !table.is_or_was_own(eid) {
            return;
        }
        if self.seen.len() >= MAX_ENTRIES && !self.seen.contains_key(&(eid, rloc)) {
            // Not for each packet: anybody can send from ever more RLOCs.
            if now >= self.next_sweep {
                self.next_sweep = now + seconds(1);
                self.seen.retain(|_, at| now.since(*at) < LATELY);
            }
            if self.seen.len() >= MAX_ENTRIES {
                return;
            }
        }
        self.seen.insert((eid, rloc), now);
    }

    /// Those of all EIDs in `prefix`, newest first.
    pub fn of(&self, prefix: &Prefix, now: Time) -> Vec<IpAddr> {
        let mut latest: FastMap<IpAddr, Time> = FastMap::default();
        for ((eid, rloc), at) in &self.seen {
            if prefix.contains(*eid) && now.since(*at) < LATELY {
                let known = latest.entry(*rloc).or_insert(*at);
                *known = (*known).max(*at);
            }
        }
        let mut found: Vec<(IpAddr, Time)> = latest.into_iter().collect();
        found.sort_by_key(|(rloc, at)| (std::cmp::Reverse(*at), *rloc));
        found.into_iter().map(|(rloc, _)| rloc).collect()
    }
}

/// RFC 9301 section 6.1: to whom data went in the last minute.
const LATELY: Duration = seconds(60);
const MAX_ENTRIES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarding::LocalEid;
    use crate::hold::HoldQueue;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_was_spoken_to_in_the_last_minute_is_known_by_eid() {
        let mut table = Forwarding::new();
        let (held, since) = (HoldQueue::default(), Time::default());
        let local = LocalEid { generation: 1, interface: None, live: true, redirect_from: None, held, since, sync: 0 };
        table.locals.insert("10.77.0.0/24".parse().unwrap(), local);
        let mut noted = PlainCorrespondents::default();
        let at = |s: u64| Time::from_millis(s * 1000);
        noted.note(ip("10.77.0.1"), ip("192.0.2.1"), &table, at(100));
        noted.note(ip("10.77.0.1"), ip("192.0.2.2"), &table, at(130));
        noted.note(ip("10.77.0.2"), ip("192.0.2.3"), &table, at(130));
        noted.note(ip("10.9.0.1"), ip("192.0.2.4"), &table, at(130));
        let of = |prefix: &str, s: u64| noted.of(&prefix.parse().unwrap(), at(s));
        assert_eq!(of("10.77.0.1/32", 140), [ip("192.0.2.2"), ip("192.0.2.1")]);
        assert_eq!(of("10.77.0.1/32", 170), [ip("192.0.2.2")]);
        assert_eq!(of("10.77.0.0/24", 180), [ip("192.0.2.2"), ip("192.0.2.3")]);
        assert!(of("10.0.0.0/8", 200).is_empty());
    }

    // Attack: plain packets from more RLOCs and EIDs than are remembered | 5000 | what is remembered stays bounded
    #[test]
    fn attack_more_plain_correspondents_than_fit() {
        let mut table = Forwarding::new();
        let (held, since) = (HoldQueue::default(), Time::default());
        let local = LocalEid { generation: 1, interface: None, live: true, redirect_from: None, held, since, sync: 0 };
        table.locals.insert("10.77.0.0/16".parse().unwrap(), local);
        let mut noted = PlainCorrespondents::default();
        for n in 0..5000u32 {
            let rloc = IpAddr::from((0xc000_0200 + n).to_be_bytes());
            noted.note(ip("10.77.0.1"), rloc, &table, Time::from_millis(1000));
        }
        assert_eq!(noted.of(&"10.77.0.1/32".parse().unwrap(), Time::from_millis(2000)).len(), MAX_ENTRIES);
    }
}
