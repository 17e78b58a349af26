//! ARP (RFC 826, 5227), RARP announcements and neighbour discovery (RFC 4861), as far as a workload shows itself by
//! them, or has to be told where its gateway is now.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::{ICMPV6, Inner, be16, pseudo_sum, put16, sum};
use crate::packet_filter::{ARP, IPV4, IPV6, RARP};

pub type Mac = [u8; 6];

/// By what a workload was recognised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    Arp,
    Nd,
    Packet,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sign {
    Of(IpAddr, By),
    /// Somebody has come and says only its hardware address, as QEMU does for a guest after a migration.
    Newcomer,
}

/// Whose sign of life a packet is; `protocol` is its Ethertype.
pub fn sign_of_life(protocol: u16, packet: &[u8]) -> Option<Sign> {
    match protocol {
        RARP => Some(Sign::Newcomer),
        ARP => {
            let arp: &[u8; ARP_LENGTH] = packet.first_chunk()?;
            if arp[..6] != ARP_ETHERNET_IPV4 {
                return None;
            }
            let address = |at: usize| Ipv4Addr::new(arp[at], arp[at + 1], arp[at + 2], arp[at + 3]);
            let (sender, target) = (address(14), address(24));
            // A probe asks whether somebody else has the address, which its sender is going to use.
            let probe = sender.is_unspecified() && be16(arp, 6) == ARP_REQUEST;
            Some(Sign::Of(if probe { target } else { sender }.into(), By::Arp))
        }
        IPV4 | IPV6 => {
            let source = source_of(packet)?;
            match neighbour_discovery(packet) {
                Some(Discovery::Solicitation(target)) if source.is_unspecified() => {
                    Some(Sign::Of(target.into(), By::Nd))
                }
                Some(Discovery::Solicitation(_)) => Some(Sign::Of(source, By::Nd)),
                Some(Discovery::Advertisement(target)) => Some(Sign::Of(target.into(), By::Nd)),
                Some(Discovery::ByProxy) => None,
                None => Some(Sign::Of(source, By::Packet)),
            }
        }
        _ => None,
    }
}

/// The packet may be cut off after its headers.
fn source_of(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(12..16).and_then(|s| <[u8; 4]>::try_from(s).ok()).map(IpAddr::from),
        6 => packet.get(8..24).and_then(|s| <[u8; 16]>::try_from(s).ok()).map(IpAddr::from),
        _ => None,
    }
}

enum Discovery {
    Solicitation(Ipv6Addr),
    Advertisement(Ipv6Addr),
    /// Somebody answers for another.
    ByProxy,
}

/// Who asks for whom. `None` for a probe, which must not be answered: its sender is going to use the address.
pub fn solicitation(packet: &[u8]) -> Option<(Ipv6Addr, Ipv6Addr)> {
    let Some(Discovery::Solicitation(target)) = neighbour_discovery(packet) else { return None };
    match source_of(packet)? {
        IpAddr::V6(source) if !source.is_unspecified() => Some((source, target)),
        _ => None,
    }
}

fn neighbour_discovery(packet: &[u8]) -> Option<Discovery> {
    let inner = Inner::parse(packet).filter(|i| i.is_v6() && i.protocol == ICMPV6)?;
    let message: &[u8; 64] = packet[..inner.total].first_chunk()?;
    if message[7] != LINK_HOP_LIMIT || message[41] != 0 {
        return None;
    }
    let target = <[u8; 16]>::try_from(&message[48..64]).ok()?.into();
    match message[40] {
        SOLICITATION => Some(Discovery::Solicitation(target)),
        ADVERTISEMENT if message[44] & OVERRIDE == 0 => Some(Discovery::ByProxy),
        ADVERTISEMENT => Some(Discovery::Advertisement(target)),
        _ => None,
    }
}

pub fn arp_request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut packet = ARP_ETHERNET_IPV4.to_vec();
    packet.extend_from_slice(&ARP_REQUEST.to_be_bytes());
    packet.extend_from_slice(&mac);
    packet.extend_from_slice(&sender.octets());
    packet.extend_from_slice(&[0; 6]);
    packet.extend_from_slice(&target.octets());
    packet
}

/// A gratuitous request: replaces what neighbours know of the address.
pub fn arp_announcement(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    arp_request(mac, address, address)
}

pub fn neighbour_solicitation(mac: Mac, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let to = solicited_node(target);
    icmpv6(source, to, [SOLICITATION, 0, 0, 0, 0, 0, 0, 0], target, [SOURCE_LINK_LAYER, 1], mac)
}

/// Unsolicited, from a router.
pub fn neighbour_advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    let head = [ADVERTISEMENT, 0, 0, 0, ROUTER | OVERRIDE, 0, 0, 0];
    icmpv6(address, ALL_NODES, head, address, [TARGET_LINK_LAYER, 1], mac)
}

/// Answers `asker` for somebody else (RFC 4861 section 7.2.8): does not override what the asker knows better.
pub fn proxy_advertisement(mac: Mac, from: Ipv6Addr, asker: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let head = [ADVERTISEMENT, 0, 0, 0, ROUTER | SOLICITED, 0, 0, 0];
    icmpv6(from, asker, head, target, [TARGET_LINK_LAYER, 1], mac)
}

fn icmpv6(from: Ipv6Addr, to: Ipv6Addr, head: [u8; 8], target: Ipv6Addr, option: [u8; 2], mac: Mac) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 32, ICMPV6, LINK_HOP_LIMIT];
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    packet.extend_from_slice(&head);
    packet.extend_from_slice(&target.octets());
    packet.extend_from_slice(&option);
    packet.extend_from_slice(&mac);
    let pseudo = pseudo_sum(&packet, true, ICMPV6, packet.len() - 40);
    let checksum = !sum(&packet[40..], pseudo.into());
    put16(&mut packet, 42, checksum);
    packet
}

/// ff02::1:ff00:0/104 with the last 24 bits of the target.
fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let mut octets = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    octets[13..].copy_from_slice(&target.octets()[13..]);
    octets.into()
}

/// Where a broadcast or multicast for `destination` goes on Ethernet (RFC 2464).
pub fn group_mac(packet: &[u8]) -> Mac {
    match packet.first().map(|first| first >> 4) {
        Some(6) if packet.len() >= 40 => [0x33, 0x33, packet[36], packet[37], packet[38], packet[39]],
        _ => [0xff; 6],
    }
}

const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_LENGTH: usize = 28;
const ARP_REQUEST: u16 = 1;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
/// Proves that a packet has not passed a router.
const LINK_HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::udp;

    const MAC: Mac = [2, 0, 0, 0, 0, 1];
    const EID4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 5);

    fn v6(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    #[test]
    fn a_workload_is_recognised_by_what_it_says_of_itself() {
        let (eid, gateway) = (v6("fd77::5"), v6("fe80::1"));
        let of = |eid: IpAddr, by| Some(Sign::Of(eid, by));
        for (protocol, packet, expected) in [
            (ARP, arp_announcement(MAC, EID4), of(EID4.into(), By::Arp)),
            (ARP, arp_request(MAC, EID4, Ipv4Addr::new(169, 254, 1, 1)), of(EID4.into(), By::Arp)),
            (ARP, arp_request(MAC, Ipv4Addr::UNSPECIFIED, EID4), of(EID4.into(), By::Arp)),
            (RARP, vec![0; 46], Some(Sign::Newcomer)),
            (IPV6, neighbour_advertisement(MAC, eid), of(eid.into(), By::Nd)),
            (IPV6, neighbour_solicitation(MAC, eid, gateway), of(eid.into(), By::Nd)),
            (IPV6, neighbour_solicitation(MAC, Ipv6Addr::UNSPECIFIED, eid), of(eid.into(), By::Nd)),
            (IPV4, udp(false, b"x"), of([10, 0, 0, 1].into(), By::Packet)),
            (IPV6, udp(true, b"x"), of(v6("fd00::1").into(), By::Packet)),
        ] {
            assert_eq!(sign_of_life(protocol, &packet), expected, "{packet:x?}");
        }
    }

    #[test]
    fn who_is_asked_for_or_answered_for_shows_no_life() {
        let eid = v6("fd77::5");
        let asked = neighbour_solicitation(MAC, v6("fe80::2"), eid);
        assert_eq!(sign_of_life(IPV6, &asked), Some(Sign::Of(v6("fe80::2").into(), By::Nd)));
        let mut by_proxy = neighbour_advertisement(MAC, eid);
        by_proxy[44] &= !OVERRIDE;
        assert_eq!(sign_of_life(IPV6, &by_proxy), None);
        let asked = arp_request(MAC, Ipv4Addr::new(10, 0, 0, 9), EID4);
        assert_eq!(sign_of_life(ARP, &asked), Some(Sign::Of([10, 0, 0, 9].into(), By::Arp)));
        let mut forwarded = neighbour_advertisement(MAC, eid);
        forwarded[7] = 254;
        assert_eq!(sign_of_life(IPV6, &forwarded), Some(Sign::Of(eid.into(), By::Packet)), "only its source counts");
    }

    #[test]
    fn what_is_sent_is_well_formed() {
        let packet = neighbour_solicitation(MAC, v6("fe80::1"), v6("fd77::ab:cdef"));
        let inner = Inner::parse(&packet).unwrap();
        assert_eq!(inner.destination, IpAddr::V6(v6("ff02::1:ffab:cdef")));
        assert_eq!(group_mac(&packet), [0x33, 0x33, 0xff, 0xab, 0xcd, 0xef]);
        let pseudo = pseudo_sum(&packet, true, ICMPV6, packet.len() - 40);
        assert_eq!(sum(&packet[40..], pseudo.into()), 0xffff);
        assert_eq!(group_mac(&arp_announcement(MAC, EID4)), [0xff; 6]);
    }

    #[test]
    fn a_question_is_answered_to_who_asks_and_a_probe_is_not() {
        let (asker, eid) = (v6("fd77::5"), v6("fd77::6"));
        assert_eq!(solicitation(&neighbour_solicitation(MAC, asker, eid)), Some((asker, eid)));
        assert_eq!(solicitation(&neighbour_solicitation(MAC, Ipv6Addr::UNSPECIFIED, eid)), None);
        assert_eq!(solicitation(&neighbour_advertisement(MAC, eid)), None);
        let answer = proxy_advertisement(MAC, v6("fe80::1"), asker, eid);
        assert_eq!(sign_of_life(IPV6, &answer), None, "nobody takes it for the workload itself");
    }

    #[test]
    fn garbage_is_nobody_s_sign() {
        let packets = [arp_announcement(MAC, EID4), neighbour_advertisement(MAC, v6("fd77::5"))];
        for packet in packets {
            for length in 0..packet.len() {
                for protocol in [ARP, IPV4, IPV6, 0] {
                    let _ = sign_of_life(protocol, &packet[..length]);
                }
            }
        }
        assert_eq!(sign_of_life(ARP, &[0; 28]), None);
        assert_eq!(sign_of_life(IPV6, &[]), None);
    }
}
