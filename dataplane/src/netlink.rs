//! rtnetlink, the few messages needed here: requests with acknowledgement, dumps and notifications.
//!
//! A message is `nlmsghdr` (length u32, type u16, flags u16, sequence u32, port u32), a fixed part per family of
//! messages, and attributes (length u16, type u16, value, padded to 4), all in host byte order.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::host::is_link_local;
use crate::prefix::Prefix;
use crate::sys::{self, check, check_size};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Administratively up, with a carrier.
    pub up: bool,
    pub loopback: bool,
    pub mtu: u32,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Address {
    pub link: u32,
    pub prefix_length: u8,
    pub address: IpAddr,
    /// Not tentative, duplicate, deprecated or temporary, and of global scope.
    pub usable: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Route {
    pub destination: Prefix,
    pub gateway: Option<IpAddr>,
    pub link: u32,
    pub priority: u32,
    pub protocol: u8,
    pub table: u32,
    pub unicast: bool,
}

pub enum Change {
    Link(Link),
    LinkGone(Link),
    Address(Address),
    AddressGone(Address),
    Route(Route),
    RouteGone(Route),
}

pub struct Netlink {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// For requests.
    pub fn open() -> io::Result<Netlink> {
        Netlink::with_groups(0)
    }

    /// For notifications of links, addresses and routes.
    pub fn monitor() -> io::Result<Netlink> {
        Netlink::with_groups(
            libc::RTMGRP_LINK
                | libc::RTMGRP_IPV4_IFADDR
                | libc::RTMGRP_IPV6_IFADDR
                | libc::RTMGRP_IPV4_ROUTE
                | libc::RTMGRP_IPV6_ROUTE,
        )
    }

    fn with_groups(groups: i32) -> io::Result<Netlink> {
        let fd = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
        let _ = sys::set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 4i32 << 20);
        // SAFETY: all-zero bytes are a valid sockaddr_nl, and the length passed is its size.
        unsafe {
            let mut address: libc::sockaddr_nl = std::mem::zeroed();
            address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
            address.nl_groups = groups as u32;
            check(libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_nl>() as libc::socklen_t,
            ))?;
        }
        Ok(Netlink { fd, sequence: 0, buffer: vec![0; 64 << 10] })
    }

    /// Sends a request and waits for the kernel's verdict.
    pub fn request(&mut self, mut request: Request) -> io::Result<()> {
        self.send(&mut request, libc::NLM_F_ACK)?;
        loop {
            for message in self.receive_blocking()? {
                if message.kind == libc::NLMSG_ERROR as u16 && message.sequence == self.sequence {
                    return result_of(&message.body);
                }
            }
        }
    }

    /// All objects of a kind: links, addresses or routes.
    pub fn dump(&mut self, kind: u16) -> io::Result<Vec<Change>> {
        let mut request = Request::new(kind, libc::NLM_F_DUMP);
        request.bytes.extend_from_slice(&[0; 16]);
        self.send(&mut request, 0)?;
        let mut found = Vec::new();
        loop {
            for message in self.receive_blocking()? {
                if message.sequence != self.sequence {
                    continue;
                }
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(found),
                    libc::NLMSG_ERROR => {
                        result_of(&message.body)?;
                        return Ok(found);
                    }
                    _ => found.extend(parse(&message)),
                }
            }
        }
    }

    /// What has happened since the last call; an error means that something was lost.
    pub fn changes(&mut self) -> io::Result<Vec<Change>> {
        let mut changes = Vec::new();
        loop {
            match self.receive() {
                Ok(messages) => changes.extend(messages.iter().filter_map(parse)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changes),
                Err(error) => return Err(error),
            }
        }
    }

    fn send(&mut self, request: &mut Request, flags: i32) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = request.bytes.len() as u32;
        let flags = (request.flags | libc::NLM_F_REQUEST | flags) as u16;
        request.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        request.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        request.bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        let bytes = &request.bytes;
        // SAFETY: bytes is valid for reads of its length.
        check_size(unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) }).map(drop)
    }

    fn receive_blocking(&mut self) -> io::Result<Vec<Message>> {
        loop {
            match self.receive() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                    // SAFETY: poll is one valid pollfd.
                    if check(unsafe { libc::poll(&mut poll, 1, 2000) })? == 0 {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                other => return other,
            }
        }
    }

    fn receive(&mut self) -> io::Result<Vec<Message>> {
        let buffer = &mut self.buffer;
        // SAFETY: buffer is valid for writes of its length.
        let length =
            check_size(unsafe { libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) })?;
        Ok(messages_in(&buffer[..length]))
    }
}

impl AsRawFd for Netlink {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// A request under construction.
pub struct Request {
    bytes: Vec<u8>,
    flags: i32,
}

impl Request {
    fn new(kind: u16, flags: i32) -> Request {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        Request { bytes, flags }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(aligned(self.bytes.len()), 0);
    }

    /// Puts an interface up with an MTU, so many packets that may wait in it, and the size of superpackets.
    pub fn set_link(index: u32, mtu: u32, queue: u32, gso_max_size: Option<u32>) -> Request {
        let mut request = Request::new(libc::RTM_NEWLINK, 0);
        let mut fixed = [0; 16];
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        fixed[8..12].copy_from_slice(&(libc::IFF_UP as u32).to_ne_bytes());
        fixed[12..16].copy_from_slice(&(libc::IFF_UP as u32).to_ne_bytes());
        request.bytes.extend_from_slice(&fixed);
        request.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
        request.attribute(libc::IFLA_TXQLEN, &queue.to_ne_bytes());
        if let Some(size) = gso_max_size {
            request.attribute(IFLA_GSO_MAX_SIZE, &size.to_ne_bytes());
        }
        request
    }

    pub fn address(add: bool, link: u32, prefix: Prefix) -> Request {
        let kind = if add { libc::RTM_NEWADDR } else { libc::RTM_DELADDR };
        let mut request = Request::new(kind, if add { libc::NLM_F_CREATE | libc::NLM_F_REPLACE } else { 0 });
        let flags = if prefix.address.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
        let scope = if is_link_local(prefix.address) { libc::RT_SCOPE_LINK } else { libc::RT_SCOPE_UNIVERSE };
        request.bytes.extend_from_slice(&[family(prefix.address), prefix.length, flags, scope]);
        request.bytes.extend_from_slice(&link.to_ne_bytes());
        let octets = octets(prefix.address);
        request.attribute(libc::IFA_LOCAL, &octets);
        request.attribute(libc::IFA_ADDRESS, &octets);
        // The routes to the EID space are set on their own.
        request.attribute(libc::IFA_FLAGS, &(libc::IFA_F_NOPREFIXROUTE | u32::from(flags)).to_ne_bytes());
        request
    }

    pub fn route(add: bool, link: u32, prefix: Prefix, metric: u32, source: Option<IpAddr>) -> Request {
        let kind = if add { libc::RTM_NEWROUTE } else { libc::RTM_DELROUTE };
        let mut request = Request::new(kind, if add { libc::NLM_F_CREATE | libc::NLM_F_REPLACE } else { 0 });
        let scope = if prefix.address.is_ipv6() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
        let fixed = [
            family(prefix.address),
            prefix.length,
            0,
            0,
            libc::RT_TABLE_MAIN,
            ROUTE_PROTOCOL,
            scope,
            libc::RTN_UNICAST,
        ];
        request.bytes.extend_from_slice(&fixed);
        request.bytes.extend_from_slice(&[0; 4]);
        request.attribute(libc::RTA_DST, &octets(prefix.address));
        request.attribute(libc::RTA_OIF, &link.to_ne_bytes());
        if metric > 0 {
            request.attribute(libc::RTA_PRIORITY, &metric.to_ne_bytes());
        }
        if let Some(source) = source.filter(|_| add) {
            request.attribute(libc::RTA_PREFSRC, &octets(source));
        }
        request
    }
}

struct Message {
    kind: u16,
    sequence: u32,
    body: Vec<u8>,
}

/// The messages of one datagram.
fn messages_in(mut rest: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(size) = read_u32(rest, 0).map(|s| s as usize).filter(|s| (16..=rest.len()).contains(s)) {
        messages.push(Message {
            kind: u16::from_ne_bytes([rest[4], rest[5]]),
            sequence: read_u32(rest, 8).unwrap_or(0),
            body: rest[16..size].to_vec(),
        });
        rest = &rest[aligned(size).min(rest.len())..];
    }
    messages
}

/// What a datagram says, and whether its acknowledgements can be read.
#[cfg(any(test, feature = "fuzz"))]
pub fn changes_in(datagram: &[u8]) -> Vec<Change> {
    let messages = messages_in(datagram);
    for message in &messages {
        let _ = result_of(&message.body);
    }
    messages.iter().filter_map(parse).collect()
}

fn parse(message: &Message) -> Option<Change> {
    let body = &message.body;
    match message.kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => {
            let flags = read_u32(body, 8)?;
            let up = (libc::IFF_UP | libc::IFF_LOWER_UP) as u32;
            let name = attributes(body, 16).find(|(kind, _)| *kind == libc::IFLA_IFNAME)?.1;
            let link = Link {
                index: read_u32(body, 4)?,
                name: String::from_utf8_lossy(name.strip_suffix(b"\0").unwrap_or(name)).into_owned(),
                up: flags & up == up,
                loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
                mtu: attributes(body, 16)
                    .find(|(kind, _)| *kind == libc::IFLA_MTU)
                    .and_then(|(_, value)| read_u32(value, 0))
                    .unwrap_or(0),
            };
            // The bridge code sends RTM_NEWLINK of family AF_BRIDGE without the flags' meaning.
            if *body.first()? != 0 {
                return None;
            }
            Some(if message.kind == libc::RTM_NEWLINK { Change::Link(link) } else { Change::LinkGone(link) })
        }
        libc::RTM_NEWADDR | libc::RTM_DELADDR => {
            let (mut address, mut local, mut flags) = (None, None, u32::from(*body.get(2)?));
            for (kind, value) in attributes(body, 8) {
                match kind {
                    libc::IFA_ADDRESS => address = ip(value),
                    libc::IFA_LOCAL => local = ip(value),
                    libc::IFA_FLAGS => flags = read_u32(value, 0)?,
                    _ => {}
                }
            }
            let unusable =
                libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED | libc::IFA_F_DEPRECATED | libc::IFA_F_TEMPORARY;
            // IFA_F_SECONDARY is the same bit as IFA_F_TEMPORARY and means nothing bad in IPv4.
            let unusable = if body[0] == libc::AF_INET as u8 { 0 } else { unusable };
            let address = Address {
                link: read_u32(body, 4)?,
                prefix_length: body[1],
                address: local.or(address)?,
                usable: flags & unusable == 0 && *body.get(3)? == libc::RT_SCOPE_UNIVERSE,
            };
            if !fits(address.prefix_length, address.address) {
                return None;
            }
            let added = message.kind == libc::RTM_NEWADDR;
            Some(if added { Change::Address(address) } else { Change::AddressGone(address) })
        }
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
            if body.len() < 12 || read_u32(body, 8)? & libc::RTM_F_CLONED != 0 {
                return None;
            }
            let any: IpAddr = match i32::from(body[0]) {
                libc::AF_INET => IpAddr::from([0; 4]),
                libc::AF_INET6 => IpAddr::from([0; 16]),
                _ => return None,
            };
            let mut route = Route {
                destination: Prefix { address: any, length: body[1] },
                gateway: None,
                link: 0,
                priority: 0,
                protocol: body[5],
                table: u32::from(body[4]),
                unicast: body[7] == libc::RTN_UNICAST,
            };
            for (kind, value) in attributes(body, 12) {
                match kind {
                    libc::RTA_DST => route.destination.address = ip(value)?,
                    libc::RTA_GATEWAY => route.gateway = ip(value),
                    libc::RTA_OIF => route.link = read_u32(value, 0)?,
                    // The first next hop stands for all.
                    libc::RTA_MULTIPATH => route.link = read_u32(value, 4)?,
                    libc::RTA_PRIORITY => route.priority = read_u32(value, 0)?,
                    libc::RTA_TABLE => route.table = read_u32(value, 0)?,
                    _ => {}
                }
            }
            if !fits(route.destination.length, route.destination.address) {
                return None;
            }
            let added = message.kind == libc::RTM_NEWROUTE;
            Some(if added { Change::Route(route) } else { Change::RouteGone(route) })
        }
        _ => None,
    }
}

fn fits(prefix_length: u8, address: IpAddr) -> bool {
    prefix_length <= Prefix::host(address).length
}

fn attributes(body: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(fixed..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*rest.first()?, *rest.get(1)?]));
        let kind = u16::from_ne_bytes([*rest.get(2)?, *rest.get(3)?]) & ATTRIBUTE_TYPE;
        let value = rest.get(4..length)?;
        rest = rest.get(aligned(length)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

fn result_of(body: &[u8]) -> io::Result<()> {
    match read_u32(body, 0).map(|code| code as i32) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

/// Marks routes as ours: 'S'.
pub const ROUTE_PROTOCOL: u8 = 0x53;
const ATTRIBUTE_TYPE: u16 = 0x3fff;
const IFLA_GSO_MAX_SIZE: u16 = 41;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_ignored_without_panic() {
        let mut state = 5u64;
        for round in 0..20_000u32 {
            let body: Vec<u8> = (0..round % 80)
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    (state >> 33) as u8
                })
                .collect();
            for kind in [libc::RTM_NEWLINK, libc::RTM_NEWADDR, libc::RTM_DELROUTE, libc::RTM_NEWROUTE] {
                let _ = parse(&Message { kind, sequence: 0, body: body.clone() });
            }
        }
    }

    #[test]
    fn an_own_route_reads_back() {
        let prefix = "10.0.0.0/8".parse().unwrap();
        let request = Request::route(true, 7, prefix, 100, Some(IpAddr::from([10, 0, 0, 1])));
        let message = Message { kind: libc::RTM_NEWROUTE, sequence: 0, body: request.bytes[16..].to_vec() };
        let Some(Change::Route(route)) = parse(&message) else { panic!("no route") };
        assert_eq!((route.destination, route.link, route.priority), (prefix, 7, 100));
        assert_eq!((route.protocol, route.table, route.unicast), (ROUTE_PROTOCOL, 254, true));
    }
}
