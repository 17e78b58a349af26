//! How long each peer took to be heard after a change of this host's locators, kept for the agent's figures until the
//! move is over: a thousand messages are not to be read while a thousand peers answer.

use std::time::Duration;

use crate::time::{Time, millis};

pub struct Handovers {
    micros: Vec<u64>,
    report_at: Time,
}

impl Handovers {
    pub fn new() -> Handovers {
        Handovers { micros: Vec::new(), report_at: Time::NEVER }
    }

    pub fn note(&mut self, took: Duration, now: Time) {
        if self.micros.is_empty() {
            self.report_at = now + PATIENCE;
        }
        self.micros.push(took.as_micros() as u64);
        if self.micros.len() == MAX_HANDOVERS {
            self.report_at = now;
        }
    }

    pub fn next_report(&self) -> Time {
        self.report_at
    }

    /// What is to be reported now, in one message; what is too much for that is due at once.
    pub fn take_due(&mut self, now: Time) -> Option<Vec<u64>> {
        if now < self.report_at {
            return None;
        }
        let more = self.micros.split_off(self.micros.len().min(MAX_HANDOVERS));
        self.report_at = if more.is_empty() { Time::NEVER } else { now };
        Some(std::mem::replace(&mut self.micros, more))
    }
}

const PATIENCE: Duration = millis(500);
/// In one message.
const MAX_HANDOVERS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_handovers_are_one_message_when_they_are_over() {
        let mut handovers = Handovers::new();
        for n in 0..1000 {
            let now = Time::from_nanos(1_000_000 + n * 100_000);
            handovers.note(Duration::from_micros(n), now);
            assert_eq!(handovers.take_due(now), None);
        }
        assert_eq!(handovers.next_report(), Time::from_millis(501));
        assert_eq!(handovers.take_due(Time::from_millis(501)), Some((0..1000).collect()));
        assert_eq!((handovers.next_report(), handovers.take_due(Time::from_millis(9999))), (Time::NEVER, None));
    }

    #[test]
    fn no_message_holds_more_than_the_agent_takes() {
        let (mut handovers, now) = (Handovers::new(), Time::from_millis(5));
        for _ in 0..MAX_HANDOVERS - 1 {
            handovers.note(millis(1), now);
        }
        assert_eq!(handovers.take_due(now), None);
        // Several packets are read before the next report.
        for _ in 0..3 {
            handovers.note(millis(1), now);
        }
        let lengths: Vec<usize> = std::iter::from_fn(|| handovers.take_due(now)).map(|micros| micros.len()).collect();
        assert_eq!(lengths, [MAX_HANDOVERS, 2]);
        assert_eq!(handovers.next_report(), Time::NEVER);
    }
}
