//! The Unix socket to the agent: each message is a 32-bit big-endian length and a JSON object.
//!
//! The newest connection that says hello wins. Nothing here ever blocks: an agent that does not read loses `miss` and `conflict`
//! events first, then the connection.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::messages::Event;
use crate::stats::{Counter, Stats};
use crate::sys::Interest;

pub struct Channel {
    listener: UnixListener,
    path: PathBuf,
    connection: Option<Connection>,
    newcomers: Vec<Connection>,
    next_token: u64,
}

pub struct Connection {
    stream: UnixStream,
    /// Tells it from others in the event loop.
    pub token: u64,
    incoming: Vec<u8>,
    /// Octets of `incoming` that have been handed out.
    consumed: usize,
    outgoing: VecDeque<Frame>,
    outgoing_bytes: usize,
    /// Octets of the first outgoing frame that are written.
    written: usize,
    /// Said hello.
    pub greeted: bool,
    /// Nothing is read of it for the moment.
    pub paused: bool,
    /// As the event loop knows it.
    pub interest: Interest,
}

struct Frame {
    bytes: Vec<u8>,
    droppable: bool,
}

/// Why a connection ended.
pub enum Ended {
    Closed,
    Failed(String),
}

impl Channel {
    /// Errors are sentences for people.
    pub fn open(path: &Path, group: Option<u32>) -> Result<Channel, String> {
        let shown = path.display();
        if UnixStream::connect(path).is_ok() {
            return Err(format!("another data plane listens on {shown}; stop it or choose another --socket"));
        }
        match std::fs::symlink_metadata(path) {
            Ok(found) if std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
                std::fs::remove_file(path).map_err(|e| format!("removing the stale socket {shown}: {e}"))?;
            }
            Ok(_) => return Err(format!("{shown} exists and is not a socket")),
            Err(_) => {}
        }
        // SAFETY: umask only exchanges a number; this process has one thread.
        let mask = unsafe { libc::umask(0o117) };
        let listener = UnixListener::bind(path);
        // SAFETY: as above.
        unsafe { libc::umask(mask) };
        let listener = listener.map_err(|e| format!("socket {shown}: {e}"))?;
        let prepare = || -> io::Result<()> {
            listener.set_nonblocking(true)?;
            if group.is_some() {
                chown(path, None, group)?;
            }
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
        };
        prepare().map_err(|e| format!("socket {shown}: {e}"))?;
        Ok(Channel {
            listener,
            path: path.to_path_buf(),
            connection: None,
            newcomers: Vec::new(),
            next_token: FIRST_TOKEN,
        })
    }

    /// Takes a waiting connection, which controls nothing until it says hello.
    pub fn accept(&mut self) -> Option<&Connection> {
        let (stream, _) = self.listener.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        if self.newcomers.len() == MAX_NEWCOMERS {
            self.newcomers.remove(0);
        }
        self.next_token += 1;
        self.newcomers.push(Connection {
            stream,
            token: self.next_token,
            incoming: Vec::new(),
            consumed: 0,
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            written: 0,
            greeted: false,
            paused: false,
            interest: Interest { readable: true, writable: false },
        });
        self.newcomers.last()
    }

    /// Reads from a connection that has not said anything so far. With its first message, which must be a hello, it
    /// takes the place of the present one: `Some` is that message.
    pub fn hear_newcomer(&mut self, token: u64, is_hello: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let at = self.newcomers.iter().position(|c| c.token == token)?;
        let newcomer = &mut self.newcomers[at];
        match newcomer.fill().and_then(|()| newcomer.next_frame()) {
            Ok(None) => None,
            Ok(Some(frame)) if is_hello(&frame) => {
                let newcomer = self.newcomers.remove(at);
                if let Some(mut old) = self.connection.replace(newcomer) {
                    old.queue(&Event::Superseded.json(), false);
                    let _ = old.flush();
                }
                Some(frame)
            }
            Ok(Some(_)) | Err(_) => {
                self.newcomers.remove(at);
                None
            }
        }
    }

    pub fn connection(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut()
    }

    pub fn close(&mut self) {
        self.connection = None;
    }

    pub fn send_event(&mut self, event: &Event, stats: &mut Stats) {
        let Some(connection) = self.connection.as_mut().filter(|c| c.greeted) else { return };
        if connection.outgoing_bytes > SLOW_AGENT && !connection.drop_one_event() && event.is_droppable() {
            return stats.count(Counter::EventsDropped);
        }
        connection.queue(&event.json(), event.is_droppable());
    }

    pub fn remove_socket(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

impl Connection {
    /// Reads what is there, bounded per call.
    pub fn fill(&mut self) -> Result<(), Ended> {
        self.incoming.drain(..self.consumed);
        self.consumed = 0;
        if self.paused && self.incoming.len() > MAX_FRAME {
            return Ok(());
        }
        let mut chunk = [0; 64 << 10];
        for _ in 0..READS_AT_ONCE {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Ended::Closed),
                Ok(length) => self.incoming.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Ended::Failed(error.to_string())),
            }
        }
        Ok(())
    }

    /// The next complete message, which stays.
    pub fn peek(&self) -> Result<Option<&[u8]>, Ended> {
        first_frame(&self.incoming[self.consumed..])
    }

    /// The next complete message.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, Ended> {
        let frame = self.peek()?.map(<[u8]>::to_vec);
        self.consumed += frame.as_ref().map_or(0, |frame| 4 + frame.len());
        Ok(frame)
    }

    pub fn queue(&mut self, message: &Value, droppable: bool) {
        let text = message.to_string();
        let mut bytes = Vec::with_capacity(4 + text.len());
        bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
        self.outgoing_bytes += bytes.len();
        self.outgoing.push_back(Frame { bytes, droppable });
    }

    /// Writes what the socket takes.
    pub fn flush(&mut self) -> Result<(), Ended> {
        while !self.outgoing.is_empty() {
            let mut slices: Vec<IoSlice<'_>> =
                self.outgoing.iter().take(FRAMES_AT_ONCE).map(|frame| IoSlice::new(&frame.bytes)).collect();
            slices[0].advance(self.written);
            match self.stream.write_vectored(&slices) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Ended::Failed(error.to_string())),
            }
            while let Some(length) = self.outgoing.front().map(|frame| frame.bytes.len())
                && length <= self.written
            {
                self.written -= length;
                self.outgoing_bytes -= length;
                self.outgoing.pop_front();
            }
        }
        if self.outgoing_bytes > DEAD_AGENT {
            return Err(Ended::Failed("the agent does not read its messages".to_string()));
        }
        Ok(())
    }

    pub fn wanted_interest(&self) -> Interest {
        Interest { readable: !self.paused, writable: !self.outgoing.is_empty() }
    }

    /// Forgets the oldest event that may be lost; not the first frame, which may be half written.
    fn drop_one_event(&mut self) -> bool {
        let Some(at) = self.outgoing.iter().skip(1).position(|f| f.droppable) else { return false };
        if let Some(frame) = self.outgoing.remove(at + 1) {
            self.outgoing_bytes -= frame.bytes.len();
        }
        true
    }
}

/// The message that the octets begin with, behind its length, once it is complete.
pub fn first_frame(octets: &[u8]) -> Result<Option<&[u8]>, Ended> {
    let Some(head) = octets.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    if length > MAX_FRAME {
        return Err(Ended::Failed(format!("a message of {length} octets, more than {MAX_FRAME}")));
    }
    Ok(octets.get(4..4 + length))
}

/// Smaller ones are the event loop's own.
pub const FIRST_TOKEN: u64 = 100;
const MAX_NEWCOMERS: usize = 4;
const MAX_FRAME: usize = 4 << 20;
/// Packets wait while commands are carried out.
const READS_AT_ONCE: usize = 2;
/// Each frame is short, and a system call is not.
const FRAMES_AT_ONCE: usize = 128;
const SLOW_AGENT: usize = 1 << 20;
const DEAD_AGENT: usize = 32 << 20;
