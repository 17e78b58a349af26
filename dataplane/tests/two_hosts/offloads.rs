//! The same octets arrive whatever the kernel does and does not do for the data plane.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use serde_json::{Value, json};

use crate::lab::{Host, Lab, counters, send_datagrams, set_option, why_not};

#[test]
fn everything_works_with_each_offload_switched_off() {
    if let Some(reason) = why_not() {
        eprintln!("skipped: {reason}");
        return;
    }
    for (switches, in_use) in [
        ("all", json!(["vnet-hdr", "tso", "uso", "udp-gso", "udp-gro"])),
        ("no-tso", json!(["vnet-hdr", "uso", "udp-gso", "udp-gro"])),
        ("no-uso", json!(["vnet-hdr", "tso", "udp-gso", "udp-gro"])),
        ("no-udp-gso", json!(["vnet-hdr", "tso", "uso", "udp-gro"])),
        ("no-udp-gro", json!(["vnet-hdr", "tso", "uso", "udp-gso"])),
        ("no-vnet-hdr", json!(["udp-gso", "udp-gro"])),
        ("none", json!([])),
    ] {
        let mut lab = Lab::with(&["--offload", switches]);
        assert_eq!(offloads(&mut lab.hosts[0]), in_use, "{switches}");
        lab.introduce();
        for address in ["10.77.0.2", "fd77::2"] {
            lab.transfer(address, |_| {});
        }
        send_datagrams(&lab, "10.77.0.1", "10.77.0.2");
        send_datagrams(&lab, "fd77::1", "fd77::2");
        let [near, far] = [0, 1].map(|host| counters(&mut lab.hosts[host]));
        let of = |counters: &Value, name: &str| counters[name].as_u64().expect("a counter");
        let wanted = |name: &str| in_use.as_array().is_some_and(|names| names.contains(&name.into()));
        // Superpackets show as fewer calls than packets, each in its place. A veth does not join what was sent apart.
        let aggregated = [
            (&near, "udp_tx_datagrams", "udp_tx_messages", wanted("udp-gso")),
            (&far, "udp_rx_datagrams", "udp_rx_messages", wanted("udp-gso") && wanted("udp-gro")),
            (&far, "tun_tx_packets", "tun_write_calls", wanted("tso") || wanted("uso")),
        ];
        for (counters, packets, calls, expected) in aggregated {
            assert_eq!(of(counters, packets) > of(counters, calls), expected, "{switches}: {packets} and {calls}");
        }
        for counters in [&near, &far] {
            for name in ["drop.send_error", "drop.tun_write_error", "drop.malformed", "drop.auth", "drop.replay"] {
                assert_eq!(of(counters, name), 0, "{switches}: {name}");
            }
            for name in ["fallback.tso", "fallback.uso", "fallback.udp_gso", "fallback.udp_gro"] {
                assert_eq!(of(counters, name), 0, "what was switched off was not refused by the kernel: {name}");
            }
        }
    }
}

#[test]
fn a_kernel_that_stops_segmenting_loses_nothing() {
    if let Some(reason) = why_not() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut lab = Lab::new();
    lab.introduce();
    lab.transfer("10.77.0.2", |_| {});
    assert_eq!(counters(&mut lab.hosts[0])["fallback.udp_gso"], 0);
    lab.transfer("10.77.0.2", |lab| refuse_segmentation(lab.hosts[0].process.id()));
    send_datagrams(&lab, "10.77.0.1", "10.77.0.2");
    let [near, far] = [0, 1].map(|host| counters(&mut lab.hosts[host]));
    assert_eq!((&near["fallback.udp_gso"], &near["drop.send_error"]), (&1.into(), &0.into()), "{near}");
    assert_eq!(near["fallback.outer_fragmented"], 0, "{near}");
    assert_eq!(near["udp_tx_datagrams"], far["udp_rx_datagrams"]);
    assert_eq!(offloads(&mut lab.hosts[0]), json!(["vnet-hdr", "tso", "uso", "udp-gro"]));
}

fn offloads(host: &mut Host) -> Value {
    host.agent.request(json!({ "type": "hello", "capability": 1, "software": "test" }))["offloads"].clone()
}

/// Makes the kernel answer UDP_SEGMENT with EINVAL, as it does where checksums are not to be made, on both IPv4 sockets
/// of a running process: that of the sessions and that of initiations.
fn refuse_segmentation(process: u32) {
    let owned = |number: libc::c_long| {
        assert!(number >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: the kernel has just given this descriptor to us.
        unsafe { OwnedFd::from_raw_fd(number as RawFd) }
    };
    // SAFETY: takes two integers.
    let pidfd = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) });
    let mut changed = 0;
    for entry in std::fs::read_dir(format!("/proc/{process}/fd")).expect("descriptors") {
        let number: RawFd = entry.expect("entry").file_name().to_string_lossy().parse().expect("number");
        // SAFETY: takes three integers.
        let fd = owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) });
        if socket_option(&fd, libc::SO_DOMAIN) == Some(libc::AF_INET)
            && socket_option(&fd, libc::SO_TYPE) == Some(libc::SOCK_DGRAM)
        {
            set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1);
            changed += 1;
        }
    }
    assert_eq!(changed, 2);
}

fn socket_option(fd: &OwnedFd, name: i32) -> Option<i32> {
    let (mut value, mut length) = (0i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: value and length are valid for writes.
    let result =
        unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, (&raw mut value).cast(), &mut length) };
    (result == 0).then_some(value)
}
