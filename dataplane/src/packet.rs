//! The inner IP packet: parsing, checksums (RFC 1071) and the changes made to headers on the way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

/// What forwarding looks at. Lengths have been checked against the bytes present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Octets of the IPv4 header with options, or 40.
    pub header: usize,
    /// Protocol, or the first next-header of IPv6.
    pub protocol: u8,
    pub total: usize,
    pub tos: u8,
    pub ttl: u8,
    /// Not the whole of a datagram (IPv4; in IPv6 the protocol says it).
    pub fragment: bool,
    pub dont_fragment: bool,
}

impl Inner {
    #[inline]
    pub fn parse(packet: &[u8]) -> Option<Inner> {
        match packet.first()? >> 4 {
            4 => {
                let head: &[u8; 20] = packet.first_chunk()?;
                let header = usize::from(head[0] & 0xf) * 4;
                let total = usize::from(be16(head, 2));
                if header < 20 || total < header || total > packet.len() {
                    return None;
                }
                Some(Inner {
                    source: IpAddr::V4(Ipv4Addr::new(head[12], head[13], head[14], head[15])),
                    destination: IpAddr::V4(Ipv4Addr::new(head[16], head[17], head[18], head[19])),
                    header,
                    protocol: head[9],
                    total,
                    tos: head[1],
                    ttl: head[8],
                    fragment: be16(head, 6) & 0x3fff != 0,
                    dont_fragment: head[6] & 0x40 != 0,
                })
            }
            6 => {
                let head: &[u8; 40] = packet.first_chunk()?;
                let total = 40 + usize::from(be16(head, 4));
                if total > packet.len() {
                    return None;
                }
                let address = |at: usize| {
                    let mut octets = [0; 16];
                    octets.copy_from_slice(&head[at..at + 16]);
                    IpAddr::V6(Ipv6Addr::from(octets))
                };
                Some(Inner {
                    source: address(8),
                    destination: address(24),
                    header: 40,
                    protocol: head[6],
                    total,
                    tos: (head[0] << 4) | (head[1] >> 4),
                    ttl: head[7],
                    fragment: false,
                    dont_fragment: true,
                })
            }
            _ => None,
        }
    }

    pub fn is_v6(&self) -> bool {
        self.destination.is_ipv6()
    }

    /// Offset of the checksum field in the L4 header when it follows the IP header directly.
    #[inline]
    pub fn checksum_offset(&self) -> Option<usize> {
        match self.protocol {
            _ if self.fragment => None,
            TCP if self.total >= self.header + 20 => Some(16),
            UDP if self.total >= self.header + 8 => Some(6),
            _ => None,
        }
    }
}

#[inline]
pub fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
pub fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
pub fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// One's complement sum, folded, not inverted.
pub fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut total = u64::from(start);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        let word = u64::from_be_bytes(word);
        total += (word >> 32) + (word & 0xffff_ffff);
    }
    let mut rest = chunks.remainder().chunks_exact(2);
    for pair in &mut rest {
        total += u64::from(be16(pair, 0));
    }
    if let [last] = rest.remainder() {
        total += u64::from(*last) << 8;
    }
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    total as u16
}

/// Sum of the pseudo-header for an L4 part of `length` octets.
#[inline]
pub fn pseudo_sum(packet: &[u8], v6: bool, protocol: u8, length: usize) -> u16 {
    let addresses = if v6 { &packet[8..40] } else { &packet[12..20] };
    sum(addresses, u32::from(protocol) + length as u32)
}

pub fn write_ipv4_checksum(packet: &mut [u8], header: usize) {
    put16(packet, 10, 0);
    let checksum = !sum(&packet[..header], 0);
    put16(packet, 10, checksum);
}

/// Completes an L4 checksum whose field holds the pseudo-header sum.
pub fn finish_checksum(packet: &mut [u8], start: usize, offset: usize, udp: bool) -> Option<()> {
    if start + offset + 2 > packet.len() {
        return None;
    }
    let checksum = !sum(&packet[start..], 0);
    put16(packet, start + offset, if udp && checksum == 0 { 0xffff } else { checksum });
    Some(())
}

/// Whether a complete TCP or UDP checksum is right. A UDP checksum of zero (none) is not.
pub fn checksum_ok(packet: &[u8], inner: &Inner) -> bool {
    let l4 = &packet[inner.header..inner.total];
    if inner.protocol == UDP && (l4.len() < 8 || be16(l4, 6) == 0) {
        return false;
    }
    let pseudo = pseudo_sum(packet, inner.is_v6(), inner.protocol, l4.len());
    sum(l4, u32::from(pseudo)) == 0xffff
}

/// Whether it is a SYN of TCP, with or without ACK.
#[inline]
pub fn opens_connection(packet: &[u8], inner: &Inner) -> bool {
    let l4 = inner.header;
    inner.protocol == TCP && !inner.fragment && inner.total >= l4 + 20 && packet[l4 + 13] & SYN != 0
}

/// Lowers the MSS option of a SYN to what fits `limit` octets of inner packet.
pub fn clamp_mss(packet: &mut [u8], inner: &Inner, limit: usize, checksum_partial: bool) {
    let base = if inner.is_v6() { 60 } else { 40 };
    let l4 = inner.header;
    if !opens_connection(packet, inner) {
        return;
    }
    let end = (l4 + usize::from(packet[l4 + 12] >> 4) * 4).min(inner.total);
    let Ok(allowed) = u16::try_from(limit.saturating_sub(base)) else { return };
    let mut at = l4 + 20;
    while at + 1 < end {
        match (packet[at], usize::from(packet[at + 1])) {
            (0, _) => return,
            (1, _) => at += 1,
            (2, 4) if at + 4 <= end => {
                let mss = be16(packet, at + 2);
                if mss > allowed {
                    put16(packet, at + 2, allowed);
                    if !checksum_partial {
                        // The option may start at an odd offset, where its octets count swapped.
                        let (old, new) = if (at - l4).is_multiple_of(2) {
                            (mss, allowed)
                        } else {
                            (mss.swap_bytes(), allowed.swap_bytes())
                        };
                        let checksum = update_checksum(be16(packet, l4 + 16), old, new);
                        put16(packet, l4 + 16, checksum);
                    }
                }
                return;
            }
            (_, length) if length >= 2 => at += length,
            _ => return,
        }
    }
}

/// RFC 1624: the checksum after a 16-bit word changed.
pub fn update_checksum(checksum: u16, old: u16, new: u16) -> u16 {
    let mut total = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    !(total as u16)
}

const SYN: u8 = 0x02;

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A TCP packet with a complete checksum.
    pub fn tcp(v6: bool, seq: u32, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut l4 = vec![0; 20];
        put16(&mut l4, 0, 4000);
        put16(&mut l4, 2, 80);
        l4[4..8].copy_from_slice(&seq.to_be_bytes());
        l4[8..12].copy_from_slice(&77u32.to_be_bytes());
        l4[12] = (((20 + options.len()) / 4) << 4) as u8;
        l4[13] = flags;
        put16(&mut l4, 14, 500);
        l4.extend_from_slice(options);
        l4.extend_from_slice(payload);
        ip(v6, TCP, &l4)
    }

    pub fn udp(v6: bool, payload: &[u8]) -> Vec<u8> {
        let mut l4 = vec![0; 8];
        put16(&mut l4, 0, 4000);
        put16(&mut l4, 2, 53);
        put16(&mut l4, 4, 8 + payload.len() as u16);
        l4.extend_from_slice(payload);
        ip(v6, UDP, &l4)
    }

    fn ip(v6: bool, protocol: u8, l4: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; if v6 { 40 } else { 20 }];
        let header = packet.len();
        packet.extend_from_slice(l4);
        let total = packet.len();
        if v6 {
            packet[0] = 0x60;
            put16(&mut packet, 4, l4.len() as u16);
            (packet[6], packet[7]) = (protocol, 64);
            packet[8] = 0xfd;
            packet[23] = 1;
            packet[24] = 0xfd;
            packet[39] = 2;
        } else {
            packet[0] = 0x45;
            put16(&mut packet, 2, total as u16);
            put16(&mut packet, 4, 100);
            packet[6] = 0x40;
            (packet[8], packet[9]) = (64, protocol);
            packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
            packet[16..20].copy_from_slice(&[10, 0, 0, 2]);
            write_ipv4_checksum(&mut packet, 20);
        }
        let offset = if protocol == TCP { 16 } else { 6 };
        let pseudo = pseudo_sum(&packet, v6, protocol, l4.len());
        put16(&mut packet, header + offset, pseudo);
        finish_checksum(&mut packet, header, offset, protocol == UDP).unwrap();
        packet
    }

    #[test]
    fn parse_checks_lengths() {
        for v6 in [false, true] {
            let packet = udp(v6, b"hello");
            let inner = Inner::parse(&packet).unwrap();
            assert_eq!((inner.total, inner.protocol), (packet.len(), UDP));
            assert!(checksum_ok(&packet, &inner));
            for length in 0..packet.len() {
                assert_eq!(Inner::parse(&packet[..length]), None);
            }
        }
        assert_eq!(Inner::parse(&[0x41; 60]), None);
        assert_eq!(Inner::parse(&[0x00; 60]), None);
    }

    #[test]
    fn mss_is_lowered_and_never_raised() {
        for v6 in [false, true] {
            for options in [&[2, 4, 5, 0xb4][..], &[1, 2, 4, 5, 0xb4, 1, 1, 1][..]] {
                let mut packet = tcp(v6, 1, SYN, options, b"");
                let inner = Inner::parse(&packet).unwrap();
                clamp_mss(&mut packet, &inner, 1220, false);
                let at = inner.header + 20 + options.iter().position(|o| *o == 2).unwrap() + 2;
                assert_eq!(be16(&packet, at), if v6 { 1160 } else { 1180 });
                assert!(checksum_ok(&packet, &inner));
                let before = packet.clone();
                clamp_mss(&mut packet, &inner, 1500, false);
                assert_eq!(packet, before);
            }
        }
    }

    // Attack: TCP options of garbage | 256 | read in bounds; nothing panics
    #[test]
    fn attack_garbage_in_tcp_options() {
        for seed in 0..=255u8 {
            let options: Vec<u8> = (0..40u8).map(|i| seed.wrapping_mul(31).wrapping_add(i.wrapping_mul(7))).collect();
            let mut packet = tcp(false, 1, SYN, &options, b"");
            let inner = Inner::parse(&packet).unwrap();
            clamp_mss(&mut packet, &inner, 600, false);
        }
    }
}
