//! What the kernel says by netlink, and what workloads say on their interfaces.

use std::net::{IpAddr, Ipv4Addr};

use super::Input;
use crate::neighbour::{Sign, arp_request, group_mac, proxy_advertisement, sign_of_life, solicitation};
use crate::netlink::{Change, changes_in};
use crate::packet_filter::{ARP, IPV4, IPV6, RARP};
use crate::prefix::{Prefix, PrefixTable};

/// One datagram of a netlink socket; what it says can be looked up.
pub fn netlink(data: &[u8]) {
    let mut table = PrefixTable::new();
    for change in changes_in(data) {
        match change {
            Change::Link(link) | Change::LinkGone(link) => assert!(link.name.len() <= 3 * data.len()),
            Change::Address(address) | Change::AddressGone(address) => {
                let prefix = Prefix { address: address.address, length: address.prefix_length };
                let _ = prefix.contains(address.address);
            }
            Change::Route(route) | Change::RouteGone(route) => {
                let _ = route.destination.contains(route.gateway.unwrap_or(route.destination.address));
                table.insert(route.destination, route.link);
                let _ = table.lookup(route.destination.address);
            }
        }
    }
}

/// An Ethertype and a packet, which may be cut off.
pub fn neighbour(data: &[u8]) {
    let mut input = Input(data);
    let protocol = match input.below(5) {
        0 => ARP,
        1 => RARP,
        2 => IPV4,
        3 => IPV6,
        _ => input.u16(),
    };
    let packet = input.0;
    let sign = sign_of_life(protocol, packet);
    assert_eq!(sign == Some(Sign::Newcomer), protocol == RARP);
    let _ = group_mac(packet);
    if let Some((asker, target)) = solicitation(packet) {
        assert!(!asker.is_unspecified());
        let answer = proxy_advertisement([2; 6], target, asker, target);
        assert_eq!(sign_of_life(IPV6, &answer), None, "nobody takes an answer by proxy for the workload");
    }
    if let Some(Sign::Of(IpAddr::V4(eid), _)) = sign
        && protocol == ARP
        && !eid.is_unspecified()
    {
        let again = arp_request([2; 6], eid, Ipv4Addr::LOCALHOST);
        assert_eq!(sign_of_life(ARP, &again), sign);
    }
}
