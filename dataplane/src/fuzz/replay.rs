//! The corpora, the inputs that once failed, and mutations of both that are the same in every run.
//!
//! `STAYPUT_FUZZ_FACTOR` multiplies the number of mutations; `STAYPUT_FUZZ_SEED` makes them others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::{TARGETS, Target};

fn folder(kind: &str, target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(target.name)
}

fn inputs(kind: &str, target: &Target) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(folder(kind, target)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// What was tried is left where a later run finds it.
fn run(target: &Target, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        input.iter().for_each(|octet| hash = (hash ^ u64::from(*octet)).wrapping_mul(0x100_0000_01b3));
        let path = folder("regressions", target).join(format!("{hash:016x}"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, input).unwrap();
        eprintln!("{} fails with {}", target.name, path.display());
        std::panic::resume_unwind(panic);
    }
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let corpus = inputs("corpus", target);
    assert!(!corpus.is_empty(), "{name} has no corpus");
    for input in inputs("regressions", target).iter().chain(&corpus) {
        run(target, input);
    }
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let mut mutator = Mutator { state: u64::from(setting("STAYPUT_FUZZ_SEED").unwrap_or(1)), corpus };
    for _ in 0..target.tries * setting("STAYPUT_FUZZ_FACTOR").unwrap_or(1) {
        run(target, &mutator.next());
    }
}

macro_rules! replays {
    ($($name:ident)*) => { $(#[test] fn $name() { replay(stringify!($name)); })* };
}

replays! {
    wire replay_window handshake tunnel segment coalesce fragment headers policy netlink neighbour agent_message command prefix
}

#[test]
fn every_target_has_its_binary() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let text = std::fs::read_to_string(manifest.join("Cargo.toml")).unwrap();
    for target in &TARGETS {
        assert!(text.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
        assert!(manifest.join("fuzz_targets").join(format!("{}.rs", target.name)).exists());
    }
    assert_eq!(text.matches("[[bin]]").count(), TARGETS.len());
}

struct Mutator {
    state: u64,
    corpus: Vec<Vec<u8>>,
}

impl Mutator {
    fn random(&mut self) -> usize {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.state >> 33) as usize
    }

    fn pick(&mut self) -> Vec<u8> {
        let at = self.random() % self.corpus.len();
        self.corpus[at].clone()
    }

    fn next(&mut self) -> Vec<u8> {
        let mut input = self.pick();
        for _ in 0..1 + self.random() % 6 {
            let at = self.random() % (input.len() + 1);
            let place = self.random() % input.len().max(1);
            match self.random() % 8 {
                0 if !input.is_empty() => input[place] ^= 1 << (self.random() % 8),
                1 if !input.is_empty() => input[place] = self.random() as u8,
                2 if !input.is_empty() => input[place] = [0, 1, 0x7f, 0x80, 0xff][self.random() % 5],
                3 => input.truncate(at),
                4 => input.insert(at, self.random() as u8),
                5 => {
                    let end = (at + self.random() % 16).min(input.len());
                    input.drain(at..end);
                }
                6 => {
                    let other = self.pick();
                    let from = self.random() % (other.len() + 1);
                    let end = (from + self.random() % 64).min(other.len());
                    input.splice(at..at, other[from..end].iter().copied());
                }
                _ => {
                    let end = (at + self.random() % 32).min(input.len());
                    let copy = input[at..end].to_vec();
                    input.splice(at..at, copy);
                }
            }
        }
        input.truncate(MAX_INPUT);
        input
    }
}

const MAX_INPUT: usize = 16 << 10;
