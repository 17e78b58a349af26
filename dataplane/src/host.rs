//! This host's network as the kernel has it: links, addresses and routes followed through netlink, and what the
//! overlay needs of them kept in place.
//!
//! What is wanted is compared with what is installed; the difference is applied. What a former process left on a
//! persistent TUN counts as installed, and is removed only when the agent has said everything it wants.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, RawFd};

use crate::log;
use crate::netlink::{Address, Change, Link, Netlink, ROUTE_PROTOCOL, Request, Route};
use crate::prefix::Prefix;
use crate::tunnel::Uplink;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Item {
    /// On the TUN.
    Address(Prefix),
    /// What a workload has as its default gateway. The host's own question for the workload comes from this address,
    /// so the answer to a question that was asked before the interface was ready comes with the first packet for it.
    Gateway {
        link: u32,
        address: IpAddr,
    },
    Route {
        prefix: Prefix,
        link: u32,
        source: Option<IpAddr>,
    },
}

#[derive(Default, Clone, Copy)]
pub struct Changes {
    /// The way to peers may be another one.
    pub underlay: bool,
    /// An interface appeared, went, or changed its state.
    pub links: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalAddress {
    pub address: IpAddr,
    pub interface: String,
    pub default_route: bool,
    /// Nobody answers through the interface, although its link is up.
    pub silent: bool,
}

pub struct HostNetwork {
    requests: Netlink,
    monitor: Netlink,
    tun: u32,
    links: HashMap<u32, Link>,
    /// Numbers what appears: an interface that was away for a moment has its old index.
    appearances: HashMap<u32, u64>,
    last_appearance: u64,
    /// Numbers when each interface began to carry.
    rises: HashMap<u32, u64>,
    /// Numbers when the own addresses of each interface last changed, by family: which of them the kernel sends from,
    /// and so peers answer to, is not known here.
    renumberings: HashMap<(u32, bool), u64>,
    /// Of the routes that `uplinks` does not weigh as the kernel does, and when it last became another.
    unweighed: (u64, u64),
    last_change: u64,
    addresses: HashSet<Address>,
    routes: HashSet<Route>,
    installed: BTreeSet<Item>,
    /// Installed by a former process and not wanted by this one so far.
    inherited: BTreeSet<Item>,
}

impl HostNetwork {
    pub fn open(tun_name: &str) -> io::Result<HostNetwork> {
        // Listening starts before looking, so that nothing in between is missed.
        let monitor = Netlink::monitor()?;
        let mut host = HostNetwork {
            requests: Netlink::open()?,
            monitor,
            tun: 0,
            links: HashMap::new(),
            appearances: HashMap::new(),
            last_appearance: 0,
            rises: HashMap::new(),
            renumberings: HashMap::new(),
            unweighed: (0, 0),
            last_change: 0,
            addresses: HashSet::new(),
            routes: HashSet::new(),
            installed: BTreeSet::new(),
            inherited: BTreeSet::new(),
        };
        host.look()?;
        host.tun = host.link_index(tun_name).ok_or(io::ErrorKind::NotFound)?;
        let addresses = host.addresses.iter().filter(|a| a.link == host.tun && !is_link_local(a.address));
        let addresses = addresses.map(|a| Item::Address(Prefix { address: a.address, length: a.prefix_length }));
        let routes = host.routes.iter().filter(|r| r.protocol == ROUTE_PROTOCOL);
        let routes = routes.map(|r| Item::Route { prefix: r.destination, link: r.link, source: None });
        host.installed = addresses.chain(routes).collect();
        host.inherited = host.installed.clone();
        Ok(host)
    }

    pub fn tun_up(&mut self, mtu: u32, gso_max_size: u32) -> io::Result<()> {
        if self.requests.request(Request::set_link(self.tun, mtu, TUN_QUEUE, Some(gso_max_size))).is_err() {
            self.requests.request(Request::set_link(self.tun, mtu, TUN_QUEUE, None))?;
        }
        Ok(())
    }

    /// Takes in what has happened.
    pub fn poll(&mut self) -> Changes {
        let found = match self.monitor.changes() {
            Ok(found) => found,
            Err(error) => {
                log::warn("netlink notifications were lost; looking again", &[("error", &error)]);
                let _ = self.look();
                return Changes { underlay: true, links: true };
            }
        };
        let mut changes = Changes::default();
        for change in found {
            let links_before = changes.links;
            changes.underlay |= self.apply(change, &mut changes.links);
            changes.links |= links_before;
        }
        changes
    }

    /// IPv4 routes go with their interface or source address without a notification.
    pub fn refresh_routes(&mut self) {
        if let Ok(found) = self.requests.dump(libc::RTM_GETROUTE) {
            self.routes.clear();
            for change in found {
                self.apply(change, &mut false);
            }
            self.number_unweighed();
        }
    }

    /// What rules make of other tables is not followed, nor are single routes when there are too many.
    fn number_unweighed(&mut self) {
        let routes = || self.routes.iter().filter(|r| self.is_underlay_route(r));
        let too_many = routes().nth(MAX_UPLINK_ROUTES).is_some();
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let hashes = routes().filter(|r| too_many || in_other_table(r)).map(|r| hasher.hash_one(r));
        let sum = hashes.fold(0, u64::wrapping_add);
        if sum != self.unweighed.0 {
            self.last_change += 1;
            self.unweighed = (sum, self.last_change);
        }
    }

    pub fn link_index(&self, name: &str) -> Option<u32> {
        self.links.values().find(|l| l.name == name).map(|l| l.index)
    }

    /// Another one after the interface has been away, if only in another namespace.
    pub fn appearance(&self, link: u32) -> u64 {
        self.appearances.get(&link).copied().unwrap_or_default()
    }

    pub fn link_name(&self, link: u32) -> Option<&str> {
        self.links.get(&link).map(|l| l.name.as_str())
    }

    /// The index of an interface that can carry packets now.
    pub fn live_link(&self, name: &str) -> Option<u32> {
        self.links.values().find(|l| l.name == name && l.up).map(|l| l.index)
    }

    /// The MTU of the link that has an address.
    pub fn mtu_at(&self, address: IpAddr) -> Option<u32> {
        let found = self.addresses.iter().find(|a| a.address == address)?;
        self.links.get(&found.link).map(|l| l.mtu)
    }

    /// The routes by which peers can be reached, those that the kernel prefers first, and an own address for each.
    pub fn uplinks(&self, is_eid: impl Fn(IpAddr) -> bool) -> Vec<Uplink> {
        let mut addresses: HashMap<(u32, bool), IpAddr> = HashMap::new();
        for a in self.addresses.iter().filter(|a| self.is_underlay_address(a) && a.usable && !is_eid(a.address)) {
            let lowest = addresses.entry((a.link, a.address.is_ipv6())).or_insert(a.address);
            *lowest = (*lowest).min(a.address);
        }
        let mut routes: Vec<&Route> = self.routes.iter().filter(|r| self.is_underlay_route(r)).collect();
        routes.sort_by_key(|r| (Reverse(r.destination.length), in_other_table(r), r.priority, r.link, r.destination));
        if routes.len() > MAX_UPLINK_ROUTES {
            routes.retain(|r| r.destination.length == 0);
        }
        let uplink = |route: &&Route| {
            let family = (route.link, route.destination.address.is_ipv6());
            let address = *addresses.get(&family)?;
            let up = self.links.get(&route.link).is_some_and(|l| l.up);
            Some(Uplink {
                link: route.link,
                address,
                destination: route.destination,
                gateway: route.gateway,
                up,
                version: self.version(family),
            })
        };
        routes.iter().filter_map(uplink).collect()
    }

    fn version(&self, family: (u32, bool)) -> u64 {
        let numbers = [self.rises.get(&family.0), self.renumberings.get(&family), Some(&self.unweighed.1)];
        numbers.into_iter().flatten().copied().max().unwrap_or_default()
    }

    /// `is_silent`: addresses of an interface through which nobody answers.
    pub fn local_addresses(
        &self,
        is_eid: impl Fn(IpAddr) -> bool,
        is_silent: impl Fn(u32, IpAddr) -> bool,
    ) -> Vec<LocalAddress> {
        let mut found: Vec<LocalAddress> = self
            .addresses
            .iter()
            .filter(|a| self.is_underlay_address(a) && a.usable && !is_eid(a.address))
            .filter_map(|a| {
                let link = self.links.get(&a.link).filter(|l| l.up)?;
                Some(LocalAddress {
                    address: a.address,
                    interface: link.name.clone(),
                    default_route: self.has_default_route(a.link, a.address.is_ipv6()),
                    silent: is_silent(a.link, a.address),
                })
            })
            .collect();
        found.sort_by(|a, b| {
            (!a.default_route, &a.interface, a.address).cmp(&(!b.default_route, &b.interface, b.address))
        });
        found
    }

    /// Brings the kernel to what is wanted. `complete`: what is not wanted now will not be, so what a former process
    /// installed goes too.
    pub fn reconcile(&mut self, wanted: &BTreeSet<Item>, complete: bool) {
        let routes: HashSet<_> = wanted.iter().filter_map(Item::route_key).collect();
        let unwanted = |item: &&Item| {
            let stays = item.route_key().map_or_else(|| wanted.contains(item), |key| routes.contains(&key));
            !stays && (complete || !self.inherited.contains(item))
        };
        let extra: Vec<Item> = self.installed.iter().filter(unwanted).copied().collect();
        for item in extra {
            let result = self.requests.request(item.request(false, self.tun));
            log::debug("removed", &[("what", &format!("{item:?}")), ("ok", &result.is_ok())]);
            self.installed.remove(&item);
        }
        self.inherited.retain(|item| !complete && !wanted.contains(item));
        // Addresses come first in the order, so that routes can name them as source.
        for item in wanted {
            if self.installed.contains(item) {
                continue;
            }
            match self.requests.request(item.request(true, self.tun)) {
                Ok(()) => {
                    if let Some(key) = item.route_key() {
                        self.installed.retain(|i| i.route_key() != Some(key));
                    }
                    self.installed.insert(*item);
                }
                Err(error) => {
                    log::warn("not accepted by the kernel", &[("what", &format!("{item:?}")), ("error", &error)]);
                }
            }
        }
    }

    fn look(&mut self) -> io::Result<()> {
        self.links.clear();
        self.addresses.clear();
        self.routes.clear();
        for kind in [libc::RTM_GETLINK, libc::RTM_GETADDR, libc::RTM_GETROUTE] {
            for change in self.requests.dump(kind)? {
                self.apply(change, &mut false);
            }
        }
        Ok(())
    }

    /// Returns whether the underlay may have changed.
    fn apply(&mut self, change: Change, links_changed: &mut bool) -> bool {
        match change {
            Change::Link(link) => {
                if self.links.get(&link.index) == Some(&link) {
                    return false;
                }
                *links_changed = true;
                let index = link.index;
                if link.up && !self.links.get(&index).is_some_and(|before| before.up) {
                    self.last_change += 1;
                    self.rises.insert(index, self.last_change);
                }
                if !link.up {
                    self.forget_installed_on(index, false);
                    self.routes.retain(|r| r.link != index);
                }
                if self.links.insert(index, link).is_none() {
                    self.last_appearance += 1;
                    self.appearances.insert(index, self.last_appearance);
                }
                self.is_underlay_link(index)
            }
            Change::LinkGone(link) => {
                *links_changed = true;
                let relevant = self.is_underlay_link(link.index);
                self.links.remove(&link.index);
                self.appearances.remove(&link.index);
                self.rises.remove(&link.index);
                self.renumberings.retain(|(index, _), _| *index != link.index);
                self.addresses.retain(|a| a.link != link.index);
                self.routes.retain(|r| r.link != link.index);
                self.forget_installed_on(link.index, true);
                relevant
            }
            Change::Address(address) => {
                let known = self.addresses.contains(&address);
                // The same address with other flags replaces the old entry.
                self.addresses.retain(|a| a.address != address.address || a.link != address.link);
                let relevant = !known && self.is_underlay_address(&address) && address.usable;
                if relevant {
                    self.number_renumbering(&address);
                }
                self.addresses.insert(address);
                relevant
            }
            Change::AddressGone(address) => {
                self.addresses.retain(|a| a.address != address.address || a.link != address.link);
                if address.link == self.tun {
                    let prefix = Prefix { address: address.address, length: address.prefix_length };
                    self.installed.remove(&Item::Address(prefix));
                }
                let relevant = self.is_underlay_address(&address);
                if relevant {
                    self.number_renumbering(&address);
                }
                relevant
            }
            Change::Route(route) => {
                let relevant = self.is_underlay_route(&route);
                self.routes.insert(route) && relevant
            }
            Change::RouteGone(route) => {
                if route.protocol == ROUTE_PROTOCOL {
                    let (prefix, link) = (route.destination, route.link);
                    self.installed
                        .retain(|i| !matches!(i, Item::Route { prefix: p, link: l, .. } if *p == prefix && *l == link));
                }
                self.routes.remove(&route);
                self.is_underlay_route(&route)
            }
        }
    }

    fn number_renumbering(&mut self, address: &Address) {
        self.last_change += 1;
        self.renumberings.insert((address.link, address.address.is_ipv6()), self.last_change);
    }

    fn forget_installed_on(&mut self, index: u32, gone: bool) {
        self.installed.retain(|item| match item {
            Item::Address(_) => !(gone && index == self.tun),
            Item::Route { link, .. } => *link != index,
            Item::Gateway { link, .. } => !(gone && *link == index),
        });
    }

    fn is_underlay_link(&self, index: u32) -> bool {
        index != self.tun && self.addresses.iter().any(|a| a.link == index && self.is_underlay_address(a))
    }

    fn is_underlay_address(&self, address: &Address) -> bool {
        address.link != self.tun
            && !self.links.get(&address.link).is_some_and(|l| l.loopback)
            && !address.address.is_loopback()
            && !is_link_local(address.address)
    }

    fn is_underlay_route(&self, route: &Route) -> bool {
        route.unicast
            && route.protocol != ROUTE_PROTOCOL
            && route.link != self.tun
            && route.table != u32::from(libc::RT_TABLE_LOCAL)
            && !is_link_local(route.destination.address)
            && !route.destination.address.is_multicast()
            && !self.links.get(&route.link).is_some_and(|l| l.loopback)
    }

    fn has_default_route(&self, link: u32, v6: bool) -> bool {
        self.routes
            .iter()
            .any(|r| r.link == link && r.destination.length == 0 && r.destination.address.is_ipv6() == v6 && r.unicast)
    }
}

impl AsRawFd for HostNetwork {
    fn as_raw_fd(&self) -> RawFd {
        self.monitor.as_raw_fd()
    }
}

impl Item {
    fn request(self, add: bool, tun: u32) -> Request {
        match self {
            Item::Address(prefix) => Request::address(add, tun, prefix),
            Item::Gateway { link, address } => Request::address(add, link, Prefix::host(address)),
            Item::Route { prefix, link, source } => {
                let metric = if link == tun { OVERLAY_METRIC } else { HOST_METRIC };
                Request::route(add, link, prefix, metric, source)
            }
        }
    }

    /// What a route is known by: one with another source address replaces it.
    fn route_key(&self) -> Option<(Prefix, u32)> {
        match self {
            Item::Route { prefix, link, .. } => Some((*prefix, *link)),
            Item::Address(_) | Item::Gateway { .. } => None,
        }
    }
}

/// The gateway of every workload behind an interface, the same on all hosts: it stays right through a move.
pub fn gateway(v6: bool) -> IpAddr {
    if v6 { IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)) } else { IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)) }
}

fn in_other_table(route: &Route) -> bool {
    route.table != u32::from(libc::RT_TABLE_MAIN)
}

pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

/// With more the defaults have to do.
const MAX_UPLINK_ROUTES: usize = 256;
/// Packets that wait in the TUN for this process: many correspondents may all be answered at once.
const TUN_QUEUE: u32 = 2048;
const OVERLAY_METRIC: u32 = 100;
const HOST_METRIC: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: u32 = 1 << 30;

    fn address(last: u8) -> Address {
        Address { link: LINK, prefix_length: 24, address: [192, 0, 2, last].into(), usable: true }
    }

    fn route(link: u32, table: u8) -> Route {
        let destination = "203.0.113.0/24".parse().unwrap();
        let table = table.into();
        Route { destination, gateway: None, link, priority: 0, protocol: 4, table, unicast: true }
    }

    /// A host with an interface of which nothing but the numbers in its uplink changes, while `changes` happen.
    fn uplinks_after(changes: Vec<Change>) -> (Uplink, Uplink) {
        let mut host = HostNetwork::open("lo").unwrap();
        let link = Link { index: LINK, name: "test".into(), up: true, loopback: false, mtu: 1500 };
        let first = [
            Change::Link(link),
            Change::Address(address(5)),
            Change::Address(address(10)),
            Change::Route(route(LINK, libc::RT_TABLE_MAIN)),
        ];
        let mut after = |changes: Vec<Change>| {
            for change in changes {
                host.apply(change, &mut false);
            }
            host.number_unweighed();
            host.uplinks(|_| false).into_iter().find(|uplink| uplink.link == LINK).unwrap()
        };
        (after(Vec::from(first)), after(changes))
    }

    #[test]
    fn what_changes_the_way_out_unseen_shows_in_its_version() {
        let other_table = || Change::Route(route(LINK + 1, 99));
        for (what, changes) in [
            ("an address that the kernel may have sent from went", vec![Change::AddressGone(address(10))]),
            ("an address that the kernel may send from came", vec![Change::Address(address(20))]),
            ("a table that rules may choose changed", vec![other_table()]),
        ] {
            let (before, after) = uplinks_after(changes);
            assert!(after.version > before.version, "{what}");
            assert_eq!(Uplink { version: before.version, ..after }, before, "{what}");
        }
        let unrelated = vec![Change::Address(address(5)), Change::Route(route(LINK + 1, libc::RT_TABLE_MAIN))];
        let (before, after) = uplinks_after(unrelated);
        assert_eq!(before, after);
        let many = (0..300u32).map(|n| {
            let destination = Prefix::host(std::net::Ipv4Addr::from(0xc633_6400 + n).into());
            Change::Route(Route { destination, ..route(LINK + 1, libc::RT_TABLE_MAIN) })
        });
        let default = Route { destination: "0.0.0.0/0".parse().unwrap(), ..route(LINK, libc::RT_TABLE_MAIN) };
        let (before, after) = uplinks_after(std::iter::once(Change::Route(default)).chain(many).collect());
        assert!(after.version > before.version, "single routes are not told apart any more");
    }
}
