//! `cargo bench --bench policy`: what judging one packet costs, without the kernel.

use std::net::Ipv4Addr;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use stayput_dataplane::forwarding::Forwarding;
use stayput_dataplane::packet::Inner;
use stayput_dataplane::policy::{Policy, PolicySet, Rule, Side};
use stayput_dataplane::prefix::Prefix;
use stayput_dataplane::time::Time;

fn main() {
    divan::main();
}

#[divan::bench]
fn without_a_policy(bencher: Bencher) {
    judge(bencher, Policy::default(), 1, 1);
}

/// One flow, as in a download.
#[divan::bench(args = [1, 1_000, 4_096], sample_size = 1_000)]
fn the_same_flow(bencher: Bencher, rules: u16) {
    judge(bencher, policy(rules), rules, 1);
}

/// More flows at once than the processor's caches hold, all of them known.
#[divan::bench(args = [1, 1_000, 4_096], sample_size = 1_000)]
fn known_flows(bencher: Bencher, rules: u16) {
    judge(bencher, policy(rules), rules, FLOWS);
}

/// A port scan: the rules are looked at for each packet.
#[divan::bench(args = [1, 1_000, 4_096], sample_size = 1_000)]
fn new_flows(bencher: Bencher, rules: u16) {
    judge(bencher, policy(rules), rules, u32::MAX);
}

/// Compiling one; packets go meanwhile.
#[divan::bench(args = [1, 1_000, 4_096])]
fn preparation(bencher: Bencher, rules: u16) {
    bencher.with_inputs(|| policy_set(rules)).bench_local_values(PolicySet::prepare);
}

/// Putting a compiled one in force, while no packet goes.
#[divan::bench(args = [1, 1_000, 4_096])]
fn change(bencher: Bencher, rules: u16) {
    let mut policy = policy(rules);
    bencher
        .with_inputs(|| policy_set(rules).prepare())
        .bench_local_values(|prepared| policy.enforce(prepared, 0, Time::default()));
}

const FLOWS: u32 = 10_000;

/// TCP packets of 64 octets that the last rule allows.
fn judge(bencher: Bencher, mut policy: Policy, rules: u16, flows: u32) {
    let table = Forwarding::new();
    let mut packet = packet(rules);
    let now = Time::from_nanos(1 << 40);
    let mut number = 0_u32;
    let mut next = move || {
        number = if number + 1 < flows { number + 1 } else { 0 };
        let ports = number.wrapping_mul(0x9e37_79b9) % flows.max(1);
        packet[20..22].copy_from_slice(&(ports as u16).to_be_bytes());
        packet[15] = (ports >> 16) as u8;
        let inner = Inner::parse(black_box(&packet)).expect("a packet");
        black_box(!policy.is_enforced() || policy.allows(Side::Sending, &packet, &inner, &table, now))
    };
    for _ in 0..flows.min(FLOWS) {
        next();
    }
    bencher.counter(ItemsCount::new(1_u32)).bench_local(next);
}

fn policy(rules: u16) -> Policy {
    let mut policy = Policy::default();
    policy.enforce(policy_set(rules).prepare(), 0, Time::default());
    policy
}

/// A rule for each port of a hundred servers; who asks is named by all.
fn policy_set(rules: u16) -> PolicySet {
    let everybody: Prefix = "10.0.0.0/8".parse().expect("a prefix");
    let rule = |number: u16| Rule {
        allow: true,
        source: vec![everybody],
        destination: vec![server(number)],
        protocol: Some(6),
        ports: vec![(number, number)],
    };
    PolicySet { version: 1, default_allow: false, rules: (1..=rules).map(rule).collect() }
}

/// A hundred servers.
fn server(number: u16) -> Prefix {
    Prefix::host(Ipv4Addr::new(10, 77, 0, (number % 100) as u8).into())
}

fn packet(rules: u16) -> [u8; 64] {
    let mut packet = [0; 64];
    (packet[0], packet[3], packet[8], packet[9]) = (0x45, 64, 64, 6);
    packet[12..16].copy_from_slice(&[10, 1, 2, 3]);
    packet[16..20].copy_from_slice(&[10, 77, 0, (rules % 100) as u8]);
    packet[22..24].copy_from_slice(&rules.to_be_bytes());
    (packet[32], packet[33]) = (0x50, 0x10);
    packet
}
