//! What the service manager is told (`sd_notify(3)`): that the agent can connect, and again and again that the loop of
//! the engine still turns, if it wants to know (`WatchdogSec=`). Without one, nothing.
//!
//! The socket is opened before the sandbox, which leaves no other. The word that the agent can connect waits for a
//! service manager that is busy, as without it this process would be started again. A beat that does not fit into the
//! socket is left out, since forwarding must not wait for anybody.

use std::env::{var, var_os};
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::log;
use crate::time::{Time, seconds};

pub struct Systemd {
    socket: Option<UnixDatagram>,
    interval: Option<Duration>,
    next_beat: Time,
}

impl Systemd {
    pub fn from_environment() -> Systemd {
        let socket = var_os("NOTIFY_SOCKET").and_then(|path| connect(&path));
        let for_us = var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let limit = var("WATCHDOG_USEC").ok().filter(|_| for_us).and_then(|limit| limit.parse().ok());
        Systemd::new(socket, limit.map(Duration::from_micros))
    }

    /// `limit`: it takes this process for dead when it has heard nothing for so long.
    fn new(socket: Option<UnixDatagram>, limit: Option<Duration>) -> Systemd {
        let interval = limit.filter(|limit| socket.is_some() && !limit.is_zero()).map(|limit| limit / 2);
        let next_beat = if interval.is_some() { Time::default() } else { Time::NEVER };
        Systemd { socket, interval, next_beat }
    }

    /// Before any beat.
    pub fn ready(&self) {
        self.ready_within(PATIENCE);
    }

    fn ready_within(&self, patience: Duration) {
        let Some(socket) = &self.socket else { return };
        let told = socket.set_write_timeout(Some(patience)).and_then(|()| socket.send(READY));
        // Beats wait for nobody, least of all for one who did not hear this.
        let hasty = socket.set_nonblocking(true);
        if let Err(error) = told.and(hasty) {
            log::warn("the service manager was not told", &[("error", &error)]);
        }
    }

    /// When `beat` wants to be called.
    pub fn next_beat(&self) -> Time {
        self.next_beat
    }

    #[inline]
    pub fn beat(&mut self, now: Time) {
        if self.next_beat > now {
            return;
        }
        if let Some(interval) = self.interval {
            self.next_beat = now + interval;
            self.tell(b"WATCHDOG=1");
        }
    }

    fn tell(&self, message: &[u8]) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(message);
        }
    }
}

fn connect(path: &OsStr) -> Option<UnixDatagram> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(path),
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect_addr(&address.ok()?).ok()?;
    Some(socket)
}

const READY: &[u8] = b"READY=1";
const PATIENCE: Duration = seconds(30);

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::time::millis;

    #[test]
    fn beats_twice_within_the_limit_and_only_then() {
        let (systemd, own) = UnixDatagram::pair().expect("pair");
        systemd.set_nonblocking(true).expect("nonblocking");
        let mut notifier = Systemd::new(Some(own), Some(seconds(20)));
        let mut beats = 0;
        for second in 1..=60 {
            notifier.beat(Time::from_millis(second * 1000));
            let mut told = [0; 32];
            if let Ok(length) = systemd.recv(&mut told) {
                assert_eq!(&told[..length], b"WATCHDOG=1");
                beats += 1;
            }
        }
        assert_eq!(beats, 6);
    }

    #[test]
    fn the_word_that_the_agent_can_connect_waits_for_a_systemd_that_is_busy() {
        let (systemd, own) = UnixDatagram::pair().expect("pair");
        own.set_nonblocking(true).expect("nonblocking");
        while own.send(b"STATUS=busy").is_ok() {}
        own.set_nonblocking(false).expect("blocking");
        let notifier = Systemd::new(Some(own), None);
        let reader = std::thread::spawn(move || {
            systemd.set_read_timeout(Some(seconds(10))).expect("timeout");
            let mut told = [0; 32];
            let mut all = std::iter::from_fn(|| systemd.recv(&mut told).ok().map(|length| told[..length].to_vec()));
            all.any(|message| message == READY)
        });
        notifier.ready();
        assert!(reader.join().expect("reader"));
    }

    #[test]
    fn beats_do_not_wait_for_a_systemd_that_did_not_hear_the_first_word() {
        let (_systemd, own) = UnixDatagram::pair().expect("pair");
        own.set_nonblocking(true).expect("nonblocking");
        while own.send(b"STATUS=busy").is_ok() {}
        own.set_nonblocking(false).expect("blocking");
        let same = own.try_clone().expect("clone");
        Systemd::new(Some(own), None).ready_within(millis(1));
        // SAFETY: reads the flags of a socket that is open.
        let flags = unsafe { libc::fcntl(same.as_raw_fd(), libc::F_GETFL) };
        assert_ne!(flags & libc::O_NONBLOCK, 0);
    }

    #[test]
    fn a_systemd_that_reads_nothing_holds_nobody_up() {
        let (_systemd, own) = UnixDatagram::pair().expect("pair");
        let mut notifier = Systemd::new(Some(own), Some(seconds(2)));
        notifier.ready();
        for second in 1..=10_000 {
            notifier.beat(Time::from_millis(second * 1000));
        }
    }

    #[test]
    fn never_wakes_the_loop_when_nobody_asked() {
        let (_systemd, own) = UnixDatagram::pair().expect("pair");
        assert!(Systemd::new(Some(own), None).next_beat() == Time::NEVER);
        assert!(Systemd::new(None, Some(seconds(2))).next_beat() == Time::NEVER);
    }
}
