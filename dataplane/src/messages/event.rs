//! What the data plane says without being asked, as JSON.

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::key_text;
use crate::handshake::PublicKey;
use crate::host::LocalAddress;
use crate::interruption::Interruption;
use crate::neighbour::By;
use crate::prefix::Prefix;

#[derive(Debug, PartialEq)]
pub enum Event {
    Locators(Vec<LocalAddress>),
    Interface {
        name: String,
        up: bool,
    },
    Miss {
        eid: IpAddr,
        source: bool,
    },
    Conflict {
        eid: IpAddr,
        key: PublicKey,
    },
    UnknownPeer {
        key: PublicKey,
    },
    PeerMoved {
        key: PublicKey,
        remote: SocketAddr,
    },
    Handovers {
        micros: Vec<u64>,
    },
    ProbeResult {
        token: u64,
        rtt_us: Option<u64>,
    },
    PeerMessage {
        key: PublicKey,
        payload: Box<[u8]>,
    },
    WorkloadSeen {
        prefix: Prefix,
        interface: String,
        by: By,
    },
    /// `epoch`: of the handshakes from now on.
    Resumed {
        from: Interruption,
        epoch: u64,
    },
    Superseded,
}

impl Event {
    /// May be lost when the agent does not read; it comes again.
    pub fn is_droppable(&self) -> bool {
        matches!(self, Event::Miss { .. } | Event::Conflict { .. } | Event::PeerMessage { .. })
    }

    pub fn json(&self) -> Value {
        match self {
            Event::Locators(addresses) => {
                let addresses: Vec<Value> = addresses
                    .iter()
                    .map(|a| {
                        json!({
                            "address": a.address,
                            "interface": a.interface,
                            "defaultRoute": a.default_route,
                            "silent": a.silent,
                        })
                    })
                    .collect();
                json!({ "type": "locators", "addresses": addresses })
            }
            Event::Interface { name, up } => json!({ "type": "interface", "name": name, "up": up }),
            Event::Miss { eid, source } => {
                json!({ "type": "miss", "eid": eid, "reason": if *source { "source" } else { "destination" } })
            }
            Event::Conflict { eid, key } => json!({ "type": "conflict", "eid": eid, "publicKey": key_text(key) }),
            Event::UnknownPeer { key } => json!({ "type": "unknown-peer", "publicKey": key_text(key) }),
            Event::PeerMoved { key, remote } => {
                json!({ "type": "peer-moved", "publicKey": key_text(key), "address": remote.ip(), "port": remote.port() })
            }
            Event::Handovers { micros } => json!({ "type": "handovers", "micros": micros }),
            Event::ProbeResult { token, rtt_us } => {
                json!({ "type": "probe-result", "token": token, "rttUs": rtt_us })
            }
            Event::PeerMessage { key, payload } => {
                json!({ "type": "peer-message", "publicKey": key_text(key), "payload": STANDARD.encode(payload) })
            }
            Event::WorkloadSeen { prefix, interface, by } => {
                let by = match by {
                    By::Arp => "arp",
                    By::Nd => "nd",
                    By::Packet => "packet",
                };
                json!({ "type": "workload-seen", "prefix": prefix.to_string(), "interface": interface, "by": by })
            }
            Event::Resumed { from, epoch } => {
                let from = match from {
                    Interruption::Suspend | Interruption::ClockAhead => "suspend",
                    Interruption::Snapshot => "snapshot",
                };
                json!({ "type": "resumed", "from": from, "epoch": epoch })
            }
            Event::Superseded => json!({ "type": "superseded" }),
        }
    }
}
