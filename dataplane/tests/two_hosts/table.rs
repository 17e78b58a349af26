//! A table of a large overlay: it must fit, and packets must still find their way through it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::lab::{Lab, why_not};

const PEERS: u32 = 1_000;
const MAPPINGS: u32 = 100_000;
const LIMIT: u64 = 40_000_000;

#[test]
fn a_hundred_thousand_mappings_to_a_thousand_peers_fit_into_40_megabytes() {
    if let Some(reason) = why_not() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut lab = Lab::new();
    lab.introduce();
    let agent = &mut lab.hosts[0].agent;
    for peer in 0..PEERS {
        let [_, b, c, d] = peer.to_be_bytes();
        let locator = json!({ "address": format!("198.51.{c}.{d}"), "port": 4341, "priority": 1, "weight": 100 });
        agent.request(json!({ "type": "peer-set", "publicKey": key(b, c, d), "locators": [locator] }));
    }
    for mapping in 0..MAPPINGS {
        let [_, b, c, d] = mapping.to_be_bytes();
        let [_, p, q, r] = (mapping % PEERS).to_be_bytes();
        agent.request(json!({
            "type": "mapping-set", "prefix": format!("10.{}.{c}.{d}/32", 128 + b), "generation": 1,
            "action": "forward", "publicKey": key(p, q, r),
        }));
    }
    let (mappings, peers) = (lab.gauge(0, "mappings"), lab.gauge(0, "peers"));
    assert!(mappings >= u64::from(MAPPINGS), "{mappings}");
    assert!(peers > u64::from(PEERS), "{peers}");
    lab.echo_datagrams("10.77.0.1", "10.77.0.2", 500);
    lab.echo_datagrams("fd77::1", "fd77::2", 500);
    let resident = lab.gauge(0, "rss_bytes");
    eprintln!("resident with {MAPPINGS} mappings and {PEERS} peers: {resident}");
    assert!(resident <= LIMIT, "{resident} octets");
}

fn key(b: u8, c: u8, d: u8) -> Value {
    let mut key = [0x55; 32];
    key[..3].copy_from_slice(&[b, c, d]);
    STANDARD.encode(key).into()
}
