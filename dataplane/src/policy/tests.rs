//! The policy against packets as they are on the wire, and against a plain reading of its rules.

use std::collections::{HashMap, HashSet};
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
const PEER: Side = Side::Receiving { from: Origin::Peer(PeerId(1)) };

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

    fn allows(&mut self, side: Side, packet: &[u8]) -> bool {
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

struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % count
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn address(&mut self) -> &'static str {
        self.of(&[WEB, DB, OTHER, "fd77::1", "fd77::2"])
    }

    fn rule(&mut self) -> Rule {
        let prefixes =
            ["10.77.0.0/31", "10.77.0.1/32", "10.77.0.2/32", "0.0.0.0/0", "fd77::1/128", "fd77::/64", "::/0"];
        let list = |random: &mut Random| {
            let count = 1 + random.below(3);
            (0..count).map(|_| random.of(&prefixes).parse().unwrap()).collect()
        };
        let protocol = self.of(&[None, Some(TCP), Some(UDP), Some(ICMP), Some(ICMPV6), Some(47)]);
        let ported = protocol.is_some_and(|p| p == TCP || p == UDP);
        let count = if ported { self.below(3) } else { 0 };
        let port = |random: &mut Random| {
            let first = random.below(5) as u16;
            (first, first + random.below(3) as u16)
        };
        Rule {
            allow: self.below(2) == 0,
            source: list(self),
            destination: list(self),
            protocol,
            ports: (0..count).map(|_| port(self)).collect(),
        }
    }

    fn flow(&mut self) -> Flow {
        let source = address(self.address());
        let same_family = |a: &&str| address(a).is_ipv6() == source.is_ipv6();
        let others: Vec<&str> = [WEB, DB, OTHER, "fd77::1", "fd77::2"].into_iter().filter(same_family).collect();
        let protocol = self.of(&[TCP, UDP, ICMP, 47]);
        let port = |random: &mut Random| if protocol == TCP || protocol == UDP { random.below(6) as u16 } else { 0 };
        Flow {
            source,
            destination: address(self.of(&others)),
            protocol,
            source_port: port(self),
            destination_port: port(self),
        }
    }
}

fn plainly_allowed(rules: &[Rule], default_allow: bool, flow: &Flow) -> bool {
    first_match(rules, flow).map_or(default_allow, |rule| rule.allow)
}

/// A rule denies it, and none that names a port allows the other direction.
fn ports_must_tell(rules: &[Rule], flow: &Flow) -> bool {
    first_match(rules, flow).is_some_and(|rule| !rule.allow)
        && first_match(rules, &flow.reversed()).is_none_or(|rule| rule.ports.is_empty())
}

fn first_match<'a>(rules: &'a [Rule], flow: &Flow) -> Option<&'a Rule> {
    let matches = |rule: &&Rule| {
        rule.source.iter().any(|p| p.contains(flow.source))
            && rule.destination.iter().any(|p| p.contains(flow.destination))
            && rule.protocol.is_none_or(|p| (if p == ICMPV6 { ICMP } else { p }) == flow.protocol)
            && (rule.ports.is_empty()
                || rule.ports.iter().any(|r| r.0 <= flow.destination_port && flow.destination_port <= r.1))
    };
    rules.iter().find(matches)
}

#[test]
fn compiled_rules_agree_with_a_linear_scan() {
    let mut random = Random(3);
    for _ in 0..300 {
        let count = random.below(12);
        let rules: Vec<Rule> = (0..count).map(|_| random.rule()).collect();
        let default_allow = random.below(2) == 0;
        let compiled = Rules::new(default_allow, rules.clone());
        for _ in 0..200 {
            let flow = random.flow();
            assert_eq!(
                compiled.judge(&flow).allow,
                plainly_allowed(&rules, default_allow, &flow),
                "{rules:?} {flow:?}"
            );
            let of_port = |destination_port| Flow { destination_port, ..flow };
            let always = (0..10).all(|port| plainly_allowed(&rules, default_allow, &of_port(port)));
            let surely = compiled.allow_any_port(flow.source, flow.destination, Some(flow.protocol));
            // Rules that together name every port are not seen through.
            assert!(always || !surely, "{rules:?} {flow:?}");
            if rules.iter().all(|rule| rule.ports.is_empty()) {
                assert_eq!(surely, always);
            }
        }
    }
}

/// Packets in both directions over time, with a policy that changes, against a reading of what is promised that has no
/// cache and forgets nothing too early.
#[test]
fn agrees_with_a_plain_model_of_conversations() {
    let mut random = Random(11);
    for _ in 0..60 {
        let mut rules: Vec<Rule> = Vec::new();
        let mut default_allow = false;
        let mut host = Host::new(false, vec![rule(false, "::/0", "::/0", None, &[])]);
        let mut asked: HashMap<Flow, Time> = HashMap::new();
        let mut opened: HashSet<Flow> = HashSet::new();
        for _ in 0..400 {
            if random.below(40) == 0 {
                let count = random.below(8);
                rules = (0..count).map(|_| random.rule()).collect();
                rules.push(rule(false, "10.99.0.0/32", "10.99.0.0/32", None, &[]));
                default_allow = random.below(3) == 0;
                host.set(default_allow, rules.clone());
            }
            host.now = host.now + Duration::from_millis(random.of(&[1, 1, 100, 20_000]));
            let flow = random.flow();
            let side = random.of(&[Side::Sending, PEER]);
            let flags = random.of(&[SYN, SYN | ACK, ACK]);
            let packet = packet_of(&flow, flags);
            let allowed = plainly_allowed(&rules, default_allow, &flow);
            let answer = plainly_allowed(&rules, default_allow, &flow.reversed());
            if allowed && side == Side::Sending && flow.protocol != TCP {
                asked.insert(flow, host.now);
            }
            // All ports of this test are of one class.
            let cannot_tell = ports_must_tell(&rules, &flow);
            if allowed && flow.protocol == TCP && flags == SYN && ports_must_tell(&rules, &flow.reversed()) {
                opened.insert(flow);
            }
            // What was noted within the last second is not noted again, so an answer may be late by that.
            let age = asked.get(&flow.reversed()).map(|at| host.now.since(*at));
            let life = lifetime(flow.protocol);
            if age.is_some_and(|age| age < life && age + NOTE_AGAIN >= life) {
                continue;
            }
            let expected = allowed
                || match flow.protocol {
                    TCP => answer && flags != SYN && (!cannot_tell || opened.contains(&flow.reversed())),
                    // A request.
                    ICMP => false,
                    _ if cannot_tell => false,
                    _ if side == Side::Sending => answer,
                    _ => answer && age.is_some_and(|age| age < life),
                };
            assert_eq!(host.allows(side, &packet), expected, "{rules:?} {flow:?} {side:?} {flags:x}");
        }
    }
}

fn packet_of(flow: &Flow, flags: u8) -> Vec<u8> {
    let (source, destination) = (flow.source.to_string(), flow.destination.to_string());
    let (source, destination) = (source.as_str(), destination.as_str());
    match flow.protocol {
        TCP => segment(source, destination, flow.source_port, flow.destination_port, flags),
        UDP => datagram(source, destination, flow.source_port, flow.destination_port),
        ICMP if flow.source.is_ipv6() => ip(source, destination, ICMPV6, &[128, 0, 0, 0, 0, 0, 0, 0]),
        ICMP => ip(source, destination, ICMP, &[8, 0, 0, 0, 0, 0, 0, 0]),
        other => ip(source, destination, other, &[0; 16]),
    }
}
