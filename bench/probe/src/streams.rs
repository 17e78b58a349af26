//! The streams, both ends of each.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::record::{Nanos, Progress, Record, exact_timers, nanos, now, sleep_until};

const UDP_INTERVAL: Duration = Duration::from_millis(1);
const ECHO_INTERVAL: Duration = Duration::from_millis(10);
const BULK_INTERVAL: Duration = Duration::from_millis(1);
/// 5 MB/s.
const BULK_OCTETS: usize = 5_000;
const DATAGRAM: usize = 64;
/// How often a blocked call looks whether it is over.
const LOOK: Duration = Duration::from_millis(20);
/// After the end: until nothing has arrived for this long,
const QUIET: Nanos = 500_000_000;
/// and no longer than this.
const DRAIN: Nanos = 4_000_000_000;
const CONNECT: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct Place {
    pub own: Ipv4Addr,
    pub other: Ipv4Addr,
    pub folder: PathBuf,
    pub run: u64,
    /// When the end began; 0 before.
    pub stop: Arc<AtomicU64>,
}

impl Place {
    fn stopped(&self) -> Option<Nanos> {
        Some(self.stop.load(Relaxed)).filter(|at| *at != 0)
    }

    /// Nothing is to be waited for any more.
    fn drained(&self, last: Nanos) -> bool {
        self.stopped().is_some_and(|stop| now() > stop + DRAIN || now() > stop.max(last) + QUIET)
    }

    fn out_of_time(&self) -> bool {
        self.stopped().is_some_and(|stop| now() > stop + DRAIN)
    }
}

/// What one end of one stream comes to.
#[derive(Default)]
pub struct Ended {
    sent: u64,
    /// The kernel did not take it. Part of `sent`.
    refused: u64,
    received: u64,
    /// Connections that ended before they should.
    resets: u64,
    /// Of everything sent or received by a bulk transfer.
    sha256: Option<String>,
    /// The other end of a bulk transfer was reached.
    complete: bool,
}

impl Ended {
    pub fn json(&self) -> String {
        format!(
            r#"{{"sent":{},"refused":{},"received":{},"resets":{},"sha256":"{}","complete":{}}}"#,
            self.sent,
            self.refused,
            self.received,
            self.resets,
            self.sha256.as_deref().unwrap_or(""),
            self.complete
        )
    }
}

pub struct Stream {
    port: u16,
    work: Work,
}

/// From the start of one end of a stream to its sums.
type Work = fn(&End) -> io::Result<Ended>;

/// One end of one stream.
struct End {
    place: Place,
    name: String,
    port: u16,
    progress: Arc<Progress>,
    ready: std::sync::mpsc::Sender<()>,
}

pub fn of(name: &str, mover: bool) -> Option<Stream> {
    let (port, at_mover, at_peer): (u16, Work, Work) = match name {
        "udp-echo" => (7001, reflect, ask),
        "udp-in" => (7002, take_datagrams, send_datagrams),
        "udp-out" => (7003, send_datagrams, take_datagrams),
        "tcp-echo" => (7004, echo_back, beat),
        "tcp-bulk" => (7005, serve_bulk, take_bulk),
        _ => return None,
    };
    Some(Stream { port, work: if mover { at_mover } else { at_peer } })
}

impl Stream {
    /// Returns when the stream can be used: what listens does so, what connects has a connection.
    pub fn start(
        &self,
        place: &Place,
        name: &str,
        progress: Arc<Progress>,
    ) -> io::Result<JoinHandle<io::Result<Ended>>> {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let end = End { place: place.clone(), name: name.to_string(), port: self.port, progress, ready };
        let work = self.work;
        let thread = thread::Builder::new().name(name.to_string()).spawn(move || {
            exact_timers();
            // `end`, and `ready` with it, goes when the work ends: an error before it was ready wakes who waits.
            work(&end)
        })?;
        if is_ready.recv().is_err() {
            return Err(match thread.join() {
                Ok(Err(error)) => error,
                _ => io::Error::other("ended at once"),
            });
        }
        Ok(thread)
    }
}

impl End {
    fn is_ready(&self) {
        // Nobody listens once the stream has started.
        let _ = self.ready.send(());
    }

    fn local(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.place.own, self.port)
    }

    fn remote(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.place.other, self.port)
    }

    fn socket(&self) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(self.local())?;
        socket.set_read_timeout(Some(LOOK))?;
        Ok(socket)
    }

    fn keep(&self, record: &Record, what: &str) -> io::Result<()> {
        record.write(&self.place.folder.join(format!("{}.{what}", self.name)))
    }

    /// Run, number and time of sending, filled up with zeroes.
    fn datagram(&self, number: u64, at: Nanos) -> [u8; DATAGRAM] {
        let mut datagram = [0; DATAGRAM];
        for (to, value) in datagram.chunks_exact_mut(8).zip([self.place.run, number, at]) {
            to.copy_from_slice(&value.to_be_bytes());
        }
        datagram
    }

    /// Number and time of sending, if it is one of this run.
    fn parse(&self, datagram: &[u8]) -> Option<(u64, Nanos)> {
        let field = |i: usize| datagram.get(i * 8..i * 8 + 8).map(number);
        if field(0)? != self.place.run {
            return None;
        };
        Some((field(1)?, field(2)?))
    }
}

fn number(octets: &[u8]) -> u64 {
    octets.iter().fold(0, |value, octet| value << 8 | u64::from(*octet))
}

/// Calls `send` with 0, 1, 2… at a fixed rate until the end. Who comes late catches up.
fn at_rate(place: &Place, interval: Duration, mut send: impl FnMut(u64) -> io::Result<()>) -> io::Result<()> {
    let started = now();
    let mut next = 0;
    while place.stopped().is_none() {
        sleep_until(started + next * nanos(interval));
        send(next)?;
        next += 1;
    }
    Ok(())
}

fn send_all(end: &End, socket: &UdpSocket) -> io::Result<Ended> {
    let mut record = Record::default();
    let mut refused = 0;
    at_rate(&end.place, UDP_INTERVAL, |number| {
        let at = now();
        record.add(number, at);
        // No route, a full queue, nobody there: not delivered, which is what is measured.
        if socket.send_to(&end.datagram(number, at), end.remote()).is_err() {
            refused += 1;
        }
        Ok(())
    })?;
    end.keep(&record, "sent")?;
    Ok(Ended { sent: record.len(), refused, ..Ended::default() })
}

fn take_all(end: &End, socket: &UdpSocket) -> io::Result<Ended> {
    let mut record = Record::default();
    let mut buffer = [0; DATAGRAM];
    while !end.place.drained(end.progress.last()) {
        // Time is up, or an ICMP error: the next one may come.
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let at = now();
        let Some((number, sent)) = end.parse(&buffer[..length]) else { continue };
        record.add(number, at);
        end.progress.arrived(at, sent);
    }
    end.keep(&record, "received")?;
    Ok(Ended { received: record.len(), ..Ended::default() })
}

fn send_datagrams(end: &End) -> io::Result<Ended> {
    let socket = end.socket()?;
    end.is_ready();
    send_all(end, &socket)
}

fn take_datagrams(end: &End) -> io::Result<Ended> {
    let socket = end.socket()?;
    end.is_ready();
    take_all(end, &socket)
}

/// Sends and takes the answers.
fn ask(end: &End) -> io::Result<Ended> {
    let socket = end.socket()?;
    end.is_ready();
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            exact_timers();
            send_all(end, &socket)
        });
        let received = take_all(end, &socket)?;
        let sent = sender.join().map_err(|_| io::Error::other("the sender panicked"))??;
        Ok::<_, io::Error>(Ended { received: received.received, ..sent })
    })?;
    Ok(sent)
}

/// Sends everything back to where it came from.
fn reflect(end: &End) -> io::Result<Ended> {
    let socket = end.socket()?;
    end.is_ready();
    let mut record = Record::default();
    let mut buffer = [0; DATAGRAM];
    while !end.place.drained(end.progress.last()) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let at = now();
        let Some((number, sent)) = end.parse(&buffer[..length]) else { continue };
        record.add(number, at);
        end.progress.arrived(at, sent);
        // What cannot be sent back is missing at the other end.
        let _ = socket.send_to(&buffer[..length], from);
    }
    end.keep(&record, "received")?;
    Ok(Ended { received: record.len(), ..Ended::default() })
}

fn accept(end: &End) -> io::Result<Option<TcpStream>> {
    let listener = TcpListener::bind(end.local())?;
    listener.set_nonblocking(true)?;
    end.is_ready();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return prepared(stream).map(Some);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if end.place.stopped().is_some() {
                    return Ok(None);
                }
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
}

fn connect(end: &End) -> io::Result<TcpStream> {
    let stream = prepared(TcpStream::connect_timeout(&end.remote().into(), CONNECT)?)?;
    end.is_ready();
    Ok(stream)
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_write_timeout(Some(LOOK))?;
    Ok(stream)
}

/// What a call on a connection came to.
enum Outcome {
    Octets(usize),
    NotYet,
    Closed,
    Reset,
}

fn outcome(result: io::Result<usize>) -> Outcome {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    match result {
        Ok(0) => Outcome::Closed,
        Ok(count) => Outcome::Octets(count),
        // SO_RCVTIMEO and SO_SNDTIMEO give EAGAIN; ETIMEDOUT is the connection's own end.
        Err(error) if error.raw_os_error() == Some(libc::ETIMEDOUT) => Outcome::Reset,
        Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => Outcome::NotYet,
        Err(_) => Outcome::Reset,
    }
}

/// Writes all of it unless the time for that is over. False: the connection is gone.
fn write_all(place: &Place, mut stream: &TcpStream, mut octets: &[u8]) -> bool {
    while !octets.is_empty() && !place.out_of_time() {
        match outcome(stream.write(octets)) {
            Outcome::Octets(count) => octets = &octets[count..],
            Outcome::NotYet => {}
            Outcome::Closed | Outcome::Reset => return false,
        }
    }
    true
}

const BEAT: usize = 16;

/// 100 messages a second, and their echoes.
fn beat(end: &End) -> io::Result<Ended> {
    let stream = connect(end)?;
    let total = AtomicU64::new(u64::MAX);
    let mut ended = Ended::default();
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            exact_timers();
            let mut record = Record::default();
            let mut alive = true;
            at_rate(&end.place, ECHO_INTERVAL, |number| {
                let at = now();
                let mut message = [0; BEAT];
                message[..8].copy_from_slice(&number.to_be_bytes());
                message[8..].copy_from_slice(&at.to_be_bytes());
                record.add(number, at);
                alive = alive && write_all(&end.place, &stream, &message);
                Ok(())
            })?;
            total.store(record.len(), Relaxed);
            end.keep(&record, "sent")?;
            Ok::<_, io::Error>(record.len())
        });
        let mut record = Record::default();
        let (mut buffer, mut filled) = ([0; 64 * BEAT], 0);
        while record.len() < total.load(Relaxed) && !end.place.out_of_time() {
            match outcome((&stream).read(&mut buffer[filled..])) {
                Outcome::Octets(count) => filled += count,
                Outcome::NotYet => continue,
                Outcome::Closed | Outcome::Reset => {
                    ended.resets = 1;
                    break;
                }
            }
            let at = now();
            let whole = filled / BEAT * BEAT;
            for message in buffer[..whole].chunks_exact(BEAT) {
                record.add(number(&message[..8]), at);
                end.progress.arrived(at, number(&message[8..]));
            }
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
        }
        ended.received = record.len();
        end.keep(&record, "received")?;
        ended.sent = sender.join().map_err(|_| io::Error::other("the sender panicked"))??;
        Ok::<_, io::Error>(())
    })?;
    Ok(ended)
}

fn echo_back(end: &End) -> io::Result<Ended> {
    let mut ended = Ended::default();
    let Some(stream) = accept(end)? else { return Ok(ended) };
    let mut buffer = [0; 64 * BEAT];
    while !end.place.out_of_time() {
        match outcome((&stream).read(&mut buffer)) {
            Outcome::Octets(count) => {
                end.progress.arrived(now(), 0);
                ended.received += count as u64 / BEAT as u64;
                if !write_all(&end.place, &stream, &buffer[..count]) {
                    break;
                }
            }
            Outcome::NotYet => {}
            Outcome::Closed => return Ok(ended),
            Outcome::Reset => break,
        }
    }
    ended.resets = u64::from(!end.place.out_of_time());
    Ok(ended)
}

/// Octets that do not repeat soon, at a fixed rate. What was not taken in its time is not caught up.
fn serve_bulk(end: &End) -> io::Result<Ended> {
    let mut ended = Ended::default();
    let Some(stream) = accept(end)? else { return Ok(ended) };
    let mut digest = Digest::start()?;
    let mut record = Record::default();
    let mut octets = Octets(0x9e37_79b9_7f4a_7c15);
    let mut chunk = [0; BULK_OCTETS];
    let mut due = now();
    while end.place.stopped().is_none() && ended.resets == 0 {
        octets.fill(&mut chunk);
        let mut left = &chunk[..];
        while !left.is_empty() && end.place.stopped().is_none() {
            match outcome((&stream).write(left)) {
                Outcome::Octets(count) => {
                    digest.add(&left[..count])?;
                    ended.sent += count as u64;
                    left = &left[count..];
                }
                Outcome::NotYet => {}
                Outcome::Closed | Outcome::Reset => {
                    ended.resets = 1;
                    break;
                }
            }
        }
        record.add(ended.sent, now());
        due = (due + nanos(BULK_INTERVAL)).max(now());
        sleep_until(due);
    }
    ended.complete = stream.shutdown(std::net::Shutdown::Write).is_ok();
    ended.sha256 = Some(digest.finish()?);
    end.keep(&record, "sent")?;
    Ok(ended)
}

fn take_bulk(end: &End) -> io::Result<Ended> {
    let stream = connect(end)?;
    let mut ended = Ended::default();
    let mut digest = Digest::start()?;
    let mut record = Record::default();
    let mut buffer = vec![0; 64 * 1024];
    while !end.place.out_of_time() {
        match outcome((&stream).read(&mut buffer)) {
            Outcome::Octets(count) => {
                let at = now();
                digest.add(&buffer[..count])?;
                ended.received += count as u64;
                record.add(ended.received, at);
                end.progress.arrived(at, 0);
            }
            Outcome::NotYet => {}
            Outcome::Closed => {
                ended.complete = true;
                break;
            }
            Outcome::Reset => {
                ended.resets = 1;
                break;
            }
        }
    }
    ended.sha256 = Some(digest.finish()?);
    end.keep(&record, "received")?;
    Ok(ended)
}

/// SHA-256 by the program that every Linux has.
struct Digest(Child);

impl Digest {
    fn start() -> io::Result<Digest> {
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map(Digest)
    }

    fn add(&mut self, octets: &[u8]) -> io::Result<()> {
        self.0.stdin.as_mut().map_or(Ok(()), |input| input.write_all(octets))
    }

    /// 64 hexadecimal digits.
    fn finish(mut self) -> io::Result<String> {
        drop(self.0.stdin.take());
        let output = self.0.wait_with_output()?;
        Ok(String::from_utf8_lossy(&output.stdout).chars().take(64).collect())
    }
}

/// xorshift64*
struct Octets(u64);

impl Octets {
    fn fill(&mut self, octets: &mut [u8]) {
        for chunk in octets.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let value = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            chunk.copy_from_slice(&value[..chunk.len()]);
        }
    }
}
