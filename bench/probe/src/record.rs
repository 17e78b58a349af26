//! What happened when: numbers with times of CLOCK_MONOTONIC, which is the same in all namespaces of a machine.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Nanoseconds.
pub type Nanos = u64;

const SECOND: Nanos = 1_000_000_000;
/// A longer silence begins a new run of steady arrivals.
const SILENCE: Nanos = 100_000_000;
/// Of one file; a probe runs for a minute or so.
const MOST: usize = 2_000_000;

pub fn now() -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as Nanos * SECOND + time.tv_nsec as Nanos
}

/// Sleeps until a moment, as exactly as the kernel can.
pub fn sleep_until(moment: Nanos) {
    let time = libc::timespec { tv_sec: (moment / SECOND) as i64, tv_nsec: (moment % SECOND) as i64 };
    // SAFETY: `time` lives through the call; the time that remains is not asked for.
    unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &time, std::ptr::null_mut()) };
}

/// Wakes this thread when it is due, and not up to 50 µs later together with others.
pub fn exact_timers() {
    // SAFETY: takes a number and concerns this thread only.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

pub fn nanos(duration: Duration) -> Nanos {
    duration.as_nanos() as Nanos
}

/// A list of (number, time), written when the probe ends.
#[derive(Default)]
pub struct Record {
    entries: Vec<(u64, Nanos)>,
}

impl Record {
    pub fn add(&mut self, number: u64, at: Nanos) {
        if self.entries.len() < MOST {
            self.entries.push((number, at));
        }
    }

    pub fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// 16 octets each: number, time, little-endian.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        for (number, at) in &self.entries {
            file.write_all(&number.to_le_bytes())?;
            file.write_all(&at.to_le_bytes())?;
        }
        file.flush()
    }
}

/// How the arrivals of one stream stand, for who waits until they are steady again.
#[derive(Default)]
pub struct Progress {
    arrivals: AtomicU64,
    last: AtomicU64,
    last_sent: AtomicU64,
    steady: AtomicU64,
}

impl Progress {
    /// `sent`: when this was sent; 0 if that is not known.
    pub fn arrived(&self, at: Nanos, sent: Nanos) {
        if at.saturating_sub(self.last.load(Relaxed)) >= SILENCE {
            self.steady.store(at, Relaxed);
        }
        self.last.store(at, Relaxed);
        self.last_sent.fetch_max(sent, Relaxed);
        self.arrivals.fetch_add(1, Relaxed);
    }

    pub fn last(&self) -> Nanos {
        self.last.load(Relaxed)
    }

    pub fn json(&self) -> String {
        format!(
            r#"{{"arrivals":{},"lastNs":"{}","lastSentNs":"{}","steadyNs":"{}"}}"#,
            self.arrivals.load(Relaxed),
            self.last.load(Relaxed),
            self.last_sent.load(Relaxed),
            self.steady.load(Relaxed)
        )
    }
}
