//! `stayput-blaster`: how many small UDP datagrams a path delivers in a second.
//!
//! The sender fills the path for a fixed time and does not wait for anybody; the receiver counts what arrives between
//! the first datagram and the last. Both take many datagrams per system call, so that the path is the limit and not
//! the program. A datagram starts with a number of the run and its own number, so strays are not counted, and loss
//! and disorder can be told. With ADDRESSES they go to so many from ADDRESS on, in an order that no cache foresees.

use std::io;
use std::mem::size_of;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const USAGE: &str = "\
usage: stayput-blaster send ADDRESS:PORT BYTES SECONDS RUN [ADDRESSES]
       stayput-blaster receive ADDRESS:PORT BYTES LIMIT-SECONDS RUN";

const SEND_BATCH: usize = 32;
const RECEIVE_BATCH: usize = 64;
/// Both sides have a place for the run's number and the datagram's own.
const HEADER: usize = 16;
const LARGEST: usize = 1472;
/// The run is over when nothing has arrived for this long.
const SILENCE: Duration = Duration::from_millis(500);
/// A prime larger than any number of addresses: each has its turn.
const STRIDE: u64 = 2_654_435_761;
const RECEIVE_BUFFER: libc::c_int = 16 << 20;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = Task::parse(&words).and_then(|task| task.run().map_err(|error| error.to_string()));
    match result {
        Ok(line) => println!("{line}"),
        Err(problem) => {
            eprintln!("stayput-blaster: {problem}");
            std::process::exit(1);
        }
    }
}

struct Task {
    send: bool,
    address: SocketAddrV4,
    bytes: usize,
    time: Duration,
    run: u64,
    /// Of the receiver, from `address` on; none: the socket is connected to the one.
    addresses: Option<u32>,
}

impl Task {
    fn parse(words: &[String]) -> Result<Task, String> {
        let (verb, address, bytes, seconds, run, addresses) = match words {
            [verb, address, bytes, seconds, run] => (verb, address, bytes, seconds, run, None),
            [verb, address, bytes, seconds, run, addresses] => (verb, address, bytes, seconds, run, Some(addresses)),
            _ => return Err(USAGE.to_string()),
        };
        let send = match verb.as_str() {
            "send" => true,
            "receive" if addresses.is_none() => false,
            _ => return Err(USAGE.to_string()),
        };
        let addresses = addresses
            .map(|text| text.parse().ok().filter(|n| (1..=1 << 22).contains(n)))
            .map_or(Ok(None), |count: Option<u32>| count.map(Some).ok_or("ADDRESSES must be 1 to 4194304"))?;
        let address = address.parse().map_err(|_| format!("{address} is not an IPv4 address with a port"))?;
        let bytes = bytes.parse().ok().filter(|bytes| (HEADER..=LARGEST).contains(bytes));
        let bytes = bytes.ok_or(format!("BYTES must be {HEADER} to {LARGEST}"))?;
        let seconds: f64 =
            seconds.parse().ok().filter(|s| (0.1..=600.0).contains(s)).ok_or("SECONDS must be 0.1 to 600")?;
        let run = run.parse().map_err(|_| "RUN must be a number")?;
        Ok(Task { send, address, bytes, time: Duration::from_secs_f64(seconds), run, addresses })
    }

    fn run(&self) -> io::Result<String> {
        if self.send { self.blast() } else { self.count() }
    }

    fn blast(&self) -> io::Result<String> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        let mut batch = Batch::new(SEND_BATCH, self.bytes);
        match self.addresses {
            None => socket.connect(self.address)?,
            Some(_) => batch.address_each(self.address.port()),
        }
        let started = Instant::now();
        let (mut sent, mut refused, mut next) = (0u64, 0u64, 0u64);
        while started.elapsed() < self.time {
            for slot in 0..SEND_BATCH {
                let datagram = batch.datagram(slot);
                datagram[..8].copy_from_slice(&self.run.to_be_bytes());
                datagram[8..HEADER].copy_from_slice(&(next + slot as u64).to_be_bytes());
                if let Some(addresses) = self.addresses {
                    let offset = (next + slot as u64).wrapping_mul(STRIDE) % u64::from(addresses);
                    batch.set_address(slot, u32::from(*self.address.ip()) + offset as u32);
                }
            }
            match batch.send(&socket) {
                Ok(count) => {
                    sent += count as u64;
                    next += count as u64;
                }
                Err(error) if is_passing(&error) => refused += 1,
                Err(error) => return Err(error),
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        Ok(format!(r#"{{"type":"sent","sent":{sent},"refused":{refused},"seconds":{seconds:.6}}}"#))
    }

    fn count(&self) -> io::Result<String> {
        let socket = UdpSocket::bind(self.address)?;
        grow_receive_buffer(&socket);
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        println!(r#"{{"type":"ready"}}"#);
        let mut batch = Batch::new(RECEIVE_BATCH, self.bytes);
        let deadline = Instant::now() + self.time;
        let (mut received, mut disordered, mut strays, mut highest) = (0u64, 0u64, 0u64, None::<u64>);
        let (mut first, mut last) = (None::<Instant>, Instant::now());
        loop {
            let count = match batch.receive(&socket) {
                Ok(count) => count,
                Err(error) if is_passing(&error) => 0,
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            for slot in 0..count {
                if batch.length(slot) != self.bytes || number(&batch.datagram(slot)[..8]) != self.run {
                    strays += 1;
                    continue;
                }
                let this = number(&batch.datagram(slot)[8..HEADER]);
                received += 1;
                if highest.is_some_and(|highest| this < highest) {
                    disordered += 1;
                } else {
                    highest = Some(this);
                }
                first.get_or_insert(now);
                last = now;
            }
            if now >= deadline || (first.is_some() && now - last > SILENCE) {
                break;
            }
        }
        let seconds = first.map_or(0.0, |first| (last - first).as_secs_f64());
        Ok(format!(
            r#"{{"type":"received","received":{received},"disordered":{disordered},"strays":{strays},"seconds":{seconds:.6}}}"#
        ))
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Full queues and a receiver that is not there (yet) are part of the measurement.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted | ConnectionRefused)
        || error.raw_os_error() == Some(libc::ENOBUFS)
}

/// Beyond net.core.rmem_max where the rights are there, otherwise what the system allows.
fn grow_receive_buffer(socket: &UdpSocket) {
    let size = RECEIVE_BUFFER;
    for option in [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF] {
        // SAFETY: the option's value is a c_int that lives through the call.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const size).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result == 0 {
            return;
        }
    }
}

/// Buffers, and the headers that point into them, for one system call. The buffers never move.
struct Batch {
    bytes: usize,
    buffers: Box<[u8]>,
    _vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    /// Where each datagram goes, with a socket that is not connected.
    names: Box<[libc::sockaddr_in]>,
}

impl Batch {
    fn new(count: usize, bytes: usize) -> Batch {
        let mut buffers = vec![0u8; count * bytes].into_boxed_slice();
        let mut vectors: Box<[libc::iovec]> = buffers
            .chunks_exact_mut(bytes)
            .map(|chunk| libc::iovec { iov_base: chunk.as_mut_ptr().cast(), iov_len: bytes })
            .collect();
        let headers = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: all zeroes is a message header without name, control data and buffers.
                let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
                header.msg_hdr.msg_iov = vector;
                header.msg_hdr.msg_iovlen = 1;
                header
            })
            .collect();
        Batch { bytes, buffers, _vectors: vectors, headers, names: Box::default() }
    }

    fn address_each(&mut self, port: u16) {
        // SAFETY: all zeroes is an IPv4 address.
        let mut name: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        name.sin_family = libc::AF_INET as libc::sa_family_t;
        name.sin_port = port.to_be();
        self.names = vec![name; self.headers.len()].into_boxed_slice();
        for (header, name) in self.headers.iter_mut().zip(&mut self.names) {
            header.msg_hdr.msg_name = (&raw mut *name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        }
    }

    fn set_address(&mut self, slot: usize, address: u32) {
        self.names[slot].sin_addr.s_addr = address.to_be();
    }

    fn datagram(&mut self, slot: usize) -> &mut [u8] {
        &mut self.buffers[slot * self.bytes..(slot + 1) * self.bytes]
    }

    fn length(&self, slot: usize) -> usize {
        self.headers[slot].msg_len as usize
    }

    fn send(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        // SAFETY: every header points to one vector, and that to a buffer of its length, and to its name if it has one; all
        // outlive the call.
        let result =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), self.headers.len() as u32, 0) };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }

    fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        // SAFETY: as in send; without MSG_WAITFORONE the call would wait for a whole batch.
        let result = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as u32,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }
}
