//! The rules, compiled: for each prefix the rules that name it, so that only those that concern a pair are looked at.

use std::net::IpAddr;

use super::classify::{Flow, same_protocol};
use crate::prefix::{Prefix, PrefixTable};

/// What opens a conversation: from one of `source` to one of `destination`.
#[derive(Debug, PartialEq, Clone)]
pub struct Rule {
    pub allow: bool,
    pub source: Vec<Prefix>,
    pub destination: Vec<Prefix>,
    /// ICMP and ICMPv6 are the same. `None`: any.
    pub protocol: Option<u8>,
    /// First and last; empty: any. Only with TCP, UDP and SCTP.
    pub ports: Vec<(u16, u16)>,
}

pub struct Rules {
    default_allow: bool,
    rules: Box<[Compiled]>,
    sources: PrefixTable<Vec<u16>>,
    destinations: PrefixTable<Vec<u16>>,
}

#[derive(Clone, Copy)]
pub struct Judgement {
    pub allow: bool,
    /// Not by the default.
    pub by_rule: bool,
    /// By a rule that names ports.
    pub by_port: bool,
}

struct Compiled {
    allow: bool,
    protocol: Option<u8>,
    ports: Box<[(u16, u16)]>,
}

impl Rules {
    /// At most MAX_RULES.
    pub fn new(default_allow: bool, rules: Vec<Rule>) -> Rules {
        let (mut sources, mut destinations) = (PrefixTable::new(), PrefixTable::new());
        let mut compiled = Vec::with_capacity(rules.len());
        for (number, rule) in rules.into_iter().take(MAX_RULES).enumerate() {
            enter(&mut sources, &rule.source, number as u16);
            enter(&mut destinations, &rule.destination, number as u16);
            compiled.push(Compiled { allow: rule.allow, protocol: rule.protocol, ports: rule.ports.into() });
        }
        Rules { default_allow, rules: compiled.into(), sources, destinations }
    }

    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether its source may open this flow.
    pub fn judge(&self, flow: &Flow) -> Judgement {
        self.concerning(flow.source, flow.destination)
            .find(|rule| rule.is_of(flow.protocol) && rule.has_port(flow.destination_port))
            .map_or(Judgement { allow: self.default_allow, by_rule: false, by_port: false }, |rule| Judgement {
                allow: rule.allow,
                by_rule: true,
                by_port: !rule.ports.is_empty(),
            })
    }

    /// Whether it may whatever its ports are, and its protocol where that is not known.
    pub fn allow_any_port(&self, source: IpAddr, destination: IpAddr, protocol: Option<u8>) -> bool {
        for rule in self.concerning(source, destination) {
            if protocol.is_some_and(|protocol| !rule.is_of(protocol)) {
                continue;
            }
            let surely = rule.ports.is_empty() && (protocol.is_some() || rule.protocol.is_none());
            if surely || !rule.allow {
                return rule.allow;
            }
        }
        self.default_allow
    }

    /// The rules that name both, in their order.
    fn concerning(&self, source: IpAddr, destination: IpAddr) -> impl Iterator<Item = &Compiled> {
        let mut concerned = RuleSet::of(&self.sources, source);
        concerned.keep(&RuleSet::of(&self.destinations, destination));
        concerned.numbers().filter_map(|number| self.rules.get(number))
    }
}

impl Compiled {
    fn is_of(&self, protocol: u8) -> bool {
        self.protocol.is_none_or(|own| same_protocol(own, protocol))
    }

    fn has_port(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }
}

fn enter(table: &mut PrefixTable<Vec<u16>>, prefixes: &[Prefix], number: u16) {
    for prefix in prefixes {
        match table.get_mut(prefix) {
            Some(numbers) => numbers.push(number),
            None => {
                table.insert(*prefix, vec![number]);
            }
        }
    }
}

/// A bit for each rule.
struct RuleSet([u64; MAX_RULES / 64]);

impl RuleSet {
    fn of(table: &PrefixTable<Vec<u16>>, address: IpAddr) -> RuleSet {
        let mut set = RuleSet([0; MAX_RULES / 64]);
        for number in table.covering(address).flatten() {
            set.0[usize::from(*number) / 64] |= 1 << (number % 64);
        }
        set
    }

    fn keep(&mut self, other: &RuleSet) {
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word &= other;
        }
    }

    fn numbers(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().filter(|(_, word)| *word != 0).flat_map(|(at, word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros() as usize;
                rest &= rest.wrapping_sub(1);
                (bit < 64).then_some(at * 64 + bit)
            })
        })
    }
}

pub const MAX_RULES: usize = 4096;
/// Over all rules.
pub const MAX_PREFIXES: usize = 65_536;
/// Of one rule.
pub const MAX_PORTS: usize = 64;
