//! `delay-link A B DELAY_US LOSS_PPM`: a cable between two network namespaces that takes time and loses frames.
//!
//! A and B are `/path/of/namespace=interface`. Prints `ready` when the interfaces are there, and ends with them.

mod cable;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use cable::{Cable, Trouble};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("delay-link: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [a, b, delay, loss] = args.as_slice() else {
        return Err(io::Error::other("usage: delay-link NETNS=IFNAME NETNS=IFNAME DELAY_US LOSS_PPM"));
    };
    let number = |text: &String| text.parse::<u32>().map_err(|_| io::Error::other(format!("{text} is not a number")));
    let trouble = Trouble { loss: number(loss)?, ..Trouble::default() };
    // Packets on a cable do not wait for the CPUs of hosts. Without the right to it they do.
    // SAFETY: no pointers are passed.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    let mut cable = Cable::lay(a, b, Duration::from_micros(number(delay)?.into()), trouble)?;
    println!("ready");
    cable.run()
}
