//! `cargo bench --bench cipher`: the AEADs that the data plane uses or could use. The libraries seal and open in place;
//! the one of this crate seals from one buffer into another, as the data plane does.
//!
//! Sizes: a small packet, a full one, and sixteen full ones in a row, as a superpacket makes them.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};

const SIZES: [usize; 3] = [64, 1420, 16 * 1420];
const KEY: [u8; 32] = [7; 32];
const ASSOCIATED: [u8; 16] = [1; 16];
/// Longest packet; longer sizes are several of them.
const PACKET: usize = 1420;

fn main() {
    divan::main();
}

fn packets(size: usize) -> Vec<Vec<u8>> {
    (0..size.div_ceil(PACKET)).map(|_| vec![0x5a; size.min(PACKET)]).collect()
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

macro_rules! aead {
    ($seal:ident, $open:ident, $crate_name:ident, $algorithm:ident) => {
        #[divan::bench(args = SIZES)]
        fn $seal(bencher: Bencher, size: usize) {
            use $crate_name::aead::{Aad, LessSafeKey, Nonce, UnboundKey, $algorithm};
            let key = LessSafeKey::new(UnboundKey::new(&$algorithm, &KEY).expect("a key"));
            let mut packets = packets(size);
            let mut counter = 0;
            bencher.counter(BytesCount::new(size)).bench_local(move || {
                for packet in &mut packets {
                    counter += 1;
                    let nonce = Nonce::assume_unique_for_key(nonce(counter));
                    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(ASSOCIATED), packet).expect("sealed");
                    let _ = black_box(tag);
                }
            });
        }

        #[divan::bench(args = SIZES)]
        fn $open(bencher: Bencher, size: usize) {
            use $crate_name::aead::{Aad, LessSafeKey, Nonce, UnboundKey, $algorithm};
            let key = LessSafeKey::new(UnboundKey::new(&$algorithm, &KEY).expect("a key"));
            let mut sealed = packets(size);
            for packet in &mut sealed {
                let nonce = Nonce::assume_unique_for_key(nonce(1));
                key.seal_in_place_append_tag(nonce, Aad::from(ASSOCIATED), packet).expect("sealed");
            }
            bencher.counter(BytesCount::new(size)).with_inputs(|| sealed.clone()).bench_local_refs(|packets| {
                for packet in packets {
                    let nonce = Nonce::assume_unique_for_key(nonce(1));
                    black_box(key.open_in_place(nonce, Aad::from(ASSOCIATED), packet).expect("opened"));
                }
            });
        }
    };
}

aead!(aws_lc_aes_256_gcm_seal, aws_lc_aes_256_gcm_open, aws_lc_rs, AES_256_GCM);
aead!(aws_lc_chacha20_seal, aws_lc_chacha20_open, aws_lc_rs, CHACHA20_POLY1305);
aead!(ring_aes_256_gcm_seal, ring_aes_256_gcm_open, ring, AES_256_GCM);
aead!(ring_chacha20_seal, ring_chacha20_open, ring, CHACHA20_POLY1305);

#[divan::bench(args = SIZES)]
fn gcm_avx512_seal(bencher: Bencher, size: usize) {
    let Some(key) = stayput_dataplane::gcm_avx512::Key::new(&KEY) else { return };
    let packets = packets(size);
    let mut out = packets.clone();
    let mut counter = 0;
    bencher.counter(BytesCount::new(size)).bench_local(move || {
        for (packet, out) in packets.iter().zip(&mut out) {
            counter += 1;
            let _ = black_box(key.seal(nonce(counter), ASSOCIATED, packet, out));
        }
    });
}

#[divan::bench(args = SIZES)]
fn gcm_avx512_open(bencher: Bencher, size: usize) {
    let Some(key) = stayput_dataplane::gcm_avx512::Key::new(&KEY) else { return };
    let plain = packets(size);
    let sealed: Vec<_> = plain
        .iter()
        .map(|packet| {
            let mut out = packet.clone();
            let tag = key.seal(nonce(1), ASSOCIATED, packet, &mut out).expect("sealed");
            (out, tag)
        })
        .collect();
    bencher.counter(BytesCount::new(size)).with_inputs(|| sealed.clone()).bench_local_refs(|packets| {
        for (packet, tag) in packets {
            assert!(black_box(key.open(nonce(1), ASSOCIATED, packet, *tag)));
        }
    });
}
