//! Initiations, which anybody can send, have a socket of their own: a flood of them fills its small buffer, in the
//! kernel, and neither stands in the queue with the packets of sessions nor breaks up their batches.
//!
//! It has the port of the data socket (SO_REUSEPORT), and a program in the kernel tells by the kind octet which of the
//! two gets a datagram. It is read in turns: so many, then none for a moment, in which the kernel wakes nobody for it.
//! Where the kernel refuses, initiations come to the data socket like everything else. ICMP errors come to either of
//! the two, as the kernel does not ask the program about them.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use libc::sock_filter as Instruction;

use crate::engine::{Engine, INITIATIONS4, INITIATIONS6};
use crate::log;
use crate::offload::Offloads;
use crate::receive::Receiver;
use crate::stats::{Counter, Stats};
use crate::sys;
use crate::time::{Time, millis};
use crate::udp::UdpSocket;
use crate::wire::{KIND, KK_MASK, Kind};

pub struct InitiationSocket {
    pub socket: UdpSocket,
    turn: Turn,
    /// What the kernel has dropped here since the socket was opened, modulo 2^32.
    dropped: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The poller says when something is there.
    Awaited,
    Come,
    /// The poller says nothing.
    Resting(Time),
}

impl InitiationSocket {
    /// None where the kernel cannot do this; then everything comes to `data`.
    pub fn open(data: &UdpSocket, wanted: Offloads, stats: &mut Stats) -> Option<InitiationSocket> {
        match data.open_beside(&STEERING, BUFFER, wanted, stats) {
            Ok(socket) => Some(InitiationSocket { socket, turn: Turn::Awaited, dropped: 0 }),
            Err(error) => {
                stats.count(Counter::FallbackInitiationSocket);
                log::info("no socket of their own for initiations", &[("error", &error)]);
                None
            }
        }
    }

    /// The poller has found something, and is silent from now on.
    pub fn has_come(&mut self) {
        self.turn = Turn::Come;
    }

    pub fn next_turn(&self) -> Time {
        match self.turn {
            Turn::Awaited => Time::NEVER,
            Turn::Come => Time::default(),
            Turn::Resting(until) => until,
        }
    }

    fn newly_dropped(&mut self) -> u32 {
        let Ok(dropped) = sys::dropped(&self.socket) else { return 0 };
        dropped.wrapping_sub(std::mem::replace(&mut self.dropped, dropped))
    }
}

impl AsRawFd for InitiationSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Engine {
    /// Reads initiations if it is their turn.
    pub(crate) fn receive_initiations(&mut self, v6: bool) -> io::Result<()> {
        let now = self.now;
        let own = if v6 { &mut self.initiations6 } else { &mut self.initiations4 };
        let Some(own) = own.as_mut().filter(|own| own.next_turn() <= now) else { return Ok(()) };
        if own.turn != Turn::Come {
            own.turn = Turn::Awaited;
            return self.poller.rearm(own, if v6 { INITIATIONS6 } else { INITIATIONS4 });
        }
        own.turn = Turn::Resting(now + REST);
        let mut receiver = std::mem::replace(&mut self.initiation_receiver, Receiver::empty());
        let mut received = std::mem::take(&mut self.received);
        let dropped = own.newly_dropped();
        self.tunnel.stats.add(Counter::HandshakesRejected, dropped.into());
        for _ in 0..RECEIVES_IN_A_TURN {
            let own = if v6 { &self.initiations6 } else { &self.initiations4 };
            // An error of an earlier packet may come instead; what there is to receive comes in the next turn.
            let more = own.as_ref().is_some_and(|own| receiver.receive(&own.socket, &mut received).unwrap_or_default());
            if !received.is_empty() {
                self.take_in(&mut receiver.arena, &received);
            }
            if !more {
                break;
            }
        }
        self.initiation_receiver = receiver;
        self.received = received;
        Ok(())
    }
}

/// 1 for an initiation and 0 for all else: the sockets in the order in which they came to the port. A datagram without
/// these octets ends the program with 0. In a plain packet the kind octet is something else.
const STEERING: [Instruction; 6] = [
    instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, 0),
    instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 3, KK_MASK as u32),
    instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, KIND as u32),
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, Kind::Initiation as u32),
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 1),
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
];

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code: code as u16, jt, jf, k }
}

/// Of a flood of 50,000 a second most is read, so that newcomers among them are seen; of larger ones no more.
const RECEIVES_IN_A_TURN: usize = 2;
const REST: Duration = millis(1);
/// Asked for as 512 KiB, which the kernel doubles: a thousand peers that all start at once.
const BUFFER: c_int = 512 << 10;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

    use super::*;
    use crate::receive::Received;
    use crate::wire::{Header, INITIATION};

    fn datagram(kind: Kind, length: usize) -> Vec<u8> {
        let mut bytes = Header { index: 1, instance: 7, kind }.bytes().to_vec();
        bytes.resize(length, 0);
        bytes
    }

    fn lengths(receiver: &mut Receiver, socket: &UdpSocket) -> Vec<usize> {
        let mut received: Vec<Received> = Vec::new();
        match receiver.receive(socket, &mut received) {
            Ok(_) => received.iter().map(|message| message.length).collect(),
            Err(_) => Vec::new(),
        }
    }

    #[test]
    fn initiations_come_to_their_own_socket_and_everything_else_to_the_other() {
        for v6 in [false, true] {
            let mut stats = Stats::new();
            let data = UdpSocket::open(0, v6, Offloads::NONE, &mut stats).expect("socket");
            let own = InitiationSocket::open(&data, Offloads::NONE, &mut stats).expect("second socket");
            let port = sys::local_address(&data).expect("address").port();
            let to: SocketAddr = match v6 {
                true => (Ipv6Addr::LOCALHOST, port).into(),
                false => (Ipv4Addr::LOCALHOST, port).into(),
            };
            let mut receiver = Receiver::new();
            // From many ports, as the kernel would else choose by a hash of them. What is sent over the loopback
            // interface is in the queue when the call returns.
            for n in 0..10 {
                let local: SocketAddr = match v6 {
                    true => (Ipv6Addr::LOCALHOST, 0).into(),
                    false => (Ipv4Addr::LOCALHOST, 0).into(),
                };
                let from = std::net::UdpSocket::bind(local).expect("sender");
                for (kind, length) in [(Kind::Data, 100 + n), (Kind::Response, 92), (Kind::Control, 41)] {
                    from.send_to(&datagram(kind, length), to).expect("sent");
                }
                from.send_to(&datagram(Kind::Initiation, INITIATION), to).expect("sent");
                from.send_to(&[0x89], to).expect("sent");
                assert_eq!(lengths(&mut receiver, &data), [100 + n, 92, 41, 1]);
                assert_eq!(lengths(&mut receiver, &own.socket), [INITIATION]);
            }
        }
    }

    #[test]
    fn what_the_full_buffer_does_not_take_is_counted_once() {
        let mut stats = Stats::new();
        let data = UdpSocket::open(0, false, Offloads::NONE, &mut stats).expect("socket");
        let mut own = InitiationSocket::open(&data, Offloads::NONE, &mut stats).expect("second socket");
        let port = sys::local_address(&data).expect("address").port();
        let from = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("sender");
        let message = datagram(Kind::Initiation, INITIATION);
        let sent = 20_000u32;
        for _ in 0..sent {
            from.send_to(&message, (Ipv4Addr::LOCALHOST, port)).expect("sent");
        }
        let dropped = own.newly_dropped();
        assert_eq!(own.newly_dropped(), 0);
        let mut receiver = Receiver::new();
        let mut taken = 0;
        while let count @ 1.. = lengths(&mut receiver, &own.socket).len() {
            taken += count;
        }
        assert!(taken >= 100, "{taken}");
        assert_eq!(taken + dropped as usize, sent as usize);
        assert!(lengths(&mut receiver, &data).is_empty());
    }

    #[test]
    fn nobody_else_gets_the_port() {
        let mut stats = Stats::new();
        let data = UdpSocket::open(0, false, Offloads::NONE, &mut stats).expect("socket");
        let _own = InitiationSocket::open(&data, Offloads::NONE, &mut stats).expect("second socket");
        let port = sys::local_address(&data).expect("address").port();
        let second = UdpSocket::open(port, false, Offloads::NONE, &mut stats);
        assert_eq!(second.err().and_then(|error| error.raw_os_error()), Some(libc::EADDRINUSE));
    }
}
