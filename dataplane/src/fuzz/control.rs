//! Messages between agents, the agent's commands, and prefixes.

use std::net::IpAddr;

use crate::agent_messages::{MAX_AGENT_MESSAGE, agent_address, is_agent_message, payload_of, wrap};
use crate::channel::first_frame;
use crate::messages::{parse_request, reply};
use crate::packet::{Inner, checksum_ok};
use crate::prefix::{Prefix, PrefixTable};
use crate::vnet::VNET_HEADER;

/// A decrypted packet, or the payload of one.
pub fn agent_message(data: &[u8]) {
    if let Some(inner) = Inner::parse(data)
        && is_agent_message(&inner, &data[..inner.total])
        && let Some(payload) = payload_of(&inner, &data[..inner.total])
    {
        assert!((1..=MAX_AGENT_MESSAGE).contains(&payload.len()));
    }
    if (1..=MAX_AGENT_MESSAGE).contains(&data.len()) {
        let frame = wrap(agent_address(&[1; 32]), agent_address(&[2; 32]), data);
        let packet = &frame[VNET_HEADER..];
        let Some(inner) = Inner::parse(packet) else { panic!("a message that is no packet") };
        assert!(is_agent_message(&inner, packet) && checksum_ok(packet, &inner));
        assert_eq!(payload_of(&inner, packet), Some(data));
    }
}

/// The octets of the channel: frames are taken as they are complete; a refusal is short.
pub fn command(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some(frame)) = first_frame(rest) {
        rest = &rest[4 + frame.len()..];
        request(frame);
    }
    request(data);
}

fn request(frame: &[u8]) {
    let (id, result) = parse_request(frame);
    if let Err(refused) = result {
        assert!(refused.message.len() < 500, "{}", refused.message);
        assert!(reply(id.unwrap_or(0), Err(refused)).to_string().len() < 3000);
    } else {
        assert!(id.is_some());
    }
}

/// Text: what parses is written back to what parses to the same, and is found in a table.
pub fn prefix(data: &[u8]) {
    let mut table = PrefixTable::new();
    let mut known: Vec<Prefix> = Vec::new();
    for text in data.split(|octet| *octet == b' ').filter_map(|text| std::str::from_utf8(text).ok()) {
        let Ok(prefix) = text.parse::<Prefix>() else { continue };
        assert_eq!(prefix.to_string().parse(), Ok(prefix));
        assert!(prefix.contains(prefix.address));
        table.insert(prefix, prefix);
        known.push(prefix);
    }
    for address in known.iter().map(|prefix| prefix.address).chain([IpAddr::from([0; 4]), IpAddr::from([255; 16])]) {
        let longest = known.iter().filter(|prefix| prefix.contains(address)).max_by_key(|prefix| prefix.length);
        assert_eq!(table.lookup(address), longest.map(|prefix| (prefix.length, prefix)));
    }
}
