//! Which of the kernel's offloads may be used. All are, where the kernel has them; each can be switched off.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offloads {
    /// virtio_net headers on the TUN: partial checksums. Without them no `tso` and no `uso`.
    pub vnet_hdr: bool,
    /// TCP superpackets on the TUN, both ways.
    pub tso: bool,
    /// UDP superpackets on the TUN, both ways.
    pub uso: bool,
    /// Many datagrams in one message to send (UDP_SEGMENT).
    pub udp_gso: bool,
    /// Many datagrams in one message received (UDP_GRO).
    pub udp_gro: bool,
}

impl Offloads {
    pub const ALL: Offloads = Offloads { vnet_hdr: true, tso: true, uso: true, udp_gso: true, udp_gro: true };
    pub const NONE: Offloads = Offloads { vnet_hdr: false, tso: false, uso: false, udp_gso: false, udp_gro: false };

    /// `all`, `none`, or a list of `no-NAME`.
    pub fn parse(text: &str) -> Result<Offloads, String> {
        match text {
            "all" => return Ok(Offloads::ALL),
            "none" => return Ok(Offloads::NONE),
            _ => {}
        }
        let mut offloads = Offloads::ALL;
        for word in text.split(',') {
            let name = word.strip_prefix("no-").and_then(|name| offloads.switch(name));
            *name.ok_or_else(|| {
                format!("--offload {text}: must be all, none, or a list of no-{}", NAMES.join(", no-"))
            })? = false;
        }
        offloads.tso &= offloads.vnet_hdr;
        offloads.uso &= offloads.vnet_hdr;
        Ok(offloads)
    }

    pub fn names(&self) -> Vec<&'static str> {
        let on = [self.vnet_hdr, self.tso, self.uso, self.udp_gso, self.udp_gro];
        NAMES.into_iter().zip(on).filter_map(|(name, on)| on.then_some(name)).collect()
    }

    fn switch(&mut self, name: &str) -> Option<&mut bool> {
        let at = NAMES.iter().position(|known| *known == name)?;
        [&mut self.vnet_hdr, &mut self.tso, &mut self.uso, &mut self.udp_gso, &mut self.udp_gro].into_iter().nth(at)
    }
}

const NAMES: [&str; 5] = ["vnet-hdr", "tso", "uso", "udp-gso", "udp-gro"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches() {
        assert_eq!(Offloads::parse("all"), Ok(Offloads::ALL));
        assert_eq!(Offloads::parse("none").map(|o| o.names()), Ok(vec![]));
        assert_eq!(Offloads::parse("no-udp-gro,no-uso"), Ok(Offloads { udp_gro: false, uso: false, ..Offloads::ALL }));
        assert_eq!(Offloads::parse("no-vnet-hdr").map(|o| o.names()), Ok(vec!["udp-gso", "udp-gro"]));
        for bad in ["", "tso", "no-", "no-frob", "none,no-tso", "no-tso,"] {
            assert!(Offloads::parse(bad).is_err(), "{bad}");
        }
    }
}
