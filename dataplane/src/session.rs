//! One established session: keys, counter, replay window and age. Limits are WireGuard's.

use std::time::Duration;

use crate::handshake::SessionKeys;
use crate::packet_cipher::PacketKey;
use crate::replay::Replay;
use crate::time::{Time, seconds};
use crate::wire::{DATA_HEADER, DATA_OVERHEAD, Header, Kind, TAG};

pub struct Session {
    send: PacketKey,
    receive: PacketKey,
    pub local_index: u32,
    pub remote_index: u32,
    instance: u32,
    counter: u64,
    pub replay: Replay,
    pub created: Time,
    /// When the peer last used it.
    pub heard: Time,
    pub initiator: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenError {
    Auth,
    Replay,
}

/// What `open` learnt besides the plaintext, which is left in place behind the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    /// No packet of this session with a higher counter came before.
    pub newest: bool,
}

impl Session {
    pub fn new(
        keys: SessionKeys,
        local_index: u32,
        remote_index: u32,
        instance: u32,
        initiator: bool,
        now: Time,
    ) -> Session {
        Session {
            send: keys.send,
            receive: keys.receive,
            local_index,
            remote_index,
            instance,
            counter: 0,
            replay: Replay::new(),
            created: now,
            heard: now,
            initiator,
        }
    }

    pub fn age(&self, now: Time) -> Duration {
        now.since(self.created)
    }

    /// Both ends initiated at once: `answered`, which we answered, was so before this one, which we initiated.
    pub fn crossed(&self, answered: &Session) -> bool {
        self.initiator && !answered.initiator && answered.created <= self.created
    }

    #[inline]
    pub fn may_send(&self, now: Time) -> bool {
        self.age(now) < REJECT_AFTER_TIME && self.counter < REJECT_AFTER_MESSAGES
    }

    /// As if so many packets had been sent.
    #[cfg(test)]
    pub fn skip_to(&mut self, counter: u64) {
        self.counter = counter;
    }

    /// The counter of the next packet sent.
    pub fn next_counter(&self) -> u64 {
        self.counter
    }

    pub fn may_receive(&self, now: Time) -> bool {
        self.age(now) < REJECT_AFTER_TIME
    }

    /// Asked when sending. Only the initiator rekeys by time, so that both ends do not do it at once.
    #[inline]
    pub fn is_old_for_sending(&self, now: Time) -> bool {
        (self.initiator && self.age(now) >= REKEY_AFTER_TIME) || self.counter >= REKEY_AFTER_MESSAGES
    }

    /// Asked when receiving, for an initiator that has nothing to send.
    #[inline]
    pub fn is_old_for_receiving(&self, now: Time) -> bool {
        self.initiator && self.age(now) >= REKEY_RECEIVER_AFTER_TIME
    }

    /// Writes header, ciphertext and tag to the start of `out` and returns their length; `None` when the counter is
    /// used up or `out` is too small.
    #[inline]
    pub fn seal(&mut self, kind: Kind, plaintext: &[u8], out: &mut [u8]) -> Option<usize> {
        let total = plaintext.len() + DATA_OVERHEAD;
        if self.counter >= REJECT_AFTER_MESSAGES || out.len() < total {
            return None;
        }
        let counter = self.counter;
        self.counter += 1;
        let header = Header { index: self.remote_index, instance: self.instance, kind }.with_counter(counter);
        let (head, rest) = out[..total].split_at_mut(DATA_HEADER);
        let (ciphertext, tag) = rest.split_at_mut(plaintext.len());
        head.copy_from_slice(&header);
        self.send.seal(counter, &header, plaintext, ciphertext, tag)?;
        Some(total)
    }

    /// Decrypts what `seal` wrote, in place, when it has to go out in another session: as `open` would at the peer.
    pub fn reopen(&self, packet: &mut [u8]) -> Option<()> {
        let (head, rest) = packet.split_first_chunk_mut::<DATA_HEADER>()?;
        let [.., c0, c1, c2, c3, c4, c5, c6, c7] = *head;
        let counter = u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]);
        self.send.open(counter, head, rest)
    }

    /// Decrypts `packet` (with its header) in place: the plaintext is `packet[DATA_HEADER..len - TAG]`.
    #[inline]
    pub fn open(&mut self, packet: &mut [u8]) -> Result<Opened, OpenError> {
        let Some((head, rest)) = packet.split_first_chunk_mut::<DATA_HEADER>() else {
            return Err(OpenError::Auth);
        };
        if rest.len() < TAG {
            return Err(OpenError::Auth);
        }
        let [.., c0, c1, c2, c3, c4, c5, c6, c7] = *head;
        let counter = u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]);
        self.receive.open(counter, head, rest).ok_or(OpenError::Auth)?;
        let newest = self.replay.is_newest(counter);
        if self.replay.accept(counter) { Ok(Opened { newest }) } else { Err(OpenError::Replay) }
    }
}

pub const REKEY_AFTER_TIME: Duration = seconds(120);
pub const REJECT_AFTER_TIME: Duration = seconds(180);
const REKEY_RECEIVER_AFTER_TIME: Duration = seconds(165);
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::{Attempt, Identity, Received, Suite};

    fn sessions() -> (Session, Session) {
        let a = Identity::new([1; 32], [9; 32], 7).unwrap();
        let b = Identity::new([2; 32], [9; 32], 7).unwrap();
        let (initiation, mut attempt) = Attempt::start(&a, Suite::AesGcm, &b.public, 5, (0, 0), None).unwrap();
        let (response, b_keys) = Received::read(&b, &initiation).unwrap().respond(&b, 6).unwrap();
        let (a_keys, index) = attempt.finish(&response).unwrap();
        let now = Time::from_millis(0);
        (Session::new(a_keys, 5, index, 7, true, now), Session::new(b_keys, 6, 5, 7, false, now))
    }

    #[test]
    fn seal_and_open() {
        let (mut a, mut b) = sessions();
        let mut packet = [0; 100];
        let length = a.seal(Kind::DataPartial, b"inner", &mut packet).unwrap();
        assert_eq!(length, 5 + DATA_OVERHEAD);
        let copy = packet;
        assert_eq!(b.open(&mut packet[..length]), Ok(Opened { newest: true }));
        assert_eq!(&packet[DATA_HEADER..length - TAG], b"inner");
        let mut again = copy;
        assert_eq!(b.open(&mut again[..length]), Err(OpenError::Replay));
        for bit in 0..length * 8 {
            let mut changed = copy;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(b.open(&mut changed[..length]), Err(OpenError::Auth), "bit {bit}");
        }
    }

    #[test]
    fn what_was_sealed_can_be_taken_back_by_its_sender_only() {
        let (mut a, b) = sessions();
        let mut packet = [0; 5 + DATA_OVERHEAD];
        a.seal(Kind::Data, b"inner", &mut packet).unwrap();
        assert_eq!(b.reopen(&mut packet.clone()), None);
        assert_eq!(a.reopen(&mut packet), Some(()));
        assert_eq!(&packet[DATA_HEADER..DATA_HEADER + 5], b"inner");
        assert_eq!(a.reopen(&mut [0; DATA_HEADER - 1]), None);
    }

    #[test]
    fn reordered_packets_are_not_newest() {
        let (mut a, mut b) = sessions();
        let mut packets = [[0; DATA_OVERHEAD]; 3];
        for packet in &mut packets {
            a.seal(Kind::Data, b"", packet).unwrap();
        }
        assert!(b.open(&mut packets[2]).unwrap().newest);
        assert!(!b.open(&mut packets[0]).unwrap().newest);
    }

    #[test]
    fn limits() {
        let (mut a, b) = sessions();
        let at = |s: u64| Time::from_millis(s * 1000);
        assert!(!a.is_old_for_sending(at(119)) && a.is_old_for_sending(at(120)) && !b.is_old_for_sending(at(150)));
        assert!(!a.is_old_for_receiving(at(164)) && a.is_old_for_receiving(at(165)));
        assert!(a.may_send(at(179)) && !a.may_send(at(180)) && !a.may_receive(at(180)));
        a.counter = REKEY_AFTER_MESSAGES;
        assert!(a.is_old_for_sending(at(0)) && a.may_send(at(0)));
        a.counter = REJECT_AFTER_MESSAGES;
        assert!(!a.may_send(at(0)));
        assert_eq!(a.seal(Kind::Data, b"", &mut [0; 64]), None);
    }
}
