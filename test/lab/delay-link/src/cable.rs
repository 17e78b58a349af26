//! A cable between two network namespaces that takes time, and with which things go wrong.
//!
//! Both ends are TAP devices with the kernel's offloads on, and frames are passed on as they come, superpackets whole.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

/// How many of a million frames meet with what.
#[derive(Clone, Copy, Default)]
pub struct Trouble {
    pub loss: u32,
    pub duplicates: u32,
    /// Late by up to four times the delay, so that others overtake them.
    pub late: u32,
    /// One bit is another one, anywhere behind the Ethernet header.
    pub damaged: u32,
}

pub struct Cable {
    taps: [File; 2],
    /// Frames on their way to each end, in the order of their arrival.
    queues: [VecDeque<(Instant, Vec<u8>)>; 2],
    spare: Vec<Vec<u8>>,
    incoming: Box<[u8]>,
    delay: Duration,
    trouble: Trouble,
    random: Random,
}

impl Cable {
    /// Makes both interfaces, which are down.
    pub fn lay(a: &str, b: &str, delay: Duration, trouble: Trouble) -> io::Result<Cable> {
        let random = Random(0x9e37_79b9_7f4a_7c15);
        let taps = [open_tap(a)?, open_tap(b)?];
        let incoming = vec![0; FRAME].into();
        Ok(Cable { taps, queues: Default::default(), spare: Vec::new(), incoming, delay, trouble, random })
    }

    /// Until one of the interfaces goes.
    pub fn run(&mut self) -> io::Result<()> {
        loop {
            self.wait()?;
            for from in 0..2 {
                match self.take_in(from) {
                    Err(error) if error.raw_os_error() == Some(libc::EBADFD) => return Ok(()),
                    result => result?,
                }
                self.let_out(1 - from);
            }
        }
    }

    /// Until there is something to take in or to let out.
    fn wait(&self) -> io::Result<()> {
        let next = self.queues.iter().filter_map(|q| q.front()).map(|(at, _)| *at).min();
        let timeout = next.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            libc::timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
        });
        let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let mut fds =
            self.taps.each_ref().map(|tap| libc::pollfd { fd: tap.as_raw_fd(), events: libc::POLLIN, revents: 0 });
        // SAFETY: `fds` and `timeout` live across the call; the signal mask may be null.
        let count = unsafe { libc::ppoll(fds.as_mut_ptr(), 2, timeout, std::ptr::null()) };
        if count < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn take_in(&mut self, from: usize) -> io::Result<()> {
        for _ in 0..BATCH {
            let length = match self.taps[from].read(&mut self.incoming) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The interface is down.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(()),
                Err(error) => return Err(error),
            };
            if self.queues[1 - from].len() >= QUEUE || self.random.hits(self.trouble.loss) {
                continue;
            }
            let mut frame = self.spare.pop().unwrap_or_default();
            frame.clear();
            frame.extend_from_slice(&self.incoming[..length]);
            if self.random.hits(self.trouble.duplicates) {
                self.queue(1 - from, frame.clone());
            }
            if self.random.hits(self.trouble.damaged) && frame.len() > HEADERS {
                let at = HEADERS + self.random.next() as usize % (frame.len() - HEADERS);
                frame[at] ^= 1 << (self.random.next() % 8);
            }
            self.queue(1 - from, frame);
        }
        Ok(())
    }

    fn queue(&mut self, to: usize, frame: Vec<u8>) {
        let mut arrival = Instant::now() + self.delay;
        if self.random.hits(self.trouble.late) {
            arrival += self.delay.mul_f64((1 + self.random.next() % 400) as f64 / 100.0);
        }
        let queue = &mut self.queues[to];
        let place = queue.partition_point(|(at, _)| *at <= arrival);
        queue.insert(place, (arrival, frame));
    }

    fn let_out(&mut self, to: usize) {
        let now = Instant::now();
        while self.queues[to].front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, frame)) = self.queues[to].pop_front() else { return };
            // What the interface does not take is lost, as on a cable.
            let _ = self.taps[to].write(&frame);
            if self.spare.len() < SPARE {
                self.spare.push(frame);
            }
        }
    }
}

/// xorshift64*: what happens to the frames is the same in each run.
struct Random(u64);

impl Random {
    /// `share` of a million times.
    fn hits(&mut self, share: u32) -> bool {
        share > 0 && self.next() % 1_000_000 < u64::from(share)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 20
    }
}

/// `place`: `/path/of/namespace=interface`.
fn open_tap(place: &str) -> io::Result<File> {
    let (namespace, interface) = place.split_once('=').ok_or(io::Error::other(format!("{place}: no `=`")))?;
    // A thread of its own, as it ends in another namespace.
    let opened = thread::scope(|scope| scope.spawn(|| open_tap_in(namespace, interface)).join());
    opened.map_err(|_| io::Error::other("opening a TAP panicked"))?
}

fn open_tap_in(namespace: &str, interface: &str) -> io::Result<File> {
    let namespace = File::open(namespace)?;
    // SAFETY: the descriptor is open.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })?;
    let path = CString::new("/dev/net/tun")?;
    // SAFETY: `path` is a C string.
    let fd = check(unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC) })?;
    // SAFETY: `fd` was just opened and is owned by nobody else.
    let tap = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    // SAFETY: the kernel reads and writes one ifreq.
    check(unsafe { libc::ioctl(fd, libc::TUNSETIFF, &mut request) })?;
    for offloads in [OFFLOADS | USO, OFFLOADS, 0] {
        // SAFETY: this request takes a number.
        if unsafe { libc::ioctl(fd, libc::TUNSETOFFLOAD, offloads) } == 0 {
            break;
        }
    }
    set_queue(&mut request)?;
    Ok(tap)
}

/// What the interface keeps until it is taken in: a thousand hosts behind it may speak at once.
fn set_queue(request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    let fd = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: `fd` was just opened and is owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    request.ifr_ifru.ifru_metric = QUEUE as libc::c_int;
    // SAFETY: the kernel reads one ifreq; ifr_qlen is where ifr_metric is.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFTXQLEN as _, request) })?;
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6
const OFFLOADS: libc::c_ulong = 0x07;
/// TUN_F_USO4 | TUN_F_USO6
const USO: libc::c_ulong = 0x60;
/// The kernel's vnet header and Ethernet's.
const HEADERS: usize = 10 + 14;
const FRAME: usize = 65_536 + 128;
const BATCH: usize = 32;
const QUEUE: usize = 4096;
const SPARE: usize = 512;
