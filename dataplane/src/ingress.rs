//! From peers to the TUN: open, check destination and source, coalesce, write.

use std::net::IpAddr;
use std::ops::Range;

use crate::coalesce::single_header;
use crate::egress::parse_frame;
use crate::engine::Engine;
use crate::forwarding::{Origin, Route, Source};
use crate::hold::{Held, HoldKey, Why};
use crate::messages::Event;
use crate::outer_header::{Decapsulated, Outer};
use crate::packet::{Inner, clamp_mss, opens_connection};
use crate::peer::Path;
use crate::plain::PlainHeader;
use crate::receive::{Received, Receiver};
use crate::stats::Counter;
use crate::time::{Time, seconds};
use crate::vnet::VNET_HEADER;
use crate::wire::{DATA_HEADER, Header, HeaderError, Kind, LISP_HEADER, TAG};

/// The last flow found good, so that a burst is checked once.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Checked {
    origin: Origin,
    source: IpAddr,
    destination: IpAddr,
}

impl Engine {
    /// Receives on one data socket, bounded. False when there is no more.
    pub(crate) fn receive(&mut self, v6: bool) -> bool {
        let mut receiver = std::mem::replace(&mut self.receiver, Receiver::empty());
        let mut received = std::mem::take(&mut self.received);
        let mut more = true;
        for _ in 0..RECEIVES_AT_ONCE {
            let socket = if v6 { self.udp6.as_ref() } else { self.udp4.as_ref() };
            more = socket.is_some_and(|socket| receiver.receive(socket, &mut received).unwrap_or_default());
            if received.is_empty() {
                break;
            }
            self.take_in(&mut receiver.arena, &received);
            if !more {
                break;
            }
        }
        self.receiver = receiver;
        self.received = received;
        self.flush_queue();
        more
    }

    /// What one call received.
    pub(crate) fn take_in(&mut self, arena: &mut Vec<u8>, received: &[Received]) {
        self.tunnel.stats.count(Counter::UdpReceiveCalls);
        self.tunnel.stats.add(Counter::UdpRxMessages, received.len() as u64);
        let octets = received.iter().map(|message| message.length).sum();
        self.delivery.begin(octets, &mut self.tunnel.stats);
        let mut checked = None;
        for message in received {
            let end = message.start + message.length;
            let mut start = message.start;
            while start < end {
                let place = start..(start + message.segment).min(end);
                start = place.end;
                self.tunnel.stats.count(Counter::UdpRxDatagrams);
                self.handle_datagram(arena, place, message.path, message.outer, &mut checked);
            }
        }
        let mut sink = self.delivery.sink(&mut self.tunnel.stats);
        self.coalescer.flush(arena, &mut sink);
        self.delivery.end(arena, &mut self.tunnel.stats);
        self.take_in_unexpected();
        self.drain_outputs();
    }

    /// The agent may have said just now that an EID is here: packets are read before its messages.
    fn take_in_unexpected(&mut self) {
        if self.unexpected.is_empty() {
            return;
        }
        let mut unexpected = std::mem::take(&mut self.unexpected);
        if let Some(token) = self.channel.connection().map(|connection| connection.token) {
            self.serve_agent(token);
        }
        for held in &mut unexpected {
            self.deliver_again(held.from, held);
        }
    }

    #[inline]
    fn handle_datagram(
        &mut self,
        arena: &mut [u8],
        place: Range<usize>,
        path: Path,
        outer: Outer,
        checked: &mut Option<Checked>,
    ) {
        let datagram = &mut arena[place.clone()];
        let header = match Header::parse(datagram) {
            Ok(header) => header,
            Err(HeaderError::Malformed) => return self.tunnel.stats.count(Counter::DropMalformed),
            Err(HeaderError::Plaintext) => return self.take_plain(arena, place, path, outer, checked),
        };
        let partial = match header.kind {
            Kind::Initiation | Kind::Response | Kind::CookieReply => {
                return self.tunnel.handle_handshake(path, header, datagram, self.now);
            }
            Kind::Data | Kind::Control => false,
            Kind::DataPartial => true,
        };
        if self.config.as_ref().is_none_or(|c| c.instance != header.instance) {
            return self.tunnel.stats.count(Counter::DropWrongInstance);
        }
        let peer = match self.tunnel.open(path, header, datagram, self.now) {
            Ok(peer) => peer,
            Err(reason) => return self.tunnel.stats.count(reason),
        };
        if header.kind != Kind::Control {
            self.deliver(
                arena,
                place.start + DATA_HEADER..place.end - TAG,
                Origin::Peer(peer),
                partial,
                outer,
                checked,
            );
        }
    }

    /// Without tunnel: from who is allowed to, for the instance that is served, and whole.
    fn take_plain(
        &mut self,
        arena: &mut [u8],
        place: Range<usize>,
        path: Path,
        outer: Outer,
        checked: &mut Option<Checked>,
    ) {
        let rloc = path.remote.ip();
        if !self.table.plain.allows(rloc) {
            return self.tunnel.stats.count(Counter::DropPlaintext);
        }
        let Some(header) = PlainHeader::parse(&arena[place.clone()]) else {
            return self.tunnel.stats.count(Counter::DropMalformed);
        };
        if !self.table.plain.serves(header) {
            return self.tunnel.stats.count(Counter::DropWrongInstance);
        }
        self.tunnel.stats.count(Counter::PlainRxPackets);
        self.deliver(arena, place.start + LISP_HEADER..place.end, Origin::Rloc(rloc), false, outer, checked);
    }

    fn deliver(
        &mut self,
        arena: &mut [u8],
        place: Range<usize>,
        origin: Origin,
        partial: bool,
        outer: Outer,
        checked: &mut Option<Checked>,
    ) {
        let packet = &mut arena[place.clone()];
        let Some(mut inner) = Inner::parse(packet).filter(|i| !partial || i.checksum_offset().is_some()) else {
            return self.tunnel.stats.count(Counter::DropMalformed);
        };
        let packet = &mut packet[..inner.total];
        let place = place.start..place.start + inner.total;
        match self.headers.decapsulate(packet, &mut inner, outer) {
            Decapsulated::Unchanged => {}
            Decapsulated::Marked => self.tunnel.stats.count(Counter::CongestionMarks),
            Decapsulated::Drop => return self.tunnel.stats.count(Counter::DropCongestion),
        }
        let flow = Checked { origin, source: inner.source, destination: inner.destination };
        let route = if *checked == Some(flow) {
            Route::Local
        } else {
            if let Origin::Peer(peer) = origin
                && self.agent_messages.are_addressed_by(&inner, packet)
            {
                return self.hear_agent_message(peer, &inner, packet);
            }
            let route = self.table.arrival(inner.destination, origin);
            if route == Route::Outside {
                if matches!(origin, Origin::Rloc(_)) || !self.table.in_eid_space(inner.destination) {
                    return self.tunnel.stats.count(Counter::DropNotLocal);
                }
                let frame = frame_of(packet, &inner, partial).into();
                return self.unexpected.push(Held { frame, since: self.now, from: origin });
            }
            match self.table.check_source(inner.source, inner.destination, origin, self.now) {
                Source::Ok => {}
                Source::Denied => return self.tunnel.stats.count(Counter::DropPolicy),
                Source::Tunnelled => return self.tunnel.stats.count(Counter::DropPlainTunnelled),
                Source::Outside => return self.tunnel.stats.count(Counter::DropSourceCheck),
                verdict => return self.hold_for_source(verdict, &frame_of(packet, &inner, partial), &inner, origin),
            }
            self.note_correspondent(inner.destination, origin);
            if route == Route::Local && !self.agent_messages.is_own(inner.destination) {
                *checked = Some(flow);
            }
            route
        };
        match route {
            Route::Local => {
                if !self.may_receive(origin, packet, &inner) {
                    return;
                }
                if opens_connection(packet, &inner) {
                    let limit = match origin {
                        Origin::Peer(peer) => self.tunnel.peer(peer).map_or(usize::MAX, |p| p.inner_limit(self.now)),
                        Origin::Rloc(rloc) => self.plain_limit(rloc),
                        Origin::Host => usize::MAX,
                    };
                    clamp_mss(packet, &inner, limit, partial);
                }
                let mut sink = self.delivery.sink(&mut self.tunnel.stats);
                self.coalescer.push(arena, place, &inner, partial, &mut sink);
            }
            route => {
                let mut frame = frame_of(packet, &inner, partial);
                self.deliver_elsewhere(route, &mut frame, origin, self.now);
            }
        }
    }

    fn note_correspondent(&mut self, eid: IpAddr, origin: Origin) {
        match origin {
            Origin::Peer(peer) => self.correspondents.note(eid, peer, &self.table, self.now),
            Origin::Rloc(rloc) => self.plain_correspondents.note(eid, rloc, &self.table, self.now),
            Origin::Host => {}
        }
    }

    /// A packet from elsewhere that was held, checked anew.
    pub(crate) fn deliver_again(&mut self, origin: Origin, held: &mut Held) {
        let Some((_, inner)) = parse_frame(&held.frame) else { return };
        let route = self.table.arrival(inner.destination, origin);
        if route == Route::Outside {
            return self.tunnel.stats.count(Counter::DropNotLocal);
        }
        match self.table.check_source(inner.source, inner.destination, origin, self.now) {
            Source::Ok => {}
            Source::Denied => return self.tunnel.stats.count(Counter::DropPolicy),
            Source::Tunnelled => return self.tunnel.stats.count(Counter::DropPlainTunnelled),
            verdict if verdict != Source::Outside && self.now.since(held.since) < HOLD_AGAIN => {
                return self.hold_for_source(verdict, &held.frame, &inner, origin);
            }
            _ => return self.tunnel.stats.count(Counter::DropSourceCheck),
        }
        self.note_correspondent(inner.destination, origin);
        match route {
            Route::Local if !self.may_receive(origin, &held.frame[VNET_HEADER..], &inner) => {}
            Route::Local => self.write_frame(&held.frame),
            route => self.deliver_elsewhere(route, &mut held.frame, origin, held.since),
        }
    }

    fn deliver_elsewhere(&mut self, route: Route, frame: &mut [u8], origin: Origin, since: Time) {
        let Some((vnet, inner)) = parse_frame(frame) else { return };
        match route {
            Route::LocalAway(prefix) => self.hold_for_interface(prefix, frame, origin, since),
            Route::Departed(prefix) => self.hold_departed(prefix, frame, origin, since),
            // Never back to where it came from.
            Route::Forward(next) if origin != Origin::Peer(next) => {
                self.send_frame(next, frame, &vnet, &inner, origin, since);
            }
            Route::Plain(prefix) => self.send_plain(prefix, frame, &vnet, &inner, origin),
            Route::Miss => {
                let key = HoldKey { eid: inner.destination, why: Why::Destination };
                self.hold(key, frame, origin, since, &Event::Miss { eid: inner.destination, source: false });
            }
            Route::Forward(_) | Route::Local | Route::Drop | Route::Outside => {
                self.tunnel.stats.count(Counter::DropNotLocal);
            }
        }
    }

    fn hold_for_source(&mut self, verdict: Source, frame: &[u8], inner: &Inner, origin: Origin) {
        let eid = inner.source;
        let sender = if let Origin::Peer(peer) = origin { self.tunnel.peer(peer) } else { None };
        let (why, event) = match (verdict, sender) {
            (Source::Conflict, Some(sender)) => (Why::Conflict, Event::Conflict { eid, key: sender.key }),
            _ => (Why::Source, Event::Miss { eid, source: true }),
        };
        self.hold(HoldKey { eid, why }, frame, origin, self.now, &event);
    }
}

fn frame_of(packet: &[u8], inner: &Inner, partial: bool) -> Vec<u8> {
    let mut frame = Vec::with_capacity(VNET_HEADER + packet.len());
    frame.extend_from_slice(&single_header(inner, partial).bytes());
    frame.extend_from_slice(packet);
    frame
}

const RECEIVES_AT_ONCE: usize = 16;
const HOLD_AGAIN: std::time::Duration = seconds(3);
