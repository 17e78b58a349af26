//! What time alone does: the tunnel's timers, and the end of all that has waited too long.
//!
//! Only while something waits is it looked through, once in each `EXPIRY_STEP`.

use crate::engine::Engine;
use crate::hold::{EXPIRY_STEP, HoldQueue, INTERFACE_LIFETIME, Why};
use crate::icmp::Problem;
use crate::messages::Event;
use crate::prefix::Prefix;
use crate::stats::Counter;
use crate::sys;
use crate::time::Time;

impl Engine {
    pub(crate) fn timeouts(&mut self) {
        if self.tunnel.next_timeout() <= self.now {
            self.tunnel.handle_timeout(self.now);
        }
        if let Some(micros) = self.handovers.take_due(self.now) {
            self.event(&Event::Handovers { micros });
        }
        if self.now < self.next_housekeeping {
            // A queue may have been started meanwhile.
            if self.next_housekeeping == Time::NEVER && self.holding {
                self.next_housekeeping = self.now + EXPIRY_STEP;
            }
            return;
        }
        for (key, queue) in self.holds.expire(self.now) {
            self.expired(key.why, queue);
        }
        let now = self.now;
        let mut interface_away = 0;
        for local in self.table.locals.values_mut() {
            while local.held.pop_older(INTERFACE_LIFETIME, now).is_some() {
                interface_away += 1;
            }
        }
        for departed in self.table.departed.values_mut() {
            while departed.held.pop_older(INTERFACE_LIFETIME, now).is_some() {
                interface_away += 1;
            }
        }
        let over: Vec<Prefix> = self.table.departed.iter().filter(|(_, d)| d.until <= now).map(|(p, _)| p).collect();
        for prefix in over {
            let departed = self.table.departed.remove(&prefix);
            interface_away += departed.map_or(0, |d| d.held.len() as u64);
        }
        self.tunnel.stats.add(Counter::DropInterfaceAway, interface_away);
        let mut no_session = self.agent_messages.expire(now) as u64;
        let mut unreachable = Vec::new();
        for queue in self.waiting.values_mut() {
            while let Some(held) = queue.pop_without_session(|since| self.tunnel.awake_since(since, now)) {
                no_session += 1;
                unreachable.push(held);
            }
        }
        self.waiting.retain(|_, queue| queue.len() > 0);
        self.tunnel.stats.add(Counter::DropNoSession, no_session);
        for held in unreachable {
            self.explain(&held, Problem::HostUnreachable);
        }
        self.expire_unsent();
        if self.tunnel.expire_kept(now) {
            sys::give_back_memory();
        }
        self.workloads.end_quiet(now);
        self.workloads.ask_again(now);
        self.hold_room.measure(self.table.held_queues().chain(self.waiting.values()));
        self.holding = self.has_waiting();
        self.next_housekeeping = if self.holding { now + EXPIRY_STEP } else { Time::NEVER };
    }

    fn has_waiting(&self) -> bool {
        !self.holds.is_empty()
            || !self.waiting.is_empty()
            || self.agent_messages.is_waiting()
            || self.workloads.is_waiting()
            || !self.unsent.is_empty()
            || self.tunnel.keeps_memory()
            || self.table.departed.len() > 0
            || self.table.locals.iter().any(|(_, l)| l.held.len() > 0)
    }

    fn expired(&mut self, why: Why, mut queue: HoldQueue) {
        let counter = match why {
            Why::Destination => Counter::DropNoMapping,
            Why::Source | Why::Conflict => Counter::DropSourceCheck,
        };
        self.tunnel.stats.add(counter, queue.len() as u64);
        if why == Why::Destination {
            while let Some(held) = queue.pop() {
                self.explain(&held, Problem::HostUnreachable);
            }
        }
    }
}
