//! Changes to inner packets on the way: ECN, DSCP, TTL, MSS, ICMP errors about them, IPv4 fragments.

use super::Input;
use crate::icmp::{self, Problem};
use crate::outer_header::{Decapsulated, Dscp, HeaderRules, Outer, age};
use crate::packet::{ICMPV6, Inner, be16, checksum_ok, clamp_mss, pseudo_sum, sum, write_ipv4_checksum};
use crate::segment::fragment_ipv4;

/// Rules, the outer header and a limit, then the inner packet: what was sound stays sound, and what is said about it
/// is sound.
pub fn headers(data: &[u8]) {
    let mut input = Input(data);
    let [choice, ttl, tos] = input.array();
    let limit = usize::from(input.u16());
    let mut packet = input.0.to_vec();
    let Some(mut inner) = Inner::parse(&packet) else { return };
    packet.truncate(inner.total);
    let header_ok = |packet: &[u8], inner: &Inner| inner.is_v6() || sum(&packet[..inner.header], 0) == 0xffff;
    let sound = header_ok(&packet, &inner);
    let l4_sound = inner.checksum_offset().is_some() && checksum_ok(&packet, &inner);

    for problem in [Problem::HostUnreachable, Problem::Prohibited, Problem::TooBig { mtu: limit as u16 }] {
        let Some(message) = icmp::error(&packet, &inner, problem) else { continue };
        let Some(about) = Inner::parse(&message) else { panic!("an ICMP error that is no packet") };
        assert_eq!(about.total, message.len());
        assert_eq!((about.source, about.destination), (inner.destination, inner.source));
        assert!(message.len() <= if inner.is_v6() { 1280 } else { 576 });
        assert!(header_ok(&message, &about));
        let start = if inner.is_v6() { pseudo_sum(&message, true, ICMPV6, message.len() - 40) } else { 0 };
        assert_eq!(sum(&message[about.header..], start.into()), 0xffff);
        assert_eq!(icmp::error(&message, &about, problem), None, "an error about an error");
    }

    let dscp = [Dscp::None, Dscp::Out, Dscp::Both][usize::from(choice) % 3];
    let rules = HeaderRules { dscp, fixed_ttl: (choice & 0x80 != 0).then_some(64) };
    assert!(rules.encapsulate(&inner).ttl > 0);
    let before = inner;
    let decapsulated = rules.decapsulate(&mut packet, &mut inner, Outer { tos, ttl });
    assert_eq!(Inner::parse(&packet), Some(inner));
    assert!(inner.ttl <= before.ttl);
    assert_eq!(decapsulated == Decapsulated::Drop, before.tos & 3 == 0 && tos & 3 == 3);
    if age(&mut packet, &mut inner) {
        assert!(inner.ttl > 0);
    }
    clamp_mss(&mut packet, &inner, limit, choice & 0x40 != 0);
    assert_eq!(Inner::parse(&packet), Some(inner));
    assert_eq!(header_ok(&packet, &inner), sound);
    if l4_sound && choice & 0x40 == 0 {
        assert!(checksum_ok(&packet, &inner));
    }
}

/// A limit and an IPv4 packet: its fragments fit, are sound, and join to the same packet.
pub fn fragment(data: &[u8]) {
    let mut input = Input(data);
    let limit = usize::from(input.u16());
    let Some(inner) = Inner::parse(input.0) else { return };
    let packet = &input.0[..inner.total];
    let fragments = fragment_ipv4(packet, &inner, limit);
    if fragments.is_empty() {
        return;
    }
    let first = usize::from(be16(packet, 6) & 0x1fff) * 8;
    let mut joined = Vec::new();
    for (i, fragment) in fragments.iter().enumerate() {
        let Some(part) = Inner::parse(fragment) else { panic!("a fragment that is no packet") };
        assert_eq!(part.total, fragment.len());
        assert!(fragment.len() <= limit);
        assert_eq!(sum(&fragment[..part.header], 0), 0xffff);
        assert_eq!(usize::from(be16(fragment, 6) & 0x1fff) * 8, first + joined.len());
        let more = be16(fragment, 6) & 0x2000 != 0;
        assert_eq!(more, i + 1 < fragments.len() || be16(packet, 6) & 0x2000 != 0);
        let mut alike = fragment[..part.header].to_vec();
        alike[2..4].copy_from_slice(&packet[2..4]);
        alike[6..8].copy_from_slice(&packet[6..8]);
        let mut original = packet[..inner.header].to_vec();
        write_ipv4_checksum(&mut alike, part.header);
        write_ipv4_checksum(&mut original, inner.header);
        assert_eq!(alike, original);
        joined.extend_from_slice(&fragment[part.header..]);
    }
    assert_eq!(joined, packet[inner.header..]);
}
