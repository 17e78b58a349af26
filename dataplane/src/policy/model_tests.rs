//! The policy against a plain reading of its rules, with rules, packets and pauses at random.

use std::collections::{HashMap, HashSet};

use super::classify::tests::{ACK, SYN, datagram, ip, segment};
use super::tests::{DB, Host, OTHER, PEER, WEB, address, rule};
use super::*;
use crate::packet::{ICMP, ICMPV6};

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
