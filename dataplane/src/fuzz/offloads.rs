//! Superpackets cut into segments, and segments made into superpackets.

use std::collections::HashMap;
use std::ops::Range;

use super::Input;
use crate::coalesce::{Coalescer, Sink};
use crate::egress::parse_frame;
use crate::packet::{Inner, TCP, UDP, be16, finish_checksum, pseudo_sum, put16, sum, write_ipv4_checksum};
use crate::segment::Segments;
use crate::vnet::{Gso, VNET_HEADER, VnetHeader};

/// A limit and a frame as read from a TUN: segments fit, are sound, and hold the same payload in the same order.
pub fn segment(data: &[u8]) {
    let mut input = Input(data);
    let limit = usize::from(input.u16());
    if let Some(vnet) = VnetHeader::parse(input.0) {
        assert_eq!(VnetHeader::parse(&vnet.bytes()), Some(vnet));
    }
    let Some((vnet, inner)) = parse_frame(input.0) else { return };
    let original = &input.0[VNET_HEADER..];
    let mut packet = original.to_vec();
    let Ok(mut segments) = Segments::new(&vnet, inner, &mut packet, limit) else { return };
    let (count, size) = segments.shape(&packet);
    if count == 1 && vnet.gso == Gso::None {
        let Some((place, partial)) = segments.next(&mut packet) else { panic!("no packet") };
        assert_eq!(place, 0..original.len());
        assert!(original.len() <= limit && segments.next(&mut packet).is_none());
        if partial || !vnet.needs_csum {
            assert_eq!(packet, original);
        }
        return;
    }
    let l4 = if vnet.gso == Gso::None { inner.header } else { usize::from(vnet.csum_start) };
    let tcp = vnet.gso != Gso::Udp;
    let header = l4 + if tcp { usize::from(original[l4 + 12] >> 4) * 4 } else { 8 };
    let mut joined = Vec::new();
    let mut seen = 0;
    while let Some((place, partial)) = segments.next(&mut packet) {
        let mut segment = packet[place].to_vec();
        assert!(segment.len() <= limit && segment.len() <= size, "{} of {limit}", segment.len());
        seen += 1;
        assert!(segment.len() == size || seen == count);
        let Some(part) = Inner::parse(&segment) else { panic!("a segment that is no packet") };
        assert_eq!((part.total, part.source, part.destination), (segment.len(), inner.source, inner.destination));
        if !inner.is_v6() {
            assert_eq!(sum(&segment[..part.header], 0), 0xffff);
        }
        let offset = if tcp { 16 } else { 6 };
        if partial {
            assert!(finish_checksum(&mut segment, l4, offset, !tcp).is_some());
        }
        let pseudo = pseudo_sum(&segment, inner.is_v6(), if tcp { TCP } else { UDP }, segment.len() - l4);
        assert_eq!(sum(&segment[l4..], pseudo.into()), 0xffff);
        joined.extend_from_slice(&segment[header..]);
    }
    assert_eq!(seen, count);
    assert_eq!(joined, original[header..]);
}

/// Decrypted packets of a few flows: cut back, the same come out in the same order in each flow.
pub fn coalesce(data: &[u8]) {
    let mut input = Input(data);
    let offloads = input.u8();
    let mut arena = Vec::new();
    let mut packets = Vec::new();
    // Large packets cost much; they are for the limits of a superpacket.
    let mut flows = Flows { unit: if offloads & 0x30 == 0x30 { 9 } else { 1 }, ..Flows::default() };
    while !input.is_empty() && packets.len() < 400 && arena.len() < 400_000 {
        let (packet, partial) = flows.packet(&mut input);
        let Some(inner) = Inner::parse(&packet).filter(|inner| inner.total == packet.len()) else { continue };
        packets.push((arena.len()..arena.len() + packet.len(), inner, partial));
        arena.extend_from_slice(&packet);
    }
    let mut expected: HashMap<_, Vec<Vec<u8>>> = HashMap::new();
    for (place, inner, partial) in &packets {
        let packet = finished(&arena[place.clone()], inner, *partial);
        expected.entry(flow_of(&packet, inner)).or_default().push(comparable(packet, inner));
    }
    let mut coalescer = Coalescer::new(offloads & 1 == 0, offloads & 2 == 0);
    let mut kernel = Kernel::default();
    for (place, inner, partial) in packets {
        coalescer.push(&mut arena, place, &inner, partial, &mut kernel);
    }
    coalescer.flush(&mut arena, &mut kernel);
    assert_eq!(kernel.flows.len(), expected.len());
    for (flow, packets) in &expected {
        let Some(came_out) = kernel.flows.get(flow) else { panic!("{flow:?} is lost") };
        assert_eq!(came_out.len(), packets.len(), "{flow:?}");
        for (at, (out, packet)) in came_out.iter().zip(packets).enumerate() {
            let first = out.iter().zip(packet).position(|(a, b)| a != b);
            assert!(out == packet, "{flow:?}: packet {at} of {} octets differs from {first:?}", packet.len());
        }
    }
}

/// Sequence numbers and identifications, so that mutations find what can be merged.
#[derive(Default)]
struct Flows {
    /// What lengths are multiplied by.
    unit: usize,
    sequence: [u32; 4],
    identification: u16,
}

impl Flows {
    /// How it differs from the plain next segment of its flow, its size, and then perhaps what it changes.
    fn packet(&mut self, input: &mut Input<'_>) -> (Vec<u8>, bool) {
        let how = input.u8();
        let flow = usize::from(how & 3);
        let (v6, tcp, partial) = (flow & 1 != 0, flow & 2 == 0, how & 4 != 0);
        let length = usize::from(input.u8()) * if how & 8 != 0 { self.unit } else { 1 };
        let header = if v6 { 40 } else { 20 };
        let l4 = if tcp { 20 } else { 8 };
        let mut packet = vec![how; header + l4 + length];
        packet[..header].fill(0);
        let total = packet.len();
        let protocol = if tcp { TCP } else { UDP };
        if v6 {
            packet[0] = 0x60;
            put16(&mut packet, 4, (total - 40) as u16);
            (packet[6], packet[7], packet[8], packet[24]) = (protocol, 64, 0xfd, 0xfd);
        } else {
            packet[0] = 0x45;
            put16(&mut packet, 2, total as u16);
            put16(&mut packet, 4, self.identification);
            self.identification = self.identification.wrapping_add(1);
            (packet[6], packet[8], packet[9], packet[12], packet[16]) = (0x40, 64, protocol, 10, 10);
        }
        packet[header..header + l4].fill(0);
        if tcp {
            packet[header + 4..header + 8].copy_from_slice(&self.sequence[flow].to_be_bytes());
            self.sequence[flow] = self.sequence[flow].wrapping_add(length as u32);
            (packet[header + 12], packet[header + 13]) = (0x50, 0x10);
        } else {
            put16(&mut packet, header + 4, (8 + length) as u16);
        }
        if how & 0x20 != 0 {
            let at = input.below(header + l4);
            packet[at] ^= input.u8();
        }
        // The tunnel carries header checksums as they are; a wrong one is a change like others.
        if !v6 && how & 0x80 == 0 {
            write_ipv4_checksum(&mut packet, header);
        }
        let offset = header + if tcp { 16 } else { 6 };
        let pseudo = pseudo_sum(&packet, v6, protocol, total - header);
        put16(&mut packet, offset, pseudo);
        if !partial {
            let _ = finish_checksum(&mut packet, header, offset - header, !tcp);
        }
        // A partial checksum is no more than a promise of the peer, whose tag protects the packet.
        if how & 0x40 != 0 && !partial {
            let at = input.below(total.min(256));
            packet[at] ^= input.u8();
        }
        (packet, partial)
    }
}

type FlowKey = Option<(std::net::IpAddr, std::net::IpAddr, u8, [u8; 4])>;

/// None for what belongs to no flow of whole TCP or UDP headers, whose order among themselves is kept, too.
fn flow_of(packet: &[u8], inner: &Inner) -> FlowKey {
    inner.checksum_offset()?;
    if inner.protocol == TCP {
        let length = usize::from(packet[inner.header + 12] >> 4) * 4;
        if length < 20 || inner.header + length > packet.len() {
            return None;
        }
    }
    let ports = packet[inner.header..].first_chunk()?;
    Some((inner.source, inner.destination, inner.protocol, *ports))
}

fn finished(packet: &[u8], inner: &Inner, partial: bool) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if let Some(offset) = inner.checksum_offset().filter(|_| partial) {
        let _ = finish_checksum(&mut packet, inner.header, offset, inner.protocol == UDP);
    }
    packet
}

/// Where a packet may not be fragmented its identification means nothing (RFC 6864).
fn comparable(mut packet: Vec<u8>, inner: &Inner) -> Vec<u8> {
    if !inner.is_v6() && inner.dont_fragment && !inner.fragment {
        let checksum = crate::packet::update_checksum(be16(&packet, 10), be16(&packet, 4), 0);
        put16(&mut packet, 4, 0);
        // Of the two zeros of one's complement.
        put16(&mut packet, 10, if checksum == 0xffff { 0 } else { checksum });
    }
    packet
}

/// Cuts every frame back as the kernel does.
#[derive(Default)]
struct Kernel {
    flows: HashMap<FlowKey, Vec<Vec<u8>>>,
}

impl Sink for Kernel {
    fn write(&mut self, vnet: &VnetHeader, arena: &[u8], parts: &[Range<usize>]) {
        let mut packet = Vec::with_capacity(parts.iter().map(Range::len).sum());
        parts.iter().for_each(|part| packet.extend_from_slice(&arena[part.clone()]));
        let Some(inner) = Inner::parse(&packet) else { panic!("no packet") };
        assert_eq!(inner.total, packet.len());
        let Ok(mut segments) = Segments::new(vnet, inner, &mut packet, 65_535) else { panic!("{vnet:?} is refused") };
        while let Some((place, partial)) = segments.next(&mut packet) {
            let Some(inner) = Inner::parse(&packet[place.clone()]) else { panic!("no segment") };
            let segment = finished(&packet[place], &inner, partial);
            self.flows.entry(flow_of(&segment, &inner)).or_default().push(comparable(segment, &inner));
        }
    }
}
