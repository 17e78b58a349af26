//! The command line.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::log::{Level, parse_level};
use crate::offload::Offloads;
use crate::outer_header::{Dscp, HeaderRules};
use crate::retransmit::Limits;
use crate::time::millis;

pub struct Args {
    pub socket: PathBuf,
    pub tun: String,
    pub group: Option<String>,
    pub level: Level,
    pub ephemeral: bool,
    pub retransmit: Limits,
    pub headers: HeaderRules,
    pub offloads: Offloads,
    /// `None`: what suits the machine.
    pub threads: Option<usize>,
    /// As far as the kernel has it.
    pub sandbox: bool,
}

pub enum Parsed {
    Run(Args),
    RawUdp(SocketAddr),
    Help,
    Version,
}

pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Parsed, String> {
    let mut socket = None;
    let mut args = Args {
        socket: PathBuf::new(),
        tun: "stayput0".to_string(),
        group: None,
        level: Level::Info,
        ephemeral: false,
        retransmit: Limits::default(),
        headers: HeaderRules::default(),
        offloads: Offloads::ALL,
        threads: None,
        sandbox: true,
    };
    while let Some(word) = words.next() {
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) if word.starts_with("--") => (name.to_string(), Some(value.to_string())),
            _ => (word, None),
        };
        let mut value =
            || attached.clone().or_else(|| words.next()).ok_or_else(|| format!("{name} needs a value; see --help"));
        match name.as_str() {
            "--help" | "-h" => return Ok(Parsed::Help),
            "--version" | "-V" => return Ok(Parsed::Version),
            "--raw-udp" => {
                let text = value()?;
                let local = text.parse().map_err(|_| format!("--raw-udp {text}: must be ADDRESS:PORT"))?;
                return Ok(Parsed::RawUdp(local));
            }
            "--ephemeral-tun" => args.ephemeral = true,
            "--socket" => socket = Some(PathBuf::from(value()?)),
            "--tun" => args.tun = value()?,
            "--group" => args.group = Some(value()?),
            "--no-retransmit" => args.retransmit.bytes = 0,
            "--retransmit-bytes" => {
                args.retransmit.bytes = number(&name, &value()?, 0..=MAX_RETRANSMIT_BYTES)? as usize
            }
            "--retransmit-age-ms" => args.retransmit.age = millis(number(&name, &value()?, 1..=60_000)?),
            "--outer-ttl" => {
                args.headers.fixed_ttl = match value()?.as_str() {
                    "copy" => None,
                    text => Some(number(&name, text, 1..=255)? as u8),
                };
            }
            "--dscp" => {
                args.headers.dscp = match value()?.as_str() {
                    "out" => Dscp::Out,
                    "both" => Dscp::Both,
                    "none" => Dscp::None,
                    text => return Err(format!("--dscp {text}: must be out, both or none")),
                };
            }
            "--offload" => args.offloads = Offloads::parse(&value()?)?,
            "--threads" => {
                args.threads = match value()?.as_str() {
                    "auto" => None,
                    text => Some(number(&name, text, 1..=2)? as usize),
                };
            }
            "--sandbox" => {
                args.sandbox = match value()?.as_str() {
                    "auto" => true,
                    "off" => false,
                    text => return Err(format!("--sandbox {text}: must be auto or off")),
                };
            }
            "--log" => {
                let text = value()?;
                args.level = parse_level(&text)
                    .ok_or_else(|| format!("--log {text}: must be trace, debug, info, warn or error"))?;
            }
            _ => return Err(format!("unknown argument \"{name}\"; see --help")),
        }
    }
    args.socket = socket.ok_or("--socket PATH is missing; see --help")?;
    Ok(Parsed::Run(args))
}

fn number(name: &str, text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let wanted = || format!("{name} {text}: must be a number from {} to {}", range.start(), range.end());
    text.parse().ok().filter(|n| range.contains(n)).ok_or_else(wanted)
}

/// What all peers together may have.
const MAX_RETRANSMIT_BYTES: u64 = 64 << 20;

pub const HELP: &str = "\
stayput-dataplane - the per-packet part of Stayput; controlled by stayput agent over a Unix socket

usage: stayput-dataplane --socket PATH [options]
       stayput-dataplane --raw-udp ADDRESS:PORT

  --socket PATH     socket to listen on for the agent
  --tun NAME        name of the TUN interface (stayput0)
  --group NAME      group that may use the socket
  --log LEVEL       trace, debug, info, warn or error (info)
  --ephemeral-tun   let the interface, its addresses and routes go with the process
  --retransmit-bytes N
                    octets kept for each peer, to be sent again after a roam (8388608)
  --retransmit-age-ms N
                    how long they are kept (2000)
  --no-retransmit   keep nothing
  --outer-ttl TTL   TTL of outer packets: copy (from the inner packet, and the smaller one back) or a number (copy)
  --dscp WHERE      copy DSCP to the outer header: out, both (and back) or none (out)
  --offload LIST    switch offloads of the kernel off: none, or a list of no-vnet-hdr,
                    no-tso, no-uso, no-udp-gso, no-udp-gro (all that the kernel has)
  --threads N       1; 2: deliver received packets from a thread of its own; auto: 2 from four CPUs on (auto)
  --sandbox MODE    auto: after the start give up files (Landlock) and other system calls (seccomp), as far as the
                    kernel can; off (auto)
  --raw-udp ADDRESS:PORT
                    forward nothing: send UDP datagrams with the headers that stdin says, and print those that come,
                    for stayput conform
  --version         print the version
  --help            print this

Needs CAP_NET_ADMIN, and CAP_NET_RAW to see workloads arrive behind interfaces. Exit code: 0 after SIGTERM, 1 when something is missing, 2 for a wrong argument.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Result<Parsed, String> {
        parse(words.iter().map(|w| w.to_string()))
    }

    #[test]
    fn arguments() {
        let Ok(Parsed::Run(args)) = of(&["--socket=/x", "--tun", "t", "--ephemeral-tun", "--log", "debug"]) else {
            panic!("refused")
        };
        assert_eq!((args.socket, args.tun.as_str(), args.ephemeral), (PathBuf::from("/x"), "t", true));
        let Ok(Parsed::Run(args)) = of(&["--socket=/x", "--retransmit-bytes", "9", "--retransmit-age-ms=500"]) else {
            panic!("refused")
        };
        assert_eq!((args.retransmit.bytes, args.retransmit.age), (9, millis(500)));
        assert!(matches!(of(&["--socket=/x", "--no-retransmit"]), Ok(Parsed::Run(a)) if a.retransmit.bytes == 0));
        let Ok(Parsed::Run(args)) = of(&["--socket=/x", "--outer-ttl", "64", "--dscp", "none"]) else {
            panic!("refused")
        };
        assert_eq!(args.headers, HeaderRules { dscp: Dscp::None, fixed_ttl: Some(64) });
        let Ok(Parsed::Run(args)) = of(&["--socket=/x", "--offload", "no-tso,no-uso"]) else { panic!("refused") };
        assert_eq!(args.offloads.names(), ["vnet-hdr", "udp-gso", "udp-gro"]);
        let threads = |text| match of(&["--socket=/x", "--threads", text]) {
            Ok(Parsed::Run(args)) => args.threads,
            _ => panic!("refused"),
        };
        assert_eq!([threads("auto"), threads("1"), threads("2")], [None, Some(1), Some(2)]);
        let sandbox = |text| matches!(of(&["--socket=/x", "--sandbox", text]), Ok(Parsed::Run(a)) if a.sandbox);
        assert!(sandbox("auto") && !sandbox("off"));
        assert!(matches!(of(&["--help"]), Ok(Parsed::Help)));
        assert!(matches!(of(&["--raw-udp=[::1]:4341"]), Ok(Parsed::RawUdp(local)) if local.port() == 4341));
        for bad in [
            &[][..],
            &["--socket"],
            &["--socket", "/x", "--frob"],
            &["--socket", "/x", "--log", "loud"],
            &["--socket=/x", "--retransmit-age-ms=0"],
            &["--socket=/x", "--outer-ttl=0"],
            &["--socket=/x", "--dscp=in"],
            &["--socket=/x", "--offload=no-such"],
            &["--socket=/x", "--sandbox=on"],
            &["--socket=/x", "--threads=0"],
            &["--raw-udp", "192.0.2.1"],
            &["--raw-udp"],
            &["--socket=/x", "--threads", "3"],
        ] {
            assert!(of(bad).is_err());
        }
    }
}
