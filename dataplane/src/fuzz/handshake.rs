//! Initiation, response and cookie reply: whoever changes one octet, also with a right mac1, is refused.

use std::cell::RefCell;

use super::Input;
use crate::handshake::{Attempt, CookieJar, Identity, Received, Refusal, Suite, append_macs};
use crate::wire::{Header, INITIATION, Kind, MAC, RESPONSE};

struct Exchange {
    a: Identity,
    b: Identity,
    jar: CookieJar,
    attempt: Attempt,
    initiation: Vec<u8>,
    response: Vec<u8>,
    cookie: Vec<u8>,
}

const SOURCE: &[u8] = b"192.0.2.1:4341";

fn exchange() -> Option<Exchange> {
    let (a, b) = (Identity::new([1; 32], [9; 32], 7)?, Identity::new([2; 32], [9; 32], 7)?);
    let jar = CookieJar::new();
    let (initiation, attempt) = Attempt::start(&a, Suite::AesGcm, &b.public, 5, (3, 4), None).ok()?;
    let (response, _) = Received::read(&b, &initiation).ok()?.respond(&b, 6).ok()?;
    let cookie = jar.reply(&b, &initiation, SOURCE)?;
    Some(Exchange { a, b, jar, attempt, initiation, response, cookie })
}

thread_local! {
    // One for all inputs: a refused message changes nothing.
    static EXCHANGE: RefCell<Option<Exchange>> = RefCell::new(exchange());
}

/// First which message, then what changes in it (place u16, difference u8), or the whole of it.
pub fn handshake(data: &[u8]) {
    EXCHANGE.with_borrow_mut(|exchange| {
        let Some(exchange) = exchange else { panic!("no handshake between fixed identities") };
        exchange.run(Input(data));
    });
}

impl Exchange {
    fn run(&mut self, mut input: Input<'_>) {
        let choice = input.u8();
        let (original, receiver) = match choice % 3 {
            0 => (&self.initiation, &self.b),
            1 => (&self.response, &self.a),
            _ => (&self.cookie, &self.a),
        };
        let mut message = if choice & 0x80 == 0 { original.clone() } else { input.take(400).to_vec() };
        if choice & 0x80 == 0 {
            for _ in 0..1 + input.below(4) {
                let at = usize::from(input.u16()) % message.len();
                message[at] ^= input.u8();
            }
        }
        if choice & 0x40 != 0 && (message.len() == INITIATION || message.len() == RESPONSE) {
            message.truncate(message.len() - 2 * MAC);
            append_macs(&mut message, &receiver.public, None);
        }
        let signed = message.len().saturating_sub(2 * MAC);
        let Ok(header) = Header::parse(&message) else { return };
        let mac_ok = receiver.mac1_ok(&message);
        match header.kind {
            Kind::Initiation => {
                let same = message[16..signed] == self.initiation[16..signed] && message[12] == self.initiation[12];
                let read = Received::read(&self.b, &message);
                let index = u32::from_be_bytes([message[8], message[9], message[10], message[11]]);
                assert_eq!(read.is_ok(), same && (1..=0xff_ffff).contains(&index));
                assert!(mac_ok || message != self.initiation);
                if let Ok(received) = read {
                    assert_eq!((received.remote, received.order), (self.a.public, (3, 4)));
                }
                let _ = self.jar.mac2_ok(&message, SOURCE);
                let _ = self.jar.reply(&self.b, &message, SOURCE);
            }
            Kind::Response => {
                let same = message[12..signed] == self.response[12..signed];
                match self.attempt.finish(&message) {
                    Ok(_) => {
                        assert!(same);
                        let Some(fresh) = exchange() else { panic!("no second handshake") };
                        *self = fresh;
                    }
                    Err(refusal) => {
                        let index = u32::from_be_bytes([message[8], message[9], message[10], message[11]]);
                        assert!(!same || !(1..=0xff_ffff).contains(&index));
                        assert_eq!(refusal, Refusal::Invalid);
                    }
                }
            }
            Kind::CookieReply => {
                assert_eq!(self.attempt.open_cookie(&message).is_some(), message[8..] == self.cookie[8..]);
            }
            Kind::Data | Kind::DataPartial | Kind::Control => {}
        }
    }
}
