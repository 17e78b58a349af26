use super::*;
use crate::wire::{DATA_HEADER, TAG};

fn pair() -> (Identity, Identity) {
    (Identity::new([1; 32], [9; 32], 7).unwrap(), Identity::new([2; 32], [9; 32], 7).unwrap())
}

#[test]
fn both_suites_agree_on_keys() {
    let (a, b) = pair();
    for suite in [Suite::AesGcm, Suite::ChaChaPoly] {
        let (initiation, mut attempt) = Attempt::start(&a, suite, &b.public, 5, (3, 4), None).unwrap();
        assert_eq!(initiation.len(), INITIATION);
        assert!(b.mac1_ok(&initiation) && !a.mac1_ok(&initiation));
        let received = Received::read(&b, &initiation).unwrap();
        assert_eq!((received.remote, received.order, received.remote_index), (a.public, (3, 4), 5));
        let (response, b_keys) = received.respond(&b, 6).unwrap();
        assert_eq!(response.len(), RESPONSE);
        assert!(a.mac1_ok(&response));
        let mut forged = response.clone();
        forged[20] ^= 1;
        assert!(attempt.finish(&forged).is_err());
        let (a_keys, index) = attempt.finish(&response).unwrap();
        assert_eq!(index, 6);
        let mut sealed = [0; 5 + TAG];
        let (text, tag) = sealed.split_at_mut(5);
        a_keys.send.seal(0, &[0; DATA_HEADER], b"hello", text, tag).unwrap();
        b_keys.receive.open(0, &[0; DATA_HEADER], &mut sealed).unwrap();
        assert_eq!(sealed[..5], *b"hello");
    }
}

// Attack: handshakes with the right keys, but another pre-shared key, and of another instance | 2 | the response,
// or the initiation, is refused
#[test]
fn attack_handshake_with_another_preshared_key_or_instance() {
    let (a, b) = pair();
    let other_psk = Identity::new([1; 32], [8; 32], 7).unwrap();
    let (initiation, mut attempt) = Attempt::start(&other_psk, Suite::AesGcm, &b.public, 5, (0, 0), None).unwrap();
    let (response, _) = Received::read(&b, &initiation).unwrap().respond(&b, 6).unwrap();
    assert_eq!(attempt.finish(&response).err(), Some(Refusal::Invalid));
    let other_instance = Identity::new([1; 32], [9; 32], 8).unwrap();
    let (initiation, _) = Attempt::start(&other_instance, Suite::AesGcm, &b.public, 5, (0, 0), None).unwrap();
    assert_eq!(Received::read(&b, &initiation).err(), Some(Refusal::Invalid));
    assert!(!a.same_secrets(&b) && !a.same_secrets(&other_psk));
}

#[test]
fn cookies_bind_to_the_source() {
    let (a, b) = pair();
    let mut jar = CookieJar::new();
    let (initiation, attempt) = Attempt::start(&a, Suite::ChaChaPoly, &b.public, 5, (0, 0), None).unwrap();
    assert!(!jar.mac2_ok(&initiation, b"source"));
    let reply = jar.reply(&b, &initiation, b"source").unwrap();
    assert_eq!(reply.len(), COOKIE_REPLY);
    let cookie = attempt.open_cookie(&reply).unwrap();
    let (again, _) = Attempt::start(&a, Suite::ChaChaPoly, &b.public, 5, (0, 1), Some(&cookie)).unwrap();
    assert!(jar.mac2_ok(&again, b"source") && !jar.mac2_ok(&again, b"elsewhere"));
    jar.rotate();
    assert!(jar.mac2_ok(&again, b"source"));
    jar.rotate();
    assert!(!jar.mac2_ok(&again, b"source"));
}

#[test]
fn garbage_is_refused_without_panic() {
    let (_, b) = pair();
    for length in 0..200 {
        let message = vec![length as u8; length];
        assert!(!b.mac1_ok(&message));
        assert!(Received::read(&b, &[1; INITIATION]).is_err());
    }
}

/// From cacophony (Unlicense): `vectors/cacophony.txt`, both suites as they are there.
#[test]
fn public_vectors_of_noise_ikpsk2() {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("../../../test/vectors/noise-ikpsk2.json")).unwrap();
    let names: Vec<&str> = vectors.iter().map(|vector| &*vector.protocol_name).collect();
    assert_eq!(names, [Suite::AesGcm, Suite::ChaChaPoly].map(Suite::protocol));
    for vector in &vectors {
        vector.check();
    }
}

#[derive(serde::Deserialize)]
struct Vector {
    protocol_name: String,
    init_prologue: String,
    init_psks: Vec<String>,
    init_static: String,
    init_ephemeral: String,
    init_remote_static: String,
    resp_prologue: String,
    resp_psks: Vec<String>,
    resp_static: String,
    resp_ephemeral: String,
    handshake_hash: String,
    messages: Vec<Message>,
}

#[derive(serde::Deserialize)]
struct Message {
    payload: String,
    ciphertext: String,
}

impl Vector {
    fn check(&self) {
        let params = || self.protocol_name.parse().unwrap();
        let builder = || snow::Builder::with_resolver(params(), Box::new(x25519::Resolver));
        let psks = [&self.init_psks, &self.resp_psks].map(|psks| <[u8; 32]>::try_from(hex(&psks[0])).unwrap());
        let (prologues, keys) = (
            [&self.init_prologue, &self.resp_prologue].map(|text| hex(text)),
            [&self.init_static, &self.resp_static, &self.init_remote_static].map(|text| hex(text)),
        );
        let ephemeral = [&self.init_ephemeral, &self.resp_ephemeral].map(|text| hex(text));
        let mut initiator = builder()
            .prologue(&prologues[0])
            .and_then(|b| b.psk(2, &psks[0])?.local_private_key(&keys[0])?.remote_public_key(&keys[2]))
            .and_then(|b| b.fixed_ephemeral_key_for_testing_only(&ephemeral[0]).build_initiator())
            .unwrap();
        let mut responder = builder()
            .prologue(&prologues[1])
            .and_then(|b| b.psk(2, &psks[1])?.local_private_key(&keys[1]))
            .and_then(|b| b.fixed_ephemeral_key_for_testing_only(&ephemeral[1]).build_responder())
            .unwrap();
        let (mut wire, mut plain) = ([0; 256], [0; 256]);
        let (handshake, transport) = self.messages.split_at(2);
        for (at, message) in handshake.iter().enumerate() {
            let (from, to) = if at == 0 { (&mut initiator, &mut responder) } else { (&mut responder, &mut initiator) };
            let length = from.write_message(&hex(&message.payload), &mut wire).unwrap();
            assert_eq!(wire[..length], hex(&message.ciphertext));
            let length = to.read_message(&wire[..length], &mut plain).unwrap();
            assert_eq!(plain[..length], hex(&message.payload));
        }
        assert_eq!(initiator.get_handshake_hash(), hex(&self.handshake_hash));

        // The raw keys as the data path has them, with the order of octets that each cipher has in Noise.
        let suite = if self.protocol_name == Suite::AesGcm.protocol() { Suite::AesGcm } else { Suite::ChaChaPoly };
        let keys = [&mut initiator, &mut responder].map(|state| raw_split(state).map(|key| suite.aead(&key).unwrap()));
        for (at, message) in transport.iter().enumerate() {
            let counter = at as u64 / 2;
            let octets = if suite == Suite::AesGcm { counter.to_be_bytes() } else { counter.to_le_bytes() };
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&octets);
            let mut sealed = hex(&message.payload);
            let nonce = || Nonce::assume_unique_for_key(nonce);
            keys[at % 2][0].seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed).unwrap();
            assert_eq!(sealed, hex(&message.ciphertext));
            let opened = keys[1 - at % 2][1].open_in_place(nonce(), Aad::empty(), &mut sealed).unwrap();
            assert_eq!(opened, hex(&message.payload));
        }
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
