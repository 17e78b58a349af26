//! From one packet of the TUN, which may be a superpacket of up to 64 KiB, to packets that fit the tunnel.
//!
//! The header of segment i is written in place in front of its payload, over the tail of payload i-1, which has
//! been encrypted into the send buffer by then: no payload is copied. L4 checksums stay partial (the pseudo-header
//! sum) where the receiver can finish them; the tunnel's own tag protects the bytes on the wire.

use std::ops::Range;

use crate::packet::{
    Inner, TCP, UDP, be16, be32, checksum_ok, finish_checksum, pseudo_sum, put16, sum, write_ipv4_checksum,
};
use crate::vnet::{Gso, VnetHeader};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentError {
    Malformed,
    /// Does not fit and must not be cut here.
    TooBig,
}

pub struct Segments {
    inner: Inner,
    /// Start of the L4 header.
    l4: usize,
    /// All headers together.
    header: usize,
    /// Payload per segment; 0 when the packet goes as it is.
    size: usize,
    next: usize,
    partial: bool,
    template: [u8; MAX_HEADER],
    /// Of the IPv4 header without what differs between segments, and of the pseudo header without the length.
    header_sum: u16,
    pseudo_sum: u16,
}

impl Segments {
    /// `packet` is `inner.total` long. `limit` is the largest packet that fits the tunnel.
    pub fn new(vnet: &VnetHeader, inner: Inner, packet: &mut [u8], limit: usize) -> Result<Segments, SegmentError> {
        let direct = inner.checksum_offset();
        if vnet.gso == Gso::None {
            if packet.len() > limit {
                return Segments::cut_tcp(vnet, inner, packet, limit);
            }
            let partial = match direct {
                _ if !vnet.needs_csum => false,
                Some(offset)
                    if usize::from(vnet.csum_start) == inner.header && usize::from(vnet.csum_offset) == offset =>
                {
                    true
                }
                _ => {
                    let (start, offset) = (usize::from(vnet.csum_start), usize::from(vnet.csum_offset));
                    finish_checksum(packet, start, offset, offset == 6).ok_or(SegmentError::Malformed)?;
                    false
                }
            };
            return Ok(Segments::whole(inner, partial));
        }
        let tcp = match vnet.gso {
            Gso::Tcp4 if !inner.is_v6() => true,
            Gso::Tcp6 if inner.is_v6() => true,
            Gso::Udp => false,
            _ => return Err(SegmentError::Malformed),
        };
        // hdr_len is not to be trusted: for forwarded packets it covers the whole first segment.
        let l4 = usize::from(vnet.csum_start);
        let header = l4_end(packet, l4, tcp).filter(|_| l4 >= inner.header).ok_or(SegmentError::Malformed)?;
        let size = usize::from(vnet.gso_size);
        if size == 0 || packet.len() < header {
            return Err(SegmentError::Malformed);
        }
        let room = limit.checked_sub(header).filter(|room| *room > 0).ok_or(SegmentError::TooBig)?;
        if size > room && !tcp && packet.len() > limit {
            return Err(SegmentError::TooBig);
        }
        let partial = direct.is_some() && l4 == inner.header && (inner.protocol == TCP) == tcp;
        Ok(Segments::cut(inner, packet, l4, header, size.min(room), partial))
    }

    /// How many segments follow, and the size of all but the last.
    pub fn shape(&self, packet: &[u8]) -> (usize, usize) {
        if self.size == 0 {
            return (1, packet.len());
        }
        ((packet.len() - self.header).div_ceil(self.size).max(1), self.header + self.size)
    }

    /// The next segment's place in `packet` and whether its L4 checksum is partial.
    #[inline]
    pub fn next(&mut self, packet: &mut [u8]) -> Option<(Range<usize>, bool)> {
        if self.size == 0 {
            if self.next > 0 {
                return None;
            }
            self.next = 1;
            return Some((0..packet.len(), self.partial));
        }
        let start = self.next * self.size;
        if self.header + start >= packet.len() && self.next > 0 {
            return None;
        }
        let end = (start + self.header + self.size).min(packet.len());
        let last = end == packet.len();
        let segment = &mut packet[start..end];
        segment[..self.header].copy_from_slice(&self.template[..self.header]);
        self.write_header(segment, last);
        self.next += 1;
        Some((start..end, self.partial))
    }

    fn whole(inner: Inner, partial: bool) -> Segments {
        Segments {
            inner,
            l4: 0,
            header: 0,
            size: 0,
            next: 0,
            partial,
            template: [0; MAX_HEADER],
            header_sum: 0,
            pseudo_sum: 0,
        }
    }

    fn cut(inner: Inner, packet: &[u8], l4: usize, header: usize, size: usize, partial: bool) -> Segments {
        let mut template = [0; MAX_HEADER];
        template[..header].copy_from_slice(&packet[..header]);
        let mut header_sum = 0;
        if !inner.is_v6() {
            let mut alike = template;
            put16(&mut alike, 2, 0);
            put16(&mut alike, 4, 0);
            put16(&mut alike, 10, 0);
            header_sum = sum(&alike[..inner.header], 0);
        }
        let protocol = if header > l4 + 8 { TCP } else { UDP };
        let pseudo_sum = pseudo_sum(packet, inner.is_v6(), protocol, 0);
        Segments { inner, l4, header, size, next: 0, partial, template, header_sum, pseudo_sum }
    }

    /// A single TCP packet that is too long is cut like a superpacket: the peer's path takes less than the TUN.
    fn cut_tcp(vnet: &VnetHeader, inner: Inner, packet: &mut [u8], limit: usize) -> Result<Segments, SegmentError> {
        if inner.protocol != TCP || inner.fragment {
            return Err(SegmentError::TooBig);
        }
        let header = l4_end(packet, inner.header, true).ok_or(SegmentError::Malformed)?;
        let room = limit.checked_sub(header).filter(|room| *room > 0).ok_or(SegmentError::TooBig)?;
        // Cutting makes new checksums, which must not turn a damaged packet into a sound one.
        if !vnet.needs_csum && !checksum_ok(packet, &inner) {
            return Err(SegmentError::Malformed);
        }
        Ok(Segments::cut(inner, packet, inner.header, header, room, true))
    }

    #[inline]
    fn write_header(&self, segment: &mut [u8], last: bool) {
        let length = segment.len();
        let l4_length = length - self.l4;
        let tcp = self.header > self.l4 + 8;
        if self.inner.is_v6() {
            put16(segment, 4, (length - 40) as u16);
        } else {
            put16(segment, 2, length as u16);
            let id = be16(segment, 4).wrapping_add(self.next as u16);
            put16(segment, 4, id);
            put16(segment, 10, !add(self.header_sum, length as u16, id));
        }
        let pseudo = add(self.pseudo_sum, l4_length as u16, 0);
        let l4 = &mut segment[self.l4..];
        let offset = if tcp {
            let sequence = be32(l4, 4).wrapping_add((self.next * self.size) as u32);
            l4[4..8].copy_from_slice(&sequence.to_be_bytes());
            if !last {
                l4[13] &= !(FIN | PSH);
            }
            if self.next > 0 {
                l4[13] &= !CWR;
            }
            16
        } else {
            put16(l4, 4, l4_length as u16);
            6
        };
        put16(l4, offset, pseudo);
        if !self.partial {
            finish_checksum(l4, 0, offset, !tcp);
        }
    }
}

/// The sum of three in one's complement.
#[inline]
fn add(a: u16, b: u16, c: u16) -> u16 {
    let total = u32::from(a) + u32::from(b) + u32::from(c);
    let folded = (total & 0xffff) + (total >> 16);
    (folded + (folded >> 16)) as u16
}

/// IPv4 fragments of a packet that may be cut; none of one that may not. The L4 checksum must be complete.
pub fn fragment_ipv4(packet: &[u8], inner: &Inner, limit: usize) -> Vec<Vec<u8>> {
    let room = limit.saturating_sub(inner.header) & !7;
    if inner.is_v6() || inner.dont_fragment || room == 0 {
        return Vec::new();
    }
    let field = be16(packet, 6);
    let (first_offset, more_after) = (field & 0x1fff, field & MORE_FRAGMENTS);
    let payload = &packet[inner.header..inner.total];
    if usize::from(first_offset) * 8 + payload.len() > MAX_DATAGRAM {
        return Vec::new();
    }
    let count = payload.len().div_ceil(room);
    payload
        .chunks(room)
        .enumerate()
        .map(|(i, chunk)| {
            let mut fragment = [&packet[..inner.header], chunk].concat();
            let total = fragment.len() as u16;
            put16(&mut fragment, 2, total);
            let more = if i + 1 < count { MORE_FRAGMENTS } else { more_after };
            put16(&mut fragment, 6, (first_offset + (i * room / 8) as u16) | more);
            write_ipv4_checksum(&mut fragment, inner.header);
            fragment
        })
        .collect()
}

fn l4_end(packet: &[u8], l4: usize, tcp: bool) -> Option<usize> {
    let length = if tcp {
        let length = usize::from(*packet.get(l4 + 12)? >> 4) * 4;
        if length < 20 {
            return None;
        }
        length
    } else {
        8
    };
    let end = l4 + length;
    (end <= packet.len() && end <= MAX_HEADER).then_some(end)
}

const MAX_HEADER: usize = 192;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;
/// A fragment that reaches beyond belongs to no datagram.
const MAX_DATAGRAM: usize = 65_535;
const MORE_FRAGMENTS: u16 = 0x2000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::{tcp, udp};

    fn split(vnet: &VnetHeader, packet: &mut [u8], limit: usize) -> Result<Vec<(Vec<u8>, bool)>, SegmentError> {
        let inner = Inner::parse(packet).unwrap();
        let mut segments = Segments::new(vnet, inner, packet, limit)?;
        let mut out = Vec::new();
        while let Some((range, partial)) = segments.next(packet) {
            out.push((packet[range].to_vec(), partial));
        }
        Ok(out)
    }

    fn finished(packet: &[u8], partial: bool) -> Vec<u8> {
        let mut packet = packet.to_vec();
        let inner = Inner::parse(&packet).unwrap();
        if partial {
            let offset = inner.checksum_offset().unwrap();
            finish_checksum(&mut packet, inner.header, offset, inner.protocol == UDP).unwrap();
        }
        packet
    }

    #[test]
    fn tcp_superpacket() {
        for v6 in [false, true] {
            let payload: Vec<u8> = (0..10_001u32).map(|i| i as u8).collect();
            let mut packet = tcp(v6, 1000, 0x19 | CWR, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], &payload);
            let gso = if v6 { Gso::Tcp6 } else { Gso::Tcp4 };
            let l4 = if v6 { 40 } else { 20 };
            let vnet = VnetHeader {
                needs_csum: true,
                gso,
                gso_size: 1000,
                csum_start: l4 as u16,
                csum_offset: 16,
                ..VnetHeader::default()
            };
            let out = split(&vnet, &mut packet, 1400).unwrap();
            assert_eq!(out.len(), 11);
            let mut joined = Vec::new();
            for (i, (segment, partial)) in out.iter().enumerate() {
                assert!(partial);
                let segment = finished(segment, true);
                let inner = Inner::parse(&segment).unwrap();
                assert!(checksum_ok(&segment, &inner), "segment {i}");
                assert_eq!(be32(&segment, l4 + 4), 1000 + 1000 * i as u32);
                let flags = segment[l4 + 13];
                assert_eq!(flags & (FIN | PSH) != 0, i == 10);
                assert_eq!(flags & CWR != 0, i == 0);
                if !v6 {
                    assert_eq!(be16(&segment, 4), 100 + i as u16);
                    assert_eq!(crate::packet::sum(&segment[..20], 0), 0xffff);
                }
                joined.extend_from_slice(&segment[l4 + 32..]);
            }
            assert_eq!(joined, payload);
        }
    }

    #[test]
    fn tcp_is_cut_to_the_path() {
        let mut packet = tcp(false, 5, 0x18, &[], &[7; 1380]);
        let out = split(&VnetHeader::default(), &mut packet, 1220).unwrap();
        assert_eq!(out.iter().map(|(s, _)| s.len()).collect::<Vec<_>>(), [1220, 240]);
        for (segment, partial) in &out {
            let segment = finished(segment, *partial);
            assert!(checksum_ok(&segment, &Inner::parse(&segment).unwrap()));
        }
        let mut damaged = tcp(false, 5, 0x18, &[], &[7; 1380]);
        damaged[100] ^= 1;
        assert_eq!(split(&VnetHeader::default(), &mut damaged, 1220), Err(SegmentError::Malformed));
    }

    #[test]
    fn udp_superpacket_and_limits() {
        let mut packet = udp(true, &[3; 2500]);
        let vnet = VnetHeader {
            needs_csum: true,
            gso: Gso::Udp,
            gso_size: 1000,
            csum_start: 40,
            csum_offset: 6,
            ..VnetHeader::default()
        };
        let out = split(&vnet, &mut packet.clone(), 1400).unwrap();
        assert_eq!(out.iter().map(|(s, _)| s.len()).collect::<Vec<_>>(), [1048, 1048, 548]);
        for (segment, partial) in &out {
            let segment = finished(segment, *partial);
            assert_eq!(usize::from(be16(&segment, 44)), segment.len() - 40);
            assert!(checksum_ok(&segment, &Inner::parse(&segment).unwrap()));
        }
        assert_eq!(split(&vnet, &mut packet, 1000), Err(SegmentError::TooBig));
        assert_eq!(split(&VnetHeader::default(), &mut udp(false, &[0; 1400]), 1400), Err(SegmentError::TooBig));
    }

    #[test]
    fn contradicting_headers_are_refused_without_panic() {
        let mut state = 3u64;
        for _ in 0..20_000 {
            let mut random = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) as u32
            };
            let gso = [Gso::None, Gso::Tcp4, Gso::Tcp6, Gso::Udp][random() as usize % 4];
            let vnet = VnetHeader {
                needs_csum: random() % 2 == 0,
                gso,
                header_length: random() as u16,
                gso_size: (random() % 2000) as u16,
                csum_start: (random() % 100) as u16,
                csum_offset: (random() % 40) as u16,
            };
            let mut packet = match random() % 3 {
                0 => tcp(false, 1, 0x18, &[], &vec![1; random() as usize % 3000]),
                1 => tcp(true, 1, 0x18, &[], &vec![1; random() as usize % 3000]),
                _ => udp(random() % 2 == 0, &vec![1; random() as usize % 3000]),
            };
            let limit = random() as usize % 1500;
            let _ = split(&vnet, &mut packet, limit);
        }
    }

    #[test]
    fn ipv4_fragments_join_again() {
        let mut packet = udp(false, &[9; 3000]);
        packet[6] = 0;
        write_ipv4_checksum(&mut packet, 20);
        let inner = Inner::parse(&packet).unwrap();
        let fragments = fragment_ipv4(&packet, &inner, 1220);
        assert_eq!(fragments.len(), 3);
        let mut joined = Vec::new();
        for (i, fragment) in fragments.iter().enumerate() {
            assert!(fragment.len() <= 1220);
            assert_eq!(usize::from(be16(fragment, 6) & 0x1fff) * 8, joined.len());
            assert_eq!(be16(fragment, 6) & MORE_FRAGMENTS != 0, i < 2);
            joined.extend_from_slice(&fragment[20..]);
        }
        assert_eq!(joined, packet[20..]);
    }
}
