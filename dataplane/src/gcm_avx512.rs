//! AES-256-GCM for CPUs with VAES, VPCLMULQDQ and AVX-512, with as little as possible done once per packet.
//!
//! The counter mode and GHASH are BoringSSL's assembler, instruction by instruction. What is here is what surrounds it
//! in BoringSSL, cut down to the packets of this tunnel: a key is expanded once, the nonce is 96 bits, and the
//! associated data is exactly one block. The ciphertext is that of any AES-256-GCM; `is_sound` compares it with
//! aws-lc's before the first packet, and the tests do for every length.

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::{
        __m128i, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_aeskeygenassist_si128, _mm_loadu_si128, _mm_shuffle_epi32,
        _mm_slli_si128, _mm_storeu_si128, _mm_xor_si128,
    };
    use std::hint::black_box;

    use zeroize::Zeroize;

    use super::{BLOCK, NONCE};

    std::arch::global_asm!(include_str!("gcm_avx512/aes-gcm-avx512-x86_64-linux.S"), options(att_syntax, raw));

    unsafe extern "C" {
        /// Powers of H, given as two words in the host's order.
        fn gcm_init_vpclmulqdq_avx512(powers: *mut [u8; POWERS], h: *const [u64; 2]);
        /// xi becomes xi times H.
        fn gcm_gmult_vpclmulqdq_avx512(xi: *mut [u8; BLOCK], powers: *const [u8; POWERS]);
        /// Encrypts `length` octets from counter block `counter` on and adds the ciphertext to xi.
        fn aes_gcm_enc_update_vaes_avx512(
            input: *const u8,
            output: *mut u8,
            length: usize,
            schedule: *const Schedule,
            counter: *const [u8; BLOCK],
            powers: *const [u8; POWERS],
            xi: *mut [u8; BLOCK],
        );
        /// As above, but decrypts.
        fn aes_gcm_dec_update_vaes_avx512(
            input: *const u8,
            output: *mut u8,
            length: usize,
            schedule: *const Schedule,
            counter: *const [u8; BLOCK],
            powers: *const [u8; POWERS],
            xi: *mut [u8; BLOCK],
        );
    }

    /// BoringSSL's AES_KEY: the round keys in the order of their octets, and the number of rounds less one.
    #[repr(C)]
    struct Schedule {
        round_keys: [[u8; BLOCK]; ROUNDS + 1],
        rounds: u32,
    }

    #[repr(C, align(64))]
    pub struct Key {
        /// H^16 to H^1.
        powers: [u8; POWERS],
        schedule: Schedule,
    }

    impl Key {
        /// None when this CPU lacks one of the instructions.
        pub fn new(key: &[u8; 32]) -> Option<Box<Key>> {
            if !is_supported() {
                return None;
            }
            let schedule = Schedule { round_keys: [[0; BLOCK]; ROUNDS + 1], rounds: ROUNDS as u32 - 1 };
            let mut made = Box::new(Key { powers: [0; POWERS], schedule });
            // SAFETY: the CPU has AES instructions, see is_supported.
            unsafe { expand(key, &mut made.schedule.round_keys) };
            // SAFETY: as above.
            let h = u128::from_be_bytes(unsafe { made.block([0; BLOCK]) });
            let mut halves = [(h >> 64) as u64, h as u64];
            // SAFETY: the CPU has VPCLMULQDQ and AVX-512; both pointers are to memory of the size that is named.
            unsafe { gcm_init_vpclmulqdq_avx512(&raw mut made.powers, &raw const halves) };
            halves.zeroize();
            Some(made)
        }

        /// `ciphertext` is as long as `plaintext`.
        #[inline]
        pub fn seal(
            &self,
            nonce: [u8; NONCE],
            associated: [u8; BLOCK],
            plaintext: &[u8],
            ciphertext: &mut [u8],
        ) -> Option<[u8; BLOCK]> {
            if plaintext.len() != ciphertext.len() {
                return None;
            }
            let (mut xi, counter, mask) = self.begin(nonce, associated);
            // SAFETY: a Key exists only where the CPU has the instructions; input and output are of this length and
            // apart, as one of them is borrowed mutably; the others are of the types that are named.
            unsafe {
                aes_gcm_enc_update_vaes_avx512(
                    plaintext.as_ptr(),
                    ciphertext.as_mut_ptr(),
                    plaintext.len(),
                    &raw const self.schedule,
                    &raw const counter,
                    &raw const self.powers,
                    &raw mut xi,
                );
            }
            Some((u128::from_ne_bytes(self.end(xi, plaintext.len())) ^ mask).to_ne_bytes())
        }

        /// Decrypts in place. False, and zeros for a plaintext, if the tag is another.
        #[inline]
        #[must_use]
        pub fn open(&self, nonce: [u8; NONCE], associated: [u8; BLOCK], text: &mut [u8], tag: [u8; BLOCK]) -> bool {
            let (mut xi, counter, mask) = self.begin(nonce, associated);
            let place = text.as_mut_ptr();
            // SAFETY: as in seal; input and output may be the same, each vector is read before it is written.
            unsafe {
                aes_gcm_dec_update_vaes_avx512(
                    place,
                    place,
                    text.len(),
                    &raw const self.schedule,
                    &raw const counter,
                    &raw const self.powers,
                    &raw mut xi,
                );
            }
            let difference = u128::from_ne_bytes(self.end(xi, text.len())) ^ mask ^ u128::from_ne_bytes(tag);
            // In one step, so that nobody learns from the time how much of a tag was right.
            let same = black_box(difference as u64 | (difference >> 64) as u64) == 0;
            if !same {
                text.fill(0);
            }
            same
        }

        /// GHASH of the associated data, the counter block of the first octets, and what masks the tag.
        #[inline]
        fn begin(&self, nonce: [u8; NONCE], associated: [u8; BLOCK]) -> ([u8; BLOCK], [u8; BLOCK], u128) {
            let mut counter = [0; BLOCK];
            counter[..NONCE].copy_from_slice(&nonce);
            counter[BLOCK - 1] = 1;
            // SAFETY: a Key exists only where the CPU has AES instructions.
            let mask = u128::from_ne_bytes(unsafe { self.block(counter) });
            counter[BLOCK - 1] = 2;
            (self.times_h(associated), counter, mask)
        }

        /// GHASH of the lengths.
        #[inline]
        fn end(&self, xi: [u8; BLOCK], length: usize) -> [u8; BLOCK] {
            let lengths = ((BLOCK as u128 * 8) << 64) | (length as u128 * 8);
            self.times_h((u128::from_be_bytes(xi) ^ lengths).to_be_bytes())
        }

        #[inline]
        fn times_h(&self, mut xi: [u8; BLOCK]) -> [u8; BLOCK] {
            // SAFETY: a Key exists only where the CPU has the instructions; the pointers are to what is named.
            unsafe { gcm_gmult_vpclmulqdq_avx512(&raw mut xi, &raw const self.powers) };
            xi
        }

        /// One block of AES.
        #[inline]
        #[target_feature(enable = "aes,avx")]
        fn block(&self, input: [u8; BLOCK]) -> [u8; BLOCK] {
            let keys = &self.schedule.round_keys;
            let mut state = _mm_xor_si128(load(&input), load(&keys[0]));
            for key in &keys[1..ROUNDS] {
                state = _mm_aesenc_si128(state, load(key));
            }
            store(_mm_aesenclast_si128(state, load(&keys[ROUNDS])))
        }
    }

    impl Drop for Key {
        fn drop(&mut self) {
            self.powers.zeroize();
            self.schedule.round_keys.zeroize();
        }
    }

    fn is_supported() -> bool {
        use std::arch::is_x86_feature_detected as has;
        has!("aes")
            && has!("avx")
            && has!("vaes")
            && has!("vpclmulqdq")
            && has!("avx512f")
            && has!("avx512bw")
            && has!("avx512vl")
            && has!("bmi2")
    }

    /// FIPS 197, section 5.2, for 256 bits.
    #[target_feature(enable = "aes,avx")]
    fn expand(key: &[u8; 32], round_keys: &mut [[u8; BLOCK]; ROUNDS + 1]) {
        let (first, second) = key.split_at(BLOCK);
        round_keys[0].copy_from_slice(first);
        round_keys[1].copy_from_slice(second);
        macro_rules! next {
            ($at:literal, $constant:literal) => {
                let (two_before, before) = (load(&round_keys[$at - 2]), load(&round_keys[$at - 1]));
                // The word that goes into all four: rotated and with the constant for every other key.
                let word = match $at % 2 {
                    0 => _mm_shuffle_epi32::<0xff>(_mm_aeskeygenassist_si128::<$constant>(before)),
                    _ => _mm_shuffle_epi32::<0xaa>(_mm_aeskeygenassist_si128::<0>(before)),
                };
                round_keys[$at] = store(_mm_xor_si128(prefix_sums(two_before), word));
            };
        }
        next!(2, 1);
        next!(3, 0);
        next!(4, 2);
        next!(5, 0);
        next!(6, 4);
        next!(7, 0);
        next!(8, 8);
        next!(9, 0);
        next!(10, 16);
        next!(11, 0);
        next!(12, 32);
        next!(13, 0);
        next!(14, 64);
    }

    /// Each word becomes the sum of itself and those before it.
    #[inline]
    #[target_feature(enable = "avx")]
    fn prefix_sums(words: __m128i) -> __m128i {
        let pairs = _mm_xor_si128(words, _mm_slli_si128::<4>(words));
        _mm_xor_si128(pairs, _mm_slli_si128::<8>(pairs))
    }

    #[inline]
    #[target_feature(enable = "avx")]
    fn load(block: &[u8; BLOCK]) -> __m128i {
        // SAFETY: 16 octets can be read; no alignment is needed.
        unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx")]
    fn store(value: __m128i) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        // SAFETY: 16 octets can be written; no alignment is needed.
        unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), value) };
        block
    }

    const ROUNDS: usize = 14;
    const POWERS: usize = 16 * BLOCK;
}

#[cfg(not(target_arch = "x86_64"))]
mod x86_64 {
    use super::{BLOCK, NONCE};

    /// Never made.
    pub enum Key {}

    impl Key {
        pub fn new(_key: &[u8; 32]) -> Option<Box<Key>> {
            None
        }

        pub fn seal(
            &self,
            _nonce: [u8; NONCE],
            _associated: [u8; BLOCK],
            _plaintext: &[u8],
            _ciphertext: &mut [u8],
        ) -> Option<[u8; BLOCK]> {
            match *self {}
        }

        pub fn open(&self, _nonce: [u8; NONCE], _associated: [u8; BLOCK], _text: &mut [u8], _tag: [u8; BLOCK]) -> bool {
            match *self {}
        }
    }
}

use std::sync::OnceLock;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

pub use x86_64::Key;

use crate::log;

/// Whether this CPU has the instructions and what they make is what aws-lc makes; found out once.
pub fn is_sound() -> bool {
    static SOUND: OnceLock<bool> = OnceLock::new();
    *SOUND.get_or_init(|| {
        let key = [0x5a; 32];
        let (Some(own), Ok(library)) = (Key::new(&key), UnboundKey::new(&AES_256_GCM, &key)) else { return false };
        let library = LessSafeKey::new(library);
        let sound = LENGTHS_TO_COMPARE.into_iter().all(|length| agrees(&own, &library, length));
        if !sound {
            log::warn("AES-GCM on AVX-512 gave a wrong result; going on without it", &[]);
        }
        sound
    })
}

/// Whether both seal the same way a text of that length, and only what was not changed is opened.
fn agrees(own: &Key, library: &LessSafeKey, length: usize) -> bool {
    let nonce: [u8; NONCE] = std::array::from_fn(|i| (length + i) as u8);
    let associated: [u8; BLOCK] = std::array::from_fn(|i| (length * 3 + i) as u8);
    let plaintext: Vec<u8> = (0..length).map(|i| (i * 7 + length) as u8).collect();
    let mut theirs = plaintext.clone();
    let unique = Nonce::assume_unique_for_key(nonce);
    let Ok(tag) = library.seal_in_place_separate_tag(unique, Aad::from(associated), &mut theirs) else { return false };
    let mut ours = vec![0; length];
    let Some(own_tag) = own.seal(nonce, associated, &plaintext, &mut ours) else { return false };
    let mut damaged = ours.clone();
    let mut wrong_tag = own_tag;
    wrong_tag[length % BLOCK] ^= 1;
    own_tag == tag.as_ref()
        && ours == theirs
        && own.open(nonce, associated, &mut ours, own_tag)
        && ours == plaintext
        && !own.open(nonce, associated, &mut damaged, wrong_tag)
        && damaged.iter().all(|octet| *octet == 0)
}

pub const BLOCK: usize = 16;
pub const NONCE: usize = 12;
/// Around the lengths at which the assembler takes another path: blocks, vectors, and four of them.
const LENGTHS_TO_COMPARE: [usize; 14] = [0, 1, 15, 16, 17, 63, 64, 65, 255, 256, 257, 512, 1420, 9000];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_as_the_library_seals_it() {
        let key: [u8; 32] = std::array::from_fn(|i| (i * 11 + 3) as u8);
        let Some(own) = Key::new(&key) else { return assert!(!is_sound()) };
        assert!(is_sound());
        let library = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
        let lengths = (0..2100).chain([4095, 4096, 9000, 65_535]);
        let differing: Vec<usize> = lengths.filter(|length| !agrees(&own, &library, *length)).collect();
        assert!(differing.is_empty(), "{differing:?}");
    }

    #[test]
    fn any_changed_bit_is_noticed() {
        let Some(key) = Key::new(&[9; 32]) else { return };
        let (nonce, associated, plaintext) = ([1; NONCE], [2; BLOCK], [3; 100]);
        let mut sealed = [0; 100];
        let tag = key.seal(nonce, associated, &plaintext, &mut sealed).unwrap();
        let flip = |bytes: &mut [u8], bit: usize| bytes[bit / 8] ^= 1 << (bit % 8);
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed;
            flip(&mut changed, bit);
            assert!(!key.open(nonce, associated, &mut changed, tag), "text {bit}");
        }
        for bit in 0..BLOCK * 8 {
            let (mut changed, mut other_tag, mut other_associated) = (sealed, tag, associated);
            flip(&mut other_tag, bit);
            assert!(!key.open(nonce, associated, &mut changed, other_tag), "tag {bit}");
            flip(&mut other_associated, bit);
            assert!(!key.open(nonce, other_associated, &mut sealed.clone(), tag), "associated data {bit}");
        }
        for bit in 0..NONCE * 8 {
            let mut other = nonce;
            flip(&mut other, bit);
            assert!(!key.open(other, associated, &mut sealed.clone(), tag), "nonce {bit}");
        }
        assert!(key.open(nonce, associated, &mut sealed, tag) && sealed == plaintext);
    }

    #[test]
    fn places_of_any_alignment_are_left_alone_around_the_text() {
        let Some(key) = Key::new(&[9; 32]) else { return };
        for start in 0..64 {
            for length in [1, 40, 64, 200, 300] {
                let text = vec![7; length];
                let mut place = vec![0xee; 64 + length + 64];
                let range = start..start + length;
                let tag = key.seal([0; NONCE], [0; BLOCK], &text, &mut place[range.clone()]).unwrap();
                assert!(key.open([0; NONCE], [0; BLOCK], &mut place[range.clone()], tag));
                assert_eq!(place[range.clone()], text);
                place[range].fill(0xee);
                assert!(place.iter().all(|octet| *octet == 0xee));
            }
        }
    }
}
