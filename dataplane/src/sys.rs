//! Small safe covers over libc that several modules use.

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::time::Time;

/// Turns -1 into errno.
pub fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub fn check_size(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

pub fn now() -> Time {
    Time::from_nanos(clock(libc::CLOCK_BOOTTIME).as_nanos() as u64)
}

pub fn clock(id: libc::clockid_t) -> Duration {
    let mut spec = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: spec is a valid timespec to write to.
    unsafe { libc::clock_gettime(id, &mut spec) };
    Duration::new(spec.tv_sec as u64, spec.tv_nsec as u32)
}

/// Lets the kernel have what the allocator holds but nobody uses.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Nobody finds the keys in what a crash leaves behind, and no other process of the user may look into this one.
pub fn forbid_core_dumps() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit lives through the call, and prctl takes numbers here.
    unsafe {
        check(libc::setrlimit(libc::RLIMIT_CORE, &none))?;
        check(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0))?;
    }
    Ok(())
}

pub fn socket(family: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed; the descriptor returned is new and owned by nobody else.
    unsafe {
        let fd = check(libc::socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Sets an option whose value is plain data.
pub fn set_option<T: Copy>(fd: &impl AsRawFd, level: c_int, name: c_int, value: T) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which lives through the call.
    let result = unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), size_of::<T>() as libc::socklen_t)
    };
    check(result).map(drop)
}

pub fn get_option_int(fd: &impl AsRawFd, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: value and length are valid for writes of the sizes given.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &mut length) };
    check(result).map(|_| value)
}

/// How many packets the kernel had no room for in a socket's receive buffer, modulo 2^32.
pub fn dropped(fd: &impl AsRawFd) -> io::Result<u32> {
    let mut values = [0u32; SK_MEMINFO_DROPS + 1];
    let mut length = size_of_val(&values) as libc::socklen_t;
    let start = values.as_mut_ptr().cast();
    // SAFETY: values and length are valid for writes of the sizes given.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, start, &mut length) };
    check(result).map(|_| values[SK_MEMINFO_DROPS])
}

pub fn bind(fd: &impl AsRawFd, address: SocketAddr) -> io::Result<()> {
    let raw = RawAddress::from(address);
    // SAFETY: raw holds a socket address of the length given.
    check(unsafe { libc::bind(fd.as_raw_fd(), raw.pointer(), raw.length()) }).map(drop)
}

pub fn connect(fd: &impl AsRawFd, address: SocketAddr) -> io::Result<()> {
    let raw = RawAddress::from(address);
    // SAFETY: raw holds a socket address of the length given.
    check(unsafe { libc::connect(fd.as_raw_fd(), raw.pointer(), raw.length()) }).map(drop)
}

/// The address that a socket is bound to.
pub fn local_address(fd: &impl AsRawFd) -> Option<SocketAddr> {
    let mut raw = RawAddress::empty();
    let mut length = raw.length();
    // SAFETY: raw has room for an address of the length given, which the kernel respects.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), raw.pointer_mut().cast(), &mut length) }).ok()?;
    raw.decode()
}

/// A socket address as the kernel wants it.
#[derive(Clone, Copy)]
pub struct RawAddress {
    storage: libc::sockaddr_storage,
    length: libc::socklen_t,
}

impl RawAddress {
    pub fn empty() -> RawAddress {
        // SAFETY: all-zero bytes are a valid sockaddr_storage.
        let storage = unsafe { std::mem::zeroed() };
        RawAddress { storage, length: size_of::<libc::sockaddr_storage>() as libc::socklen_t }
    }

    pub fn pointer(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    pub fn pointer_mut(&mut self) -> *mut libc::sockaddr {
        (&raw mut self.storage).cast()
    }

    pub fn length(&self) -> libc::socklen_t {
        self.length
    }

    pub fn decode(&self) -> Option<SocketAddr> {
        match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says that this is a sockaddr_in, which fits the storage.
                let raw = unsafe { &*(&raw const self.storage).cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
                Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(raw.sin_port)))
            }
            libc::AF_INET6 => {
                // SAFETY: the family says that this is a sockaddr_in6, which fits the storage.
                let raw = unsafe { &*(&raw const self.storage).cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
                Some(SocketAddr::V6(SocketAddrV6::new(ip, u16::from_be(raw.sin6_port), 0, 0)))
            }
            _ => None,
        }
    }
}

impl From<SocketAddr> for RawAddress {
    fn from(address: SocketAddr) -> RawAddress {
        let mut raw = RawAddress::empty();
        match address {
            SocketAddr::V4(v4) => {
                // SAFETY: sockaddr_in fits sockaddr_storage and is plain data.
                let to = unsafe { &mut *(&raw mut raw.storage).cast::<libc::sockaddr_in>() };
                write_v4(to, v4);
                raw.length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            }
            SocketAddr::V6(v6) => {
                // SAFETY: sockaddr_in6 fits sockaddr_storage and is plain data.
                let to = unsafe { &mut *(&raw mut raw.storage).cast::<libc::sockaddr_in6>() };
                to.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                to.sin6_port = v6.port().to_be();
                to.sin6_addr.s6_addr = v6.ip().octets();
                to.sin6_scope_id = v6.scope_id();
                raw.length = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            }
        }
        raw
    }
}

fn write_v4(to: &mut libc::sockaddr_in, v4: SocketAddrV4) {
    to.sin_family = libc::AF_INET as libc::sa_family_t;
    to.sin_port = v4.port().to_be();
    to.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
}

#[derive(Clone, Copy)]
pub struct Readiness {
    pub token: u64,
    /// An error waits, on a UDP socket in its error queue.
    pub error: bool,
}

/// What one waits for at a descriptor. The end of the other side is told in any case: once if nothing is to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    pub readable: bool,
    pub writable: bool,
}

/// Level-triggered epoll; tokens are the caller's.
pub struct Poller {
    fd: OwnedFd,
}

impl Poller {
    pub fn new() -> io::Result<Poller> {
        // SAFETY: no pointers are passed; the descriptor returned is new and owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Poller { fd })
    }

    pub fn add(&self, fd: &impl AsRawFd, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN as u32, token)
    }

    /// Says once that something is there, and no more until `rearm`.
    pub fn add_once(&self, fd: &impl AsRawFd, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, ONCE, token)
    }

    pub fn rearm(&self, fd: &impl AsRawFd, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, ONCE, token)
    }

    pub fn set_interest(&self, fd: &impl AsRawFd, token: u64, interest: Interest) -> io::Result<()> {
        let flag = |wanted: bool, event: c_int| if wanted { event as u32 } else { 0 };
        // Whoever reads nothing now can do nothing about the end, of which the kernel would tell again and again.
        let told = flag(!interest.readable, libc::EPOLLET);
        let events = flag(interest.readable, libc::EPOLLIN) | flag(interest.writable, libc::EPOLLOUT) | told;
        self.control(libc::EPOLL_CTL_MOD, fd, events, token)
    }

    fn control(&self, operation: c_int, fd: &impl AsRawFd, events: u32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: event is valid through the call.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd.as_raw_fd(), &mut event) }).map(drop)
    }

    /// Waits at most `timeout` (rounded up to milliseconds) and returns what is ready.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<Readiness>> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 32];
        let millis = timeout.map_or(-1, |t| t.as_nanos().div_ceil(1_000_000).min(60_000) as c_int);
        // SAFETY: events is valid for writes of the count given.
        let count =
            unsafe { libc::epoll_wait(self.fd.as_raw_fd(), events.as_mut_ptr(), events.len() as c_int, millis) };
        match check(count) {
            Ok(count) => {
                let ready = events[..count as usize].iter();
                Ok(ready.map(|e| Readiness { token: e.u64, error: e.events & libc::EPOLLERR as u32 != 0 }).collect())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// SIGTERM and SIGINT as a descriptor to poll; SIGPIPE is ignored by the runtime.
pub fn termination_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before use; the descriptor returned is new.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::sigaddset(&mut set, libc::SIGINT);
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()))?;
        let fd = check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

pub fn group_id(name: &str) -> Option<u32> {
    if let Ok(id) = name.parse() {
        return Some(id);
    }
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

/// Kept open, since the sandbox hides the file.
pub struct ResidentMemory(Option<File>);

impl ResidentMemory {
    pub fn open() -> ResidentMemory {
        ResidentMemory(File::open("/proc/self/statm").ok())
    }

    /// 0 when it cannot be told.
    pub fn bytes(&self) -> u64 {
        let mut buffer = [0; 128];
        let length = self.0.as_ref().and_then(|file| file.read_at(&mut buffer, 0).ok()).unwrap_or(0);
        let text = std::str::from_utf8(&buffer[..length]).unwrap_or("");
        let pages: Option<u64> = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
        pages.unwrap_or(0) * 4096
    }
}

const ONCE: u32 = (libc::EPOLLIN | libc::EPOLLONESHOT) as u32;
/// The place of a count in what SO_MEMINFO gives (linux/sock_diag.h).
const SK_MEMINFO_DROPS: usize = 8;

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_end_of_the_other_side_is_told_once_while_nothing_is_to_be_read() {
        let (own, other) = UnixStream::pair().expect("pair");
        let poller = Poller::new().expect("epoll");
        poller.add(&own, 7).expect("add");
        drop(other);
        let ready = || poller.wait(Some(Duration::ZERO)).expect("wait").len();
        poller.set_interest(&own, 7, Interest { readable: false, writable: false }).expect("interest");
        assert_eq!([ready(), ready()], [1, 0]);
        poller.set_interest(&own, 7, Interest { readable: true, writable: false }).expect("interest");
        assert_eq!([ready(), ready()], [1, 1]);
    }
}
