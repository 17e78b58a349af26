//! The per-packet part of Stayput: forwards packets between a TUN device and peers; the agent tells it who they are.
//!
//! A library only so that benchmarks and fuzz targets reach its parts; nothing outside this crate builds on it.

mod agent_connection;
mod agent_messages;
pub mod args;
mod attachment;
pub mod batch;
mod channel;
pub mod coalesce;
mod commands;
mod correspondents;
mod delivery;
mod egress;
mod enforcement;
mod engine;
mod fast_hash;
pub mod forwarding;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod gcm_avx512;
mod handovers;
pub mod handshake;
mod hold;
mod host;
mod host_changes;
mod housekeeping;
pub mod icmp;
mod ingress;
mod initiation_gate;
mod initiation_socket;
mod interruption;
mod load;
mod log;
pub mod messages;
mod neighbour;
mod neighbour_proxy;
mod netlink;
mod offload;
mod outer_error;
mod outer_header;
pub mod packet;
mod packet_cipher;
mod packet_filter;
mod packet_socket;
pub mod peer;
pub mod plain;
mod plain_correspondents;
mod plain_mtu;
mod plain_path;
mod plain_socket;
pub mod policy;
mod policy_preparation;
pub mod prefix;
pub mod raw_udp;
mod receive;
mod reconcile;
pub mod replay;
pub mod retransmit;
mod sandbox;
pub mod segment;
mod send;
pub mod session;
pub mod stats;
pub mod sys;
mod systemd;
pub mod time;
mod transmit;
mod tun;
pub mod tunnel;
mod udp;
pub mod vnet;
mod wiping;
pub mod wire;
mod workload;
mod x25519;

use args::Args;
use channel::Channel;
use engine::Engine;
use host::HostNetwork;
pub use sys::forbid_core_dumps;
use tun::Tun;

#[global_allocator]
static MEMORY: wiping::Wiping = wiping::Wiping;

/// Until a signal ends it. The error is for the operator.
pub fn run(args: &Args) -> Result<(), String> {
    log::set_level(args.level);
    forbid_core_dumps().map_err(|e| format!("core dumps cannot be forbidden: {e}"))?;
    #[cfg(feature = "bench-plaintext")]
    log::warn("nothing is encrypted: this build is for measurements only", &[]);
    let group = match &args.group {
        Some(name) => Some(sys::group_id(name).ok_or_else(|| format!("there is no group \"{name}\""))?),
        None => None,
    };
    let channel = Channel::open(&args.socket, group)?;
    let result = Tun::open(&args.tun, !args.ephemeral, args.offloads).and_then(|tun| {
        let host = HostNetwork::open(&args.tun).map_err(|e| format!("netlink: {e}"))?;
        Ok((tun, host))
    });
    let (tun, host) = match result {
        Ok(parts) => parts,
        Err(message) => {
            channel.remove_socket();
            return Err(message);
        }
    };
    // Asks for files, which the sandbox hides.
    let threads = args.threads.unwrap_or_else(delivery::fitting_threads);
    let mut engine = Engine::new(tun, host, channel, args.retransmit, args.offloads).map_err(|e| e.to_string())?;
    engine.headers = args.headers;
    // The agent can connect by now.
    engine.systemd.ready();
    if args.sandbox {
        engine.forbid_files(&args.socket);
    }
    engine.start_threads(threads);
    if args.sandbox {
        engine.forbid_system_calls();
    }
    let ready: [log::Field<'_>; 4] = [
        ("socket", &args.socket.display()),
        ("interface", &args.tun),
        ("threads", &engine.threads()),
        ("sandbox", &engine.sandbox.names().join(",")),
    ];
    log::info("ready", &ready);
    let result = engine.run().map_err(|e| format!("event loop: {e}"));
    engine.close();
    result
}

/// `cargo fuzz`: what costs most and is not what is fuzzed is smaller or has a stand-in, and nothing is secret. It takes
/// that program's compiler flag as well as the feature, so that no build of the data plane comes by it.
pub(crate) const FUZZED: bool = cfg!(all(fuzzing, feature = "fuzz"));
