//! `lab-flood`: prepared UDP datagrams at a rate, each from another made-up address and port of 198.18.0.0/15.
//!
//! The datagrams are made beforehand, so that making them takes no time from what is measured. A millisecond's worth
//! is sent at a time; when the machine is too slow the rate is not made up for, and the report says what it was.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

const USAGE: &str = "usage: lab-flood ADDRESS:PORT FILE BYTES RATE SECONDS";

const IP_HEADER: usize = 20;
const HEADERS: usize = IP_HEADER + 8;
const TICK: Duration = Duration::from_millis(1);
const BACKLOG: u64 = 20;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = Task::parse(&words).and_then(|task| task.run().map_err(|error| error.to_string()));
    match result {
        Ok(line) => println!("{line}"),
        Err(problem) => {
            eprintln!("lab-flood: {problem}");
            std::process::exit(1);
        }
    }
}

struct Task {
    to: SocketAddrV4,
    datagrams: Vec<u8>,
    bytes: usize,
    rate: u64,
    time: Duration,
}

impl Task {
    fn parse(words: &[String]) -> Result<Task, String> {
        let [to, file, bytes, rate, seconds] = words else { return Err(USAGE.to_string()) };
        let to = to.parse().map_err(|_| format!("{to} is not an IPv4 address with a port"))?;
        let bytes = bytes.parse().ok().filter(|n| (1..=1472).contains(n)).ok_or("BYTES must be 1 to 1472")?;
        let rate =
            rate.parse().ok().filter(|n| (1000..=1_000_000).contains(n)).ok_or("RATE must be 1000 to 1000000")?;
        let seconds = seconds.parse().ok().filter(|n| (1..=600).contains(n)).ok_or("SECONDS must be 1 to 600")?;
        let datagrams = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
        if datagrams.is_empty() || datagrams.len() % bytes != 0 {
            return Err(format!("{file} does not hold datagrams of {bytes} octets"));
        }
        Ok(Task { to, datagrams, bytes, rate, time: Duration::from_secs(seconds) })
    }

    fn run(&self) -> io::Result<String> {
        let socket = raw_socket()?;
        let packet = HEADERS + self.bytes;
        let count = (self.rate / 1000) as usize;
        let mut buffers = vec![0u8; count * packet];
        let mut target = address_of(self.to);
        let mut random = std::process::id() as u64 | 1 << 32;
        let mut next = 0;
        let (started, mut ticks, mut sent, mut refused) = (Instant::now(), 0u64, 0u64, 0u64);
        while started.elapsed() < self.time {
            for buffer in buffers.chunks_exact_mut(packet) {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let at = next % self.datagrams.len();
                self.fill(buffer, random >> 24, &self.datagrams[at..at + self.bytes]);
                next = at + self.bytes;
            }
            match send(&socket, &mut buffers, packet, &mut target) {
                Ok(passed) => {
                    sent += passed as u64;
                    refused += (count - passed) as u64;
                }
                Err(error) if is_passing(&error) => refused += count as u64,
                Err(error) => return Err(error),
            }
            ticks += 1;
            let elapsed = started.elapsed().as_millis() as u64;
            ticks = ticks.max(elapsed.saturating_sub(BACKLOG));
            std::thread::sleep((TICK * ticks as u32).saturating_sub(started.elapsed()));
        }
        let seconds = started.elapsed().as_secs_f64();
        let cpu = cpu_seconds();
        Ok(format!(
            r#"{{"type":"flooded","sent":{sent},"refused":{refused},"seconds":{seconds:.6},"cpuSeconds":{cpu:.6}}}"#
        ))
    }

    /// IPv4 without checksum, which the kernel fills in, and UDP without one, as IPv4 allows.
    fn fill(&self, packet: &mut [u8], random: u64, datagram: &[u8]) {
        let length = (packet.len() as u16).to_be_bytes();
        packet[..IP_HEADER].copy_from_slice(&[
            0x45,
            0,
            length[0],
            length[1],
            0,
            0,
            0x40,
            0,
            64,
            17,
            0,
            0,
            198,
            18 | (random >> 16 & 1) as u8,
            (random >> 8) as u8,
            random as u8,
            0,
            0,
            0,
            0,
        ]);
        packet[16..IP_HEADER].copy_from_slice(&self.to.ip().octets());
        let from = 1024 | (random >> 17) as u16;
        packet[IP_HEADER..][..2].copy_from_slice(&from.to_be_bytes());
        packet[IP_HEADER + 2..][..2].copy_from_slice(&self.to.port().to_be_bytes());
        packet[IP_HEADER + 4..][..2].copy_from_slice(&(datagram.len() as u16 + 8).to_be_bytes());
        packet[IP_HEADER + 6..][..2].fill(0);
        packet[HEADERS..].copy_from_slice(datagram);
    }
}

/// A full queue is part of what is tried.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        || error.raw_os_error() == Some(libc::ENOBUFS)
}

fn raw_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed; the descriptor is new and owned by nobody else.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

fn address_of(to: SocketAddrV4) -> libc::sockaddr_in {
    // SAFETY: all zeros is a socket address.
    let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    address.sin_family = libc::AF_INET as libc::sa_family_t;
    address.sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
    address
}

fn send(socket: &OwnedFd, buffers: &mut [u8], packet: usize, target: &mut libc::sockaddr_in) -> io::Result<usize> {
    let mut vectors: Vec<libc::iovec> = buffers
        .chunks_exact_mut(packet)
        .map(|chunk| libc::iovec { iov_base: chunk.as_mut_ptr().cast(), iov_len: packet })
        .collect();
    let mut headers: Vec<libc::mmsghdr> = vectors
        .iter_mut()
        .map(|vector| {
            // SAFETY: all zeros is a message header without name, control data and buffers.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_name = (&raw mut *target).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header
        })
        .collect();
    // SAFETY: every header points to the target and to one vector, and that to a buffer of its length; all outlive
    // the call.
    let result = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), headers.len() as u32, 0) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn cpu_seconds() -> f64 {
    let mut spec = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: spec is a valid timespec to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut spec) };
    spec.tv_sec as f64 + spec.tv_nsec as f64 / 1e9
}
