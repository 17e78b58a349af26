//! The whole data plane: the state machines, the sockets they drive, and the loop that joins them.
//!
//! Egress is in `egress.rs`, ingress in `ingress.rs`, the agent's commands in `commands.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::agent_messages::AgentMessages;
use crate::attachment::{Attachments, set_sysctl};
use crate::batch::SendQueue;
use crate::channel::{Channel, Ended, FIRST_TOKEN};
use crate::coalesce::Coalescer;
use crate::correspondents::Correspondents;
use crate::delivery::Delivery;
use crate::fast_hash::FastMap;
use crate::forwarding::{AGENT_PREFIX, Forwarding};
use crate::handshake::{Suite, random_u64};
use crate::hold::{EXPIRY_STEP, HoldQueue, Holds, INTERFACE_LIFETIME, Room, Why};
use crate::host::{Changes, HostNetwork, Item, LocalAddress, gateway};
use crate::icmp::{ErrorBudget, Problem};
use crate::interruption::{Interruption, SleepWatch, Uevents};
use crate::log;
use crate::messages::{Command, Event, key_text, parse_request};
use crate::neighbour_proxy::NeighbourProxies;
use crate::offload::Offloads;
use crate::outer_header::HeaderRules;
use crate::peer::PeerId;
use crate::prefix::Prefix;
use crate::receive::{Received, Receiver};
use crate::retransmit::Limits;
use crate::send::Sender;
use crate::stats::{Counter, Stats};
use crate::sys::{self, Poller, Readiness};
use crate::time::Time;
use crate::tun::Tun;
use crate::tunnel::{Output, Tunnel};
use crate::udp::{self, UdpSocket};
use crate::vnet::VNET_HEADER;
use crate::workload::WorkloadWatches;

pub struct Engine {
    pub(crate) tunnel: Tunnel,
    pub(crate) table: Forwarding,
    pub(crate) holds: Holds,
    pub(crate) hold_room: Room,
    pub(crate) agent_messages: AgentMessages,
    pub(crate) correspondents: Correspondents,
    pub(crate) workloads: WorkloadWatches,
    /// Frames that wait for a session.
    pub(crate) waiting: FastMap<PeerId, HoldQueue>,
    /// Sealed datagrams that had no route.
    pub(crate) unsent: FastMap<PeerId, Unsent>,
    pub(crate) tun: Arc<Tun>,
    pub(crate) delivery: Delivery,
    pub(crate) udp4: Option<UdpSocket>,
    pub(crate) udp6: Option<UdpSocket>,
    pub(crate) host: HostNetwork,
    pub(crate) channel: Channel,
    pub(crate) queue: SendQueue,
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
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
    pub(crate) config: Option<Settings>,
    pub(crate) watched: BTreeMap<String, Watch>,
    pub(crate) sync: u64,
    pub(crate) syncing: bool,
    /// The agent has said everything once.
    pub(crate) complete: bool,
    pub(crate) host_dirty: bool,
    /// Something may wait in a queue that has to be looked through.
    pub(crate) holding: bool,
    reported: Option<Vec<LocalAddress>>,
    pub(crate) attachments: Attachments,
    pub(crate) neighbour_proxies: NeighbourProxies,
    next_housekeeping: Time,
    ready: Ready,
    pub(crate) poller: Poller,
    signals: OwnedFd,
    uevents: Option<Uevents>,
    sleep: Option<SleepWatch>,
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
        threads: Option<usize>,
    ) -> io::Result<Engine> {
        let tun = Arc::new(tun);
        let poller = Poller::new()?;
        let signals = sys::termination_signals()?;
        poller.add(&signals, SIGNALS)?;
        poller.add(&host, NETLINK)?;
        poller.add(&channel, LISTENER)?;
        poller.add(&tun, TUN)?;
        let uevents = noticing("new VM generations", Uevents::open().and_then(|u| poller.add(&u, UEVENTS).map(|()| u)));
        let sleep = noticing("sleep", SleepWatch::open().and_then(|s| poller.add(&s, SLEEP).map(|()| s)));
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
            holds: Holds::default(),
            hold_room: Room::new(),
            agent_messages: AgentMessages::default(),
            correspondents: Correspondents::new(),
            workloads: WorkloadWatches::default(),
            waiting: FastMap::default(),
            unsent: FastMap::default(),
            delivery: Delivery::new(tun.clone(), threads),
            tun,
            udp4: None,
            udp6: None,
            host,
            channel,
            queue: SendQueue::new(),
            sender: Sender::new(),
            receiver: Receiver::new(),
            received: Vec::new(),
            frame: vec![0; VNET_HEADER + MAX_FRAME],
            icmp: ErrorBudget::new(),
            headers: HeaderRules::default(),
            now: sys::now(),
            suite,
            offloads,
            process: format!("{:016x}{:016x}", random_u64(), random_u64()),
            config: None,
            watched: BTreeMap::new(),
            sync: 0,
            syncing: false,
            complete: false,
            host_dirty: false,
            holding: false,
            reported: None,
            attachments: Attachments::default(),
            neighbour_proxies: NeighbourProxies::default(),
            next_housekeeping: Time::default(),
            ready: Ready::default(),
            poller,
            signals,
            uevents,
            sleep,
        })
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
            if self.ready.tun {
                self.ready.tun = self.read_tun();
            }
            let busy = self.ready.tun || self.ready.udp4 || self.ready.udp6;
            self.timeouts();
            self.drain_outputs();
            // What has happened must not wait for the next thing to happen.
            self.flush_channel();
            if !self.wait(busy)? {
                return Ok(());
            }
        }
    }

    pub fn close(&mut self) {
        self.channel.remove_socket();
    }

    /// Waits for something to do and does all but the two packet directions. False at a termination signal.
    fn wait(&mut self, busy: bool) -> io::Result<bool> {
        let timeout = if busy {
            Some(Duration::ZERO)
        } else {
            let next = self.tunnel.next_timeout().min(self.next_housekeeping);
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
                NETLINK => {
                    let changes = self.host.poll();
                    self.host_changed(changes);
                }
                UEVENTS => {
                    if self.uevents.as_mut().is_some_and(Uevents::poll) {
                        self.resume(Interruption::Snapshot);
                    }
                }
                SLEEP => {
                    if self.sleep.as_mut().and_then(SleepWatch::poll).is_some() {
                        self.resume(Interruption::Suspend);
                    }
                }
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
        Ok(true)
    }

    fn serve_agent(&mut self, token: u64) {
        let mut ended = None;
        match self.channel.connection() {
            Some(connection) if connection.token == token => ended = connection.fill().err(),
            _ => {
                let Some(hello) = self.channel.hear_newcomer(token, is_hello) else { return };
                self.syncing = false;
                self.handle_request(&hello);
            }
        }
        while let Some(connection) = self.channel.connection() {
            match connection.next_frame() {
                Ok(Some(frame)) => self.handle_request(&frame),
                Ok(None) => break,
                Err(error) => {
                    ended = Some(error);
                    break;
                }
            }
        }
        // Everything asked for is in place when the replies go out.
        self.reconcile_host();
        self.drain_outputs();
        if let Some(ended) = ended {
            self.agent_gone(&ended);
        }
    }

    fn agent_gone(&mut self, ended: &Ended) {
        match ended {
            Ended::Closed => log::info("the agent is gone; forwarding goes on", &[]),
            Ended::Failed(why) => log::warn("the agent's connection failed; forwarding goes on", &[("error", why)]),
        }
        self.syncing = false;
        self.channel.close();
    }

    fn flush_channel(&mut self) {
        let Some(connection) = self.channel.connection() else { return };
        if let Err(ended) = connection.flush() {
            return self.agent_gone(&ended);
        }
        let wants = connection.has_outgoing();
        if wants != connection.waits_to_write {
            connection.waits_to_write = wants;
            if let Err(error) = self.poller.set_writable_interest(connection, connection.token, wants) {
                log::warn("epoll", &[("error", &error)]);
            }
        }
    }

    pub(crate) fn event(&mut self, event: &Event) {
        self.channel.send_event(event, &mut self.tunnel.stats);
    }

    pub(crate) fn open_sockets(&mut self, port: u16) -> Result<(), String> {
        // A port that both families share; the old sockets go first, as they may hold it.
        (self.udp4, self.udp6) = (None, None);
        let mut stats = Stats::new();
        std::mem::swap(&mut stats, &mut self.tunnel.stats);
        let v4 = UdpSocket::open(port, false, self.offloads, &mut stats);
        let v6 = UdpSocket::open(port, true, self.offloads, &mut stats);
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
        (self.udp4, self.udp6) = (v4, v6);
        Ok(())
    }

    pub(crate) fn prepare_tun(&mut self, mtu: u32) -> io::Result<()> {
        // One superpacket fits one send: segments of `mtu` and what the tunnel adds to each.
        let segments = (crate::batch::MAX_BYTES as u32 / (mtu + 32)).clamp(1, 64);
        let gso_max_size = segments * (mtu - 52);
        self.host.tun_up(mtu, gso_max_size.max(mtu))?;
        set_sysctl(&format!("ipv4/conf/{}/rp_filter", self.tun.name), "0");
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
                    let micros = took.as_micros() as u64;
                    log::info("handover", &[("peer", &key_text(&key)), ("micros", &micros)]);
                    self.event(&Event::Handover { key, micros });
                }
                Output::ProbeResult { token, rtt } => {
                    self.event(&Event::ProbeResult { token, rtt_us: rtt.map(|r| r.as_micros() as u64) });
                }
                Output::UplinksChanged => self.report_locators(false),
            }
        }
    }

    /// What the own interface takes bounds the search for the path's MTU.
    pub(crate) fn read_path_ceiling(&mut self, peer: PeerId) {
        let Some(path) = self.tunnel.peer(peer).and_then(|p| p.endpoint) else { return };
        let Some(source) = udp::source_address(path) else { return };
        let mtu = self.host.mtu_at(source).unwrap_or(ETHERNET_MTU);
        let inner = self.config.as_ref().map_or(0, |c| c.mtu);
        self.tunnel.set_path_ceiling(peer, mtu.min(u32::from(u16::MAX)) as u16, inner);
    }

    fn resume(&mut self, from: Interruption) {
        log::info("this machine was interrupted", &[("by", &format!("{from:?}"))]);
        match from {
            Interruption::Suspend => self.tunnel.locators_changed(self.now),
            Interruption::Snapshot => {
                self.unsent.clear();
                self.tunnel.forget_sessions(sys::clock(libc::CLOCK_REALTIME).as_secs(), self.now);
            }
        }
        self.drain_outputs();
        self.event(&Event::Resumed(from));
    }

    fn host_changed(&mut self, changes: Changes) {
        if changes.underlay {
            // First of all the peers hear of it.
            self.host.refresh_routes();
            self.refresh_uplinks();
            self.tunnel.locators_changed(self.now);
            self.drain_outputs();
            self.send_all_unsent();
        }
        if changes.links {
            self.host_dirty = true;
        }
        // An own route or address may have been removed by somebody.
        self.host_dirty |= changes.underlay;
        self.reconcile_host();
        if changes.underlay || changes.links {
            self.report_locators(false);
        }
        if changes.links {
            self.report_interfaces();
        }
    }

    pub(crate) fn refresh_uplinks(&mut self) {
        let table = &self.table;
        let routes = self.host.uplinks(|a| table.in_eid_space(a) || table.locals.get(&Prefix::host(a)).is_some());
        self.tunnel.set_uplinks(routes);
    }

    pub(crate) fn report_locators(&mut self, always: bool) {
        if self.config.is_none() {
            return;
        }
        let (table, uplinks) = (&self.table, &self.tunnel.uplinks);
        let is_eid = |a| table.in_eid_space(a) || table.locals.get(&Prefix::host(a)).is_some();
        let addresses = self.host.local_addresses(is_eid, |link, address| uplinks.is_down(link, address));
        if always || self.reported.as_ref() != Some(&addresses) {
            self.reported = Some(addresses.clone());
            self.event(&Event::Locators(addresses));
        }
    }

    pub(crate) fn report_interfaces(&mut self) {
        self.prepare_interfaces();
        self.follow_workload_interfaces();
        let mut events = Vec::new();
        for (name, watch) in &mut self.watched {
            let up = self.host.live_link(name).is_some();
            if watch.told != Some(up) {
                watch.told = Some(up);
                events.push(Event::Interface { name: name.clone(), up });
            }
        }
        for event in events {
            self.event(&event);
        }
    }

    /// Addresses, routes and local EIDs follow the commands and the interfaces.
    pub(crate) fn reconcile_host(&mut self) {
        if !std::mem::take(&mut self.host_dirty) || self.config.is_none() {
            return;
        }
        self.prepare_interfaces();
        let wanted = self.wanted_items();
        self.host.reconcile(&wanted, self.complete && !self.syncing);
        let mut came_up = Vec::new();
        let mut newly_used = BTreeSet::new();
        for (prefix, local) in self.locals_snapshot() {
            let link = local.as_ref().map(|name| self.host.live_link(name));
            let live = link.is_none_or(|link| link.is_some());
            if let Some(entry) = self.table.locals.get_mut(&prefix) {
                if live && !entry.live {
                    came_up.push(std::mem::take(&mut entry.held));
                    newly_used.extend(link.flatten().map(|link| (link, prefix.address.is_ipv6())));
                }
                entry.live = live;
            }
        }
        self.follow_proxied_interfaces();
        self.announce_gateways(&newly_used);
        for queue in came_up {
            self.release(queue);
        }
    }

    fn locals_snapshot(&self) -> Vec<(Prefix, Option<String>)> {
        self.table.locals.iter().map(|(prefix, local)| (prefix, local.interface.clone())).collect()
    }

    fn wanted_items(&self) -> BTreeSet<Item> {
        let mut wanted = BTreeSet::new();
        let Some(tun) = self.host.link_index(&self.tun.name) else { return wanted };
        let on_tun: BTreeSet<IpAddr> = self
            .table
            .locals
            .iter()
            .filter(|(prefix, local)| prefix.is_host() && local.interface.is_none())
            .map(|(prefix, _)| prefix.address)
            .collect();
        let addresses = on_tun.iter().chain(&self.table.agent);
        wanted.extend(addresses.map(|address| Item::Address(Prefix::host(*address))));
        for prefix in &self.table.overlay {
            let source = on_tun.iter().find(|a| a.is_ipv6() == prefix.address.is_ipv6()).copied();
            wanted.insert(Item::Route { prefix: *prefix, link: tun, source });
        }
        wanted.insert(Item::Route { prefix: AGENT_PREFIX, link: tun, source: self.table.agent });
        for (prefix, local) in self.table.locals.iter() {
            let Some(name) = &local.interface else { continue };
            let Some(link) = self.host.live_link(name) else { continue };
            wanted.insert(Item::Gateway { link, address: gateway(prefix.address.is_ipv6()) });
            wanted.insert(Item::Route { prefix, link, source: None });
        }
        wanted
    }

    fn timeouts(&mut self) {
        if self.tunnel.next_timeout() <= self.now {
            self.tunnel.handle_timeout(self.now);
        }
        if self.now < self.next_housekeeping {
            // A queue may have been started meanwhile.
            if self.next_housekeeping == Time::NEVER && self.holding {
                self.next_housekeeping = self.now + EXPIRY_STEP;
            }
            return;
        }
        for (key, queue) in self.holds.expire(self.now) {
            self.expired(key.why, queue);
        }
        let now = self.now;
        let mut interface_away = 0;
        for local in self.table.locals.values_mut() {
            while local.held.pop_older(INTERFACE_LIFETIME, now).is_some() {
                interface_away += 1;
            }
        }
        for departed in self.table.departed.values_mut() {
            while departed.held.pop_older(INTERFACE_LIFETIME, now).is_some() {
                interface_away += 1;
            }
        }
        let over: Vec<Prefix> = self.table.departed.iter().filter(|(_, d)| d.until <= now).map(|(p, _)| p).collect();
        for prefix in over {
            let departed = self.table.departed.remove(&prefix);
            interface_away += departed.map_or(0, |d| d.held.len() as u64);
        }
        self.tunnel.stats.add(Counter::DropInterfaceAway, interface_away);
        let mut no_session = self.agent_messages.expire(now) as u64;
        let mut unreachable = Vec::new();
        for queue in self.waiting.values_mut() {
            while let Some(held) = queue.pop_without_session(now) {
                no_session += 1;
                unreachable.push(held);
            }
        }
        self.waiting.retain(|_, queue| queue.len() > 0);
        self.tunnel.stats.add(Counter::DropNoSession, no_session);
        for held in unreachable {
            self.explain(&held, Problem::HostUnreachable);
        }
        self.expire_unsent();
        if self.tunnel.expire_kept(now) {
            sys::give_back_memory();
        }
        self.workloads.end_quiet(now);
        self.workloads.ask_again(now);
        self.hold_room.measure(self.table.held_queues().chain(self.waiting.values()));
        self.holding = self.has_waiting();
        self.next_housekeeping = if self.holding { now + EXPIRY_STEP } else { Time::NEVER };
    }

    fn has_waiting(&self) -> bool {
        !self.holds.is_empty()
            || !self.waiting.is_empty()
            || self.agent_messages.is_waiting()
            || self.workloads.is_waiting()
            || !self.unsent.is_empty()
            || self.tunnel.keeps_memory()
            || self.table.departed.len() > 0
            || self.table.locals.iter().any(|(_, l)| l.held.len() > 0)
    }

    fn expired(&mut self, why: Why, mut queue: HoldQueue) {
        let counter = match why {
            Why::Destination => Counter::DropNoMapping,
            Why::Source | Why::Conflict => Counter::DropSourceCheck,
        };
        self.tunnel.stats.add(counter, queue.len() as u64);
        if why == Why::Destination {
            while let Some(held) = queue.pop() {
                self.explain(&held, Problem::HostUnreachable);
            }
        }
    }
}

/// Without it everything else works.
fn noticing<T>(what: &str, opened: io::Result<T>) -> Option<T> {
    if let Err(error) = &opened {
        log::warn("not noticed on this machine", &[("what", &what), ("error", error)]);
    }
    opened.ok()
}

fn is_hello(frame: &[u8]) -> bool {
    matches!(parse_request(frame), (_, Ok(Command::Hello)))
}

const MAX_FRAME: usize = 65_536;
const ETHERNET_MTU: u32 = 1500;
const TUN: u64 = 1;
const UDP4: u64 = 2;
const UDP6: u64 = 3;
const NETLINK: u64 = 4;
const LISTENER: u64 = 5;
const SIGNALS: u64 = 6;
const UEVENTS: u64 = 7;
const SLEEP: u64 = 8;
/// And the index of the interface.
pub(crate) const WORKLOADS: u64 = 1 << 32;
pub(crate) const PROXIES: u64 = 1 << 33;
