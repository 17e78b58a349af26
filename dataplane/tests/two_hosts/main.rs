//! Two network namespaces, two data planes, real packets: a transfer keeps its checksum while one host changes its
//! address and while the underlay's MTU falls to 1280. Needs root, `ip` and /dev/net/tun; says so when skipped.

#[path = "../../../test/lab/delay-link/src/cable.rs"]
mod cable;
mod lab;
mod offloads;
mod policy;
mod process;
mod sleep;
mod streams;
mod table;
mod threads;
mod workload;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use lab::{Lab, configuration, counters, why_not};

#[test]
fn a_transfer_survives_a_roam_and_a_small_mtu() {
    if let Some(reason) = why_not() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut lab = Lab::new();
    lab.introduce();
    lab.transfer("10.77.0.2", |_| {});
    lab.transfer("fd77::2", |_| {});
    lab.transfer("10.77.0.2", |lab| {
        lab.ip(0, "addr del 192.0.2.1/24 dev eth0");
        lab.ip(0, "addr add 192.0.2.11/24 dev eth0");
    });
    let handovers = lab.hosts[0].agent.event("handovers");
    assert!(handovers["micros"][0].as_u64().is_some_and(|micros| micros < 500_000), "{handovers}");
    assert_eq!(lab.hosts[1].agent.event("peer-moved")["address"], "192.0.2.11");
    lab.count_datagrams_through_a_roam();
    for host in 0..2 {
        lab.ip(host, "link set eth0 mtu 1280");
    }
    lab.transfer("10.77.0.2", |_| {});
    lab.transfer("fd77::2", |_| {});
    lab.echo_datagrams("fd77::1", "fd77::2", 1280 - 48);
    lab.restart(1);
    lab.transfer("10.77.0.2", |_| {});
    let counters = counters(&mut lab.hosts[1]);
    assert_eq!(counters["drop.auth"], 0, "{counters}");
    for host in &mut lab.hosts {
        host.process.terminate();
    }
}

#[test]
fn the_largest_mtu_is_used_to_its_last_octet_and_a_larger_one_refused() {
    if let Some(reason) = why_not() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut lab = Lab::new();
    for host in 0..2 {
        lab.ip(host, "link set eth0 mtu 65535");
        let refused = lab.hosts[host].agent.try_request(configuration(host, 1, 65_535));
        assert_eq!(refused["code"], "invalid", "{refused}");
        lab.hosts[host].agent.request(configuration(host, 1, 65_455));
    }
    lab.introduce();
    for (near, far, headers) in [("10.77.0.1", "10.77.0.2", 28), ("fd77::1", "fd77::2", 48)] {
        lab.transfer(far, |_| {});
        for host in 0..2 {
            lab.wait_for_path_mtu(host, 65_455 + 60);
        }
        lab.echo_datagrams(near, far, 65_455 - headers);
    }
    for host in 0..2 {
        lab.ip(host, "link set eth0 mtu 1500");
    }
    lab.transfer("10.77.0.2", |_| {});
    for host in &mut lab.hosts {
        host.process.terminate();
    }
}

#[test]
fn agents_talk_inside_the_tunnel_and_learn_who_spoke_to_an_eid() {
    if let Some(reason) = why_not() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut lab = Lab::new();
    let keys = [lab.hosts[0].key.clone(), lab.hosts[1].key.clone()];
    let say =
        |payload: &[u8]| json!({ "type": "peer-send", "publicKey": keys[1], "payload": STANDARD.encode(payload) });
    let refused = lab.hosts[0].agent.try_request(say(b"too early"));
    assert_eq!(refused["code"], "unknown-peer", "{refused}");
    lab.introduce();
    // The first waits for the session that it begins.
    lab.hosts[0].agent.request(say(b"first"));
    assert_eq!(lab.hosts[1].agent.event("peer-message")["payload"], STANDARD.encode(b"first"));
    let sent = lab.counter(0, "udp_tx_datagrams");
    assert!(sent < 6, "{sent} datagrams for a handshake and a message: the search for the path MTU sends six");
    // The largest fits a path of 1280 octets.
    for host in 0..2 {
        lab.ip(host, "link set eth0 mtu 1280");
    }
    lab.hosts[0].agent.request(say(&[7; 1200]));
    let heard = lab.hosts[1].agent.event("peer-message");
    assert_eq!(
        (heard["publicKey"].as_str(), heard["payload"].as_str()),
        (Some(&*keys[0]), Some(&*STANDARD.encode([7; 1200])))
    );
    let of = |prefix: &str| json!({ "type": "correspondents", "prefix": prefix });
    assert_eq!(lab.hosts[0].agent.request(of("10.77.0.1/32"))["peers"], json!([]));
    lab.echo_datagrams("10.77.0.1", "10.77.0.2", 100);
    for host in 0..2 {
        let agent = &mut lab.hosts[host].agent;
        let own = format!("10.77.0.{}/32", host + 1);
        assert_eq!(agent.request(of(&own))["peers"], json!([keys[1 - host]]));
        agent.request(json!({ "type": "local-eid-remove", "prefix": own, "generation": 1, "redirectTo": null }));
        assert_eq!(agent.request(of(&own))["peers"], json!([keys[1 - host]]), "of an EID that has just left");
    }
    lab.pretend_to_be_the_agent();
}
