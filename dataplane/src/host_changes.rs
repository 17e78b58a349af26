//! Following the host's network: who is to hear of a change, the tunnel first, then the agent.

use crate::engine::Engine;
use crate::host::Changes;
use crate::messages::Event;
use crate::peer::PeerId;
use crate::prefix::Prefix;
use crate::udp;

impl Engine {
    pub(crate) fn host_changed(&mut self, changes: Changes) {
        if changes.underlay {
            // First of all the peers hear of it.
            self.host.refresh_routes();
            self.refresh_uplinks();
            self.tunnel.locators_changed(self.now);
            self.drain_outputs();
            self.send_all_unsent();
        }
        if changes.links {
            self.host_dirty = true;
        }
        // An own route or address may have been removed by somebody.
        self.host_dirty |= changes.underlay;
        self.reconcile_host();
        if changes.underlay || changes.links {
            self.report_locators(false);
        }
        if changes.links {
            self.report_interfaces();
        }
    }

    pub(crate) fn refresh_uplinks(&mut self) {
        let table = &self.table;
        let routes = self.host.uplinks(|a| table.in_eid_space(a) || table.locals.get(&Prefix::host(a)).is_some());
        self.tunnel.set_uplinks(routes);
    }

    /// What the own interface takes bounds the search for the path's MTU.
    pub(crate) fn read_path_ceiling(&mut self, peer: PeerId) {
        let Some(path) = self.tunnel.peer(peer).and_then(|p| p.endpoint) else { return };
        // The kernel is asked only where no route is known: a socket for each of a thousand peers takes long.
        let by_route = path.local.or_else(|| self.tunnel.uplinks.way(&path).map(|uplink| uplink.address));
        let Some(source) = by_route.or_else(|| udp::source_address(path)) else { return };
        let mtu = self.host.mtu_at(source).unwrap_or(ETHERNET_MTU);
        let inner = self.config.as_ref().map_or(0, |c| c.mtu);
        self.tunnel.set_path_ceiling(peer, mtu.min(u32::from(u16::MAX)) as u16, inner, self.now);
    }

    pub(crate) fn report_locators(&mut self, always: bool) {
        if self.config.is_none() {
            return;
        }
        let (table, uplinks) = (&self.table, &self.tunnel.uplinks);
        let is_eid = |a| table.in_eid_space(a) || table.locals.get(&Prefix::host(a)).is_some();
        let addresses = self.host.local_addresses(is_eid, |link, address| uplinks.is_down(link, address));
        if always || self.reported.as_ref() != Some(&addresses) {
            self.reported = Some(addresses.clone());
            self.event(&Event::Locators(addresses));
        }
    }

    pub(crate) fn report_interfaces(&mut self) {
        self.prepare_interfaces();
        self.follow_workload_interfaces();
        let mut events = Vec::new();
        for (name, watch) in &mut self.watched {
            let up = self.host.live_link(name).is_some();
            if watch.told != Some(up) {
                watch.told = Some(up);
                events.push(Event::Interface { name: name.clone(), up });
            }
        }
        for event in events {
            self.event(&event);
        }
    }
}

const ETHERNET_MTU: u32 = 1500;
