//! Which initiations are looked at when there are more than a host has time for. Whether one is answered costs hashes
//! and a packet, and beyond some thousands a second that would be taken from the sessions there are.
//!
//! Each kind has a budget of its own, so that a flood of one does not keep the others out: those that claim a cookie
//! and come from where one was sent to; those from addresses that were turned away a moment ago, since whoever means it
//! comes again and made-up addresses hardly do; and the rest. A cookie that was never sent is no reason for anything.
//!
//! Of each budget one network (/24, in IPv6 /48) has a quarter at most, so that nobody who sends from where they are
//! uses it up for all. The shares are in a table that does not grow, by a hash that nobody outside can foresee: an
//! honest network meets a noisy one there once in some thousand times.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::FUZZED;
use crate::time::{Time, millis, seconds};

pub struct InitiationGate {
    cookies: SharedBudget,
    returning: SharedBudget,
    others: SharedBudget,
    turned_away: Addresses,
    invited: Addresses,
}

impl InitiationGate {
    pub fn new() -> InitiationGate {
        InitiationGate {
            cookies: SharedBudget::new(COOKIE_RATE),
            returning: SharedBudget::new(RETURNING_RATE),
            others: SharedBudget::new(OTHER_RATE),
            turned_away: Addresses::remembered_for(TURNED_AWAY),
            invited: Addresses::remembered_for(INVITED),
        }
    }

    /// `with_cookie`: it claims a cookie, and the address is invited.
    pub fn admits(&mut self, source: SocketAddr, with_cookie: bool, now: Time) -> bool {
        if with_cookie {
            return self.cookies.take(source.ip(), now);
        }
        let (address, others) = (source.ip(), &mut self.others);
        others.take(address, now) || (self.turned_away.insert(source, now) && self.returning.take(address, now))
    }

    /// A cookie was sent there.
    pub fn invite(&mut self, source: SocketAddr, now: Time) {
        self.invited.insert(source, now);
    }

    pub fn is_invited(&mut self, source: SocketAddr, now: Time) -> bool {
        self.invited.contains(source, now)
    }
}

/// A budget for all, and of it a share for each network.
struct SharedBudget {
    all: Budget,
    shares: Box<[Budget]>,
    hash: RandomState,
}

impl SharedBudget {
    fn new(rate: u64) -> SharedBudget {
        let share = Budget::new(rate / 4, BURST / 2);
        SharedBudget { all: Budget::new(rate, BURST), shares: vec![share; SHARES].into(), hash: RandomState::new() }
    }

    fn take(&mut self, source: IpAddr, now: Time) -> bool {
        let share = &mut self.shares[self.hash.hash_one(network(source)) as usize % SHARES];
        share.has_some(now) && self.all.take(now) && share.take(now)
    }
}

/// What a site has, and who is given one address has in all.
fn network(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) & !0xff).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !0 << 80).into()),
    }
}

#[derive(Clone)]
struct Budget {
    rate: u64,
    burst: u64,
    left: u64,
    filled: Time,
}

impl Budget {
    fn new(rate: u64, burst: u64) -> Budget {
        Budget { rate, burst, left: burst, filled: Time::default() }
    }

    fn take(&mut self, now: Time) -> bool {
        let some = self.has_some(now);
        self.left -= u64::from(some);
        some
    }

    fn has_some(&mut self, now: Time) -> bool {
        let earned = now.since(self.filled).min(seconds(1)).as_nanos() as u64 * self.rate;
        let more = earned / NANOS;
        if more > 0 {
            // What is earned of the next one stays.
            self.filled = now - Duration::from_nanos(earned % NANOS / self.rate);
            self.left = (self.left + more).min(self.burst);
        }
        self.left > 0
    }
}

/// A bit for each address, by a hash that nobody outside can foresee. Two generations, each cleared in its turn.
struct Addresses {
    hash: RandomState,
    bits: [Box<[u64]>; 2],
    generation: Duration,
    turned: Time,
}

impl Addresses {
    /// For this long at least, and twice as long at most.
    fn remembered_for(generation: Duration) -> Addresses {
        Addresses {
            hash: RandomState::new(),
            bits: std::array::from_fn(|_| vec![0; WORDS].into_boxed_slice()),
            generation,
            turned: Time::default(),
        }
    }

    fn contains(&mut self, source: SocketAddr, now: Time) -> bool {
        self.turn(now);
        let (word, bit) = self.place(source);
        self.bits.iter().any(|bits| bits[word] & bit != 0)
    }

    /// Whether it was here already.
    fn insert(&mut self, source: SocketAddr, now: Time) -> bool {
        self.turn(now);
        let (word, bit) = self.place(source);
        let was = self.bits.iter().any(|bits| bits[word] & bit != 0);
        self.bits[0][word] |= bit;
        was
    }

    fn place(&self, source: SocketAddr) -> (usize, u64) {
        let hash = self.hash.hash_one(source) as usize;
        ((hash >> 6) % WORDS, 1u64 << (hash & 63))
    }

    fn turn(&mut self, now: Time) {
        let age = now.since(self.turned);
        if age >= self.generation {
            if age >= self.generation * 2 {
                self.bits[0].fill(0);
            }
            self.bits.swap(0, 1);
            self.bits[0].fill(0);
            self.turned = now;
        }
    }
}

const NANOS: u64 = 1_000_000_000;
const COOKIE_RATE: u64 = 20_000;
const RETURNING_RATE: u64 = 2_000;
const OTHER_RATE: u64 = 500;
/// More than a thousand peers that all start at once.
const BURST: u64 = 2_000;
const SHARES: usize = if FUZZED { 64 } else { 4096 };
/// Longer than the pauses between the first attempts of a handshake.
const TURNED_AWAY: Duration = millis(1250);
/// As long as an initiator uses a cookie.
const INVITED: Duration = seconds(120);
/// 256 KB in each generation: of 50,000 made-up addresses a second, one in twenty is taken for one that comes again.
const WORDS: usize = if FUZZED { 1 << 6 } else { 1 << 15 };

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> SocketAddr {
        SocketAddr::new(n.to_be_bytes().into(), 4341)
    }

    #[test]
    fn a_burst_of_a_thousand_peers_is_admitted() {
        let (mut gate, now) = (InitiationGate::new(), Time::from_millis(5000));
        assert!((0..2000).all(|n| gate.admits(address(n), false, now)));
    }

    #[test]
    fn a_budget_gives_its_whole_rate_however_often_it_is_asked() {
        for (rate, every) in [(500, 1_900_000), (500, 3_900_000), (20_000, 30_000), (20_000, 7_000)] {
            let mut budget = Budget::new(rate, BURST);
            let asked = 10 * NANOS / every;
            let given = (0..asked).filter(|n| budget.take(Time::from_nanos(5 * NANOS + n * every))).count() as u64;
            let due = (BURST + 10 * rate).min(asked);
            assert!((due - 1..=due).contains(&given), "{rate} a second, every {every} ns: {given} of {due}");
        }
    }

    #[test]
    fn who_was_sent_a_cookie_is_invited_for_as_long_as_cookies_are_used() {
        let mut gate = InitiationGate::new();
        gate.invite(address(1), Time::from_millis(5000));
        assert!(gate.is_invited(address(1), Time::from_millis(5000)));
        assert!(gate.is_invited(address(1), Time::from_millis(125_000)));
        assert!(!gate.is_invited(address(2), Time::from_millis(125_000)));
        assert!(!gate.is_invited(address(1), Time::from_millis(365_000)));
    }

    // Attack: initiations, each from another address, for ten seconds | 500,000 | at most 2,900 a second are looked at;
    // an address that comes again is, and so is one with a cookie that was sent to it
    #[test]
    fn attack_initiations_of_made_up_addresses() {
        let mut gate = InitiationGate::new();
        let (mut looked_at, mut real) = (0, (0, 0));
        gate.invite(address(1), Time::from_millis(5000));
        for n in 0..500_000u32 {
            let now = Time::from_nanos(5_000_000_000 + u64::from(n) * 20_000);
            let made_up = address(n.wrapping_mul(2_654_435_761));
            looked_at += u64::from(gate.admits(made_up, false, now));
            if n % 10_000 == 5_000 {
                let honest = SocketAddr::new([192, 0, 2, 1].into(), 1 + (n / 30_000) as u16);
                real.0 += u32::from(gate.admits(honest, false, now));
                real.1 += u32::from(gate.is_invited(address(1), now) && gate.admits(address(1), true, now));
            }
        }
        assert!(looked_at <= 29_000, "{looked_at}");
        assert!(real.0 >= 20 && real.1 == 50, "{real:?}");
    }

    // Attack: initiations from all addresses of one network, for ten seconds; again with claims of cookies that were sent
    // there | 1,000,000 | at most a quarter of each budget is used up; of a hundred other networks every initiation is
    // looked at
    #[test]
    fn attack_initiations_of_one_network() {
        let (mut gate, mut looked_at, mut honest) = (InitiationGate::new(), 0, 0);
        let noisy = |n: u32| SocketAddr::new([203, 0, 113, n as u8].into(), (n >> 8) as u16);
        for n in 0..500_000u32 {
            let now = Time::from_nanos(5_000_000_000 + u64::from(n) * 20_000);
            looked_at += u64::from(gate.admits(noisy(n), false, now)) + u64::from(gate.admits(noisy(n), true, now));
            if n % 5000 == 0 {
                let quiet = SocketAddr::new([10, 0, (n / 5000) as u8, 1].into(), 4341);
                // Turned away only by the rarest of chances: if its network has the place of the noisy one.
                honest += u32::from(gate.admits(quiet, false, now)) + u32::from(gate.admits(quiet, true, now));
            }
        }
        let in_ten_seconds = |rate: u64| 10 * rate / 4 + BURST / 2;
        let most: u64 = [COOKIE_RATE, RETURNING_RATE, OTHER_RATE].into_iter().map(in_ten_seconds).sum();
        assert!(looked_at <= most, "{looked_at}");
        assert!(honest >= 196, "{honest}");
    }

    #[test]
    fn an_ipv6_site_has_one_share_and_its_neighbour_another() {
        let at = |text: &str| network(text.parse().unwrap());
        assert_eq!(at("2001:db8:1::1"), at("2001:db8:1:ffff::2"));
        assert_ne!(at("2001:db8:1::1"), at("2001:db8:2::1"));
        assert_eq!(at("192.0.2.1"), at("192.0.2.255"));
        assert_ne!(at("192.0.2.1"), at("192.0.3.1"));
    }

    // Attack: initiations with wrong cookies from addresses that were sent right ones, for ten seconds | 500,000 |
    // 20,000 a second are looked at; those that claim none are not affected
    #[test]
    fn attack_initiations_with_made_up_cookies() {
        let mut gate = InitiationGate::new();
        let (mut looked_at, mut honest) = (0, 0);
        for n in 0..500_000u32 {
            let now = Time::from_nanos(5_000_000_000 + u64::from(n) * 20_000);
            looked_at += u64::from(gate.admits(address(n), true, now));
            if n % 1000 == 0 {
                honest += u32::from(gate.admits(address(7), false, now));
            }
        }
        assert!(looked_at <= 202_000, "{looked_at}");
        assert_eq!(honest, 500);
    }
}
