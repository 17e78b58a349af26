//! `--raw-udp`: UDP datagrams with outer headers of one's choice, for the conformance kit, as Node has no sockets for that.
//! It shares nothing with forwarding and runs instead of it.
//!
//! Lines on stdin are sent, datagrams to the own port become lines on stdout, and the end of stdin is the end of it. Both
//! are `ADDRESS:PORT TTL TOS CHECKSUM OCTETS`: the other end, decimal numbers, `right`, `zero` or, of what came, `other`
//! (what an interface is to complete is not told from a wrong one), and hexadecimal octets.

use std::io::{self, BufRead, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::outer_header::{DEFAULT_TTL, Outer};
use crate::packet::{be16, put16, sum};
use crate::peer::Path;
use crate::receive::{Received, UNKNOWN, read_control};
use crate::send::{ControlWriter, message_header};
use crate::sys::{self, Poller, RawAddress, check_size, set_option};

/// Until stdin ends. The error is for the operator.
pub fn carry(local: SocketAddr) -> Result<(), String> {
    let socket = open(local.ip()).map_err(|error| format!("raw socket of {}: {error}", local.ip()))?;
    let poller = Poller::new().and_then(|poller| poller.add(&socket, 0).map(|()| poller)).map_err(|e| e.to_string())?;
    let sending = socket.try_clone().map_err(|e| e.to_string())?;
    print_line("ready");
    // It ends with the process.
    std::thread::spawn(move || {
        while poller.wait(None).is_ok() {
            receive_all(&socket, local);
        }
    });
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        let order =
            Order::parse(&line).ok_or_else(|| format!("\"{line}\" is not ADDRESS:PORT TTL TOS CHECKSUM OCTETS"))?;
        // What cannot be sent is missed by who waits for its answer.
        let _ = send(&sending, local, &order);
    }
    Ok(())
}

fn open(address: IpAddr) -> io::Result<OwnedFd> {
    let v6 = address.is_ipv6();
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    let fd = sys::socket(family, libc::SOCK_RAW, libc::IPPROTO_UDP)?;
    let ttl = i32::from(DEFAULT_TTL);
    let options = match v6 {
        true => [(libc::IPV6_RECVTCLASS, 1), (libc::IPV6_RECVHOPLIMIT, 1), (libc::IPV6_UNICAST_HOPS, ttl)],
        false => [(libc::IP_RECVTOS, 1), (libc::IP_RECVTTL, 1), (libc::IP_TTL, ttl)],
    };
    for (name, value) in options {
        set_option(&fd, if v6 { libc::IPPROTO_IPV6 } else { libc::IPPROTO_IP }, name, value)?;
    }
    sys::bind(&fd, SocketAddr::new(address, 0))?;
    Ok(fd)
}

#[derive(Debug, PartialEq)]
struct Order {
    to: SocketAddr,
    outer: Outer,
    checksum: bool,
    octets: Vec<u8>,
}

impl Order {
    fn parse(line: &str) -> Option<Order> {
        let mut words = line.split(' ');
        let to = words.next()?.parse().ok()?;
        let ttl = words.next()?.parse().ok()?;
        let tos = words.next()?.parse().ok()?;
        let checksum = match words.next()? {
            "right" => true,
            "zero" => false,
            _ => return None,
        };
        let hex = words.next()?.as_bytes();
        let is_hex = hex.len() % 2 == 0 && hex.iter().all(u8::is_ascii_hexdigit);
        if words.next().is_some() || !is_hex || hex.len() / 2 > MAX_PAYLOAD {
            return None;
        }
        let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let octets = hex.chunks(2).map(octet).collect::<Option<Vec<u8>>>()?;
        Some(Order { to, outer: Outer { tos, ttl }, checksum, octets })
    }
}

fn send(socket: &OwnedFd, from: SocketAddr, order: &Order) -> io::Result<()> {
    let mut datagram = datagram(from, order);
    // A port in the address of a raw socket would be a protocol.
    let path = Path::to(SocketAddr::new(order.to.ip(), 0));
    let mut control = ControlWriter::for_message(path, order.outer, None);
    let mut address = RawAddress::from(path.remote);
    let mut vector = libc::iovec { iov_base: datagram.as_mut_ptr().cast(), iov_len: datagram.len() };
    let message = message_header(&mut address, std::slice::from_mut(&mut vector), &mut control);
    // SAFETY: every pointer in message refers to a local that is alive through the call.
    check_size(unsafe { libc::sendmsg(socket.as_raw_fd(), &message, 0) }).map(drop)
}

fn datagram(from: SocketAddr, order: &Order) -> Vec<u8> {
    let length = (HEADER + order.octets.len()) as u16;
    let words = [from.port(), order.to.port(), length, 0];
    let mut datagram: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    datagram.extend_from_slice(&order.octets);
    if order.checksum {
        let checksum = !sum(&datagram, pseudo_header(from.ip(), order.to.ip(), length));
        put16(&mut datagram, 6, if checksum == 0 { 0xffff } else { checksum });
    }
    datagram
}

fn pseudo_header(from: IpAddr, to: IpAddr, length: u16) -> u32 {
    let of = |address| match address {
        IpAddr::V4(v4) => u32::from(sum(&v4.octets(), 0)),
        IpAddr::V6(v6) => u32::from(sum(&v6.octets(), 0)),
    };
    of(from) + of(to) + libc::IPPROTO_UDP as u32 + u32::from(length)
}

fn receive_all(socket: &OwnedFd, local: SocketAddr) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(received) = receive(socket, &mut buffer) {
        if let Some(line) = describe(&received, &buffer[..received.length], local) {
            print_line(&line);
        }
    }
}

/// `WouldBlock` when there is nothing more.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut name = RawAddress::empty();
    let mut control = [0u64; CONTROL_WORDS];
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = name.pointer_mut().cast();
    header.msg_namelen = name.length();
    header.msg_iov = &mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: every pointer in header refers to a local or to `buffer`, all alive through the call.
    let length = check_size(unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, libc::MSG_DONTWAIT) })?;
    let remote = name.decode().ok_or(io::ErrorKind::InvalidData)?;
    let mut received = Received { start: 0, length, segment: length, path: Path::to(remote), outer: UNKNOWN };
    read_control(&header, &mut received);
    Ok(received)
}

/// `packet` begins with the IP header over IPv4, and with the UDP header over IPv6. None of what is not for the own port.
fn describe(received: &Received, packet: &[u8], local: SocketAddr) -> Option<String> {
    let skipped = if local.is_ipv6() { 0 } else { usize::from(packet.first()? & 0xf) * 4 };
    let datagram = packet.get(skipped..)?;
    if datagram.len() < HEADER || be16(datagram, 2) != local.port() {
        return None;
    }
    let remote = SocketAddr::new(received.path.remote.ip(), be16(datagram, 0));
    let checksum = match be16(datagram, 6) {
        0 => "zero",
        _ if sum(datagram, pseudo_header(remote.ip(), local.ip(), datagram.len() as u16)) == 0xffff => "right",
        _ => "other",
    };
    let Outer { ttl, tos } = received.outer;
    let hex: String = datagram[HEADER..].iter().map(|octet| format!("{octet:02x}")).collect();
    Some(format!("{remote} {ttl} {tos} {checksum} {hex}"))
}

/// Who does not listen any more ends this by ending stdin.
fn print_line(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Of UDP.
const HEADER: usize = 8;
const MAX_PAYLOAD: usize = 1_400;
const BUFFER: usize = 65_536;
const CONTROL_WORDS: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: &str = "192.0.2.1:4341";

    fn order(line: &str) -> Order {
        Order::parse(line).unwrap()
    }

    #[test]
    fn a_line_says_what_is_sent() {
        let parsed = order("[2001:db8::7]:4341 9 3 zero 00ff");
        assert_eq!(parsed.to, "[2001:db8::7]:4341".parse().unwrap());
        assert_eq!((parsed.outer, parsed.checksum), (Outer { tos: 3, ttl: 9 }, false));
        assert_eq!(parsed.octets, [0, 0xff]);
        assert!(order("192.0.2.7:4341 64 0 right ").octets.is_empty());
        let long = format!("192.0.2.7:4341 64 0 right {}", "00".repeat(MAX_PAYLOAD + 1));
        for bad in [
            "",
            "192.0.2.7 64 0 right 00",
            "192.0.2.7:4341 256 0 right 00",
            "192.0.2.7:4341 64 0 wrong 00",
            "192.0.2.7:4341 64 0 right 0",
            "192.0.2.7:4341 64 0 right +1",
            "192.0.2.7:4341 64 0 right 0g",
            "192.0.2.7:4341 64 0 right 00 00",
            &long,
        ] {
            assert_eq!(Order::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_comes_is_said_as_it_was_sent() {
        for (local, remote) in [(LOCAL, "192.0.2.7:4341"), ("[2001:db8::1]:4341", "[2001:db8::7]:4341")] {
            let (local, remote): (SocketAddr, SocketAddr) = (local.parse().unwrap(), remote.parse().unwrap());
            for checksum in ["right", "zero"] {
                let datagram = datagram(remote, &order(&format!("{local} 9 3 {checksum} 0102ff")));
                let head = if local.is_ipv6() { vec![] } else { vec![0x45; 20] };
                let mut packet = [head, datagram].concat();
                let path = Path::to(SocketAddr::new(remote.ip(), 0));
                let outer = Outer { tos: 3, ttl: 9 };
                let received = Received { start: 0, length: packet.len(), segment: packet.len(), path, outer };
                let said = |packet: &[u8], at| describe(&received, packet, at);
                assert_eq!(said(&packet, local), Some(format!("{remote} 9 3 {checksum} 0102ff")));
                assert_eq!(said(&packet, SocketAddr::new(local.ip(), 4342)), None);
                let last = packet.len() - 1;
                packet[last] ^= 1;
                if checksum == "right" {
                    assert_eq!(said(&packet, local), Some(format!("{remote} 9 3 other 0102fe")));
                }
                assert_eq!(said(&packet[..last - 3], local), None);
                assert_eq!(said(&[], local), None);
            }
        }
    }
}
