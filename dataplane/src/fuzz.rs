//! What is fuzzed: one function for each kind of octets that come from the network, a TUN, the kernel or the agent.
//!
//! Each takes any octets and panics when a promise is broken, not only when the code under it does. `dataplane/fuzz`
//! makes libFuzzer binaries of them; `replay` runs them on the kept corpora and on mutations of these in `cargo test`.

mod control;
mod handshake;
mod headers;
mod host;
mod offloads;
mod policing;
#[cfg(test)]
mod replay;
mod tunnel;
mod wire;

pub use control::{agent_message, command, prefix};
pub use handshake::handshake;
pub use headers::{fragment, headers};
pub use host::{neighbour, netlink};
pub use offloads::{coalesce, segment};
pub use policing::policy;
pub use tunnel::tunnel;
pub use wire::{replay_window, wire};

pub struct Target {
    /// Also the name of its binary and of the folder of its corpus.
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Mutations tried by `cargo test`; fewer where each costs a handshake.
    pub tries: u32,
}

pub const TARGETS: [Target; 14] = [
    Target { name: "wire", run: wire, tries: 100_000 },
    Target { name: "replay_window", run: replay_window, tries: 10_000 },
    Target { name: "handshake", run: handshake, tries: 300 },
    Target { name: "tunnel", run: tunnel, tries: 300 },
    Target { name: "segment", run: segment, tries: 20_000 },
    Target { name: "coalesce", run: coalesce, tries: 10_000 },
    Target { name: "fragment", run: fragment, tries: 20_000 },
    Target { name: "headers", run: headers, tries: 50_000 },
    Target { name: "policy", run: policy, tries: 50_000 },
    Target { name: "netlink", run: netlink, tries: 50_000 },
    Target { name: "neighbour", run: neighbour, tries: 50_000 },
    Target { name: "agent_message", run: agent_message, tries: 20_000 },
    Target { name: "command", run: command, tries: 50_000 },
    Target { name: "prefix", run: prefix, tries: 100_000 },
];

/// Takes an input apart; zeros follow its end.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fewer at the end.
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let taken = self.take(N);
        let mut array = [0; N];
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.array())
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    /// One of so many.
    fn below(&mut self, count: usize) -> usize {
        usize::from(self.u8()) % count
    }
}
