//! A guest that QEMU has migrated is announced by RARP, which names no address: the host asks who it is.

use serde_json::json;

use crate::lab::{Lab, in_namespace, why_not};

#[test]
fn a_guest_announced_by_rarp_is_asked_for() {
    if let Some(reason) = why_not() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut lab = Lab::new();
    let guest = lab.hosts[1].namespace.clone();
    lab.ip(0, &format!("link add tap0 type veth peer name nic netns {guest}"));
    lab.ip(0, "link set tap0 up");
    lab.ip(1, "link set nic up");
    let agent = &mut lab.hosts[0].agent;
    agent.request(json!({ "type": "workload-watch", "prefix": "10.77.9.9/32", "interface": "tap0" }));
    // The kernel announces no address that is added.
    lab.ip(1, "addr add 10.77.9.9/32 dev nic");
    in_namespace(&guest, || send_rarp("nic"));
    let seen = lab.hosts[0].agent.event("workload-seen");
    assert_eq!((&seen["prefix"], &seen["by"]), (&json!("10.77.9.9/32"), &json!("arp")));
}

fn send_rarp(interface: &str) {
    let name = std::ffi::CString::new(interface).expect("name");
    let protocol = (libc::ETH_P_RARP as u16).to_be();
    // SAFETY: name is a C string; address is a sockaddr_ll, of which zeros are a valid one, and its length is given.
    unsafe {
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
        address.sll_halen = 6;
        address.sll_addr[..6].fill(0xff);
        let socket = libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0);
        let rarp = [0, 1, 8, 0, 6, 4, 0, 3, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        let sent = libc::sendto(socket, rarp.as_ptr().cast(), rarp.len(), 0, (&raw const address).cast(), length);
        assert_eq!(sent, rarp.len() as isize);
        libc::close(socket);
    }
}
