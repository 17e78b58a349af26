//! Ways around a policy.

use std::time::Duration;

use super::classify::tests::V6Header::{Destination, Fragment, HopByHop, Routing};
use super::classify::tests::{ACK, SYN, datagram, fragment_v4, ip, report, segment, v6_chain};
use super::tests::{DB, Host, OTHER, WEB, address, at, rule, web_to_db};
use crate::packet::{ICMP, TCP, UDP};
use crate::prefix::Prefix;

const FIN: u8 = 1;
const RST: u8 = 4;

/// WEB may open connections to DB's port 443. DB may open none.
fn only_web_opens() -> Host {
    Host::new(false, vec![rule(true, "10.77.0.1/32", "10.77.0.2/32", Some(TCP), &[(443, 443)])])
}

/// Everything is allowed but SSH from fd77::1 to fd77::2, and from WEB to DB.
fn all_but_ssh() -> Host {
    Host::new(true, vec![rule(false, "fd77::1/128 10.77.0.1/32", "fd77::2/128 10.77.0.2/32", Some(TCP), &[(22, 22)])])
}

// Attack: SYNs with FIN, RST, ECN and other flags from the port of a server that may only answer | 6 | denied
#[test]
fn attack_a_connection_opened_from_the_port_of_an_answer() {
    let mut host = only_web_opens();
    for extra in [0, FIN, RST, FIN | RST, 0xc0, 0x28] {
        assert!(!host.takes(&segment(DB, WEB, 443, 22, SYN | extra)), "{extra}");
    }
}

// Attack: SYN+ACKs, ACKs and packets without flags from a port that nobody may connect to | 3 | denied
#[test]
fn attack_segments_of_a_connection_that_could_not_be() {
    let mut host = only_web_opens();
    for flags in [SYN | ACK, ACK, 0] {
        assert!(!host.takes(&segment(DB, WEB, 444, 22, flags)), "{flags}");
    }
}

// Attack: TCP fragments at octets 8 and 16, behind a first one that was allowed, to change its flags | 2 | denied
#[test]
fn attack_a_fragment_over_the_flags_of_an_answer() {
    let mut host = only_web_opens();
    assert!(host.takes(&fragment_v4(&segment(DB, WEB, 443, 22, ACK), 7, 0, true)));
    for offset in [8, 16] {
        assert!(!host.takes(&fragment_v4(&ip(DB, WEB, TCP, &[0; 64]), 7, offset, false)));
    }
    assert!(host.takes(&fragment_v4(&ip(DB, WEB, TCP, &[0; 64]), 7, 24, false)));
}

// Attack: first fragments that are too short for a TCP header, of IPv4 and IPv6 | 40 | denied
#[test]
fn attack_first_fragments_that_end_within_the_header() {
    let mut host = all_but_ssh();
    let web = &segment(WEB, DB, 4000, 80, SYN)[20..];
    for length in 0..20 {
        assert!(!host.sends(&fragment_v4(&ip(WEB, DB, TCP, &web[..length]), 7, 0, true)));
        assert!(!host.sends(&v6_chain(&[Fragment { id: 6, offset: 0, more: true }], TCP, &web[..length])));
    }
}

// Attack: later fragments without a first one, behind a denied one, and with the number of another protocol's | 3 | denied
#[test]
fn attack_later_fragments_of_what_was_not_allowed() {
    let mut host = Host::new(false, web_to_db());
    let later = |id, protocol| fragment_v4(&ip(WEB, DB, protocol, &[0; 64]), id, 64, false);
    assert!(!host.sends(&later(7, UDP)));
    assert!(!host.sends(&fragment_v4(&datagram(WEB, DB, 4000, 54), 8, 0, true)) && !host.sends(&later(8, UDP)));
    assert!(host.sends(&fragment_v4(&datagram(WEB, DB, 4000, 53), 9, 0, true)) && !host.sends(&later(9, TCP)));
    assert!(host.sends(&later(9, UDP)));
}

// Attack: answers nobody asked for: to another port, from another host, after 180 s | 3 | denied
#[test]
fn attack_spoofed_datagrams_from_the_port_of_an_answer() {
    let mut host = Host::new(false, web_to_db());
    assert!(host.sends(&datagram(WEB, DB, 4000, 53)));
    assert!(!host.takes(&datagram(DB, WEB, 53, 4001)) && !host.takes(&datagram(OTHER, WEB, 53, 4000)));
    assert!(host.takes(&datagram(DB, WEB, 53, 4000)));
    host.now = at(1180);
    assert!(!host.takes(&datagram(DB, WEB, 53, 4000)));
}

// Attack: datagrams to another port than that of the answers, within the grace after a move | 1 | denied
#[test]
fn attack_the_grace_after_a_move() {
    let mut host = Host::new(false, web_to_db());
    host.table.locals.get_mut(&Prefix::host(address(WEB))).unwrap().since = at(1000);
    assert!(host.takes(&datagram(DB, WEB, 53, 4000)) && !host.takes(&datagram(DB, WEB, 5353, 22)));
}

// Attack: a ping, and replies to another one, from a host that was pinged just now | 2 | denied
#[test]
fn attack_a_request_in_place_of_a_reply() {
    let mut host = Host::new(false, web_to_db());
    let echo = |from, to, kind, id| ip(from, to, ICMP, &[kind, 0, 0, 0, 0, id, 0, 1]);
    assert!(host.sends(&echo(WEB, DB, 8, 7)) && host.takes(&echo(DB, WEB, 0, 7)));
    assert!(!host.takes(&echo(DB, WEB, 8, 7)) && !host.takes(&echo(DB, WEB, 0, 8)));
}

// Attack: ICMP errors that quote what may not go, what is of others, or nothing that can be read | 7 | denied
#[test]
fn attack_icmp_errors_with_forged_quotes() {
    let mut host = Host::new(false, web_to_db()[..2].to_vec());
    assert!(!host.takes(&report(DB, WEB, &segment(WEB, DB, 4000, 22, SYN))));
    assert!(!host.takes(&report(DB, WEB, &segment(OTHER, DB, 4000, 5432, SYN))));
    assert!(!host.takes(&report(DB, WEB, &segment(DB, WEB, 4000, 5432, SYN))));
    for quote in [&[][..], &[0x45; 8], &[0x65; 60], &[0; 40]] {
        assert!(!host.takes(&report(DB, WEB, quote)));
    }
}

// Attack: ICMP errors about packets to a host of somebody else, as sent and as received | 2 | denied
#[test]
fn attack_icmp_errors_in_place_of_another_host() {
    let mut host = Host::new(false, vec![rule(true, "10.77.0.1/32", "10.77.0.0/16", Some(TCP), &[(5432, 5432)])]);
    assert!(host.takes(&report(DB, WEB, &segment(WEB, OTHER, 4000, 5432, SYN))));
    assert!(!host.takes(&report(DB, WEB, &segment(WEB, "10.77.0.9", 4000, 5432, SYN))));
    assert!(!host.sends(&report(WEB, DB, &segment(DB, "10.77.0.9", 5432, 4000, ACK))));
}

// Attack: SSH behind chains of IPv6 extension headers | 7 | denied as without; other ports go
#[test]
fn attack_ports_behind_extension_headers() {
    let mut host = all_but_ssh();
    let ssh = segment("fd77::1", "fd77::2", 4000, 22, SYN)[40..].to_vec();
    let web = segment("fd77::1", "fd77::2", 4000, 80, SYN)[40..].to_vec();
    let whole = |id| Fragment { id, offset: 0, more: false };
    for chain in [
        vec![],
        vec![HopByHop],
        vec![Destination(0)],
        vec![HopByHop, Destination(3), Destination(0)],
        vec![Routing { left: 0 }],
        vec![whole(1)],
        vec![HopByHop, whole(2), Destination(1)],
    ] {
        assert!(!host.sends(&v6_chain(&chain, TCP, &ssh)), "{chain:?}");
        assert!(host.sends(&v6_chain(&chain, TCP, &web)), "{chain:?}");
    }
}

// Attack: IPv6 headers that are too many, longer than the packet, or fragments of fragments | 4 | denied
#[test]
fn attack_chains_of_headers_that_cannot_be_followed() {
    let mut host = all_but_ssh();
    let web = segment("fd77::1", "fd77::2", 4000, 80, SYN)[40..].to_vec();
    let whole = Fragment { id: 1, offset: 0, more: false };
    for chain in [
        vec![whole, whole],
        vec![Destination(0); 9],
        vec![Destination(200)],
        vec![Fragment { id: 5, offset: 0, more: true }, Destination(200)],
    ] {
        assert!(!host.sends(&v6_chain(&chain, TCP, &web)), "{chain:?}");
    }
}

// Attack: packets that are for another host than they say: source routes of IPv4 and of IPv6 | 3 | denied
#[test]
fn attack_source_routes() {
    let mut host = all_but_ssh();
    for options in [[131, 7, 4, 10, 77, 0, 9, 0], [1, 137, 7, 4, 10, 77, 0, 9]] {
        assert!(!host.sends(&with_options(&options, 80)), "{options:?}");
    }
    let web = segment("fd77::1", "fd77::2", 4000, 80, SYN)[40..].to_vec();
    assert!(!host.sends(&v6_chain(&[Routing { left: 1 }], TCP, &web)));
}

// Attack: SSH behind IPv4 options, and options that are no options | 6 | denied
#[test]
fn attack_ports_behind_ipv4_options() {
    let mut host = all_but_ssh();
    for options in [&[1, 1, 1, 1][..], &[148, 4, 0, 0], &[0, 9, 9, 9], &[7, 7, 4, 0, 0, 0, 0, 1]] {
        assert!(!host.sends(&with_options(options, 22)) && host.sends(&with_options(options, 80)), "{options:?}");
    }
    for options in [&[7, 9, 4, 0][..], &[7, 0, 0, 0]] {
        assert!(!host.sends(&with_options(options, 80)), "{options:?}");
    }
}

// Attack: packets between the address of an agent, which any user of a host can use, and an EID | 2 | denied
#[test]
fn attack_in_the_name_of_an_agent() {
    let agent = "fd53:7461:7970:7574::1";
    let mut host = Host::new(false, vec![]);
    assert!(!host.sends(&datagram(agent, "fd77::2", 4342, 4342)) && !host.takes(&datagram("fd77::2", agent, 4342, 22)));
}

// Attack: SYNs of different ports | 100,000 | bounded memory; a conversation in use goes on
#[test]
fn attack_a_flood_of_flows() {
    let mut host = Host::new(
        false,
        vec![
            rule(true, "10.77.0.1/32", "10.77.0.0/16", Some(UDP), &[]),
            rule(true, "10.77.0.2/32", "10.77.0.1/32", Some(TCP), &[]),
        ],
    );
    let (question, answer) = (datagram(WEB, DB, 4000, 53), datagram(DB, WEB, 53, 4000));
    for n in 0..100_000u32 {
        host.now = at(1000) + Duration::from_micros(u64::from(n) * 50);
        host.takes(&segment(DB, WEB, (n >> 16) as u16, n as u16, SYN));
        assert!(n % 1000 != 0 || host.sends(&question) && host.takes(&answer));
    }
    assert!(host.takes(&answer));
}

/// A SYN from WEB to DB.
fn with_options(options: &[u8], port: u16) -> Vec<u8> {
    let plain = segment(WEB, DB, 4000, port, SYN);
    let mut packet = [&plain[..20], options, &plain[20..]].concat();
    packet[0] = 0x45 + (options.len() / 4) as u8;
    let total = packet.len() as u16;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet
}
