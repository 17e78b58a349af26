//! `stayput-dataplane`: forwards packets between a TUN device and peers; the agent tells it who they are.

use std::process::ExitCode;

use stayput_dataplane::args::{self, Parsed};

fn main() -> ExitCode {
    match args::parse(std::env::args().skip(1)) {
        Ok(Parsed::Help) => print!("{}", args::HELP),
        Ok(Parsed::Version) => println!("stayput-dataplane {}", env!("CARGO_PKG_VERSION")),
        Ok(Parsed::Run(args)) => return ended(stayput_dataplane::run(&args)),
        Ok(Parsed::RawUdp(local)) => return ended(stayput_dataplane::raw_udp::carry(local)),
        Err(message) => {
            eprintln!("stayput-dataplane: {message}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn ended(result: Result<(), String>) -> ExitCode {
    let Err(message) = result else { return ExitCode::SUCCESS };
    eprintln!("stayput-dataplane: {message}");
    ExitCode::FAILURE
}
