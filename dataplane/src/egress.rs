//! From the TUN to peers: route, cut into segments, seal into the send batch, send.

use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::agent_messages::is_agent_message;
use crate::batch::Target;
use crate::engine::{Engine, Unsent, UnsentBatch};
use crate::forwarding::Route;
use crate::hold::{Held, HoldKey, HoldQueue, INTERFACE_LIMIT, SESSION_LIMIT, Why};
use crate::icmp::{self, Problem};
use crate::log;
use crate::messages::Event;
use crate::outer_header::{Outer, age};
use crate::packet::{Inner, TCP, clamp_mss, finish_checksum};
use crate::peer::{Path, PeerId};
use crate::prefix::Prefix;
use crate::segment::{SegmentError, Segments, fragment_ipv4};
use crate::stats::Counter;
use crate::time::{Time, seconds};
use crate::udp::UdpSocket;
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
                    self.forward_frame(&mut frame[..length], None, self.now);
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
        self.flush_batch();
        more
    }

    /// Routes a frame of the TUN (`from` none) or one that a peer sent to an EID which has left this host.
    pub(crate) fn forward_frame(&mut self, frame: &mut [u8], from: Option<PeerId>, since: Time) {
        let Some((vnet, inner)) = parse_frame(frame) else {
            return self.tunnel.stats.count(Counter::DropMalformed);
        };
        if from.is_none() {
            self.tunnel.stats.count(Counter::TunRxPackets);
            self.tunnel.stats.add(Counter::TunRxBytes, inner.total as u64);
            if is_agent_message(&inner, &frame[VNET_HEADER..]) {
                return self.tunnel.stats.count(Counter::DropPolicy);
            }
        }
        match self.table.route(inner.destination) {
            Route::Forward(peer) => {
                self.correspondents.note(inner.source, peer, &self.table, self.now);
                self.send_frame(peer, frame, &vnet, &inner, from, since);
            }
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
        from: Option<PeerId>,
        since: Time,
    ) {
        let Some((_, path)) = self.tunnel.session_for_sending(peer, self.now) else {
            self.holding = true;
            let held = Held { frame: (&*frame).into(), since, from };
            let queue = self.waiting.entry(peer).or_default();
            let kept = queue.push(held, SESSION_LIMIT);
            return self.tunnel.stats.count(if kept { Counter::HeldPacketsTotal } else { Counter::DropQueueFull });
        };
        let (limit, proven) = self.tunnel.peer(peer).map_or((0, 0), |p| (p.inner_limit(self.now), p.proven_limit()));
        let packet = &mut frame[VNET_HEADER..];
        let mut inner = *inner;
        if from.is_some() && !age(packet, &mut inner) {
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
        let target = Target { peer, path, outer: self.headers.encapsulate(inner) };
        match Segments::new(vnet, *inner, packet, limit) {
            Ok(mut segments) => {
                // A superpacket in one send arrives in one piece, to be written as one.
                let (count, size) = segments.shape(packet);
                if count > 1 && !self.batch.has_room(count, size + DATA_OVERHEAD) {
                    self.flush_batch();
                }
                let mut bytes = 0;
                while let Some((range, partial)) = segments.next(packet) {
                    bytes += self.seal(target, &packet[range], partial);
                }
                self.tunnel.sent_data(peer, bytes, self.now);
                if from.is_some() {
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
        if !self.batch.fits(target, size) {
            self.flush_batch();
        }
        let Some(session) = self.tunnel.peer_mut(target.peer).and_then(|p| p.current.as_mut()) else { return 0 };
        let kind = if partial { Kind::DataPartial } else { Kind::Data };
        match session.seal(kind, packet, self.batch.space()) {
            Some(size) => self.batch.commit(target, size),
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
        self.flush_batch();
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
        self.count_send(result.is_ok(), 1);
        self.keep_sent(target, &sealed, sealed.len());
        self.tunnel.sent_data(target.peer, sealed.len(), self.now);
    }

    pub(crate) fn flush_batch(&mut self) {
        let Some(target) = self.batch.target.filter(|_| !self.batch.is_empty()) else { return };
        let batch = std::mem::replace(&mut self.batch, crate::batch::SendBatch::empty());
        let (bytes, segment) = batch.contents();
        let result = match self.socket(target.path) {
            Some(socket) if socket.gso || batch.count() == 1 => socket.send(target.path, target.outer, bytes, segment),
            Some(_) => Err(io::Error::from_raw_os_error(libc::EIO)),
            None => Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
        };
        match result {
            Ok(()) => {
                self.count_send(true, batch.count());
                self.keep_sent(target, bytes, segment);
                self.tunnel.sent_size(target.peer, segment, self.now);
            }
            Err(error) => self.send_slowly(target, bytes, segment, &error),
        }
        self.batch = batch;
        self.batch.clear();
    }

    /// A packet of the tunnel's own: handshake or control.
    pub(crate) fn transmit(&mut self, peer: Option<PeerId>, path: Path, bytes: &[u8]) {
        let mut result = self.send_one(path, Outer::OWN, bytes);
        if result.is_err() && path.local.is_some() {
            if let Some(peer) = peer {
                self.tunnel.forget_local_address(peer);
            }
            result = self.send_one(Path::to(path.remote), Outer::OWN, bytes);
        }
        if let Err(error) = &result {
            log::debug("not sent", &[("to", &path.remote), ("error", error)]);
            if let Some(peer) = peer {
                self.tunnel.no_route(peer);
            }
        }
        self.count_send(result.is_ok(), 1);
    }

    pub(crate) fn send_size_probe(&mut self, peer: PeerId, path: Path, token: u64, bytes: &[u8]) {
        let result = self.send_one(path, Outer::OWN, bytes);
        self.count_send(result.is_ok(), 1);
        if result.is_err_and(|error| error.raw_os_error() == Some(libc::EMSGSIZE)) {
            self.tunnel.size_probe_refused(peer, token, self.now);
        }
    }

    /// What follows when a batch could not be sent as it is.
    fn send_slowly(&mut self, mut target: Target, bytes: &[u8], segment: usize, error: &io::Error) {
        if target.path.local.take().is_some() {
            // The own address may be gone; any other is better than none.
            self.tunnel.forget_local_address(target.peer);
        }
        if error.raw_os_error() == Some(libc::EIO) {
            self.disable_segmentation(target.path);
        }
        if error.raw_os_error() == Some(libc::EMSGSIZE) || error.raw_os_error() == Some(libc::EINVAL) {
            self.read_path_ceiling(target.peer);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let (datagram, after) = rest.split_at(segment.min(rest.len()));
            let mut result = self.send_one(target.path, target.outer, datagram);
            if let Err(error) = &result
                && error.raw_os_error() == Some(libc::EMSGSIZE)
            {
                self.tunnel.stats.count(Counter::FallbackOuterFragmented);
                result = match self.socket(target.path) {
                    Some(socket) => socket.send_fragmented(target.path, target.outer, datagram),
                    None => Err(io::ErrorKind::NotConnected.into()),
                };
            }
            match result {
                Err(error) if is_no_route(&error) => {
                    self.tunnel.no_route(target.peer);
                    return self.keep_unsent(target.peer, rest, segment);
                }
                result => self.count_send(result.is_ok(), 1),
            }
            self.keep_sent(target, datagram, segment);
            rest = after;
        }
    }

    /// What is sent may be lost to a roam.
    #[inline]
    fn keep_sent(&mut self, target: Target, bytes: &[u8], segment: usize) {
        self.holding = true;
        self.tunnel.keep(target.peer, target.path, bytes, segment, self.now);
    }

    /// A datagram that was sent before, perhaps to a path that took longer ones.
    pub(crate) fn resend(&mut self, peer: PeerId, path: Path, datagram: &[u8]) {
        // A router may cut it in IPv4, nobody but this host in IPv6.
        let limit = self.tunnel.peer(peer).map_or(0, |p| match path.remote.is_ipv6() {
            true => p.inner_limit(self.now),
            false => p.proven_limit(),
        });
        let result = match self.socket(path) {
            Some(socket) if datagram.len() > limit + DATA_OVERHEAD => {
                let result = socket.send_fragmented(path, Outer::OWN, datagram);
                self.tunnel.stats.count(Counter::FallbackOuterFragmented);
                result
            }
            _ => self.send_one(path, Outer::OWN, datagram),
        };
        if let Err(error) = &result {
            log::debug("not sent again", &[("to", &path.remote), ("error", error)]);
            self.tunnel.no_route(peer);
        }
        self.count_send(result.is_ok(), 1);
    }

    fn send_one(&mut self, path: Path, outer: Outer, bytes: &[u8]) -> io::Result<()> {
        let Some(socket) = self.socket(path) else {
            return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
        };
        match socket.send(path, outer, bytes, bytes.len()) {
            // An answer to an earlier packet, not to this one.
            Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => {
                socket.send(path, outer, bytes, bytes.len())
            }
            result => result,
        }
    }

    fn count_send(&mut self, sent: bool, datagrams: usize) {
        self.tunnel.stats.count(Counter::UdpSendCalls);
        let counter = if sent { Counter::UdpTxDatagrams } else { Counter::DropSendError };
        self.tunnel.stats.add(counter, datagrams as u64);
    }

    fn socket(&self, path: Path) -> Option<&UdpSocket> {
        if path.remote.is_ipv4() { self.udp4.as_ref() } else { self.udp6.as_ref() }
    }

    fn disable_segmentation(&mut self, path: Path) {
        let socket = if path.remote.is_ipv4() { self.udp4.as_mut() } else { self.udp6.as_mut() };
        if let Some(socket) = socket.filter(|s| s.gso) {
            socket.gso = false;
            self.tunnel.stats.count(Counter::FallbackUdpGso);
            log::info("the device does not segment UDP; sending datagrams one by one", &[]);
        }
    }

    /// Sealed datagrams wait for a route: a roam loses nothing that was about to be sent.
    fn keep_unsent(&mut self, peer: PeerId, bytes: &[u8], segment: usize) {
        self.holding = true;
        let unsent = self.unsent.entry(peer).or_default();
        if unsent.bytes + bytes.len() > UNSENT_BYTES {
            let count = bytes.len().div_ceil(segment.max(1));
            return self.tunnel.stats.add(Counter::DropSendError, count as u64);
        }
        unsent.bytes += bytes.len();
        unsent.batches.push_back(UnsentBatch { since: self.now, bytes: bytes.into(), segment });
    }

    pub(crate) fn send_all_unsent(&mut self) {
        let peers: Vec<PeerId> = self.unsent.keys().copied().collect();
        for peer in peers {
            self.send_unsent(peer);
        }
    }

    pub(crate) fn send_unsent(&mut self, peer: PeerId) {
        let Some(unsent) = self.unsent.remove(&peer) else { return };
        let Some(path) = self.tunnel.peer(peer).and_then(|p| p.endpoint) else { return };
        let mut batches = unsent.batches.into_iter();
        while let Some(batch) = batches.next() {
            let mut sent = 0;
            for datagram in batch.bytes.chunks(batch.segment) {
                match self.send_one(path, Outer::OWN, datagram) {
                    Err(error) if is_no_route(&error) => {
                        let rest = UnsentBatch { bytes: batch.bytes[sent..].into(), ..batch };
                        let batches: std::collections::VecDeque<_> = std::iter::once(rest).chain(batches).collect();
                        let bytes = batches.iter().map(|b| b.bytes.len()).sum();
                        self.unsent.insert(peer, Unsent { batches, bytes });
                        return;
                    }
                    result => self.count_send(result.is_ok(), 1),
                }
                self.tunnel.keep(peer, path, datagram, datagram.len(), self.now);
                self.tunnel.stats.count(Counter::ResentDatagrams);
                sent += datagram.len();
            }
        }
    }

    pub(crate) fn expire_unsent(&mut self) {
        let now = self.now;
        let mut lost = 0;
        for unsent in self.unsent.values_mut() {
            while unsent.batches.front().is_some_and(|b| now.since(b.since) > UNSENT_LIFETIME)
                && let Some(batch) = unsent.batches.pop_front()
            {
                unsent.bytes -= batch.bytes.len();
                lost += batch.bytes.len().div_ceil(batch.segment.max(1));
            }
        }
        self.unsent.retain(|_, unsent| !unsent.batches.is_empty());
        self.tunnel.stats.add(Counter::DropExpired, lost as u64);
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
                None => self.forward_again(&mut held),
                Some(peer) => self.deliver_again(peer, &mut held),
            }
        }
        self.flush_batch();
    }

    fn forward_again(&mut self, held: &mut Held) {
        let Some((vnet, inner)) = parse_frame(&held.frame) else { return };
        match self.table.route(inner.destination) {
            // The workload came to this host while its packet waited.
            Route::Local => self.write_frame(&held.frame),
            Route::Forward(peer) => {
                self.correspondents.note(inner.source, peer, &self.table, self.now);
                self.send_frame(peer, &mut held.frame, &vnet, &inner, None, held.since);
            }
            _ if self.now.since(held.since) > seconds(5) => self.tunnel.stats.count(Counter::DropExpired),
            Route::LocalAway(prefix) => self.hold_for_interface(prefix, &held.frame, None, held.since),
            Route::Departed(prefix) => self.hold_departed(prefix, &held.frame, None, held.since),
            Route::Miss => {
                let key = HoldKey { eid: inner.destination, why: Why::Destination };
                let event = Event::Miss { eid: inner.destination, source: false };
                self.hold(key, &held.frame, None, held.since, &event);
            }
            Route::Drop => self.tunnel.stats.count(Counter::DropPolicy),
            Route::Outside => self.tunnel.stats.count(Counter::DropNotOverlay),
        }
    }

    pub(crate) fn write_frame(&mut self, frame: &[u8]) {
        self.tunnel.stats.count(Counter::TunWriteCalls);
        match self.tun.write(frame) {
            Ok(length) => {
                self.tunnel.stats.count(Counter::TunTxPackets);
                self.tunnel.stats.add(Counter::TunTxBytes, (length - VNET_HEADER) as u64);
            }
            Err(_) => self.tunnel.stats.count(Counter::DropTunWriteError),
        }
    }

    pub(crate) fn hold(&mut self, key: HoldKey, frame: &[u8], from: Option<PeerId>, since: Time, event: &Event) {
        let held = Held { frame: frame.into(), since, from };
        self.holding = true;
        let result = self.holds.hold(key, held, self.now);
        self.tunnel.stats.count(if result.kept { Counter::HeldPacketsTotal } else { Counter::DropQueueFull });
        if result.tell {
            self.event(event);
        }
    }

    pub(crate) fn hold_for_interface(&mut self, prefix: Prefix, frame: &[u8], from: Option<PeerId>, since: Time) {
        self.holding = true;
        let Some(local) = self.table.locals.get_mut(&prefix) else { return };
        let kept = local.held.push(Held { frame: frame.into(), since, from }, INTERFACE_LIMIT);
        self.tunnel.stats.count(if kept { Counter::HeldPacketsTotal } else { Counter::DropQueueFull });
    }

    pub(crate) fn hold_departed(&mut self, prefix: Prefix, frame: &[u8], from: Option<PeerId>, since: Time) {
        self.holding = true;
        let Some(departed) = self.table.departed.get_mut(&prefix) else { return };
        let kept = departed.held.push(Held { frame: frame.into(), since, from }, INTERFACE_LIMIT);
        self.tunnel.stats.count(if kept { Counter::HeldPacketsTotal } else { Counter::DropQueueFull });
    }

    /// Tells the local sender of a held packet why it went nowhere.
    pub(crate) fn explain(&mut self, held: &Held, problem: Problem) {
        if held.from.is_none()
            && let Some((_, inner)) = parse_frame(&held.frame)
        {
            self.explain_packet(&held.frame[VNET_HEADER..], &inner, problem);
        }
    }

    fn explain_packet(&mut self, packet: &[u8], inner: &Inner, problem: Problem) {
        if self.icmp.allow(problem, self.now) {
            self.tell(packet, inner, problem);
        }
    }

    fn tell(&mut self, packet: &[u8], inner: &Inner, problem: Problem) {
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

fn is_no_route(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EADDRNOTAVAIL | libc::ENETDOWN | libc::EINVAL)
    )
}

const READS_AT_ONCE: usize = 64;
const IPV6_MINIMUM: usize = 1280;
/// The window of a fast TCP connection.
const UNSENT_BYTES: usize = 4 << 20;
const UNSENT_LIFETIME: Duration = seconds(2);
