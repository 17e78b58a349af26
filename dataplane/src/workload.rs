//! Looks for workloads behind interfaces: an agent that is the target of a move wants to know the moment at which the
//! workload speaks there, be it by ARP, neighbour discovery or any packet; and a workload that has come has to learn
//! which hardware address its gateway has on this host.
//!
//! For each interface watched there is one packet socket, with a filter for the EIDs awaited. An EID that was seen is
//! reported and left out of the filter for a second. A RARP announcement names no EID, so the EIDs awaited on that
//! interface are asked for; so are they when the interface comes up, and once a second, since a server may have nothing to
//! say.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use crate::engine::{Engine, WORKLOADS};
use crate::host::gateway;
use crate::log;
use crate::messages::{Event, Refused};
use crate::neighbour::{
    Mac, Sign, arp_announcement, arp_request, neighbour_advertisement, neighbour_solicitation, sign_of_life,
};
use crate::packet_filter::{ARP, IPV6, SNAPSHOT, signs_of_life};
use crate::packet_socket::{Addressed, PacketSocket, Received};
use crate::prefix::Prefix;
use crate::time::{Time, seconds};

#[derive(Default)]
pub struct WorkloadWatches {
    interfaces: BTreeMap<String, Watched>,
    /// It was said that the right to do this is missing.
    complained: bool,
}

#[derive(Default)]
struct Watched {
    eids: BTreeMap<Prefix, Awaited>,
    socket: Option<PacketSocket>,
    up: bool,
    /// How often everybody was asked for in the second that began then.
    asked: (Time, u32),
}

struct Awaited {
    sync: u64,
    /// Seen a moment ago.
    quiet_until: Option<Time>,
}

impl WorkloadWatches {
    fn insert(&mut self, interface: &str, prefix: Prefix, sync: u64) -> Result<(), Refused> {
        let watched = self.interfaces.entry(interface.to_string()).or_default();
        if watched.eids.len() >= MAX_EIDS_OF_INTERFACE && !watched.eids.contains_key(&prefix) {
            let message = format!("more than {MAX_EIDS_OF_INTERFACE} EIDs awaited on {interface}");
            return Err(Refused::new("too-many", message));
        }
        watched.eids.entry(prefix).or_insert(Awaited { sync, quiet_until: None }).sync = sync;
        Ok(())
    }

    fn remove(&mut self, interface: &str, prefix: &Prefix) {
        self.retain(|name, awaited, _| name != interface || awaited != prefix);
    }

    /// Forgets those that `sync` did not mention.
    pub fn keep_only(&mut self, sync: u64) {
        self.retain(|_, _, awaited| awaited.sync == sync);
    }

    fn retain(&mut self, keep: impl Fn(&str, &Prefix, &Awaited) -> bool) {
        for (name, watched) in &mut self.interfaces {
            let before = watched.eids.len();
            watched.eids.retain(|prefix, awaited| keep(name, prefix, awaited));
            if watched.eids.len() != before && !watched.eids.is_empty() {
                watched.update_filter();
            }
        }
        self.interfaces.retain(|_, watched| !watched.eids.is_empty());
    }

    /// The interfaces watched, and whether for IPv6.
    pub fn families(&self) -> impl Iterator<Item = (&str, bool)> {
        self.interfaces
            .iter()
            .flat_map(|(name, watched)| watched.eids.keys().map(move |p| (name.as_str(), p.address.is_ipv6())))
    }

    /// Looks again at what was quiet for long enough.
    pub fn end_quiet(&mut self, now: Time) {
        for watched in self.interfaces.values_mut() {
            let mut ended = false;
            for awaited in watched.eids.values_mut() {
                ended |= awaited.quiet_until.take_if(|until| *until <= now).is_some();
            }
            if ended {
                watched.update_filter();
            }
        }
    }

    /// A workload that has nothing to say is asked for: one that began to listen after the watch began, for example.
    pub fn ask_again(&mut self, now: Time) {
        for watched in self.interfaces.values_mut().filter(|w| w.up && now.since(w.asked.0) >= ASK_AGAIN) {
            watched.ask_for_all(now);
        }
    }

    /// Something is to be done by and by.
    pub fn is_waiting(&self) -> bool {
        self.interfaces.values().any(|w| w.up || w.eids.values().any(|awaited| awaited.quiet_until.is_some()))
    }
}

impl Watched {
    fn update_filter(&self) {
        let Some(socket) = &self.socket else { return };
        let awaited = self.eids.iter().filter(|(_, a)| a.quiet_until.is_none()).map(|(prefix, _)| prefix);
        if let Err(error) = socket.set_filter(&signs_of_life(awaited)) {
            log::warn("filter of a packet socket", &[("error", &error)]);
        }
    }

    /// The EID awaited that has shown itself, once in a while.
    fn recognise(&mut self, eid: IpAddr, now: Time) -> Option<Prefix> {
        let (prefix, awaited) = self.eids.iter_mut().find(|(p, a)| a.quiet_until.is_none() && p.contains(eid))?;
        awaited.quiet_until = Some(now + QUIET);
        Some(*prefix)
    }

    fn ask_for_all(&mut self, now: Time) {
        if now.since(self.asked.0) >= seconds(1) {
            self.asked = (now, 0);
        }
        self.asked.1 += 1;
        if self.asked.1 <= ASKS_A_SECOND {
            self.ask_for(self.eids.keys());
        }
    }

    /// Whoever has one of the EIDs answers, and is seen by that.
    fn ask_for<'a>(&self, prefixes: impl Iterator<Item = &'a Prefix>) {
        let Some(socket) = self.socket.as_ref().filter(|_| self.up) else { return };
        let Some(mac) = socket.mac() else { return };
        for prefix in prefixes.filter(|p| p.is_host()) {
            let result = match (prefix.address, gateway(prefix.address.is_ipv6())) {
                (IpAddr::V4(eid), IpAddr::V4(from)) => socket.send(ARP, &arp_request(mac, from, eid)),
                (IpAddr::V6(eid), IpAddr::V6(from)) => socket.send(IPV6, &neighbour_solicitation(mac, from, eid)),
                _ => continue,
            };
            if let Err(error) = result {
                return log::debug("a workload was not asked for", &[("error", &error)]);
            }
        }
    }
}

impl Engine {
    pub(crate) fn watch_workload(&mut self, prefix: Prefix, interface: &str) -> Result<(), Refused> {
        PacketSocket::allowed().map_err(|error| {
            let message = format!("looking for workloads needs CAP_NET_RAW: {error}");
            Refused::new("not-permitted", message)
        })?;
        self.workloads.insert(interface, prefix, self.sync)?;
        if let Some(watched) = self.workloads.interfaces.get(interface) {
            watched.update_filter();
            watched.ask_for([prefix].iter());
        }
        self.host_dirty = true;
        self.follow_workload_interfaces();
        Ok(())
    }

    pub(crate) fn unwatch_workload(&mut self, prefix: &Prefix, interface: &str) {
        self.workloads.remove(interface, prefix);
        self.host_dirty = true;
    }

    /// Listens on the interfaces that are here now.
    pub(crate) fn follow_workload_interfaces(&mut self) {
        for (name, watched) in &mut self.workloads.interfaces {
            let link = self.host.link_index(name);
            if let Some(link) = link
                && !watched.socket.as_ref().is_some_and(|s| s.is_on(link))
            {
                watched.up = false;
                watched.socket =
                    match PacketSocket::listen(link, &signs_of_life(watched.eids.keys()), Addressed::ToAnybody) {
                        Ok(socket) => Some(socket),
                        Err(error) => {
                            log::warn("workloads are not looked for", &[("interface", name), ("error", &error)]);
                            None
                        }
                    };
                if let Some(socket) = &watched.socket
                    && let Err(error) = self.poller.add(socket, WORKLOADS + u64::from(link))
                {
                    log::warn("epoll", &[("error", &error)]);
                }
            } else if link.is_none() {
                watched.socket = None;
            }
            let up = self.host.live_link(name).is_some();
            if !std::mem::replace(&mut watched.up, up) && up {
                watched.ask_for_all(self.now);
            }
        }
        self.holding |= self.workloads.is_waiting();
    }

    /// There is something to read on the packet socket of this interface.
    pub(crate) fn hear_workloads(&mut self, link: u32) {
        let mut seen = Vec::new();
        let mut buffer = [0; SNAPSHOT];
        for (name, watched) in &mut self.workloads.interfaces {
            if !watched.socket.as_ref().is_some_and(|s| s.is_on(link)) {
                continue;
            }
            let before = seen.len();
            for _ in 0..PACKETS_AT_ONCE {
                let Some(Ok(Received { protocol, length, .. })) =
                    watched.socket.as_ref().map(|s| s.receive(&mut buffer))
                else {
                    break;
                };
                match sign_of_life(protocol, &buffer[..length]) {
                    Some(Sign::Of(eid, by)) => {
                        let recognised = watched.recognise(eid, self.now);
                        seen.extend(recognised.map(|prefix| (prefix, name.clone(), by)));
                    }
                    Some(Sign::Newcomer) => watched.ask_for_all(self.now),
                    None => {}
                }
            }
            if seen.len() > before {
                watched.update_filter();
                self.holding = true;
            }
        }
        for (prefix, interface, by) in seen {
            self.event(&Event::WorkloadSeen { prefix, interface, by });
        }
    }

    /// The neighbours of a workload that has moved on reach it through this host at once.
    pub(crate) fn announce_departure(&mut self, prefix: &Prefix, interface: &str) {
        let Some(link) = self.host.live_link(interface).filter(|_| prefix.is_host()) else { return };
        let announce = || {
            let socket = PacketSocket::open(link)?;
            let Some(mac) = socket.mac() else { return Ok(()) };
            announce_address(&socket, mac, prefix.address)
        };
        self.complain_once(announce());
    }

    /// Workloads that have come to these interfaces learn which hardware address their gateway has here.
    pub(crate) fn announce_gateways(&mut self, interfaces: &BTreeSet<(u32, bool)>) {
        for &(link, v6) in interfaces {
            let announce = || {
                let socket = PacketSocket::open(link)?;
                let Some(mac) = socket.mac() else { return Ok(()) };
                announce_address(&socket, mac, gateway(v6))
            };
            self.complain_once(announce());
        }
    }

    fn complain_once(&mut self, result: io::Result<()>) {
        if let Err(error) = result
            && !std::mem::replace(&mut self.workloads.complained, true)
        {
            log::warn("an address was not announced (CAP_NET_RAW?)", &[("error", &error)]);
        }
    }
}

fn announce_address(socket: &PacketSocket, mac: Mac, address: IpAddr) -> io::Result<()> {
    match address {
        IpAddr::V4(address) => socket.send(ARP, &arp_announcement(mac, address)),
        IpAddr::V6(address) => socket.send(IPV6, &neighbour_advertisement(mac, address)),
    }
}

pub const MAX_EIDS_OF_INTERFACE: usize = 256;
const ASK_AGAIN: Duration = seconds(1);
const QUIET: Duration = seconds(1);
const ASKS_A_SECOND: u32 = 10;
const PACKETS_AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::millis;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn an_eid_is_recognised_once_in_a_second() {
        let mut watches = WorkloadWatches::default();
        watches.insert("br0", prefix("10.77.0.5/32"), 1).unwrap();
        watches.insert("br0", prefix("fd77::/64"), 1).unwrap();
        let (start, eid) = (Time::from_millis(1), "10.77.0.5".parse().unwrap());
        let br0 = watches.interfaces.get_mut("br0").unwrap();
        assert_eq!(br0.recognise(eid, start), Some(prefix("10.77.0.5/32")));
        assert_eq!(br0.recognise(eid, start), None);
        assert_eq!(br0.recognise("fd77::9".parse().unwrap(), start), Some(prefix("fd77::/64")));
        assert_eq!(br0.recognise("10.77.0.6".parse().unwrap(), start), None);
        watches.end_quiet(start + QUIET - millis(1));
        assert!(watches.is_waiting());
        watches.end_quiet(start + QUIET);
        assert!(!watches.is_waiting());
        assert!(watches.interfaces.get_mut("br0").unwrap().recognise(eid, start + QUIET).is_some());
    }

    #[test]
    fn what_a_full_state_does_not_mention_is_no_longer_awaited() {
        let mut watches = WorkloadWatches::default();
        watches.insert("br0", prefix("10.77.0.5/32"), 1).unwrap();
        watches.insert("br0", prefix("10.77.0.6/32"), 1).unwrap();
        watches.insert("tap0", prefix("10.77.0.7/32"), 1).unwrap();
        watches.insert("br0", prefix("10.77.0.6/32"), 2).unwrap();
        watches.keep_only(2);
        assert_eq!(watches.interfaces["br0"].eids.keys().collect::<Vec<_>>(), [&prefix("10.77.0.6/32")]);
        assert_eq!(watches.families().collect::<Vec<_>>(), [("br0", false)]);
        watches.remove("br0", &prefix("10.77.0.6/32"));
        assert!(watches.interfaces.is_empty());
    }

    #[test]
    fn an_interface_has_room_for_so_many() {
        let mut watches = WorkloadWatches::default();
        for n in 0..MAX_EIDS_OF_INTERFACE {
            watches.insert("br0", Prefix::host(IpAddr::from((n as u32).to_be_bytes())), 1).unwrap();
        }
        assert_eq!(watches.insert("br0", prefix("10.77.0.5/32"), 1).unwrap_err().code, "too-many");
        assert!(watches.insert("br0", prefix("0.0.0.1/32"), 2).is_ok());
        assert!(watches.insert("br1", prefix("10.77.0.5/32"), 1).is_ok());
    }
}
