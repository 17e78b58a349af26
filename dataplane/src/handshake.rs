//! Noise_IKpsk2 messages with the MACs around them, and the anti-flood cookie. No state but what is passed in.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{constant_time, digest, hmac};
use snow::HandshakeState;
use zeroize::Zeroizing;

use crate::packet_cipher::{PROLOGUE, PacketKey};
use crate::time::Time;
use crate::wire::{self, COOKIE_REPLY, Header, INITIATION, Kind, LISP_HEADER, MAC, NOISE_1, NOISE_2, RESPONSE};
use crate::x25519::{self, public_key};

pub type PublicKey = [u8; 32];
pub type Mac = [u8; MAC];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suite {
    AesGcm = 1,
    ChaChaPoly = 2,
}

impl Suite {
    /// AES-256-GCM where the CPU has instructions for it.
    pub fn fastest() -> Suite {
        #[cfg(target_arch = "x86_64")]
        let aes = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
        #[cfg(target_arch = "aarch64")]
        let aes = std::arch::is_aarch64_feature_detected!("aes");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let aes = false;
        if aes { Suite::AesGcm } else { Suite::ChaChaPoly }
    }

    fn from_byte(byte: u8) -> Option<Suite> {
        match byte {
            1 => Some(Suite::AesGcm),
            2 => Some(Suite::ChaChaPoly),
            _ => None,
        }
    }

    fn protocol(self) -> &'static str {
        match self {
            Suite::AesGcm => "Noise_IKpsk2_25519_AESGCM_SHA256",
            Suite::ChaChaPoly => "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s",
        }
    }

    pub(crate) fn aead(self, key: &[u8; 32]) -> Option<LessSafeKey> {
        let algorithm = match self {
            Suite::AesGcm => &AES_256_GCM,
            Suite::ChaChaPoly => &CHACHA20_POLY1305,
        };
        Some(LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?))
    }
}

/// Why a handshake message was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Bad MAC, bad Noise message, or a field out of range: no answer to strangers.
    Invalid,
    /// The random source or the crypto library failed.
    Internal,
}

/// Who this host is in the overlay.
pub struct Identity {
    private: Zeroizing<[u8; 32]>,
    preshared: Zeroizing<[u8; 32]>,
    pub public: PublicKey,
    pub instance: u32,
    mac1_key: hmac::Key,
    cookie_key: [u8; 32],
}

impl Identity {
    /// None when the private or the pre-shared key is no secret: all zeros.
    pub fn new(private: [u8; 32], preshared: [u8; 32], instance: u32) -> Option<Identity> {
        let private = Zeroizing::new(private);
        let public = public_key(&private)?;
        if preshared == [0; 32] {
            return None;
        }
        Some(Identity {
            private,
            preshared: Zeroizing::new(preshared),
            public,
            instance,
            mac1_key: mac1_key(&public),
            cookie_key: cookie_key(&public),
        })
    }

    pub fn same_secrets(&self, other: &Identity) -> bool {
        self.private == other.private && self.preshared == other.preshared && self.instance == other.instance
    }

    fn builder<'a>(&'a self, suite: Suite, prologue: &'a [u8]) -> Result<snow::Builder<'a>, Refusal> {
        let params = suite.protocol().parse().map_err(|_| Refusal::Internal)?;
        let start = || {
            snow::Builder::with_resolver(params, Box::new(x25519::Resolver))
                .local_private_key(&self.private[..])?
                .psk(2, &self.preshared)?
                .prologue(prologue)
        };
        start().map_err(|_: snow::Error| Refusal::Internal)
    }

    fn prologue(&self, suite: Suite) -> Vec<u8> {
        let mut prologue = PROLOGUE.to_vec();
        prologue.push(suite as u8);
        prologue.extend_from_slice(&self.instance.to_be_bytes()[1..]);
        prologue
    }

    /// mac1 of a message to us; the first and cheapest check.
    pub fn mac1_ok(&self, message: &[u8]) -> bool {
        let Some((signed, macs)) = message.split_at_checked(message.len().wrapping_sub(2 * MAC)) else {
            return false;
        };
        constant_time::verify_slices_are_equal(&mac(&self.mac1_key, &[signed]), &macs[..MAC]).is_ok()
    }
}

/// The keys of an established session.
pub struct SessionKeys {
    pub send: PacketKey,
    pub receive: PacketKey,
}

/// An initiation of ours that waits for its response.
pub struct Attempt {
    state: Box<HandshakeState>,
    suite: Suite,
    pub index: u32,
    mac1: Mac,
    peer: PublicKey,
    /// When its initiation went out; set by the sender.
    pub sent: Time,
}

impl Attempt {
    /// `order` is (epoch, sequence), which must grow with every initiation to a peer.
    pub fn start(
        identity: &Identity,
        suite: Suite,
        peer: &PublicKey,
        index: u32,
        order: (u64, u64),
        cookie: Option<&Mac>,
    ) -> Result<(Vec<u8>, Attempt), Refusal> {
        let prologue = identity.prologue(suite);
        let mut state = identity
            .builder(suite, &prologue)?
            .remote_public_key(peer)
            .and_then(snow::Builder::build_initiator)
            .map_err(|_| Refusal::Internal)?;
        let header = Header { index: 0, instance: identity.instance, kind: Kind::Initiation };
        let mut message = Vec::with_capacity(INITIATION);
        message.extend_from_slice(&header.bytes());
        message.extend_from_slice(&index.to_be_bytes());
        message.extend_from_slice(&[suite as u8, 0, 0, 0]);
        let mut payload = [0; 16];
        payload[..8].copy_from_slice(&order.0.to_be_bytes());
        payload[8..].copy_from_slice(&order.1.to_be_bytes());
        let mut noise = [0; NOISE_1];
        let length = state.write_message(&payload, &mut noise).map_err(|_| Refusal::Internal)?;
        if length != NOISE_1 {
            return Err(Refusal::Internal);
        }
        message.extend_from_slice(&noise);
        let mac1 = append_macs(&mut message, peer, cookie);
        Ok((message, Attempt { state: Box::new(state), suite, index, mac1, peer: *peer, sent: Time::default() }))
    }

    /// Takes the response to this attempt. A refused response leaves the attempt usable.
    pub fn finish(&mut self, response: &[u8]) -> Result<(SessionKeys, u32), Refusal> {
        let sender = index_at(response, LISP_HEADER)?;
        let noise = response.get(LISP_HEADER + 4..LISP_HEADER + 4 + NOISE_2).ok_or(Refusal::Invalid)?;
        self.state.read_message(noise, &mut [0; NOISE_2]).map_err(|_| Refusal::Invalid)?;
        Ok((split(&mut self.state, self.suite)?, sender))
    }

    /// The cookie in a cookie reply to this attempt.
    pub fn open_cookie(&self, reply: &[u8]) -> Option<Mac> {
        let nonce: [u8; 12] = reply.get(LISP_HEADER..LISP_HEADER + 12)?.try_into().ok()?;
        let mut sealed: [u8; 16 + wire::TAG] = reply.get(LISP_HEADER + 12..)?.try_into().ok()?;
        let key = self.suite.aead(&cookie_key(&self.peer))?;
        let opened = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(&self.mac1), &mut sealed).ok()?;
        (&*opened).try_into().ok()
    }
}

/// An initiation that proved to come from `remote`.
pub struct Received {
    state: HandshakeState,
    suite: Suite,
    pub remote: PublicKey,
    pub remote_index: u32,
    pub order: (u64, u64),
}

impl Received {
    /// `message` has passed `mac1_ok`.
    pub fn read(identity: &Identity, message: &[u8]) -> Result<Received, Refusal> {
        let remote_index = index_at(message, LISP_HEADER)?;
        let suite = message.get(LISP_HEADER + 4).copied().and_then(Suite::from_byte).ok_or(Refusal::Invalid)?;
        let prologue = identity.prologue(suite);
        let mut state = identity.builder(suite, &prologue)?.build_responder().map_err(|_| Refusal::Internal)?;
        let noise = message.get(LISP_HEADER + 8..LISP_HEADER + 8 + NOISE_1).ok_or(Refusal::Invalid)?;
        let mut payload = [0; NOISE_1];
        let length = state.read_message(noise, &mut payload).map_err(|_| Refusal::Invalid)?;
        if length != 16 {
            return Err(Refusal::Invalid);
        }
        let number = |at: usize| payload[at..at + 8].try_into().map(u64::from_be_bytes);
        let (Ok(epoch), Ok(sequence)) = (number(0), number(8)) else { return Err(Refusal::Invalid) };
        let remote = state.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(Refusal::Invalid)?;
        Ok(Received { state, suite, remote, remote_index, order: (epoch, sequence) })
    }

    pub fn respond(mut self, identity: &Identity, index: u32) -> Result<(Vec<u8>, SessionKeys), Refusal> {
        let header = Header { index: self.remote_index, instance: identity.instance, kind: Kind::Response };
        let mut message = Vec::with_capacity(RESPONSE);
        message.extend_from_slice(&header.bytes());
        message.extend_from_slice(&index.to_be_bytes());
        let mut noise = [0; NOISE_2];
        let length = self.state.write_message(&[], &mut noise).map_err(|_| Refusal::Internal)?;
        if length != NOISE_2 {
            return Err(Refusal::Internal);
        }
        message.extend_from_slice(&noise);
        append_macs(&mut message, &self.remote, None);
        let keys = split(&mut self.state, self.suite)?;
        Ok((message, keys))
    }
}

/// Stateless proof that the sender of an initiation receives at its address, demanded under load.
pub struct CookieJar {
    secrets: [hmac::Key; 2],
}

impl CookieJar {
    pub fn new() -> CookieJar {
        CookieJar { secrets: [random_key(), random_key()] }
    }

    /// To be called every two minutes.
    pub fn rotate(&mut self) {
        self.secrets.swap(0, 1);
        self.secrets[0] = random_key();
    }

    pub fn mac2_ok(&self, message: &[u8], source: &[u8]) -> bool {
        if !claims_cookie(message) {
            return false;
        }
        let Some((signed, mac2)) = message.split_at_checked(message.len().wrapping_sub(MAC)) else {
            return false;
        };
        self.secrets.iter().any(|secret| {
            let cookie = mac(secret, &[source]);
            let expected = mac(&hmac::Key::new(hmac::HMAC_SHA256, &cookie), &[signed]);
            constant_time::verify_slices_are_equal(&expected, mac2).is_ok()
        })
    }

    pub fn reply(&self, identity: &Identity, initiation: &[u8], source: &[u8]) -> Option<Vec<u8>> {
        let remote_index = index_at(initiation, LISP_HEADER).ok()?;
        let suite = Suite::from_byte(*initiation.get(LISP_HEADER + 4)?)?;
        let mac1 = mac1_of(initiation)?;
        let header = Header { index: remote_index, instance: identity.instance, kind: Kind::CookieReply };
        let mut nonce = [0; 12];
        getrandom::fill(&mut nonce).ok()?;
        let mut sealed = mac(&self.secrets[0], &[source]);
        let tag = suite
            .aead(&identity.cookie_key)?
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(mac1), &mut sealed)
            .ok()?;
        let mut message = Vec::with_capacity(COOKIE_REPLY);
        message.extend_from_slice(&header.bytes());
        message.extend_from_slice(&nonce);
        message.extend_from_slice(&sealed);
        message.extend_from_slice(tag.as_ref());
        Some(message)
    }
}

pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    // Only an operating system without randomness fails here, and nothing safe can be done then. Not by aws-lc, whose
    // generator gathers jitter of the CPU for 75 ms at its first use, while no packet goes.
    getrandom::fill(&mut bytes).expect("the operating system gives no randomness");
    u64::from_be_bytes(bytes)
}

fn split(state: &mut HandshakeState, suite: Suite) -> Result<SessionKeys, Refusal> {
    let [send, receive] = raw_split(state).map(|key| PacketKey::new(suite, &key));
    Ok(SessionKeys { send: send.ok_or(Refusal::Internal)?, receive: receive.ok_or(Refusal::Internal)? })
}

/// The key to send with and the one to receive with.
fn raw_split(state: &mut HandshakeState) -> [Zeroizing<[u8; 32]>; 2] {
    let (from_initiator, from_responder) = state.dangerously_get_raw_split();
    let (from_initiator, from_responder) = (Zeroizing::new(from_initiator), Zeroizing::new(from_responder));
    if state.is_initiator() { [from_initiator, from_responder] } else { [from_responder, from_initiator] }
}

fn index_at(message: &[u8], at: usize) -> Result<u32, Refusal> {
    let bytes = message.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or(Refusal::Invalid)?;
    let index = u32::from_be_bytes(bytes);
    if index == 0 || index > wire::INDEX_MASK { Err(Refusal::Invalid) } else { Ok(index) }
}

pub(crate) fn append_macs(message: &mut Vec<u8>, receiver: &PublicKey, cookie: Option<&Mac>) -> Mac {
    let mac1 = mac(&mac1_key(receiver), &[message]);
    message.extend_from_slice(&mac1);
    let mac2 = cookie.map_or([0; MAC], |cookie| mac(&hmac::Key::new(hmac::HMAC_SHA256, cookie), &[message]));
    message.extend_from_slice(&mac2);
    mac1
}

fn mac(key: &hmac::Key, parts: &[&[u8]]) -> Mac {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; MAC];
    out.copy_from_slice(&context.sign().as_ref()[..MAC]);
    out
}

/// Whether there is a second MAC, right or wrong.
pub fn claims_cookie(initiation: &[u8]) -> bool {
    initiation.last_chunk::<MAC>().is_some_and(|mac2| *mac2 != [0; MAC])
}

/// What tells initiations apart.
pub fn mac1_of(initiation: &[u8]) -> Option<Mac> {
    initiation.get(INITIATION - 2 * MAC..INITIATION - MAC)?.try_into().ok()
}

fn mac1_key(receiver: &PublicKey) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &labelled(b"stayput mac1", receiver))
}

fn cookie_key(responder: &PublicKey) -> [u8; 32] {
    labelled(b"stayput cookie", responder)
}

fn labelled(label: &[u8], key: &PublicKey) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(label);
    context.update(key);
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

fn random_key() -> hmac::Key {
    let mut secret = Zeroizing::new([0; 32]);
    for chunk in secret.chunks_exact_mut(8) {
        chunk.copy_from_slice(&random_u64().to_be_bytes());
    }
    hmac::Key::new(hmac::HMAC_SHA256, &secret[..])
}

#[cfg(test)]
mod attack_tests;
#[cfg(test)]
pub mod observer;
#[cfg(test)]
mod tests;
