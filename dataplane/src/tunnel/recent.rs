//! Initiations that came of late. An initiator sends the same one to all locators of a peer; the first that arrives
//! is answered, the others are told apart by their MAC before they cost anything.

use std::collections::VecDeque;

use crate::handshake::{Mac, mac1_of};

#[derive(Default)]
pub struct RecentInitiations {
    seen: VecDeque<Mac>,
}

impl RecentInitiations {
    pub fn contains(&self, initiation: &[u8]) -> bool {
        mac1_of(initiation).is_some_and(|mac| self.seen.contains(&mac))
    }

    pub fn remember(&mut self, initiation: &[u8]) {
        let Some(mac) = mac1_of(initiation) else { return };
        if self.seen.len() == MAX_SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(mac);
    }
}

const MAX_SEEN: usize = 256;
