//! From decrypted packets to as few TUN writes as possible: consecutive segments of a flow become a superpacket.
//!
//! Packets stay where they were decrypted; a run is a list of places in the receive arena, written with one
//! `writev`. Only what the kernel will cut back into exactly the same packets is merged.

use std::net::IpAddr;
use std::ops::Range;

use crate::packet::{Inner, TCP, UDP, be16, be32, checksum_ok, pseudo_sum, put16, sum, write_ipv4_checksum};
use crate::vnet::{Gso, VnetHeader};

/// Takes finished frames: the vnet header and the places of the packet's parts.
pub trait Sink {
    fn write(&mut self, vnet: &VnetHeader, arena: &[u8], parts: &[Range<usize>]);
}

pub struct Coalescer {
    tso: bool,
    uso: bool,
    runs: Vec<Run>,
    /// Emptied part lists, kept for their memory.
    spare: Vec<Vec<Range<usize>>>,
}

struct Run {
    flow: Flow,
    inner: Inner,
    /// All headers of the first packet.
    header: usize,
    parts: Vec<Range<usize>>,
    total: usize,
    segment: usize,
    next_sequence: u32,
    partial: bool,
    push: bool,
    closed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Flow {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ports: u32,
}

impl Coalescer {
    pub fn new(tso: bool, uso: bool) -> Coalescer {
        Coalescer { tso, uso, runs: Vec::with_capacity(MAX_RUNS), spare: Vec::new() }
    }

    /// Adds the packet at `place`; `partial` says that its L4 checksum holds the pseudo-header sum only.
    pub fn push(&mut self, arena: &mut [u8], place: Range<usize>, inner: &Inner, partial: bool, sink: &mut impl Sink) {
        let packet = &arena[place.clone()];
        let Some(header) = l4_header_end(packet, inner) else {
            return write_single(arena, place, inner, partial, sink);
        };
        let flow = Flow {
            source: inner.source,
            destination: inner.destination,
            protocol: inner.protocol,
            ports: be32(packet, inner.header),
        };
        let at = self.runs.iter().position(|run| run.flow == flow);
        if !self.mergeable(packet, inner, header, partial) {
            // What came before of this flow goes first.
            if let Some(at) = at {
                let run = self.runs.remove(at);
                self.finish(run, arena, sink);
            }
            return write_single(arena, place, inner, partial, sink);
        }
        if let Some(at) = at {
            if self.runs[at].extends(arena, &place, inner, header) {
                let run = &mut self.runs[at];
                let payload = place.len() - header;
                run.total += payload;
                run.next_sequence = run.next_sequence.wrapping_add(payload as u32);
                if inner.protocol == TCP && arena[place.start + inner.header + 13] & PSH != 0 {
                    (run.push, run.closed) = (true, true);
                }
                run.closed |= payload < run.segment;
                run.parts.push(place.start + header..place.end);
                return;
            }
            let run = self.runs.remove(at);
            self.finish(run, arena, sink);
        } else if self.runs.len() == MAX_RUNS {
            let oldest = self.runs.remove(0);
            self.finish(oldest, arena, sink);
        }
        let mut parts = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(MAX_PARTS));
        parts.push(place.clone());
        let packet = &arena[place.clone()];
        let tcp = inner.protocol == TCP;
        let payload = place.len() - header;
        self.runs.push(Run {
            flow,
            inner: *inner,
            header,
            parts,
            total: place.len(),
            segment: payload,
            next_sequence: if tcp { be32(packet, inner.header + 4).wrapping_add(payload as u32) } else { 0 },
            partial,
            push: false,
            closed: tcp && packet[inner.header + 13] & PSH != 0,
        });
    }

    /// Writes all runs; the arena may be reused afterwards.
    pub fn flush(&mut self, arena: &mut [u8], sink: &mut impl Sink) {
        while !self.runs.is_empty() {
            let run = self.runs.remove(0);
            self.finish(run, arena, sink);
        }
    }

    fn mergeable(&self, packet: &[u8], inner: &Inner, header: usize, partial: bool) -> bool {
        if packet.len() == header || (!inner.is_v6() && inner.header != 20) {
            return false;
        }
        // Merging makes new checksums, which must not turn a damaged packet into a sound one.
        if !inner.is_v6() && sum(&packet[..20], 0) != 0xffff {
            return false;
        }
        let l4 = &packet[inner.header..];
        let fits = if inner.protocol == TCP {
            self.tso && l4[13] & !PSH == ACK
        } else {
            self.uso && usize::from(be16(l4, 4)) == l4.len()
        };
        fits && (partial || checksum_ok(packet, inner))
    }

    fn finish(&mut self, mut run: Run, arena: &mut [u8], sink: &mut impl Sink) {
        let place = run.parts[0].clone();
        if run.parts.len() == 1 {
            write_single(arena, place, &run.inner, run.partial, sink);
        } else {
            let tcp = run.inner.protocol == TCP;
            let v6 = run.inner.is_v6();
            let head = &mut arena[place.start..place.start + run.header];
            if v6 {
                put16(head, 4, (run.total - 40) as u16);
            } else {
                put16(head, 2, run.total as u16);
                write_ipv4_checksum(head, run.inner.header);
            }
            let l4_length = run.total - run.inner.header;
            let pseudo = pseudo_sum(head, v6, run.inner.protocol, l4_length);
            let l4 = &mut head[run.inner.header..];
            let offset = if tcp {
                if run.push {
                    l4[13] |= PSH;
                }
                16
            } else {
                put16(l4, 4, l4_length as u16);
                6
            };
            put16(l4, offset, pseudo);
            let vnet = VnetHeader {
                needs_csum: true,
                gso: match (tcp, v6) {
                    (false, _) => Gso::Udp,
                    (true, false) => Gso::Tcp4,
                    (true, true) => Gso::Tcp6,
                },
                header_length: run.header as u16,
                gso_size: run.segment as u16,
                csum_start: run.inner.header as u16,
                csum_offset: offset as u16,
            };
            sink.write(&vnet, arena, &run.parts);
        }
        run.parts.clear();
        self.spare.push(run.parts);
    }
}

impl Run {
    /// Whether the packet at `place` is the exact continuation of this run.
    fn extends(&self, arena: &[u8], place: &Range<usize>, inner: &Inner, header: usize) -> bool {
        let payload = place.len() - header;
        if self.closed
            || header != self.header
            || payload > self.segment
            || self.total + payload > MAX_TOTAL
            || self.parts.len() == if inner.protocol == UDP { MAX_DATAGRAMS } else { MAX_PARTS }
            || inner.tos != self.inner.tos
        {
            return false;
        }
        let first = &arena[self.parts[0].clone()];
        let packet = &arena[place.clone()];
        let same_ip = if inner.is_v6() {
            // Flow label and hop limit.
            packet[..4] == first[..4] && packet[7] == first[7]
        } else {
            // Flags and TTL. The kernel counts identifications up; they mean nothing where DF is set (RFC 6864).
            let identified = be16(packet, 4) == be16(first, 4).wrapping_add(self.parts.len() as u16);
            packet[6] == first[6] && packet[8] == first[8] && (inner.dont_fragment || identified)
        };
        if inner.protocol == UDP {
            return same_ip;
        }
        let (a, b) = (&packet[inner.header..header], &first[inner.header..header]);
        // Acknowledgement, data offset, window, urgent pointer, and options.
        same_ip
            && be32(a, 4) == self.next_sequence
            && a[8..13] == b[8..13]
            && a[14..16] == b[14..16]
            && a[18..] == b[18..]
    }
}

fn write_single(arena: &[u8], place: Range<usize>, inner: &Inner, partial: bool, sink: &mut impl Sink) {
    sink.write(&single_header(inner, partial), arena, &[place]);
}

/// The vnet header of a packet that stands alone.
pub fn single_header(inner: &Inner, partial: bool) -> VnetHeader {
    match inner.checksum_offset() {
        Some(offset) if partial => VnetHeader {
            needs_csum: true,
            csum_start: inner.header as u16,
            csum_offset: offset as u16,
            ..VnetHeader::default()
        },
        _ => VnetHeader::default(),
    }
}

fn l4_header_end(packet: &[u8], inner: &Inner) -> Option<usize> {
    inner.checksum_offset()?;
    match inner.protocol {
        TCP => {
            let length = usize::from(packet[inner.header + 12] >> 4) * 4;
            let end = inner.header + length;
            (length >= 20 && end <= packet.len()).then_some(end)
        }
        _ => Some(inner.header + 8),
    }
}

const MAX_RUNS: usize = 8;
const MAX_PARTS: usize = 256;
/// The kernel refuses a UDP superpacket of more (128 since 6.9).
const MAX_DATAGRAMS: usize = 64;
const MAX_TOTAL: usize = 65_535;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::finish_checksum;
    use crate::packet::tests::{tcp, udp};
    use crate::segment::Segments;

    /// Cuts every frame back as the kernel would, and keeps the number of writes.
    #[derive(Default)]
    struct Kernel {
        writes: usize,
        packets: Vec<Vec<u8>>,
    }

    impl Sink for Kernel {
        fn write(&mut self, vnet: &VnetHeader, arena: &[u8], parts: &[Range<usize>]) {
            self.writes += 1;
            let mut packet: Vec<u8> = parts.iter().flat_map(|p| arena[p.clone()].to_vec()).collect();
            let inner = Inner::parse(&packet).unwrap();
            assert_eq!(inner.total, packet.len());
            let mut segments = Segments::new(vnet, inner, &mut packet, 65_535).unwrap();
            while let Some((range, partial)) = segments.next(&mut packet) {
                let mut segment = packet[range].to_vec();
                let inner = Inner::parse(&segment).unwrap();
                if partial {
                    let offset = inner.checksum_offset().unwrap();
                    finish_checksum(&mut segment, inner.header, offset, inner.protocol == UDP).unwrap();
                }
                self.packets.push(segment);
            }
        }
    }

    fn run(packets: &[Vec<u8>]) -> Kernel {
        let mut arena = Vec::new();
        let mut places = Vec::new();
        for packet in packets {
            let start = arena.len();
            arena.extend_from_slice(packet);
            places.push(start..arena.len());
        }
        let mut coalescer = Coalescer::new(true, true);
        let mut kernel = Kernel::default();
        for place in places {
            let inner = Inner::parse(&arena[place.clone()]).unwrap();
            coalescer.push(&mut arena, place, &inner, false, &mut kernel);
        }
        coalescer.flush(&mut arena, &mut kernel);
        kernel
    }

    fn stream(v6: bool, count: u32, last_flags: u8) -> Vec<Vec<u8>> {
        (0..count)
            .map(|i| {
                let flags = if i + 1 == count { last_flags } else { ACK };
                let mut packet = tcp(v6, 1000 + i * 100, flags, &[], &[i as u8; 100]);
                if !v6 {
                    put16(&mut packet, 4, 100 + i as u16);
                    write_ipv4_checksum(&mut packet, 20);
                }
                packet
            })
            .collect()
    }

    #[test]
    fn a_stream_is_one_write_and_comes_out_the_same() {
        for v6 in [false, true] {
            for flags in [ACK, ACK | PSH] {
                let packets = stream(v6, 20, flags);
                let kernel = run(&packets);
                assert_eq!(kernel.writes, 1);
                assert_eq!(kernel.packets, packets);
            }
        }
    }

    #[test]
    fn datagrams_of_one_flow_are_one_write() {
        let packets: Vec<_> = (0..5u8).map(|i| udp(true, &[i; 64])).collect();
        let kernel = run(&packets);
        assert_eq!((kernel.writes, kernel.packets), (1, packets));
        let many: Vec<_> = (0..130u8).map(|i| udp(false, &[i; 10])).collect();
        let kernel = run(&many);
        assert_eq!((kernel.writes, kernel.packets.len()), (3, many.len()));
    }

    #[test]
    fn what_must_not_be_merged_is_not() {
        let base = || stream(false, 2, ACK);
        let rewrite = |packet: &mut Vec<u8>| {
            write_ipv4_checksum(packet, 20);
            let length = packet.len() - 20;
            let pseudo = pseudo_sum(packet, false, TCP, length);
            put16(packet, 36, pseudo);
            finish_checksum(packet, 20, 16, false).unwrap();
        };
        type Change = fn(&mut Vec<u8>);
        let changes: [(&str, Change); 11] = [
            ("tos", |p| p[1] = 4),
            ("ttl", |p| p[8] = 9),
            ("df", |p| p[6] = 0),
            ("fin", |p| p[33] = ACK | 1),
            ("ece", |p| p[33] = ACK | 0x40),
            ("ack number", |p| p[31] ^= 1),
            ("window", |p| p[34] ^= 1),
            ("sequence", |p| p[27] ^= 1),
            ("ports", |p| p[21] ^= 1),
            ("urgent pointer", |p| p[39] ^= 1),
            ("reserved flag", |p| p[6] ^= 0x80),
        ];
        for (name, change) in changes {
            let mut packets = base();
            change(&mut packets[1]);
            rewrite(&mut packets[1]);
            let kernel = run(&packets);
            assert_eq!(kernel.writes, 2, "{name}");
            assert_eq!(kernel.packets, packets, "{name}");
        }
        for place in [60, 11] {
            let mut damaged = base();
            damaged[1][place] ^= 1;
            let kernel = run(&damaged);
            assert_eq!((kernel.writes, kernel.packets), (2, damaged));
        }
    }

    #[test]
    fn where_fragments_are_allowed_identifications_stay() {
        let fragmentable = |first: u16, step: u16| {
            let mut packets = stream(false, 5, ACK);
            for (i, packet) in packets.iter_mut().enumerate() {
                packet[6] = 0;
                put16(packet, 4, first.wrapping_add(step * i as u16));
                write_ipv4_checksum(packet, 20);
            }
            let kernel = run(&packets);
            assert_eq!(kernel.packets, packets);
            kernel.writes
        };
        assert_eq!((fragmentable(65_534, 1), fragmentable(7, 0), fragmentable(7, 9)), (1, 5, 5));
    }

    #[test]
    fn order_within_a_flow_is_kept() {
        let mut packets = stream(false, 6, ACK);
        packets[3] = tcp(false, 1300, ACK, &[], &[]);
        let kernel = run(&packets);
        assert_eq!(kernel.packets, packets);
        assert_eq!(sum(&kernel.packets[0][..20], 0), 0xffff);
    }

    #[test]
    fn interleaved_flows_are_merged_each() {
        let other: Vec<_> = (0..10).map(|i| udp(true, &[i; 50])).collect();
        let packets: Vec<_> = stream(false, 10, ACK).into_iter().zip(other).flat_map(|(a, b)| [a, b]).collect();
        let kernel = run(&packets);
        assert_eq!(kernel.writes, 2);
        assert_eq!(kernel.packets.len(), packets.len());
    }
}
