//! ICMP errors to the sender of an inner packet that cannot go on, written back into the TUN.

use std::net::IpAddr;

use crate::packet::{ICMP, ICMPV6, Inner, pseudo_sum, put16, sum, write_ipv4_checksum};
use crate::time::{Time, seconds};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    HostUnreachable,
    Prohibited,
    TooBig { mtu: u16 },
}

/// The error message, from the address the sender wanted to reach. `None` where RFC 1122 and RFC 4443 forbid one.
pub fn error(packet: &[u8], inner: &Inner, problem: Problem) -> Option<Vec<u8>> {
    let unfit = |a: IpAddr| a.is_multicast() || a.is_unspecified() || a == IpAddr::from([255; 4]);
    if unfit(inner.source) || unfit(inner.destination) {
        return None;
    }
    if inner.is_v6() { error_v6(packet, inner, problem) } else { error_v4(packet, inner, problem) }
}

fn error_v4(packet: &[u8], inner: &Inner, problem: Problem) -> Option<Vec<u8>> {
    let later_fragment = crate::packet::be16(packet, 6) & 0x1fff != 0;
    let kind = packet.get(inner.header).copied();
    let is_error = inner.protocol == ICMP && !matches!(kind, Some(0 | 8 | 13..=18));
    if later_fragment || is_error {
        return None;
    }
    let (code, mtu) = match problem {
        Problem::HostUnreachable => (1, 0),
        Problem::Prohibited => (13, 0),
        Problem::TooBig { mtu } => (4, mtu),
    };
    let quoted = &packet[..inner.total.min(548)];
    let mut message = vec![0; 28];
    message[0] = 0x45;
    put16(&mut message, 2, (28 + quoted.len()) as u16);
    (message[8], message[9]) = (64, ICMP);
    message[12..16].copy_from_slice(&packet[16..20]);
    message[16..20].copy_from_slice(&packet[12..16]);
    write_ipv4_checksum(&mut message, 20);
    (message[20], message[21]) = (3, code);
    put16(&mut message, 26, mtu);
    message.extend_from_slice(quoted);
    let checksum = !sum(&message[20..], 0);
    put16(&mut message, 22, checksum);
    Some(message)
}

fn error_v6(packet: &[u8], inner: &Inner, problem: Problem) -> Option<Vec<u8>> {
    if inner.protocol == ICMPV6 && packet.get(40).is_none_or(|kind| *kind < 128) {
        return None;
    }
    let (kind, code, mtu) = match problem {
        Problem::HostUnreachable => (1, 3, 0),
        Problem::Prohibited => (1, 1, 0),
        Problem::TooBig { mtu } => (2, 0, mtu),
    };
    let quoted = &packet[..inner.total.min(1280 - 48)];
    let mut message = vec![0; 48];
    message[0] = 0x60;
    put16(&mut message, 4, (8 + quoted.len()) as u16);
    (message[6], message[7]) = (ICMPV6, 64);
    message[8..24].copy_from_slice(&packet[24..40]);
    message[24..40].copy_from_slice(&packet[8..24]);
    (message[40], message[41]) = (kind, code);
    put16(&mut message, 46, mtu);
    message.extend_from_slice(quoted);
    let pseudo = pseudo_sum(&message, true, ICMPV6, message.len() - 40);
    let checksum = !sum(&message[40..], u32::from(pseudo));
    put16(&mut message, 42, checksum);
    Some(message)
}

/// So many errors a second; "too big" has its own budget, because connections wait for it.
pub struct ErrorBudget {
    second: Time,
    unreachable: u32,
    too_big: u32,
    advice: u32,
    outer: u32,
}

impl ErrorBudget {
    pub fn new() -> ErrorBudget {
        ErrorBudget { second: Time::default(), unreachable: 0, too_big: 0, advice: 0, outer: 0 }
    }

    /// For "too big" where nothing was lost.
    pub fn allow_advice(&mut self, now: Time) -> bool {
        self.begin_second(now);
        self.advice += 1;
        self.advice <= 20
    }

    /// For errors about the outer path, each of which is looked up among all peers.
    pub fn allow_outer(&mut self, now: Time) -> bool {
        self.begin_second(now);
        self.outer += 1;
        self.outer <= 200
    }

    fn begin_second(&mut self, now: Time) {
        if now.since(self.second) >= seconds(1) {
            *self = ErrorBudget { second: now, ..ErrorBudget::new() };
        }
    }

    pub fn allow(&mut self, problem: Problem, now: Time) -> bool {
        self.begin_second(now);
        let (used, limit) = match problem {
            Problem::TooBig { .. } => (&mut self.too_big, 1000),
            _ => (&mut self.unreachable, 100),
        };
        *used += 1;
        *used <= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::udp;

    #[test]
    fn errors_are_well_formed_and_never_answer_errors() {
        for v6 in [false, true] {
            let packet = udp(v6, &[1; 2000]);
            let inner = Inner::parse(&packet).unwrap();
            for problem in [Problem::HostUnreachable, Problem::Prohibited, Problem::TooBig { mtu: 1280 }] {
                let message = error(&packet, &inner, problem).unwrap();
                let parsed = Inner::parse(&message).unwrap();
                assert_eq!((parsed.source, parsed.destination), (inner.destination, inner.source));
                assert_eq!(parsed.total, message.len());
                let start = if v6 { u32::from(pseudo_sum(&message, true, ICMPV6, message.len() - 40)) } else { 0 };
                assert_eq!(sum(&message[parsed.header..], start), 0xffff);
                assert!(message.len() <= 1280);
                assert_eq!(error(&message, &parsed, problem), None);
            }
        }
    }
}
