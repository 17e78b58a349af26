//! The whole data plane: the state machines, the sockets they drive, and the loop that joins them.
//!
//! Egress is in `egress.rs`, ingress in `ingress.rs`, the agent's connection in `agent_connection.rs` and its commands in
//! `commands.rs`, what the host's network says in `host_changes.rs`, what is wanted of it in `reconcile.rs`, and what
//! time alone does in `housekeeping.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::agent_messages::AgentMessages;
use crate::attachment::Attachments;
use crate::batch::SendQueue;
use crate::channel::{Channel, FIRST_TOKEN};
use crate::coalesce::Coalescer;
use crate::correspondents::Correspondents;
use crate::delivery::Delivery;
use crate::fast_hash::FastMap;
use crate::forwarding::Forwarding;
use crate::handovers::Handovers;
use crate::handshake::{Suite, random_u64};
use crate::hold::{Held, HoldQueue, Holds, Room};
use crate::host::{HostNetwork, LocalAddress};
use crate::icmp::ErrorBudget;
use crate::initiation_socket::InitiationSocket;
use crate::interruption::{ClockWatch, Generations, Interruption, KernelLog, Teller, Uevents, Wakings};
use crate::log;
use crate::messages::{Event, key_text};
use crate::neighbour_proxy::NeighbourProxies;
use crate::offload::Offloads;
use crate::outer_header::HeaderRules;
use crate::peer::PeerId;
use crate::plain_correspondents::PlainCorrespondents;
use crate::plain_path::PlainPath;
use crate::policy::Policy;
use crate::policy_preparation::PolicyPreparation;
use crate::receive::{Received, Receiver};
use crate::retransmit::Limits;
use crate::sandbox::Sandbox;
use crate::send::Sender;
use crate::stats::{Counter, Stats};
use crate::sys::{self, Poller, Readiness, ResidentMemory};
use crate::systemd::Systemd;
use crate::time::Time;
use crate::tun::Tun;
use crate::tunnel::{Output, Tunnel};
use crate::udp::UdpSocket;
use crate::vnet::VNET_HEADER;
use crate::workload::WorkloadWatches;

pub struct Engine {
    pub(crate) tunnel: Tunnel,
    pub(crate) table: Forwarding,
    pub(crate) policy: Policy,
    pub(crate) policy_preparation: PolicyPreparation,
    pub(crate) holds: Holds,
    pub(crate) hold_room: Room,
    pub(crate) agent_messages: AgentMessages,
    pub(crate) correspondents: Correspondents,
    pub(crate) plain_correspondents: PlainCorrespondents,
    pub(crate) plain: PlainPath,
    pub(crate) workloads: WorkloadWatches,
    /// Frames that wait for a session.
    pub(crate) waiting: FastMap<PeerId, HoldQueue>,
    /// What was received for EIDs that are not here, until the agent's messages have been read.
    pub(crate) unexpected: Vec<Held>,
    /// Sealed datagrams that had no route.
    pub(crate) unsent: FastMap<PeerId, Unsent>,
    pub(crate) tun: Arc<Tun>,
    pub(crate) delivery: Delivery,
    pub(crate) udp4: Option<UdpSocket>,
    pub(crate) udp6: Option<UdpSocket>,
    pub(crate) initiations4: Option<InitiationSocket>,
    pub(crate) initiations6: Option<InitiationSocket>,
    pub(crate) host: HostNetwork,
    pub(crate) channel: Channel,
    pub(crate) queue: SendQueue,
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    pub(crate) initiation_receiver: Receiver,
    pub(crate) received: Vec<Received>,
    pub(crate) coalescer: Coalescer,
    pub(crate) frame: Vec<u8>,
    pub(crate) icmp: ErrorBudget,
    pub(crate) headers: HeaderRules,
    pub(crate) now: Time,
    pub(crate) suite: Suite,
    /// Those that are wanted and that the kernel has.
    pub(crate) offloads: Offloads,
    pub(crate) process: String,
    pub(crate) sandbox: Sandbox,
    pub(crate) memory: ResidentMemory,
    pub(crate) config: Option<Settings>,
    pub(crate) watched: BTreeMap<String, Watch>,
    pub(crate) sync: u64,
    pub(crate) syncing: bool,
    /// The full state that the plain peers belong to.
    pub(crate) plain_sync: u64,
    /// The agent has said everything once.
    pub(crate) complete: bool,
    pub(crate) host_dirty: bool,
    /// Something may wait in a queue that has to be looked through.
    pub(crate) holding: bool,
    pub(crate) reported: Option<Vec<LocalAddress>>,
    pub(crate) attachments: Attachments,
    pub(crate) neighbour_proxies: NeighbourProxies,
    pub(crate) next_housekeeping: Time,
    pub(crate) handovers: Handovers,
    ready: Ready,
    pub(crate) systemd: Systemd,
    pub(crate) poller: Poller,
    signals: OwnedFd,
    uevents: Option<Uevents>,
    kernel_log: Option<KernelLog>,
    generations: Generations,
    wakings: Wakings,
    clocks: Option<ClockWatch>,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub instance: u32,
    pub listen_port: u16,
    pub mtu: u32,
}

pub(crate) struct Watch {
    pub sync: u64,
    pub told: Option<bool>,
}

#[derive(Default)]
pub(crate) struct Unsent {
    pub batches: VecDeque<UnsentBatch>,
    pub bytes: usize,
}

pub(crate) struct UnsentBatch {
    pub since: Time,
    pub bytes: Box<[u8]>,
    pub segment: usize,
}

/// Descriptors that may have something to read; cleared when they say that they have not.
#[derive(Default)]
struct Ready {
    tun: bool,
    udp4: bool,
    udp6: bool,
}

impl Engine {
    pub fn new(
        tun: Tun,
        host: HostNetwork,
        channel: Channel,
        retransmit: Limits,
        wanted: Offloads,
    ) -> io::Result<Engine> {
        let tun = Arc::new(tun);
        let poller = Poller::new()?;
        let signals = sys::termination_signals()?;
        poller.add(&signals, SIGNALS)?;
        poller.add(&host, NETLINK)?;
        poller.add(&channel, LISTENER)?;
        poller.add(&tun, TUN)?;
        let uevents = noticing("new VM generations", Uevents::open().and_then(|u| poller.add(&u, UEVENTS).map(|()| u)));
        let kernel_log = KernelLog::open().and_then(|l| poller.add(&l, KERNEL_LOG).map(|()| l));
        let kernel_log =
            kernel_log.inspect_err(|error| log::debug("the kernel's log is not read", &[("error", error)]));
        let clocks = noticing("sleep", ClockWatch::open().and_then(|s| poller.add(&s, CLOCKS).map(|()| s)));
        let suite = Suite::fastest();
        // The agent asks for the offloads before there is a port to listen on.
        let trial = [false, true].into_iter().find_map(|v6| UdpSocket::open(0, v6, wanted, &mut Stats::new()).ok());
        let (udp_gso, udp_gro) = trial.map_or((false, false), |socket| (socket.gso, socket.gro));
        let offloads = Offloads { vnet_hdr: tun.vnet_hdr, tso: tun.tso, uso: tun.uso, udp_gso, udp_gro };
        let mut tunnel = Tunnel::new(suite, retransmit);
        if wanted.tso && !tun.tso {
            tunnel.stats.count(Counter::FallbackTso);
        }
        if wanted.uso && !tun.uso {
            tunnel.stats.count(Counter::FallbackUso);
        }
        Ok(Engine {
            coalescer: Coalescer::new(tun.tso, tun.uso),
            tunnel,
            table: Forwarding::new(),
            policy: Policy::default(),
            policy_preparation: PolicyPreparation::default(),
            holds: Holds::default(),
            hold_room: Room::new(),
            agent_messages: AgentMessages::default(),
            correspondents: Correspondents::new(),
            plain_correspondents: PlainCorrespondents::default(),
            plain: PlainPath::default(),
            workloads: WorkloadWatches::default(),
            waiting: FastMap::default(),
            unexpected: Vec::new(),
            unsent: FastMap::default(),
            delivery: Delivery::new(tun.clone()),
            tun,
            udp4: None,
            udp6: None,
            initiations4: None,
            initiations6: None,
            host,
            channel,
            queue: SendQueue::new(),
            sender: Sender::new(),
            receiver: Receiver::new(),
            initiation_receiver: Receiver::new(),
            received: Vec::new(),
            frame: vec![0; VNET_HEADER + MAX_FRAME],
            icmp: ErrorBudget::new(),
            headers: HeaderRules::default(),
            now: sys::now(),
            suite,
            offloads,
            process: format!("{:016x}{:016x}", random_u64(), random_u64()),
            sandbox: Sandbox::default(),
            memory: ResidentMemory::open(),
            config: None,
            watched: BTreeMap::new(),
            sync: 0,
            syncing: false,
            plain_sync: 0,
            complete: false,
            host_dirty: false,
            holding: false,
            reported: None,
            attachments: Attachments::default(),
            neighbour_proxies: NeighbourProxies::default(),
            next_housekeeping: Time::default(),
            handovers: Handovers::new(),
            ready: Ready::default(),
            systemd: Systemd::from_environment(),
            poller,
            signals,
            uevents,
            kernel_log: kernel_log.ok(),
            generations: Generations::default(),
            wakings: Wakings::default(),
            clocks,
        })
    }

    /// `threads`: how many may handle packets.
    pub fn start_threads(&mut self, threads: usize) {
        self.delivery.start_threads(threads);
        let started = PolicyPreparation::start().and_then(|p| self.poller.add(&p, POLICIES).map(|()| p));
        self.policy_preparation = noticing("large policies, beside the packets", started).unwrap_or_default();
    }

    pub fn threads(&self) -> usize {
        self.delivery.threads()
    }

    /// Runs until a termination signal.
    pub fn run(&mut self) -> io::Result<()> {
        loop {
            self.now = sys::now();
            if self.ready.udp4 {
                self.ready.udp4 = self.receive(false);
            }
            if self.ready.udp6 {
                self.ready.udp6 = self.receive(true);
            }
            self.receive_initiations(false)?;
            self.receive_initiations(true)?;
            if self.ready.tun {
                self.ready.tun = self.read_tun();
            }
            let busy = self.ready.tun || self.ready.udp4 || self.ready.udp6;
            self.timeouts();
            self.drain_outputs();
            // What has happened must not wait for the next thing to happen.
            self.flush_channel();
            self.systemd.beat(self.now);
            if !self.wait(busy)? {
                return Ok(());
            }
        }
    }

    pub fn close(&mut self) {
        self.channel.remove_socket();
        self.count_refused_system_calls();
    }

    /// Waits for something to do and does all but the two packet directions. False at a termination signal.
    fn wait(&mut self, busy: bool) -> io::Result<bool> {
        let timeout = if busy {
            Some(Duration::ZERO)
        } else {
            let initiations = self.initiations4.iter().chain(&self.initiations6).map(InitiationSocket::next_turn);
            let told = self.systemd.next_beat().min(self.handovers.next_report());
            let own = self.tunnel.next_timeout().min(self.next_housekeeping).min(told);
            let next = initiations.fold(own, Time::min);
            (next != Time::NEVER).then(|| next.since(sys::now()))
        };
        for Readiness { token, error } in self.poller.wait(timeout)? {
            self.now = sys::now();
            match token {
                UDP4 | UDP6 if error => {
                    self.read_outer_errors(token == UDP6);
                }
                TUN => self.ready.tun = true,
                UDP4 => self.ready.udp4 = true,
                UDP6 => self.ready.udp6 = true,
                INITIATIONS4 | INITIATIONS6 => {
                    if error {
                        self.read_outer_errors(token == INITIATIONS6);
                    }
                    let own = if token == INITIATIONS6 { &mut self.initiations6 } else { &mut self.initiations4 };
                    own.iter_mut().for_each(InitiationSocket::has_come);
                }
                NETLINK => {
                    let changes = self.host.poll();
                    self.host_changed(changes);
                }
                UEVENTS => {
                    if self.uevents.as_mut().is_some_and(Uevents::poll) {
                        self.hear_of_generation(Teller::Uevent);
                    }
                }
                KERNEL_LOG => {
                    if self.kernel_log.as_mut().is_some_and(KernelLog::poll) {
                        self.hear_of_generation(Teller::KernelLog);
                    }
                }
                CLOCKS => match self.clocks.as_mut().and_then(ClockWatch::poll) {
                    Some(Interruption::Suspend) => {
                        self.wake();
                    }
                    Some(found) => self.resume(found),
                    None => {}
                },
                POLICIES => self.take_prepared_policy(),
                LISTENER => {
                    if let Some(newcomer) = self.channel.accept() {
                        self.poller.add(newcomer, newcomer.token)?;
                    }
                }
                token if token >= PROXIES => self.answer_solicitations((token - PROXIES) as u32),
                token if token >= WORKLOADS => self.hear_workloads((token - WORKLOADS) as u32),
                token if token >= FIRST_TOKEN => self.serve_agent(token),
                _ => {
                    log::info("stopping on a signal", &[("fd", &self.signals.as_raw_fd())]);
                    return Ok(false);
                }
            }
        }
        self.drain_outputs();
        self.flush_channel();
        self.count_refused_system_calls();
        Ok(true)
    }

    pub(crate) fn open_sockets(&mut self, port: u16) -> Result<(), String> {
        // A port that both families share; the old sockets go first, as they may hold it.
        (self.udp4, self.udp6) = (None, None);
        (self.initiations4, self.initiations6) = (None, None);
        let mut stats = Stats::new();
        std::mem::swap(&mut stats, &mut self.tunnel.stats);
        let v4 = UdpSocket::open(port, false, self.offloads, &mut stats);
        let v6 = UdpSocket::open(port, true, self.offloads, &mut stats);
        let mut beside = |data: &io::Result<UdpSocket>| {
            data.as_ref().ok().and_then(|data| InitiationSocket::open(data, self.offloads, &mut stats))
        };
        let initiations = [beside(&v4), beside(&v6)];
        self.tunnel.stats = stats;
        let (v4, v6) = match (v4, v6) {
            (Ok(v4), v6) => (Some(v4), v6.ok()),
            (Err(_), Ok(v6)) => (None, Some(v6)),
            (Err(error), Err(_)) => return Err(format!("UDP port {port}: {error}")),
        };
        for (socket, token) in [(&v4, UDP4), (&v6, UDP6)] {
            if let Some(socket) = socket {
                self.poller.add(socket, token).map_err(|e| e.to_string())?;
            }
        }
        for (own, token) in initiations.iter().zip([INITIATIONS4, INITIATIONS6]) {
            if let Some(own) = own {
                self.poller.add_once(own, token).map_err(|e| e.to_string())?;
            }
        }
        (self.udp4, self.udp6) = (v4, v6);
        [self.initiations4, self.initiations6] = initiations;
        self.accept_plain_checksums();
        Ok(())
    }

    /// Does what the tunnel asks for: packets to send, queues to release, events.
    pub(crate) fn drain_outputs(&mut self) {
        while let Some(output) = self.tunnel.poll() {
            match output {
                Output::Transmit { peer, path, bytes } => self.transmit(peer, path, &bytes),
                Output::Resend { peer, path, bytes } => self.resend(peer, path, &bytes),
                Output::SizeProbe { peer, path, token, bytes } => self.send_size_probe(peer, path, token, &bytes),
                Output::SessionUp(peer) => {
                    self.release_agent_messages(peer);
                    self.release_waiting(peer);
                }
                Output::EndpointChanged(peer) => {
                    self.read_path_ceiling(peer);
                    self.send_unsent(peer);
                }
                Output::UnknownPeer(key) => self.event(&Event::UnknownPeer { key }),
                Output::PeerMoved { key, remote } => {
                    log::debug("peer moved", &[("peer", &key_text(&key)), ("to", &remote)]);
                    self.event(&Event::PeerMoved { key, remote });
                }
                Output::Handover { key, took } => {
                    log::debug("handover", &[("peer", &key_text(&key)), ("micros", &took.as_micros())]);
                    self.handovers.note(took, self.now);
                }
                Output::ProbeResult { token, rtt } => {
                    self.event(&Event::ProbeResult { token, rtt_us: rtt.map(|r| r.as_micros() as u64) });
                }
                Output::UplinksChanged => self.report_locators(false),
            }
        }
    }

    fn hear_of_generation(&mut self, from: Teller) {
        if self.generations.told(from, self.now) {
            self.resume(Interruption::Snapshot);
        }
    }

    /// The machine is about to sleep. Returns how many sessions were forgotten.
    pub(crate) fn fall_asleep(&mut self) -> usize {
        self.wakings.await_next();
        self.forget_unsent();
        let sessions = self.tunnel.fall_asleep(sys::clock(libc::CLOCK_REALTIME).as_secs(), self.now);
        log::info("this machine is about to sleep", &[("sessions", &sessions)]);
        sessions
    }

    /// The machine has slept. False if that is known.
    pub(crate) fn wake(&mut self) -> bool {
        let is_news = self.wakings.told(self.now);
        if is_news {
            self.resume(Interruption::Suspend);
        }
        is_news
    }

    fn resume(&mut self, from: Interruption) {
        log::info("this machine was interrupted", &[("by", &format!("{from:?}"))]);
        let wall_seconds = sys::clock(libc::CLOCK_REALTIME).as_secs();
        match from {
            Interruption::Suspend => self.tunnel.resumed(self.now),
            Interruption::ClockAhead => self.tunnel.clock_put_ahead(wall_seconds, self.now),
            Interruption::Snapshot => {
                self.wakings.told(self.now);
                self.forget_unsent();
                self.tunnel.forget_sessions(wall_seconds, self.now);
            }
        }
        self.drain_outputs();
        self.event(&Event::Resumed { from, epoch: self.tunnel.epoch() });
    }
}

/// Without it everything else works.
fn noticing<T>(what: &str, opened: io::Result<T>) -> Option<T> {
    if let Err(error) = &opened {
        log::warn("not noticed on this machine", &[("what", &what), ("error", error)]);
    }
    opened.ok()
}

const MAX_FRAME: usize = 65_536;
const TUN: u64 = 1;
const UDP4: u64 = 2;
const UDP6: u64 = 3;
const NETLINK: u64 = 4;
const LISTENER: u64 = 5;
const SIGNALS: u64 = 6;
const UEVENTS: u64 = 7;
const CLOCKS: u64 = 8;
pub(crate) const INITIATIONS4: u64 = 9;
pub(crate) const INITIATIONS6: u64 = 10;
const KERNEL_LOG: u64 = 11;
const POLICIES: u64 = 12;
/// And the index of the interface.
pub(crate) const WORKLOADS: u64 = 1 << 32;
pub(crate) const PROXIES: u64 = 1 << 33;
