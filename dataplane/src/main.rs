//! `stayput-dataplane`: forwards packets between a TUN device and peers; the agent tells it who they are.

mod args;
mod batch;
mod channel;
mod coalesce;
mod commands;
mod egress;
mod engine;
mod fast_hash;
mod forwarding;
mod handshake;
mod hold;
mod host;
mod icmp;
mod ingress;
mod load;
mod log;
mod messages;
mod netlink;
mod packet;
mod peer;
mod prefix;
mod replay;
mod retransmit;
mod segment;
mod session;
mod stats;
mod sys;
mod time;
mod tun;
mod tunnel;
mod udp;
mod vnet;
mod wire;

use std::process::ExitCode;

use args::{Args, Parsed};
use channel::Channel;
use engine::Engine;
use host::HostNetwork;
use tun::Tun;

fn main() -> ExitCode {
    match args::parse(std::env::args().skip(1)) {
        Ok(Parsed::Help) => print!("{}", args::HELP),
        Ok(Parsed::Version) => println!("stayput-dataplane {}", env!("CARGO_PKG_VERSION")),
        Ok(Parsed::Run(args)) => {
            if let Err(message) = run(&args) {
                eprintln!("stayput-dataplane: {message}");
                return ExitCode::FAILURE;
            }
        }
        Err(message) => {
            eprintln!("stayput-dataplane: {message}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn run(args: &Args) -> Result<(), String> {
    log::set_level(args.level);
    let group = match &args.group {
        Some(name) => Some(sys::group_id(name).ok_or_else(|| format!("there is no group \"{name}\""))?),
        None => None,
    };
    let channel = Channel::open(&args.socket, group)?;
    let result = Tun::open(&args.tun, !args.ephemeral).and_then(|tun| {
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
    let mut engine = Engine::new(tun, host, channel, args.retransmit).map_err(|e| e.to_string())?;
    log::info("ready", &[("socket", &args.socket.display()), ("interface", &args.tun)]);
    sys::notify_ready();
    let result = engine.run().map_err(|e| format!("event loop: {e}"));
    engine.close();
    result
}
