//! What the inner and the outer IP header take from each other: TTL, DSCP and ECN (RFC 9300 section 5.3).
//!
//! - ECN goes both ways as RFC 6040 says, in normal mode.
//! - DSCP is copied to the outer header. It is copied back only on request: nothing protects the outer header, and
//!   networks between sites clear it (RFC 2983 section 5.1, RFC 4301 section 5.1.2.1).
//! - TTL is copied to the outer header, and the inner one becomes the smaller of both, so that a packet lives no
//!   longer through tunnels than without. A packet that is sent on to another host has one less: loops end.

use crate::packet::{Inner, be16, put16, update_checksum};

/// The fields of an outer header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outer {
    /// DSCP and ECN.
    pub tos: u8,
    pub ttl: u8,
}

impl Outer {
    /// Of the tunnel's own packets.
    pub const OWN: Outer = Outer { tos: 0, ttl: DEFAULT_TTL };
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeaderRules {
    pub dscp: Dscp,
    /// Instead of the inner packet's, which is then left alone at the other end.
    pub fixed_ttl: Option<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dscp {
    /// Outer DSCP 0.
    None,
    Out,
    Both,
}

impl Default for HeaderRules {
    fn default() -> HeaderRules {
        HeaderRules { dscp: Dscp::Out, fixed_ttl: None }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decapsulated {
    Unchanged,
    /// Congestion experienced on the way is now said in the inner packet.
    Marked,
    /// Congestion, and the inner packet cannot say so.
    Drop,
}

impl HeaderRules {
    #[inline]
    pub fn encapsulate(self, inner: &Inner) -> Outer {
        let tos = if self.dscp == Dscp::None { inner.tos & ECN } else { inner.tos };
        Outer { tos, ttl: self.fixed_ttl.unwrap_or(inner.ttl).max(1) }
    }

    /// Changes the inner packet as the outer header asks.
    #[inline]
    pub fn decapsulate(self, packet: &mut [u8], inner: &mut Inner, outer: Outer) -> Decapsulated {
        let Some(ecn) = decapsulated_ecn(inner.tos & ECN, outer.tos & ECN) else { return Decapsulated::Drop };
        let dscp = if self.dscp == Dscp::Both { outer.tos } else { inner.tos } & !ECN;
        let marked = ecn == CE && inner.tos & ECN != CE;
        set_tos(packet, inner, dscp | ecn);
        if self.fixed_ttl.is_none() && outer.ttl < inner.ttl {
            set_ttl(packet, inner, outer.ttl);
        }
        if marked { Decapsulated::Marked } else { Decapsulated::Unchanged }
    }
}

/// One hop further. False when the packet's life ends here.
pub fn age(packet: &mut [u8], inner: &mut Inner) -> bool {
    if inner.ttl <= 1 {
        return false;
    }
    let ttl = inner.ttl - 1;
    set_ttl(packet, inner, ttl);
    true
}

/// RFC 6040 figure 4. None is a drop.
#[inline]
fn decapsulated_ecn(inner: u8, outer: u8) -> Option<u8> {
    match (inner, outer) {
        (NOT_ECT, CE) => None,
        (NOT_ECT | CE, _) => Some(inner),
        (_, CE) | (ECT_0, ECT_1) => Some(outer),
        _ => Some(inner),
    }
}

#[inline]
fn set_tos(packet: &mut [u8], inner: &mut Inner, tos: u8) {
    if inner.tos == tos {
        return;
    }
    inner.tos = tos;
    if inner.is_v6() {
        packet[0] = (packet[0] & 0xf0) | (tos >> 4);
        packet[1] = (packet[1] & 0x0f) | (tos << 4);
    } else {
        let before = be16(packet, 0);
        packet[1] = tos;
        correct_checksum(packet, before, be16(packet, 0));
    }
}

#[inline]
fn set_ttl(packet: &mut [u8], inner: &mut Inner, ttl: u8) {
    inner.ttl = ttl;
    if inner.is_v6() {
        packet[7] = ttl;
    } else {
        let before = be16(packet, 8);
        packet[8] = ttl;
        correct_checksum(packet, before, be16(packet, 8));
    }
}

fn correct_checksum(packet: &mut [u8], before: u16, after: u16) {
    let checksum = update_checksum(be16(packet, 10), before, after);
    put16(packet, 10, checksum);
}

/// What both sockets send without being told otherwise.
pub const DEFAULT_TTL: u8 = 64;
const ECN: u8 = 3;
const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::sum;
    use crate::packet::tests::udp;

    fn packet(v6: bool, tos: u8, ttl: u8) -> (Vec<u8>, Inner) {
        let mut packet = udp(v6, b"x");
        let mut inner = Inner::parse(&packet).unwrap();
        set_tos(&mut packet, &mut inner, tos);
        set_ttl(&mut packet, &mut inner, ttl);
        assert_sound(&packet, &inner);
        (packet, inner)
    }

    fn assert_sound(packet: &[u8], inner: &Inner) {
        assert_eq!(Inner::parse(packet), Some(*inner));
        if !inner.is_v6() {
            assert_eq!(sum(&packet[..20], 0), 0xffff);
        }
    }

    #[test]
    fn ecn_leaves_the_tunnel_as_rfc_6040_says() {
        // Rows: inner Not-ECT, ECT(1), ECT(0), CE; columns: the outer in the same order.
        let table = [
            [Some(0), Some(0), Some(0), None],
            [Some(1), Some(1), Some(1), Some(3)],
            [Some(2), Some(1), Some(2), Some(3)],
            [Some(3), Some(3), Some(3), Some(3)],
        ];
        for v6 in [false, true] {
            for (from, row) in table.iter().enumerate() {
                for (outer, expected) in row.iter().enumerate() {
                    let dscp = 46 << 2;
                    let (mut packet, mut inner) = packet(v6, dscp | from as u8, 64);
                    let tos = outer as u8;
                    let result = HeaderRules::default().decapsulate(&mut packet, &mut inner, Outer { tos, ttl: 64 });
                    match expected {
                        None => assert_eq!(result, Decapsulated::Drop),
                        Some(ecn) => {
                            assert_eq!(inner.tos, dscp | ecn, "inner {from}, outer {outer}");
                            assert_eq!(result == Decapsulated::Marked, from != 3 && *ecn == 3);
                            assert_sound(&packet, &inner);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn ecn_enters_the_tunnel_as_it_is() {
        for v6 in [false, true] {
            for tos in 0..=255 {
                let (_, inner) = packet(v6, tos, 64);
                let of = |dscp| HeaderRules { dscp, fixed_ttl: None }.encapsulate(&inner).tos;
                assert_eq!((of(Dscp::None), of(Dscp::Out), of(Dscp::Both)), (tos & 3, tos, tos));
            }
        }
    }

    #[test]
    fn dscp_comes_back_only_on_request() {
        for (dscp, expected) in [(Dscp::None, 46 << 2), (Dscp::Out, 46 << 2), (Dscp::Both, 8 << 2)] {
            for v6 in [false, true] {
                let (mut packet, mut inner) = packet(v6, 46 << 2, 64);
                let rules = HeaderRules { dscp, ..HeaderRules::default() };
                rules.decapsulate(&mut packet, &mut inner, Outer { tos: 8 << 2, ttl: 64 });
                assert_eq!(inner.tos, expected);
                assert_sound(&packet, &inner);
            }
        }
    }

    #[test]
    fn ttl_is_copied_out_and_the_smaller_one_stays() {
        for v6 in [false, true] {
            for (inner_ttl, outer_ttl, expected) in [(64, 60, 60), (5, 60, 5), (255, 1, 1)] {
                let (mut packet, mut inner) = packet(v6, 0, inner_ttl);
                assert_eq!(HeaderRules::default().encapsulate(&inner).ttl, inner_ttl);
                HeaderRules::default().decapsulate(&mut packet, &mut inner, Outer { tos: 0, ttl: outer_ttl });
                assert_eq!(inner.ttl, expected);
                assert_sound(&packet, &inner);
            }
            let fixed = HeaderRules { fixed_ttl: Some(100), ..HeaderRules::default() };
            let (mut packet, mut inner) = packet(v6, 0, 255);
            assert_eq!(fixed.encapsulate(&inner).ttl, 100);
            fixed.decapsulate(&mut packet, &mut inner, Outer { tos: 0, ttl: 90 });
            assert_eq!(inner.ttl, 255);
        }
    }

    #[test]
    fn a_packet_that_is_sent_on_ages() {
        for v6 in [false, true] {
            let (mut packet, mut inner) = packet(v6, 0, 3);
            assert!(age(&mut packet, &mut inner) && age(&mut packet, &mut inner));
            assert_eq!(inner.ttl, 1);
            assert_sound(&packet, &inner);
            assert!(!age(&mut packet, &mut inner));
        }
    }
}
