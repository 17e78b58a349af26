//! Which initiations are looked at when there are more than a host has time for. Whether one is answered costs hashes
//! and a packet, and beyond some 10,000 a second that would be taken from the sessions there are.
//!
//! Each kind has a budget of its own, so that a flood of one does not keep the others out: those with a second MAC,
//! which claim a cookie; those from addresses that were turned away a moment ago, since whoever means it comes again
//! and made-up addresses hardly do; and the rest.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::Duration;

use crate::time::{Time, millis};

pub struct InitiationGate {
    cookies: Budget,
    returning: Budget,
    others: Budget,
    turned_away: TurnedAway,
}

impl InitiationGate {
    pub fn new() -> InitiationGate {
        InitiationGate {
            cookies: Budget::new(COOKIE_RATE),
            returning: Budget::new(RETURNING_RATE),
            others: Budget::new(OTHER_RATE),
            turned_away: TurnedAway::new(),
        }
    }

    pub fn admits(&mut self, source: SocketAddr, claims_cookie: bool, now: Time) -> bool {
        if claims_cookie {
            return self.cookies.take(now);
        }
        self.others.take(now) || (self.turned_away.replace(source, now) && self.returning.take(now))
    }
}

struct Budget {
    rate: u64,
    left: u64,
    filled: Time,
}

impl Budget {
    fn new(rate: u64) -> Budget {
        Budget { rate, left: BURST, filled: Time::default() }
    }

    fn take(&mut self, now: Time) -> bool {
        let elapsed = now.since(self.filled).min(millis(1000)).as_micros() as u64;
        let more = elapsed * self.rate / 1_000_000;
        if more > 0 {
            (self.left, self.filled) = ((self.left + more).min(BURST), now);
        }
        let some = self.left > 0;
        self.left -= u64::from(some);
        some
    }
}

/// A bit for each address, by a hash that nobody outside can foresee. Two generations, each cleared in its turn.
struct TurnedAway {
    hash: RandomState,
    bits: [Box<[u64]>; 2],
    turned: Time,
}

impl TurnedAway {
    fn new() -> TurnedAway {
        TurnedAway {
            hash: RandomState::new(),
            bits: std::array::from_fn(|_| vec![0; WORDS].into_boxed_slice()),
            turned: Time::default(),
        }
    }

    /// Whether the address was here lately; it has been from now on.
    fn replace(&mut self, source: SocketAddr, now: Time) -> bool {
        if now.since(self.turned) >= GENERATION {
            if now.since(self.turned) >= GENERATION * 2 {
                self.bits[0].fill(0);
            }
            self.bits.swap(0, 1);
            self.bits[0].fill(0);
            self.turned = now;
        }
        let hash = self.hash.hash_one(source) as usize;
        let (word, bit) = ((hash >> 6) % WORDS, 1u64 << (hash & 63));
        let was = self.bits.iter().any(|bits| bits[word] & bit != 0);
        self.bits[0][word] |= bit;
        was
    }
}

const COOKIE_RATE: u64 = 20_000;
const RETURNING_RATE: u64 = 10_000;
const OTHER_RATE: u64 = 2_000;
/// More than a thousand peers that all start at once.
const BURST: u64 = 2_000;
/// Longer than the pauses between the first attempts of a handshake.
const GENERATION: Duration = millis(2500);
/// 256 KB in each generation: of 50,000 made-up addresses a second, one in ten is taken for another one.
const WORDS: usize = 1 << 15;

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

    // Attack: initiations without a cookie, each from another address, for ten seconds | 500,000 | at most 13,000 a
    // second are looked at; an address that comes again is, and so is one with a cookie
    #[test]
    fn attack_initiations_of_made_up_addresses() {
        let mut gate = InitiationGate::new();
        let (mut looked_at, mut real) = (0, (0, 0));
        for n in 0..500_000u32 {
            let now = Time::from_nanos(5_000_000_000 + u64::from(n) * 20_000);
            looked_at += u64::from(gate.admits(address(n.wrapping_mul(2_654_435_761)), false, now));
            if n % 10_000 == 5_000 {
                let honest = SocketAddr::new([192, 0, 2, 1].into(), 1 + (n / 30_000) as u16);
                real.0 += u32::from(gate.admits(honest, false, now));
                real.1 += u32::from(gate.admits(honest, true, now));
            }
        }
        assert!(looked_at <= 10 * 13_000, "{looked_at}");
        assert!(real.0 >= 30 && real.1 == 50, "{real:?}");
    }

    // Attack: initiations that claim a cookie, each from another address, for ten seconds | 500,000 | 20,000 a second
    // are looked at; those that claim none are not affected
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
