//! What is sent to a host that does not mean well, message by message.

use super::observer::{Symmetric, dh};
use super::*;
use crate::x25519::tests::small_order_points;

fn identity(private: u8) -> Identity {
    Identity::new([private; 32], [9; 32], 7).unwrap()
}

/// An initiation to `to` with the right MACs, whatever it is of.
fn initiation(to: &Identity, noise: &[u8]) -> Vec<u8> {
    let header = Header { index: 0, instance: 7, kind: Kind::Initiation };
    let mut message = [&header.bytes()[..], &5u32.to_be_bytes(), &[1, 0, 0, 0], noise].concat();
    append_macs(&mut message, &to.public, None);
    assert!(to.mac1_ok(&message) && message.len() == INITIATION);
    message
}

/// As somebody writes it who claims the public keys without having to know their private ones: with a point of small
/// order the secret in common is zeros.
fn crafted(to: &Identity, ephemeral: (&[u8; 32], [u8; 32]), fixed: (&[u8; 32], [u8; 32])) -> Vec<u8> {
    let mut state = Symmetric::start(7, &to.public);
    state.mix_hash(ephemeral.0);
    state.mix_key(ephemeral.0);
    state.mix_key(&ephemeral.1);
    let sealed = state.encrypt(fixed.0);
    state.mix_key(&fixed.1);
    let payload = state.encrypt(&[0; 16]);
    initiation(to, &[&ephemeral.0[..], &sealed, &payload].concat())
}

#[test]
fn what_is_crafted_by_hand_is_an_initiation() {
    let (to, (e, s)) = (identity(2), ([3; 32], [4; 32]));
    let (ephemeral, fixed) = (public_key(&e).unwrap(), public_key(&s).unwrap());
    let message = crafted(&to, (&ephemeral, dh(&e, &to.public)), (&fixed, dh(&s, &to.public)));
    assert_eq!(Received::read(&to, &message).unwrap().remote, fixed);
}

// Attack: initiations whose ephemeral key is a point of small order, complete but for that | 14 | refused
#[test]
fn attack_ephemeral_key_of_small_order() {
    let (to, s) = (identity(2), [4; 32]);
    let fixed = public_key(&s).unwrap();
    for point in small_order_points() {
        let message = crafted(&to, (&point, [0; 32]), (&fixed, dh(&s, &to.public)));
        assert_eq!(Received::read(&to, &message).err(), Some(Refusal::Invalid), "{point:x?}");
    }
}

// Attack: initiations in the name of a static key of small order, to which anybody has the secret | 14 | refused
#[test]
fn attack_static_key_of_small_order() {
    let (to, e) = (identity(2), [3; 32]);
    let ephemeral = public_key(&e).unwrap();
    for point in small_order_points() {
        let message = crafted(&to, (&ephemeral, dh(&e, &to.public)), (&point, [0; 32]));
        assert_eq!(Received::read(&to, &message).err(), Some(Refusal::Invalid), "{point:x?}");
        assert!(Attempt::start(&to, Suite::AesGcm, &point, 5, (0, 0), None).is_err());
    }
}

// Attack: responses whose ephemeral key is a point of small order | 14 | refused; the real response is still taken
#[test]
fn attack_response_with_a_point_of_small_order() {
    let (a, b) = (identity(1), identity(2));
    let (message, mut attempt) = Attempt::start(&a, Suite::AesGcm, &b.public, 5, (0, 0), None).unwrap();
    let (response, _) = Received::read(&b, &message).unwrap().respond(&b, 6).unwrap();
    for point in small_order_points() {
        let mut forged = response.clone();
        forged[LISP_HEADER + 4..][..32].copy_from_slice(&point);
        assert_eq!(attempt.finish(&forged).err(), Some(Refusal::Invalid));
    }
    assert!(attempt.finish(&response).is_ok());
}

// Attack: an identity with a private or pre-shared key of zeros | 2 | refused
#[test]
fn attack_keys_of_zeros() {
    assert!(Identity::new([0; 32], [9; 32], 7).is_none());
    assert!(Identity::new([1; 32], [0; 32], 7).is_none());
}

// Attack: an initiation with each bit flipped that the handshake protects, and the MACs made anew | 904 | refused
#[test]
fn attack_initiation_with_a_bit_flipped_and_new_macs() {
    let (a, b) = (identity(1), identity(2));
    let (message, _) = Attempt::start(&a, Suite::AesGcm, &b.public, 5, (3, 4), None).unwrap();
    let noise = LISP_HEADER + 8;
    let mut tried = 0;
    for bit in
        (0..INITIATION * 8).filter(|bit| *bit / 8 == LISP_HEADER + 4 || (noise..noise + NOISE_1).contains(&(bit / 8)))
    {
        let mut forged = message[..INITIATION - 2 * MAC].to_vec();
        forged[bit / 8] ^= 1 << (bit % 8);
        append_macs(&mut forged, &b.public, None);
        assert!(b.mac1_ok(&forged));
        let read = Received::read(&b, &forged);
        assert!(read.is_err(), "bit {bit}");
        tried += 1;
    }
    assert_eq!(tried, 8 * (NOISE_1 + 1));
}

// Attack: an initiation, response and cookie reply with each bit flipped, as they come | 2112 | refused
#[test]
fn attack_handshake_messages_with_a_bit_flipped() {
    let (a, b) = (identity(1), identity(2));
    let (message, mut attempt) = Attempt::start(&a, Suite::AesGcm, &b.public, 5, (3, 4), None).unwrap();
    let flipped = |octets: &[u8], bit: usize| {
        let mut copy = octets.to_vec();
        copy[bit / 8] ^= 1 << (bit % 8);
        copy
    };
    let (response, _) = Received::read(&b, &message).unwrap().respond(&b, 6).unwrap();
    let reply = CookieJar::new().reply(&b, &message, b"source").unwrap();
    for bit in 0..8 * (INITIATION - MAC) {
        assert!(!b.mac1_ok(&flipped(&message, bit)), "bit {bit} of the initiation");
    }
    for bit in 0..8 * (RESPONSE - MAC) {
        assert!(!a.mac1_ok(&flipped(&response, bit)), "bit {bit} of the response");
    }
    for bit in 8 * LISP_HEADER..8 * COOKIE_REPLY {
        assert_eq!(attempt.open_cookie(&flipped(&reply, bit)), None, "bit {bit} of the cookie reply");
    }
    assert!(attempt.open_cookie(&reply).is_some() && attempt.finish(&response).is_ok());
}

// Attack: an initiation, response and cookie reply cut at every length, and longer by 1 to 64 octets | 496 | refused
#[test]
fn attack_handshake_messages_of_another_length() {
    let (a, b) = (identity(1), identity(2));
    let (message, mut attempt) = Attempt::start(&a, Suite::AesGcm, &b.public, 5, (3, 4), None).unwrap();
    let (response, _) = Received::read(&b, &message).unwrap().respond(&b, 6).unwrap();
    let reply = CookieJar::new().reply(&b, &message, b"source").unwrap();
    for octets in [&message, &response, &reply] {
        for length in 0..octets.len() {
            assert!(Header::parse(&octets[..length]).is_err(), "{length} of {}", octets.len());
        }
        for more in 1..=64 {
            assert!(Header::parse(&[&octets[..], &vec![0; more]].concat()).is_err());
        }
        assert!(Header::parse(octets).is_ok());
    }
    // Nor does anything behind that check fall over what is short.
    for length in 0..INITIATION {
        assert!(length >= INITIATION - 2 * MAC || Received::read(&b, &message[..length]).is_err());
        assert!(!b.mac1_ok(&message[..length]));
    }
    for length in 0..RESPONSE - 2 * MAC {
        assert!(attempt.finish(&response[..length]).is_err());
    }
    for length in 0..COOKIE_REPLY {
        assert_eq!(attempt.open_cookie(&reply[..length]), None);
    }
}

// Attack: an initiation with another cipher in its header, and the MACs made anew | 2 | refused
#[test]
fn attack_downgrade_to_another_cipher() {
    let (a, b) = (identity(1), identity(2));
    for (suite, other) in [(Suite::AesGcm, Suite::ChaChaPoly), (Suite::ChaChaPoly, Suite::AesGcm)] {
        let (mut message, _) = Attempt::start(&a, suite, &b.public, 5, (3, 4), None).unwrap();
        message.truncate(INITIATION - 2 * MAC);
        message[LISP_HEADER + 4] = other as u8;
        append_macs(&mut message, &b.public, None);
        assert_eq!(Received::read(&b, &message).err(), Some(Refusal::Invalid));
    }
}

// Attack: an initiation meant for another host, with the MACs made anew | 1 | refused
#[test]
fn attack_initiation_meant_for_somebody_else() {
    let (a, b, c) = (identity(1), identity(2), identity(3));
    let (message, _) = Attempt::start(&a, Suite::AesGcm, &b.public, 5, (3, 4), None).unwrap();
    assert!(!c.mac1_ok(&message));
    let mut message = message[..INITIATION - 2 * MAC].to_vec();
    append_macs(&mut message, &c.public, None);
    assert_eq!(Received::read(&c, &message).err(), Some(Refusal::Invalid));
}

// Attack: a response to one initiation as the response to another of the same host | 1 | refused
#[test]
fn attack_response_to_another_initiation() {
    let (a, b) = (identity(1), identity(2));
    let start = |sequence| Attempt::start(&a, Suite::AesGcm, &b.public, 5, (3, sequence), None).unwrap();
    let ((first, mut one), (_, mut other)) = (start(1), start(2));
    let (response, _) = Received::read(&b, &first).unwrap().respond(&b, 6).unwrap();
    assert_eq!(other.finish(&response).err(), Some(Refusal::Invalid));
    assert!(one.finish(&response).is_ok());
}

// Attack: a cookie reply to one initiation as the reply to another, and one made by somebody else | 2 | not taken
#[test]
fn attack_cookie_reply_to_another_initiation() {
    let (a, b) = (identity(1), identity(2));
    let start = |sequence| Attempt::start(&a, Suite::AesGcm, &b.public, 5, (3, sequence), None).unwrap();
    let ((first, one), (second, other)) = (start(1), start(2));
    let reply = CookieJar::new().reply(&b, &first, b"source").unwrap();
    assert!(one.open_cookie(&reply).is_some() && other.open_cookie(&reply).is_none());
    let stranger = CookieJar::new().reply(&identity(3), &second, b"source").unwrap();
    assert_eq!(other.open_cookie(&stranger), None);
}
