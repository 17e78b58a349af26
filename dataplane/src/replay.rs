//! Replay window (RFC 6479): a ring of bit blocks behind the highest counter seen. Ask it after authentication only.

pub const WINDOW: u64 = 8192;
const BLOCKS: usize = 256;
const BLOCK_MASK: u64 = BLOCKS as u64 - 1;

pub struct Replay {
    /// One more than the highest counter accepted; 0 before any.
    next: u64,
    blocks: Box<[u64; BLOCKS]>,
}

impl Replay {
    pub fn new() -> Replay {
        Replay { next: 0, blocks: Box::new([0; BLOCKS]) }
    }

    /// True when `counter` would be the highest so far.
    #[inline]
    pub fn is_newest(&self, counter: u64) -> bool {
        counter >= self.next
    }

    pub fn received_any(&self) -> bool {
        self.next > 0
    }

    /// The lowest counter that is missing and would still be taken, the one after the highest accepted, and a bit
    /// for each between them: 1 is received.
    pub fn state(&self) -> (u64, u64, Vec<u8>) {
        let next = self.next;
        let received = |counter: &u64| self.blocks[((counter >> 6) & BLOCK_MASK) as usize] >> (counter & 63) & 1 == 1;
        let first = (next.saturating_sub(WINDOW)..next).find(|counter| !received(counter)).unwrap_or(next);
        let mut bits = vec![0; (next - first).div_ceil(8) as usize];
        for counter in (first..next).filter(received) {
            bits[((counter - first) / 8) as usize] |= 1 << ((counter - first) % 8);
        }
        (first, next, bits)
    }

    /// Records `counter`; false when it was seen before or is behind the window.
    #[inline]
    pub fn accept(&mut self, counter: u64) -> bool {
        if counter == u64::MAX {
            return false;
        }
        let block = counter >> 6;
        if counter >= self.next {
            let newest = self.next.saturating_sub(1) >> 6;
            if self.next > 0 {
                for b in newest + 1..=block.min(newest + BLOCKS as u64) {
                    self.blocks[(b & BLOCK_MASK) as usize] = 0;
                }
            }
            self.next = counter + 1;
        } else if self.next - 1 - counter >= WINDOW {
            return false;
        }
        let word = &mut self.blocks[(block & BLOCK_MASK) as usize];
        let bit = 1 << (counter & 63);
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_counter_once() {
        let mut replay = Replay::new();
        assert!(!replay.received_any());
        for counter in [0, 1, 5, 3, 64, 63, 2, 8191] {
            assert!(replay.accept(counter), "{counter}");
            assert!(!replay.accept(counter), "{counter} again");
        }
        assert!(replay.received_any());
        assert!(!replay.accept(u64::MAX));
    }

    #[test]
    fn window_edge() {
        let mut replay = Replay::new();
        assert!(replay.accept(100_000));
        assert!(replay.accept(100_000 - (WINDOW - 1)));
        assert!(!replay.accept(100_000 - WINDOW));
        assert!(replay.accept(u64::MAX - 1));
        assert!(!replay.accept(100_001));
    }

    #[test]
    fn the_window_holds_up_to_the_last_counter() {
        let mut replay = Replay::new();
        let last = u64::MAX - 1;
        assert!(replay.accept(last - 2) && replay.accept(last) && replay.accept(last - 1));
        assert!(!replay.accept(u64::MAX) && !replay.accept(last) && !replay.accept(0));
        assert!(replay.accept(last - (WINDOW - 1)) && !replay.accept(last - WINDOW));
        let (first, next, bits) = replay.state();
        assert_eq!((first, next), (last - (WINDOW - 2), u64::MAX));
        assert_eq!(bits.iter().map(|b| b.count_ones()).sum::<u32>(), 3);
    }

    #[test]
    fn the_state_says_what_is_missing() {
        let mut replay = Replay::new();
        assert_eq!(replay.state(), (0, 0, vec![]));
        for counter in [0, 1, 2, 4, 12] {
            replay.accept(counter);
        }
        assert_eq!(replay.state(), (3, 13, vec![0b10, 0b10]));
        replay.accept(20_000);
        let (first, next, bits) = replay.state();
        assert_eq!((first, next, bits.len() as u64), (20_001 - WINDOW, 20_001, WINDOW / 8));
        assert!(replay.accept(first) && !replay.accept(first - 1));
        assert_eq!(bits.iter().map(|b| b.count_ones()).sum::<u32>(), 1);
    }

    #[test]
    fn agrees_with_a_set() {
        let (mut replay, mut seen, mut highest, mut state) = (Replay::new(), HashSet::new(), 0u64, 42u64);
        for step in 0..200_000u64 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let jump = (state >> 40) % if step % 1000 == 0 { 40_000 } else { 9_000 };
            let counter = (highest + 50).saturating_sub(jump) + if step % 1000 == 0 { 20_000 } else { 0 };
            let expected = (seen.is_empty() || counter > highest || highest - counter < WINDOW) && seen.insert(counter);
            if counter > highest {
                highest = counter;
            }
            assert_eq!(replay.accept(counter), expected, "counter {counter}, highest {highest}");
        }
    }
}
