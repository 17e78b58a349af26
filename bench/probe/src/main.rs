//! `stayput-probe`: numbered traffic between two hosts, with the time of each sending and each arrival.
//!
//! One process runs where the event happens (`mover`), one at the other end (`peer`). The mover listens; each stream
//! has a port of its own. On SIGTERM, which both are to get at the same moment, nothing new is sent, and what is on
//! its way is waited for; then each side writes what it has sent and received to files, `STREAM.sent` and
//! `STREAM.received`, and prints its sums. Until then it prints ten times a second how far each stream has come.

mod record;
mod streams;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use record::Progress;
use streams::{Ended, Place};

const USAGE: &str = "usage: stayput-probe mover|peer OWN-ADDRESS OTHER-ADDRESS FOLDER RUN STREAM,STREAM,...
streams: udp-echo, udp-in, udp-out, tcp-echo, tcp-bulk";

const STATUS: Duration = Duration::from_millis(100);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Err(problem) = run(&words) {
        eprintln!("stayput-probe: {problem}");
        std::process::exit(1);
    }
}

fn run(words: &[String]) -> Result<(), String> {
    let [role, own, other, folder, run, streams] = words else { return Err(USAGE.to_string()) };
    let is_mover = match role.as_str() {
        "mover" => true,
        "peer" => false,
        _ => return Err(USAGE.to_string()),
    };
    let address = |text: &String| text.parse::<Ipv4Addr>().map_err(|_| format!("{text} is not an IPv4 address"));
    let place = Place {
        own: address(own)?,
        other: address(other)?,
        folder: PathBuf::from(folder),
        run: run.parse().map_err(|_| "RUN must be a number")?,
        stop: Arc::new(AtomicU64::new(0)),
    };
    let signals = block_sigterm();
    let mut running = Vec::new();
    for name in streams.split(',') {
        let work = streams::of(name, is_mover).ok_or_else(|| format!("there is no stream {name}\n{USAGE}"))?;
        let progress = Arc::new(Progress::default());
        let stream = work.start(&place, name, Arc::clone(&progress)).map_err(|error| format!("{name}: {error}"))?;
        running.push((name, progress, stream));
    }
    println!(r#"{{"type":"ready"}}"#);
    while !sigterm_within(&signals, STATUS) {
        let all: Vec<String> =
            running.iter().map(|(name, progress, _)| format!(r#""{name}":{}"#, progress.json())).collect();
        println!(r#"{{"type":"status","atNs":"{}","streams":{{{}}}}}"#, record::now(), all.join(","));
    }
    place.stop.store(record::now(), std::sync::atomic::Ordering::Relaxed);
    let mut sums = Vec::new();
    for (name, _, stream) in running {
        let ended: Ended =
            stream.join().map_err(|_| format!("{name} panicked"))?.map_err(|error| format!("{name}: {error}"))?;
        sums.push(format!(r#""{name}":{}"#, ended.json()));
    }
    println!(r#"{{"type":"final","streams":{{{}}}}}"#, sums.join(","));
    Ok(())
}

/// In this thread and those that it starts.
fn block_sigterm() -> libc::sigset_t {
    // SAFETY: the set is initialised by sigemptyset before anything else looks at it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        set
    }
}

fn sigterm_within(set: &libc::sigset_t, time: Duration) -> bool {
    let time = libc::timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    // SAFETY: `set` and `time` live through the call; who sent the signal is not asked for.
    unsafe { libc::sigtimedwait(set, std::ptr::null_mut(), &time) == libc::SIGTERM }
}
