//! From the TUN to peers: route, cut into segments, seal into the send batch, send.

use std::io::{self, ErrorKind};

use crate::agent_messages::is_agent_message;
use crate::batch::Target;
use crate::engine::Engine;
use crate::forwarding::{Origin, Route};
use crate::hold::{Held, HoldKey, HoldQueue, INTERFACE_LIMIT, REDIRECT_LIMIT, SESSION_LIMIT, Why};
use crate::icmp::{self, Problem};
use crate::log;
use crate::messages::Event;
use crate::outer_header::age;
use crate::packet::{Inner, TCP, clamp_mss, finish_checksum};
use crate::peer::PeerId;
use crate::prefix::Prefix;
use crate::segment::{SegmentError, Segments, fragment_ipv4};
use crate::stats::Counter;
use crate::time::{Time, seconds};
use crate::vnet::{Gso, VNET_HEADER, VnetHeader};
use crate::wire::{DATA_OVERHEAD, Kind};

impl Engine {
    /// Reads what the TUN has, bounded. False when it has no more.
    pub(crate) fn read_tun(&mut self) -> bool {
        let mut frame = std::mem::take(&mut self.frame);
        let mut more = true;
        for _ in 0..READS_AT_ONCE {
            match self.tun.read(&mut frame) {
                Ok(length) => {
                    self.tunnel.stats.count(Counter::TunReadCalls);
                    self.forward_frame(&mut frame[..length], self.now);
                }
                Err(error) => {
                    if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
                        log::debug("reading the TUN", &[("error", &error)]);
                    }
                    more = false;
                    break;
                }
            }
        }
        self.frame = frame;
        self.flush_queue();
        more
    }

    /// Routes a frame of the TUN.
    fn forward_frame(&mut self, frame: &mut [u8], since: Time) {
        let from = Origin::Host;
        let Some((vnet, inner)) = parse_frame(frame) else {
            return self.tunnel.stats.count(Counter::DropMalformed);
        };
        self.tunnel.stats.count(Counter::TunRxPackets);
        self.tunnel.stats.add(Counter::TunRxBytes, inner.total as u64);
        if is_agent_message(&inner, &frame[VNET_HEADER..]) {
            return self.tunnel.stats.count(Counter::DropPolicy);
        }
        let route = self.table.route(inner.destination);
        if route != Route::Outside && !self.may_send(&frame[VNET_HEADER..], &inner) {
            return;
        }
        match route {
            Route::Forward(peer) => {
                self.correspondents.note(inner.source, peer, &self.table, self.now);
                self.send_frame(peer, frame, &vnet, &inner, from, since);
            }
            Route::Plain(prefix) => self.send_plain(prefix, frame, &vnet, &inner, from),
            Route::LocalAway(prefix) => self.hold_for_interface(prefix, frame, from, since),
            Route::Departed(prefix) => self.hold_departed(prefix, frame, from, since),
            // The kernel sent it back: the way to the workload has just gone, and its event is still to be read.
            Route::Local => match self.table.behind_interface(inner.destination) {
                Some(prefix) => self.hold_for_interface(prefix, frame, from, since),
                None => self.tunnel.stats.count(Counter::DropNotLocal),
            },
            Route::Outside => self.tunnel.stats.count(Counter::DropNotOverlay),
            Route::Drop => {
                self.tunnel.stats.count(Counter::DropPolicy);
                self.explain_packet(&frame[VNET_HEADER..], &inner, Problem::Prohibited);
            }
            Route::Miss => {
                let key = HoldKey { eid: inner.destination, why: Why::Destination };
                self.hold(key, frame, from, since, &Event::Miss { eid: inner.destination, source: false });
            }
        }
    }

    /// Seals a frame for a peer, or queues it until there is a session.
    pub(crate) fn send_frame(
        &mut self,
        peer: PeerId,
        frame: &mut [u8],
        vnet: &VnetHeader,
        inner: &Inner,
        from: Origin,
        since: Time,
    ) {
        let Some((_, path)) = self.tunnel.session_for_sending(peer, self.now) else {
            self.holding = true;
            let held = Held { frame: (&*frame).into(), since, from };
            let queue = self.waiting.entry(peer).or_default();
            // What was held for a workload that has moved on comes all at once.
            let limit = if matches!(from, Origin::Peer(_)) { REDIRECT_LIMIT } else { SESSION_LIMIT };
            let kept = self.hold_room.push(queue, held, limit);
            return self.tunnel.stats.count(if kept { Counter::HeldPacketsTotal } else { Counter::DropQueueFull });
        };
        let (limit, proven) = self.tunnel.peer(peer).map_or((0, 0), |p| (p.inner_limit(self.now), p.proven_limit()));
        let packet = &mut frame[VNET_HEADER..];
        let mut inner = *inner;
        if from != Origin::Host && !age(packet, &mut inner) {
            return self.tunnel.stats.count(Counter::DropTtl);
        }
        let inner = &inner;
        clamp_mss(packet, inner, limit, vnet.needs_csum);
        let cuttable = inner.protocol == TCP && !inner.fragment;
        if cuttable && vnet.gso == Gso::None && inner.total > limit && self.icmp.allow_advice(self.now) {
            // It will be cut, which two smaller ones would not need.
            self.tell(packet, inner, Problem::TooBig { mtu: limit as u16 });
        }
        let limit = if cuttable { proven } else { limit };
        let searches = !(self.agent_messages.is_own(inner.source) && is_agent_message(inner, packet));
        let target = Target { peer, path, outer: self.headers.encapsulate(inner), searches };
        match Segments::new(vnet, *inner, packet, limit) {
            Ok(mut segments) => {
                let (count, size) = segments.shape(packet);
                if count > 1 && !self.queue.make_room_for_all(target, count, size + DATA_OVERHEAD) {
                    self.flush_queue();
                }
                let mut bytes = 0;
                while let Some((range, partial)) = segments.next(packet) {
                    bytes += self.seal(target, &packet[range], partial);
                }
                self.tunnel.sent_data(peer, bytes, self.now);
                if self.queue.is_large() {
                    self.flush_queue();
                }
                if from != Origin::Host {
                    self.tunnel.stats.count(Counter::RedirectedPackets);
                }
            }
            Err(SegmentError::Malformed) => self.tunnel.stats.count(Counter::DropMalformed),
            Err(SegmentError::TooBig) => self.send_too_big(target, packet, vnet, inner, limit),
        }
    }

    /// Appends a sealed packet to the batch, which is sent first if it does not fit. Returns its size.
    #[inline]
    fn seal(&mut self, target: Target, packet: &[u8], partial: bool) -> usize {
        let size = packet.len() + DATA_OVERHEAD;
        if !self.queue.make_room(target, size) {
            self.flush_queue();
            self.queue.make_room(target, size);
        }
        let Some(session) = self.tunnel.peer_mut(target.peer).and_then(|p| p.current.as_mut()) else { return 0 };
        let kind = if partial { Kind::DataPartial } else { Kind::Data };
        match session.seal(kind, packet, self.queue.space()) {
            Some(size) => self.queue.commit(size),
            None => self.tunnel.stats.count(Counter::DropNoSession),
        }
        size
    }

    /// What does not fit the path: told to its sender, cut where IPv4 allows it, or sent in outer fragments where
    /// IPv6 promises 1280 octets.
    fn send_too_big(&mut self, target: Target, packet: &mut [u8], vnet: &VnetHeader, inner: &Inner, limit: usize) {
        if vnet.gso == Gso::None {
            if vnet.needs_csum {
                let (start, offset) = (usize::from(vnet.csum_start), usize::from(vnet.csum_offset));
                finish_checksum(packet, start, offset, offset == 6);
            }
            if inner.is_v6() && inner.total <= IPV6_MINIMUM {
                return self.send_in_outer_fragments(target, packet);
            }
            let fragments = fragment_ipv4(packet, inner, limit);
            if !fragments.is_empty() {
                self.tunnel.stats.count(Counter::FragmentedPackets);
                for fragment in &fragments {
                    self.seal(target, fragment, false);
                }
                return self.tunnel.sent_data(target.peer, inner.total, self.now);
            }
        }
        self.tunnel.stats.count(Counter::DropTooBig);
        let mtu = if inner.is_v6() { limit.max(IPV6_MINIMUM) } else { limit };
        self.explain_packet(packet, inner, Problem::TooBig { mtu: mtu as u16 });
    }

    fn send_in_outer_fragments(&mut self, target: Target, packet: &[u8]) {
        self.flush_queue();
        let mut sealed = vec![0; packet.len() + DATA_OVERHEAD];
        let session = self.tunnel.peer_mut(target.peer).and_then(|p| p.current.as_mut());
        if session.is_none_or(|s| s.seal(Kind::Data, packet, &mut sealed).is_none()) {
            return self.tunnel.stats.count(Counter::DropNoSession);
        }
        self.tunnel.stats.count(Counter::FallbackOuterFragmented);
        let result = match self.socket(target.path) {
            Some(socket) => socket.send_fragmented(target.path, target.outer, &sealed),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        self.count_send(result.is_ok());
        self.keep_sent(target, &sealed, sealed.len());
        self.tunnel.sent_data(target.peer, sealed.len(), self.now);
    }

    pub(crate) fn release_waiting(&mut self, peer: PeerId) {
        self.read_path_ceiling(peer);
        if let Some(queue) = self.waiting.remove(&peer) {
            self.release(queue);
        }
        self.send_unsent(peer);
    }

    /// Sends held packets through the table again.
    pub(crate) fn release(&mut self, mut queue: HoldQueue) {
        while let Some(mut held) = queue.pop() {
            match held.from {
                Origin::Host => self.forward_again(&mut held),
                from => self.deliver_again(from, &mut held),
            }
        }
        self.flush_queue();
    }

    fn forward_again(&mut self, held: &mut Held) {
        let Some((vnet, inner)) = parse_frame(&held.frame) else { return };
        match self.table.route(inner.destination) {
            // The workload came to this host while its packet waited.
            Route::Local => self.write_frame(&held.frame),
            Route::Forward(peer) => {
                self.correspondents.note(inner.source, peer, &self.table, self.now);
                self.send_frame(peer, &mut held.frame, &vnet, &inner, Origin::Host, held.since);
            }
            Route::Plain(prefix) => self.send_plain(prefix, &mut held.frame, &vnet, &inner, Origin::Host),
            _ if self.now.since(held.since) > seconds(5) => self.tunnel.stats.count(Counter::DropExpired),
            Route::LocalAway(prefix) => self.hold_for_interface(prefix, &held.frame, Origin::Host, held.since),
            Route::Departed(prefix) => self.hold_departed(prefix, &held.frame, Origin::Host, held.since),
            Route::Miss => {
                let key = HoldKey { eid: inner.destination, why: Why::Destination };
                let event = Event::Miss { eid: inner.destination, source: false };
                self.hold(key, &held.frame, Origin::Host, held.since, &event);
            }
            Route::Drop => self.tunnel.stats.count(Counter::DropPolicy),
            Route::Outside => self.tunnel.stats.count(Counter::DropNotOverlay),
        }
    }

    pub(crate) fn write_frame(&mut self, frame: &[u8]) {
        self.delivery.finish(&mut self.tunnel.stats);
        self.tunnel.stats.count(Counter::TunWriteCalls);
        match self.tun.write(frame) {
            Ok(length) => {
                self.tunnel.stats.count(Counter::TunTxPackets);
                self.tunnel.stats.add(Counter::TunTxBytes, (length - VNET_HEADER) as u64);
            }
            Err(_) => self.tunnel.stats.count(Counter::DropTunWriteError),
        }
    }

    pub(crate) fn hold(&mut self, key: HoldKey, frame: &[u8], from: Origin, since: Time, event: &Event) {
        let held = Held { frame: frame.into(), since, from };
        self.holding = true;
        let result = self.holds.hold(key, held, self.now);
        self.tunnel.stats.count(if result.kept { Counter::HeldPacketsTotal } else { Counter::DropQueueFull });
        if result.tell {
            self.event(event);
        }
    }

    pub(crate) fn hold_for_interface(&mut self, prefix: Prefix, frame: &[u8], from: Origin, since: Time) {
        self.holding = true;
        let Some(local) = self.table.locals.get_mut(&prefix) else { return };
        let held = Held { frame: frame.into(), since, from };
        let kept = self.hold_room.push(&mut local.held, held, INTERFACE_LIMIT);
        self.tunnel.stats.count(if kept { Counter::HeldPacketsTotal } else { Counter::DropQueueFull });
    }

    pub(crate) fn hold_departed(&mut self, prefix: Prefix, frame: &[u8], from: Origin, since: Time) {
        self.holding = true;
        let Some(departed) = self.table.departed.get_mut(&prefix) else { return };
        let held = Held { frame: frame.into(), since, from };
        let kept = self.hold_room.push(&mut departed.held, held, INTERFACE_LIMIT);
        self.tunnel.stats.count(if kept { Counter::HeldPacketsTotal } else { Counter::DropQueueFull });
    }

    /// Tells the local sender of a held packet why it went nowhere.
    pub(crate) fn explain(&mut self, held: &Held, problem: Problem) {
        if held.from == Origin::Host
            && let Some((_, inner)) = parse_frame(&held.frame)
        {
            self.explain_packet(&held.frame[VNET_HEADER..], &inner, problem);
        }
    }

    pub(crate) fn explain_packet(&mut self, packet: &[u8], inner: &Inner, problem: Problem) {
        if self.icmp.allow(problem, self.now) {
            self.tell(packet, inner, problem);
        }
    }

    pub(crate) fn tell(&mut self, packet: &[u8], inner: &Inner, problem: Problem) {
        if let Some(message) = icmp::error(packet, inner, problem) {
            self.tunnel.stats.count(Counter::IcmpSent);
            self.write_frame(&[&VnetHeader::default().bytes(), &message[..]].concat());
        }
    }
}

pub(crate) fn parse_frame(frame: &[u8]) -> Option<(VnetHeader, Inner)> {
    let vnet = VnetHeader::parse(frame)?;
    let inner = Inner::parse(&frame[VNET_HEADER..])?;
    (inner.total == frame.len() - VNET_HEADER).then_some((vnet, inner))
}

const READS_AT_ONCE: usize = 64;
pub(crate) const IPV6_MINIMUM: usize = 1280;
