//! Who owns which EID, and what follows from it for a packet. No I/O; the agent's commands change it.

use std::net::IpAddr;
use std::time::Duration;

use crate::hold::HoldQueue;
use crate::peer::PeerId;
use crate::prefix::{Prefix, PrefixTable};
use crate::time::{Time, seconds};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Forward(PeerId),
    Drop,
}

pub struct Mapping {
    pub generation: u64,
    pub action: Action,
    pub sync: u64,
}

/// An EID of this host.
pub struct LocalEid {
    pub generation: u64,
    /// The interface that leads to the workload; `None`: the address is on the TUN.
    pub interface: Option<String>,
    /// The workload can be reached.
    pub live: bool,
    /// The previous owner of a move in progress, believed until then.
    pub redirect_from: Option<(PeerId, Time)>,
    pub held: HoldQueue,
    /// When it came to this host.
    pub since: Time,
    pub sync: u64,
}

/// An EID that was here a moment ago.
pub struct Departed {
    pub generation: u64,
    pub redirect: Option<PeerId>,
    pub until: Time,
    pub held: HoldQueue,
}

/// What to do with a packet for an EID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    Local,
    /// Local, but the way to the workload is not there at the moment.
    LocalAway(Prefix),
    Forward(PeerId),
    Drop,
    /// In the EID space, owner unknown.
    Miss,
    /// Left this host; its new place is not known yet.
    Departed(Prefix),
    Outside,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    Ok,
    Unknown,
    Conflict,
    Denied,
    /// Not an EID at all.
    Outside,
}

pub struct Forwarding {
    pub overlay: Vec<Prefix>,
    pub agent: Option<IpAddr>,
    pub mappings: PrefixTable<Mapping>,
    pub locals: PrefixTable<LocalEid>,
    pub departed: PrefixTable<Departed>,
}

impl Forwarding {
    pub fn new() -> Forwarding {
        Forwarding {
            overlay: Vec::new(),
            agent: None,
            mappings: PrefixTable::new(),
            locals: PrefixTable::new(),
            departed: PrefixTable::new(),
        }
    }

    /// Where a packet from this host, or one that was redirected, goes.
    #[inline]
    pub fn route(&self, destination: IpAddr) -> Route {
        if self.agent == Some(destination) {
            return Route::Local;
        }
        let mapping = self.mappings.lookup(destination);
        if let Some(local) = self.local(destination, mapping.map(|(length, _)| length)) {
            return local;
        }
        match mapping.map(|(_, m)| m.action) {
            Some(Action::Forward(peer)) => Route::Forward(peer),
            Some(Action::Drop) => Route::Drop,
            None => match self.departed.lookup(destination) {
                Some((_, Departed { redirect: Some(peer), .. })) => Route::Forward(*peer),
                Some((length, _)) => Route::Departed(covering(destination, length)),
                None if self.in_eid_space(destination) => Route::Miss,
                None => Route::Outside,
            },
        }
    }

    /// Where a packet that a peer sent goes: only what is or was ours goes anywhere.
    #[inline]
    pub fn arrival(&self, destination: IpAddr) -> Route {
        if self.agent == Some(destination) {
            return Route::Local;
        }
        if self.locals.len() > 0 {
            let mapping = self.mappings.lookup(destination).map(|(length, _)| length);
            if let Some(local) = self.local(destination, mapping) {
                return local;
            }
        }
        match self.departed.lookup(destination) {
            Some((_, Departed { redirect: Some(peer), .. })) => Route::Forward(*peer),
            Some((length, _)) => Route::Departed(covering(destination, length)),
            None => Route::Outside,
        }
    }

    /// The source check: an EID's packets come from the peer that owns it.
    #[inline]
    pub fn check_source(&self, source: IpAddr, destination: IpAddr, peer: PeerId, now: Time) -> Source {
        let mapping = self.mappings.lookup(source);
        let verdict = match mapping {
            Some((_, Mapping { action: Action::Forward(owner), .. })) if *owner == peer => return Source::Ok,
            Some((_, Mapping { action: Action::Forward(_), .. })) => Source::Conflict,
            Some((_, Mapping { action: Action::Drop, .. })) => Source::Denied,
            None if self.is_own(source) => Source::Conflict,
            None if self.in_eid_space(source) => Source::Unknown,
            None => Source::Outside,
        };
        let redirected = self.locals.lookup(destination).and_then(|(_, local)| local.redirect_from);
        if redirected.is_some_and(|(from, until)| from == peer && now < until) { Source::Ok } else { verdict }
    }

    pub fn in_eid_space(&self, address: IpAddr) -> bool {
        AGENT_PREFIX.contains(address) || self.overlay.iter().any(|prefix| prefix.contains(address))
    }

    /// False when a newer generation is known.
    pub fn set_mapping(&mut self, prefix: Prefix, mapping: Mapping) -> bool {
        if self.mappings.get(&prefix).is_some_and(|known| known.generation > mapping.generation) {
            // Mentioned in a full state, so it stays.
            if let Some(known) = self.mappings.get_mut(&prefix) {
                known.sync = mapping.sync;
            }
            return false;
        }
        if let Action::Forward(peer) = mapping.action
            && let Some(departed) = self.departed.get_mut(&prefix)
            && mapping.generation >= departed.generation
        {
            departed.redirect.get_or_insert(peer);
        }
        self.mappings.insert(prefix, mapping);
        true
    }

    pub fn names_peer(&self, peer: PeerId) -> bool {
        self.mappings.iter().any(|(_, m)| m.action == Action::Forward(peer))
    }

    /// What waits for interfaces and for new owners.
    pub fn held_queues(&self) -> impl Iterator<Item = &HoldQueue> {
        let locals = self.locals.iter().map(|(_, local)| &local.held);
        locals.chain(self.departed.iter().map(|(_, departed)| &departed.held))
    }

    pub fn is_or_was_own(&self, eid: IpAddr) -> bool {
        self.locals.lookup(eid).is_some() || self.departed.lookup(eid).is_some()
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.agent == Some(address) || self.locals.lookup(address).is_some()
    }

    /// The local EID of `destination` if its workload is behind an interface.
    pub fn behind_interface(&self, destination: IpAddr) -> Option<Prefix> {
        let (length, local) = self.locals.lookup(destination)?;
        local.interface.is_some().then(|| covering(destination, length))
    }

    /// The local EID of `destination`, unless a longer prefix is mapped elsewhere.
    #[inline]
    fn local(&self, destination: IpAddr, mapped_length: Option<u8>) -> Option<Route> {
        let (length, local) = self.locals.lookup(destination)?;
        if mapped_length.is_some_and(|mapped| mapped > length) {
            return None;
        }
        Some(if local.live { Route::Local } else { Route::LocalAway(covering(destination, length)) })
    }
}

fn covering(address: IpAddr, length: u8) -> Prefix {
    let masked = |bits: u128, width: u32| match width - u32::from(length) {
        128 => 0,
        host_bits => (bits >> host_bits) << host_bits,
    };
    let address = match address {
        IpAddr::V4(v4) => IpAddr::V4((masked(u128::from(u32::from(v4)), 32) as u32).into()),
        IpAddr::V6(v6) => IpAddr::V6(masked(u128::from(v6), 128).into()),
    };
    Prefix { address, length }
}

/// Addresses of agents, fd53:7461:7970:7574::/64.
pub const AGENT_PREFIX: Prefix =
    Prefix { address: IpAddr::V6(std::net::Ipv6Addr::new(0xfd53, 0x7461, 0x7970, 0x7574, 0, 0, 0, 0)), length: 64 };
pub const REDIRECT_TRUST: Duration = seconds(60);
pub const DRAIN_TIME: Duration = seconds(30);

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId(1);
    const B: PeerId = PeerId(2);
    const NOW: Time = Time::from_millis(1000);

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }
    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }
    fn mapping(generation: u64, action: Action) -> Mapping {
        Mapping { generation, action, sync: 0 }
    }
    fn local(live: bool, redirect_from: Option<(PeerId, Time)>) -> LocalEid {
        let (held, since) = (HoldQueue::default(), Time::default());
        LocalEid { generation: 1, interface: None, live, redirect_from, held, since, sync: 0 }
    }

    fn table() -> Forwarding {
        let mut table = Forwarding::new();
        table.overlay = vec![prefix("10.0.0.0/8")];
        table.agent = Some(ip("fd53:7461:7970:7574::1"));
        table.locals.insert(prefix("10.1.0.0/16"), local(true, None));
        table.locals.insert(prefix("10.3.0.1/32"), local(false, Some((B, NOW + REDIRECT_TRUST))));
        table.set_mapping(prefix("10.1.5.5/32"), mapping(1, Action::Forward(A)));
        table.set_mapping(prefix("10.2.0.0/16"), mapping(1, Action::Forward(A)));
        table.set_mapping(prefix("10.2.9.0/24"), mapping(1, Action::Drop));
        table
    }

    #[test]
    fn routes() {
        let table = table();
        for (to, route) in [
            ("10.1.2.3", Route::Local),
            ("10.1.5.5", Route::Forward(A)),
            ("10.2.1.1", Route::Forward(A)),
            ("10.2.9.9", Route::Drop),
            ("10.3.0.1", Route::LocalAway(prefix("10.3.0.1/32"))),
            ("10.4.4.4", Route::Miss),
            ("192.0.2.1", Route::Outside),
            ("fd53:7461:7970:7574::1", Route::Local),
            ("fd53:7461:7970:7574::2", Route::Miss),
        ] {
            assert_eq!(table.route(ip(to)), route, "{to}");
        }
        assert_eq!(table.arrival(ip("10.1.2.3")), Route::Local);
        assert_eq!(table.arrival(ip("10.1.5.5")), Route::Outside);
        assert_eq!(table.arrival(ip("10.2.1.1")), Route::Outside);
    }

    #[test]
    fn only_workloads_are_behind_an_interface() {
        let mut table = table();
        let port = LocalEid { interface: Some("port0".into()), ..local(true, None) };
        table.locals.insert(prefix("10.3.0.2/32"), port);
        assert_eq!(table.behind_interface(ip("10.3.0.2")), Some(prefix("10.3.0.2/32")));
        assert_eq!(table.behind_interface(ip("10.3.0.1")), None);
        assert_eq!(table.behind_interface(ip("10.3.0.9")), None);
    }

    // Attack: inner sources that belong to another peer, to nobody, to the receiver, to a denied EID, outside of the
    // overlay, or to a former owner after its time | 8 | each refused by its own verdict
    #[test]
    fn attack_spoofed_inner_sources() {
        let table = table();
        let here = ip("10.1.0.1");
        for (from, peer, verdict) in [
            ("10.2.0.1", A, Source::Ok),
            ("10.2.0.1", B, Source::Conflict),
            ("10.2.9.1", A, Source::Denied),
            ("10.4.0.1", A, Source::Unknown),
            ("10.1.0.9", A, Source::Conflict),
            ("192.0.2.1", A, Source::Outside),
        ] {
            assert_eq!(table.check_source(ip(from), here, peer, NOW), verdict, "{from}");
        }
        let moved = ip("10.3.0.1");
        assert_eq!(table.check_source(ip("10.4.0.1"), moved, B, NOW), Source::Ok);
        assert_eq!(table.check_source(ip("10.4.0.1"), moved, A, NOW), Source::Unknown);
        assert_eq!(table.check_source(ip("10.4.0.1"), moved, B, NOW + REDIRECT_TRUST), Source::Unknown);
    }

    // Attack: a mapping of an earlier generation | 1 | ignored
    #[test]
    fn attack_mapping_of_an_older_generation() {
        let mut table = Forwarding::new();
        let eid = prefix("10.9.0.1/32");
        assert!(table.set_mapping(eid, mapping(5, Action::Forward(A))));
        assert!(!table.set_mapping(eid, mapping(4, Action::Forward(B))));
        assert_eq!(table.route(ip("10.9.0.1")), Route::Forward(A));
        assert!(table.set_mapping(eid, mapping(5, Action::Drop)));
        assert!(table.set_mapping(eid, mapping(6, Action::Forward(B))));
        assert_eq!(table.route(ip("10.9.0.1")), Route::Forward(B));
    }

    #[test]
    fn departed_eid_follows_the_new_mapping() {
        let mut table = Forwarding::new();
        let eid = prefix("10.9.0.1/32");
        let departed = Departed { generation: 5, redirect: None, until: NOW, held: HoldQueue::default() };
        table.departed.insert(eid, departed);
        assert_eq!(table.arrival(ip("10.9.0.1")), Route::Departed(eid));
        table.set_mapping(eid, mapping(6, Action::Forward(B)));
        assert_eq!(table.arrival(ip("10.9.0.1")), Route::Forward(B));
    }
}
