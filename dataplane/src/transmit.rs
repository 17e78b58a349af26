//! From sealed datagrams to the sockets: the queue in as few calls as possible, single packets, and what follows when
//! the kernel says no: another way, or a wait for a route.

use std::io;
use std::ops::Range;
use std::time::Duration;

use crate::batch::{SendQueue, Target};
use crate::engine::{Engine, Unsent, UnsentBatch};
use crate::log;
use crate::outer_header::Outer;
use crate::peer::{Path, PeerId};
use crate::send::{Message, Sender};
use crate::stats::Counter;
use crate::time::seconds;
use crate::udp::UdpSocket;
use crate::wire::DATA_OVERHEAD;

impl Engine {
    /// Sends what is queued.
    pub(crate) fn flush_queue(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        let queue = std::mem::replace(&mut self.queue, SendQueue::empty());
        let mut sender = std::mem::replace(&mut self.sender, Sender::new());
        for v6 in [false, true] {
            self.send_family(&queue, &mut sender, v6);
        }
        (self.queue, self.sender) = (queue, sender);
        self.queue.clear();
    }

    fn send_family(&mut self, queue: &SendQueue, sender: &mut Sender, v6: bool) {
        let mut segmentation = self.segmentation(v6);
        sender.prepare(queue, v6, segmentation, 0);
        let (mut next, mut retries) = (0, 0);
        while let Some(message) = sender.message(next) {
            let (first_batch, was_segmented) = (message.batch, message.count > 1);
            let result = match if v6 { self.udp6.as_ref() } else { self.udp4.as_ref() } {
                Some(socket) => sender.send(socket, queue.octets(), next),
                None => Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
            };
            self.tunnel.stats.count(Counter::UdpSendCalls);
            match result {
                Ok(sent) => {
                    for at in next..next + sent {
                        let Some(message) = sender.message(at) else { break };
                        self.count_sent(true, message.count);
                        for place in sender.places(message) {
                            self.keep_sent(message.target, &queue.octets()[place.clone()], message.segment);
                        }
                        if message.target.searches {
                            self.tunnel.sent_size(message.target.peer, message.segment, self.now);
                        }
                    }
                    next += sent;
                }
                Err(error) if retries < MAX_RETRIES && self.is_about_earlier(&error, v6) => retries += 1,
                Err(error) => {
                    if was_segmented && error.raw_os_error() == Some(libc::EIO) {
                        self.disable_segmentation(v6);
                    } else if let Some(message) = sender.message(next) {
                        self.send_slowly(queue, message, sender.places(message), &error);
                        next += 1;
                    }
                }
            }
            if segmentation && !self.segmentation(v6) {
                // The messages left are of whole batches: make them anew. The one that failed is sent already, or
                // is among them.
                segmentation = false;
                let from = sender.message(next).map_or(first_batch + 1, |message| message.batch);
                sender.prepare(queue, v6, segmentation, from);
                next = 0;
            }
        }
    }

    /// A packet of the tunnel's own: handshake or control.
    pub(crate) fn transmit(&mut self, peer: Option<PeerId>, path: Path, bytes: &[u8]) {
        let mut result = self.send_one(path, Outer::OWN, bytes);
        // A question about another path than the one in use must not take a third one.
        if result.is_err() && path.local.is_some() && peer.is_none_or(|peer| self.tunnel.forget_way(peer, &path)) {
            result = self.send_one(Path::to(path.remote), Outer::OWN, bytes);
        }
        if let Err(error) = &result {
            log::debug("not sent", &[("to", &path.remote), ("error", error)]);
            if let Some(peer) = peer {
                self.tunnel.no_route(peer, &path);
            }
        }
        self.count_send(result.is_ok());
    }

    pub(crate) fn send_size_probe(&mut self, peer: PeerId, path: Path, token: u64, bytes: &[u8]) {
        let result = self.send_one(path, Outer::OWN, bytes);
        self.count_send(result.is_ok());
        if has_error(&result, libc::EMSGSIZE) {
            self.tunnel.size_probe_refused(peer, token, self.now);
        }
    }

    /// What follows when a message could not be sent as it is: its datagrams go one by one.
    fn send_slowly(&mut self, queue: &SendQueue, message: &Message, places: &[Range<usize>], error: &io::Error) {
        let mut target = message.target;
        let too_big = matches!(error.raw_os_error(), Some(libc::EMSGSIZE | libc::EINVAL));
        // A path that has become smaller says the same as a kernel that does not segment; a single datagram tells.
        let mut in_doubt = too_big && message.count > 1;
        if too_big {
            self.read_path_ceiling(target.peer);
        }
        if !in_doubt {
            self.forget_way(&mut target);
        }
        for (at, place) in places.iter().enumerate() {
            let mut rest = &queue.octets()[place.clone()];
            while !rest.is_empty() {
                let (datagram, after) = rest.split_at(message.segment.min(rest.len()));
                let mut result = self.send_one(target.path, target.outer, datagram);
                if std::mem::take(&mut in_doubt) {
                    if result.is_ok() {
                        self.disable_segmentation(target.path.remote.is_ipv6());
                    } else if !has_error(&result, libc::EMSGSIZE) {
                        self.forget_way(&mut target);
                        result = self.send_one(target.path, target.outer, datagram);
                    }
                }
                if has_error(&result, libc::EMSGSIZE) {
                    self.tunnel.stats.count(Counter::FallbackOuterFragmented);
                    result = match self.socket(target.path) {
                        Some(socket) => socket.send_fragmented(target.path, target.outer, datagram),
                        None => Err(io::ErrorKind::NotConnected.into()),
                    };
                }
                match result {
                    Err(error) if is_no_route(&error) => {
                        self.tunnel.no_route(target.peer, &target.path);
                        self.keep_unsent(target.peer, rest, message.segment);
                        for place in &places[at + 1..] {
                            self.keep_unsent(target.peer, &queue.octets()[place.clone()], message.segment);
                        }
                        return;
                    }
                    result => self.count_send(result.is_ok()),
                }
                self.keep_sent(target, datagram, message.segment);
                rest = after;
            }
        }
    }

    /// The own address or interface may be gone; any other is better than none.
    fn forget_way(&mut self, target: &mut Target) {
        if target.path.local.is_some() {
            self.tunnel.forget_way(target.peer, &target.path);
            target.path = Path::to(target.path.remote);
        }
    }

    /// What is sent may be lost to a roam.
    #[inline]
    pub(crate) fn keep_sent(&mut self, target: Target, bytes: &[u8], segment: usize) {
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
            self.tunnel.no_route(peer, &path);
        }
        self.count_send(result.is_ok());
    }

    fn send_one(&mut self, path: Path, outer: Outer, bytes: &[u8]) -> io::Result<()> {
        for _ in 0..MAX_RETRIES {
            let Some(socket) = self.socket(path) else { break };
            let result = socket.send(path, outer, bytes);
            match result {
                Err(error) if self.is_about_earlier(&error, path.remote.is_ipv6()) => {}
                result => return result,
            }
        }
        let socket = self.socket(path).ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
        socket.send(path, outer, bytes)
    }

    /// Whether a send failed for an ICMP error about an earlier packet. Without room for the ICMP message the error
    /// comes alone.
    fn is_about_earlier(&mut self, error: &io::Error, v6: bool) -> bool {
        self.read_outer_errors(v6) || error.raw_os_error() == Some(libc::ECONNREFUSED)
    }

    /// Counts a call that sent one datagram, or failed to.
    pub(crate) fn count_send(&mut self, sent: bool) {
        self.tunnel.stats.count(Counter::UdpSendCalls);
        self.count_sent(sent, 1);
    }

    /// Counts one message of so many datagrams.
    fn count_sent(&mut self, sent: bool, datagrams: usize) {
        self.tunnel.stats.add(Counter::UdpTxMessages, u64::from(sent));
        let counter = if sent { Counter::UdpTxDatagrams } else { Counter::DropSendError };
        self.tunnel.stats.add(counter, datagrams as u64);
    }

    pub(crate) fn socket(&self, path: Path) -> Option<&UdpSocket> {
        if path.remote.is_ipv4() { self.udp4.as_ref() } else { self.udp6.as_ref() }
    }

    fn segmentation(&self, v6: bool) -> bool {
        let socket = if v6 { self.udp6.as_ref() } else { self.udp4.as_ref() };
        socket.is_some_and(|socket| socket.gso)
    }

    fn disable_segmentation(&mut self, v6: bool) {
        let socket = if v6 { self.udp6.as_mut() } else { self.udp4.as_mut() };
        if let Some(socket) = socket.filter(|s| s.gso) {
            socket.gso = false;
            self.tunnel.stats.count(Counter::FallbackUdpGso);
            log::info("the kernel does not segment UDP on this path; sending datagrams one by one", &[]);
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
                    result => self.count_send(result.is_ok()),
                }
                self.tunnel.keep(peer, path, datagram, datagram.len(), self.now);
                self.tunnel.stats.count(Counter::ResentDatagrams);
                sent += datagram.len();
            }
        }
    }

    /// The keys that they were sealed with go.
    pub(crate) fn forget_unsent(&mut self) {
        let batches = self.unsent.values().flat_map(|unsent| &unsent.batches);
        let lost: usize = batches.map(|batch| batch.bytes.len().div_ceil(batch.segment.max(1))).sum();
        self.tunnel.stats.add(Counter::DropNoSession, lost as u64);
        self.unsent.clear();
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
}

fn has_error(result: &io::Result<()>, code: i32) -> bool {
    result.as_ref().is_err_and(|error| error.raw_os_error() == Some(code))
}

fn is_no_route(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EADDRNOTAVAIL | libc::ENETDOWN | libc::EINVAL)
    )
}

const MAX_RETRIES: u32 = 3;
/// The window of a fast TCP connection.
const UNSENT_BYTES: usize = 4 << 20;
const UNSENT_LIFETIME: Duration = seconds(2);
