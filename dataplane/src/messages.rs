//! The agent's commands, parsed into what they mean, and the replies, as JSON; events are in `event`.

mod event;
mod plain_set;
mod policy_set;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value, json};

use crate::agent_messages::MAX_AGENT_MESSAGE;
use crate::handshake::PublicKey;
use crate::peer::{Locator, OVERHEAD_V6};
use crate::plain::PlainRules;
use crate::policy::PolicySet;
use crate::prefix::Prefix;

pub use event::Event;

#[derive(Debug, PartialEq)]
pub enum Command {
    Hello,
    Configure(Box<Configure>),
    SyncBegin,
    SyncEnd,
    PeerSet { key: PublicKey, locators: Vec<Locator> },
    PeerRemove { key: PublicKey },
    MappingSet { prefix: Prefix, generation: u64, to: MappingTo },
    MappingRemove { prefix: Prefix },
    LocalEidSet { prefix: Prefix, generation: u64, interface: Option<String>, redirect_from: Option<PublicKey> },
    LocalEidRemove { prefix: Prefix, generation: u64, redirect_to: Option<PublicKey> },
    InterfaceWatch { name: String },
    InterfaceUnwatch { name: String },
    Probe { key: PublicKey, token: u64 },
    WorkloadWatch { prefix: Prefix, interface: String },
    WorkloadUnwatch { prefix: Prefix, interface: String },
    PeerSend { key: PublicKey, payload: Box<[u8]> },
    Correspondents { prefix: Prefix },
    PolicySet(Box<PolicySet>),
    PlainSet(PlainRules),
    Stats,
    Peers,
    Forwarding,
    Sleep,
    Wake,
}

#[derive(Debug, PartialEq)]
pub enum MappingTo {
    Forward(PublicKey),
    Plain(Vec<Locator>),
    Drop,
}

#[derive(PartialEq)]
pub struct Configure {
    pub private_key: [u8; 32],
    pub preshared_key: [u8; 32],
    pub epoch: u64,
    pub instance: u32,
    pub agent_address: IpAddr,
    pub listen_port: u16,
    pub mtu: u32,
    pub overlay: Vec<Prefix>,
}

impl std::fmt::Debug for Configure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Configure").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// Why a request is not carried out, as told to the agent.
#[derive(Debug, PartialEq)]
pub struct Refused {
    pub code: &'static str,
    pub message: String,
}

impl Refused {
    pub fn new(code: &'static str, message: impl Into<String>) -> Refused {
        Refused { code, message: message.into() }
    }
}

/// A request: its id, if it has one, and the command or why it is none.
pub fn parse_request(frame: &[u8]) -> (Option<u64>, Result<Command, Refused>) {
    let value: Value = match serde_json::from_slice(frame) {
        Ok(value) => value,
        Err(error) => return (None, Err(Refused::new("invalid", format!("not JSON: {error}")))),
    };
    let Some(object) = value.as_object() else {
        return (None, Err(Refused::new("invalid", "a message is a JSON object")));
    };
    let id = object.get("id").and_then(Value::as_u64);
    let result = match id {
        Some(_) => parse_command(&Fields(object)),
        None => Err(invalid("id", "must be a whole number")),
    };
    (id, result)
}

/// Whether it says that it is of this type; what stands behind is not read.
pub fn is_of_type(frame: &[u8], wanted: &str) -> bool {
    let mut found = None;
    // Ends in an error, as there is more to read.
    let _ = serde_json::Deserializer::from_slice(frame).deserialize_map(TypeVisitor(&mut found));
    found.is_some_and(|found: String| found == wanted)
}

struct TypeVisitor<'a>(&'a mut Option<String>);

impl<'de> Visitor<'de> for TypeVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(name) = fields.next_key::<String>()? {
            if name == "type" {
                *self.0 = Some(fields.next_value()?);
                break;
            }
            fields.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

fn parse_command(fields: &Fields<'_>) -> Result<Command, Refused> {
    Ok(match fields.text("type")? {
        "hello" => {
            fields.number("capability", u64::MAX)?;
            Command::Hello
        }
        "configure" => Command::Configure(Box::new(Configure {
            private_key: fields.key("privateKey")?,
            preshared_key: fields.key("presharedKey")?,
            epoch: fields.number("epoch", u64::MAX)?,
            instance: fields.number("instance", 0xff_ffff)? as u32,
            agent_address: fields.address("agentAddress")?,
            listen_port: fields.number("listenPort", 0xffff)? as u16,
            mtu: match fields.number("mtu", u64::MAX)?.try_into() {
                Ok(mtu) if MTUS.contains(&mtu) => mtu,
                _ => return Err(invalid("mtu", &format!("must be {} to {}", MTUS.start(), MTUS.end()))),
            },
            overlay: fields
                .array("overlay")?
                .iter()
                .map(|v| v.as_str().and_then(|t| t.parse().ok()).ok_or_else(|| invalid("overlay", "must be prefixes")))
                .collect::<Result<_, _>>()?,
        })),
        "sync-begin" => Command::SyncBegin,
        "sync-end" => Command::SyncEnd,
        "peer-set" => Command::PeerSet { key: fields.key("publicKey")?, locators: fields.locators()? },
        "peer-remove" => Command::PeerRemove { key: fields.key("publicKey")? },
        "mapping-set" => Command::MappingSet {
            prefix: fields.prefix("prefix")?,
            generation: fields.number("generation", u64::MAX)?,
            to: match fields.text("action")? {
                "forward" => MappingTo::Forward(fields.key("publicKey")?),
                "plain" => MappingTo::Plain(fields.locators()?),
                "drop" => MappingTo::Drop,
                _ => return Err(invalid("action", "must be \"forward\", \"plain\" or \"drop\"")),
            },
        },
        "mapping-remove" => Command::MappingRemove { prefix: fields.prefix("prefix")? },
        "local-eid-set" => Command::LocalEidSet {
            prefix: fields.prefix("prefix")?,
            generation: fields.number("generation", u64::MAX)?,
            interface: match fields.optional("interface") {
                None => None,
                Some(_) => Some(fields.interface("interface")?),
            },
            redirect_from: fields.optional_key("redirectFrom")?,
        },
        "local-eid-remove" => Command::LocalEidRemove {
            prefix: fields.prefix("prefix")?,
            generation: fields.number("generation", u64::MAX)?,
            redirect_to: fields.optional_key("redirectTo")?,
        },
        "interface-watch" => Command::InterfaceWatch { name: fields.interface("name")? },
        "interface-unwatch" => Command::InterfaceUnwatch { name: fields.interface("name")? },
        "probe" => Command::Probe { key: fields.key("publicKey")?, token: fields.number("token", u64::MAX)? },
        "workload-watch" => {
            Command::WorkloadWatch { prefix: fields.prefix("prefix")?, interface: fields.interface("interface")? }
        }
        "workload-unwatch" => {
            Command::WorkloadUnwatch { prefix: fields.prefix("prefix")?, interface: fields.interface("interface")? }
        }
        "peer-send" => Command::PeerSend { key: fields.key("publicKey")?, payload: fields.agent_message("payload")? },
        "correspondents" => Command::Correspondents { prefix: fields.prefix("prefix")? },
        "policy-set" => Command::PolicySet(Box::new(fields.policy_set()?)),
        "plain-set" => Command::PlainSet(fields.plain_set()?),
        "stats" => Command::Stats,
        "peers" => Command::Peers,
        "forwarding" => Command::Forwarding,
        "sleep" => Command::Sleep,
        "wake" => Command::Wake,
        other => {
            let message = format!("this data plane does not know the command \"{}\"", shortened(other));
            return Err(Refused::new("unknown-command", message));
        }
    })
}

fn parse_locator(value: &Value) -> Result<Locator, Refused> {
    let object = value.as_object().ok_or_else(|| invalid("locators", "must be objects"))?;
    let fields = Fields(object);
    Ok(Locator {
        address: SocketAddr::new(fields.address("address")?, fields.number("port", 0xffff)? as u16),
        priority: fields.number("priority", 255)? as u8,
        weight: fields.number("weight", 100)? as u8,
    })
}

struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn optional(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<&'a str, Refused> {
        self.optional(name).and_then(Value::as_str).ok_or_else(|| invalid(name, "must be text"))
    }

    fn number(&self, name: &str, largest: u64) -> Result<u64, Refused> {
        self.optional(name)
            .and_then(Value::as_u64)
            .filter(|n| *n <= largest)
            .ok_or_else(|| invalid(name, &format!("must be a whole number from 0 to {largest}")))
    }

    fn array(&self, name: &str) -> Result<&'a Vec<Value>, Refused> {
        self.optional(name).and_then(Value::as_array).ok_or_else(|| invalid(name, "must be a list"))
    }

    fn address(&self, name: &str) -> Result<IpAddr, Refused> {
        self.text(name)?.parse().map_err(|_| invalid(name, "must be an IP address"))
    }

    fn prefix(&self, name: &str) -> Result<Prefix, Refused> {
        let why = "must be an IP prefix without host bits";
        self.text(name)?.parse().map_err(|()| invalid(name, why))
    }

    fn key(&self, name: &str) -> Result<[u8; 32], Refused> {
        let decoded = STANDARD.decode(self.text(name)?).ok();
        decoded.and_then(|key| key.try_into().ok()).ok_or_else(|| invalid(name, "must be 32 octets in base64"))
    }

    fn optional_key(&self, name: &str) -> Result<Option<[u8; 32]>, Refused> {
        self.optional(name).map(|_| self.key(name)).transpose()
    }

    fn agent_message(&self, name: &str) -> Result<Box<[u8]>, Refused> {
        let text = self.text(name)?;
        let decoded = (text.len() <= MAX_AGENT_MESSAGE * 2).then(|| STANDARD.decode(text).ok()).flatten();
        let fits = decoded.filter(|octets| (1..=MAX_AGENT_MESSAGE).contains(&octets.len()));
        let why = || invalid(name, &format!("must be 1 to {MAX_AGENT_MESSAGE} octets in base64"));
        fits.map(Vec::into_boxed_slice).ok_or_else(why)
    }

    fn locators(&self) -> Result<Vec<Locator>, Refused> {
        self.array("locators")?.iter().map(parse_locator).collect()
    }

    fn interface(&self, name: &str) -> Result<String, Refused> {
        let text = self.text(name)?;
        let good = !text.is_empty()
            && text.len() < libc::IFNAMSIZ
            && !text.starts_with('.')
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        if good { Ok(text.to_string()) } else { Err(invalid(name, "must be an interface name")) }
    }
}

/// Of the TUN: from what IPv4 demands of everyone to what an IPv6 packet holds beside what the tunnel adds.
pub const MTUS: RangeInclusive<u32> = 576..=u16::MAX as u32 - OVERHEAD_V6 as u32;

fn invalid(field: &str, why: &str) -> Refused {
    Refused::new("invalid", format!("field \"{field}\" {why}"))
}

fn shortened(text: &str) -> &str {
    text.char_indices().nth(40).map_or(text, |(at, _)| &text[..at])
}

pub fn key_text(key: &PublicKey) -> String {
    STANDARD.encode(key)
}

pub fn reply(id: u64, result: Result<Option<Value>, Refused>) -> Value {
    match result {
        Ok(None) => json!({ "type": "reply", "id": id, "ok": true }),
        Ok(Some(result)) => json!({ "type": "reply", "id": id, "ok": true, "result": result }),
        Err(refused) => {
            json!({ "type": "reply", "id": id, "ok": false, "code": refused.code, "message": refused.message })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::host::LocalAddress;
    use crate::interruption::Interruption;
    use crate::neighbour::By;

    const GOLDEN: &str = include_str!("../../test/vectors/dataplane-channel.jsonl");
    const KEY: PublicKey = [4; 32];

    fn golden(side: &str) -> Vec<Value> {
        let lines = GOLDEN.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["side"] == side).map(|line| line["message"].clone()).collect()
    }

    #[test]
    fn every_command_of_the_golden_lines_is_understood() {
        let mut kinds = BTreeSet::new();
        for message in golden("agent") {
            let (id, command) = parse_request(message.to_string().as_bytes());
            assert_eq!(id, message["id"].as_u64());
            assert!(command.is_ok(), "{message}: {command:?}");
            kinds.insert(message["type"].as_str().unwrap().to_string());
        }
        assert_eq!(kinds.len(), 24);
        let (_, set) = parse_request(
            golden("agent").iter().find(|m| m["redirectFrom"].is_string()).unwrap().to_string().as_bytes(),
        );
        let expected = Command::LocalEidSet {
            prefix: "fd77::5/128".parse().unwrap(),
            generation: 4,
            interface: Some("vm-web0".to_string()),
            redirect_from: Some(KEY),
        };
        assert_eq!(set, Ok(expected));
    }

    #[test]
    fn events_and_replies_are_the_golden_lines() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let local = |address: &str, default_route| LocalAddress {
            address: ip(address),
            interface: "eth0".to_string(),
            default_route,
            silent: !default_route,
        };
        let events = [
            Event::Locators(vec![local("198.51.100.1", true), local("2001:db8::1", false)]),
            Event::Interface { name: "vm-web0".to_string(), up: true },
            Event::Miss { eid: ip("10.77.0.9"), source: false },
            Event::Miss { eid: ip("fd77::9"), source: true },
            Event::Conflict { eid: ip("10.77.0.9"), key: KEY },
            Event::UnknownPeer { key: KEY },
            Event::PeerMoved { key: KEY, remote: "203.0.113.5:4341".parse().unwrap() },
            Event::Handovers { micros: vec![1830, 2110] },
            Event::ProbeResult { token: 77, rtt_us: Some(310) },
            Event::ProbeResult { token: 78, rtt_us: None },
            Event::PeerMessage { key: KEY, payload: b"Map-Notify"[..].into() },
            Event::WorkloadSeen { prefix: Prefix::host(ip("10.77.0.9")), interface: "br0".to_string(), by: By::Arp },
            Event::WorkloadSeen { prefix: Prefix::host(ip("fd77::9")), interface: "vm0".to_string(), by: By::Nd },
            Event::WorkloadSeen { prefix: Prefix::host(ip("fd77::9")), interface: "vm0".to_string(), by: By::Packet },
            Event::Resumed { from: Interruption::Suspend, epoch: 1_900_000_000 },
            Event::Resumed { from: Interruption::Snapshot, epoch: 1_900_000_001 },
            Event::Superseded,
        ];
        let lines = golden("dataplane");
        let (replies, told): (Vec<_>, Vec<_>) = lines.into_iter().partition(|m| m["type"] == "reply");
        assert_eq!(events.iter().map(Event::json).collect::<Vec<_>>(), told);
        for golden in replies {
            let id = golden["id"].as_u64().unwrap();
            let result = if golden["ok"] == true {
                Ok(golden.get("result").cloned())
            } else {
                let (_, refused) = parse_request(match id {
                    19 => br#"{"id":19,"type":"frobnicate"}"#,
                    20 => br#"{"id":20,"type":"mapping-remove","prefix":"10.77.0.9/8"}"#,
                    _ => b"",
                });
                Err(match refused {
                    Err(refused) if id != 21 => refused,
                    _ => Refused::new("not-configured", "send \"configure\" first"),
                })
            };
            assert_eq!(reply(id, result), golden);
        }
    }

    #[test]
    fn an_mtu_that_no_packet_of_the_underlay_could_carry_is_refused() {
        let configure = golden("agent").into_iter().find(|m| m["type"] == "configure").unwrap();
        let mtu = |mtu: u64| {
            let mut message = configure.clone();
            message["mtu"] = mtu.into();
            match parse_request(message.to_string().as_bytes()).1 {
                Ok(Command::Configure(configure)) => Ok(configure.mtu),
                Ok(other) => panic!("{other:?}"),
                Err(refused) => Err(refused.message),
            }
        };
        for passes in [576, 1280, 9000, 65_455] {
            assert_eq!(mtu(passes), Ok(passes as u32));
        }
        for refused in [0, 575, 65_456, 65_535, 65_536, 1 << 32 | 1420, u64::MAX] {
            assert_eq!(mtu(refused), Err("field \"mtu\" must be 576 to 65455".to_string()));
        }
    }

    #[test]
    fn the_type_of_a_message_is_known_without_reading_all_of_it() {
        let is_policy = |frame: &str| is_of_type(frame.as_bytes(), "policy-set");
        assert!(is_policy(r#"{"id":1,"type":"policy-set","rules":[{"never":"#));
        assert!(is_policy(r#"{"rules":[{"type":"stats"}],"id":1,"type":"policy-set"}"#));
        for other in
            [r#"{"type":"stats","type":"policy-set"}"#, r#"{"id":1}"#, r#"["policy-set"]"#, r#"{"type":3}"#, ""]
        {
            assert!(!is_policy(other), "{other}");
        }
        for message in golden("agent") {
            assert!(is_of_type(message.to_string().as_bytes(), message["type"].as_str().unwrap()));
        }
    }

    #[test]
    fn broken_requests_name_the_field() {
        let too_long = STANDARD.encode([0; MAX_AGENT_MESSAGE + 1]);
        let too_long =
            format!(r#"{{"id":1,"type":"peer-send","publicKey":"{}","payload":"{too_long}"}}"#, key_text(&KEY));
        for (request, id, field) in [
            (r#"{"type":"stats"}"#, None, "id"),
            (r#"{"id":1}"#, Some(1), "type"),
            (r#"{"id":1,"type":"peer-remove","publicKey":"AAAA"}"#, Some(1), "publicKey"),
            (r#"{"id":1,"type":"interface-watch","name":"../x"}"#, Some(1), "name"),
            (r#"{"id":1,"type":"mapping-set","prefix":"10.0.0.1/32","generation":-1}"#, Some(1), "generation"),
            (r#"{"id":1,"type":"peer-set","publicKey":"","locators":3}"#, Some(1), "publicKey"),
            (
                &format!(r#"{{"id":1,"type":"peer-send","publicKey":"{}","payload":""}}"#, key_text(&KEY)),
                Some(1),
                "payload",
            ),
            (&too_long, Some(1), "payload"),
        ] {
            let (got, result) = parse_request(request.as_bytes());
            let refused = result.unwrap_err();
            assert_eq!((got, refused.code), (id, "invalid"), "{request}");
            assert!(refused.message.contains(&format!("\"{field}\"")), "{request}: {}", refused.message);
        }
        for garbage in [&b"\xff\xfe"[..], b"[]", b"", b"null", b"{\"id\":"] {
            assert!(parse_request(garbage).1.is_err());
        }
    }
}
