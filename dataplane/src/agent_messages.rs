//! Messages from agent to agent, inside the tunnel: IPv6 and UDP port 4342 between agent addresses.
//!
//! They are wrapped and unwrapped here and never touch the TUN: the agent needs no socket, the host no IPv6, and
//! nobody else on a host can speak as its agent, since such packets from the TUN are dropped. An agent address is
//! part of a hash of the tunnel key, so the tunnel proves who sends.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use aws_lc_rs::digest;

use crate::engine::Engine;
use crate::fast_hash::FastMap;
use crate::forwarding::AGENT_PREFIX;
use crate::forwarding::Origin;
use crate::handshake::PublicKey;
use crate::messages::{Event, Refused};
use crate::packet::{Inner, UDP, be16, finish_checksum, pseudo_sum, put16};
use crate::peer::PeerId;
use crate::stats::Counter;
use crate::time::{Time, seconds};
use crate::vnet::{VNET_HEADER, VnetHeader};

#[derive(Default)]
pub struct AgentMessages {
    /// This agent's address, once it is configured.
    pub own: Option<Ipv6Addr>,
    waiting: FastMap<PeerId, VecDeque<Waiting>>,
    waiting_bytes: usize,
    allowances: FastMap<PeerId, Allowance>,
}

/// A message that waits for a session.
struct Waiting {
    since: Time,
    payload: Box<[u8]>,
}

/// How much more a peer may say.
struct Allowance {
    left: f64,
    at: Time,
}

impl AgentMessages {
    /// False when there is no room.
    fn keep(&mut self, peer: PeerId, payload: Box<[u8]>, now: Time) -> bool {
        let queue = self.waiting.entry(peer).or_default();
        let room = queue.len() < MAX_WAITING_OF_PEER && self.waiting_bytes + payload.len() <= MAX_WAITING_BYTES;
        if room {
            self.waiting_bytes += payload.len();
            queue.push_back(Waiting { since: now, payload });
        } else if queue.is_empty() {
            self.waiting.remove(&peer);
        }
        room
    }

    fn take(&mut self, peer: PeerId) -> VecDeque<Waiting> {
        let queue = self.waiting.remove(&peer).unwrap_or_default();
        self.waiting_bytes -= queue.iter().map(|w| w.payload.len()).sum::<usize>();
        queue
    }

    /// Forgets what has waited too long; says how many that were.
    pub fn expire(&mut self, now: Time) -> usize {
        let mut expired = 0;
        for queue in self.waiting.values_mut() {
            while queue.front().is_some_and(|w| now.since(w.since) >= LIFETIME)
                && let Some(old) = queue.pop_front()
            {
                self.waiting_bytes -= old.payload.len();
                expired += 1;
            }
        }
        self.waiting.retain(|_, queue| !queue.is_empty());
        expired
    }

    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub fn forget(&mut self, peer: PeerId) {
        self.take(peer);
        self.allowances.remove(&peer);
    }

    fn allow(&mut self, peer: PeerId, now: Time) -> bool {
        let allowance = self.allowances.entry(peer).or_insert(Allowance { left: BURST, at: now });
        allowance.left = (allowance.left + now.since(allowance.at).as_secs_f64() * RATE).min(BURST);
        allowance.at = now;
        let allowed = allowance.left >= 1.0;
        if allowed {
            allowance.left -= 1.0;
        }
        allowed
    }

    /// A packet to this agent itself, whoever sent it.
    #[inline]
    pub fn are_addressed_by(&self, inner: &Inner, packet: &[u8]) -> bool {
        self.own.is_some_and(|own| inner.destination == IpAddr::V6(own)) && is_agent_message(inner, packet)
    }

    #[inline]
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.is_some_and(|own| address == IpAddr::V6(own))
    }
}

impl Engine {
    /// Sends now or when there is a session, which this begins.
    pub(crate) fn send_agent_message(&mut self, key: &PublicKey, payload: Box<[u8]>) -> Result<(), Refused> {
        let peer = self.tunnel.find(key).filter(|id| self.tunnel.peer(*id).is_some_and(|p| p.configured));
        let Some(peer) = peer else { return Err(Refused::new("unknown-peer", "send \"peer-set\" first")) };
        if self.tunnel.session_for_sending(peer, self.now).is_some() {
            self.transmit_agent_message(peer, &payload);
            self.flush_queue();
        } else if self.agent_messages.keep(peer, payload, self.now) {
            self.holding = true;
        } else {
            self.tunnel.stats.count(Counter::DropQueueFull);
        }
        Ok(())
    }

    pub(crate) fn release_agent_messages(&mut self, peer: PeerId) {
        for waiting in self.agent_messages.take(peer) {
            self.transmit_agent_message(peer, &waiting.payload);
        }
        self.flush_queue();
    }

    fn transmit_agent_message(&mut self, peer: PeerId, payload: &[u8]) {
        let (Some(own), Some(known)) = (self.agent_messages.own, self.tunnel.peer(peer)) else { return };
        let mut frame = wrap(own, agent_address(&known.key), payload);
        let Some(inner) = Inner::parse(&frame[VNET_HEADER..]) else { return };
        self.tunnel.stats.count(Counter::AgentMessagesSent);
        self.send_frame(peer, &mut frame, &VnetHeader::default(), &inner, Origin::Host, self.now);
    }

    /// A decrypted packet that is `are_addressed_by`.
    pub(crate) fn hear_agent_message(&mut self, peer: PeerId, inner: &Inner, packet: &[u8]) {
        let Some(key) = self.tunnel.peer(peer).map(|p| p.key) else { return };
        if inner.source != IpAddr::V6(agent_address(&key)) {
            return self.tunnel.stats.count(Counter::DropSourceCheck);
        }
        let Some(payload) = payload_of(inner, packet) else {
            return self.tunnel.stats.count(Counter::DropMalformed);
        };
        if !self.agent_messages.allow(peer, self.now) {
            return self.tunnel.stats.count(Counter::DropAgentMessageRate);
        }
        self.tunnel.stats.count(Counter::AgentMessagesReceived);
        self.event(&Event::PeerMessage { key, payload: payload.into() });
    }
}

/// AGENT_PREFIX with the first 64 bits of SHA-256 over a label and the key, as `agentAddressOf` in proto/identity.ts.
pub fn agent_address(key: &PublicKey) -> Ipv6Addr {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"stayput agent address");
    context.update(key);
    let mut octets = match AGENT_PREFIX.address {
        IpAddr::V6(prefix) => prefix.octets(),
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
    };
    octets[8..].copy_from_slice(&context.finish().as_ref()[..8]);
    octets.into()
}

/// From the TUN nobody but the data plane itself may say such a thing.
#[inline]
pub fn is_agent_message(inner: &Inner, packet: &[u8]) -> bool {
    inner.protocol == UDP
        && AGENT_PREFIX.contains(inner.destination)
        && inner.total >= HEADERS
        && be16(packet, IPV6_HEADER + 2) == PORT
}

/// A frame in TUN format.
pub(crate) fn wrap(from: Ipv6Addr, to: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let mut frame = VnetHeader::default().bytes().to_vec();
    let length = (UDP_HEADER + payload.len()) as u16;
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&[UDP, HOP_LIMIT]);
    frame.extend_from_slice(&from.octets());
    frame.extend_from_slice(&to.octets());
    for word in [PORT, PORT, length, 0] {
        frame.extend_from_slice(&word.to_be_bytes());
    }
    frame.extend_from_slice(payload);
    let packet = &mut frame[VNET_HEADER..];
    let pseudo = pseudo_sum(packet, true, UDP, usize::from(length));
    put16(packet, IPV6_HEADER + 6, pseudo);
    finish_checksum(packet, IPV6_HEADER, 6, true);
    frame
}

/// What the tunnel has authenticated needs no look at the checksum.
pub(crate) fn payload_of<'a>(inner: &Inner, packet: &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::from(be16(packet, IPV6_HEADER + 4));
    let payload = packet.get(HEADERS..IPV6_HEADER + length).filter(|_| IPV6_HEADER + length <= inner.total)?;
    (1..=MAX_AGENT_MESSAGE).contains(&payload.len()).then_some(payload)
}

/// LISP control.
const PORT: u16 = 4342;
pub const MAX_AGENT_MESSAGE: usize = 1200;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
const HEADERS: usize = IPV6_HEADER + UDP_HEADER;
const HOP_LIMIT: u8 = 64;
const LIFETIME: Duration = seconds(5);
const MAX_WAITING_OF_PEER: usize = 64;
const MAX_WAITING_BYTES: usize = 4 << 20;
/// A handover of some thousand correspondents, and messages a second after it.
const BURST: f64 = 512.0;
const RATE: f64 = 256.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::checksum_ok;
    use crate::time::millis;

    const KEY: PublicKey = [4; 32];
    const PEER: PeerId = PeerId(3);

    fn waiting(messages: &mut AgentMessages) -> Vec<Box<[u8]>> {
        messages.take(PEER).into_iter().map(|w| w.payload).collect()
    }

    #[test]
    fn the_agent_address_is_that_of_the_control_protocol() {
        // agentAddressOf(base64 of 32 octets of 4), by proto/identity.ts.
        assert_eq!(agent_address(&KEY).to_string(), "fd53:7461:7970:7574:a45d:2625:c0ee:c509");
    }

    #[test]
    fn a_wrapped_message_is_a_valid_packet_and_unwraps() {
        let (from, to) = (agent_address(&KEY), agent_address(&[5; 32]));
        for length in [1, 2, 77, MAX_AGENT_MESSAGE] {
            let payload = vec![0xab; length];
            let frame = wrap(from, to, &payload);
            let packet = &frame[VNET_HEADER..];
            let inner = Inner::parse(packet).unwrap();
            assert!(checksum_ok(packet, &inner) && is_agent_message(&inner, packet));
            assert_eq!((inner.source, inner.destination), (IpAddr::V6(from), IpAddr::V6(to)));
            assert_eq!(payload_of(&inner, packet), Some(&payload[..]));
        }
    }

    #[test]
    fn what_is_no_message_is_not_taken_for_one() {
        let (from, to) = (agent_address(&KEY), agent_address(&[5; 32]));
        let good = wrap(from, to, b"x");
        let change = |at: usize, value: u8| {
            let mut packet = good[VNET_HEADER..].to_vec();
            packet[at] = value;
            let inner = Inner::parse(&packet).unwrap();
            (is_agent_message(&inner, &packet), payload_of(&inner, &packet).is_some())
        };
        assert_eq!(change(43, 0xf7), (false, true), "another port");
        assert_eq!(change(24, 0xfe), (false, true), "not an agent");
        assert_eq!(change(45, 8), (true, false), "empty");
        assert_eq!(change(45, 10), (true, false), "longer than the packet");
        assert_eq!(change(45, 0), (true, false), "shorter than a header");
        let frame = wrap(from, to, &vec![0; MAX_AGENT_MESSAGE + 1]);
        let inner = Inner::parse(&frame[VNET_HEADER..]).unwrap();
        assert_eq!(payload_of(&inner, &frame[VNET_HEADER..]), None);
    }

    #[test]
    fn waits_for_a_session_bounded_by_number_octets_and_age() {
        let mut messages = AgentMessages::default();
        let start = Time::from_millis(1);
        for n in 0..MAX_WAITING_OF_PEER + 3 {
            assert_eq!(messages.keep(PEER, vec![n as u8].into(), start), n < MAX_WAITING_OF_PEER);
        }
        let taken = waiting(&mut messages);
        assert_eq!((taken.len(), taken[0][0], taken[1][0]), (MAX_WAITING_OF_PEER, 0, 1));
        let mut kept = 0;
        for n in 0..10_000 {
            kept += usize::from(messages.keep(PeerId(n), vec![0; MAX_AGENT_MESSAGE].into(), start));
        }
        assert_eq!(kept, MAX_WAITING_BYTES / MAX_AGENT_MESSAGE);
        assert_eq!(messages.waiting.len(), kept);
        assert_eq!(messages.expire(start + LIFETIME - millis(1)), 0);
        assert_eq!(messages.expire(start + LIFETIME), kept);
        assert!(!messages.is_waiting() && messages.waiting_bytes == 0);
    }

    // Attack: messages of one peer to the agent, at once, half a second and a minute later | 6000 | heard up to the
    // rate; another peer is not affected
    #[test]
    fn attack_flood_of_agent_messages() {
        let mut messages = AgentMessages::default();
        let start = Time::from_millis(1);
        let heard = |messages: &mut AgentMessages, at| (0..2000).filter(|_| messages.allow(PEER, at)).count();
        assert_eq!(heard(&mut messages, start), BURST as usize);
        assert_eq!(heard(&mut messages, start + millis(500)), RATE as usize / 2);
        assert!(messages.allow(PeerId(9), start));
        assert_eq!(heard(&mut messages, start + seconds(60)), BURST as usize);
    }
}
