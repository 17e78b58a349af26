//! X25519 for snow, by aws-lc. Unlike snow's own it refuses points of small order, with which anybody could compute
//! what should be a secret (RFC 7748 section 6.1), and wipes its keys.
//!
//! Under `cargo fuzz` a stand-in that protects nothing takes its place: most of the time of a handshake is X25519's, and
//! what is fuzzed is what surrounds it. `cargo test` tries the same targets with the real one.

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use zeroize::Zeroizing;

use crate::FUZZED;

/// Everything but X25519 is snow's.
pub struct Resolver;

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        DefaultResolver.resolve_rng()
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::<X25519>::default()),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// None for a private key that is no secret: all zeros.
pub fn public_key(private: &[u8; 32]) -> Option<[u8; 32]> {
    if *private == [0; 32] {
        return None;
    }
    if FUZZED {
        return Some(stand_in(private, &[0; 32]));
    }
    let key = PrivateKey::from_private_key(&agreement::X25519, private).ok()?;
    key.compute_public_key().ok()?.as_ref().try_into().ok()
}

#[derive(Default)]
struct X25519 {
    private: Zeroizing<[u8; 32]>,
    key: Option<PrivateKey>,
    public: [u8; 32],
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, private: &[u8]) {
        self.private.copy_from_slice(private);
        if FUZZED {
            self.public = stand_in(&self.private, &[0; 32]);
            return;
        }
        self.key = PrivateKey::from_private_key(&agreement::X25519, private).ok();
        self.public = public_key(&self.private).unwrap_or_default();
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), snow::Error> {
        let mut private = Zeroizing::new([0; 32]);
        random.try_fill_bytes(&mut private[..])?;
        #[cfg(test)]
        disclosed::record(&private);
        self.set(&private[..]);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &self.private[..]
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let public = public.get(..32).ok_or(snow::Error::Dh)?;
        if FUZZED {
            let public = public.try_into().map_err(|_| snow::Error::Dh)?;
            out.get_mut(..32).ok_or(snow::Error::Dh)?.copy_from_slice(&stand_in(&self.private, public));
            return Ok(());
        }
        let key = self.key.as_ref().ok_or(snow::Error::Dh)?;
        agreement::agree(key, UnparsedPublicKey::new(&agreement::X25519, public), snow::Error::Dh, |secret| {
            out.get_mut(..32).ok_or(snow::Error::Dh)?.copy_from_slice(secret);
            Ok(())
        })
    }
}

/// Both of what X25519 has to be for Noise, and nothing of what makes it safe: the same secret at both ends, and
/// another one for every change of either key. The public key is that of a private one and zeros.
fn stand_in(private: &[u8; 32], public: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|at| private[at] ^ public[at] ^ 0x5c)
}

/// The ephemeral keys of a test, for those that show what they alone protect.
#[cfg(test)]
pub mod disclosed {
    use std::cell::RefCell;

    thread_local! { static KEYS: RefCell<Option<Vec<[u8; 32]>>> = const { RefCell::new(None) }; }

    /// Kept in another form, so that a search of the memory does not find them here.
    const MASK: u8 = 0x5a;

    /// From here on, on this thread.
    pub fn start() {
        KEYS.with(|keys| *keys.borrow_mut() = Some(Vec::new()));
    }

    pub fn take() -> Vec<[u8; 32]> {
        let masked = KEYS.with(|keys| keys.borrow_mut().take()).unwrap_or_default();
        masked.into_iter().map(|key| key.map(|octet| octet ^ MASK)).collect()
    }

    pub(super) fn record(private: &[u8; 32]) {
        KEYS.with(|keys| keys.borrow_mut().as_mut().map(|list| list.push(private.map(|octet| octet ^ MASK))));
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Every u-coordinate of small order (https://cr.yp.to/ecdh.html#validate), each also with the bit that is ignored.
    pub fn small_order_points() -> Vec<[u8; 32]> {
        let order_8 = [
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        ];
        let near_p = [0xec, 0xed, 0xee].map(|low| {
            let mut point = [0xff; 32];
            (point[0], point[31]) = (low, 0x7f);
            point
        });
        let one = std::array::from_fn(|at| u8::from(at == 0));
        let order_8 =
            order_8.map(|hex| std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()));
        let points = [[0; 32], one].into_iter().chain(order_8).chain(near_p);
        points
            .flat_map(|point| [point, std::array::from_fn(|at| point[at] | if at == 31 { 0x80 } else { 0 })])
            .collect()
    }

    #[test]
    fn points_of_small_order_have_no_secret_with_anybody() {
        let mut dh = Resolver.resolve_dh(&DHChoice::Curve25519).unwrap();
        for private in [[1; 32], [0xab; 32]] {
            dh.set(&private);
            for point in small_order_points() {
                assert!(dh.dh(&point, &mut [0; 32]).is_err(), "{point:x?}");
            }
            assert!(dh.dh(&public_key(&[7; 32]).unwrap(), &mut [0; 32]).is_ok());
        }
    }
}
