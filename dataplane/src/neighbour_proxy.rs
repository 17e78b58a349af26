//! Answers neighbour solicitations on interfaces behind which IPv6 workloads live: for every EID that is not on that
//! link, so that a workload may take the whole EID space for its link. The kernel does this for IPv4 (`proxy_arp`); its
//! proxy for IPv6 knows single addresses only, and answers probes of the workload itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use crate::engine::{Engine, PROXIES};
use crate::host::gateway;
use crate::log;
use crate::neighbour::{proxy_advertisement, solicitation};
use crate::packet_filter::{IPV6, SNAPSHOT, solicitations};
use crate::packet_socket::{Addressed, PacketSocket};
use crate::stats::Counter;

#[derive(Default)]
pub struct NeighbourProxies {
    by_link: BTreeMap<u32, PacketSocket>,
    complained: bool,
}

impl Engine {
    /// Listens on the interfaces that IPv6 workloads are behind now.
    pub(crate) fn follow_proxied_interfaces(&mut self) {
        let locals = self.table.locals.iter().filter(|(prefix, _)| prefix.address.is_ipv6());
        let names = locals.filter_map(|(_, local)| local.interface.as_deref());
        let links: BTreeSet<u32> = names.filter_map(|name| self.host.live_link(name)).collect();
        let proxies = &mut self.neighbour_proxies;
        proxies.by_link.retain(|link, socket| links.contains(link) && socket.is_on(*link));
        for link in links {
            if proxies.by_link.contains_key(&link) {
                continue;
            }
            let opened = PacketSocket::listen(link, &solicitations(), Addressed::ToGroups)
                .and_then(|socket| self.poller.add(&socket, PROXIES + u64::from(link)).map(|()| socket));
            match opened {
                Ok(socket) => drop(proxies.by_link.insert(link, socket)),
                Err(error) if !std::mem::replace(&mut proxies.complained, true) => {
                    log::warn("IPv6 workloads find their gateway only (CAP_NET_RAW?)", &[("error", &error)]);
                }
                Err(_) => {}
            }
        }
    }

    pub(crate) fn answer_solicitations(&mut self, link: u32) {
        let (Some(socket), IpAddr::V6(own)) = (self.neighbour_proxies.by_link.get(&link), gateway(true)) else {
            return;
        };
        let Some(mac) = socket.mac() else { return };
        let mut buffer = [0; SNAPSHOT];
        for _ in 0..ANSWERS_AT_ONCE {
            let Ok(received) = socket.receive(&mut buffer) else { break };
            let Some((asker, target)) = solicitation(&buffer[..received.length]) else { continue };
            if !self.is_elsewhere(target, link) {
                continue;
            }
            self.tunnel.stats.count(Counter::NeighbourAnswers);
            if let Err(error) = socket.send_to(received.from, IPV6, &proxy_advertisement(mac, own, asker, target)) {
                log::debug("a neighbour solicitation was not answered", &[("error", &error)]);
            }
        }
    }

    /// An EID whose workload is not on this link.
    fn is_elsewhere(&self, target: Ipv6Addr, link: u32) -> bool {
        let target = IpAddr::V6(target);
        if !self.table.overlay.iter().any(|prefix| prefix.contains(target)) {
            return false;
        }
        let local = self.table.locals.lookup(target).and_then(|(_, local)| local.interface.as_deref());
        local.is_none_or(|name| self.host.link_index(name) != Some(link))
    }
}

const ANSWERS_AT_ONCE: usize = 64;
