//! The AEAD of data and control packets: nonce 4 zero octets and the counter, associated data the packet's header.
//!
//! With the feature `bench-plaintext` nothing is encrypted or checked, to measure what the encryption costs. Such a
//! build says so in its handshakes' prologue, and so can talk to nobody but its like.

use aws_lc_rs::aead::LessSafeKey;
#[cfg(not(feature = "bench-plaintext"))]
use aws_lc_rs::aead::{Aad, Nonce};

use crate::wire::DATA_HEADER;
#[cfg(feature = "bench-plaintext")]
use crate::wire::TAG;

#[cfg(not(feature = "bench-plaintext"))]
pub const PROLOGUE: &[u8] = b"Stayput tunnel v1";
#[cfg(feature = "bench-plaintext")]
pub const PROLOGUE: &[u8] = b"Stayput bench, nothing encrypted";

#[cfg(not(feature = "bench-plaintext"))]
#[inline]
pub fn seal(
    key: &LessSafeKey,
    counter: u64,
    header: &[u8; DATA_HEADER],
    plaintext: &[u8],
    ciphertext: &mut [u8],
    tag: &mut [u8],
) -> Option<()> {
    key.seal_out_of_place_scatter(nonce(counter), Aad::from(header), plaintext, ciphertext, &[], tag).ok()
}

/// Decrypts in place; `sealed` is the ciphertext and its tag.
#[cfg(not(feature = "bench-plaintext"))]
#[inline]
pub fn open(key: &LessSafeKey, counter: u64, header: &[u8; DATA_HEADER], sealed: &mut [u8]) -> Option<()> {
    key.open_in_place(nonce(counter), Aad::from(header), sealed).ok().map(|_| ())
}

#[cfg(not(feature = "bench-plaintext"))]
#[inline]
fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(feature = "bench-plaintext")]
#[inline]
pub fn seal(
    _key: &LessSafeKey,
    _counter: u64,
    _header: &[u8; DATA_HEADER],
    plaintext: &[u8],
    ciphertext: &mut [u8],
    tag: &mut [u8],
) -> Option<()> {
    ciphertext.copy_from_slice(plaintext);
    tag.fill(0);
    Some(())
}

#[cfg(feature = "bench-plaintext")]
#[inline]
pub fn open(_key: &LessSafeKey, _counter: u64, _header: &[u8; DATA_HEADER], sealed: &mut [u8]) -> Option<()> {
    (sealed.len() >= TAG).then_some(())
}
