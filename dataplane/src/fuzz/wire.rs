//! The LISP header, session control, reports and the replay window.

use std::collections::BTreeSet;

use super::Input;
use crate::packet::Inner;
use crate::plain::{PlainHeader, PlainRules, flow_hash};
use crate::replay::{Replay, WINDOW};
use crate::wire::{Control, DATA_HEADER, Header, HeaderError, LISP_HEADER, Report};

/// What parses is written back as the same octets.
pub fn wire(data: &[u8]) {
    if let Ok(header) = Header::parse(data) {
        assert_eq!(header.bytes(), data[..LISP_HEADER]);
    }
    if let Some(head) = data.first_chunk::<DATA_HEADER>() {
        let _ = Header::quoted_index(head);
    }
    if Header::parse(data) == Err(HeaderError::Plaintext) {
        let header = PlainHeader::parse(data).expect("8 octets");
        let rules = PlainRules { instance: header.instance.unwrap_or(0), ..PlainRules::default() };
        assert!(rules.serves(header));
        let sent = PlainHeader::parse(&rules.header()).expect("8 octets");
        assert_eq!(sent.instance.unwrap_or(0), rules.instance);
        if let Some(inner) = Inner::parse(&data[LISP_HEADER..]) {
            let packet = &data[LISP_HEADER..LISP_HEADER + inner.total];
            assert_eq!(flow_hash(packet, &inner), flow_hash(packet, &inner));
        }
    }
    let control = Control::parse(data);
    let _ = Control::is_about_path(data);
    match control {
        Some(Control::Report | Control::Unknown | Control::Keepalive) | None => {}
        Some(known) => assert_eq!(known.bytes(), data[..Control::LENGTH]),
    }
    if let Some(report) = Report::parse(data) {
        assert_eq!(control, Some(Control::Report));
        assert_eq!(report.bytes(), data);
        assert!(report.next - report.first <= WINDOW);
        for counter in [0, report.first.wrapping_sub(1), report.first, report.next, u64::MAX] {
            let _ = report.is_missing(counter);
        }
        assert!(report.first == 0 || !report.is_missing(report.first - 1));
        assert!(report.is_missing(report.next));
    }
}

/// No counter is taken twice, the newest is always taken, and a report says what was taken.
pub fn replay_window(data: &[u8]) {
    let mut input = Input(data);
    let mut window = Replay::new();
    let mut accepted = BTreeSet::new();
    let mut newest = None;
    while !input.is_empty() {
        let counter = match (input.u8() % 4, newest) {
            (0, _) => input.u64(),
            (1, Some(newest)) => u64::saturating_add(newest, u64::from(input.u16())),
            (2, Some(newest)) => u64::saturating_sub(newest, u64::from(input.u16())),
            (_, newest) => newest.map_or(0, |newest| u64::saturating_add(newest, 1)),
        };
        let expected = counter != u64::MAX
            && !accepted.contains(&counter)
            && newest.is_none_or(|newest| counter > newest || newest - counter < WINDOW);
        assert_eq!(window.is_newest(counter), newest.is_none_or(|newest| counter > newest));
        assert_eq!(window.accept(counter), expected, "{counter} after {newest:?}");
        if expected {
            accepted.insert(counter);
            newest = newest.max(Some(counter));
        }
    }
    let (first, next, bits) = window.state();
    assert_eq!(next, newest.map_or(0, |newest| newest + 1));
    let report = Report { reply: false, token: 0, roam: 0, index: 1, first, next, bits: bits.into() };
    assert_eq!(Report::parse(&report.bytes()), Some(report.clone()));
    // Looked up once for each that was taken: there are few of them, and thousands that were not.
    let mut missing = vec![true; (next - first) as usize];
    for counter in accepted.range(first..next) {
        missing[(counter - first) as usize] = false;
    }
    for (counter, missing) in (first..next).zip(missing) {
        assert_eq!(report.is_missing(counter), missing);
    }
}
