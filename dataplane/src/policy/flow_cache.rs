//! A bounded table of flows: sets of four, chosen by a keyed hash; in a full set the least recently used one goes.
//!
//! Its keys are chosen by workloads and peers. Whoever picks many can push others out, which costs another look at the
//! rules; a search never takes longer than four comparisons.

use crate::handshake::random_u64;
use crate::time::Time;

pub type Key = [u64; 5];

pub struct FlowCache<V> {
    sets: Box<[[Option<Slot<V>>; WAYS]]>,
    seed: u64,
}

#[derive(Clone, Copy)]
struct Slot<V> {
    key: Key,
    used: Time,
    value: V,
}

impl<V: Copy> FlowCache<V> {
    /// `sets`: a power of two.
    pub fn new(sets: usize) -> FlowCache<V> {
        FlowCache { sets: vec![[None; WAYS]; sets].into(), seed: random_u64() }
    }

    #[inline]
    pub fn find(&mut self, key: &Key, now: Time) -> Option<&mut V> {
        let slot = self.set(key).iter_mut().flatten().find(|slot| slot.key == *key)?;
        slot.used = now;
        Some(&mut slot.value)
    }

    #[inline]
    pub fn find_or_insert(&mut self, key: Key, now: Time, make: impl FnOnce() -> V) -> &mut V {
        let set = self.set(&key);
        let at = match set.iter().position(|slot| slot.as_ref().is_some_and(|slot| slot.key == key)) {
            Some(at) => at,
            None => oldest(set),
        };
        let slot = &mut set[at];
        slot.take_if(|slot| slot.key != key);
        let slot = slot.get_or_insert_with(|| Slot { key, used: now, value: make() });
        slot.used = now;
        &mut slot.value
    }

    pub fn insert(&mut self, key: Key, value: V, now: Time) {
        *self.find_or_insert(key, now, || value) = value;
    }

    pub fn clear(&mut self) {
        self.sets.fill([None; WAYS]);
    }

    #[inline]
    fn set(&mut self, key: &Key) -> &mut [Option<Slot<V>>; WAYS] {
        let hash = key.iter().fold(self.seed, |hash, word| {
            let product = u128::from(hash ^ word) * u128::from(MULTIPLIER);
            (product as u64) ^ ((product >> 64) as u64)
        });
        &mut self.sets[hash as usize & (self.sets.len() - 1)]
    }
}

/// An empty one first.
fn oldest<V>(set: &[Option<Slot<V>>; WAYS]) -> usize {
    let used = |at: &usize| set[*at].as_ref().map_or(Time::default(), |slot| slot.used);
    (0..WAYS).min_by_key(used).unwrap_or(0)
}

const WAYS: usize = 4;
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Time {
        Time::from_millis(second * 1000)
    }

    fn key(n: u64) -> Key {
        [1, n, 2, n >> 3, 17]
    }

    #[test]
    fn keeps_what_is_used() {
        let mut cache = FlowCache::new(64);
        for second in 1..20_000 {
            cache.insert(key(second), second, at(second));
            if second > 1 {
                assert!(cache.find(&key(1), at(second)).is_some(), "{second}");
            }
        }
        assert_eq!(cache.find(&key(19_999), at(20_000)), Some(&mut 19_999));
        assert_eq!((1..20_000).filter(|n| cache.find(&key(*n), at(20_001)).is_some()).count(), 64 * WAYS);
        cache.clear();
        assert_eq!(cache.find(&key(1), at(20_002)), None);
    }

    #[test]
    fn is_filled_evenly() {
        let mut cache = FlowCache::new(1024);
        for n in 0..2048 {
            cache.insert(key(n), n, at(n));
        }
        let kept = (0..2048).filter(|n| cache.find(&key(*n), at(3000)) == Some(&mut { *n })).count();
        assert!(kept > 1800, "{kept}");
    }

    #[test]
    fn the_value_is_made_once() {
        let mut cache = FlowCache::new(1);
        *cache.find_or_insert(key(1), at(1), || 1) += 1;
        assert_eq!(*cache.find_or_insert(key(1), at(2), || panic!("it is there")), 2);
    }
}
