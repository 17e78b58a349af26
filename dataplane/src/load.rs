//! How many initiations are read: each costs some 100 us of elliptic curves, to be paid to strangers.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::time::{Time, seconds};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    Accept,
    DemandCookie,
    Refuse,
}

/// Budgets per second. Up to `FREE_RATE` everybody is served; above, only senders that proved their address.
pub struct LoadMeter {
    second: Time,
    seen: u32,
    read: u32,
    lookups: u32,
    loaded_until: Time,
    per_source: HashMap<IpAddr, u32>,
}

impl LoadMeter {
    pub fn new() -> LoadMeter {
        LoadMeter {
            second: Time::default(),
            seen: 0,
            read: 0,
            lookups: 0,
            loaded_until: Time::default(),
            per_source: HashMap::new(),
        }
    }

    pub fn admit(&mut self, source: IpAddr, now: Time, address_proved: impl FnOnce() -> bool) -> Admission {
        self.turn(now);
        self.seen += 1;
        if self.seen > FREE_RATE {
            self.loaded_until = now + seconds(1);
        }
        if self.read >= TOTAL_RATE {
            return Admission::Refuse;
        }
        if now < self.loaded_until {
            if !address_proved() {
                return Admission::DemandCookie;
            }
            let source = network_of(source);
            if self.per_source.len() >= MAX_SOURCES && !self.per_source.contains_key(&source) {
                return Admission::Refuse;
            }
            let count = self.per_source.entry(source).or_default();
            *count += 1;
            if *count > SOURCE_RATE {
                return Admission::Refuse;
            }
        }
        self.read += 1;
        Admission::Accept
    }

    /// Whether to look for the peer behind an unknown session index, which walks all peers.
    pub fn admit_lookup(&mut self, now: Time) -> bool {
        self.turn(now);
        self.lookups += 1;
        self.lookups <= LOOKUP_RATE
    }

    #[cfg(test)]
    pub fn sources(&self) -> usize {
        self.per_source.len()
    }

    fn turn(&mut self, now: Time) {
        if now.since(self.second) >= seconds(1) {
            (self.second, self.seen, self.read, self.lookups) = (now, 0, 0, 0);
            self.per_source.clear();
        }
    }
}

/// Who has one IPv6 address has the other 2^64 of its link as well.
fn network_of(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
    }
}

const FREE_RATE: u32 = 200;
const TOTAL_RATE: u32 = 2000;
const SOURCE_RATE: u32 = 20;
const LOOKUP_RATE: u32 = 50;
const MAX_SOURCES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::millis;

    // Attack: initiations from one address within one second, without and with the cookie | 222 | 200 are taken as
    // there is no load yet, then 20 with the cookie, and no more
    #[test]
    fn attack_flood_from_one_address() {
        let (mut meter, now) = (LoadMeter::new(), Time::from_millis(5000));
        let source = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..FREE_RATE {
            assert_eq!(meter.admit(source, now, || false), Admission::Accept);
        }
        assert_eq!(meter.admit(source, now, || false), Admission::DemandCookie);
        for _ in 0..SOURCE_RATE {
            assert_eq!(meter.admit(source, now, || true), Admission::Accept);
        }
        assert_eq!(meter.admit(source, now, || true), Admission::Refuse);
        assert_eq!(meter.admit(source, now + millis(900), || false), Admission::DemandCookie);
        assert_eq!(meter.admit(source, now + millis(2100), || false), Admission::Accept);
    }

    // Attack: initiations with valid cookies, each from another source, within one second | 100,000 | 2,000 are taken
    #[test]
    fn attack_initiations_from_a_hundred_thousand_sources() {
        let (mut meter, now) = (LoadMeter::new(), Time::from_millis(5000));
        let accepted = (0..100_000u32)
            .filter(|i| meter.admit(IpAddr::from(i.to_be_bytes()), now, || true) == Admission::Accept)
            .count();
        assert_eq!(accepted, TOTAL_RATE as usize);
    }

    // Attack: initiations with valid cookies, each from another address of one IPv6 /64, within one second | 10,000 |
    // 220 are taken: those before there is load, and 20 for the network
    #[test]
    fn attack_flood_from_one_ipv6_network() {
        let (mut meter, now) = (LoadMeter::new(), Time::from_millis(5000));
        let one_network = |n: u128| IpAddr::V6((0x2001_0db8_u128 << 96 | n).into());
        let accepted = (0..10_000).filter(|n| meter.admit(one_network(*n), now, || true) == Admission::Accept).count();
        assert_eq!(accepted, (FREE_RATE + SOURCE_RATE) as usize);
    }
}
