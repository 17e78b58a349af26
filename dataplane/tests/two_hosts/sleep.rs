//! A host that is about to sleep: what is held meanwhile goes when it is awake, and its memory holds no key of a session.

use std::fs::{self, File};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use serde_json::json;

use crate::lab::{Lab, PATIENCE, in_namespace, uninterrupted, wait_for, why_not};

#[test]
fn what_is_sent_while_a_host_is_about_to_sleep_goes_when_it_is_awake() {
    if let Some(reason) = why_not() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut lab = Lab::new();
    lab.introduce();
    let told = json!({ "resumed": true });
    assert_eq!(lab.hosts[0].agent.request(json!({ "type": "wake" })), told, "nothing is lost without a sleep");
    lab.echo_datagrams("10.77.0.1", "10.77.0.2", 100);
    assert_eq!(lab.hosts[0].agent.request(json!({ "type": "sleep" })), json!({ "sessions": 1 }));
    assert_eq!(lab.hosts[0].agent.request(json!({ "type": "sleep" })), json!({ "sessions": 0 }), "done already");
    let before = lab.counter(0, "handshakes_initiated");
    let near = in_namespace(&lab.hosts[0].namespace, || UdpSocket::bind(("10.77.0.1", 0)).expect("bind"));
    let far = in_namespace(&lab.hosts[1].namespace, || UdpSocket::bind(("10.77.0.2", 0)).expect("bind"));
    far.set_read_timeout(Some(PATIENCE)).expect("timeout");
    for number in 0..HELD {
        near.send_to(&[number; 100], far.local_addr().expect("address")).expect("send");
    }
    wait_for("held packets", || lab.gauge(0, "held_packets") == u64::from(HELD));
    assert_eq!((lab.gauge(0, "sessions"), lab.counter(0, "handshakes_initiated")), (0, before));
    assert_eq!(lab.hosts[0].agent.request(json!({ "type": "wake" })), told);
    assert_eq!(lab.hosts[0].agent.event("resumed")["from"], "suspend");
    for number in 0..HELD {
        let mut octets = [0; 101];
        assert_eq!(uninterrupted(|| far.recv(&mut octets)).expect("a held packet is missing"), 100);
        assert_eq!(octets[0], number);
    }
    assert_eq!((lab.counter(0, "drop.no_session"), lab.counter(0, "sleeps")), (0, 1));
    lab.transfer("10.77.0.2", |_| {});
    for host in &mut lab.hosts {
        host.process.terminate();
    }
}

// Attack: the whole memory of a data plane whose host is about to sleep: all that could be a key, tried on packets of
// either direction that were recorded before | every 8 octets | no key opens one; just before, the same search finds both
#[test]
fn attack_memory_of_a_sleeping_host() {
    if let Some(reason) = why_not() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut lab = Lab::new();
    lab.introduce();
    lab.echo_datagrams("10.77.0.1", "10.77.0.2", SIZE);
    let capture = capture(&lab.hosts[0].namespace);
    lab.echo_datagrams("10.77.0.1", "10.77.0.2", SIZE);
    let mut recorded = Vec::new();
    while recorded.len() < 2 {
        recorded.extend(read_datagram(&capture));
    }
    let process = lab.hosts[0].process.id();
    assert_eq!(opened_by(process, &recorded), 2, "keys of sessions in use are found");
    lab.hosts[0].agent.request(json!({ "type": "sleep" }));
    assert_eq!(opened_by(process, &recorded), 0);
}

/// How many of the packets something in the process's memory is the key of.
fn opened_by(process: u32, packets: &[Vec<u8>]) -> usize {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).expect("maps");
    let memory = File::open(format!("/proc/{process}/mem")).expect("memory");
    let mut opened = vec![false; packets.len()];
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw"))) {
        let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let [from, to] = [from, to].map(|end| u64::from_str_radix(end, 16).expect("an address"));
        for at in (from..to).step_by(PAGE) {
            // What straddles the end of a page is read with it.
            let mut octets = vec![0; PAGE + 24];
            let Ok(length) = memory.read_at(&mut octets, at) else { continue };
            for candidate in octets[..length].windows(32).step_by(8).filter(|candidate| could_be_key(candidate)) {
                for (packet, opened) in packets.iter().zip(&mut opened) {
                    *opened |= opens(candidate, packet);
                }
            }
        }
    }
    opened.into_iter().filter(|opened| *opened).count()
}

/// Random octets: hardly any are the same.
fn could_be_key(octets: &[u8]) -> bool {
    octets.iter().filter(|octet| **octet == 0).count() < 4
}

/// By either cipher, as wire-format.md says.
fn opens(key: &[u8], packet: &[u8]) -> bool {
    let (header, sealed) = packet.split_at(16);
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&header[8..]);
    [&AES_256_GCM, &CHACHA20_POLY1305].into_iter().any(|cipher| {
        let key = LessSafeKey::new(UnboundKey::new(cipher, key).expect("32 octets"));
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.open_in_place(nonce, Aad::from(header), &mut sealed.to_vec()).is_ok()
    })
}

/// All IP packets of the host's interface from now on.
fn capture(namespace: &str) -> OwnedFd {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    in_namespace(namespace, move || {
        // SAFETY: no pointers are passed; the descriptor returned is new and owned by nobody else.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM, i32::from(protocol)) };
        assert!(socket >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: see above.
        unsafe { OwnedFd::from_raw_fd(socket) }
    })
}

/// The next packet, if it is one of the tunnel with SIZE octets of data in it.
fn read_datagram(capture: &OwnedFd) -> Option<Vec<u8>> {
    let mut octets = vec![0; 2048];
    // SAFETY: the buffer is valid for writes of its length.
    let length = unsafe { libc::recv(capture.as_raw_fd(), octets.as_mut_ptr().cast(), octets.len(), 0) };
    octets.truncate(usize::try_from(length).expect("a packet"));
    let payload = octets.split_off(octets.len().min(IPV4_AND_UDP));
    (payload.len() == 16 + IPV4_AND_UDP + SIZE + 16).then_some(payload)
}

const HELD: u8 = 10;
const SIZE: usize = 200;
const IPV4_AND_UDP: usize = 28;
const PAGE: usize = 4096;
