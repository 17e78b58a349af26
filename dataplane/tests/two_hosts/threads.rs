//! With a thread that delivers, everything arrives as with one thread: the same, once, and in its order.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::lab::{Lab, counters, in_namespace, send_datagrams, set_segment, uninterrupted, why_not};

#[test]
fn two_threads_deliver_what_one_does() {
    if let Some(reason) = why_not() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut lab = Lab::with(&["--threads", "2"]);
    lab.introduce();
    for address in ["10.77.0.2", "fd77::2"] {
        lab.transfer(address, |_| {});
    }
    lab.transfer("10.77.0.2", |lab| {
        lab.ip(0, "addr del 192.0.2.1/24 dev eth0");
        lab.ip(0, "addr add 192.0.2.11/24 dev eth0");
    });
    send_datagrams(&lab, "10.77.0.1", "10.77.0.2");
    let far = counters(&mut lab.hosts[1]);
    assert!(count(&far, "tun_write_calls_handed_over") > 0, "{far}");
    for name in ["drop.tun_write_error", "drop.auth", "drop.malformed"] {
        assert_eq!(count(&far, name), 0, "{name}");
    }
    for host in &mut lab.hosts {
        host.process.terminate();
    }
}

#[test]
fn a_flow_keeps_its_order_under_load() {
    if let Some(reason) = why_not() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut lab = Lab::with(&["--threads", "2"]);
    lab.introduce();
    // Superpackets, which are handed over, and single datagrams, which are not, in turn.
    let near = in_namespace(&lab.hosts[0].namespace, || UdpSocket::bind(("10.77.0.1", 0)).expect("bind"));
    let far = in_namespace(&lab.hosts[1].namespace, || UdpSocket::bind(("10.77.0.2", 0)).expect("bind"));
    near.connect(far.local_addr().expect("address")).expect("connect");
    far.set_read_timeout(Some(Duration::from_secs(1))).expect("timeout");
    let receiver = thread::spawn(move || {
        let (mut received, mut last, mut buffer) = (0, None, [0; 2048]);
        while let Ok(length) = uninterrupted(|| far.recv(&mut buffer)) {
            let number = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
            assert_eq!(length, SIZE);
            assert!(last.is_none_or(|last| number > last), "{number} came after {last:?}");
            (received, last) = (received + 1, Some(number));
        }
        received
    });
    let datagram = |number: u32| {
        let mut octets = [0; SIZE];
        octets[..4].copy_from_slice(&number.to_be_bytes());
        octets
    };
    for burst in (0..BURSTS * 41).step_by(41) {
        let superpacket: Vec<u8> = (burst..burst + 40).flat_map(datagram).collect();
        set_segment(&near, SIZE as i32);
        near.send(&superpacket).expect("send");
        set_segment(&near, 0);
        near.send(&datagram(burst + 40)).expect("send");
    }
    // How many are lost when queues are full is for the machine to say.
    let received = receiver.join().expect("receiver");
    assert!(received >= 41, "{received}");
    let far = counters(&mut lab.hosts[1]);
    let (calls, handed_over) = (count(&far, "tun_write_calls"), count(&far, "tun_write_calls_handed_over"));
    assert!(handed_over > 0 && calls > 0, "{far}");
}

fn count(counters: &Value, name: &str) -> u64 {
    counters[name].as_u64().expect("a counter")
}

const SIZE: usize = 1000;
const BURSTS: u32 = 1000;
