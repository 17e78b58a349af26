//! The AEAD of data and control packets: nonce 4 zero octets and the counter, associated data the packet's header.
//!
//! AES-256-GCM is aws-lc's, or `gcm_avx512` where the CPU has what it needs, which costs less per packet; the octets are
//! the same. With the feature `bench-plaintext` nothing is encrypted or checked, to measure what the encryption costs.
//! Such a build says so in its handshakes' prologue, and so can talk to nobody but its like.

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};

use crate::FUZZED;
use crate::gcm_avx512;
use crate::handshake::Suite;
use crate::wire::{DATA_HEADER, TAG};

/// For one direction of one session.
pub struct PacketKey(Cipher);

enum Cipher {
    Avx512(Box<gcm_avx512::Key>),
    Library(LessSafeKey),
}

impl PacketKey {
    pub fn new(suite: Suite, key: &[u8; 32]) -> Option<PacketKey> {
        if suite == Suite::AesGcm && gcm_avx512::is_sound() {
            return gcm_avx512::Key::new(key).map(|key| PacketKey(Cipher::Avx512(key)));
        }
        suite.aead(key).map(|key| PacketKey(Cipher::Library(key)))
    }

    /// `ciphertext` is as long as `plaintext`.
    #[inline]
    pub fn seal(
        &self,
        counter: u64,
        header: &[u8; DATA_HEADER],
        plaintext: &[u8],
        ciphertext: &mut [u8],
        tag: &mut [u8],
    ) -> Option<()> {
        if NOTHING_ENCRYPTED {
            ciphertext.copy_from_slice(plaintext);
            tag.fill(0);
            return Some(());
        }
        match &self.0 {
            Cipher::Avx512(key) => {
                tag.copy_from_slice(&key.seal(nonce(counter), *header, plaintext, ciphertext)?);
                Some(())
            }
            Cipher::Library(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce(counter));
                key.seal_out_of_place_scatter(nonce, Aad::from(header), plaintext, ciphertext, &[], tag).ok()
            }
        }
    }

    /// Decrypts in place; `sealed` is the ciphertext and its tag.
    #[inline]
    pub fn open(&self, counter: u64, header: &[u8; DATA_HEADER], sealed: &mut [u8]) -> Option<()> {
        let (text, tag) = sealed.split_last_chunk_mut::<TAG>()?;
        if NOTHING_ENCRYPTED {
            return Some(());
        }
        match &self.0 {
            Cipher::Avx512(key) => key.open(nonce(counter), *header, text, *tag).then_some(()),
            Cipher::Library(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce(counter));
                key.open_in_place_separate_tag(nonce, Aad::from(header), tag, text).ok().map(|_| ())
            }
        }
    }
}

#[inline]
fn nonce(counter: u64) -> [u8; gcm_avx512::NONCE] {
    let mut bytes = [0; gcm_avx512::NONCE];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    bytes
}

const NOTHING_ENCRYPTED: bool = cfg!(feature = "bench-plaintext");
pub const PROLOGUE: &[u8] = match (NOTHING_ENCRYPTED, FUZZED) {
    (true, _) => b"Stayput bench, nothing encrypted",
    (false, true) => b"Stayput fuzz, nothing secret",
    (false, false) => b"Stayput tunnel v1",
};
