//! What the policy needs to know of a packet: its flow, its part in a conversation, and whether it is a fragment.
//!
//! Nothing is guessed. A packet whose upper-layer header is not all there (RFC 1858, RFC 7112), that is routed by its
//! source (it is for somebody else than it says), or whose extension headers are malformed or too many, is none.

use std::net::IpAddr;

use super::flow_cache::Key;
use crate::packet::{ICMP, ICMPV6, Inner, TCP, UDP, be16, be32};

/// In the direction of the packet. Ports are 0 where a protocol has none, and both the identifier of an ICMP query.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flow {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// ICMP for both versions of it.
    pub protocol: u8,
    pub source_port: u16,
    pub destination_port: u16,
}

/// A packet's part in a conversation, as far as it can be told from the packet alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Begins one: a SYN, an ICMP request, and whatever of ICMP nobody asks for.
    Opens,
    /// Belongs to a TCP connection that was opened.
    Continues,
    /// An ICMP reply.
    Answers,
    Either,
    /// An ICMP error about a packet of this flow; `None`: it cannot be told which.
    Reports(Option<Flow>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// `fragment`: it is the first one of this datagram.
    Whole { flow: Flow, role: Role, fragment: Option<Key> },
    /// Without a header of its own. `protocol`: as far as it is said.
    LaterFragment { key: Key, protocol: Option<u8> },
}

impl Flow {
    pub fn reversed(&self) -> Flow {
        Flow {
            source: self.destination,
            destination: self.source,
            protocol: self.protocol,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }

    #[inline]
    pub fn key(&self) -> Key {
        let ports = u64::from(self.source_port) << 16 | u64::from(self.destination_port);
        key(self.source, self.destination, u64::from(self.protocol) << 32 | ports)
    }
}

/// `None`: it has to be denied.
#[inline]
pub fn classify(packet: &[u8], inner: &Inner) -> Option<Part> {
    let packet = packet.get(..inner.total)?;
    let Upper { protocol, at, fragment } = upper(packet)?;
    let fragment_key = fragment.as_ref().map(|fragment| {
        // RFC 791 tells datagrams apart by their protocol as well, RFC 8200 does not.
        let protocol = if inner.is_v6() { 0 } else { u64::from(protocol) };
        key(inner.source, inner.destination, protocol << 32 | u64::from(fragment.id))
    });
    if let (Some(key), Some(Fragment { offset: offset @ 1.., .. })) = (fragment_key, fragment) {
        // It could change the flags of the first one where overlaps are taken.
        if protocol == TCP && offset < TCP_HEADER {
            return None;
        }
        let protocol = (!inner.is_v6() || !is_extension(protocol)).then_some(protocol);
        return Some(Part::LaterFragment { key, protocol });
    }
    let header = &packet[at..];
    let (source_port, destination_port) = ports(protocol, header)?;
    let (role, source_port, destination_port) = match protocol {
        TCP if header.len() < TCP_HEADER => return None,
        TCP if header[13] & (SYN | ACK) == SYN => (Role::Opens, source_port, destination_port),
        TCP => (Role::Continues, source_port, destination_port),
        ICMP | ICMPV6 => {
            let kind = *header.first()?;
            let identifier = || if header.len() < 8 { 0 } else { be16(header, 4) };
            match (protocol, kind) {
                (ICMP, 3 | 11 | 12) | (ICMPV6, 1..=4) => (Role::Reports(quoted(header.get(8..)?)), 0, 0),
                (ICMP, 0 | 14 | 16 | 18) | (ICMPV6, 129) => (Role::Answers, identifier(), identifier()),
                (ICMP, 8 | 13 | 15 | 17) | (ICMPV6, 128) => (Role::Opens, identifier(), identifier()),
                _ => (Role::Opens, 0, 0),
            }
        }
        _ => (Role::Either, source_port, destination_port),
    };
    let protocol = if protocol == ICMPV6 { ICMP } else { protocol };
    let flow = Flow { source: inner.source, destination: inner.destination, protocol, source_port, destination_port };
    Some(Part::Whole { flow, role, fragment: fragment_key })
}

pub fn same_protocol(one: u8, other: u8) -> bool {
    let unified = |protocol| if protocol == ICMPV6 { ICMP } else { protocol };
    unified(one) == unified(other)
}

/// Of the packet that an ICMP error quotes, which is cut somewhere behind its first eight octets of upper layer.
fn quoted(quote: &[u8]) -> Option<Flow> {
    let (source, destination) = addresses(quote)?;
    let Upper { protocol, at, fragment } = upper(quote)?;
    if fragment.is_some_and(|fragment| fragment.offset > 0) {
        return None;
    }
    let header = &quote[at..];
    let (source_port, destination_port) = match header.len() {
        0..8 => return None,
        _ if has_ports(protocol) => (be16(header, 0), be16(header, 2)),
        _ => (0, 0),
    };
    let protocol = if protocol == ICMPV6 { ICMP } else { protocol };
    Some(Flow { source, destination, protocol, source_port, destination_port })
}

/// Where the upper layer begins. `at` is within the packet; for a later fragment it is where its data begins.
struct Upper {
    protocol: u8,
    at: usize,
    fragment: Option<Fragment>,
}

struct Fragment {
    id: u32,
    /// In octets.
    offset: usize,
}

fn upper(packet: &[u8]) -> Option<Upper> {
    match packet.first()? >> 4 {
        4 => upper_v4(packet),
        6 => upper_v6(packet),
        _ => None,
    }
}

fn upper_v4(packet: &[u8]) -> Option<Upper> {
    let at = usize::from(packet[0] & 0xf) * 4;
    if at < 20 || at > packet.len() {
        return None;
    }
    let mut options = &packet[20..at];
    while let Some(kind) = options.first() {
        let length = match kind {
            0 => break,
            1 => 1,
            // Loose and strict source route.
            131 | 137 => return None,
            _ => usize::from(*options.get(1)?),
        };
        options = options.get(length.max(1)..)?;
        if length < 2 && *kind != 1 {
            return None;
        }
    }
    let (offset, more) = (usize::from(be16(packet, 6) & 0x1fff) * 8, packet[6] & 0x20 != 0);
    let fragment = (offset > 0 || more).then(|| Fragment { id: u32::from(be16(packet, 4)), offset });
    Some(Upper { protocol: packet[9], at, fragment })
}

fn upper_v6(packet: &[u8]) -> Option<Upper> {
    let (mut protocol, mut at) = (*packet.get(6)?, 40);
    let (mut fragment, mut fragment_header) = (None, false);
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(protocol) {
            return (at <= packet.len()).then_some(Upper { protocol, at, fragment });
        }
        let header = packet.get(at..at + 8)?;
        if protocol == FRAGMENT {
            let (offset, more) = (usize::from(be16(header, 2) & 0xfff8), header[3] & 1 != 0);
            if std::mem::replace(&mut fragment_header, true) {
                return None;
            }
            (protocol, at) = (header[0], at + 8);
            if offset > 0 || more {
                fragment = Some(Fragment { id: be32(header, 4), offset });
            }
            if offset > 0 {
                return Some(Upper { protocol, at, fragment });
            }
            continue;
        }
        if protocol == ROUTING && header[3] != 0 {
            return None;
        }
        (protocol, at) = (header[0], at + 8 + usize::from(header[1]) * 8);
    }
    None
}

fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    fn address<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
        packet.get(at..at + N)?.try_into().ok()
    }
    Some(match packet.first()? >> 4 {
        4 => (address::<4>(packet, 12)?.into(), address::<4>(packet, 16)?.into()),
        _ => (address::<16>(packet, 8)?.into(), address::<16>(packet, 24)?.into()),
    })
}

/// `None` when the header is not all there.
fn ports(protocol: u8, header: &[u8]) -> Option<(u16, u16)> {
    let length = match protocol {
        TCP => TCP_HEADER,
        UDP | UDP_LITE => 8,
        SCTP | DCCP => 12,
        _ => return Some((0, 0)),
    };
    (header.len() >= length).then(|| (be16(header, 0), be16(header, 2)))
}

fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | UDP_LITE | SCTP | DCCP)
}

/// Those that a receiver steps over. ESP and AH are for it to open, so they are protocols like others here.
fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
}

fn key(source: IpAddr, destination: IpAddr, rest: u64) -> Key {
    let (halves, family) = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ([0, u64::from(u32::from(source)), 0, u64::from(u32::from(destination))], 0)
        }
        (source, destination) => {
            let [source, destination] = [source, destination].map(|address| match address {
                IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
                IpAddr::V6(v6) => u128::from(v6),
            });
            ([(source >> 64) as u64, source as u64, (destination >> 64) as u64, destination as u64], 1 << 63)
        }
    };
    let [a, b, c, d] = halves;
    [a, b, c, d, family | rest]
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const TCP_HEADER: usize = 20;
const SCTP: u8 = 132;
const DCCP: u8 = 33;
const UDP_LITE: u8 = 136;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
const MAX_EXTENSIONS: usize = 8;

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::packet::put16;

    pub const SYN: u8 = super::SYN;
    pub const ACK: u8 = super::ACK;

    pub fn ip(source: &str, destination: &str, protocol: u8, upper: &[u8]) -> Vec<u8> {
        match (source.parse().unwrap(), destination.parse().unwrap()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut packet = vec![0; 20];
                packet[0] = 0x45;
                put16(&mut packet, 2, 20 + upper.len() as u16);
                (packet[8], packet[9]) = (64, protocol);
                packet[12..16].copy_from_slice(&source.octets());
                packet[16..20].copy_from_slice(&destination.octets());
                [&packet, upper].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut packet = vec![0; 40];
                packet[0] = 0x60;
                put16(&mut packet, 4, upper.len() as u16);
                (packet[6], packet[7]) = (protocol, 64);
                packet[8..24].copy_from_slice(&source.octets());
                packet[24..40].copy_from_slice(&destination.octets());
                [&packet, upper].concat()
            }
            _ => panic!("of two families"),
        }
    }

    pub fn segment(source: &str, destination: &str, source_port: u16, destination_port: u16, flags: u8) -> Vec<u8> {
        let mut header = [0; 20];
        put16(&mut header, 0, source_port);
        put16(&mut header, 2, destination_port);
        (header[12], header[13]) = (0x50, flags);
        ip(source, destination, TCP, &header)
    }

    pub fn datagram(source: &str, destination: &str, source_port: u16, destination_port: u16) -> Vec<u8> {
        let mut header = [0; 16];
        put16(&mut header, 0, source_port);
        put16(&mut header, 2, destination_port);
        put16(&mut header, 4, 16);
        ip(source, destination, UDP, &header)
    }

    pub fn report(from: &str, to: &str, about: &[u8]) -> Vec<u8> {
        let (protocol, kind) = if to.contains(':') { (ICMPV6, 1) } else { (ICMP, 3) };
        ip(from, to, protocol, &[&[kind, 3, 0, 0, 0, 0, 0, 0], about].concat())
    }

    /// The packet as the fragment at `offset` octets.
    pub fn fragment_v4(packet: &[u8], id: u16, offset: u16, more: bool) -> Vec<u8> {
        let mut packet = packet.to_vec();
        put16(&mut packet, 4, id);
        put16(&mut packet, 6, (offset / 8) | if more { 0x2000 } else { 0 });
        packet
    }

    #[derive(Clone, Copy, Debug)]
    pub enum V6Header {
        HopByHop,
        /// So many times eight octets longer than the shortest.
        Destination(u8),
        Routing {
            left: u8,
        },
        Fragment {
            id: u8,
            offset: u16,
            more: bool,
        },
    }

    /// From fd77::1 to fd77::2. The length of a header that says more than 100 is a lie.
    pub fn v6_chain(chain: &[V6Header], protocol: u8, upper: &[u8]) -> Vec<u8> {
        let number = |header: &V6Header| match header {
            V6Header::HopByHop => HOP_BY_HOP,
            V6Header::Destination(_) => DESTINATION_OPTIONS,
            V6Header::Routing { .. } => ROUTING,
            V6Header::Fragment { .. } => FRAGMENT,
        };
        let mut octets = Vec::new();
        for (at, header) in chain.iter().enumerate() {
            let next = chain.get(at + 1).map_or(protocol, number);
            match *header {
                V6Header::HopByHop => octets.extend([next, 0, 1, 4, 0, 0, 0, 0]),
                V6Header::Destination(length) => {
                    octets.extend([next, length, 1, 4, 0, 0, 0, 0]);
                    octets.extend(vec![0; if length > 100 { 0 } else { usize::from(length) * 8 }]);
                }
                V6Header::Routing { left } => octets.extend([next, 0, 4, left, 0, 0, 0, 0]),
                V6Header::Fragment { id, offset, more } => {
                    let [high, low] = (offset | u16::from(more)).to_be_bytes();
                    octets.extend([next, 0, high, low, 0, 0, 0, id]);
                }
            }
        }
        octets.extend(upper);
        ip("fd77::1", "fd77::2", chain.first().map_or(protocol, number), &octets)
    }

    fn part(packet: &[u8]) -> Option<Part> {
        classify(packet, &Inner::parse(packet).unwrap())
    }

    #[test]
    fn a_header_is_there_as_a_whole_or_it_is_none() {
        let shortest = [(TCP, 20), (UDP, 8), (UDP_LITE, 8), (SCTP, 12), (DCCP, 12), (ICMP, 1), (47, 0)];
        for (protocol, length) in shortest {
            let is_one = |length| part(&ip("10.0.0.1", "10.0.0.2", protocol, &vec![0; length])).is_some();
            assert!(is_one(length), "{protocol}");
            assert!((0..length).all(|shorter| !is_one(shorter)), "{protocol}");
        }
        // Cut within an ICMP error's own header.
        assert!(part(&ip("10.0.0.1", "10.0.0.2", ICMP, &[3, 0, 0])).is_none());
    }

    #[test]
    fn icmp_says_what_it_is() {
        let role = |v6: bool, kind: u8| {
            let (source, destination, protocol) =
                if v6 { ("fd77::1", "fd77::2", ICMPV6) } else { ("10.0.0.1", "10.0.0.2", ICMP) };
            match part(&ip(source, destination, protocol, &[kind, 0, 0, 0, 1, 2, 0, 0])) {
                Some(Part::Whole { flow, role, .. }) => {
                    assert_eq!(flow.protocol, ICMP);
                    (role, flow.source_port)
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!([role(false, 8), role(false, 0)], [(Role::Opens, 0x102), (Role::Answers, 0x102)]);
        assert_eq!([role(true, 128), role(true, 129)], [(Role::Opens, 0x102), (Role::Answers, 0x102)]);
        assert_eq!([role(false, 5), role(true, 137), role(true, 134)], [(Role::Opens, 0); 3]);
        for (v6, kind) in [(false, 3), (false, 11), (false, 12), (true, 1), (true, 2), (true, 3), (true, 4)] {
            assert_eq!(role(v6, kind), (Role::Reports(None), 0));
        }
    }

    #[test]
    fn keys_differ_in_everything_that_is_said() {
        let flow = |source: &str, destination: &str, protocol, source_port, destination_port| {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            Flow { source, destination, protocol, source_port, destination_port }.key()
        };
        let keys = [
            flow("10.0.0.1", "10.0.0.2", 6, 1, 2),
            flow("10.0.0.2", "10.0.0.1", 6, 1, 2),
            flow("10.0.0.1", "10.0.0.2", 17, 1, 2),
            flow("10.0.0.1", "10.0.0.2", 6, 2, 1),
            flow("::10.0.0.1", "::10.0.0.2", 6, 1, 2),
            flow("1::10.0.0.1", "::10.0.0.2", 6, 1, 2),
        ];
        assert!(keys.iter().enumerate().all(|(at, key)| !keys[..at].contains(key)));
    }
}
