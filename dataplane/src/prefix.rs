//! IP prefixes and longest-prefix match.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::fast_hash::FastMap;

/// Host bits are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Prefix {
    pub address: IpAddr,
    pub length: u8,
}

impl Prefix {
    pub fn host(address: IpAddr) -> Prefix {
        Prefix { address, length: width(address) }
    }

    pub fn is_host(&self) -> bool {
        self.length == width(self.address)
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv6() == address.is_ipv6() && (key(address) & mask(self.length)) == key(self.address)
    }
}

impl FromStr for Prefix {
    type Err = ();

    fn from_str(text: &str) -> Result<Prefix, ()> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address.parse::<IpAddr>().map_err(drop)?, length.parse().map_err(drop)?),
            None => {
                let address = text.parse().map_err(drop)?;
                (address, width(address))
            }
        };
        if length > width(address) || key(address) & !mask(length) != 0 {
            return Err(());
        }
        Ok(Prefix { address, length })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// A table of prefixes of both families: a hash map per length in use, longest first.
pub struct PrefixTable<T> {
    v4: Vec<(u8, FastMap<u128, T>)>,
    v6: Vec<(u8, FastMap<u128, T>)>,
}

impl<T> PrefixTable<T> {
    pub fn new() -> PrefixTable<T> {
        PrefixTable { v4: Vec::new(), v6: Vec::new() }
    }

    pub fn insert(&mut self, prefix: Prefix, value: T) -> Option<T> {
        let family = self.family_mut(prefix.address);
        let at = match family.binary_search_by(|(length, _)| prefix.length.cmp(length)) {
            Ok(at) => at,
            Err(at) => {
                family.insert(at, (prefix.length, FastMap::default()));
                at
            }
        };
        family[at].1.insert(key(prefix.address), value)
    }

    pub fn remove(&mut self, prefix: &Prefix) -> Option<T> {
        let family = self.family_mut(prefix.address);
        let at = family.binary_search_by(|(length, _)| prefix.length.cmp(length)).ok()?;
        let value = family[at].1.remove(&key(prefix.address));
        if family[at].1.is_empty() {
            family.remove(at);
        }
        value
    }

    pub fn get(&self, prefix: &Prefix) -> Option<&T> {
        let family = self.family(prefix.address);
        let at = family.binary_search_by(|(length, _)| prefix.length.cmp(length)).ok()?;
        family[at].1.get(&key(prefix.address))
    }

    pub fn get_mut(&mut self, prefix: &Prefix) -> Option<&mut T> {
        let family = self.family_mut(prefix.address);
        let at = family.binary_search_by(|(length, _)| prefix.length.cmp(length)).ok()?;
        family[at].1.get_mut(&key(prefix.address))
    }

    /// The longest prefix that contains `address`.
    #[inline]
    pub fn lookup(&self, address: IpAddr) -> Option<(u8, &T)> {
        let key = key(address);
        self.family(address)
            .iter()
            .find_map(|(length, map)| map.get(&(key & mask(*length))).map(|value| (*length, value)))
    }

    /// What all prefixes that contain `address` have, longest first.
    pub fn covering(&self, address: IpAddr) -> impl Iterator<Item = &T> {
        let key = key(address);
        self.family(address).iter().filter_map(move |(length, map)| map.get(&(key & mask(*length))))
    }

    pub fn iter(&self) -> impl Iterator<Item = (Prefix, &T)> {
        let v4 = self.v4.iter().flat_map(|(length, map)| {
            map.iter().map(|(key, value)| (Prefix { address: v4_address(*key), length: *length }, value))
        });
        let v6 = self.v6.iter().flat_map(|(length, map)| {
            map.iter()
                .map(|(key, value)| (Prefix { address: IpAddr::V6(Ipv6Addr::from(*key)), length: *length }, value))
        });
        v4.chain(v6)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.v4.iter_mut().chain(&mut self.v6).flat_map(|(_, map)| map.values_mut())
    }

    pub fn len(&self) -> usize {
        self.v4.iter().chain(&self.v6).map(|(_, map)| map.len()).sum()
    }

    #[inline]
    fn family(&self, address: IpAddr) -> &[(u8, FastMap<u128, T>)] {
        if address.is_ipv4() { &self.v4 } else { &self.v6 }
    }

    fn family_mut(&mut self, address: IpAddr) -> &mut Vec<(u8, FastMap<u128, T>)> {
        if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }
}

/// The address as the upper bits of 128.
#[inline]
fn key(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn v4_address(key: u128) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from((key >> 96) as u32))
}

#[inline]
fn mask(length: u8) -> u128 {
    if length == 0 { 0 } else { u128::MAX << (128 - u32::from(length)) }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        for good in ["10.0.0.0/8", "10.1.2.3/32", "::/0", "fd00::1/128", "0.0.0.0/0"] {
            assert_eq!(good.parse::<Prefix>().unwrap().to_string(), good);
        }
        assert_eq!("10.0.0.1".parse::<Prefix>().unwrap().to_string(), "10.0.0.1/32");
        for bad in ["10.0.0.1/8", "10.0.0.0/33", "fd00::/129", "x", "10.0.0.0/", "10.0.0.0/-1"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn agrees_with_a_linear_scan() {
        let mut state = 7u64;
        let mut random = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as u32
        };
        let mut table = PrefixTable::new();
        let mut list: Vec<(Prefix, u32)> = Vec::new();
        for step in 0..3000u32 {
            let v6 = random() % 2 == 0;
            let address = if v6 {
                IpAddr::V6(Ipv6Addr::from((u128::from(random() % 64) << 120) | u128::from(random() % 64)))
            } else {
                IpAddr::V4(Ipv4Addr::from(((random() % 16) << 28) | (random() % 64)))
            };
            let length = (random() % (u32::from(width(address)) + 1)) as u8;
            let masked = key(address) & mask(length);
            let prefix = Prefix { address: if v6 { IpAddr::V6(masked.into()) } else { v4_address(masked) }, length };
            let known = list.iter().position(|(p, _)| *p == prefix);
            if random() % 4 == 0 {
                assert_eq!(table.remove(&prefix), known.map(|at| list.remove(at).1));
            } else {
                let old = table.insert(prefix, step);
                assert_eq!(old, known.map(|at| list.remove(at).1));
                list.push((prefix, step));
            }
            let expected = list
                .iter()
                .filter(|(p, _)| p.contains(address))
                .max_by_key(|(p, _)| p.length)
                .map(|(p, v)| (p.length, v));
            assert_eq!(table.lookup(address), expected);
            assert_eq!(table.len(), list.len());
        }
    }
}
