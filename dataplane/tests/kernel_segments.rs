//! Superpackets of a real kernel are cut into the octets that the kernel itself makes of them (tests/captures).

use std::path::{Path, PathBuf};

use stayput_dataplane::packet::{Inner, UDP, finish_checksum};
use stayput_dataplane::segment::Segments;
use stayput_dataplane::vnet::{Gso, VNET_HEADER, VnetHeader};

/// A superpacket as it came from a TUN, and the packets that the kernel cut it into.
struct Capture {
    name: String,
    frame: Vec<u8>,
    packets: Vec<Vec<u8>>,
}

#[test]
fn segments_are_those_of_the_kernel() {
    let captures = captures();
    for kind in ["tcp4-", "tcp6-", "tcp4-ecn", "tcp6-ecn", "udp4-", "udp6-"] {
        assert!(captures.iter().any(|capture| capture.name.starts_with(kind)), "{kind}");
    }
    for Capture { name, frame, packets } in &captures {
        let segments = segments(frame, 1420);
        assert_eq!(segments.len(), packets.len(), "{name}");
        for (at, (segment, packet)) in segments.iter().zip(packets).enumerate() {
            let first = segment.iter().zip(packet).position(|(a, b)| a != b);
            assert!(segment == packet, "{name}: segment {at} differs from octet {first:?} on");
        }
    }
}

#[test]
fn a_smaller_path_takes_smaller_segments_of_the_same_octets() {
    for Capture { name, frame, packets } in captures().iter().filter(|capture| capture.name.starts_with("tcp")) {
        let payload = |packets: &[Vec<u8>]| packets.iter().flat_map(|packet| tcp_payload(packet).to_vec()).collect();
        let expected: Vec<u8> = payload(packets);
        for limit in [1280, 577, 121] {
            let segments = segments(frame, limit);
            assert!(segments.iter().all(|segment| segment.len() <= limit), "{name} and {limit}");
            let octets: Vec<u8> = payload(&segments);
            assert!(octets == expected, "{name} and {limit}");
        }
    }
}

fn segments(frame: &[u8], limit: usize) -> Vec<Vec<u8>> {
    let vnet = VnetHeader::parse(frame).expect("a sound capture");
    assert!(vnet.gso != Gso::None && vnet.needs_csum);
    let mut packet = frame[VNET_HEADER..].to_vec();
    let inner = Inner::parse(&packet).expect("a sound capture");
    let mut segments = Segments::new(&vnet, inner, &mut packet, limit).expect("a sound capture");
    let mut found = Vec::new();
    while let Some((place, partial)) = segments.next(&mut packet) {
        let mut segment = packet[place].to_vec();
        if partial {
            // As the receiving kernel does it.
            let offset = inner.checksum_offset().expect("a sound capture");
            finish_checksum(&mut segment, inner.header, offset, inner.protocol == UDP).expect("a sound capture");
        }
        found.push(segment);
    }
    found
}

fn tcp_payload(packet: &[u8]) -> &[u8] {
    let inner = Inner::parse(packet).expect("a sound capture");
    &packet[inner.header + usize::from(packet[inner.header + 12] >> 4) * 4..]
}

fn captures() -> Vec<Capture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("a sound capture")
        .map(|entry| entry.expect("a sound capture").path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "bin"));
    paths.sort();
    paths.iter().map(|path| capture(path)).collect()
}

fn capture(path: &Path) -> Capture {
    let octets = std::fs::read(path).expect("a sound capture");
    let mut rest = &octets[..];
    let mut frames = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk() {
        let (frame, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
        frames.push(frame.to_vec());
        rest = tail;
    }
    let frame = frames.remove(0);
    Capture { name: path.file_stem().expect("a sound capture").to_string_lossy().into_owned(), frame, packets: frames }
}
