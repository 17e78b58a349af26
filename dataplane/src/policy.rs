//! Who may open a conversation with whom, and what follows from it for each packet between EIDs.
//!
//! Judged where a packet is sent and again where it arrives, by what the agent of each side was told, so that one side
//! that does not enforce is not enough to get through. A packet goes if the rules allow its direction. Otherwise it may
//! be part of a conversation that the rules allow the other end to open:
//!
//! - TCP: everything but an opening SYN. Nothing is remembered for this, so connections outlive moves and restarts.
//! - Other protocols: at the answering side the rules suffice. At the side that asked, a packet of the asking direction
//!   must have been seen lately. What was seen does not move along with an EID, so for a while after one has come, and
//!   after enforcement began, the rules suffice there as well.
//! - Where a rule denies the packet's direction, and what allows the other one is the default or a rule without ports,
//!   the rules do not tell answers from what the denied end opened. Then the ports do (a service has the lower class of
//!   port), and where they are alike, for TCP, whether the SYN of the other end was seen.
//! - ICMP errors: if the packet they quote belongs to a conversation that is allowed.
//! - Later fragments: if the rules allow them whatever their ports are, or their first fragment was allowed.
//!
//! What cannot be understood is denied. What was found out about a flow is kept until the policy changes; all memory
//! of flows is bounded, and what was used least recently goes first.

#[cfg(test)]
mod attack_tests;
mod classify;
mod flow_cache;
#[cfg(test)]
mod model_tests;
mod rules;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::time::Duration;

use crate::forwarding::{AGENT_PREFIX, Forwarding, Origin, Source};
use crate::packet::{ICMP, Inner, TCP, UDP};
use crate::time::{Time, seconds};
pub use classify::{Flow, Part, Role, classify};
use flow_cache::FlowCache;
use rules::Judgement;
pub use rules::{MAX_PORTS, MAX_PREFIXES, MAX_RULES, Rule, Rules};

/// As the agent gives it. The first rule that matches decides.
#[derive(Debug, PartialEq)]
pub struct PolicySet {
    pub version: u64,
    pub default_allow: bool,
    pub rules: Vec<Rule>,
}

impl PolicySet {
    /// Takes a while for a large one.
    pub fn prepare(self) -> PreparedPolicy {
        let says_something = !self.default_allow || !self.rules.is_empty();
        let rules = says_something.then(|| Rules::new(self.default_allow, self.rules));
        PreparedPolicy { version: self.version, rules }
    }
}

/// Compiled, so that it can be put in force between two packets.
pub struct PreparedPolicy {
    version: u64,
    /// None: everything is allowed.
    rules: Option<Rules>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Sending,
    Receiving { from: Origin },
}

pub struct Policy {
    version: u64,
    enforced: Option<Box<Enforced>>,
    sync: u64,
    flow_sets: usize,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy::remembering(FLOW_SETS)
    }
}

impl Policy {
    /// Four times so many flows, and as many that asked; a power of two.
    pub fn remembering(flow_sets: usize) -> Policy {
        Policy { version: 0, enforced: None, sync: 0, flow_sets }
    }

    /// `sync`: of the agent's full state that this belongs to. What is returned was in force, and takes a while to be
    /// freed.
    pub fn enforce(&mut self, prepared: PreparedPolicy, sync: u64, now: Time) -> Option<Rules> {
        (self.version, self.sync) = (prepared.version, sync);
        match (&mut self.enforced, prepared.rules) {
            (Some(enforced), Some(rules)) => Some(enforced.change(rules)),
            (None, Some(rules)) => {
                self.enforced = Some(Box::new(Enforced::new(rules, self.flow_sets, now)));
                None
            }
            (_, None) => self.enforced.take().map(|enforced| enforced.rules),
        }
    }

    /// A full state without a policy means that there is none. Returns as `enforce`.
    pub fn end_sync(&mut self, sync: u64) -> Option<Rules> {
        if self.sync == sync {
            return None;
        }
        let former = std::mem::replace(self, Policy { sync, ..Policy::remembering(self.flow_sets) });
        former.enforced.map(|enforced| enforced.rules)
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn rules(&self) -> usize {
        self.enforced.as_ref().map_or(0, |enforced| enforced.rules.len())
    }

    #[inline]
    pub fn is_enforced(&self) -> bool {
        self.enforced.is_some()
    }

    /// Whether a packet may go on. A superpacket is judged by its first header, which all its segments share.
    pub fn allows(&mut self, side: Side, packet: &[u8], inner: &Inner, table: &Forwarding, now: Time) -> bool {
        let Some(enforced) = &mut self.enforced else { return true };
        if AGENT_PREFIX.contains(inner.source) && AGENT_PREFIX.contains(inner.destination) {
            return true;
        }
        match classify(packet, inner) {
            Some(Part::Whole { flow, role, fragment }) => {
                let allowed = enforced.allows(&flow, role, side, table, now);
                if allowed && let Some(key) = fragment {
                    enforced.fragments.insert(key, now + REASSEMBLY, now);
                }
                allowed
            }
            Some(Part::LaterFragment { key, protocol }) => {
                enforced.fragments.find(&key, now).is_some_and(|until| now < *until)
                    || enforced.rules.allow_any_port(inner.source, inner.destination, protocol)
            }
            None => false,
        }
    }
}

struct Enforced {
    rules: Rules,
    since: Time,
    verdicts: FlowCache<Verdict>,
    /// When a packet of the asking direction was last sent, within NOTE_AGAIN; of TCP a SYN that has to be known, seen.
    asked: FlowCache<Time>,
    /// Whose first fragment was allowed, and until when.
    fragments: FlowCache<Time>,
}

/// What the rules say of a flow.
#[derive(Clone, Copy)]
struct Verdict {
    allowed: bool,
    /// As part of a conversation that the other end opened.
    answer: Answer,
    /// Its SYN has to be known for the answers to pass.
    note_opening: bool,
    note_again: Time,
    answers_until: Time,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Denied,
    Allowed,
    /// If the other end was seen to open it.
    IfOpened,
}

impl Enforced {
    fn new(rules: Rules, flow_sets: usize, now: Time) -> Enforced {
        Enforced {
            rules,
            since: now,
            verdicts: FlowCache::new(flow_sets),
            asked: FlowCache::new(flow_sets),
            fragments: FlowCache::new(flow_sets.div_ceil(16)),
        }
    }

    /// What was seen stays, as it says nothing of what is allowed.
    fn change(&mut self, rules: Rules) -> Rules {
        self.verdicts.clear();
        self.fragments.clear();
        std::mem::replace(&mut self.rules, rules)
    }

    fn allows(&mut self, flow: &Flow, role: Role, side: Side, table: &Forwarding, now: Time) -> bool {
        let verdict = look_up(&mut self.verdicts, &self.rules, flow, now);
        if verdict.allowed {
            let asks = matches!(role, Role::Opens | Role::Either) && flow.protocol != TCP;
            if asks && side == Side::Sending && now >= verdict.note_again {
                verdict.note_again = now + NOTE_AGAIN;
                self.asked.insert(flow.key(), now, now);
            }
            if role == Role::Opens && verdict.note_opening {
                self.asked.insert(flow.key(), now, now);
            }
            return true;
        }
        match role {
            Role::Opens | Role::Reports(None) => false,
            Role::Continues => match verdict.answer {
                Answer::Denied => false,
                Answer::Allowed => true,
                Answer::IfOpened => self.asked.find(&flow.reversed().key(), now).is_some(),
            },
            Role::Either | Role::Answers if verdict.answer != Answer::Allowed => false,
            Role::Either | Role::Answers if side == Side::Sending || now < verdict.answers_until => true,
            Role::Either | Role::Answers => {
                let asked = self.asked.find(&flow.reversed().key(), now);
                let asked = asked.map(|at| *at + lifetime(flow.protocol));
                let came = table.locals.lookup(flow.destination).map(|(_, local)| local.since + GRACE);
                let until = [asked, came, Some(self.since + GRACE)].into_iter().flatten().max();
                verdict.answers_until = until.unwrap_or_default();
                now < verdict.answers_until
            }
            Role::Reports(Some(about)) => {
                may_report(flow, &about, side, table, now) && {
                    let verdict = look_up(&mut self.verdicts, &self.rules, &about, now);
                    verdict.allowed || verdict.answer != Answer::Denied
                }
            }
        }
    }
}

fn look_up<'a>(verdicts: &'a mut FlowCache<Verdict>, rules: &Rules, flow: &Flow, now: Time) -> &'a mut Verdict {
    verdicts.find_or_insert(flow.key(), now, || {
        let reversed = flow.reversed();
        let (judgement, other) = (rules.judge(flow), rules.judge(&reversed));
        Verdict {
            allowed: judgement.allow,
            answer: answer(flow, judgement, other),
            note_opening: answer(&reversed, other, judgement) == Answer::IfOpened,
            note_again: Time::default(),
            answers_until: Time::default(),
        }
    })
}

/// `other`: of the other direction.
fn answer(flow: &Flow, judgement: Judgement, other: Judgement) -> Answer {
    let denied_by_rule = judgement.by_rule && !judgement.allow;
    match port_class(flow.source_port).cmp(&port_class(flow.destination_port)) {
        _ if !other.allow => Answer::Denied,
        // The type of an ICMP message tells.
        _ if !denied_by_rule || other.by_port || flow.protocol == ICMP => Answer::Allowed,
        Ordering::Less => Answer::Allowed,
        Ordering::Equal if flow.protocol == TCP => Answer::IfOpened,
        Ordering::Equal | Ordering::Greater => Answer::Denied,
    }
}

/// Of system services, of other services, of clients: as Linux hands them out (`ip_local_port_range`).
fn port_class(port: u16) -> u8 {
    match port {
        0..1024 => 0,
        1024..32_768 => 1,
        32_768.. => 2,
    }
}

/// An error is about a packet of the one who gets it, and comes from the host that the packet was for.
fn may_report(flow: &Flow, about: &Flow, side: Side, table: &Forwarding, now: Time) -> bool {
    about.source == flow.destination
        && (about.destination == flow.source
            || match side {
                Side::Sending => table.is_or_was_own(about.destination),
                Side::Receiving { from } => {
                    table.check_source(about.destination, flow.destination, from, now) == Source::Ok
                }
            })
}

fn lifetime(protocol: u8) -> Duration {
    if protocol == UDP { seconds(180) } else { seconds(30) }
}

const NOTE_AGAIN: Duration = seconds(1);
const GRACE: Duration = seconds(60);
/// As long as Linux keeps fragments of IPv4; those of IPv6 for 60 s, but who sends the rest so late lost it anyway.
const REASSEMBLY: Duration = seconds(30);
const FLOW_SETS: usize = 1 << 13;
