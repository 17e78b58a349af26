//! Path MTUs to RLOCs without a tunnel (RFC 9300 section 7.2). Nothing can be probed there, so ICMP "too big" has to be
//! believed as far as it can be checked: it has to quote a plain packet as this host sends them, larger than it says is
//! possible, to an EID that is at that RLOC; and then it counts for ten minutes and not below what every host takes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::egress::IPV6_MINIMUM;
use crate::fast_hash::FastMap;
use crate::packet::{Inner, TCP, be16};
use crate::plain::inner_limit;
use crate::time::{Time, seconds};
use crate::wire::LISP_HEADER;

#[derive(Default)]
pub struct PlainMtus {
    /// The largest outer packet, and until when that is believed.
    known: FastMap<IpAddr, (usize, Time)>,
}

/// What an ICMP error quotes of a plain packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quoted {
    pub destination: IpAddr,
    /// Of the inner packet.
    pub length: usize,
}

impl Quoted {
    /// From the payload of the outer UDP header on. `header` is what this host begins plain packets with.
    pub fn parse(bytes: &[u8], header: [u8; LISP_HEADER]) -> Option<Quoted> {
        let inner = bytes.strip_prefix(&header)?;
        let (length, destination) = match inner.first()? >> 4 {
            4 => {
                let address: [u8; 4] = inner.get(16..20)?.try_into().ok()?;
                (usize::from(be16(inner, 2)), IpAddr::from(Ipv4Addr::from(address)))
            }
            6 => {
                let address: [u8; 16] = inner.get(24..40)?.try_into().ok()?;
                (usize::from(be16(inner, 4)) + 40, IpAddr::from(Ipv6Addr::from(address)))
            }
            _ => return None,
        };
        Some(Quoted { destination, length })
    }
}

impl PlainMtus {
    /// The largest outer packet that is known to fit.
    pub fn outer(&self, rloc: IpAddr, now: Time) -> Option<usize> {
        self.known.get(&rloc).filter(|(_, until)| now < *until).map(|(size, _)| *size)
    }

    /// A router says that `mtu` is the largest that it passes on (0, as before RFC 1191: it does not say). False if that
    /// is nothing new, or cannot be.
    pub fn learn(&mut self, rloc: IpAddr, mtu: u32, quoted: Quoted, now: Time) -> bool {
        let least = least(rloc);
        let tried = quoted.length + (least - inner_limit(least, rloc));
        let told = match mtu as usize {
            0 => PLATEAUS.iter().copied().find(|size| *size < tried).unwrap_or(least),
            told => told,
        };
        let size = told.max(least);
        if size >= tried || self.outer(rloc, now).is_some_and(|known| known <= size) {
            return false;
        }
        if self.known.len() >= MAX_KNOWN && !self.known.contains_key(&rloc) {
            self.known.retain(|_, (_, until)| now < *until);
            if self.known.len() >= MAX_KNOWN {
                return false;
            }
        }
        self.known.insert(rloc, (size, now + LIFETIME));
        true
    }
}

/// The largest inner packet that is sent where `fits` is known to fit. Nobody who sends IPv6 goes below 1280 octets for
/// being told so, and who says so may be a stranger: such packets are sent as they are. TCP is cut.
pub fn sending_limit(fits: usize, inner: &Inner) -> usize {
    if inner.is_v6() && inner.protocol != TCP { fits.max(IPV6_MINIMUM) } else { fits }
}

/// What every host of the family takes.
fn least(rloc: IpAddr) -> usize {
    if rloc.is_ipv6() { 1280 } else { 576 }
}

/// RFC 1191 section 7.
const PLATEAUS: [usize; 3] = [1492, 1006, 576];
/// RFC 1191 section 6.3: after that a larger one may be possible.
const LIFETIME: Duration = seconds(600);
const MAX_KNOWN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::{tcp, udp};

    const HEADER: [u8; LISP_HEADER] = [8, 0, 0, 0, 0, 0, 7, 0];

    fn rloc() -> IpAddr {
        "192.0.2.7".parse().unwrap()
    }

    fn quoted(length: usize) -> Quoted {
        Quoted { destination: "10.9.0.7".parse().unwrap(), length }
    }

    fn at(s: u64) -> Time {
        Time::from_millis(s * 1000)
    }

    #[test]
    fn what_a_router_says_holds_for_ten_minutes() {
        let mut mtus = PlainMtus::default();
        assert!(mtus.learn(rloc(), 1300, quoted(1464), at(1)));
        assert_eq!(mtus.outer(rloc(), at(600)), Some(1300));
        assert!(mtus.learn(rloc(), 1280, quoted(1264), at(2)));
        assert_eq!(mtus.outer(rloc(), at(600)), Some(1280));
        assert_eq!(mtus.outer(rloc(), at(602)), None);
    }

    #[test]
    fn a_router_that_does_not_say_leads_to_the_next_plateau() {
        let mut mtus = PlainMtus::default();
        let v6 = "2001:db8::7".parse().unwrap();
        assert!(mtus.learn(rloc(), 0, quoted(1464), at(1)));
        assert_eq!(mtus.outer(rloc(), at(1)), Some(1492));
        assert!(mtus.learn(rloc(), 0, quoted(1456), at(1)));
        assert_eq!(mtus.outer(rloc(), at(1)), Some(1006));
        assert!(mtus.learn(v6, 0, quoted(1400), at(1)));
        assert_eq!(mtus.outer(v6, at(1)), Some(1280));
    }

    #[test]
    fn what_nobody_sends_smaller_is_sent_whatever_a_router_says() {
        let limit = |fits, packet: &[u8]| sending_limit(fits, &Inner::parse(packet).unwrap());
        assert_eq!(limit(540, &udp(true, &[])), 1280);
        assert_eq!(limit(1444, &udp(true, &[])), 1444);
        assert_eq!(limit(540, &tcp(true, 1, 0, &[], &[])), 540);
        assert_eq!(limit(540, &udp(false, &[])), 540);
    }

    #[test]
    fn only_quotes_of_plain_packets_are_read() {
        for v6 in [false, true] {
            let packet = udp(v6, &[1; 1000]);
            let sent = [HEADER.as_slice(), &packet].concat();
            let quoted = Quoted::parse(&sent[..60], HEADER).unwrap();
            assert_eq!(quoted.length, packet.len());
            assert_eq!(quoted.destination, Inner::parse(&packet).unwrap().destination);
            assert_eq!(Quoted::parse(&sent[..60], [0; LISP_HEADER]), None);
            assert_eq!(Quoted::parse(&sent[..27], HEADER), None);
            assert_eq!(Quoted::parse(&sent[..8], HEADER), None);
            assert_eq!(Quoted::parse(&[], HEADER), None);
        }
    }

    // Attack: ICMP "packet too big" about plain packets: below what every host takes, or about a packet that fits | 3 |
    // at least 576 octets (IPv6: 1280) are used; what is no smaller than the packet is ignored
    #[test]
    fn attack_forged_icmp_about_plain_packets() {
        let mut mtus = PlainMtus::default();
        assert!(!mtus.learn(rloc(), 1300, quoted(1264), at(1)));
        assert!(!mtus.learn(rloc(), 68, quoted(100), at(1)));
        assert!(mtus.learn(rloc(), 68, quoted(1464), at(1)));
        assert_eq!(mtus.outer(rloc(), at(1)), Some(576));
    }

    // Attack: ICMP "packet too big" about plain packets to very many RLOCs | 5000 | 1,024 are remembered
    #[test]
    fn attack_icmp_about_very_many_rlocs() {
        let mut mtus = PlainMtus::default();
        for n in 0..5000u32 {
            mtus.learn(IpAddr::from((0xc000_0200 + n).to_be_bytes()), 1300, quoted(1464), at(1));
        }
        assert_eq!(mtus.known.len(), MAX_KNOWN);
        assert!(mtus.learn(rloc(), 1300, quoted(1464), at(700)));
    }
}
