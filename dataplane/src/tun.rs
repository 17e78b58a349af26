//! The TUN device: superpackets in and out through virtio_net headers.

use std::ffi::{c_int, c_ulong};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::offload::Offloads;
use crate::packet::finish_checksum;
use crate::sys::{check, check_size};
use crate::vnet::{Gso, VNET_HEADER, VnetHeader};

pub struct Tun {
    file: File,
    pub name: String,
    /// Frames have a virtio_net header in the kernel's sight too.
    pub vnet_hdr: bool,
    pub tso: bool,
    pub uso: bool,
}

impl Tun {
    /// Attaches to `name` or makes it. Errors are sentences for people.
    pub fn open(name: &str, persistent: bool, wanted: Offloads) -> Result<Tun, String> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Err(format!("\"{name}\" is not an interface name: 1 to {} letters", libc::IFNAMSIZ - 1));
        }
        let file =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun").map_err(
                |error| match error.raw_os_error() {
                    Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
                        "no /dev/net/tun: load the module with `modprobe tun`, or give the container the device"
                            .to_string()
                    }
                    Some(libc::EACCES | libc::EPERM) => {
                        "may not open /dev/net/tun: `chmod 666 /dev/net/tun` as root (making interfaces still takes \
                     CAP_NET_ADMIN), or run as root"
                            .to_string()
                    }
                    _ => format!("/dev/net/tun: {error}"),
                },
            )?;
        let mut request = InterfaceRequest { name: [0; libc::IFNAMSIZ], flags: 0, pad: [0; 22] };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        let vnet_flag = if wanted.vnet_hdr { libc::IFF_VNET_HDR } else { 0 };
        request.flags = (libc::IFF_TUN | libc::IFF_NO_PI | vnet_flag) as i16;
        // SAFETY: TUNSETIFF reads and writes an ifreq, which InterfaceRequest is laid out as.
        check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) }).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::EPERM) => format!(
                    "not permitted to make the interface {name}: run with CAP_NET_ADMIN \
                     (AmbientCapabilities=CAP_NET_ADMIN in the systemd unit) or as root"
                ),
                Some(libc::EBUSY) => format!("the interface {name} is in use by another program; choose another --tun"),
                Some(libc::EINVAL) => {
                    format!("the interface {name} exists and is not a TUN of this kind; choose another --tun")
                }
                _ => format!("making the interface {name}: {error}"),
            }
        })?;
        let set = |request: c_ulong, value: c_int| -> io::Result<()> {
            // SAFETY: these requests take an integer argument.
            check(unsafe { libc::ioctl(file.as_raw_fd(), request, value as c_ulong) }).map(drop)
        };
        let set_pointer = |request: c_ulong, value: c_int| -> io::Result<()> {
            // SAFETY: these requests read an int through the pointer.
            check(unsafe { libc::ioctl(file.as_raw_fd(), request, &raw const value) }).map(drop)
        };
        let fail = |what: &str, error: io::Error| format!("{what} of the interface {name}: {error}");
        set(TUNSETPERSIST, c_int::from(persistent)).map_err(|e| fail("persistence", e))?;
        if wanted.vnet_hdr {
            set_pointer(TUNSETVNETHDRSZ, VNET_HEADER as c_int).map_err(|e| fail("header size", e))?;
            set_pointer(TUNSETVNETLE, 1).map_err(|e| fail("byte order", e))?;
        }
        let checksum = if wanted.vnet_hdr { TUN_F_CSUM } else { 0 };
        let tso = if wanted.tso { TUN_F_TSO4 | TUN_F_TSO6 } else { 0 };
        let uso = if wanted.uso { TUN_F_USO4 | TUN_F_USO6 } else { 0 };
        let (tso, uso) = if set(TUNSETOFFLOAD, checksum | tso | uso).is_ok() {
            (wanted.tso, wanted.uso)
        } else if set(TUNSETOFFLOAD, checksum | tso).is_ok() {
            (wanted.tso, false)
        } else {
            let _ = set(TUNSETOFFLOAD, 0);
            (false, false)
        };
        Ok(Tun { file, name: name.to_string(), vnet_hdr: wanted.vnet_hdr, tso, uso })
    }

    /// One frame with its virtio_net header, or `WouldBlock`.
    #[inline]
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.vnet_hdr {
            let (header, packet) = buffer.split_at_mut(VNET_HEADER);
            header.copy_from_slice(&VnetHeader::default().bytes());
            return Ok(VNET_HEADER + self.read_raw(packet)?);
        }
        self.read_raw(buffer)
    }

    /// Returns the length written, as if the kernel took the header.
    #[inline]
    pub fn write(&self, frame: &[u8]) -> io::Result<usize> {
        if !self.vnet_hdr {
            let vnet = VnetHeader::parse(frame).ok_or(io::ErrorKind::InvalidInput)?;
            return self.write_finished(&vnet, &frame[VNET_HEADER..]);
        }
        self.write_raw(frame)
    }

    #[inline]
    fn read_raw(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: buffer is valid for writes of its length.
        check_size(unsafe { libc::read(self.file.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })
    }

    #[inline]
    fn write_raw(&self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: bytes is valid for reads of its length.
        check_size(unsafe { libc::write(self.file.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })
    }

    /// Without virtio_net headers a packet has to be whole: one segment, and its checksum finished.
    fn write_finished(&self, vnet: &VnetHeader, packet: &[u8]) -> io::Result<usize> {
        let mut packet = packet.to_vec();
        if vnet.gso != Gso::None {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if vnet.needs_csum {
            let (start, offset) = (usize::from(vnet.csum_start), usize::from(vnet.csum_offset));
            finish_checksum(&mut packet, start, offset, offset == UDP_CHECKSUM).ok_or(io::ErrorKind::InvalidInput)?;
        }
        Ok(VNET_HEADER + self.write_raw(&packet)?)
    }

    /// One frame whose packet is in several parts of `arena`. Returns the length with the header.
    #[inline]
    pub fn write_parts(&self, vnet: &VnetHeader, arena: &[u8], parts: &[Range<usize>]) -> io::Result<usize> {
        if !self.vnet_hdr {
            return parts.iter().map(|part| self.write_finished(vnet, &arena[part.clone()])).sum();
        }
        let header = &vnet.bytes()[..];
        let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_VECTORS];
        let pieces = std::iter::once(header).chain(parts.iter().map(|part| &arena[part.clone()]));
        let mut count = 0;
        for (vector, piece) in vectors.iter_mut().zip(pieces) {
            *vector = libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() };
            count += 1;
        }
        // SAFETY: the first `count` vectors describe slices that live through the call; writev only reads them.
        check_size(unsafe { libc::writev(self.file.as_raw_fd(), vectors.as_ptr(), count) })
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// `struct ifreq` with the flags member of its union.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: i16,
    pad: [u8; 22],
}

const MAX_VECTORS: usize = 260;
/// Where a UDP header has its checksum, in which zero means none.
const UDP_CHECKSUM: usize = 6;
const TUNSETIFF: c_ulong = 0x4004_54ca;
const TUNSETPERSIST: c_ulong = 0x4004_54cb;
const TUNSETOFFLOAD: c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: c_ulong = 0x4004_54d8;
const TUNSETVNETLE: c_ulong = 0x4004_54dc;
const TUN_F_CSUM: c_int = 0x01;
const TUN_F_TSO4: c_int = 0x02;
const TUN_F_TSO6: c_int = 0x04;
const TUN_F_USO4: c_int = 0x20;
const TUN_F_USO6: c_int = 0x40;
