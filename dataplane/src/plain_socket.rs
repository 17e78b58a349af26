//! Sockets that plain packets leave by. Their ports differ, so that networks between spread the flows (RFC 9300 section
//! 5.3); nothing is received by them but ICMP errors, and these make the next send fail. The UDP checksum is zero, as the RFC recommends over both families.

use std::ffi::c_int;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use crate::offload::Offloads;
use crate::outer_error::{OuterProblem, read_error};
use crate::outer_header::Outer;
use crate::peer::Path;
use crate::stats::Stats;
use crate::sys::{self, set_option};
use crate::udp::UdpSocket;

#[derive(Default)]
pub struct PlainSockets {
    v4: Vec<UdpSocket>,
    v6: Vec<UdpSocket>,
}

impl PlainSockets {
    /// A host may lack one family.
    pub fn open(stats: &mut Stats) -> io::Result<PlainSockets> {
        let mut family = |v6| (0..PORTS).map(|_| open_one(v6, stats)).collect::<io::Result<Vec<UdpSocket>>>();
        let (v4, v6) = (family(false)?, family(true).unwrap_or_default());
        Ok(PlainSockets { v4, v6 })
    }

    #[inline]
    pub fn send(&self, flow: u32, path: Path, outer: Outer, datagram: &[u8]) -> io::Result<()> {
        let socket = self.socket(flow, path.remote.is_ipv6()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        socket.send(path, outer, datagram)
    }

    /// The next ICMP error about what this flow, or others of its socket, sent; `quoted` gets what it quotes of the UDP payload.
    /// `None`: there is none. `Some(None)`: one that says nothing.
    pub fn next_error(&self, flow: u32, v6: bool, quoted: &mut [u8]) -> Option<Option<(IpAddr, OuterProblem, usize)>> {
        let found = read_error(self.socket(flow, v6)?, quoted).ok()?;
        Some(found.map(|(to, problem, length)| (to.ip(), problem, length)))
    }

    #[inline]
    fn socket(&self, flow: u32, v6: bool) -> Option<&UdpSocket> {
        let family = if v6 { &self.v6 } else { &self.v4 };
        // The higher bits: the lower ones have chosen the locator.
        family.get((flow >> 16) as usize % PORTS)
    }
}

fn open_one(v6: bool, stats: &mut Stats) -> io::Result<UdpSocket> {
    let socket = UdpSocket::unbound(v6, BUFFER, Offloads::NONE, stats)?;
    if v6 {
        set_option(&socket, libc::SOL_UDP, UDP_NO_CHECK6_TX, 1 as c_int)?;
    } else {
        set_option(&socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1 as c_int)?;
    }
    let nothing = [libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 }];
    let program = libc::sock_fprog { len: 1, filter: nothing.as_ptr().cast_mut() };
    set_option(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program)?;
    let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    sys::bind(&socket, SocketAddr::new(any, 0))?;
    Ok(socket)
}

/// Whether datagrams over IPv6 without a checksum are taken.
pub fn accept_zero_checksums(socket: &impl AsRawFd, accepted: bool) -> io::Result<()> {
    set_option(socket, libc::SOL_UDP, UDP_NO_CHECK6_RX, c_int::from(accepted))
}

const PORTS: usize = 8;
const BUFFER: c_int = 1 << 20;
/// Not in the libc crate (linux/udp.h).
const UDP_NO_CHECK6_TX: c_int = 101;
const UDP_NO_CHECK6_RX: c_int = 102;
