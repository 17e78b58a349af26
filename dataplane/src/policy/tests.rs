//! The policy against packets as they are on the wire.

use std::net::IpAddr;

use super::classify::tests::{ACK, SYN, V6Header, datagram, fragment_v4, ip, report, segment, v6_chain};
use super::*;
use crate::forwarding::{Action, LocalEid, Mapping};
use crate::hold::HoldQueue;
use crate::packet::{ICMP, ICMPV6};
use crate::peer::PeerId;
use crate::prefix::Prefix;

pub const WEB: &str = "10.77.0.1";
pub const DB: &str = "10.77.0.2";
pub const OTHER: &str = "10.77.0.3";
pub const PEER: Side = Side::Receiving { from: Origin::Peer(PeerId(1)) };

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn at(second: u64) -> Time {
    Time::from_millis(1_000_000 + second * 1000)
}

pub fn rule(allow: bool, source: &str, destination: &str, protocol: Option<u8>, ports: &[(u16, u16)]) -> Rule {
    let prefixes = |text: &str| text.split(' ').map(|prefix| prefix.parse().unwrap()).collect();
    Rule { allow, source: prefixes(source), destination: prefixes(destination), protocol, ports: ports.to_vec() }
}

/// Of the host of WEB; DB and OTHER are behind peer 1.
pub struct Host {
    pub policy: Policy,
    pub table: Forwarding,
    pub now: Time,
}

impl Host {
    pub fn new(default_allow: bool, rules: Vec<Rule>) -> Host {
        let mut table = Forwarding::new();
        table.overlay = vec!["10.77.0.0/16".parse().unwrap(), "fd77::/32".parse().unwrap()];
        for own in [WEB, "fd77::1"] {
            let (held, redirect_from) = (HoldQueue::default(), None);
            let since = Time::default();
            let local = LocalEid { generation: 1, interface: None, live: true, redirect_from, held, since, sync: 0 };
            table.locals.insert(Prefix::host(address(own)), local);
        }
        for theirs in [DB, OTHER, "fd77::2"] {
            let mapping = Mapping { generation: 1, action: Action::Forward(PeerId(1)), sync: 0 };
            table.set_mapping(Prefix::host(address(theirs)), mapping);
        }
        let mut host = Host { policy: Policy::default(), table, now: at(0) };
        host.set(default_allow, rules);
        host.now = at(1000);
        host
    }

    pub fn set(&mut self, default_allow: bool, rules: Vec<Rule>) {
        self.policy.enforce(PolicySet { version: 1, default_allow, rules }.prepare(), 0, self.now);
    }

    pub fn allows(&mut self, side: Side, packet: &[u8]) -> bool {
        let inner = Inner::parse(packet).unwrap();
        self.policy.allows(side, packet, &inner, &self.table, self.now)
    }

    pub fn sends(&mut self, packet: &[u8]) -> bool {
        self.allows(Side::Sending, packet)
    }

    pub fn takes(&mut self, packet: &[u8]) -> bool {
        self.allows(PEER, packet)
    }
}

pub fn web_to_db() -> Vec<Rule> {
    vec![
        rule(true, "10.77.0.1/32", "10.77.0.2/32", Some(TCP), &[(5432, 5432)]),
        rule(true, "10.77.0.1/32", "10.77.0.2/32", Some(UDP), &[(53, 53)]),
        rule(true, "10.77.0.1/32", "10.77.0.2/32", Some(ICMP), &[]),
    ]
}

#[test]
fn without_a_policy_everything_goes() {
    for rules in [None, Some(vec![])] {
        let mut host = Host::new(true, rules.unwrap_or_default());
        assert!(!host.policy.is_enforced());
        assert!(host.takes(&segment(DB, WEB, 4000, 22, SYN)));
        assert!(host.takes(&ip(DB, WEB, TCP, &[1, 2])));
    }
}

#[test]
fn a_connection_goes_both_ways_and_is_opened_one_way() {
    let mut host = Host::new(false, web_to_db());
    assert!(host.sends(&segment(WEB, DB, 4000, 5432, SYN)));
    assert!(host.takes(&segment(DB, WEB, 5432, 4000, SYN | ACK)));
    assert!(host.takes(&segment(DB, WEB, 5432, 4000, ACK)));
    assert!(host.sends(&segment(WEB, DB, 4000, 5432, ACK)));
    assert!(!host.sends(&segment(WEB, DB, 4000, 22, SYN)));
    assert!(!host.takes(&segment(DB, WEB, 5432, 4000, SYN)));
    assert!(!host.takes(&segment(DB, WEB, 5433, 4000, ACK)));
    assert!(!host.takes(&segment(OTHER, WEB, 5432, 4000, ACK)));
}

/// What EIDs bring along is nothing: a host that knows only the rules takes up the connection.
#[test]
fn a_connection_outlives_the_memory_of_the_host() {
    let mut host = Host::new(false, web_to_db());
    assert!(host.takes(&segment(DB, WEB, 5432, 4000, ACK)));
    assert!(host.sends(&segment(WEB, DB, 4000, 5432, ACK)));
}

#[test]
fn a_connection_is_cut_when_the_rules_go() {
    let mut host = Host::new(false, web_to_db());
    assert!(host.sends(&segment(WEB, DB, 4000, 5432, ACK)) && host.takes(&segment(DB, WEB, 5432, 4000, ACK)));
    host.set(false, vec![]);
    assert!(!host.sends(&segment(WEB, DB, 4000, 5432, ACK)) && !host.takes(&segment(DB, WEB, 5432, 4000, ACK)));
    host.set(true, vec![]);
    assert!(host.sends(&segment(WEB, DB, 4000, 5432, ACK)) && !host.policy.is_enforced());
}

/// The grace after a move is for answers that nobody is known to have asked for, not for rules that are gone.
#[test]
fn what_is_taken_away_or_denied_is_cut_at_once_also_within_the_grace_after_a_move() {
    let mut denied = web_to_db();
    denied.insert(0, rule(false, "10.77.0.1/32", "10.77.0.2/32", None, &[]));
    for rules in [vec![], denied] {
        let mut host = Host::new(false, web_to_db());
        host.table.locals.get_mut(&Prefix::host(address(WEB))).unwrap().since = host.now;
        let (answer, question) = (datagram(DB, WEB, 53, 4000), datagram(WEB, DB, 4001, 53));
        let stream = (segment(DB, WEB, 5432, 4000, ACK), segment(WEB, DB, 4000, 5432, ACK));
        assert!(host.takes(&answer) && host.sends(&question) && host.takes(&stream.0) && host.sends(&stream.1));
        host.set(false, rules);
        assert!(!host.takes(&answer) && !host.sends(&question) && !host.takes(&stream.0) && !host.sends(&stream.1));
        assert!(!host.takes(&datagram(DB, WEB, 53, 4001)), "although it was asked");
    }
}

/// WEB may not open anything any more, and may be spoken to by everybody: by default, or by a rule without ports.
fn web_is_denied() -> [(bool, Vec<Rule>); 2] {
    let deny = rule(false, "10.77.0.1/32", "0.0.0.0/0", None, &[]);
    [(true, vec![deny.clone()]), (false, vec![deny, rule(true, "0.0.0.0/0", "0.0.0.0/0", None, &[])])]
}

#[test]
fn a_deny_cuts_what_is_open_although_the_other_end_may_open() {
    for (default_allow, rules) in web_is_denied() {
        for (own, service) in [(40_000, 22), (2000, 22), (40_000, 8080), (50_000, 40_000), (8080, 9090)] {
            let mut host = Host::new(true, vec![]);
            assert!(host.sends(&segment(WEB, DB, own, service, ACK)) && host.sends(&datagram(WEB, DB, own, service)));
            host.set(default_allow, rules.clone());
            for _ in 0..3 {
                assert!(!host.sends(&segment(WEB, DB, own, service, ACK)), "{own} {service}");
                assert!(!host.sends(&datagram(WEB, DB, own, service)), "{own} {service}");
                host.takes(&segment(DB, WEB, service, own, ACK));
                host.takes(&datagram(DB, WEB, service, own));
            }
        }
    }
}

#[test]
fn a_deny_cuts_at_the_other_end_as_well() {
    let mut host = Host::new(true, vec![]);
    host.set(true, vec![rule(false, "10.77.0.2/32", "0.0.0.0/0", None, &[])]);
    for _ in 0..3 {
        assert!(host.sends(&segment(WEB, DB, 22, 40_000, ACK)) && host.sends(&datagram(WEB, DB, 53, 40_000)));
        assert!(!host.takes(&segment(DB, WEB, 40_000, 22, ACK)) && !host.takes(&datagram(DB, WEB, 40_000, 53)));
    }
}

#[test]
fn who_may_open_nothing_still_answers() {
    for (default_allow, rules) in web_is_denied() {
        let mut host = Host::new(default_allow, rules);
        for (service, theirs) in [(22, 40_000), (22, 2000), (8080, 40_000)] {
            assert!(host.sends(&segment(WEB, DB, service, theirs, ACK)), "without memory: {service} {theirs}");
            assert!(host.takes(&datagram(DB, WEB, theirs, service)) && host.sends(&datagram(WEB, DB, service, theirs)));
        }
        // Which end opened this one the ports do not tell.
        assert!(!host.sends(&segment(WEB, DB, 50_000, 40_000, ACK)));
        assert!(host.takes(&segment(DB, WEB, 40_000, 50_000, SYN)));
        assert!(host.sends(&segment(WEB, DB, 50_000, 40_000, SYN | ACK)));
        assert!(host.sends(&segment(WEB, DB, 50_000, 40_000, ACK)));
        assert!(!host.sends(&segment(WEB, DB, 50_000, 40_001, ACK)));
        assert!(host.takes(&ip(DB, WEB, ICMP, &[8, 0, 0, 0, 0, 7, 0, 1])));
        assert!(host.sends(&ip(WEB, DB, ICMP, &[0, 0, 0, 0, 0, 7, 0, 1])));
        assert!(!host.sends(&ip(WEB, DB, ICMP, &[8, 0, 0, 0, 0, 7, 0, 1])));
    }
}

/// A rule that names the port says which end is the service.
#[test]
fn a_denied_end_answers_on_ports_that_a_rule_names() {
    let rules = vec![
        rule(false, "10.77.0.1/32", "0.0.0.0/0", None, &[]),
        rule(true, "0.0.0.0/0", "10.77.0.1/32", Some(TCP), &[(50_000, 50_000)]),
    ];
    let mut host = Host::new(true, rules);
    assert!(host.sends(&segment(WEB, DB, 50_000, 40_000, ACK)));
    assert!(!host.sends(&segment(WEB, DB, 50_001, 40_000, ACK)));
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = vec![
        rule(false, "10.77.0.3/32", "10.77.0.0/16", None, &[]),
        rule(true, "10.77.0.0/16", "10.77.0.1/32", Some(TCP), &[(80, 80), (8000, 8010)]),
        rule(false, "0.0.0.0/0", "10.77.0.1/32", None, &[]),
    ];
    let mut host = Host::new(true, rules);
    for port in [80, 8000, 8010] {
        assert!(host.takes(&segment(DB, WEB, 4000, port, SYN)));
        assert!(!host.takes(&segment(OTHER, WEB, 4000, port, SYN)));
    }
    for port in [79, 81, 7999, 8011] {
        assert!(!host.takes(&segment(DB, WEB, 4000, port, SYN)));
    }
    assert!(!host.takes(&datagram(DB, WEB, 4000, 80)));
    assert!(host.sends(&datagram(WEB, DB, 4000, 80)));
}

#[test]
fn a_datagram_is_an_answer_only_to_who_asked_lately() {
    let mut host = Host::new(false, web_to_db());
    let (question, answer) = (datagram(WEB, DB, 4000, 53), datagram(DB, WEB, 53, 4000));
    assert!(!host.takes(&answer));
    assert!(host.sends(&question) && host.takes(&answer));
    assert!(!host.takes(&datagram(DB, WEB, 53, 4001)));
    assert!(!host.takes(&datagram(OTHER, WEB, 53, 4000)));
    host.now = at(1000 + 179);
    assert!(host.takes(&answer));
    assert!(host.sends(&question));
    host.now = at(1000 + 179 + 179);
    assert!(host.takes(&answer));
    host.now = at(1000 + 179 + 180);
    assert!(!host.takes(&answer));
}

#[test]
fn the_answering_side_needs_no_memory() {
    let rules = vec![rule(true, "10.77.0.2/32", "10.77.0.1/32", Some(UDP), &[(53, 53)])];
    let mut host = Host::new(false, rules);
    assert!(host.sends(&datagram(WEB, DB, 53, 4000)));
    assert!(!host.sends(&datagram(WEB, DB, 54, 4000)));
}

#[test]
fn for_a_while_after_a_move_the_rules_suffice_for_answers() {
    let mut host = Host::new(false, web_to_db());
    let answer = datagram(DB, WEB, 53, 4000);
    host.table.locals.get_mut(&Prefix::host(address(WEB))).unwrap().since = at(1000);
    assert!(host.takes(&answer) && !host.takes(&datagram(DB, WEB, 54, 4000)));
    host.now = at(1059);
    assert!(host.takes(&answer));
    host.now = at(1060);
    assert!(!host.takes(&answer));
}

#[test]
fn for_a_while_after_enforcement_began_the_rules_suffice_for_answers() {
    let mut host = Host::new(false, web_to_db());
    host.now = at(59);
    assert!(host.takes(&datagram(DB, WEB, 53, 4000)));
    host.set(false, web_to_db());
    host.now = at(60);
    assert!(!host.takes(&datagram(DB, WEB, 53, 4000)));
}

#[test]
fn a_question_stays_known_when_the_policy_changes() {
    let mut host = Host::new(false, web_to_db());
    assert!(host.sends(&datagram(WEB, DB, 4000, 53)));
    host.set(false, web_to_db());
    assert!(host.takes(&datagram(DB, WEB, 53, 4000)));
    host.set(false, vec![]);
    assert!(!host.takes(&datagram(DB, WEB, 53, 4000)));
}

#[test]
fn a_ping_is_answered_and_only_asked_one_way() {
    let v6 = |kind: u8, id: u8| ip("fd77::1", "fd77::2", ICMPV6, &[kind, 0, 0, 0, 0, id, 0, 1]);
    let back = |kind: u8, id: u8| ip("fd77::2", "fd77::1", ICMPV6, &[kind, 0, 0, 0, 0, id, 0, 1]);
    let mut host = Host::new(false, vec![rule(true, "fd77::1/128", "fd77::2/128", Some(ICMP), &[])]);
    assert!(!host.takes(&back(129, 7)));
    assert!(host.sends(&v6(128, 7)) && host.takes(&back(129, 7)));
    assert!(!host.takes(&back(129, 8)));
    host.now = at(1030);
    assert!(!host.takes(&back(129, 7)));
}

#[test]
fn errors_about_what_is_allowed_are_allowed() {
    let mut host = Host::new(false, web_to_db()[..2].to_vec());
    let sent = segment(WEB, DB, 4000, 5432, SYN);
    assert!(host.takes(&report(DB, WEB, &sent)));
    // Cut as early as RFC 792 says.
    assert!(host.takes(&report(DB, WEB, &sent[..28])));
    assert!(!host.takes(&report(DB, WEB, &sent[..27])));
    // Of the host before DB, which peer 1 is as well.
    assert!(host.takes(&report(OTHER, WEB, &sent)));
    assert!(host.sends(&report(WEB, DB, &segment(DB, WEB, 5432, 4000, ACK))));
    assert!(host.sends(&report(WEB, DB, &datagram(DB, WEB, 53, 4000))));
}

#[test]
fn later_fragments_follow_their_first() {
    let mut host = Host::new(false, web_to_db());
    let whole = datagram(WEB, DB, 4000, 53);
    let later = |id, offset, more| fragment_v4(&ip(WEB, DB, UDP, &[0; 64]), id, offset, more);
    assert!(!host.sends(&later(7, 64, false)));
    assert!(host.sends(&fragment_v4(&whole, 7, 0, true)));
    assert!(host.sends(&later(7, 64, true)) && host.sends(&later(7, 128, false)));
    assert!(!host.sends(&later(8, 64, false)) && !host.sends(&fragment_v4(&ip(WEB, DB, TCP, &[0; 64]), 7, 64, false)));
    host.now = at(1030);
    assert!(!host.sends(&later(7, 64, false)));
}

#[test]
fn fragments_in_ipv6_follow_their_first() {
    let rules = vec![rule(true, "fd77::1/128", "fd77::2/128", Some(UDP), &[(53, 53)])];
    let mut host = Host::new(false, rules);
    let (good, bad) = ([0x0f, 0xa0, 0, 53, 0, 16, 0, 0, 1, 2, 3, 4], [0x0f, 0xa0, 0, 54, 0, 16, 0, 0, 1, 2, 3, 4]);
    let part = |id, offset, more, data: &[u8]| v6_chain(&[V6Header::Fragment { id, offset, more }], UDP, data);
    assert!(!host.sends(&part(1, 64, false, &good)));
    assert!(host.sends(&part(1, 0, true, &good)) && host.sends(&part(1, 64, false, &bad)));
    assert!(!host.sends(&part(2, 0, true, &bad)) && !host.sends(&part(2, 64, false, &good)));
    // A whole datagram in one fragment.
    assert!(host.sends(&part(3, 0, false, &good)) && !host.sends(&part(3, 64, false, &good)));
    let behind_options = [V6Header::Fragment { id: 4, offset: 0, more: true }, V6Header::Destination(1)];
    assert!(host.sends(&v6_chain(&behind_options, UDP, &good)));
    assert!(host.sends(&v6_chain(&[V6Header::Fragment { id: 4, offset: 64, more: false }], 60, &[0; 32])));
}

#[test]
fn later_fragments_need_no_first_where_ports_do_not_matter() {
    let all = |allow| rule(allow, "10.77.0.1/32", "10.77.0.2/32", Some(UDP), &[]);
    let port = |allow| rule(allow, "10.77.0.1/32", "10.77.0.2/32", Some(UDP), &[(53, 53)]);
    let later = fragment_v4(&ip(WEB, DB, UDP, &[0; 64]), 7, 64, false);
    for (rules, default_allow, expected) in [
        (vec![all(true)], false, true),
        (vec![port(true), all(true)], false, true),
        (vec![port(false), all(true)], false, false),
        (vec![port(true), all(false)], true, false),
        (vec![port(true)], false, false),
        (vec![port(false)], true, false),
        (vec![port(true)], true, true),
    ] {
        assert_eq!(Host::new(default_allow, rules).sends(&later), expected);
    }
}

#[test]
fn agents_may_speak_to_one_another() {
    let (one, other) = ("fd53:7461:7970:7574::1", "fd53:7461:7970:7574::2");
    let mut host = Host::new(false, vec![]);
    assert!(host.sends(&datagram(one, other, 4342, 4342)));
}

#[test]
fn a_full_state_without_a_policy_ends_it() {
    let mut host = Host::new(false, vec![]);
    host.policy.end_sync(0);
    assert!(host.policy.is_enforced());
    host.policy.end_sync(1);
    assert!(!host.policy.is_enforced() && host.policy.version() == 0);
}
