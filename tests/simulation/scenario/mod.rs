//! A scenario: steps drawn from the seed, each with its checks, and the end when all faults cease.

mod edits;
mod faults;
mod finish;
mod neighbours;
mod people;
mod rows;
mod steps;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fastrand::Rng;
use okki_sync::testing::report::Mode;
use okki_sync::testing::sync::{Outcome, RunRequest};
use okki_sync_sandbox::catalogue::Catalogue;

use crate::Log;
use crate::coverage::Coverage;
use crate::invariants::{self, Ledger};
use crate::promises::{self, Kept};
use crate::world::{Death, Process, World};

/// A seed that broke a promise.
#[derive(Debug, Clone)]
pub struct Broken {
    pub seed: u64,
    pub what: String,
    pub story: Vec<String>,
}

impl Broken {
    pub fn line(&self) -> String {
        format!("seed {} broke: {}; replay: make simulate SEED={}", self.seed, self.what, self.seed)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}", self.story.join("\n"), self.line())
    }
}

/// What came of one seed.
pub struct Played {
    pub coverage: Coverage,
    pub broken: Option<Broken>,
    pub story: Vec<String>,
    /// Of all that the two sides saw and the store holds; 0 if that may differ, since the store is a real directory.
    pub digest: u64,
}

/// The name under which worlds are counted that end because a first read met what leaves no trace (`traceless.rs`).
pub const TRACELESS: &str = "ended by a product hidden without a trace";
/// How such a product shows.
const SIGNS_OF_TRACELESS: [&str; 3] = ["missing:", "stale:", "untrue:"];

/// Plays one seed from its beginning to its end.
pub fn play(seed: u64) -> Played {
    Log::listen();
    Log::take();
    fastrand::seed(seed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let _inside = runtime.enter();
    let world = World::new(seed);
    let mut scenario = Scenario {
        compared_since: world.beginning_ms,
        world,
        ledger: Ledger::default(),
        past: Vec::new(),
        resume: None,
        unread_since: None,
        deleted: Vec::new(),
        in_a_row: 0,
    };
    let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(scenario.play())));
    let result = result.unwrap_or_else(|panic| {
        let text =
            panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("?")))
    });
    let mut world = scenario.world;
    count_the_world(&mut world);
    let result = result.or_else(|what| excuse_traceless(&mut world, what));
    let digest = runtime.block_on(digest(&world));
    let broken = result.err().map(|what| Broken { seed, what, story: world.story.clone() });
    Played { coverage: world.coverage, broken, story: world.story, digest }
}

/// What a first read cannot see is a limit that the reference names, not a broken promise.
fn excuse_traceless(world: &mut World, what: String) -> Step {
    let is_sign = SIGNS_OF_TRACELESS.iter().any(|kind| what.starts_with(kind));
    if !is_sign || !world.past.lock().unwrap().has_traceless {
        return Err(what);
    }
    world.tell(format!("a product was hidden without a trace: {what}"));
    world.coverage.count("worlds", TRACELESS, 1);
    Ok(())
}

fn count_the_world(world: &mut World) {
    let (stats, hours) = (world.sandbox.stats(), world.virtual_ms() / 3_600_000);
    let coverage = &mut world.coverage;
    coverage.count("worlds", "seeds", 1);
    coverage.count("worlds", "virtual hours", hours);
    coverage.count("worlds", "rows taken by targets", stats.rows_written);
    coverage.count("worlds", "calls", stats.calls.values().sum());
    coverage.count("worlds", format!("shape {:?}", world.pipeline.shape), 1);
    coverage.count("worlds", if world.pipeline.qeasy { "kind qeasy" } else { "kind http" }, 1);
    coverage.count("worlds", "a directory as store", u64::from(world.objects.is_directory()));
    coverage.count("worlds", "several connections on one key", u64::from(world.neighbours > 0));
    coverage.count("worlds", format!("idCheck {:?}", world.id_check), 1);
    let reading = &world.reading;
    coverage.count("worlds", format!("order {:?}", reading.order), 1);
    coverage.count("worlds", format!("filter {:?}", reading.filter), 1);
    coverage.count("worlds", format!("filter clock {:+} s", reading.clock_offset_s), 1);
    coverage.count("worlds", format!("changes visible after {} s", reading.visible_late_s), 1);
    coverage.count("worlds", "people who edit all the time", u64::from(reading.is_steady()));
    coverage.count("target calls at once", stats.max_target_calls_at_once.to_string(), 1);
    for (kind, count) in stats.struck.iter().chain(&world.objects.struck()) {
        coverage.count("faults that struck", *kind, *count);
    }
}

async fn digest(world: &World) -> u64 {
    if world.objects.is_directory() {
        return 0;
    }
    let mut text = format!("{:?}", world.sandbox.stats());
    for (id, row) in world.sandbox.journal(0) {
        text.push_str(&format!("\n{id} {row}"));
    }
    for (path, bytes) in world.objects.all().await {
        text.push_str(&format!("\n{path} {}", String::from_utf8_lossy(&bytes)));
    }
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

struct Scenario {
    world: World,
    ledger: Ledger,
    /// Earlier catalogues, for people who change their mind.
    past: Vec<Catalogue>,
    /// When the last run asked to be called again, in seconds.
    resume: Option<u64>,
    /// When the read began that no run has ended yet, in milliseconds.
    unread_since: Option<u64>,
    /// When the last read began that had the time to compare the source's total, in milliseconds: a run that says it is
    /// not done may still hold what was deleted since.
    compared_since: u64,
    /// Products that can be brought back.
    deleted: Vec<String>,
    /// Short runs in a row whose read was not complete.
    in_a_row: u64,
}

type Step = Result<(), String>;

impl Scenario {
    async fn play(&mut self) -> Step {
        let steps = self.world.rng.u32(3..=12);
        if self.rng().bool() {
            self.some_faults()?;
        }
        for _ in 0..steps {
            self.read_step().await?;
            self.row_step().await?;
            self.neighbours_step().await?;
            self.death_step().await?;
            self.step().await?;
        }
        self.finish().await?;
        self.world.told.push_str(&Log::take());
        invariants::no_secret_was_told(&self.world).await
    }

    async fn step(&mut self) -> Step {
        match self.world.rng.u8(0..100) {
            0..=27 => self.some_run().await,
            28..=35 => self.overlap().await,
            36..=47 => self.killed_run().await,
            48..=50 => self.duplicate_event().await,
            51..=65 => self.change_catalogue(),
            66..=83 => self.some_faults(),
            84..=86 => self.revoke(),
            87 => self.rotate(),
            88 => self.undo().await,
            89..=92 => self.wait().await,
            93..=94 => self.jump_clock().await,
            95 => self.restart(),
            96 | 97 => self.regret().await,
            _ => self.frozen_run().await,
        }
    }

    fn rng(&mut self) -> &mut Rng {
        &mut self.world.rng
    }

    /// Drives one run that has the world to itself, and checks every promise.
    async fn run(
        &mut self,
        what: &str,
        request: &RunRequest,
        death: Death,
    ) -> Result<Option<Outcome>, String> {
        let before = invariants::before(&self.world).await?;
        let process = self.world.process.clone();
        let (store_before, kept_before) = (self.world.objects.struck(), Kept::of(&self.world).await);
        let since_ms = *self.unread_since.get_or_insert(before.now_ms);
        let outcome = self.world.drive(&process, request, death).await?;
        self.world.note_source();
        self.note(what, &process, request, death, outcome.as_ref());
        if outcome.is_none() || matches!(death, Death::Stopped(_)) {
            self.world.restart();
        }
        invariants::after_any_run(&self.world, &mut self.ledger).await?;
        let store_struck = self.world.objects.struck() != store_before;
        // A store that hangs is the one thing that a run cannot cut short: what was acknowledged must be saved.
        let overdue = request.deadline.filter(|_| !store_struck).map(|at| at.elapsed()).unwrap_or_default();
        invariants::after_one_run(&self.world, &before, request, overdue, outcome.as_ref()).await?;
        let is_only = !request.only.is_empty();
        if is_only && Kept::of(&self.world).await != kept_before {
            return Err("a run for named rows has moved the cursor".to_owned());
        }
        if request.mode == Mode::Sync {
            invariants::no_call_before_its_time(&self.world, &before, &process.clock)?;
        }
        if request.mode == Mode::Sync && !is_only {
            let is_done = outcome.as_ref().is_some_and(promises::is_done);
            let moves = self.world.past.lock().unwrap().shows_changes_since(before.now_ms);
            let from_ms = if is_done && !moves { since_ms } else { self.compared_since.min(since_ms) };
            promises::after_a_sync(&self.world, &before, from_ms, outcome.as_ref())?;
            if is_done {
                self.compared_since = since_ms;
            }
            self.count_reads(&kept_before, outcome.as_ref()).await;
            if let Some(outcome) = outcome.as_ref().filter(|_| !store_struck) {
                let kept = Kept::of(&self.world).await;
                promises::it_moves(&self.world, &before, &kept_before, &kept, outcome)?;
            }
        }
        let is_sync = request.mode == Mode::Sync && !is_only;
        let has_read = is_sync && outcome.as_ref().is_some_and(promises::has_read);
        if has_read || (!is_sync && self.unread_since == Some(before.now_ms)) {
            self.unread_since = None;
        }
        Ok(outcome)
    }

    /// What the reads of this world met.
    async fn count_reads(&mut self, before: &Kept, outcome: Option<&Outcome>) {
        let Some(outcome) = outcome else { return };
        let resumed = before.windows > 0 && !before.is_complete;
        let (done, paused) = (promises::has_read(outcome), outcome.report.source.newly_read.is_some());
        let whole = Kept::of(&self.world).await.is_whole && !before.is_whole;
        let coverage = &mut self.world.coverage;
        coverage.count("reads", "resumed reads", u64::from(resumed));
        coverage.count("reads", "reads that took several runs", u64::from(done && self.in_a_row > 0));
        coverage.count("reads", "fallbacks to the whole read", u64::from(whole));
        self.in_a_row = if done { 0 } else { self.in_a_row + u64::from(paused) };
    }

    fn note(
        &mut self,
        what: &str,
        process: &Process,
        request: &RunRequest,
        death: Death,
        outcome: Option<&Outcome>,
    ) {
        let world = &mut self.world;
        let mode = request.mode;
        let allow = if request.allow_mass_delete { ", mass delete allowed" } else { "" };
        let deadline = if request.deadline.is_some() { ", deadline" } else { "" };
        let only =
            if request.only.is_empty() { String::new() } else { format!(", only {:?}", request.only.ids) };
        let start = format!("{what}: {mode} in process {}{allow}{deadline}{only}, {death:?}", process.number);
        let Some(outcome) = outcome else {
            world.coverage.count("runs", format!("{mode} killed"), 1);
            world.tell(format!("{start}: killed"));
            return;
        };
        let report = &outcome.report;
        let mut name = format!("{mode} {}", report.status.as_str());
        if let Some(error) = &outcome.error {
            name.push_str(&format!(" ({})", error.kind.name()));
        }
        world.coverage.count("runs", name, 1);
        self.resume = report.resume_after_seconds;
        world.told.push_str(&format!(
            "{report:?}\n{:?}\n{:?}\n{:?}\n",
            outcome.error, outcome.rejected, outcome.lines
        ));
        world.told.push_str(&Log::take());
        world.tell(format!(
            "{start}: {} {:?} {:?} written {} deleted {} quarantined {} remaining {} {}",
            report.status.as_str(),
            report.plan,
            report.source,
            report.target.written,
            report.target.deleted,
            report.quarantined,
            report.remaining,
            report.error.as_deref().unwrap_or(""),
        ));
    }
}
