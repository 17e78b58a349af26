//! What happened to the whole machine behind our back: it slept, or it is a copy, running on from a snapshot.
//!
//! After a sleep the peers must hear where this host is. A copy shares its session keys and counters with the machine
//! it was copied from, and must never use them again. Some kernels tell of a new VM generation (vmgenid) by a uevent of
//! the device with `NEW_VMGENID=1`, all of a sleep, as of every step of the wall clock, by
//! cancelling a timer that asked for it. The step alone changes nothing: all timers here run on the time since boot.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::log;
use crate::sys::{self, check, check_size};
use crate::time::seconds;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interruption {
    Suspend,
    Snapshot,
}

/// Uevents of the kernel.
pub struct Uevents(OwnedFd);

impl Uevents {
    pub fn open() -> io::Result<Uevents> {
        let fd = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT)?;
        // SAFETY: all-zero bytes are a valid sockaddr_nl, and the length passed is its size.
        unsafe {
            let mut address: libc::sockaddr_nl = std::mem::zeroed();
            address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
            address.nl_groups = KERNEL_UEVENTS;
            check(libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_nl>() as libc::socklen_t,
            ))?;
        }
        Ok(Uevents(fd))
    }

    /// Reads what has come. True if this machine has become a copy.
    pub fn poll(&mut self) -> bool {
        let mut found = false;
        while let Ok(uevent) = self.receive() {
            found |= uevent.is_some_and(|uevent| is_new_generation(&uevent));
        }
        found
    }

    /// `None`: not from the kernel. The sender of a multicast of a process is not 0.
    fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0u8; MAX_UEVENT];
        // SAFETY: all-zero bytes are a valid sockaddr_nl.
        let mut sender: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: the buffer and the address are valid for writes of the lengths passed.
        let size = check_size(unsafe {
            libc::recvfrom(
                self.0.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
                (&raw mut sender).cast(),
                &mut length,
            )
        })?;
        buffer.truncate(size);
        Ok((sender.nl_pid == 0).then_some(buffer))
    }
}

impl AsRawFd for Uevents {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Notices that the machine slept.
pub struct SleepWatch {
    timer: OwnedFd,
    slept: Duration,
}

impl SleepWatch {
    pub fn open() -> io::Result<SleepWatch> {
        // SAFETY: no pointers are passed; the descriptor returned is new and owned by nobody else.
        let timer = unsafe {
            let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
            OwnedFd::from_raw_fd(check(libc::timerfd_create(libc::CLOCK_REALTIME, flags))?)
        };
        let watch = SleepWatch { timer, slept: slept() };
        watch.arm()?;
        Ok(watch)
    }

    /// How long the machine slept since the last call, if it did.
    pub fn poll(&mut self) -> Option<Duration> {
        let mut expirations = [0u8; 8];
        // SAFETY: the buffer is valid for writes of its length.
        unsafe { libc::read(self.timer.as_raw_fd(), expirations.as_mut_ptr().cast(), expirations.len()) };
        if let Err(error) = self.arm() {
            log::warn("sleep is not noticed any more", &[("error", &error)]);
        }
        let before = std::mem::replace(&mut self.slept, slept());
        slept_between(before, self.slept)
    }

    /// Far in the future, but cancelled when the clock is set, and when the machine wakes up.
    fn arm(&self) -> io::Result<()> {
        let at = libc::timespec { tv_sec: i64::from(u32::MAX), tv_nsec: 0 };
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = libc::itimerspec { it_interval: never, it_value: at };
        let flags = libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET;
        // SAFETY: setting is a valid itimerspec, and the old one is not asked for.
        check(unsafe { libc::timerfd_settime(self.timer.as_raw_fd(), flags, &setting, std::ptr::null_mut()) }).map(drop)
    }
}

impl AsRawFd for SleepWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}

/// A uevent is `ACTION@DEVPATH`, then `NAME=VALUE` each, separated by NUL.
fn is_new_generation(uevent: &[u8]) -> bool {
    uevent.split(|octet| *octet == 0).any(|part| part == b"NEW_VMGENID=1")
}

/// What clocks that count sleep and those that do not differ by.
fn slept() -> Duration {
    sys::clock(libc::CLOCK_BOOTTIME).saturating_sub(sys::clock(libc::CLOCK_MONOTONIC))
}

/// The two clocks are not read at the same moment.
fn slept_between(before: Duration, after: Duration) -> Option<Duration> {
    let slept = after.saturating_sub(before);
    (slept >= SHORTEST_SLEEP).then_some(slept)
}

const KERNEL_UEVENTS: u32 = 1;
const MAX_UEVENT: usize = 8192;
const SHORTEST_SLEEP: Duration = seconds(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::millis;

    #[test]
    fn a_uevent_of_a_new_generation_is_known_by_its_variable() {
        let vmgenid =
            b"change@/devices/platform/QEMUVGID:00\0ACTION=change\0SUBSYSTEM=platform\0NEW_VMGENID=1\0SEQNUM=7\0";
        assert!(is_new_generation(vmgenid));
        assert!(!is_new_generation(b"change@/devices/platform/QEMUVGID:00\0ACTION=change\0NEW_VMGENID=10\0"));
        assert!(!is_new_generation(b"add@/devices/NEW_VMGENID=1x\0ACTION=add\0"));
        assert!(!is_new_generation(b""));
    }

    #[test]
    fn a_sleep_is_a_second_at_least() {
        assert_eq!(slept_between(seconds(5), seconds(65)), Some(seconds(60)));
        assert_eq!(slept_between(seconds(5), seconds(5) + millis(3)), None);
        assert_eq!(slept_between(seconds(5), seconds(4)), None);
    }

    #[test]
    fn a_machine_that_did_not_sleep_is_not_said_to_have() {
        let mut watch = SleepWatch::open().unwrap();
        assert_eq!(watch.poll(), None);
    }
}
