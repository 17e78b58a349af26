//! What this process takes from itself once everything is open. It reads what anybody sends, so whoever finds a fault
//! there should find little: the packets, sessions and network settings that this process is for, but no file, no
//! program, no other process and no socket of another kind.
//!
//! Two parts, each where the kernel has it. Landlock (`files.rs`) leaves the settings below /proc/sys/net, and the own
//! socket to be removed. seccomp (`system_calls.rs`) leaves the system calls that forwarding takes. Another one fails
//! with EPERM and is counted and logged (`refusals.rs`), and the process goes on: the call may be our own, of a C
//! library that no test has seen, and every connection of this host would end with the process. To an attacker the two
//! are the same, as the call is not made.

#[cfg(test)]
mod attack_tests;
mod files;
mod refusals;
mod system_calls;

use std::fmt::Display;
use std::path::Path;

use crate::engine::Engine;
use crate::log;
use crate::stats::Counter;

/// What is in force.
#[derive(Default)]
pub struct Sandbox {
    files: Option<files::Restriction>,
    system_calls: bool,
}

impl Sandbox {
    pub fn names(&self) -> Vec<&'static str> {
        let parts = [(LANDLOCK, self.files.is_some()), (SECCOMP, self.system_calls)];
        parts.into_iter().filter_map(|(name, in_force)| in_force.then_some(name)).collect()
    }
}

impl Engine {
    /// Holds for this thread and those that it starts later.
    pub fn forbid_files(&mut self, socket: &Path) {
        match files::forbid(socket) {
            Ok(restriction) => self.sandbox.files = Some(restriction),
            Err(error) => self.go_on_without(LANDLOCK, Counter::FallbackLandlock, &error),
        }
    }

    /// Holds for all threads.
    pub fn forbid_system_calls(&mut self) {
        match system_calls::forbid() {
            Ok(()) => self.sandbox.system_calls = true,
            Err(error) => self.go_on_without(SECCOMP, Counter::FallbackSeccomp, &error),
        }
    }

    fn go_on_without(&mut self, part: &str, counter: Counter, error: &dyn Display) {
        self.tunnel.stats.count(counter);
        log::warn("going on without a part of the sandbox", &[("part", &part), ("error", error)]);
    }

    pub(crate) fn count_refused_system_calls(&mut self) {
        let Some(refused) = refusals::take() else { return };
        self.tunnel.stats.add(Counter::RefusedSystemCalls, refused.count);
        for number in refused.new_numbers {
            log::warn("the sandbox refused a system call", &[("number", &number)]);
        }
    }
}

const LANDLOCK: &str = "landlock";
const SECCOMP: &str = "seccomp";
