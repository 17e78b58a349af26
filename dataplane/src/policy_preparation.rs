//! Large policies are read and compiled by a thread of their own, while packets go on under the policy before.
//!
//! One at a time. Meanwhile the agent is heard, but for two things: another policy, so that the last one that it gave is
//! the one that stays in force; and its full state, of which nothing is to be forwarded before its policy holds. Either
//! waits in the agent's socket, so no more than one message is in memory. The rules before are freed by the thread as
//! well, which takes about as long. Without the thread, and for small policies, all this is done between two packets.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use crate::messages::{Command, Refused, is_of_type, parse_request};
use crate::policy::{PreparedPolicy, Rules};

#[derive(Default)]
pub struct PolicyPreparation {
    thread: Option<Thread>,
    under_way: Option<Origin>,
}

/// Whose policy it is.
struct Origin {
    connection: u64,
    sync: u64,
}

/// As the engine sees it.
struct Thread {
    work: SyncSender<Work>,
    outcomes: Receiver<Outcome>,
    /// Has something to read when there is an outcome.
    woken: UnixStream,
}

enum Work {
    Prepare(Vec<u8>),
    Free(#[expect(dead_code, reason = "only to be dropped")] Rules),
}

struct Outcome {
    id: Option<u64>,
    result: Result<PreparedPolicy, Refused>,
}

/// A policy that can be put in force, and who gave it.
pub struct Done {
    pub connection: u64,
    pub sync: u64,
    pub id: Option<u64>,
    pub result: Result<PreparedPolicy, Refused>,
}

impl PolicyPreparation {
    pub fn start() -> io::Result<PolicyPreparation> {
        let (work, orders) = sync_channel(MAX_WORK);
        let (finished, outcomes) = sync_channel(1);
        let (woken, mut waking) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        let run = move || {
            for order in orders {
                let Work::Prepare(frame) = order else { continue };
                if finished.send(prepare(&frame)).is_err() || waking.write_all(&[1]).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("policies".to_string()).spawn(run)?;
        Ok(PolicyPreparation { thread: Some(Thread { work, outcomes, woken }), under_way: None })
    }

    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether this message is a policy that should not, or must not now, be set between two packets.
    pub fn asks_for_policy(&self, frame: &[u8]) -> bool {
        (self.is_under_way() || frame.len() > WORTH_A_THREAD) && is_of_type(frame, "policy-set")
    }

    /// `sync`: of the agent's full state that the policy belongs to. Returns the message if there is no thread to take it.
    pub fn begin(&mut self, frame: Vec<u8>, connection: u64, sync: u64) -> Option<Vec<u8>> {
        let Some(thread) = &self.thread else { return Some(frame) };
        match thread.work.try_send(Work::Prepare(frame)) {
            Ok(()) => {
                self.under_way = Some(Origin { connection, sync });
                None
            }
            Err(TrySendError::Full(work) | TrySendError::Disconnected(work)) => match work {
                Work::Prepare(frame) => Some(frame),
                Work::Free(_) => None,
            },
        }
    }

    /// What has become of the policy, once.
    pub fn finish(&mut self) -> Option<Done> {
        let thread = self.thread.as_mut()?;
        let _ = thread.woken.read(&mut [0]);
        let Outcome { id, result } = thread.outcomes.try_recv().ok()?;
        let Origin { connection, sync } = self.under_way.take()?;
        Some(Done { connection, sync, id, result })
    }

    pub fn free(&self, former: Option<Rules>) {
        if let (Some(rules), Some(thread)) = (former, &self.thread) {
            // What the thread does not take is dropped here.
            let _ = thread.work.try_send(Work::Free(rules));
        }
    }
}

impl AsRawFd for PolicyPreparation {
    fn as_raw_fd(&self) -> RawFd {
        self.thread.as_ref().map_or(-1, |thread| thread.woken.as_raw_fd())
    }
}

fn prepare(frame: &[u8]) -> Outcome {
    let (id, command) = parse_request(frame);
    let result = command.and_then(|command| match command {
        Command::PolicySet(set) => Ok(set.prepare()),
        _ => Err(Refused::new("invalid", "field \"type\" must be there once")),
    });
    Outcome { id, result }
}

/// Small ones are done sooner than another thread is woken.
const WORTH_A_THREAD: usize = 16 << 10;
/// A policy, the rules that it replaces, and the next policy.
const MAX_WORK: usize = 3;
