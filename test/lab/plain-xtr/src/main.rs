//! `plain-xtr TUN INSTANCE OWN_RLOC MAP`: the data path of a LISP site as others build them, by the book (RFC 9300).
//!
//! The FIFO MAP tells the map, `PREFIX RLOC` or `PREFIX -` a line, and stdout says `ready`, `miss ADDRESS` of what is not in it
//! and `from RLOC ADDRESS` of each new pair of outer and inner source. Both families, inside and outside. Sends the flags
//! and the UDP checksum that ENCAP_FLAGS (a hex octet) asks for; none without.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread;

type Map = Arc<Mutex<HashMap<(IpAddr, u8), IpAddr>>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plain-xtr: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let usage = || io::Error::other("usage: plain-xtr TUN INSTANCE OWN_RLOC MAP");
    let [tun, instance, rloc, fifo] = args.as_slice() else { return Err(usage()) };
    let instance: u32 = instance.parse().map_err(|_| usage())?;
    let rloc: IpAddr = rloc.parse().map_err(|_| usage())?;
    let flags = std::env::var("ENCAP_FLAGS").ok().and_then(|text| u8::from_str_radix(&text, 16).ok()).unwrap_or(0);
    let tun = Arc::new(open_tun(tun)?);
    let socket = Arc::new(UdpSocket::bind(SocketAddr::new(rloc, 4341))?);
    if rloc.is_ipv6() {
        accept_zero_checksums(&socket)?;
    }
    let map = Map::default();
    println!("ready");
    {
        let (tun, socket) = (tun.clone(), socket.clone());
        thread::spawn(move || decapsulate(&tun, &socket, instance));
    }
    {
        let map = map.clone();
        thread::spawn(move || encapsulate(&tun, &socket, &map, instance, flags));
    }
    // Open for writing as well, so that it does not end with each writer.
    let fifo = OpenOptions::new().read(true).write(true).open(fifo)?;
    for line in io::BufReader::new(fifo).lines() {
        tell(&map, &line?);
    }
    Ok(())
}

fn tell(map: &Map, line: &str) {
    let Some((prefix, rloc)) = line.split_once(' ') else { return };
    let Some((address, length)) = prefix.split_once('/') else { return };
    let (Ok(address), Ok(length)) = (address.parse(), length.parse()) else { return };
    let Ok(mut map) = map.lock() else { return };
    match rloc.parse() {
        Ok(rloc) => map.insert((address, length), rloc),
        Err(_) => map.remove(&(address, length)),
    };
}

fn encapsulate(mut tun: &File, socket: &UdpSocket, map: &Map, instance: u32, flags: u8) {
    let [_, a, b, c] = instance.to_be_bytes();
    let with_instance = if instance == 0 { 0 } else { 0x08 };
    let nonce = if flags & 0x80 != 0 { 0x77 } else { 0 };
    let mut frame = vec![0; 65_536 + 8];
    frame[..8].copy_from_slice(&[flags | with_instance, 0, 0, nonce, a, b, c, flags >> 6 & 1]);
    loop {
        let Ok(length) = tun.read(&mut frame[8..]) else { return };
        let Some((_, destination)) = addresses(&frame[8..8 + length]) else { continue };
        let rloc = map.lock().ok().and_then(|map| longest(&map, destination));
        match rloc {
            Some(rloc) => drop(socket.send_to(&frame[..8 + length], SocketAddr::new(rloc, 4341))),
            None => println!("miss {destination}"),
        }
    }
}

fn decapsulate(mut tun: &File, socket: &UdpSocket, instance: u32) {
    let mut datagram = vec![0; 65_536];
    let mut seen = HashSet::new();
    loop {
        let Ok((length, from)) = socket.recv_from(&mut datagram) else { continue };
        let Some((head, packet)) = datagram[..length].split_at_checked(8) else { continue };
        let told = if head[0] & 0x08 == 0 { 0 } else { u32::from_be_bytes([0, head[4], head[5], head[6]]) };
        if head[0] & 0x03 != 0 || told != instance {
            continue;
        }
        let Some((source, _)) = addresses(packet) else { continue };
        if seen.insert((from.ip(), source)) {
            println!("from {} {source}", from.ip());
        }
        let _ = tun.write(packet);
    }
}

fn longest(map: &HashMap<(IpAddr, u8), IpAddr>, address: IpAddr) -> Option<IpAddr> {
    let covering = map.iter().filter(|((prefix, length), _)| covers(*prefix, *length, address));
    covering.max_by_key(|((_, length), _)| *length).map(|(_, rloc)| *rloc)
}

fn covers(prefix: IpAddr, length: u8, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    };
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    prefix.is_ipv6() == address.is_ipv6() && (bits(prefix) ^ bits(address)) & mask == 0
}

/// Source and destination.
fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| Some(IpAddr::from(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?)));
    let v6 = |at: usize| Some(IpAddr::from(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?)));
    match packet.first()? >> 4 {
        4 => Some((v4(12)?, v4(16)?)),
        6 => Some((v6(8)?, v6(24)?)),
        _ => None,
    }
}

/// As every ETR must (RFC 9300 section 5.3).
fn accept_zero_checksums(socket: &UdpSocket) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the pointer and the size describe `on`, which lives through the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, UDP_NO_CHECK6_RX, (&raw const on).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const UDP_NO_CHECK6_RX: libc::c_int = 102;

fn open_tun(name: &str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request lives through the call, which reads and writes an ifreq.
    match unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(file),
    }
}
