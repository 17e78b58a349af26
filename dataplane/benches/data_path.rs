//! `cargo bench --bench data_path`: what one packet costs in each part of the data path, without the kernel.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use stayput_dataplane::coalesce::{Coalescer, Sink};
use stayput_dataplane::handshake::{Attempt, Identity, Received, Suite};
use stayput_dataplane::packet::Inner;
use stayput_dataplane::prefix::{Prefix, PrefixTable};
use stayput_dataplane::replay::Replay;
use stayput_dataplane::segment::Segments;
use stayput_dataplane::session::Session;
use stayput_dataplane::time::Time;
use stayput_dataplane::vnet::{Gso, VnetHeader};
use stayput_dataplane::wire::{DATA_OVERHEAD, Kind};

fn main() {
    divan::main();
}

#[divan::bench(args = [64, 1420])]
fn seal(bencher: Bencher, size: usize) {
    let (mut session, _) = sessions();
    let packet = vec![0x5a; size];
    let mut out = vec![0; size + DATA_OVERHEAD];
    bencher
        .counter(BytesCount::new(size))
        .bench_local(move || black_box(session.seal(Kind::Data, black_box(&packet), &mut out)));
}

#[divan::bench(args = [64, 1420])]
fn open(bencher: Bencher, size: usize) {
    let (mut sender, mut receiver) = sessions();
    let packet = vec![0x5a; size];
    bencher
        .counter(BytesCount::new(size))
        .with_inputs(|| {
            let mut out = vec![0; size + DATA_OVERHEAD];
            sender.seal(Kind::Data, &packet, &mut out).expect("sealed");
            out
        })
        .bench_local_refs(|sealed| black_box(receiver.open(sealed).is_ok()));
}

/// As many sessions in use at once, a packet of each in random order: what the keys and windows cost that are not in
/// the cache.
#[divan::bench(args = [1, 10, 100, 1_000])]
fn seal_for_peers(bencher: Bencher, peers: usize) {
    let mut sessions: Vec<Session> = (0..peers).map(|_| self::sessions().0).collect();
    let packet = [0x5a; 64];
    let mut out = [0; 64 + DATA_OVERHEAD];
    let mut random = Random::new();
    bencher
        .counter(ItemsCount::new(1_u32))
        .bench_local(move || black_box(sessions[random.below(peers)].seal(Kind::Data, black_box(&packet), &mut out)));
}

#[divan::bench(args = [1, 10, 100, 1_000])]
fn open_from_peers(bencher: Bencher, peers: usize) {
    let (mut senders, mut receivers): (Vec<Session>, Vec<Session>) = (0..peers).map(|_| sessions()).unzip();
    let packet = [0x5a; 64];
    let mut random = Random::new();
    bencher
        .counter(ItemsCount::new(1_u32))
        .with_inputs(|| {
            let peer = random.below(peers);
            let mut out = [0; 64 + DATA_OVERHEAD];
            senders[peer].seal(Kind::Data, &packet, &mut out).expect("sealed");
            (peer, out)
        })
        .bench_local_refs(|(peer, sealed)| black_box(receivers[*peer].open(sealed).is_ok()));
}

/// The curve of the longest-prefix match: addresses in random order, so that no cache line is warm by chance.
#[divan::bench(args = [10, 100, 1_000, 10_000, 100_000, 1_000_000])]
fn lookup(bencher: Bencher, mappings: u32) {
    let mut table = PrefixTable::new();
    for number in 0..mappings {
        table.insert(Prefix::host(address(number)), number);
    }
    let mut random = Random::new();
    bencher
        .counter(ItemsCount::new(1_u32))
        .bench_local(move || black_box(table.lookup(address(random.below(mappings as usize) as u32)).is_some()));
}

#[divan::bench]
fn replay_window(bencher: Bencher) {
    let mut replay = Replay::new();
    let mut counter = 0;
    bencher.bench_local(move || {
        counter += 1;
        black_box(replay.accept(counter))
    });
}

/// A superpacket of 45 full segments, headers written, nothing copied.
#[divan::bench]
fn segment(bencher: Bencher) {
    let payload = 45 * SEGMENT;
    let packet = tcp(0, payload);
    let vnet = superpacket_header();
    bencher.counter(BytesCount::new(payload)).with_inputs(|| packet.clone()).bench_local_refs(|packet| {
        let inner = Inner::parse(packet).expect("a packet");
        let mut segments = Segments::new(&vnet, inner, packet, 20 + 20 + SEGMENT).expect("segments");
        let mut count = 0;
        while let Some(place) = segments.next(packet) {
            black_box(place);
            count += 1;
        }
        count
    });
}

/// 45 segments of one flow become one frame.
#[divan::bench]
fn coalesce(bencher: Bencher) {
    let packets: Vec<Vec<u8>> = (0..45).map(|i| tcp(i * SEGMENT as u32, SEGMENT)).collect();
    let size = packets[0].len();
    let arena: Vec<u8> = packets.concat();
    let mut coalescer = Coalescer::new(true, true);
    bencher.counter(BytesCount::new(arena.len())).with_inputs(|| arena.clone()).bench_local_refs(|arena| {
        let mut sink = Count(0);
        for at in (0..arena.len()).step_by(size) {
            let inner = Inner::parse(&arena[at..at + size]).expect("a packet");
            coalescer.push(arena, at..at + size, &inner, true, &mut sink);
        }
        coalescer.flush(arena, &mut sink);
        sink.0
    });
}

#[divan::bench]
fn handshake(bencher: Bencher) {
    let (a, b) = identities();
    let mut sequence = 0;
    bencher.bench_local(move || {
        sequence += 1;
        let (initiation, mut attempt) = Attempt::start(&a, SUITE, &b.public, 1, (1, sequence), None).expect("started");
        let (response, _) = Received::read(&b, &initiation).and_then(|r| r.respond(&b, 2)).expect("answered");
        black_box(attempt.finish(&response).is_ok())
    });
}

/// What an initiation costs whose sender does not know our public key.
#[divan::bench]
fn first_mac(bencher: Bencher) {
    let (a, b) = identities();
    let (initiation, _) = Attempt::start(&a, SUITE, &a.public, 1, (1, 1), None).expect("started");
    bencher.bench_local(move || black_box(b.mac1_ok(black_box(&initiation))));
}

/// Xorshift: an order that no cache foresees, the same in each run.
struct Random(u32);

impl Random {
    fn new() -> Self {
        Self(0x9e37_79b9)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % bound
    }
}

struct Count(usize);

impl Sink for Count {
    fn write(&mut self, _vnet: &VnetHeader, _arena: &[u8], parts: &[Range<usize>]) {
        self.0 += black_box(parts.len());
    }
}

fn address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number))
}

fn identities() -> (Identity, Identity) {
    let identity = |byte| Identity::new([byte; 32], [9; 32], 1).expect("an identity");
    (identity(1), identity(2))
}

fn sessions() -> (Session, Session) {
    let (a, b) = identities();
    let (initiation, mut attempt) = Attempt::start(&a, SUITE, &b.public, 1, (1, 1), None).expect("started");
    let received = Received::read(&b, &initiation).expect("read");
    let (response, keys) = received.respond(&b, 2).expect("answered");
    let now = Time::default();
    let responder = Session::new(keys, 2, 1, 1, false, now);
    let (keys, index) = attempt.finish(&response).expect("finished");
    (Session::new(keys, 1, index, 1, true, now), responder)
}

fn superpacket_header() -> VnetHeader {
    VnetHeader {
        needs_csum: true,
        gso: Gso::Tcp4,
        header_length: 40,
        gso_size: SEGMENT as u16,
        csum_start: 20,
        csum_offset: 16,
    }
}

/// IPv4 and TCP without options, its checksum left to whoever sends it.
fn tcp(sequence: u32, payload: usize) -> Vec<u8> {
    let mut packet = vec![0x5a; 40 + payload];
    packet[..40].fill(0);
    packet[0] = 0x45;
    let total = (packet.len() as u16).to_be_bytes();
    packet[2..4].copy_from_slice(&total);
    packet[6] = 0x40;
    packet[8] = 64;
    packet[9] = 6;
    packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    packet[20..24].copy_from_slice(&[0x10, 0x00, 0x00, 0x50]);
    packet[24..28].copy_from_slice(&sequence.to_be_bytes());
    packet[32] = 0x50;
    packet[33] = 0x10;
    packet[34..36].copy_from_slice(&[0x20, 0x00]);
    packet
}

const SUITE: Suite = Suite::AesGcm;
const SEGMENT: usize = 1380;
