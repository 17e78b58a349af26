//! Inner packets as the policy sees them.

use super::Input;
use crate::forwarding::{Forwarding, Origin};
use crate::packet::{ICMP, ICMPV6, Inner, TCP, UDP, be16};
use crate::peer::PeerId;
use crate::policy::{Part, Policy, PolicySet, Rule, Side, classify};
use crate::time::Time;

/// A side, then an inner packet: it is judged alike each time, and what a receiver would take for the beginning of a
/// connection that is denied is denied, whatever stands in front of it.
pub fn policy(data: &[u8]) {
    let mut input = Input(data);
    let side = [Side::Sending, Side::Receiving { from: Origin::Peer(PeerId(1)) }][input.below(2)];
    let packet = input.0;
    let Some(inner) = Inner::parse(packet) else { return };
    let packet = &packet[..inner.total];
    let part = classify(packet, &inner);
    if let Some(Part::Whole { flow, .. }) = part {
        assert_eq!((flow.source, flow.destination), (inner.source, inner.destination));
        assert_eq!(flow.reversed().reversed(), flow);
    }
    let table = Forwarding::new();
    let now = Time::from_nanos(1 << 40);
    let everywhere: Vec<_> = ["0.0.0.0/0", "::/0"].iter().flat_map(|text| text.parse()).collect();
    let deny = |protocol, ports: &[(u16, u16)]| Rule {
        allow: false,
        source: everywhere.clone(),
        destination: everywhere.clone(),
        protocol: Some(protocol),
        ports: ports.to_vec(),
    };
    let rules = vec![deny(TCP, &[(22, 22)]), deny(UDP, &[(53, 53)]), deny(ICMP, &[])];
    let mut policy = Policy::remembering(1);
    policy.enforce(PolicySet { version: 1, default_allow: true, rules }.prepare(), 0, now);
    let allowed = policy.allows(side, packet, &inner, &table, now);
    assert_eq!(policy.allows(side, packet, &inner, &table, now), allowed);
    let agents = [inner.source, inner.destination].iter().all(|a| crate::forwarding::AGENT_PREFIX.contains(*a));
    if agents {
        return assert!(allowed);
    }
    assert!(part.is_some() || !allowed);
    match received(packet, &inner) {
        Some((TCP, header)) if header.len() >= 20 && be16(header, 2) == 22 => {
            assert!(!allowed || header[13] & 0x12 != 0x02, "SSH was opened");
        }
        Some((ICMP, [8, ..])) if !inner.is_v6() => assert!(!allowed, "a ping was sent"),
        Some((ICMPV6, [128, ..])) if inner.is_v6() => assert!(!allowed, "a ping was sent"),
        _ => {}
    }
}

/// The upper layer of a packet that is whole or a first fragment, as a host finds it that steps over all that it can.
fn received<'a>(packet: &'a [u8], inner: &Inner) -> Option<(u8, &'a [u8])> {
    if !inner.is_v6() {
        return (be16(packet, 6) & 0x1fff == 0).then_some((inner.protocol, &packet[inner.header..]));
    }
    let (mut protocol, mut at) = (inner.protocol, 40);
    loop {
        let header = packet.get(at..at + 8);
        match protocol {
            44 if be16(header?, 2) & 0xfff8 != 0 => return None,
            44 => (protocol, at) = (header?[0], at + 8),
            0 | 43 | 60 => (protocol, at) = (header?[0], at + 8 + 8 * usize::from(header?[1])),
            _ => return Some((protocol, packet.get(at..)?)),
        }
    }
}
