//! Who owns which EID, and what follows from it for a packet. No I/O; the agent's commands change it.

use std::net::IpAddr;
use std::time::Duration;

use crate::hold::HoldQueue;
use crate::peer::{Locator, PeerId};
use crate::plain::PlainRules;
use crate::prefix::{Prefix, PrefixTable};
use crate::time::{Time, seconds};

/// Where a packet came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// This host, by the TUN.
    Host,
    /// A tunnel.
    Peer(PeerId),
    /// Plain, by this RLOC's word only.
    Rloc(IpAddr),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    Forward(PeerId),
    /// To a site that has no tunnel key, in plain RFC 9300 encapsulation.
    Plain(Box<[Locator]>),
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
    /// As the mapping of this prefix says.
    Plain(Prefix),
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
    /// A plain packet from an EID whose owner has a tunnel key.
    Tunnelled,
    /// Not an EID at all.
    Outside,
}

pub struct Forwarding {
    pub overlay: Vec<Prefix>,
    pub plain: PlainRules,
    pub agent: Option<IpAddr>,
    pub mappings: PrefixTable<Mapping>,
    pub locals: PrefixTable<LocalEid>,
    pub departed: PrefixTable<Departed>,
}

impl Forwarding {
    pub fn new() -> Forwarding {
        Forwarding {
            overlay: Vec::new(),
            plain: PlainRules::default(),
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
        match mapping.map(|(length, m)| (length, &m.action)) {
            Some((_, Action::Forward(peer))) => Route::Forward(*peer),
            Some((length, Action::Plain(_))) => Route::Plain(covering(destination, length)),
            Some((_, Action::Drop)) => Route::Drop,
            None => match self.departed.lookup(destination) {
                Some((_, Departed { redirect: Some(peer), .. })) => Route::Forward(*peer),
                Some((length, _)) => Route::Departed(covering(destination, length)),
                None if self.in_eid_space(destination) => Route::Miss,
                None => Route::Outside,
            },
        }
    }

    /// Where a packet that came from elsewhere goes: what is or was ours; and a gateway joins the two worlds.
    #[inline]
    pub fn arrival(&self, destination: IpAddr, origin: Origin) -> Route {
        // Agents speak to each other in tunnels only.
        if matches!(origin, Origin::Rloc(_)) && AGENT_PREFIX.contains(destination) {
            return Route::Outside;
        }
        match self.own_arrival(destination) {
            Route::Outside if self.plain.gateway => match (self.route(destination), origin) {
                (passing @ (Route::Forward(_) | Route::Miss), Origin::Rloc(_)) => passing,
                (passing @ (Route::Plain(_) | Route::Miss), Origin::Peer(_)) => passing,
                _ => Route::Outside,
            },
            own => own,
        }
    }

    #[inline]
    fn own_arrival(&self, destination: IpAddr) -> Route {
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

    /// The source check: an EID's packets come from who owns it.
    #[inline]
    pub fn check_source(&self, source: IpAddr, destination: IpAddr, origin: Origin, now: Time) -> Source {
        match origin {
            Origin::Host => Source::Ok,
            Origin::Peer(peer) => self.check_peer_source(source, destination, peer, now),
            Origin::Rloc(rloc) => self.check_plain_source(source, rloc),
        }
    }

    /// Nothing proves where a plain packet comes from. So a tunnel key excludes it, even while it is only looked for,
    /// and the mapping or the operator has to say that the EID is behind this RLOC.
    fn check_plain_source(&self, source: IpAddr, rloc: IpAddr) -> Source {
        if AGENT_PREFIX.contains(source) {
            return Source::Tunnelled;
        }
        let said = self.plain.expects(source, rloc);
        match self.mappings.lookup(source).map(|(_, mapping)| &mapping.action) {
            Some(Action::Forward(_)) => Source::Tunnelled,
            _ if self.is_own(source) => Source::Tunnelled,
            Some(Action::Plain(locators)) if said || locators.iter().any(|l| l.address.ip() == rloc) => Source::Ok,
            Some(Action::Plain(_)) => Source::Outside,
            Some(Action::Drop) if said => Source::Ok,
            Some(Action::Drop) => Source::Denied,
            None if self.in_eid_space(source) => Source::Unknown,
            None => Source::Outside,
        }
    }

    #[inline]
    fn check_peer_source(&self, source: IpAddr, destination: IpAddr, peer: PeerId, now: Time) -> Source {
        let mapping = self.mappings.lookup(source);
        let verdict = match mapping {
            Some((_, Mapping { action: Action::Forward(owner), .. })) if *owner == peer => return Source::Ok,
            Some((_, Mapping { action: Action::Forward(_) | Action::Plain(_), .. })) => Source::Conflict,
            Some((_, Mapping { action: Action::Drop, .. })) => Source::Denied,
            None if self.is_own(source) => Source::Conflict,
            None if self.in_eid_space(source) => Source::Unknown,
            None => Source::Outside,
        };
        let redirected = self.locals.lookup(destination).and_then(|(_, local)| local.redirect_from);
        if redirected.is_some_and(|(from, until)| from == peer && now < until) { Source::Ok } else { verdict }
    }

    pub fn in_eid_space(&self, address: IpAddr) -> bool {
        AGENT_PREFIX.contains(address) || self.eid_space().any(|prefix| prefix.contains(address))
    }

    /// The overlay's, and what plain sites have beside it.
    pub fn eid_space(&self) -> impl Iterator<Item = &Prefix> {
        self.overlay.iter().chain(self.plain.eids())
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
    const FROM_A: Origin = Origin::Peer(A);
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
        assert_eq!(table.arrival(ip("10.1.2.3"), FROM_A), Route::Local);
        assert_eq!(table.arrival(ip("10.1.5.5"), FROM_A), Route::Outside);
        assert_eq!(table.arrival(ip("10.2.1.1"), FROM_A), Route::Outside);
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
            assert_eq!(table.check_source(ip(from), here, Origin::Peer(peer), NOW), verdict, "{from}");
        }
        let moved = ip("10.3.0.1");
        assert_eq!(table.check_source(ip("10.4.0.1"), moved, Origin::Peer(B), NOW), Source::Ok);
        assert_eq!(table.check_source(ip("10.4.0.1"), moved, Origin::Peer(A), NOW), Source::Unknown);
        assert_eq!(table.check_source(ip("10.4.0.1"), moved, Origin::Peer(B), NOW + REDIRECT_TRUST), Source::Unknown);
    }

    /// Plain sites behind 192.0.2.0/24; one is in the mapping system, one only in the configuration.
    fn with_plain_sites(gateway: bool) -> Forwarding {
        let mut table = table();
        let site = crate::plain::PlainSite { rlocs: vec![prefix("192.0.2.0/24")], eids: vec![prefix("172.16.0.0/16")] };
        table.plain = PlainRules { instance: 7, gateway, sites: vec![site] };
        let locator = Locator { address: "192.0.2.7:4341".parse().unwrap(), priority: 1, weight: 100 };
        table.set_mapping(prefix("10.5.0.0/24"), mapping(1, Action::Plain([locator].into())));
        table
    }

    #[test]
    fn plain_sites_are_routed_by_their_mapping() {
        let table = with_plain_sites(false);
        assert_eq!(table.route(ip("10.5.0.9")), Route::Plain(prefix("10.5.0.0/24")));
        assert_eq!(table.route(ip("172.16.0.9")), Route::Miss);
        let site = Origin::Rloc(ip("192.0.2.7"));
        assert_eq!(table.arrival(ip("10.1.2.3"), site), Route::Local);
        assert_eq!(table.check_source(ip("10.5.0.9"), ip("10.1.2.3"), site, NOW), Source::Ok);
    }

    #[test]
    fn only_a_gateway_passes_packets_on_between_plain_sites_and_tunnels() {
        let (site, agent, other) = (ip("10.5.0.9"), ip("10.2.1.1"), ip("10.4.4.4"));
        for gateway in [false, true] {
            let table = with_plain_sites(gateway);
            let or_outside = |route| if gateway { route } else { Route::Outside };
            let rloc = Origin::Rloc(ip("192.0.2.7"));
            assert_eq!(table.arrival(agent, rloc), or_outside(Route::Forward(A)));
            assert_eq!(table.arrival(other, rloc), or_outside(Route::Miss));
            assert_eq!(table.arrival(site, FROM_A), or_outside(Route::Plain(prefix("10.5.0.0/24"))));
            // Not from tunnel to tunnel, nor from site to site.
            assert_eq!(table.arrival(agent, Origin::Peer(B)), Route::Outside);
            assert_eq!(table.arrival(site, rloc), Route::Outside);
        }
    }

    // Attack: plain packets whose inner source belongs to a tunnel's owner, to the receiver, to an agent, to another
    // site, to nobody or to a denied EID | 8 | each refused by its own verdict; what the operator expects there is looked up first
    #[test]
    fn attack_plain_packets_with_spoofed_inner_sources() {
        let table = with_plain_sites(true);
        let rloc = ip("192.0.2.7");
        for (source, verdict) in [
            ("10.2.0.1", Source::Tunnelled),
            ("10.1.0.9", Source::Tunnelled),
            ("fd53:7461:7970:7574::9", Source::Tunnelled),
            ("10.2.9.1", Source::Denied),
            ("10.4.0.1", Source::Unknown),
            ("172.16.0.1", Source::Unknown),
            ("203.0.113.1", Source::Outside),
        ] {
            assert_eq!(table.check_source(ip(source), ip("10.1.0.1"), Origin::Rloc(rloc), NOW), verdict, "{source}");
        }
        let elsewhere = Origin::Rloc(ip("192.0.2.8"));
        assert_eq!(table.check_source(ip("10.5.0.9"), ip("10.1.0.1"), elsewhere, NOW), Source::Outside);
        assert_eq!(table.check_source(ip("10.5.0.9"), ip("10.1.0.1"), FROM_A, NOW), Source::Conflict);
        assert_eq!(table.arrival(ip("fd53:7461:7970:7574::1"), Origin::Rloc(rloc)), Route::Outside);
    }

    // Attack: plain packets from an EID that the operator expects there, after its owner got a tunnel key | 1 | refused
    #[test]
    fn attack_plain_packets_of_an_eid_that_got_a_tunnel_key() {
        let mut table = with_plain_sites(false);
        let (eid, rloc) = (ip("172.16.0.1"), Origin::Rloc(ip("192.0.2.7")));
        table.set_mapping(prefix("172.16.0.1/32"), mapping(1, Action::Drop));
        assert_eq!(table.check_source(eid, ip("10.1.0.1"), rloc, NOW), Source::Ok);
        table.set_mapping(prefix("172.16.0.1/32"), mapping(2, Action::Forward(A)));
        assert_eq!(table.check_source(eid, ip("10.1.0.1"), rloc, NOW), Source::Tunnelled);
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
        assert_eq!(table.arrival(ip("10.9.0.1"), FROM_A), Route::Departed(eid));
        table.set_mapping(eid, mapping(6, Action::Forward(B)));
        assert_eq!(table.arrival(ip("10.9.0.1"), FROM_A), Route::Forward(B));
    }
}
