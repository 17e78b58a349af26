//! A large policy comes into force without a stop of the packets, and in its order among what else the agent says.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::lab::{Lab, in_namespace, wait_for, why_not};

#[test]
fn packets_go_on_under_the_policy_before_while_a_large_one_is_prepared() {
    if let Some(reason) = why_not() {
        eprintln!("skipped: {reason}");
        return;
    }
    // With a second thread, packets that it has are counted when more have come.
    let mut lab = Lab::with(&["--threads", "1"]);
    lab.introduce();
    lab.hosts[1].agent.request(policy(1, "deny", vec![rule("allow", vec![SENDER.to_string()])]));
    let stop = Arc::new(AtomicBool::new(false));
    let sender = in_namespace(&lab.hosts[0].namespace, || UdpSocket::bind((SENDER, 0)).expect("bind"));
    let _receiver = in_namespace(&lab.hosts[1].namespace, || UdpSocket::bind(("10.77.0.2", 9)).expect("bind"));
    let sending = thread::spawn({
        let stop = stop.clone();
        move || {
            while !stop.load(Ordering::Relaxed) {
                // Refused when a queue is full; there are more to come.
                let _ = sender.send_to(&[7; 100], ("10.77.0.2", 9));
                thread::sleep(Duration::from_micros(100));
            }
        }
    });
    // As many as it takes to have seen packets meanwhile, however slow or fast this machine is.
    let (mut delivered, mut version) = (0, 1);
    while delivered < 50 {
        version += 1;
        assert!(version < 200, "in all these policies {delivered} packets");
        let agent = &mut lab.hosts[1].agent;
        let large = agent.ask(policy(version, "deny", vec![rule("allow", many(SENDER))]));
        let mut counts = Vec::new();
        while !agent.has_reply_to(large) {
            let stats = agent.request(json!({ "type": "stats" }));
            if stats["gauges"]["policy_version"] != version {
                counts.push(stats["counters"]["tun_tx_packets"].as_u64().expect("a counter"));
            }
        }
        assert_eq!(agent.reply_to(large)["ok"], true);
        delivered += counts.last().unwrap_or(&0) - counts.first().unwrap_or(&0);
    }
    // And what it forbids stops with it.
    let forbidding = policy(version + 1, "deny", vec![rule("allow", many("10.77.0.3"))]);
    lab.hosts[1].agent.request(forbidding);
    let before = lab.counter(1, "tun_tx_packets");
    let denied = lab.counter(1, "drop.policy_in");
    wait_for("a packet to be refused", || lab.counter(1, "drop.policy_in") != denied);
    assert_eq!(lab.counter(1, "tun_tx_packets"), before);
    stop.store(true, Ordering::Relaxed);
    sending.join().expect("the sender");
}

#[test]
fn the_policy_that_was_given_last_stays_in_force() {
    if let Some(reason) = why_not() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut lab = Lab::new();
    lab.introduce();
    let agent = &mut lab.hosts[0].agent;
    let large = |version| policy(version, "deny", vec![rule("allow", many(SENDER))]);
    let broken = policy(4, "deny", vec![rule("perhaps", many(SENDER))]);
    let ids: Vec<u64> =
        [large(2), large(3), broken, policy(5, "allow", vec![])].into_iter().map(|set| agent.ask(set)).collect();
    let replies: Vec<Value> = ids.into_iter().map(|id| agent.reply_to(id)["ok"].clone()).collect();
    assert_eq!(replies, [true, true, false, true]);
    assert_eq!((lab.gauge(0, "policy_version"), lab.gauge(0, "policy_rules")), (5, 0));
}

#[test]
fn nothing_of_a_full_state_is_taken_before_its_policy_holds() {
    if let Some(reason) = why_not() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut lab = Lab::new();
    let agent = &mut lab.hosts[0].agent;
    agent.request(json!({ "type": "sync-begin" }));
    let large = agent.ask(policy(2, "deny", vec![rule("allow", many(SENDER))]));
    let mapping =
        agent.ask(json!({ "type": "mapping-set", "prefix": "10.77.0.9/32", "generation": 1, "action": "drop" }));
    let stats = agent.ask(json!({ "type": "stats" }));
    let end = agent.ask(json!({ "type": "sync-end" }));
    agent.reply_to(mapping);
    assert!(agent.has_reply_to(large));
    assert_eq!(agent.reply_to(stats)["result"]["gauges"]["policy_version"], 2);
    assert_eq!(agent.reply_to(end)["ok"], true);
    assert_eq!((lab.gauge(0, "policy_version"), lab.gauge(0, "mappings")), (2, 1));
}

fn policy(version: u64, default: &str, rules: Vec<Value>) -> Value {
    json!({ "type": "policy-set", "version": version, "default": default, "rules": rules })
}

fn rule(action: &str, source: Vec<String>) -> Value {
    json!({ "action": action, "source": source, "destination": ["10.77.0.0/16"], "protocol": null, "ports": [] })
}

/// As many as a policy may have, with its destination.
fn many(first: &str) -> Vec<String> {
    let others = (0..65_000u32).map(|n| format!("10.{}.{}.{}", 128 + (n >> 16), n >> 8 & 255, n & 255));
    std::iter::once(first.to_string()).chain(others).collect()
}

const SENDER: &str = "10.77.0.1";
