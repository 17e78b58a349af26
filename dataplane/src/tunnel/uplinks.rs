//! The ways out of this host, and which of them are dead although their link is up.
//!
//! An uplink is an interface with a route of the underlay and an own address of the same family. With one of them the
//! kernel's routes decide; with several, each path to a peer names the own address and the interface, since the
//! kernel would send everything by the route of the lowest metric, also with the other uplink's address.
//!
//! An uplink is suspected when a peer was silent through it and answered through another one, and nothing else came
//! in by it meanwhile; or when a peer sends to another one from now on, which may have been the first to notice. Peers are
//! then asked through it; if nothing comes by it then, it is down: its peers are spoken to through another one and the agent
//! registers it as the last resort. While it is down one peer a second is asked through it.
//! It is taken back after answers without a gap for some time, which doubles if it dies again soon.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Output, Tunnel};
use crate::handshake::PublicKey;
use crate::peer::{Path, Peer, PeerId};
use crate::prefix::Prefix;
use crate::stats::Counter;
use crate::time::{Time, millis, seconds};

/// A route of the underlay. Those that the kernel prefers come first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uplink {
    pub link: u32,
    /// Own address to send from.
    pub address: IpAddr,
    pub destination: Prefix,
    pub gateway: Option<IpAddr>,
    /// The interface can carry packets.
    pub up: bool,
    /// Another number after each change that the rest does not show: it began to carry, other own addresses.
    pub version: u64,
}

#[derive(Default)]
pub struct Uplinks {
    routes: Vec<Uplink>,
    states: Vec<State>,
    /// More than one interface leads out.
    several: bool,
}

/// One interface and family.
struct State {
    link: u32,
    v6: bool,
    /// When anything authentic last came in by it.
    heard: Time,
    /// When it was last suspected because a peer left it.
    left: Time,
    suspected: Option<Suspicion>,
    down: Option<Down>,
    /// How long it must answer before it is taken back.
    proof: Duration,
    recovered: Option<Time>,
}

struct Suspicion {
    since: Time,
    /// When those who were asked have had their time to answer.
    until: Time,
    /// By whom it was left; nobody, when it is this host that missed answers.
    left_by: Option<Leaver>,
}

/// That a peer sends by another uplink says little: it is asked by the one before, and others are, several times.
#[derive(Clone, Copy)]
struct Leaver {
    key: PublicKey,
    path: Path,
    asked: usize,
}

struct Down {
    /// Of the answers without a gap.
    proven_since: Option<Time>,
    last_question: Time,
    next_question: Time,
    /// Which peer is asked next.
    turn: usize,
}

impl State {
    fn die(&mut self, now: Time) {
        let relapse = self.recovered.take().is_some_and(|at| now.since(at) < RELAPSE);
        self.proof = if relapse { (self.proof * 2).min(LONGEST_PROOF) } else { PROOF };
        self.down = Some(Down { proven_since: None, last_question: now, next_question: now, turn: 0 });
    }
}

impl Uplinks {
    fn replace(&mut self, routes: Vec<Uplink>) {
        let known =
            |state: &State| routes.iter().any(|r| r.link == state.link && r.address.is_ipv6() == state.v6 && r.up);
        self.states.retain(known);
        for route in &routes {
            let v6 = route.address.is_ipv6();
            if !self.states.iter().any(|s| s.link == route.link && s.v6 == v6) {
                self.states.push(State {
                    link: route.link,
                    v6,
                    heard: Time::default(),
                    left: Time::default(),
                    suspected: None,
                    down: None,
                    proof: PROOF,
                    recovered: None,
                });
            }
        }
        self.several = routes.iter().any(|r| r.link != routes[0].link);
        self.routes = routes;
    }

    /// The ways to an address: those that are not down first, then as the kernel prefers. None without a route.
    pub fn paths_to(&self, remote: SocketAddr) -> Vec<Path> {
        if self.routes.is_empty() {
            return vec![Path::to(remote)];
        }
        let mut found: Vec<&Uplink> = Vec::new();
        for route in self.routes.iter().filter(|r| r.destination.contains(remote.ip())) {
            if found.iter().all(|f| f.link != route.link) {
                found.push(route);
            }
        }
        if let [only] = found[..] {
            return if only.up { vec![Path::to(remote)] } else { Vec::new() };
        }
        found.retain(|route| route.up);
        found.sort_by_key(|route| self.is_down(route.link, route.address));
        found.iter().map(|r| Path { remote, local: Some(r.address), link: r.link }).collect()
    }

    /// What the kernel takes for packets that name no interface, or for those of the path.
    pub fn way(&self, path: &Path) -> Option<&Uplink> {
        let leads = |route: &&Uplink| route.up && route.destination.contains(path.remote.ip());
        self.routes.iter().filter(leads).find(|route| path.link == 0 || path.link == route.link)
    }

    /// A path as packets came by it, without the interface where that does not matter.
    #[inline]
    pub fn arrived(&self, path: Path) -> Path {
        let matters = self.several && self.states.iter().any(|s| s.link == path.link);
        Path { link: if matters { path.link } else { 0 }, ..path }
    }

    /// The path can still be used as it is.
    pub fn has(&self, path: &Path) -> bool {
        path.link != 0
            && path.local.is_some_and(|local| !self.is_down(path.link, local))
            && self.routes.iter().any(|route| {
                route.up
                    && route.link == path.link
                    && Some(route.address) == path.local
                    && route.destination.contains(path.remote.ip())
            })
    }

    #[inline]
    pub fn heard(&mut self, path: &Path, now: Time) {
        if path.link != 0
            && let Some(state) = self.state(path.link, path.remote.is_ipv6())
        {
            state.heard = now;
        }
    }

    pub fn is_down(&self, link: u32, address: IpAddr) -> bool {
        self.states.iter().any(|s| s.link == link && s.v6 == address.is_ipv6() && s.down.is_some())
    }

    pub fn next_timeout(&self) -> Time {
        let suspected = self.states.iter().filter_map(|s| s.suspected.as_ref().map(|suspicion| suspicion.until));
        let down = self.states.iter().filter_map(|s| s.down.as_ref().map(|down| down.next_question));
        suspected.chain(down).min().unwrap_or(Time::NEVER)
    }

    fn state(&mut self, link: u32, v6: bool) -> Option<&mut State> {
        self.states.iter_mut().find(|s| s.link == link && s.v6 == v6)
    }
}

impl Tunnel {
    /// This host's routes, those that the kernel prefers first.
    pub fn set_uplinks(&mut self, routes: Vec<Uplink>) {
        if self.uplinks.routes == routes {
            return;
        }
        self.uplinks.replace(routes);
        for id in self.ids() {
            self.count_paths(id);
        }
    }

    /// The peer was silent on `old` since then and has answered on `new`.
    pub(super) fn suspect_uplink(&mut self, old: &Path, new: &Path, silent_since: Time, now: Time) {
        let v6 = old.remote.is_ipv6();
        if old.link == new.link || old.link == 0 {
            return;
        }
        let Some(state) = self.uplinks.state(old.link, v6) else { return };
        let own = state.suspected.as_ref().is_some_and(|suspicion| suspicion.left_by.is_none());
        if state.down.is_some() || own || state.heard > silent_since {
            return;
        }
        state.suspected = Some(Suspicion { since: silent_since, until: now + SUSPICION, left_by: None });
        for (id, path) in self.witnesses(old.link, v6, 0, now) {
            self.ask_path(id, path, now);
        }
    }

    /// The peer sends to `new` from now on. It has not said why; a host that only answers hears nothing else of it.
    #[cold]
    pub(super) fn peer_left_uplink(&mut self, id: PeerId, old: &Path, new: &Path, now: Time) {
        if old.link == new.link || old.link == 0 {
            return;
        }
        let Some(key) = self.peer(id).map(|peer| peer.key) else { return };
        let Some(state) = self.uplinks.state(old.link, old.remote.is_ipv6()) else { return };
        if state.down.is_some() || state.suspected.is_some() || now < state.left + BETWEEN_LEAVERS {
            return;
        }
        state.left = now;
        self.ask_for_leaver(Leaver { key, path: *old, asked: 0 }, now, now);
    }

    /// `since`: when it left. Without anybody to ask nothing speaks against the uplink.
    fn ask_for_leaver(&mut self, leaver: Leaver, since: Time, now: Time) {
        let (link, v6) = (leaver.path.link, leaver.path.remote.is_ipv6());
        let own = self
            .find(&leaver.key)
            .filter(|id| self.peer(*id).is_some_and(|peer| peer.is_up(now) && peer.may_be_at(leaver.path.remote)));
        let own = own.map(|id| (id, leaver.path));
        let asked: Vec<_> = own.into_iter().chain(self.witnesses(link, v6, leaver.asked * WITNESSES, now)).collect();
        let slowest = asked.iter().filter_map(|(id, _)| Some(self.peer(*id)?.time_to_answer())).max();
        for (id, path) in asked {
            self.ask_path(id, path, now);
        }
        let left_by = Some(Leaver { asked: leaver.asked + 1, ..leaver });
        if let (Some(slowest), Some(state)) = (slowest, self.uplinks.state(link, v6)) {
            state.suspected = Some(Suspicion { since, until: now + SUSPICION.max(slowest), left_by });
        }
    }

    /// Those who are spoken to through the uplink before all others.
    fn witnesses(&self, link: u32, v6: bool, skip: usize, now: Time) -> Vec<(PeerId, Path)> {
        let mut witnesses: Vec<_> = self.peers_on(link, v6, now).skip(skip).take(WITNESSES).collect();
        let elsewhere = |(id, _): &(PeerId, Path)| {
            self.peer(*id).and_then(|peer| peer.endpoint).is_none_or(|endpoint| endpoint.link != link)
        };
        let others = self.reachable_by(link, v6, now).filter(elsewhere).skip(skip);
        witnesses.extend(others.take(WITNESSES - witnesses.len()));
        witnesses
    }

    fn peers_on(&self, link: u32, v6: bool, now: Time) -> impl Iterator<Item = (PeerId, Path)> + '_ {
        self.peers().filter(move |(_, p)| p.is_up(now)).filter_map(move |(id, p)| {
            let on_link = |path: &Path| path.link == link && path.remote.is_ipv6() == v6;
            Some((id, p.endpoint.filter(on_link)?))
        })
    }

    /// Peers with a session, whichever way is in use, and the first way to them through the uplink.
    fn reachable_by(&self, link: u32, v6: bool, now: Time) -> impl Iterator<Item = (PeerId, Path)> + '_ {
        let up = self.peers().filter(move |(_, peer)| peer.is_up(now));
        up.filter_map(move |(id, peer)| Some((id, self.ways_by(link, v6, peer).next()?)))
    }

    /// The ways to a peer through the uplink: to where it is spoken to, then to its locators.
    fn ways_by<'a>(&'a self, link: u32, v6: bool, peer: &'a Peer) -> impl Iterator<Item = Path> + 'a {
        let remotes = peer.endpoint.iter().map(|e| e.remote).chain(peer.locators.iter().map(|l| l.address));
        let of_family = remotes.filter(move |remote| remote.is_ipv6() == v6);
        of_family.filter_map(move |remote| self.uplinks.paths_to(remote).into_iter().find(|p| p.link == link))
    }

    pub(super) fn handle_uplinks_timeout(&mut self, now: Time) {
        let mut died = Vec::new();
        let mut returned = false;
        let mut questions = Vec::new();
        let mut repeated = Vec::new();
        for state in &mut self.uplinks.states {
            let due = state.suspected.take_if(|suspicion| now >= suspicion.until);
            if let Some(suspicion) = due.filter(|suspicion| state.heard <= suspicion.since) {
                match suspicion.left_by.filter(|leaver| leaver.asked < QUESTIONS_OF_LEAVERS) {
                    Some(leaver) => repeated.push((leaver, suspicion.since)),
                    None => {
                        died.push((state.link, state.v6));
                        state.die(now);
                    }
                }
            }
            let Some(down) = state.down.as_mut().filter(|down| now >= down.next_question) else { continue };
            // Timers are late by more than a short round trip, so it is not the age of the answer that counts.
            let answered = state.heard >= down.last_question && down.turn > 0;
            down.proven_since = if answered { down.proven_since.or(Some(now)) } else { None };
            if down.proven_since.is_some_and(|since| now.since(since) >= state.proof) {
                (state.down, state.recovered) = (None, Some(now));
                returned = true;
                continue;
            }
            (down.last_question, down.next_question) = (now, now + QUESTION_STEP);
            down.turn += 1;
            questions.push((state.link, state.v6, down.turn));
        }
        for (link, v6) in &died {
            self.stats.count(Counter::UplinkFailures);
            self.leave_uplink(*link, *v6, now);
        }
        for (leaver, since) in repeated {
            self.ask_for_leaver(leaver, since, now);
        }
        for (link, v6, turn) in questions {
            self.ask_through(link, v6, turn, now);
        }
        if returned || !died.is_empty() {
            self.outputs.push_back(Output::UplinksChanged);
        }
    }

    /// Everybody who is spoken to through it hears of another one.
    fn leave_uplink(&mut self, link: u32, v6: bool, now: Time) {
        let moved: Vec<(PeerId, Path)> = self.peers_on(link, v6, now).collect();
        for (id, old) in moved {
            let Some(path) = self.peer(id).and_then(|peer| {
                self.candidates(peer).into_iter().find(|p| (p.link, p.remote.is_ipv6()) != (link, v6))
            }) else {
                continue;
            };
            self.take_path(id, path, now);
            self.reschedule(id);
            log_left(&old, &path);
        }
    }

    /// Asks a peer through an uplink that is down. Without anybody to ask nothing speaks against it any more.
    fn ask_through(&mut self, link: u32, v6: bool, turn: usize, now: Time) {
        let reachable: Vec<PeerId> = self.reachable_by(link, v6, now).map(|(id, _)| id).collect();
        match reachable.get(turn.checked_rem(reachable.len()).unwrap_or(0)) {
            // Not each of its locators need be reachable by this uplink.
            Some(&id) => {
                let ways = self.peer(id).map_or(Vec::new(), |peer| self.ways_by(link, v6, peer).take(WAYS).collect());
                for path in ways {
                    self.ask_path(id, path, now);
                }
            }
            None => {
                if let Some(state) = self.uplinks.state(link, v6) {
                    state.down = None;
                }
                self.outputs.push_back(Output::UplinksChanged);
            }
        }
    }
}

fn log_left(old: &Path, new: &Path) {
    crate::log::debug("uplink left", &[("from", &format!("{old:?}")), ("to", &format!("{new:?}"))]);
}

/// Longer than the round trip to those who are asked.
const SUSPICION: Duration = millis(150);
const WITNESSES: usize = 4;
const WAYS: usize = 3;
const QUESTIONS_OF_LEAVERS: usize = 3;
/// Whoever goes to and fro makes this host ask no more often than this.
const BETWEEN_LEAVERS: Duration = seconds(1);
const QUESTION_STEP: Duration = seconds(1);
const PROOF: Duration = seconds(5);
const LONGEST_PROOF: Duration = seconds(320);
const RELAPSE: Duration = seconds(60);
