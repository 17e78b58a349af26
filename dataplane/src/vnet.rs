//! `struct virtio_net_hdr`, little-endian, in front of every packet on the TUN.
//!
//! ```text
//! flags u8 | gso_type u8 | hdr_len u16 | gso_size u16 | csum_start u16 | csum_offset u16
//! ```

pub const VNET_HEADER: usize = 10;
pub const NEEDS_CSUM: u8 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VnetHeader {
    pub needs_csum: bool,
    pub gso: Gso,
    pub header_length: u16,
    pub gso_size: u16,
    pub csum_start: u16,
    pub csum_offset: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Gso {
    #[default]
    None,
    Tcp4,
    Tcp6,
    Udp,
}

impl VnetHeader {
    #[inline]
    pub fn parse(frame: &[u8]) -> Option<VnetHeader> {
        let head: &[u8; VNET_HEADER] = frame.first_chunk()?;
        let le16 = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let gso = match head[1] & !GSO_ECN {
            0 => Gso::None,
            1 => Gso::Tcp4,
            4 => Gso::Tcp6,
            5 => Gso::Udp,
            _ => return None,
        };
        Some(VnetHeader {
            needs_csum: head[0] & NEEDS_CSUM != 0,
            gso,
            header_length: le16(2),
            gso_size: le16(4),
            csum_start: le16(6),
            csum_offset: le16(8),
        })
    }

    #[inline]
    pub fn bytes(&self) -> [u8; VNET_HEADER] {
        let mut bytes = [0; VNET_HEADER];
        bytes[0] = if self.needs_csum { NEEDS_CSUM } else { 0 };
        bytes[1] = match self.gso {
            Gso::None => 0,
            Gso::Tcp4 => 1,
            Gso::Tcp6 => 4,
            Gso::Udp => 5,
        };
        bytes[2..4].copy_from_slice(&self.header_length.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.gso_size.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.csum_start.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.csum_offset.to_le_bytes());
        bytes
    }
}

const GSO_ECN: u8 = 0x80;
