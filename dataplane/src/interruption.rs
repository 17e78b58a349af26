//! What happened to the whole machine behind our back: it slept, or it is a copy, running on from a snapshot.
//!
//! After a sleep the peers must hear where this host is. A copy shares its session keys and counters with the machine
//! it was copied from, and must never use them again. Some kernels tell of a new VM generation (vmgenid) by a uevent of
//! the device with `NEW_VMGENID=1`; all from 5.18 on say in their log that they reseed their random numbers for it,
//! which takes the right to read that; who hears both acts once. Of a sleep all tell, as of every step of the wall clock, by cancelling a timer
//! that asked for it. A clock that was put ahead is a hint: a copy begins with the time of its original, until somebody
//! corrects it. No timer here depends on the wall clock.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use crate::log;
use crate::sys::{self, check, check_size};
use crate::time::{Time, seconds};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interruption {
    Suspend,
    Snapshot,
    /// The wall clock was put ahead: perhaps a snapshot, more often not.
    ClockAhead,
}

/// Who tells of a new VM generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Teller {
    Uevent,
    KernelLog,
}

/// Of two tellers of the same new generation the second says nothing new.
#[derive(Default)]
pub struct Generations {
    /// The other teller has not spoken of that one.
    untold: Option<(Teller, Time)>,
}

impl Generations {
    /// True if this machine has become a copy since the last call.
    pub fn told(&mut self, by: Teller, now: Time) -> bool {
        let same = self.untold.is_some_and(|(first, at)| first != by && now.since(at) < BETWEEN_TELLERS);
        self.untold = if same { None } else { Some((by, now)) };
        !same
    }
}

/// Of two tellers of the same waking, the clocks and the agent, the second says nothing new.
#[derive(Default)]
pub struct Wakings {
    last: Option<Time>,
}

impl Wakings {
    /// True if the machine has slept since the last call.
    pub fn told(&mut self, now: Time) -> bool {
        let same = self.last.is_some_and(|last| now.since(last) < SAME_WAKING);
        if !same {
            self.last = Some(now);
        }
        !same
    }

    /// The machine is about to sleep: what is told next is a waking from that.
    pub fn await_next(&mut self) {
        self.last = None;
    }
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

/// The kernel's log.
pub struct KernelLog(File);

impl KernelLog {
    /// From now on.
    pub fn open() -> io::Result<KernelLog> {
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(KernelLog(file))
    }

    /// Reads what has come, or some of much. True if this machine has become a copy.
    pub fn poll(&mut self) -> bool {
        let mut found = false;
        let mut record = [0u8; MAX_RECORD];
        for _ in 0..RECORDS_AT_ONCE {
            match self.0.read(&mut record) {
                Ok(0) => break,
                Ok(length) => found |= is_of_a_copy(&record[..length]),
                // Records were overwritten before they were read; the next call gives the oldest there is.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(_) => break,
            }
        }
        found
    }
}

impl AsRawFd for KernelLog {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Notices that the machine slept, or that its wall clock was put ahead.
pub struct ClockWatch {
    timer: OwnedFd,
    clocks: Clocks,
}

/// What clocks differ by.
#[derive(Clone, Copy)]
struct Clocks {
    /// The one that counts sleep from the one that does not.
    slept: Duration,
    /// The wall clock from the one that counts sleep.
    wall: Duration,
}

impl ClockWatch {
    pub fn open() -> io::Result<ClockWatch> {
        // SAFETY: no pointers are passed; the descriptor returned is new and owned by nobody else.
        let timer = unsafe {
            let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
            OwnedFd::from_raw_fd(check(libc::timerfd_create(libc::CLOCK_REALTIME, flags))?)
        };
        let watch = ClockWatch { timer, clocks: Clocks::read() };
        watch.arm()?;
        Ok(watch)
    }

    /// What happened since the last call, if something did.
    pub fn poll(&mut self) -> Option<Interruption> {
        let mut expirations = [0u8; 8];
        // SAFETY: the buffer is valid for writes of its length.
        unsafe { libc::read(self.timer.as_raw_fd(), expirations.as_mut_ptr().cast(), expirations.len()) };
        if let Err(error) = self.arm() {
            log::warn("sleep is not noticed any more", &[("error", &error)]);
        }
        let before = std::mem::replace(&mut self.clocks, Clocks::read());
        self.clocks.interruption_since(before)
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

impl AsRawFd for ClockWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}

/// A uevent is `ACTION@DEVPATH`, then `NAME=VALUE` each, separated by NUL.
fn is_new_generation(uevent: &[u8]) -> bool {
    uevent.split(|octet| *octet == 0).any(|part| part == b"NEW_VMGENID=1")
}

/// A record is `PRIORITY,NUMBER,MICROSECONDS,FLAGS…;TEXT`. What processes write there has another facility than 0.
fn is_of_a_copy(record: &[u8]) -> bool {
    let Some(end) = record.iter().position(|octet| *octet == b';') else { return false };
    let (head, text) = (&record[..end], &record[end + 1..]);
    let priority =
        head.split(|octet| *octet == b',').next().and_then(|part| std::str::from_utf8(part).ok()?.parse::<u32>().ok());
    priority.is_some_and(|priority| priority >> FACILITY_SHIFT == 0) && text.trim_ascii_end() == RESEEDED
}

impl Clocks {
    fn read() -> Clocks {
        let since_boot = sys::clock(libc::CLOCK_BOOTTIME);
        Clocks {
            slept: since_boot.saturating_sub(sys::clock(libc::CLOCK_MONOTONIC)),
            wall: sys::clock(libc::CLOCK_REALTIME).saturating_sub(since_boot),
        }
    }

    /// The clocks are not read at the same moment.
    fn interruption_since(self, before: Clocks) -> Option<Interruption> {
        if self.slept.saturating_sub(before.slept) >= SHORTEST_SLEEP {
            return Some(Interruption::Suspend);
        }
        (self.wall.saturating_sub(before.wall) >= SHORTEST_STEP).then_some(Interruption::ClockAhead)
    }
}

/// The kernel tells both at once, but this process may be kept from reading.
const BETWEEN_TELLERS: Duration = seconds(5);
/// The agent hears of it from a program that is started only then.
const SAME_WAKING: Duration = seconds(10);
const KERNEL_UEVENTS: u32 = 1;
const MAX_UEVENT: usize = 8192;
const SHORTEST_SLEEP: Duration = seconds(1);
/// Time services correct less all the time.
const SHORTEST_STEP: Duration = seconds(5);
const MAX_RECORD: usize = 8192;
const RECORDS_AT_ONCE: usize = 64;
const FACILITY_SHIFT: u32 = 3;
const RESEEDED: &[u8] = b"random: crng reseeded due to virtual machine fork";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::millis;

    #[test]
    fn a_new_generation_counts_once_whoever_tells_of_it() {
        use Teller::{KernelLog as Log, Uevent};
        for (what, told) in [
            ("both", vec![(Uevent, 0, true), (Log, 3, false)]),
            ("the other first", vec![(Log, 0, true), (Uevent, 0, false)]),
            ("two by both", vec![(Uevent, 0, true), (Log, 1, false), (Uevent, 900, true), (Log, 901, false)]),
            ("two at once, then their other halves", vec![(Log, 0, true), (Log, 500, true), (Uevent, 501, false)]),
            ("by one only", vec![(Log, 0, true), (Log, 1, true), (Log, 60_000, true)]),
            ("long ago by the other", vec![(Uevent, 0, true), (Log, 60_000, true)]),
        ] {
            let mut generations = Generations::default();
            for (by, at, new) in told {
                assert_eq!(generations.told(by, Time::from_millis(at)), new, "{what}");
            }
        }
    }

    #[test]
    fn a_waking_counts_once_whoever_tells_of_it() {
        let (mut wakings, at) = (Wakings::default(), Time::from_millis);
        assert!(wakings.told(at(1000)) && !wakings.told(at(1400)), "the clocks and the agent");
        assert!(wakings.told(at(61_000)) && !wakings.told(at(63_000)), "after another sleep");
        wakings.await_next();
        assert!(wakings.told(at(64_000)) && !wakings.told(at(64_100)), "after a short one that was told of before");
    }

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
    fn the_word_of_the_kernel_in_its_log_is_not_that_of_a_process() {
        assert!(is_of_a_copy(b"5,812,91827364,-;random: crng reseeded due to virtual machine fork\n"));
        assert!(is_of_a_copy(b"5,812,91827364,-,caller=T1;random: crng reseeded due to virtual machine fork\n"));
        let others: [&[u8]; 5] = [
            b"13,812,91827364,-;random: crng reseeded due to virtual machine fork\n",
            b"5,812,91827364,-;random: crng reseeded due to virtual machine fork of another\n",
            b"5,812,91827364,-;random: crng init done\n",
            b"x;random: crng reseeded due to virtual machine fork\n",
            b"",
        ];
        assert!(others.iter().all(|other| !is_of_a_copy(other)));
    }

    #[test]
    fn a_sleep_is_a_second_at_least_and_a_step_of_the_clock_five_ahead() {
        let clocks = |slept, wall| Clocks { slept, wall };
        let before = clocks(seconds(5), seconds(1000));
        for (after, found) in [
            (clocks(seconds(65), seconds(1000)), Some(Interruption::Suspend)),
            (clocks(seconds(5) + millis(3), seconds(1000)), None),
            (clocks(seconds(4), seconds(1000)), None),
            (clocks(seconds(5), seconds(1005)), Some(Interruption::ClockAhead)),
            (clocks(seconds(5), seconds(1004)), None),
            (clocks(seconds(5), seconds(3)), None),
            (clocks(seconds(65), seconds(9000)), Some(Interruption::Suspend)),
        ] {
            assert_eq!(after.interruption_since(before), found);
        }
    }

    #[test]
    fn a_machine_that_did_not_sleep_is_not_said_to_have() {
        let mut watch = ClockWatch::open().unwrap();
        assert_eq!(watch.poll(), None);
    }
}
