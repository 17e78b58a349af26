//! What the kernel has to do on an interface behind which workloads live: forward between it and the TUN, and answer
//! there for addresses that are elsewhere.
//!
//! Settings of an interface are made once while it is here, and restored when no EID is behind it any more; not when
//! this process ends, as the kernel goes on forwarding meanwhile. Forwarding as such stays on: others may rely on it.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::Engine;
use crate::host::HostNetwork;
use crate::log;

/// A use of an interface by one family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Attachment {
    link: u32,
    appearance: u64,
    v6: bool,
}

/// What was changed, and what it was before. `{}` stands for the interface's name, which may change.
type Changed = Vec<(&'static str, String)>;

#[derive(Default)]
pub struct Attachments {
    made: BTreeMap<Attachment, Changed>,
}

impl Attachments {
    /// Makes settings on the interfaces in use, by index and whether for IPv6, and undoes those on others.
    fn follow(&mut self, used: BTreeSet<(u32, bool)>, host: &HostNetwork) {
        let used: BTreeSet<Attachment> =
            used.into_iter().map(|(link, v6)| Attachment { link, appearance: host.appearance(link), v6 }).collect();
        self.made.retain(|attachment, changed| {
            let stays = used.contains(attachment);
            // One that has gone took its settings along.
            if !stays && host.appearance(attachment.link) == attachment.appearance {
                restore(host.link_name(attachment.link), changed);
            }
            stays
        });
        for attachment in used {
            if let Some(name) = host.link_name(attachment.link) {
                self.made.entry(attachment).or_insert_with(|| make(name, attachment.v6));
            }
        }
    }
}

impl Engine {
    /// Before the interface is up: a workload asks for its gateway at that moment, and again only a second later.
    pub(crate) fn prepare_interfaces(&mut self) {
        let watched = self.watched.keys().map(|name| (name.as_str(), false));
        let locals = self
            .table
            .locals
            .iter()
            .filter_map(|(prefix, local)| local.interface.as_deref().map(|name| (name, prefix.address.is_ipv6())));
        let uses = watched.chain(self.workloads.families()).chain(locals);
        let used = uses.filter_map(|(name, v6)| Some((self.host.link_index(name)?, v6))).collect();
        self.attachments.follow(used, &self.host);
    }
}

fn make(name: &str, v6: bool) -> Changed {
    if v6 {
        keep_router_advertisements();
    }
    for (path, value) in if v6 { GLOBAL_V6 } else { GLOBAL_V4 } {
        set_sysctl(path, value);
    }
    let settings = if v6 { INTERFACE_V6 } else { INTERFACE_V4 };
    settings.iter().filter_map(|(path, value)| Some((*path, set_sysctl(&path.replace("{}", name), value)?))).collect()
}

fn restore(name: Option<&str>, changed: &Changed) {
    let Some(name) = name else { return };
    for (path, before) in changed {
        set_sysctl(&path.replace("{}", name), before);
    }
}

/// Writes a sysctl unless it has that value already. Returns the one that it had.
pub fn set_sysctl(path: &str, value: &str) -> Option<String> {
    let path = format!("/proc/sys/net/{path}");
    let before = std::fs::read_to_string(&path).map(|text| text.trim().to_string());
    if before.as_deref().is_ok_and(|before| before == value) {
        return None;
    }
    if let Err(error) = std::fs::write(&path, value) {
        log::warn("sysctl not set", &[("path", &path), ("value", &value), ("error", &error)]);
        return None;
    }
    before.ok()
}

/// Turning forwarding on would end the host's own IPv6 autoconfiguration on interfaces that use it.
fn keep_router_advertisements() {
    let Ok(interfaces) = std::fs::read_dir("/proc/sys/net/ipv6/conf") else { return };
    for name in interfaces.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let accept = std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/accept_ra"));
        if accept.is_ok_and(|value| value.trim() == "1") {
            set_sysctl(&format!("ipv6/conf/{name}/accept_ra"), "2");
        }
    }
}

const GLOBAL_V4: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    // A host sends redirects if either this or the interface's own setting says so.
    ("ipv4/conf/all/send_redirects", "0"),
];
const GLOBAL_V6: &[(&str, &str)] = &[("ipv6/conf/all/forwarding", "1")];
const INTERFACE_V4: &[(&str, &str)] = &[
    ("ipv4/conf/{}/rp_filter", "0"),
    ("ipv4/conf/{}/proxy_arp", "1"),
    // The default of 800 ms makes a workload wait for its first neighbour.
    ("ipv4/neigh/{}/proxy_delay", "0"),
    // What was held for a workload meets it at once, while the kernel still asks for its hardware address.
    ("ipv4/neigh/{}/unres_qlen_bytes", UNRESOLVED_BYTES),
    // A neighbour that a workload was redirected to may move away.
    ("ipv4/conf/{}/send_redirects", "0"),
];
const INTERFACE_V6: &[(&str, &str)] =
    &[("ipv6/conf/{}/disable_ipv6", "0"), ("ipv6/neigh/{}/unres_qlen_bytes", UNRESOLVED_BYTES)];
/// What may be held for an interface, as the kernel counts it: with what surrounds small packets.
const UNRESOLVED_BYTES: &str = "16777216";
