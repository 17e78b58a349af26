//! What the overlay wants of the host: the TUN, its addresses and routes, and local EIDs that live with their interfaces.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use crate::attachment::set_sysctl;
use crate::engine::Engine;
use crate::forwarding::AGENT_PREFIX;
use crate::host::{Item, gateway};
use crate::prefix::Prefix;

impl Engine {
    pub(crate) fn prepare_tun(&mut self, mtu: u32) -> io::Result<()> {
        // One superpacket fits one send: segments of `mtu` and what the tunnel adds to each.
        let segments = (crate::batch::MAX_BYTES as u32 / (mtu + 32)).clamp(1, 64);
        let gso_max_size = segments * (mtu - 52);
        self.host.tun_up(mtu, gso_max_size.max(mtu))?;
        set_sysctl(&format!("ipv4/conf/{}/rp_filter", self.tun.name), "0");
        Ok(())
    }

    /// Addresses, routes and local EIDs follow the commands and the interfaces.
    pub(crate) fn reconcile_host(&mut self) {
        if !std::mem::take(&mut self.host_dirty) || self.config.is_none() {
            return;
        }
        self.prepare_interfaces();
        let wanted = self.wanted_items();
        self.host.reconcile(&wanted, self.complete && !self.syncing);
        let mut came_up = Vec::new();
        let mut newly_used = BTreeSet::new();
        for (prefix, local) in self.locals_snapshot() {
            let link = local.as_ref().map(|name| self.host.live_link(name));
            let live = link.is_none_or(|link| link.is_some());
            if let Some(entry) = self.table.locals.get_mut(&prefix) {
                if live && !entry.live {
                    came_up.push(std::mem::take(&mut entry.held));
                    newly_used.extend(link.flatten().map(|link| (link, prefix.address.is_ipv6())));
                }
                entry.live = live;
            }
        }
        self.follow_proxied_interfaces();
        self.announce_gateways(&newly_used);
        for queue in came_up {
            self.release(queue);
        }
    }

    fn locals_snapshot(&self) -> Vec<(Prefix, Option<String>)> {
        self.table.locals.iter().map(|(prefix, local)| (prefix, local.interface.clone())).collect()
    }

    fn wanted_items(&self) -> BTreeSet<Item> {
        let mut wanted = BTreeSet::new();
        let Some(tun) = self.host.link_index(&self.tun.name) else { return wanted };
        let on_tun: BTreeSet<IpAddr> = self
            .table
            .locals
            .iter()
            .filter(|(prefix, local)| prefix.is_host() && local.interface.is_none())
            .map(|(prefix, _)| prefix.address)
            .collect();
        let addresses = on_tun.iter().chain(&self.table.agent);
        wanted.extend(addresses.map(|address| Item::Address(Prefix::host(*address))));
        for prefix in self.table.eid_space() {
            let source = on_tun.iter().find(|a| a.is_ipv6() == prefix.address.is_ipv6()).copied();
            wanted.insert(Item::Route { prefix: *prefix, link: tun, source });
        }
        wanted.insert(Item::Route { prefix: AGENT_PREFIX, link: tun, source: self.table.agent });
        for (prefix, local) in self.table.locals.iter() {
            let Some(name) = &local.interface else { continue };
            let Some(link) = self.host.live_link(name) else { continue };
            wanted.insert(Item::Gateway { link, address: gateway(prefix.address.is_ipv6()) });
            wanted.insert(Item::Route { prefix, link, source: None });
        }
        wanted
    }
}
