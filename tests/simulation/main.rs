//! Simulation: whole runs of the real program against the sandbox, thousands of worlds, each from one seed.
//!
//! Wires and store are in process and the clock is paused; everything else is the real program. `make simulate SEEDS=…` runs any number of
//! seeds, `make simulate SEED=N` runs one with its story; a seed that breaks a promise is printed and replays exactly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

mod coverage;
mod invariants;
mod oracle;
mod pace;
mod past;
mod pipeline;
mod promises;
mod reading;
mod scenario;
mod store;
mod traceless;
mod traffic;
mod values;
mod wires;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use coverage::Coverage;
use okki_sync::testing::{self, Mutant};
use okki_sync_test_support as support;
use reading::Reading;
use scenario::{Broken, TRACELESS, play};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What `make test` runs.
const SEEDS: u64 = 1_000;
/// Seeds beyond those that have broken a promise: until what they found was mended, or with a mend that was taken back.
const MENDED: [u64; 39] = [
    1082, 1107, 1675, 1678, 1839, 1990, 2207, 2383, 2531, 2745, 2764, 2826, 2841, 3385, 3438, 3447, 4695,
    4785, 4827, 4930, 5214, 5632, 5810, 6665, 7477, 8263, 8860, 8954, 9689, 10181, 10880, 11789, 14746,
    16583, 17781, 34348, 42949, 48453, 49363,
];
/// Each planted bug must be found within this many seeds.
const SEEDS_PER_MUTANT: u64 = 500;
/// These are played in a second process too.
const FIRST_ELSEWHERE: u64 = 700;
const SEEDS_ELSEWHERE: u64 = 12;
/// At most this many broken seeds are shown; the rest is counted.
const SHOWN: usize = 5;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Whether the seed's world has what a planted bug needs in order to show: the others need not be played for it.
fn can_show(mutant: Mutant, seed: u64) -> bool {
    let (reading, _) = Reading::of(seed);
    match mutant {
        Mutant::IgnoreGrowth => reading.is_untimed(),
        Mutant::NoOverlap => reading.visible_late_s > 0 && !reading.is_too_late() && reading.is_filtered(),
        _ => true,
    }
}

/// Plays seeds on every core until all are played or, if `stop_at_first`, one is broken.
fn play_all(from: u64, count: u64, mutant: Option<Mutant>, stop_at_first: bool) -> (Coverage, Vec<Broken>) {
    let next = AtomicU64::new(from);
    let sum = Mutex::new((Coverage::default(), Vec::<Broken>::new()));
    // Two lists, of two processes or two versions, show which seeds took another way.
    let tell_digests = number("DIGESTS").is_some();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                testing::activate(mutant);
                let mut covered = Coverage::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count || (stop_at_first && !sum.lock().unwrap().1.is_empty()) {
                        break;
                    }
                    if mutant.is_some_and(|mutant| !can_show(mutant, seed)) {
                        continue;
                    }
                    let played = play(seed);
                    covered.add(&played.coverage);
                    if tell_digests {
                        eprintln!("{}", digest_line(seed, played.digest));
                    }
                    sum.lock().unwrap().1.extend(played.broken);
                }
                sum.lock().unwrap().0.add(&covered);
            });
        }
    });
    let (coverage, mut broken) = sum.into_inner().unwrap();
    broken.sort_by_key(|broken| broken.seed);
    (coverage, broken)
}

#[test]
fn every_seed_keeps_every_promise() {
    let started = Instant::now();
    if let Some(seed) = number("SEED") {
        let played = play(seed);
        eprintln!("{}\n{}", played.story.join("\n"), digest_line(seed, played.digest));
        assert!(played.broken.is_none(), "{}", played.broken.unwrap().line());
        return;
    }
    let (from, count) = (number("FROM").unwrap_or(0), number("SEEDS").unwrap_or(SEEDS));
    let (coverage, broken) = play_all(from, count, None, false);
    eprintln!("{coverage}wall seconds: {:.1}", started.elapsed().as_secs_f64());
    for broken in broken.iter().take(SHOWN) {
        eprintln!("\n{broken}");
    }
    let seeds: Vec<String> = broken.iter().map(|broken| broken.line()).collect();
    assert!(broken.is_empty(), "{} of {count} seeds broke a promise:\n{}", broken.len(), seeds.join("\n"));
    // A limit of the program, but a rare one.
    let traceless = coverage.of("worlds", TRACELESS);
    assert!(traceless <= 1 + count / 1_000, "{traceless} of {count} worlds");
}

#[test]
fn seeds_that_once_broke_a_promise_keep_every_one() {
    let played = MENDED.map(|seed| play(seed).broken.map(|broken| broken.line()));
    let broken: Vec<String> = played.into_iter().flatten().collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// What a story comes to, in one line.
fn digest_line(seed: u64, digest: u64) -> String {
    format!("seed {seed}: {digest:016x}")
}

/// Another process hashes otherwise, has another time zone, and begins at another time.
#[test]
fn a_seed_gives_the_same_story_in_another_process() {
    for seed in FIRST_ELSEWHERE..FIRST_ELSEWHERE + SEEDS_ELSEWHERE {
        let played = play(seed);
        if played.digest == 0 {
            continue;
        }
        let here = format!("{}\n{}", played.story.join("\n"), digest_line(seed, played.digest));
        let there = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "every_seed_keeps_every_promise"])
            .env("SEED", seed.to_string())
            .env("TZ", "Asia/Shanghai")
            .output()
            .unwrap();
        let there = String::from_utf8(there.stderr).unwrap();
        let difference = here.lines().find(|line| !there.lines().any(|other| other == *line));
        assert!(difference.is_none(), "seed {seed} took another way in another process: {difference:?}");
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..40 {
        let (once, again) = (play(seed), play(seed));
        if once.digest == 0 {
            continue;
        }
        let difference = once.story.iter().zip(&again.story).find(|(one, two)| one != two);
        assert!(difference.is_none(), "seed {seed} took another way: {difference:#?}");
        assert_eq!(once.story.len(), again.story.len(), "seed {seed}");
        assert_eq!(once.digest, again.digest, "seed {seed}: same story, other calls");
    }
}

/// The simulation can fail: every bug that we plant in ourselves breaks a promise.
#[test]
fn every_mutant_is_found() {
    let wanted = std::env::var("MUTANT").ok().filter(|name| !name.is_empty());
    let mut survivors = Vec::new();
    for mutant in Mutant::ALL {
        if wanted.as_ref().is_some_and(|name| *name != format!("{mutant:?}")) {
            continue;
        }
        let (_, broken) = play_all(0, SEEDS_PER_MUTANT, Some(mutant), true);
        match broken.first() {
            Some(broken) => eprintln!("{mutant:?}: {}", broken.line()),
            None => survivors.push(mutant),
        }
    }
    assert!(survivors.is_empty(), "not found within {SEEDS_PER_MUTANT} seeds: {survivors:?}");
}

/// What the program logs in this thread; one subscriber serves all worlds.
#[derive(Clone, Default)]
pub struct Log;

thread_local! {
    static LINES: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Log {
    /// Listens to the program down to its debug lines, and not to the sandbox.
    pub fn listen() {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            let filter: Targets = "warn,okki_sync=debug,okki_sync_sandbox=off".parse().unwrap();
            let lines = tracing_subscriber::fmt::layer().with_writer(|| Log).with_ansi(false).without_time();
            tracing_subscriber::registry().with(lines).with(filter).init();
        });
    }

    /// Takes what was logged in this thread since the last time.
    pub fn take() -> String {
        LINES.with(|lines| String::from_utf8_lossy(&lines.take()).into_owned())
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LINES.with(|lines| lines.borrow_mut().extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
