//! Noise_IKpsk2_25519_AESGCM_SHA256 once more, by the specification and apart from snow: what somebody computes who
//! has captured packets, has stolen keys, or puts in points of his own choice.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::{digest, hmac};

use crate::packet_cipher::PROLOGUE;
use crate::wire::{LISP_HEADER, NOISE_1, NOISE_2};
use crate::x25519::public_key;

pub type Key = [u8; 32];

/// What is on the disks of both ends.
pub struct Stolen {
    pub initiator: Key,
    pub responder: Key,
    pub preshared: Key,
    pub instance: u32,
}

impl Stolen {
    /// Every secret that the stolen keys give with any point that was seen, and no secret at all.
    pub fn secrets(&self, initiation: &[u8], response: &[u8]) -> Vec<Key> {
        let keys = [self.initiator, self.responder];
        let seen = [ephemeral_1(initiation), ephemeral_2(response)];
        let points = keys.iter().filter_map(public_key).chain(seen);
        points.flat_map(|point| keys.map(|key| dh(&key, &point))).chain([[0; 32], self.preshared]).collect()
    }

    /// The chaining key at the end, and the keys of both directions, if one of `secrets` is what both ephemeral keys
    /// have in common.
    pub fn open(&self, initiation: &[u8], response: &[u8], secrets: &[Key]) -> Option<(Key, [Key; 2])> {
        let public = |private| public_key(private).unwrap();
        let mut state = Symmetric::start(self.instance, &public(&self.responder));
        let noise = &initiation[LISP_HEADER + 8..][..NOISE_1];
        let from = ephemeral_1(initiation);
        state.mix_hash(&from);
        state.mix_key(&from);
        state.mix_key(&dh(&self.responder, &from));
        assert_eq!(state.decrypt(&noise[32..80])?, public(&self.initiator));
        state.mix_key(&dh(&self.initiator, &public(&self.responder)));
        state.decrypt(&noise[80..])?;
        let back = ephemeral_2(response);
        state.mix_hash(&back);
        state.mix_key(&back);
        secrets.iter().find_map(|common| {
            let mut state = state.clone();
            state.mix_key(common);
            state.mix_key(&dh(&self.initiator, &back));
            state.mix_key_and_hash(&self.preshared);
            state.decrypt(&response[LISP_HEADER + 4 + 32..][..NOISE_2 - 32])?;
            Some((state.chaining, state.split()))
        })
    }
}

#[derive(Clone)]
pub struct Symmetric {
    chaining: Key,
    hash: Key,
    key: Key,
}

impl Symmetric {
    pub fn start(instance: u32, responder: &Key) -> Symmetric {
        let name = *b"Noise_IKpsk2_25519_AESGCM_SHA256";
        let mut state = Symmetric { chaining: name, hash: name, key: [0; 32] };
        state.mix_hash(&[PROLOGUE, &[1], &instance.to_be_bytes()[1..]].concat());
        state.mix_hash(responder);
        state
    }

    pub fn mix_hash(&mut self, octets: &[u8]) {
        let hash = digest::digest(&digest::SHA256, &[&self.hash, octets].concat());
        self.hash = hash.as_ref().try_into().unwrap();
    }

    pub fn mix_key(&mut self, input: &[u8]) {
        [self.chaining, self.key] = hkdf(&self.chaining, input);
    }

    pub fn mix_key_and_hash(&mut self, input: &[u8]) {
        let [chaining, hash, key] = hkdf(&self.chaining, input);
        self.mix_hash(&hash);
        (self.chaining, self.key) = (chaining, key);
    }

    pub fn encrypt(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut octets = plain.to_vec();
        aead(&self.key).seal_in_place_append_tag(nonce(0), Aad::from(self.hash), &mut octets).unwrap();
        self.mix_hash(&octets);
        octets
    }

    fn decrypt(&mut self, sealed: &[u8]) -> Option<Vec<u8>> {
        let mut octets = sealed.to_vec();
        let plain = aead(&self.key).open_in_place(nonce(0), Aad::from(self.hash), &mut octets).ok()?.to_vec();
        self.mix_hash(sealed);
        Some(plain)
    }

    fn split(&self) -> [Key; 2] {
        hkdf(&self.chaining, &[])
    }
}

/// Zeros for a point of small order, which is what X25519 computes.
pub fn dh(private: &Key, public: &Key) -> Key {
    let key = PrivateKey::from_private_key(&agreement::X25519, private).unwrap();
    let public = UnparsedPublicKey::new(&agreement::X25519, public);
    agreement::agree(&key, public, (), |secret| Ok(secret.try_into().unwrap())).unwrap_or_default()
}

/// Whether `key` opens a captured data or control packet.
pub fn opens(key: &Key, packet: &[u8]) -> bool {
    let (header, sealed) = packet.split_at(16);
    let counter = u64::from_be_bytes(header[8..].try_into().unwrap());
    aead(key).open_in_place(nonce(counter), Aad::from(header), &mut sealed.to_vec()).is_ok()
}

pub fn ephemeral_1(initiation: &[u8]) -> Key {
    initiation[LISP_HEADER + 8..][..32].try_into().unwrap()
}

pub fn ephemeral_2(response: &[u8]) -> Key {
    response[LISP_HEADER + 4..][..32].try_into().unwrap()
}

fn hkdf<const N: usize>(chaining: &Key, input: &[u8]) -> [Key; N] {
    let mac = |key: &[u8], octets: &[u8]| -> Key {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), octets);
        tag.as_ref().try_into().unwrap()
    };
    let secret = mac(chaining, input);
    let mut last = Vec::new();
    std::array::from_fn(|at| {
        last.push(at as u8 + 1);
        let output = mac(&secret, &last);
        last = output.to_vec();
        output
    })
}

fn aead(key: &Key) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap())
}

fn nonce(counter: u64) -> Nonce {
    let mut octets = [0; 12];
    octets[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(octets)
}
