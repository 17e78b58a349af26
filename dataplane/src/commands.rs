//! Carrying out the agent's commands.

use serde_json::{Value, json};

use crate::agent_messages::agent_address;
use crate::engine::{Engine, Settings, Watch};
use crate::forwarding::{AGENT_PREFIX, Action, DRAIN_TIME, Departed, LocalEid, Mapping, REDIRECT_TRUST};
use crate::handshake::{Identity, PublicKey, Suite};
use crate::hold::HoldQueue;
use crate::log;
use crate::messages::{Command, Configure, MappingTo, Refused, key_text, parse_request, reply};
use crate::offload::Offloads;
use crate::peer::{Locator, PeerId};
use crate::plain::PlainRules;
use crate::prefix::Prefix;

pub(crate) type Answer = Result<Option<Value>, Refused>;

impl Engine {
    pub(crate) fn handle_request(&mut self, frame: &[u8]) {
        let (id, command) = parse_request(frame);
        let result = command.and_then(|command| self.carry_out(command));
        let connection = self.channel.connection().map(|connection| connection.token);
        self.answer(connection, id, result);
    }

    /// Of a connection that is gone nobody hears it.
    pub(crate) fn answer(&mut self, connection: Option<u64>, id: Option<u64>, result: Answer) {
        if let Err(refused) = &result {
            log::warn("request refused", &[("code", &refused.code), ("reason", &refused.message)]);
        }
        if let Some(asker) = self.channel.connection().filter(|asker| Some(asker.token) == connection) {
            asker.queue(&reply(id.unwrap_or(0), result), false);
        }
    }

    fn carry_out(&mut self, command: Command) -> Answer {
        match command {
            Command::Hello => return Ok(Some(self.hello())),
            Command::Configure(configure) => return self.configure(*configure).map(Some),
            Command::Stats => return Ok(Some(self.stats_reply())),
            Command::Peers => return Ok(Some(self.peers_reply())),
            Command::Forwarding => return Ok(Some(self.forwarding_reply())),
            Command::Sleep => return Ok(Some(json!({ "sessions": self.fall_asleep() }))),
            Command::Wake => return Ok(Some(json!({ "resumed": self.wake() }))),
            Command::InterfaceWatch { name } => {
                let sync = self.sync;
                self.watched.insert(name, Watch { sync, told: None });
                self.report_interfaces();
                return Ok(None);
            }
            Command::InterfaceUnwatch { name } => {
                self.watched.remove(&name);
                return Ok(None);
            }
            _ if self.config.is_none() => {
                return Err(Refused::new("not-configured", "send \"configure\" first"));
            }
            Command::Correspondents { prefix } => return Ok(Some(self.correspondents_reply(&prefix))),
            Command::WorkloadWatch { prefix, interface } => self.watch_workload(prefix, &interface)?,
            Command::WorkloadUnwatch { prefix, interface } => self.unwatch_workload(&prefix, &interface),
            Command::PeerSend { key, payload } => self.send_agent_message(&key, payload)?,
            Command::SyncBegin => {
                self.sync += 1;
                self.syncing = true;
            }
            Command::SyncEnd => self.sync_end(),
            Command::PeerSet { key, locators } => self.set_peer(key, locators),
            Command::PeerRemove { key } => {
                if let Some(id) = self.tunnel.find(&key) {
                    self.remove_peer(id);
                }
            }
            Command::MappingSet { prefix, generation, to } => self.set_mapping(prefix, generation, to),
            Command::MappingRemove { prefix } => {
                self.table.mappings.remove(&prefix);
            }
            Command::LocalEidSet { prefix, generation, interface, redirect_from } => {
                self.set_local(prefix, generation, interface, redirect_from);
            }
            Command::LocalEidRemove { prefix, generation, redirect_to } => {
                self.remove_local(prefix, generation, redirect_to);
            }
            Command::PolicySet(set) => self.enforce(set.prepare(), self.sync),
            Command::PlainSet(rules) => {
                self.plain_sync = self.sync;
                self.set_plain(rules).map_err(|e| Refused::new("socket", e.to_string()))?;
            }
            Command::Probe { key, token } => self.tunnel.probe(&key, token, self.now),
        }
        Ok(None)
    }

    fn hello(&mut self) -> Value {
        if let Some(connection) = self.channel.connection() {
            connection.greeted = true;
        }
        let refused = self.udp4.iter().chain(&self.udp6).any(|s| !s.gso);
        let offloads = Offloads { udp_gso: self.offloads.udp_gso && !refused, ..self.offloads };
        json!({
            "capability": CAPABILITY,
            "software": concat!("stayput-dataplane/", env!("CARGO_PKG_VERSION")),
            "process": self.process,
            "configured": self.config.is_some(),
            "cipher": match self.suite {
                Suite::AesGcm => "aes-256-gcm",
                Suite::ChaChaPoly => "chacha20-poly1305",
            },
            "offloads": offloads.names(),
            "sandbox": self.sandbox.names(),
            "plain": true,
        })
    }

    fn configure(&mut self, wanted: Configure) -> Result<Value, Refused> {
        if !AGENT_PREFIX.contains(wanted.agent_address) {
            return Err(Refused::new("invalid", format!("field \"agentAddress\" must be in {AGENT_PREFIX}")));
        }
        let identity = Identity::new(wanted.private_key, wanted.preshared_key, wanted.instance)
            .ok_or_else(|| Refused::new("invalid", "field \"privateKey\" is not an X25519 key"))?;
        let settings = Settings { instance: wanted.instance, listen_port: wanted.listen_port, mtu: wanted.mtu };
        if self.config.as_ref().is_none_or(|c| c.listen_port != settings.listen_port)
            && let Err(message) = self.open_sockets(settings.listen_port)
        {
            self.config = None;
            return Err(Refused::new("port-unavailable", message));
        }
        if self.config.as_ref().is_none_or(|c| c.mtu != settings.mtu) {
            self.prepare_tun(settings.mtu).map_err(|e| Refused::new("interface", format!("{}: {e}", self.tun.name)))?;
        }
        self.tunnel.configure(identity, wanted.epoch);
        self.table.agent = Some(wanted.agent_address);
        self.agent_messages.own = self.tunnel.public_key().map(|key| agent_address(&key));
        self.table.overlay = wanted.overlay;
        self.config = Some(settings.clone());
        self.host_dirty = true;
        self.refresh_uplinks();
        self.report_locators(true);
        let public = self.tunnel.public_key().map(|key| key_text(&key));
        Ok(json!({ "publicKey": public, "interface": self.tun.name, "listenPort": settings.listen_port }))
    }

    fn sync_end(&mut self) {
        if !std::mem::take(&mut self.syncing) {
            return;
        }
        let first = !std::mem::replace(&mut self.complete, true);
        self.host_dirty = true;
        let sync = self.sync;
        let old = |(prefix, at): (Prefix, u64)| (at != sync).then_some(prefix);
        let mappings: Vec<_> = self.table.mappings.iter().map(|(p, m)| (p, m.sync)).filter_map(old).collect();
        for prefix in mappings {
            self.table.mappings.remove(&prefix);
        }
        let locals: Vec<_> = self.table.locals.iter().map(|(p, l)| (p, l.sync)).filter_map(old).collect();
        for prefix in locals {
            let generation = self.table.locals.get(&prefix).map_or(0, |l| l.generation);
            self.remove_local(prefix, generation, None);
        }
        let peers: Vec<PeerId> =
            self.tunnel.peers().filter(|(_, p)| p.configured && p.sync != sync).map(|(id, _)| id).collect();
        for id in peers {
            self.remove_peer(id);
        }
        // Peers that only a removed mapping named.
        let nameless: Vec<PeerId> = self
            .tunnel
            .peers()
            .filter(|(id, p)| !p.configured && !self.table.names_peer(*id))
            .map(|(id, _)| id)
            .collect();
        for id in nameless {
            self.remove_peer(id);
        }
        self.watched.retain(|_, watch| watch.sync == sync);
        self.workloads.keep_only(sync);
        let former = self.policy.end_sync(sync);
        self.policy_preparation.free(former);
        if self.plain_sync != sync && self.table.plain.is_enabled() {
            let _ = self.set_plain(PlainRules::default());
        }
        if first {
            self.tunnel.greet(self.now);
        }
    }

    fn set_peer(&mut self, key: PublicKey, mut locators: Vec<Locator>) {
        locators.retain(|locator| {
            let fits = !self.table.in_eid_space(locator.address.ip());
            if !fits {
                log::warn("a locator inside the EID space is not used", &[("peer", &key_text(&key))]);
            }
            fits
        });
        self.tunnel.set_peer(key, locators, self.sync, self.now);
    }

    fn remove_peer(&mut self, id: PeerId) {
        let named = self.table.names_peer(id);
        self.tunnel.remove_peer(id, named);
        self.agent_messages.forget(id);
        self.correspondents.forget(id);
        self.waiting.remove(&id);
        self.unsent.remove(&id);
        for local in self.table.locals.values_mut() {
            local.redirect_from.take_if(|(peer, _)| *peer == id);
        }
        for departed in self.table.departed.values_mut() {
            departed.redirect.take_if(|peer| *peer == id);
        }
    }

    fn set_mapping(&mut self, prefix: Prefix, generation: u64, to: MappingTo) {
        let action = match to {
            MappingTo::Forward(key) => Action::Forward(self.tunnel.intern(key)),
            MappingTo::Plain(mut locators) => {
                locators.retain(|locator| !self.table.in_eid_space(locator.address.ip()));
                Action::Plain(locators.into())
            }
            MappingTo::Drop => Action::Drop,
        };
        if !self.table.set_mapping(prefix, Mapping { generation, action, sync: self.sync }) {
            return;
        }
        for queue in self.holds.release(&prefix) {
            self.release(queue);
        }
        if let Some(departed) = self.table.departed.get_mut(&prefix)
            && departed.redirect.is_some()
        {
            let queue = std::mem::take(&mut departed.held);
            self.release(queue);
        }
    }

    fn set_local(
        &mut self,
        prefix: Prefix,
        generation: u64,
        interface: Option<String>,
        redirect_from: Option<PublicKey>,
    ) {
        let redirect_from = redirect_from.map(|key| (self.tunnel.intern(key), self.now + REDIRECT_TRUST));
        let sync = self.sync;
        let mut held = HoldQueue::default();
        if let Some(departed) = self.table.departed.remove(&prefix) {
            held.append(departed.held);
        }
        for queue in self.holds.release(&prefix) {
            held.append(queue);
        }
        match self.table.locals.get_mut(&prefix) {
            Some(known) if known.generation > generation => {
                known.sync = sync;
                return self.release(held);
            }
            Some(known) => {
                held.append(std::mem::take(&mut known.held));
                if known.interface != interface {
                    known.live = false;
                }
                (known.generation, known.interface, known.sync) = (generation, interface, sync);
                if redirect_from.is_some() {
                    known.redirect_from = redirect_from;
                }
                known.held = held;
            }
            None => {
                let since = self.now;
                let local = LocalEid { generation, interface, live: false, redirect_from, held, since, sync };
                self.table.locals.insert(prefix, local);
            }
        }
        self.host_dirty = true;
        // One that was live before does not come up again, but packets may wait.
        if let Some(local) = self.table.locals.get_mut(&prefix)
            && local.live
        {
            let queue = std::mem::take(&mut local.held);
            self.release(queue);
        }
    }

    fn remove_local(&mut self, prefix: Prefix, generation: u64, redirect_to: Option<PublicKey>) {
        let redirect = redirect_to.map(|key| self.tunnel.intern(key));
        if self.table.locals.get(&prefix).is_some_and(|known| known.generation > generation) {
            return;
        }
        let mut held = HoldQueue::default();
        if let Some(local) = self.table.locals.remove(&prefix) {
            held = local.held;
            self.host_dirty = true;
            if let Some(interface) = local.interface.filter(|_| redirect.is_some()) {
                self.announce_departure(&prefix, &interface);
            }
        } else if self.table.departed.get(&prefix).is_none() && redirect.is_none() {
            return;
        }
        if let Some(known) = self.table.departed.remove(&prefix) {
            held.append(known.held);
        }
        // The new owner may be known already.
        let redirect = redirect.or_else(|| match self.table.mappings.get(&prefix) {
            Some(Mapping { generation: newer, action: Action::Forward(peer), .. }) if *newer >= generation => {
                Some(*peer)
            }
            _ => None,
        });
        let departed = Departed { generation, redirect, until: self.now + DRAIN_TIME, held: HoldQueue::default() };
        self.table.departed.insert(prefix, departed);
        self.holding = true;
        self.release(held);
    }

    fn stats_reply(&mut self) -> Value {
        self.delivery.finish(&mut self.tunnel.stats);
        self.count_refused_system_calls();
        let counters: serde_json::Map<String, Value> =
            self.tunnel.stats.iter().map(|(name, value)| (name.to_string(), value.into())).collect();
        let queues = || self.table.held_queues().chain(self.waiting.values());
        let now = self.now;
        json!({
            "counters": counters,
            "gauges": {
                "peers": self.tunnel.peers().filter(|(_, p)| p.configured).count(),
                "sessions": self.tunnel.peers().filter(|(_, p)| p.is_up(now)).count(),
                "mappings": self.table.mappings.len(),
                "local_eids": self.table.locals.len(),
                "held_packets": self.holds.packets() + queues().map(HoldQueue::len).sum::<usize>(),
                "held_bytes": self.holds.bytes() + queues().map(HoldQueue::bytes).sum::<usize>(),
                "policy_version": self.policy.version(),
                "policy_rules": self.policy.rules(),
                "rss_bytes": self.memory.bytes(),
            },
        })
    }

    fn correspondents_reply(&self, prefix: &Prefix) -> Value {
        let ids = self.correspondents.of(prefix, self.now);
        let peers: Vec<String> =
            ids.into_iter().filter_map(|id| self.tunnel.peer(id)).map(|peer| key_text(&peer.key)).collect();
        json!({ "peers": peers, "rlocs": self.plain_correspondents.of(prefix, self.now) })
    }

    fn forwarding_reply(&self) -> Value {
        let locator = |l: &Locator| json!({ "address": l.address.ip(), "port": l.address.port(), "priority": l.priority, "weight": l.weight });
        let peers = self.tunnel.peers().filter(|(_, peer)| peer.configured).map(|(_, peer)| {
            let locators: Vec<Value> = peer.locators.iter().map(locator).collect();
            json!({ "publicKey": key_text(&peer.key), "locators": locators })
        });
        let mappings = self.table.mappings.iter().filter_map(|(prefix, mapping)| {
            let Action::Forward(peer) = mapping.action else { return None };
            let key = key_text(&self.tunnel.peer(peer)?.key);
            Some(json!({ "prefix": prefix.to_string(), "generation": mapping.generation, "publicKey": key }))
        });
        json!({
            "peers": peers.take(MAX_FORWARDING).collect::<Vec<_>>(),
            "mappings": mappings.take(MAX_FORWARDING).collect::<Vec<_>>(),
        })
    }

    fn peers_reply(&mut self) -> Value {
        let now = self.now;
        let peers: Vec<Value> = self
            .tunnel
            .peers()
            .filter(|(_, peer)| peer.configured)
            .map(|(_, peer)| {
                let endpoint = peer.endpoint.map(|p| p.remote).or(peer.locators.first().map(|l| l.address));
                let up = peer.is_up(now);
                json!({
                    "publicKey": key_text(&peer.key),
                    "endpoint": endpoint.map(|e| json!({ "address": e.ip(), "port": e.port() })),
                    "session": match () {
                        () if up => "up",
                        () if peer.handshake.is_some() => "handshake",
                        () => "none",
                    },
                    "sessionAgeMs": peer.current.as_ref().filter(|_| up).map(|s| s.age(now).as_millis() as u64),
                    "lastReceivedMs": peer.last_received.map(|at| now.since(at).as_millis() as u64),
                    "rttUs": peer.rtt.map(|r| r.as_micros() as u64),
                    "pathMtu": peer.path_mtu.size(),
                    "txBytes": peer.tx_bytes,
                    "rxBytes": peer.rx_bytes,
                })
            })
            .collect();
        json!({ "peers": peers })
    }
}

/// Of each kind in a reply.
const MAX_FORWARDING: usize = 8192;
/// The history is in `proto/capability.ts`.
const CAPABILITY: u64 = 2;
