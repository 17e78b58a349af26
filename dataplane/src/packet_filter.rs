//! The filter of a packet socket (classic BPF) that lets through what a workload shows itself by, and nothing else: a
//! busy interface costs nothing in this process.
//!
//! A program sees the packet from its network header on. Jumps are short, so each test has its own `return`.

use std::net::IpAddr;

use libc::sock_filter as Instruction;

use crate::prefix::Prefix;

/// For frames that arrive: RARP, ARP from an EID in `prefixes` or from nobody (a probe), neighbour solicitations and
/// advertisements, and IP packets whose source is in `prefixes`.
pub fn signs_of_life<'a>(prefixes: impl Iterator<Item = &'a Prefix> + Clone) -> Vec<Instruction> {
    let v4 = |at| prefixes.clone().filter_map(move |p| match_v4(p, at)).flatten();
    let v6 = prefixes.clone().filter_map(match_v6).flatten();
    let mut program = vec![load(W, ancillary(libc::SKF_AD_PKTTYPE)), jump_if(PACKET_OUTGOING, 0, 1), REJECT];
    program.push(load(W, ancillary(libc::SKF_AD_PROTOCOL)));
    let mut section = |protocol: u32, body: Vec<Instruction>| {
        program.push(jump_if(protocol, 1, 0));
        program.push(statement(libc::BPF_JMP | JA, body.len() as u32 + 1));
        program.extend(body);
        program.push(REJECT);
    };
    section(RARP.into(), vec![ACCEPT]);
    let senders = [load(W, 14), jump_if(0, 0, 1), ACCEPT].into_iter().chain(v4(14));
    section(ARP.into(), senders.collect());
    section(IPV4.into(), [load(W, 12)].into_iter().chain(v4(12)).collect());
    let neighbours =
        [load(B, 6), jump_if(58, 0, 5), load(B, 40), jump_if(135, 0, 1), ACCEPT, jump_if(136, 0, 1), ACCEPT];
    section(IPV6.into(), neighbours.into_iter().chain(v6).collect());
    program.push(REJECT);
    program
}

/// For neighbour solicitations that arrive.
pub fn solicitations() -> Vec<Instruction> {
    vec![
        load(W, ancillary(libc::SKF_AD_PKTTYPE)),
        jump_if(PACKET_OUTGOING, 0, 1),
        REJECT,
        load(W, ancillary(libc::SKF_AD_PROTOCOL)),
        jump_if(IPV6.into(), 1, 0),
        REJECT,
        load(B, 6),
        jump_if(58, 1, 0),
        REJECT,
        load(B, 40),
        jump_if(135, 1, 0),
        REJECT,
        ACCEPT,
    ]
}

/// With the address in the accumulator, which stays there.
fn match_v4(prefix: &Prefix, at: u32) -> Option<Vec<Instruction>> {
    let IpAddr::V4(address) = prefix.address else { return None };
    let network = u32::from(address);
    Some(match prefix.length {
        32 => vec![jump_if(network, 0, 1), ACCEPT],
        length => vec![and(mask(length.into())), jump_if(network, 0, 1), ACCEPT, load(W, at)],
    })
}

fn match_v6(prefix: &Prefix) -> Option<Vec<Instruction>> {
    let IpAddr::V6(address) = prefix.address else { return None };
    let bits = u128::from(address);
    let words = usize::from(prefix.length).div_ceil(32);
    let mut body = Vec::new();
    for word in 0..words {
        body.push(load(W, 8 + 4 * word as u32));
        let length = usize::from(prefix.length) - 32 * word;
        if length < 32 {
            body.push(and(mask(length as u32)));
        }
        // Three are left for each word but the last, which may have a mask more.
        body.push(jump_if((bits >> (96 - 32 * word)) as u32, 0, 0));
    }
    let end = body.len() as u8;
    for (at, instruction) in body.iter_mut().enumerate() {
        if u32::from(instruction.code) == libc::BPF_JMP | libc::BPF_JEQ {
            instruction.jf = end - at as u8;
        }
    }
    body.push(ACCEPT);
    Some(body)
}

fn mask(length: u32) -> u32 {
    u32::MAX.checked_shl(32 - length).unwrap_or(0)
}

fn ancillary(offset: i32) -> u32 {
    (libc::SKF_AD_OFF + offset) as u32
}

const fn statement(code: u32, k: u32) -> Instruction {
    Instruction { code: code as u16, jt: 0, jf: 0, k }
}

fn load(size: u32, at: u32) -> Instruction {
    statement(libc::BPF_LD | libc::BPF_ABS | size, at)
}

fn and(k: u32) -> Instruction {
    statement(libc::BPF_ALU | libc::BPF_AND, k)
}

fn jump_if(equal: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code: (libc::BPF_JMP | libc::BPF_JEQ) as u16, jt, jf, k: equal }
}

pub const IPV4: u16 = libc::ETH_P_IP as u16;
pub const IPV6: u16 = libc::ETH_P_IPV6 as u16;
pub const ARP: u16 = libc::ETH_P_ARP as u16;
pub const RARP: u16 = libc::ETH_P_RARP as u16;
/// Octets of a packet that are handed over.
pub const SNAPSHOT: usize = 128;
const ACCEPT: Instruction = statement(libc::BPF_RET, SNAPSHOT as u32);
const REJECT: Instruction = statement(libc::BPF_RET, 0);
const W: u32 = libc::BPF_W;
const B: u32 = libc::BPF_B;
const JA: u32 = 0;
const PACKET_OUTGOING: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbour::{arp_announcement, arp_request, neighbour_advertisement, neighbour_solicitation};
    use crate::packet::tests::udp;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    /// What the kernel does with a program, for the few instructions used.
    fn passes(program: &[Instruction], kind: u32, protocol: u16, packet: &[u8]) -> bool {
        let (mut at, mut accumulator) = (0, 0u32);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            match u32::from(code) {
                code if code == libc::BPF_LD | libc::BPF_ABS | W && k == ancillary(libc::SKF_AD_PKTTYPE) => {
                    accumulator = kind;
                }
                code if code == libc::BPF_LD | libc::BPF_ABS | W && k == ancillary(libc::SKF_AD_PROTOCOL) => {
                    accumulator = protocol.into();
                }
                code if code == libc::BPF_LD | libc::BPF_ABS | W => {
                    let Some(word) = packet.get(k as usize..k as usize + 4) else { return false };
                    accumulator = u32::from_be_bytes(word.try_into().unwrap());
                }
                code if code == libc::BPF_LD | libc::BPF_ABS | B => {
                    let Some(octet) = packet.get(k as usize) else { return false };
                    accumulator = u32::from(*octet);
                }
                code if code == libc::BPF_ALU | libc::BPF_AND => accumulator &= k,
                code if code == libc::BPF_JMP | libc::BPF_JEQ => {
                    at += usize::from(if accumulator == k { jt } else { jf })
                }
                code if code == libc::BPF_JMP | JA => at += k as usize,
                libc::BPF_RET => return k > 0,
                other => panic!("unexpected instruction {other}"),
            }
        }
    }

    fn program(prefixes: &[&str]) -> Vec<Instruction> {
        let prefixes: Vec<Prefix> = prefixes.iter().map(|p| p.parse().unwrap()).collect();
        signs_of_life(prefixes.iter())
    }

    fn from_v4(source: [u8; 4]) -> Vec<u8> {
        let mut packet = udp(false, b"x");
        packet[12..16].copy_from_slice(&source);
        packet
    }

    fn from_v6(source: &str) -> Vec<u8> {
        let mut packet = udp(true, b"x");
        packet[8..24].copy_from_slice(&source.parse::<std::net::Ipv6Addr>().unwrap().octets());
        packet
    }

    #[test]
    fn packets_pass_by_their_source() {
        let program = program(&["10.77.0.5/32", "10.77.4.0/22", "fd77::5/128", "fd77:1::/36", "10.77.0.9/32"]);
        for (source, expected) in [
            ([10, 77, 0, 5], true),
            ([10, 77, 0, 9], true),
            ([10, 77, 7, 255], true),
            ([10, 77, 8, 0], false),
            ([10, 77, 0, 4], false),
        ] {
            assert_eq!(passes(&program, 0, IPV4, &from_v4(source)), expected, "{source:?}");
            let arp = arp_request(MAC, source.into(), [10, 0, 0, 1].into());
            assert_eq!(passes(&program, 1, ARP, &arp), expected, "ARP {source:?}");
        }
        for (source, expected) in [
            ("fd77::5", true),
            ("fd77:1:fff:ffff::1", true),
            ("fd77:1:1000::", false),
            ("fd77::6", false),
            ("fd78::5", false),
        ] {
            assert_eq!(passes(&program, 0, IPV6, &from_v6(source)), expected, "{source}");
        }
        assert!(!passes(&program, PACKET_OUTGOING, IPV4, &from_v4([10, 77, 0, 5])), "what this host sends");
        assert!(!passes(&program, 0, 0x88cc, &from_v4([10, 77, 0, 5])), "another protocol");
        assert!(!passes(&program, 0, IPV4, &[0x45; 10]), "cut off");
    }

    #[test]
    fn announcements_pass() {
        let program = program(&["10.77.0.5/32"]);
        let (eid, probe) = ([10, 77, 0, 5].into(), [0; 4].into());
        assert!(passes(&program, 1, ARP, &arp_announcement(MAC, eid)));
        assert!(passes(&program, 1, ARP, &arp_request(MAC, probe, eid)), "a probe");
        assert!(passes(&program, 1, RARP, &[0; 46]));
        let (link_local, eid) = ("fe80::2".parse().unwrap(), "fd77::5".parse().unwrap());
        assert!(passes(&program, 2, IPV6, &neighbour_solicitation(MAC, link_local, eid)));
        assert!(passes(&program, 2, IPV6, &neighbour_advertisement(MAC, eid)));
    }

    #[test]
    fn only_solicitations_pass() {
        let program = solicitations();
        let (source, eid) = ("fe80::2".parse().unwrap(), "fd77::5".parse().unwrap());
        let solicitation = neighbour_solicitation(MAC, source, eid);
        assert!(passes(&program, 2, IPV6, &solicitation));
        assert!(!passes(&program, PACKET_OUTGOING, IPV6, &solicitation));
        assert!(!passes(&program, 2, IPV4, &solicitation));
        assert!(!passes(&program, 2, IPV6, &neighbour_advertisement(MAC, eid)));
        assert!(!passes(&program, 0, IPV6, &from_v6("fd77::5")));
    }

    #[test]
    fn the_longest_program_is_one_the_kernel_takes() {
        let prefixes: Vec<Prefix> =
            (0..crate::workload::MAX_EIDS_OF_INTERFACE).map(|n| format!("fd77::{n:x}/128").parse().unwrap()).collect();
        let program = signs_of_life(prefixes.iter());
        assert!(program.len() <= 4096, "{}", program.len());
        assert!(passes(&program, 0, IPV6, &from_v6(&prefixes.last().unwrap().address.to_string())));
    }
}
