//! The outer packet behind IP/UDP: a LISP header (RFC 9300 section 5) and what follows it.
//!
//! ```text
//!  0               1               2               3
//! +---------------+-----------------------------------------------+
//! | 0x89 N,I,KK=01|      receiver's session index (24 bits)       |
//! +---------------+-------------------------------+---------------+
//! |           instance ID (24 bits)               |  packet kind  |
//! +-----------------------------------------------+---------------+
//! data, control:  counter u64 | ciphertext | tag 16
//! initiation:     sender index u32 | suite u8 | 0 0 0 | noise 1 (112) | mac1 16 | mac2 16
//! response:       sender index u32 | noise 2 (48) | mac1 16 | mac2 16
//! cookie reply:   nonce 12 | sealed cookie 16 + 16
//! ```
//! `docs/wire-format.md` is the full description.

use std::borrow::Cow;

pub const LISP_HEADER: usize = 8;
/// LISP header and counter: the associated data of data and control packets.
pub const DATA_HEADER: usize = 16;
pub const TAG: usize = 16;
pub const DATA_OVERHEAD: usize = DATA_HEADER + TAG;
pub const NOISE_1: usize = 112;
pub const NOISE_2: usize = 48;
pub const MAC: usize = 16;
pub const INITIATION: usize = LISP_HEADER + 8 + NOISE_1 + 2 * MAC;
pub const RESPONSE: usize = LISP_HEADER + 4 + NOISE_2 + 2 * MAC;
pub const COOKIE_REPLY: usize = LISP_HEADER + 12 + 16 + TAG;
pub const INDEX_MASK: u32 = 0xff_ffff;

/// Where the octet is that tells the kind.
pub const KIND: usize = 7;

const FLAGS: u8 = 0x89;
pub const KK_MASK: u8 = 0x03;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    Data = 0x00,
    /// The L4 checksum of the inner packet holds the pseudo-header sum only.
    DataPartial = 0x01,
    Initiation = 0x10,
    Response = 0x11,
    CookieReply = 0x12,
    Control = 0x20,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub index: u32,
    pub instance: u32,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderError {
    Malformed,
    /// KK = 0: RFC 9300 without encryption.
    Plaintext,
}

impl Header {
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Header, HeaderError> {
        let Some(head) = packet.first_chunk::<LISP_HEADER>() else {
            return Err(HeaderError::Malformed);
        };
        if head[0] & KK_MASK == 0 {
            return Err(HeaderError::Plaintext);
        }
        if head[0] != FLAGS {
            return Err(HeaderError::Malformed);
        }
        let (kind, length_ok) = match head[KIND] {
            0x00 => (Kind::Data, packet.len() >= DATA_OVERHEAD),
            0x01 => (Kind::DataPartial, packet.len() >= DATA_OVERHEAD),
            0x10 => (Kind::Initiation, packet.len() == INITIATION),
            0x11 => (Kind::Response, packet.len() == RESPONSE),
            0x12 => (Kind::CookieReply, packet.len() == COOKIE_REPLY),
            0x20 => (Kind::Control, packet.len() >= DATA_OVERHEAD + Control::LENGTH),
            _ => return Err(HeaderError::Malformed),
        };
        if !length_ok {
            return Err(HeaderError::Malformed);
        }
        Ok(Header {
            index: u32::from_be_bytes([0, head[1], head[2], head[3]]),
            instance: u32::from_be_bytes([0, head[4], head[5], head[6]]),
            kind,
        })
    }

    /// The receiver's session index of a data or control packet that somebody quotes.
    pub fn quoted_index(head: &[u8; DATA_HEADER]) -> Option<u32> {
        let sealed = [Kind::Data as u8, Kind::DataPartial as u8, Kind::Control as u8].contains(&head[KIND]);
        (head[0] == FLAGS && sealed).then_some(u32::from_be_bytes([0, head[1], head[2], head[3]]))
    }

    #[inline]
    pub fn bytes(self) -> [u8; LISP_HEADER] {
        let index = self.index.to_be_bytes();
        let instance = self.instance.to_be_bytes();
        [FLAGS, index[1], index[2], index[3], instance[1], instance[2], instance[3], self.kind as u8]
    }

    /// The associated data of a data or control packet.
    #[inline]
    pub fn with_counter(self, counter: u64) -> [u8; DATA_HEADER] {
        let mut bytes = [0; DATA_HEADER];
        bytes[..LISP_HEADER].copy_from_slice(&self.bytes());
        bytes[LISP_HEADER..].copy_from_slice(&counter.to_be_bytes());
        bytes
    }
}

/// Session control, the plaintext of a packet of kind 0x20: type u8 | token u64 | what the type adds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    ProbeRequest(u64),
    ProbeReply(u64),
    Keepalive,
    /// This process has had no session with the peer before: what went to another one may be lost. Of sessions that it
    /// has answered and that were not used yet, it has the ends: `all` when they are too many to be named.
    Started(Answered),
    /// Asks whether a path works; neither it nor its reply moves the peer.
    PathRequest(u64),
    PathReply(u64),
    /// A `Report`, which is parsed by itself.
    Report,
    /// Padded to the size that is tried.
    SizeProbe(u64),
    SizeReply(u64),
    /// Of a later version: ignored.
    Unknown,
}

impl Control {
    pub const LENGTH: usize = 9;

    pub fn parse(plaintext: &[u8]) -> Option<Control> {
        let (&kind, token) = plaintext.split_first()?;
        if kind == SIZE_PROBE {
            return token.first_chunk().map(|token| Control::SizeProbe(u64::from_be_bytes(*token)));
        }
        let token = token.try_into().ok().map(u64::from_be_bytes);
        match kind {
            1 => token.map(Control::ProbeRequest),
            2 => token.map(Control::ProbeReply),
            3 => token.map(|_| Control::Keepalive),
            STARTED => token.map(|token| Control::Started(Answered::from_token(token))),
            PATH_REQUEST => token.map(Control::PathRequest),
            PATH_REPLY => token.map(Control::PathReply),
            REPORT | REPORT_REPLY => Some(Control::Report),
            SIZE_REPLY => token.map(Control::SizeReply),
            _ => Some(Control::Unknown),
        }
    }

    /// Says something of the path it came by, and nothing of the one in use.
    #[inline]
    pub fn is_about_path(plaintext: &[u8]) -> bool {
        matches!(plaintext.first(), Some(&(PATH_REQUEST | PATH_REPLY)))
    }

    pub fn bytes(self) -> [u8; Control::LENGTH] {
        let (kind, token) = match self {
            Control::ProbeRequest(token) => (1, token),
            Control::ProbeReply(token) => (2, token),
            Control::SizeProbe(token) => (SIZE_PROBE, token),
            Control::SizeReply(token) => (SIZE_REPLY, token),
            Control::PathRequest(token) => (PATH_REQUEST, token),
            Control::PathReply(token) => (PATH_REPLY, token),
            Control::Started(answered) => (STARTED, answered.token()),
            Control::Keepalive | Control::Report | Control::Unknown => (3, 0),
        };
        let mut bytes = [kind; Control::LENGTH];
        bytes[1..].copy_from_slice(&token.to_be_bytes());
        bytes
    }
}

/// Sessions of one peer, by the indices that packets to their answering end carry: up to two, or all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answered([u32; 2]);

impl Answered {
    pub const NONE: Answered = Answered([0; 2]);
    pub const ALL: Answered = Answered([u32::MAX; 2]);

    pub fn new(indices: &[u32]) -> Answered {
        match *indices {
            [] => Answered::NONE,
            [one] => Answered([0, one]),
            [one, other] => Answered([one, other]),
            _ => Answered::ALL,
        }
    }

    pub fn contains(self, index: u32) -> bool {
        self == Answered::ALL || self.0.contains(&index)
    }

    fn from_token(token: u64) -> Answered {
        Answered([(token >> 32) as u32, token as u32])
    }

    fn token(self) -> u64 {
        u64::from(self.0[0]) << 32 | u64::from(self.0[1])
    }
}

/// Session control that says what has been received of one session: type u8 | token u64 | roam u64 | index u32 |
/// first u64 | next u64 | a bit for each counter from first to next - 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report<'a> {
    /// In answer to a report with the same token and roam.
    pub reply: bool,
    pub token: u64,
    pub roam: u64,
    /// The session, by the index that its packets to the reporter carry.
    pub index: u32,
    /// Everything below was received, or would not be taken any more.
    pub first: u64,
    /// Nothing from here on was received.
    pub next: u64,
    /// The lowest bit of the first octet stands for `first`; 1 is received.
    pub bits: Cow<'a, [u8]>,
}

impl Report<'_> {
    const HEAD: usize = 37;

    pub fn parse(plaintext: &[u8]) -> Option<Report<'_>> {
        let (head, bits) = plaintext.split_first_chunk::<{ Report::HEAD }>()?;
        let reply = match head[0] {
            REPORT => false,
            REPORT_REPLY => true,
            _ => return None,
        };
        let u64_at = |at: usize| head[at..].first_chunk().map_or(0, |octets| u64::from_be_bytes(*octets));
        let index = u32::from_be_bytes([head[17], head[18], head[19], head[20]]);
        let (first, next) = (u64_at(21), u64_at(29));
        let span = next.checked_sub(first)?;
        if span > MAX_REPORTED || bits.len() as u64 != span.div_ceil(8) {
            return None;
        }
        Some(Report { reply, token: u64_at(1), roam: u64_at(9), index, first, next, bits: bits.into() })
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![if self.reply { REPORT_REPLY } else { REPORT }];
        bytes.extend_from_slice(&self.token.to_be_bytes());
        bytes.extend_from_slice(&self.roam.to_be_bytes());
        bytes.extend_from_slice(&self.index.to_be_bytes());
        bytes.extend_from_slice(&self.first.to_be_bytes());
        bytes.extend_from_slice(&self.next.to_be_bytes());
        bytes.extend_from_slice(&self.bits);
        bytes
    }

    /// Whether sending `counter` again would be of use.
    pub fn is_missing(&self, counter: u64) -> bool {
        let Some(at) = counter.checked_sub(self.first) else { return false };
        counter >= self.next || self.bits.get((at / 8) as usize).is_none_or(|octet| octet & (1 << (at % 8)) == 0)
    }
}

const REPORT: u8 = 4;
const REPORT_REPLY: u8 = 5;
const SIZE_PROBE: u8 = 16;
const SIZE_REPLY: u8 = 17;
const PATH_REQUEST: u8 = 6;
const PATH_REPLY: u8 = 7;
const STARTED: u8 = 8;
const MAX_REPORTED: u64 = crate::replay::WINDOW;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trip() {
        for kind in [Kind::Data, Kind::DataPartial] {
            let header = Header { index: 0xabcdef, instance: 0x010203, kind };
            let mut packet = header.with_counter(7).to_vec();
            packet.resize(64, 0);
            assert_eq!(&packet[..8], &[0x89, 0xab, 0xcd, 0xef, 1, 2, 3, kind as u8]);
            assert_eq!(Header::parse(&packet), Ok(header));
        }
    }

    #[test]
    fn garbage_is_refused_without_panic() {
        let mut state = 1u64;
        for length in 0..300 {
            let packet: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                    (state >> 33) as u8
                })
                .collect();
            let _ = Header::parse(&packet);
            let _ = Control::parse(&packet);
        }
        assert_eq!(Header::parse(&[0x88; 64]), Err(HeaderError::Plaintext));
        assert_eq!(Header::parse(&[0x89; 7]), Err(HeaderError::Malformed));
        let mut short = Header { index: 1, instance: 0, kind: Kind::Data }.with_counter(0).to_vec();
        short.resize(DATA_OVERHEAD - 1, 0);
        assert_eq!(Header::parse(&short), Err(HeaderError::Malformed));
    }

    #[test]
    fn a_process_names_the_sessions_it_has_answered() {
        let contains = |indices: &[u32]| [7, 8, 9].map(|index| Answered::new(indices).contains(index));
        assert_eq!(contains(&[]), [false; 3]);
        assert_eq!(contains(&[7]), [true, false, false]);
        assert_eq!(contains(&[7, 9]), [true, false, true]);
        assert_eq!(contains(&[7, 9, 1]), [true; 3], "too many to be named");
        assert_eq!(Control::parse(&[8, 0, 0, 0, 0, 0, 0, 0, 0]), Some(Control::Started(Answered::NONE)));
    }

    #[test]
    fn control_round_trip() {
        let size = [Control::SizeProbe(3), Control::SizeReply(u64::MAX)];
        let others = [Control::ProbeRequest(u64::MAX), Control::ProbeReply(1), Control::Keepalive];
        let started = [&[][..], &[7], &[7, 8], &[7, 8, 9]].map(|indices| Control::Started(Answered::new(indices)));
        for control in others.into_iter().chain(size).chain(started) {
            assert_eq!(Control::parse(&control.bytes()), Some(control));
        }
        let padded = [&Control::SizeProbe(3).bytes()[..], &[0; 1400]].concat();
        assert_eq!(Control::parse(&padded), Some(Control::SizeProbe(3)));
        assert_eq!(Control::parse(&[16; 8]), None);
        assert_eq!(Control::parse(&[9; 9]), Some(Control::Unknown));
        assert_eq!(Control::parse(&[1; 10]), None);
        assert_eq!(Control::parse(&[]), None);
    }

    #[test]
    fn report_round_trip() {
        let report = Report {
            reply: true,
            token: 1,
            roam: 2,
            index: 0xabcdef,
            first: 100,
            next: 110,
            bits: vec![0b1010_0000, 0b10].into(),
        };
        let bytes = report.bytes();
        assert_eq!(Control::parse(&bytes), Some(Control::Report));
        assert_eq!(Report::parse(&bytes), Some(report.clone()));
        let missing: Vec<u64> = (95..115).filter(|c| report.is_missing(*c)).collect();
        assert_eq!(missing, [100, 101, 102, 103, 104, 106, 108, 110, 111, 112, 113, 114]);
        for length in 0..bytes.len() {
            assert_eq!(Report::parse(&bytes[..length]), None);
        }
        let backwards = Report { first: 111, ..report.clone() };
        assert_eq!(Report::parse(&backwards.bytes()), None);
        let huge = Report { first: 0, next: u64::MAX, ..report };
        assert_eq!(Report::parse(&huge.bytes()), None);
    }
}
