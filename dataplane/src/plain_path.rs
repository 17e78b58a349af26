//! From the TUN, or a gateway's tunnels, to plain sites: cut to what fits, completed and sent one by one.
//!
//! An outer packet is at most 1500 octets, or what the own interface takes (RFC 9300 section 7.1), or what routers on the
//! way say that they pass on (section 7.2, `plain_mtu.rs`), and never fragmented.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::egress::IPV6_MINIMUM;
use crate::engine::Engine;
use crate::fast_hash::FastMap;
use crate::forwarding::{Action, Origin, Route};
use crate::icmp::Problem;
use crate::log;
use crate::outer_error::OuterProblem;
use crate::outer_header::{Outer, age};
use crate::packet::{Inner, TCP, clamp_mss, finish_checksum};
use crate::peer::Path;
use crate::plain::{OUTER_MTU, PlainRules, flow_hash, inner_limit};
use crate::plain_mtu::{PlainMtus, Quoted, sending_limit};
use crate::plain_socket::{PlainSockets, accept_zero_checksums};
use crate::prefix::Prefix;
use crate::segment::{SegmentError, Segments, fragment_ipv4};
use crate::stats::Counter;
use crate::time::{Time, seconds};
use crate::udp;
use crate::vnet::{Gso, VNET_HEADER, VnetHeader};
use crate::wire::LISP_HEADER;

/// What sending plainly takes.
#[derive(Default)]
pub struct PlainPath {
    sockets: PlainSockets,
    datagram: Vec<u8>,
    /// The largest inner packet to an RLOC, and until when that is taken for known.
    limits: FastMap<IpAddr, (usize, Time)>,
    mtus: PlainMtus,
}

impl Engine {
    pub(crate) fn set_plain(&mut self, rules: PlainRules) -> io::Result<()> {
        let was_enabled = self.table.plain.is_enabled();
        let enabled = rules.is_enabled();
        if enabled != was_enabled {
            // Before the rules hold: without sockets there is nobody to be spoken to.
            let sockets = if enabled { PlainSockets::open(&mut self.tunnel.stats)? } else { PlainSockets::default() };
            log::info("plain peers", &[("allowed", &enabled)]);
            self.plain = PlainPath { sockets, ..PlainPath::default() };
        }
        self.table.plain = rules;
        self.host_dirty = true;
        self.accept_plain_checksums();
        Ok(())
    }

    pub(crate) fn accept_plain_checksums(&self) {
        let accepted = self.table.plain.is_enabled();
        for socket in self.udp6.iter().chain(self.initiations6.iter().map(|own| &own.socket)) {
            if let Err(error) = accept_zero_checksums(socket, accepted) {
                log::warn("UDP checksums of zero over IPv6", &[("error", &error)]);
            }
        }
    }

    /// The largest inner packet that reaches the RLOC as far as this host can tell.
    pub(crate) fn plain_limit(&mut self, rloc: IpAddr) -> usize {
        if let Some((limit, until)) = self.plain.limits.get(&rloc)
            && self.now < *until
        {
            return *limit;
        }
        let source = udp::source_address(Path::to(SocketAddr::new(rloc, 0)));
        let interface = source.and_then(|source| self.host.mtu_at(source)).map_or(OUTER_MTU, |mtu| mtu as usize);
        let path = self.plain.mtus.outer(rloc, self.now).unwrap_or(OUTER_MTU);
        let limit = inner_limit(interface.clamp(IPV4_MINIMUM, OUTER_MTU).min(path), rloc);
        if self.plain.limits.len() >= MAX_LIMITS {
            self.plain.limits.clear();
        }
        self.plain.limits.insert(rloc, (limit, self.now + LIMIT_LIFETIME));
        limit
    }

    pub(crate) fn send_plain(
        &mut self,
        prefix: Prefix,
        frame: &mut [u8],
        vnet: &VnetHeader,
        inner: &Inner,
        from: Origin,
    ) {
        let packet = &mut frame[VNET_HEADER..];
        let flow = flow_hash(packet, inner);
        let mapping = self.table.mappings.get(&prefix).map(|mapping| &mapping.action);
        let Some(Action::Plain(locators)) = mapping else { return };
        let Some(remote) = self.table.plain.choose(locators, flow) else {
            self.tunnel.stats.count(Counter::DropPlainRloc);
            if from == Origin::Host {
                self.explain_packet(packet, inner, Problem::HostUnreachable);
            }
            return;
        };
        let mut inner = *inner;
        if from != Origin::Host && !age(packet, &mut inner) {
            return self.tunnel.stats.count(Counter::DropTtl);
        }
        self.plain_correspondents.note(inner.source, remote.ip(), &self.table, self.now);
        let limit = self.plain_limit(remote.ip());
        clamp_mss(packet, &inner, limit, vnet.needs_csum);
        if inner.protocol == TCP && !inner.fragment && vnet.gso == Gso::None && inner.total > limit {
            // It will be cut, which two smaller ones would not need.
            if self.icmp.allow_advice(self.now) {
                self.tell(packet, &inner, Problem::TooBig { mtu: limit as u16 });
            }
        }
        let limit = sending_limit(limit, &inner);
        let way = Way { remote, flow, outer: self.headers.encapsulate(&inner) };
        match Segments::new(vnet, inner, packet, limit) {
            Ok(mut segments) => {
                while let Some((range, partial)) = segments.next(packet) {
                    self.send_plain_packet(way, &packet[range], partial);
                }
            }
            Err(SegmentError::Malformed) => self.tunnel.stats.count(Counter::DropMalformed),
            Err(SegmentError::TooBig) => self.refuse_or_fragment(way, packet, vnet, &inner, limit),
        }
    }

    fn refuse_or_fragment(&mut self, way: Way, packet: &mut [u8], vnet: &VnetHeader, inner: &Inner, limit: usize) {
        if vnet.gso == Gso::None {
            if vnet.needs_csum {
                let (start, offset) = (usize::from(vnet.csum_start), usize::from(vnet.csum_offset));
                finish_checksum(packet, start, offset, offset == 6);
            }
            let fragments = fragment_ipv4(packet, inner, limit);
            if !fragments.is_empty() {
                self.tunnel.stats.count(Counter::FragmentedPackets);
                for fragment in &fragments {
                    self.send_plain_packet(way, fragment, false);
                }
                return;
            }
        }
        self.tunnel.stats.count(Counter::DropTooBig);
        let mtu = if inner.is_v6() { limit.max(IPV6_MINIMUM) } else { limit };
        self.explain_packet(packet, inner, Problem::TooBig { mtu: mtu as u16 });
    }

    /// `partial`: the checksum field holds the sum of the pseudo-header, which no plain peer completes.
    fn send_plain_packet(&mut self, way: Way, packet: &[u8], partial: bool) {
        let datagram = &mut self.plain.datagram;
        datagram.clear();
        datagram.extend_from_slice(&self.table.plain.header());
        datagram.extend_from_slice(packet);
        if partial
            && let Some(inner) = Inner::parse(packet)
            && let Some(offset) = inner.checksum_offset()
        {
            finish_checksum(&mut datagram[LISP_HEADER..], inner.header, offset, offset == UDP_CHECKSUM);
        }
        let mut result = self.plain.sockets.send(way.flow, Path::to(way.remote), way.outer, &self.plain.datagram);
        // It may have failed for an ICMP error about an earlier packet.
        for _ in 0..MAX_RETRIES {
            let Err(error) = &result else { break };
            if !self.read_plain_errors(way) && error.raw_os_error() != Some(libc::ECONNREFUSED) {
                break;
            }
            result = self.plain.sockets.send(way.flow, Path::to(way.remote), way.outer, &self.plain.datagram);
        }
        match &result {
            Ok(()) => self.tunnel.stats.count(Counter::PlainTxPackets),
            Err(error) => {
                // The interface may take less than it did.
                self.plain.limits.remove(&way.remote.ip());
                log::debug("not sent plainly", &[("to", &way.remote), ("error", error)]);
            }
        }
        self.count_send(result.is_ok());
    }
}

impl Engine {
    /// Empties the error queue of the way's socket, bounded. True when there was an ICMP error.
    fn read_plain_errors(&mut self, way: Way) -> bool {
        let mut quoted = [0; QUOTED];
        let mut found = false;
        for _ in 0..ERRORS_AT_ONCE {
            let next = self.plain.sockets.next_error(way.flow, way.remote.is_ipv6(), &mut quoted);
            let Some(error) = next else { break };
            let Some((rloc, problem, length)) = error else { continue };
            found = true;
            let allowed = self.icmp.allow_outer(self.now);
            let counter = match problem {
                OuterProblem::TooBig { mtu } if allowed && self.learn_mtu(rloc, mtu, &quoted[..length]) => {
                    Counter::OuterIcmpTooBig
                }
                OuterProblem::Unreachable => Counter::OuterIcmpUnreachable,
                OuterProblem::TimeExceeded => Counter::OuterIcmpTimeExceeded,
                OuterProblem::TooBig { .. } => Counter::OuterIcmpIgnored,
            };
            self.tunnel.stats.count(counter);
        }
        found
    }

    /// False if it is not believed, or nothing new.
    fn learn_mtu(&mut self, rloc: IpAddr, mtu: u32, quoted: &[u8]) -> bool {
        let Some(quoted) = Quoted::parse(quoted, self.table.plain.header()) else { return false };
        let Route::Plain(prefix) = self.table.route(quoted.destination) else { return false };
        let Some(Action::Plain(locators)) = self.table.mappings.get(&prefix).map(|mapping| &mapping.action) else {
            return false;
        };
        let is_there = locators.iter().any(|locator| locator.address.ip() == rloc);
        let learnt = is_there && self.plain.mtus.learn(rloc, mtu, quoted, self.now);
        if learnt {
            self.plain.limits.remove(&rloc);
            log::debug("path MTU to a plain RLOC", &[("to", &rloc), ("mtu", &mtu)]);
        }
        learnt
    }
}

/// Of one inner packet and all that is made of it.
#[derive(Clone, Copy)]
struct Way {
    remote: SocketAddr,
    flow: u32,
    outer: Outer,
}

const MAX_LIMITS: usize = 1024;
const LIMIT_LIFETIME: Duration = seconds(10);
/// What every IPv4 host takes.
const IPV4_MINIMUM: usize = 576;
const UDP_CHECKSUM: usize = 6;
/// LISP header and the longer inner IP header.
const QUOTED: usize = LISP_HEADER + 40;
const ERRORS_AT_ONCE: usize = 64;
const MAX_RETRIES: usize = 3;
