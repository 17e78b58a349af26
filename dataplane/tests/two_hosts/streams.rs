//! Octets in random portions, several flows at once and both ways: what arrives is what was sent, to the octet.
//!
//! Sizes, pauses and octets come from seeds; both ends make the octets and compare. TCP has to deliver all of them, a
//! datagram comes as it was sent, once or not at all.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::cable::Trouble;
use crate::lab::{Lab, PATIENCE, counters, in_namespace, set_option, set_segment, uninterrupted, why_not};

#[test]
fn streams_of_random_writes_arrive_to_the_octet_with_every_offload() {
    if let Some(reason) = why_not() {
        eprintln!("skipped: {reason}");
        return;
    }
    for options in [
        &["--offload", "all"][..],
        &["--offload", "all", "--threads", "2"],
        &["--offload", "no-tso"],
        &["--offload", "no-uso"],
        &["--offload", "no-udp-gso"],
        &["--offload", "no-udp-gro"],
        &["--offload", "none"],
    ] {
        let mut lab = Lab::with(options);
        lab.introduce();
        let datagrams = all_flows(&lab, 6_000_000);
        for host in &mut lab.hosts {
            let counters = counters(host);
            for name in DAMAGE {
                assert_eq!(counters[name], 0, "{options:?}: {name}");
            }
        }
        // How many are lost when queues are full is for the machine to say.
        assert!(datagrams.received * 2 > datagrams.sent, "{options:?}: {datagrams:?}");
    }
}

#[test]
fn streams_arrive_to_the_octet_over_a_path_that_loses_repeats_reorders_and_damages() {
    if let Some(reason) = why_not() {
        eprintln!("skipped: {reason}");
        return;
    }
    let trouble = Trouble { loss: 2_000, duplicates: 10_000, late: 10_000, damaged: 10_000 };
    for options in [&["--offload", "all"][..], &["--offload", "none"]] {
        let mut lab = Lab::troubled(options, Duration::from_millis(1), trouble);
        lab.introduce();
        let datagrams = all_flows(&lab, 1_500_000);
        assert!(datagrams.received > 0, "{options:?}: {datagrams:?}");
        // The path was as bad as it should be: repeated and damaged packets came, and went no further.
        let both = [0, 1].map(|host| counters(&mut lab.hosts[host]));
        for name in ["drop.replay", "drop.auth"] {
            let count: u64 = both.iter().map(|counters| counters[name].as_u64().expect("a counter")).sum();
            assert!(count > 0, "{options:?}: {name} at none of {both:?}");
        }
    }
}

#[derive(Debug, Default)]
struct Datagrams {
    sent: u64,
    received: u64,
}

/// `total` octets each way in each of five connections, and datagrams both ways meanwhile.
fn all_flows(lab: &Lab, total: usize) -> Datagrams {
    let mut streams = Vec::new();
    for (seed, (near, far)) in [V4, V6, V4, V6, V4].into_iter().enumerate() {
        streams.extend(tcp_flow(lab, near, far, 1 + 2 * seed as u64, total));
    }
    let mut datagrams = Vec::new();
    for (seed, (near, far)) in [V4, V6].into_iter().enumerate() {
        datagrams.extend(udp_flow(lab, near, far, 101 + 2 * seed as u64));
    }
    for stream in streams {
        stream.join().expect("a stream");
    }
    let mut sum = Datagrams::default();
    for flow in datagrams {
        let Datagrams { sent, received } = flow.join().expect("datagrams");
        sum = Datagrams { sent: sum.sent + sent, received: sum.received + received };
    }
    sum
}

/// One connection; each end writes and reads at the same time.
fn tcp_flow(lab: &Lab, near: &'static str, far: &'static str, seed: u64, total: usize) -> Vec<JoinHandle<()>> {
    let listener = in_namespace(&lab.hosts[1].namespace, move || TcpListener::bind((far, 0)).expect("listen"));
    let address = listener.local_addr().expect("address");
    let client = in_namespace(&lab.hosts[0].namespace, move || TcpStream::connect(address).expect("connect"));
    assert_eq!(client.local_addr().expect("address").ip().to_string(), near);
    let (server, _) = listener.accept().expect("accept");
    let ends = [(client, seed, seed + 1), (server, seed + 1, seed)];
    ends.into_iter()
        .flat_map(|(stream, own, other)| {
            stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
            stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
            let writing = stream.try_clone().expect("clone");
            [
                thread::spawn(move || write_stream(writing, own, total)),
                thread::spawn(move || read_stream(stream, other, total)),
            ]
        })
        .collect()
}

fn write_stream(mut stream: TcpStream, seed: u64, total: usize) {
    let (mut octets, mut choice) = (Random::new(seed), Random::new(!seed));
    let mut portion = vec![0; LARGEST_WRITE];
    let mut left = total;
    while left > 0 {
        let largest = if choice.below(3) == 0 { 100 } else { LARGEST_WRITE };
        let size = (1 + choice.below(largest)).min(left);
        octets.fill(&mut portion[..size]);
        stream.write_all(&portion[..size]).expect("the stream stalled");
        left -= size;
        choice.pause();
    }
    stream.shutdown(Shutdown::Write).expect("shutdown");
}

fn read_stream(mut stream: TcpStream, seed: u64, total: usize) {
    let (mut octets, mut choice) = (Random::new(seed), Random::new(!seed << 1));
    let (mut buffer, mut expected) = (vec![0; LARGEST_WRITE], vec![0; LARGEST_WRITE]);
    let mut at = 0;
    loop {
        let size = 1 + choice.below(LARGEST_WRITE);
        let length = uninterrupted(|| stream.read(&mut buffer[..size])).expect("the stream stalled");
        if length == 0 {
            return assert_eq!(at, total, "the stream ended early");
        }
        octets.fill(&mut expected[..length]);
        assert!(buffer[..length] == expected[..length], "other octets than were sent, from {at} on");
        at += length;
        choice.pause();
    }
}

/// Datagrams both ways between two sockets.
fn udp_flow(lab: &Lab, near: &'static str, far: &'static str, seed: u64) -> Vec<JoinHandle<Datagrams>> {
    let open = |host: usize, address: &'static str| {
        let socket = in_namespace(&lab.hosts[host].namespace, move || UdpSocket::bind((address, 0)).expect("bind"));
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout");
        set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8 << 20);
        socket
    };
    let (near, far) = (open(0, near), open(1, far));
    near.connect(far.local_addr().expect("address")).expect("connect");
    far.connect(near.local_addr().expect("address")).expect("connect");
    let clone = |socket: &UdpSocket| socket.try_clone().expect("clone");
    [(clone(&near), clone(&far), seed), (far, near, seed + 1)]
        .map(|(from, to, seed)| thread::spawn(move || exchange(&from, to, seed)))
        .into()
}

fn exchange(from: &UdpSocket, to: UdpSocket, seed: u64) -> Datagrams {
    let arrivals = Arc::new(Arrivals::default());
    let receiver = thread::spawn({
        let arrivals = arrivals.clone();
        move || read_datagrams(&to, seed, &arrivals)
    });
    let mut choice = Random::new(!seed);
    let (mut sent, mut superpacket) = (0, Vec::new());
    while sent < DATAGRAMS {
        superpacket.clear();
        // One of any size, which the kernel cuts into fragments, or several of one size, which it may send as one.
        let largest = if choice.below(3) == 0 { LARGEST_DATAGRAM } else { 1400 };
        let size = HEADER + choice.below(largest - HEADER);
        let room = if size <= 1300 { 60_000 / size } else { 1 };
        let count = if choice.below(2) == 0 { 1 } else { (1 + choice.below(40)).min(room) };
        for _ in 0..count {
            datagram(&mut superpacket, seed, sent, size);
            sent += 1;
        }
        set_segment(from, if count > 1 { size as i32 } else { 0 });
        from.send(&superpacket).expect("send");
        arrivals.wait_for(sent.saturating_sub(WINDOW));
        choice.pause();
    }
    arrivals.wait_for(sent);
    arrivals.end();
    let received = receiver.join().expect("receiver");
    Datagrams { sent: sent.into(), received }
}

fn read_datagrams(socket: &UdpSocket, seed: u64, arrivals: &Arrivals) -> u64 {
    let mut times = vec![0u8; DATAGRAMS as usize + 64];
    let (mut buffer, mut expected) = (vec![0; 1 << 16], Vec::new());
    let mut received = 0;
    while !arrivals.ended() {
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let number = buffer[..length].first_chunk().map(|octets| u32::from_be_bytes(*octets));
        let number = number.filter(|number| *number < times.len() as u32).expect("a datagram nobody sent");
        expected.clear();
        datagram(&mut expected, seed, number, length);
        assert!(buffer[..length] == expected[..], "datagram {number} has other octets than were sent");
        times[number as usize] += 1;
        assert_eq!(times[number as usize], 1, "datagram {number} was delivered twice");
        received += 1;
        arrivals.note(number + 1);
    }
    received
}

/// Its number, its length, and octets that follow from both.
fn datagram(into: &mut Vec<u8>, seed: u64, number: u32, length: usize) {
    let start = into.len();
    into.extend_from_slice(&number.to_be_bytes());
    into.extend_from_slice(&(length as u32).to_be_bytes());
    into.resize(start + length, 0);
    Random::new(seed << 32 | u64::from(number)).fill(&mut into[start + HEADER..]);
}

/// How far the receiver is, so that no queue between the ends runs over.
#[derive(Default)]
struct Arrivals {
    state: Mutex<(u32, bool)>,
    changed: Condvar,
}

impl Arrivals {
    /// Until the datagram before `number` is there, or nothing has come for so long that it was lost.
    fn wait_for(&self, number: u32) {
        let mut state = self.state.lock().expect("lock");
        while state.0 < number {
            let before = state.0;
            let (next, waited) = self.changed.wait_timeout(state, LOST_AFTER).expect("lock");
            state = next;
            if waited.timed_out() && state.0 == before {
                return;
            }
        }
    }

    fn note(&self, number: u32) {
        let mut state = self.state.lock().expect("lock");
        state.0 = state.0.max(number);
        self.changed.notify_all();
    }

    fn end(&self) {
        self.state.lock().expect("lock").1 = true;
    }

    fn ended(&self) -> bool {
        self.state.lock().expect("lock").1
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 32) as usize % limit
    }

    /// A stream of octets: what is filled in two calls is what one would have filled.
    fn fill(&mut self, octets: &mut [u8]) {
        for octet in octets {
            *octet = (self.next() >> 56) as u8;
        }
    }

    /// Now and then up to three milliseconds.
    fn pause(&mut self) {
        if self.below(16) == 0 {
            thread::sleep(Duration::from_micros(self.below(3000) as u64));
        }
    }
}

const V4: (&str, &str) = ("10.77.0.1", "10.77.0.2");
const V6: (&str, &str) = ("fd77::1", "fd77::2");
/// Nothing of this may happen on a good path.
const DAMAGE: [&str; 6] =
    ["drop.send_error", "drop.tun_write_error", "drop.malformed", "drop.auth", "drop.replay", "drop.ttl"];
const LOST_AFTER: Duration = Duration::from_millis(200);
const LARGEST_WRITE: usize = 200_000;
const LARGEST_DATAGRAM: usize = 65_507;
const HEADER: usize = 8;
const DATAGRAMS: u32 = 1500;
/// Datagrams on their way.
const WINDOW: u32 = 64;
