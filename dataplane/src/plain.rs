//! Plain RFC 9300 encapsulation: who may be spoken to without a tunnel, and the header of such packets.
//!
//! Nothing in a plain packet is proven and nothing is hidden, so there is none unless the operator names the RLOCs and,
//! where they are not in a mapping, the EIDs behind them. An EID whose owner has a tunnel key is never reached, and
//! never believed, this way: `Forwarding::check_source` sees to that.
//!
//! ```text
//! +---------------+-----------------------------------------------+
//! |N|L|E|V|I|R|KK0|          nonce or map-versions (24)           |
//! +---------------+-------------------------------+---------------+
//! |  instance ID (24) and LSBs (8) if I, else LSBs (32)           |
//! +---------------------------------------------------------------+
//! ```
//! N, L, E and V are accepted and not acted on, as section 4.1 demands between networks that do not trust each other:
//! reachability and changes come from the control plane. What is sent has I at most.

use std::net::{IpAddr, SocketAddr};

use crate::packet::{Inner, TCP, UDP, be16};
use crate::peer::Locator;
use crate::prefix::Prefix;
use crate::wire::LISP_HEADER;

#[derive(Debug, Default, PartialEq)]
pub struct PlainRules {
    /// Of the packets to and from plain peers.
    pub instance: u32,
    /// Packets pass between plain peers and tunnels.
    pub gateway: bool,
    pub sites: Vec<PlainSite>,
}

#[derive(Debug, PartialEq)]
pub struct PlainSite {
    pub rlocs: Vec<Prefix>,
    /// What may come from these RLOCs whatever the mapping system says of it, unless that has a tunnel key for it.
    pub eids: Vec<Prefix>,
}

impl PlainRules {
    pub fn is_enabled(&self) -> bool {
        !self.sites.is_empty()
    }

    #[inline]
    pub fn allows(&self, rloc: IpAddr) -> bool {
        self.sites.iter().any(|site| site.has_rloc(rloc))
    }

    /// The operator says that this EID is behind this RLOC.
    pub fn expects(&self, eid: IpAddr, rloc: IpAddr) -> bool {
        self.sites.iter().any(|site| site.has_rloc(rloc) && site.eids.iter().any(|prefix| prefix.contains(eid)))
    }

    pub fn eids(&self) -> impl Iterator<Item = &Prefix> {
        self.sites.iter().flat_map(|site| &site.eids)
    }

    /// Where a packet of a flow goes: of the best locators that may be used, by their weights.
    #[inline]
    pub fn choose(&self, locators: &[Locator], flow: u32) -> Option<SocketAddr> {
        let usable = || locators.iter().filter(|l| l.priority < NEVER_USE && self.allows(l.address.ip()));
        let best = usable().map(|l| l.priority).min()?;
        let equal = || usable().filter(move |l| l.priority == best);
        let total: u32 = equal().map(|l| u32::from(l.weight)).sum();
        if total == 0 {
            let count = equal().count();
            return equal().nth(flow as usize % count).map(|l| l.address);
        }
        let mut share = flow % total;
        for locator in equal() {
            match share.checked_sub(u32::from(locator.weight)) {
                Some(left) => share = left,
                None => return Some(locator.address),
            }
        }
        None
    }

    /// Whether it is a plain packet of the instance that is served.
    #[inline]
    pub fn serves(&self, header: PlainHeader) -> bool {
        header.instance.unwrap_or(0) == self.instance
    }

    #[inline]
    pub fn header(&self) -> [u8; LISP_HEADER] {
        let [_, a, b, c] = self.instance.to_be_bytes();
        let flags = if self.instance == 0 { 0 } else { INSTANCE };
        [flags, 0, 0, 0, a, b, c, 0]
    }
}

impl PlainSite {
    fn has_rloc(&self, rloc: IpAddr) -> bool {
        self.rlocs.iter().any(|prefix| prefix.contains(rloc))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlainHeader {
    pub instance: Option<u32>,
}

impl PlainHeader {
    /// Of a datagram that `Header::parse` found to be plain.
    #[inline]
    pub fn parse(datagram: &[u8]) -> Option<PlainHeader> {
        let head = datagram.first_chunk::<LISP_HEADER>()?;
        let instance = u32::from_be_bytes([0, head[4], head[5], head[6]]);
        Some(PlainHeader { instance: (head[0] & INSTANCE != 0).then_some(instance) })
    }
}

/// Of addresses, protocol and ports (RFC 9300 section 5.3): alike for all packets of a flow.
#[inline]
pub fn flow_hash(packet: &[u8], inner: &Inner) -> u32 {
    let addresses = if inner.is_v6() { &packet[8..40] } else { &packet[12..20] };
    let mut hash = addresses.chunks_exact(4).fold(u32::from(inner.protocol), |hash, word| {
        let word = u32::from_be_bytes([word[0], word[1], word[2], word[3]]);
        (hash ^ word).wrapping_mul(MULTIPLIER).rotate_left(15)
    });
    let has_ports = matches!(inner.protocol, TCP | UDP | SCTP) && !inner.fragment && inner.total >= inner.header + 4;
    if has_ports {
        let ports = u32::from(be16(packet, inner.header)) << 16 | u32::from(be16(packet, inner.header + 2));
        hash = (hash ^ ports).wrapping_mul(MULTIPLIER).rotate_left(15);
    }
    hash ^ (hash >> 16)
}

/// The largest inner packet beside outer IP, UDP and LISP headers.
pub fn inner_limit(outer: usize, rloc: IpAddr) -> usize {
    outer - LISP_HEADER - UDP_HEADER - if rloc.is_ipv6() { 40 } else { 20 }
}

/// Of sites and of prefixes in all of them.
pub const MAX_SITES: usize = 256;
pub const MAX_SITE_PREFIXES: usize = 4096;
/// RFC 9300 section 7.1 recommends it as the largest outer packet.
pub const OUTER_MTU: usize = 1500;
const INSTANCE: u8 = 0x08;
const NEVER_USE: u8 = 255;
const UDP_HEADER: usize = 8;
const SCTP: u8 = 132;
const MULTIPLIER: u32 = 0x9e37_79b1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::{tcp, udp};

    fn rules() -> PlainRules {
        let prefix = |text: &str| text.parse().unwrap();
        let site = PlainSite { rlocs: vec![prefix("192.0.2.0/24")], eids: vec![prefix("10.9.0.0/16")] };
        PlainRules { instance: 7, gateway: false, sites: vec![site] }
    }

    fn locator(address: &str, priority: u8, weight: u8) -> Locator {
        Locator { address: address.parse().unwrap(), priority, weight }
    }

    #[test]
    fn headers_of_deployed_peers_are_understood() {
        for (head, instance) in [
            ("0000000000000000", None),
            // N and E with a nonce, L with status bits.
            ("e012345600000001", None),
            // V with map-versions and I.
            ("1800100100000701", Some(7)),
            ("0c00000000000700", Some(7)),
        ] {
            let octets: Vec<u8> = (0..8).map(|i| u8::from_str_radix(&head[2 * i..2 * i + 2], 16).unwrap()).collect();
            assert_eq!(PlainHeader::parse(&octets), Some(PlainHeader { instance }), "{head}");
            assert_eq!(PlainHeader::parse(&octets[..7]), None);
        }
        let rules = rules();
        assert!(rules.serves(PlainHeader { instance: Some(7) }) && !rules.serves(PlainHeader { instance: None }));
        assert_eq!(PlainHeader::parse(&rules.header()), Some(PlainHeader { instance: Some(7) }));
        assert!(PlainRules::default().serves(PlainHeader { instance: None }));
        assert_eq!(PlainRules::default().header(), [0; 8]);
    }

    #[test]
    fn the_best_locators_that_are_allowed_share_the_flows() {
        let rules = rules();
        let set = [
            locator("198.51.100.1:4341", 0, 100),
            locator("192.0.2.1:4341", 1, 25),
            locator("192.0.2.2:4341", 1, 75),
            locator("192.0.2.3:4341", 2, 100),
            locator("192.0.2.4:4341", 255, 100),
        ];
        let mut counts = [0; 256];
        for flow in 0..1000 {
            let Some(SocketAddr::V4(chosen)) = rules.choose(&set, flow) else { panic!() };
            counts[usize::from(chosen.ip().octets()[3])] += 1;
        }
        assert_eq!((counts[1], counts[2]), (250, 750));
        assert_eq!(rules.choose(&set[..1], 5), None, "not configured");
        assert_eq!(rules.choose(&set[4..], 5), None, "not to be used");
        let even = [locator("192.0.2.1:4341", 1, 0), locator("192.0.2.2:4341", 1, 0)];
        assert_ne!(rules.choose(&even, 0), rules.choose(&even, 1));
    }

    #[test]
    fn a_flow_has_one_hash() {
        for v6 in [false, true] {
            let hash = |packet: &[u8]| flow_hash(packet, &Inner::parse(packet).unwrap());
            assert_eq!(hash(&tcp(v6, 1, 0, &[], b"a")), hash(&tcp(v6, 900, 0x10, &[], b"other")));
            assert_ne!(hash(&tcp(v6, 1, 0, &[], b"a")), hash(&udp(v6, b"a")));
        }
    }
}
