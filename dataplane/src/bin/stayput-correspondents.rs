//! Many correspondents of one mover in one process, for `stayput bench handover`: each has a key, a UDP socket and a
//! state machine of the data plane (`tunnel`) of its own, and nothing of the others'. What a host has besides is left
//! out: no TUN (the packets are made and read here), and no agent; the only message of an owner's agent that is
//! understood is that the EID is now the other owner's, which an agent believes and acknowledges as well when its owner
//! says so.
//!
//! `stayput-correspondents CONFIG`: numbered ICMP echo requests from each, spread over the interval. stdout says
//! `ready`, then a `status` ten times a second, and after SIGTERM `final`, one JSON object on a line each; what each has seen is in the file `out` then. Moments are
//! nanoseconds of CLOCK_MONOTONIC as text.

use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use stayput_dataplane::handshake::{Identity, PublicKey, Suite};
use stayput_dataplane::peer::{Locator, Path, PeerId};
use stayput_dataplane::retransmit::Limits;
use stayput_dataplane::sys;
use stayput_dataplane::time::Time;
use stayput_dataplane::tunnel::{Output, Tunnel};
use stayput_dataplane::wire::{DATA_HEADER, DATA_OVERHEAD, Header, Kind, TAG};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    preshared_key: String,
    instance: u32,
    epoch: u64,
    port: u16,
    destination: Ipv4Addr,
    interval_ms: u64,
    /// Where the report goes.
    out: String,
    /// The first packets are spread over this time, as an unknown correspondent costs the mover's agent a question.
    meeting_ms: u64,
    correspondents: Vec<Own>,
    /// Who has the destination, and who takes it over if it moves.
    owners: Vec<Owner>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Own {
    private_key: String,
    eid: Ipv4Addr,
    /// Of its own, as hosts have one each.
    address: IpAddr,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owner {
    public_key: String,
    locator: SocketAddr,
}

struct Correspondent {
    tunnel: Tunnel,
    socket: UdpSocket,
    eid: Ipv4Addr,
    /// Of the owners, the one that it sends to.
    owner: usize,
    next: u64,
    sent: u32,
    /// Echo requests that wait for a session.
    held: Vec<u32>,
    /// When each request was sent, and which ones were answered.
    requests: HashMap<u32, u64>,
    answers: Vec<(u32, u64)>,
    /// When it was first to send elsewhere, and where.
    switches: Vec<(u64, SocketAddr)>,
    /// When the owner before said who has it now.
    told: Option<u64>,
    /// When the first initiation of an owner that it was not told of came.
    spoken_to: Option<u64>,
    towards: Option<SocketAddr>,
}

fn main() {
    let result = std::env::args().nth(1).ok_or("CONFIG is missing".to_owned()).and_then(|path| run(&path));
    if let Err(problem) = result {
        eprintln!("stayput-correspondents: {problem}");
        std::process::exit(1);
    }
}

fn run(path: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let config: Config = serde_json::from_str(&text).map_err(|error| format!("{path}: {error}"))?;
    let owners = config.owners.iter().map(|owner| Ok((key(&owner.public_key)?, owner.locator)));
    let crowd = Crowd { owners: owners.collect::<Result<_, String>>()?, destination: config.destination };
    let interval = config.interval_ms * 1_000_000;
    let preshared = key(&config.preshared_key)?;
    let poller = sys::Poller::new().map_err(|error| error.to_string())?;
    let signals = sys::termination_signals().map_err(|error| error.to_string())?;
    poller.add(&signals, u64::MAX).map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    let begin = monotonic();
    for (n, own) in config.correspondents.iter().enumerate() {
        let identity = Identity::new(key(&own.private_key)?, preshared, config.instance).ok_or("a key is weak")?;
        let mut tunnel = Tunnel::new(Suite::fastest(), Limits::default());
        tunnel.configure(identity, config.epoch);
        let socket =
            UdpSocket::bind((own.address, config.port)).map_err(|error| format!("{}: {error}", own.address))?;
        socket.set_nonblocking(true).map_err(|error| error.to_string())?;
        poller.add(&socket, n as u64).map_err(|error| error.to_string())?;
        let next = begin + n as u64 * config.meeting_ms * 1_000_000 / config.correspondents.len() as u64;
        let (eid, held, requests) = (own.eid, Vec::new(), HashMap::new());
        let (answers, switches) = (Vec::new(), Vec::new());
        let mut one = Correspondent {
            tunnel,
            socket,
            eid,
            owner: 0,
            next,
            sent: 0,
            held,
            requests,
            answers,
            switches,
            told: None,
            spoken_to: None,
            towards: None,
        };
        crowd.know(&mut one, 0, sys::now());
        all.push(one);
    }
    say(&json!({ "type": "ready" }));
    let (mut said, mut looked, mut ends) = (0, 0, u64::MAX);
    loop {
        for event in poller.wait(Some(Duration::from_nanos(LOOK))).map_err(|error| error.to_string())? {
            if event.token == u64::MAX {
                ends = ends.min(monotonic() + LAST_ANSWERS);
                continue;
            }
            crowd.receive(&mut all[event.token as usize]);
        }
        let now = monotonic();
        if now < looked + LOOK {
            continue;
        }
        looked = now;
        if now >= ends {
            std::fs::write(&config.out, report(&all).to_string()).map_err(|error| error.to_string())?;
            say(&json!({ "type": "final" }));
            return Ok(());
        }
        for one in &mut all {
            if now >= one.next && ends == u64::MAX {
                one.next = (one.next + interval).max(now);
                crowd.request(one);
            }
            let time = sys::now();
            if one.tunnel.next_timeout() <= time {
                one.tunnel.handle_timeout(time);
                crowd.settle(one);
            }
        }
        if now >= said + TICK {
            said = now;
            say(&status(&all, &crowd));
        }
    }
}

struct Crowd {
    owners: Vec<(PublicKey, SocketAddr)>,
    destination: Ipv4Addr,
}

impl Crowd {
    fn know(&self, one: &mut Correspondent, owner: usize, now: Time) -> PeerId {
        let (key, address) = self.owners[owner];
        one.tunnel.set_peer(key, vec![Locator { address, priority: 1, weight: 100 }], 0, now)
    }

    fn request(&self, one: &mut Correspondent) {
        one.sent += 1;
        one.requests.insert(one.sent, monotonic());
        self.send(one, one.sent);
        self.settle(one);
    }

    fn send(&self, one: &mut Correspondent, number: u32) {
        let now = sys::now();
        let Some(id) = one.tunnel.find(&self.owners[one.owner].0) else { return };
        let packet = echo_request(one.eid, self.destination, number);
        if !seal(one, id, &packet, now) && one.held.len() < MAX_HELD {
            one.held.push(number);
        }
    }

    fn receive(&self, one: &mut Correspondent) {
        let mut buffer = [0; 2048];
        for _ in 0..AT_ONCE {
            let Ok((length, remote)) = one.socket.recv_from(&mut buffer) else { break };
            let (packet, now) = (&mut buffer[..length], sys::now());
            let Ok(header) = Header::parse(packet) else { continue };
            match header.kind {
                Kind::Data | Kind::DataPartial | Kind::Control => {
                    let opened = one.tunnel.open(Path::to(remote), header, packet, now);
                    if opened.is_ok() && header.kind != Kind::Control {
                        self.read(one, &packet[DATA_HEADER..length - TAG]);
                    }
                }
                kind => {
                    if kind == Kind::Initiation && self.owners[one.owner].1 != remote {
                        one.spoken_to.get_or_insert_with(monotonic);
                    }
                    one.tunnel.handle_handshake(Path::to(remote), header, packet, now);
                }
            }
            self.settle(one);
        }
    }

    /// An answer, or the word of the owner's agent.
    fn read(&self, one: &mut Correspondent, inner: &[u8]) {
        if inner.first() == Some(&0x45) && inner.len() >= ECHO && inner[9] == ICMP && inner[20] == 0 {
            let number = u32::from_be_bytes([inner[28], inner[29], inner[30], inner[31]]);
            return one.answers.push((number, monotonic()));
        }
        let now = sys::now();
        if inner.len() < IPV6_UDP + ACK || inner[0] >> 4 != 6 || inner[IPV6_UDP] != MAP_NOTIFY {
            return;
        }
        let names = |owner: usize| {
            self.owners.get(owner).is_some_and(|(key, _)| inner.windows(key.len()).any(|part| part == key))
        };
        if names(one.owner + 1) {
            one.owner += 1;
            one.told = Some(monotonic());
            let id = self.know(one, one.owner, now);
            // A handshake, unless the new owner has come first.
            let _ = one.tunnel.session_for_sending(id, now);
        } else if one.owner == 0 || !names(one.owner) {
            return;
        }
        if let Some(before) = one.tunnel.find(&self.owners[one.owner - 1].0) {
            seal(one, before, &acknowledgement(inner), now);
        }
    }

    /// Carries out what the tunnel wants, and notes where it sends to from now on.
    fn settle(&self, one: &mut Correspondent) {
        while let Some(output) = one.tunnel.poll() {
            match output {
                Output::Transmit { path, bytes, .. }
                | Output::Resend { path, bytes, .. }
                | Output::SizeProbe { path, bytes, .. } => drop(one.socket.send_to(&bytes, path.remote)),
                Output::SessionUp(_) => {
                    for number in std::mem::take(&mut one.held) {
                        self.send(one, number);
                    }
                }
                // An agent asks the map server about it; that the target of a move is one was arranged before.
                Output::UnknownPeer(key) => {
                    if let Some(owner) = self.owners.iter().position(|(known, _)| *known == key) {
                        self.know(one, owner, sys::now());
                    }
                }
                _ => (),
            }
        }
        let peer = one.tunnel.find(&self.owners[one.owner].0).and_then(|id| one.tunnel.peer(id));
        let towards = peer.filter(|peer| peer.is_up(sys::now())).and_then(|peer| peer.endpoint).map(|path| path.remote);
        if towards.is_some() && towards != one.towards {
            one.towards = towards;
            one.switches.extend(towards.map(|remote| (monotonic(), remote)));
        }
    }
}

/// False, and a handshake is under way, without a session.
fn seal(one: &mut Correspondent, id: PeerId, packet: &[u8], now: Time) -> bool {
    let Some((session, path)) = one.tunnel.session_for_sending(id, now) else { return false };
    let mut sealed = vec![0; packet.len() + DATA_OVERHEAD];
    if session.seal(Kind::Data, packet, &mut sealed).is_some() {
        let _ = one.socket.send_to(&sealed, path.remote);
        one.tunnel.keep(id, path, &sealed, sealed.len(), now);
        one.tunnel.sent_data(id, sealed.len(), now);
    }
    true
}

/// `heardNs`: all of them have an answer to something that was asked then or later. `met`: how many have a session with
/// each of the owners.
fn status(all: &[Correspondent], crowd: &Crowd) -> Value {
    let asked = |one: &Correspondent| {
        one.answers.iter().rev().take(8).filter_map(|(number, _)| one.requests.get(number)).max().copied().unwrap_or(0)
    };
    let heard = all.iter().map(asked).min().unwrap_or(0);
    let now = sys::now();
    let is_up = |one: &Correspondent, key: &PublicKey| {
        one.tunnel.find(key).and_then(|id| one.tunnel.peer(id)).is_some_and(|peer| peer.is_up(now))
    };
    let met = all.iter().filter(|one| crowd.owners.iter().all(|(key, _)| is_up(one, key))).count();
    json!({ "type": "status", "heardNs": heard.to_string(), "met": met })
}

fn report(all: &[Correspondent]) -> Value {
    let of = |one: &Correspondent| {
        let requests: Vec<_> = one.requests.iter().map(|(number, at)| json!([number, at.to_string()])).collect();
        let answers: Vec<_> = one.answers.iter().map(|(number, at)| json!([number, at.to_string()])).collect();
        let switches: Vec<_> = one.switches.iter().map(|(at, to)| json!([to.to_string(), at.to_string()])).collect();
        let moment = |at: Option<u64>| at.map(|at| at.to_string());
        json!({
            "requests": requests,
            "answers": answers,
            "switches": switches,
            "told": moment(one.told),
            "spokenTo": moment(one.spoken_to),
        })
    };
    json!({ "correspondents": all.iter().map(of).collect::<Vec<_>>() })
}

fn say(value: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}

fn echo_request(from: Ipv4Addr, to: Ipv4Addr, number: u32) -> [u8; ECHO] {
    let mut packet = [0; ECHO];
    packet[..10].copy_from_slice(&[0x45, 0, 0, ECHO as u8, 0, 0, 0x40, 0, 64, ICMP]);
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    packet[20] = 8;
    packet[28..32].copy_from_slice(&number.to_be_bytes());
    for (start, end, at) in [(0, 20, 10), (20, ECHO, 22)] {
        let sum =
            packet[start..end].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u32>();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
        packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

/// To the Map-Notify in this packet: a Map-Notify-Ack with its nonce and nothing else.
fn acknowledgement(notify: &[u8]) -> Vec<u8> {
    let mut packet = notify[..IPV6_UDP].to_vec();
    for octet in 0..16 {
        packet.swap(8 + octet, 24 + octet);
    }
    let length = (8 + ACK as u16).to_be_bytes();
    packet[4..6].copy_from_slice(&length);
    packet[IPV6_UDP - 4..].copy_from_slice(&[length[0], length[1], 0, 0]);
    packet.extend_from_slice(&[MAP_NOTIFY_ACK, 0, 0, 0]);
    packet.extend_from_slice(&notify[IPV6_UDP + 4..IPV6_UDP + 12]);
    packet.extend_from_slice(&[0; 4]);
    packet
}

fn key(text: &str) -> Result<[u8; 32], String> {
    let bytes = STANDARD.decode(text).map_err(|error| format!("a key: {error}"))?;
    bytes.try_into().map_err(|_| "a key has not 32 octets".to_owned())
}

fn monotonic() -> u64 {
    sys::clock(libc::CLOCK_MONOTONIC).as_nanos() as u64
}

const ICMP: u8 = 1;
const ECHO: usize = 36;
/// The type in the first octet, and the Map-Notify of an agent has flag I of the xTR-ID.
const MAP_NOTIFY: u8 = 4 << 4 | 8;
const MAP_NOTIFY_ACK: u8 = 5 << 4;
const IPV6_UDP: usize = 48;
/// Without records: word 0, nonce, no authentication.
const ACK: usize = 16;
const MAX_HELD: usize = 64;
/// Datagrams of one correspondent before the next one has its turn.
const AT_ONCE: usize = 16;
/// After the last question, for answers that are on their way.
const LAST_ANSWERS: u64 = 2_000_000_000;
const TICK: u64 = 100_000_000;
/// How often timers are looked at: all of them, which is too much to do after each packet.
const LOOK: u64 = 1_000_000;
