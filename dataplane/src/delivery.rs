//! From the receive buffers into the TUN, on the engine's thread or, where there are CPUs to spare, on one of its own.
//!
//! Writing to the TUN is nearly half of what receiving costs: the kernel copies, and runs the receiving TCP. With a
//! second thread the engine hands a whole receive buffer over, with the list of what to write from it, and goes on
//! with another buffer. There is one list, written in its order, so nothing is reordered; and nothing is shared but
//! the two bounded channels that full and empty buffers go through. What comes in small pieces while the second
//! thread has nothing to do is written at once: waking it would take longer than the write.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SendError, SyncSender, sync_channel};
use std::thread;

use crate::coalesce::Sink;
use crate::log;
use crate::stats::{Counter, Stats};
use crate::tun::Tun;
use crate::vnet::{VNET_HEADER, VnetHeader};

pub struct Delivery {
    tun: Arc<Tun>,
    helper: Option<Helper>,
    /// The batch at hand goes to the helper.
    postponing: bool,
    postponed: Writes,
}

/// The second thread, as the engine sees it.
struct Helper {
    loads: SyncSender<Load>,
    emptied: Receiver<Load>,
    in_flight: usize,
    spare: Vec<Load>,
    made: usize,
}

/// A receive buffer and what to write from it.
struct Load {
    arena: Vec<u8>,
    writes: Writes,
    written: Written,
}

#[derive(Default)]
struct Writes {
    frames: Vec<(VnetHeader, Range<usize>)>,
    /// The places of all frames' parts; each frame has a range of them.
    parts: Vec<Range<usize>>,
}

#[derive(Default)]
struct Written {
    calls: u64,
    packets: u64,
    octets: u64,
    refused: u64,
}

impl Delivery {
    pub fn new(tun: Arc<Tun>) -> Delivery {
        Delivery { tun, helper: None, postponing: false, postponed: Writes::default() }
    }

    /// `threads`: how many the data plane may use.
    pub fn start_threads(&mut self, threads: usize) {
        if threads > 1 {
            self.helper = Helper::start(self.tun.clone());
        }
    }

    pub fn threads(&self) -> usize {
        1 + usize::from(self.helper.is_some())
    }

    /// A batch of so many octets was received.
    #[inline]
    pub fn begin(&mut self, octets: usize, stats: &mut Stats) {
        let Some(helper) = &mut self.helper else { return };
        helper.collect(stats);
        self.postponing = helper.in_flight > 0 || octets >= WORTH_HANDING_OVER;
    }

    /// Where the packets of the batch go.
    #[inline]
    pub fn sink<'a>(&'a mut self, stats: &'a mut Stats) -> DeliverySink<'a> {
        DeliverySink { delivery: self, stats }
    }

    /// The batch is complete; `arena`, which holds it, may be another one afterwards.
    pub fn end(&mut self, arena: &mut Vec<u8>, stats: &mut Stats) {
        let Some(helper) = self.helper.as_mut().filter(|_| !self.postponed.frames.is_empty()) else { return };
        let Some(mut load) = helper.empty_load(arena.len(), stats) else {
            return self.lose_helper(arena, stats);
        };
        std::mem::swap(&mut load.arena, arena);
        std::mem::swap(&mut load.writes, &mut self.postponed);
        stats.add(Counter::TunWriteCallsHandedOver, load.writes.frames.len() as u64);
        helper.in_flight += 1;
        if let Err(SendError(load)) = helper.loads.send(load) {
            (*arena, self.postponed) = (load.arena, load.writes);
            self.lose_helper(arena, stats);
        }
    }

    /// Waits until all that was handed over is written.
    pub fn finish(&mut self, stats: &mut Stats) {
        if let Some(helper) = &mut self.helper {
            while helper.in_flight > 0 && helper.wait(stats) {}
        }
    }

    fn lose_helper(&mut self, arena: &[u8], stats: &mut Stats) {
        log::warn("the delivery thread has ended; going on without it", &[]);
        self.helper = None;
        self.postponing = false;
        let mut written = Written::default();
        self.postponed.write(&self.tun, arena, &mut written);
        self.postponed.clear();
        written.count(stats);
    }
}

impl Helper {
    fn start(tun: Arc<Tun>) -> Option<Helper> {
        let (loads, full) = sync_channel::<Load>(MAX_LOADS);
        let (done, emptied) = sync_channel::<Load>(MAX_LOADS);
        let run = move || {
            for mut load in full {
                load.writes.write(&tun, &load.arena, &mut load.written);
                if done.send(load).is_err() {
                    return;
                }
            }
        };
        match thread::Builder::new().name("delivery".to_string()).spawn(run) {
            Ok(_) => Some(Helper { loads, emptied, in_flight: 0, spare: Vec::new(), made: 0 }),
            Err(error) => {
                log::warn("no second thread", &[("error", &error)]);
                None
            }
        }
    }

    /// Takes back what is done.
    fn collect(&mut self, stats: &mut Stats) {
        while let Ok(load) = self.emptied.try_recv() {
            self.take_back(load, stats);
        }
    }

    /// Waits for one load. False when there is nobody left to wait for.
    fn wait(&mut self, stats: &mut Stats) -> bool {
        let load = self.emptied.recv().ok();
        load.map(|load| self.take_back(load, stats)).is_some()
    }

    fn take_back(&mut self, mut load: Load, stats: &mut Stats) {
        self.in_flight -= 1;
        std::mem::take(&mut load.written).count(stats);
        load.writes.clear();
        self.spare.push(load);
    }

    /// An empty load. There are few, so that a slow reader slows the sender down and not the memory.
    fn empty_load(&mut self, size: usize, stats: &mut Stats) -> Option<Load> {
        if self.spare.is_empty() && self.made < MAX_LOADS {
            self.made += 1;
            return Some(Load { arena: vec![0; size], writes: Writes::default(), written: Written::default() });
        }
        if self.spare.is_empty() {
            self.wait(stats);
        }
        self.spare.pop()
    }
}

impl Writes {
    fn write(&self, tun: &Tun, arena: &[u8], written: &mut Written) {
        for (vnet, parts) in &self.frames {
            written.write(tun, vnet, arena, &self.parts[parts.clone()]);
        }
    }

    fn clear(&mut self) {
        self.frames.clear();
        self.parts.clear();
    }
}

impl Written {
    #[inline]
    fn write(&mut self, tun: &Tun, vnet: &VnetHeader, arena: &[u8], parts: &[Range<usize>]) {
        self.calls += 1;
        match tun.write_parts(vnet, arena, parts) {
            Ok(length) => {
                self.packets += parts.len() as u64;
                self.octets += (length - VNET_HEADER) as u64;
            }
            Err(_) => self.refused += parts.len() as u64,
        }
    }

    #[inline]
    fn count(&self, stats: &mut Stats) {
        stats.add(Counter::TunWriteCalls, self.calls);
        stats.add(Counter::TunTxPackets, self.packets);
        stats.add(Counter::TunTxBytes, self.octets);
        stats.add(Counter::DropTunWriteError, self.refused);
    }
}

/// Writes frames to the TUN, or notes them for the second thread, and counts.
pub struct DeliverySink<'a> {
    delivery: &'a mut Delivery,
    stats: &'a mut Stats,
}

impl Sink for DeliverySink<'_> {
    #[inline]
    fn write(&mut self, vnet: &VnetHeader, arena: &[u8], parts: &[Range<usize>]) {
        if self.delivery.postponing {
            let Writes { frames, parts: all } = &mut self.delivery.postponed;
            let start = all.len();
            all.extend_from_slice(parts);
            return frames.push((*vnet, start..all.len()));
        }
        let mut written = Written::default();
        written.write(&self.delivery.tun, vnet, arena, parts);
        written.count(self.stats);
    }
}

/// How many make sense on this machine.
pub fn fitting_threads() -> usize {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    if cpus >= CPUS_FOR_TWO { 2 } else { 1 }
}

/// Below, the second thread would take its CPU from the applications.
const CPUS_FOR_TWO: usize = 4;
const MAX_LOADS: usize = 4;
/// Writing so much takes longer than waking a thread.
const WORTH_HANDING_OVER: usize = 16 << 10;
