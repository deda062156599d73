//! A scenario: steps drawn from the seed, each with its checks, and the end when all faults cease.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use fastrand::Rng;
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::state::LONGEST_DISTANCE_RUNS;
use okki_sync::testing::sync::{Outcome, Request};
use okki_sync_sandbox::Service;
use okki_sync_sandbox::catalogue::Catalogue;
use okki_sync_sandbox::faults::{Endpoint, Fault, FaultKind};

use crate::Log;
use crate::coverage::Coverage;
use crate::invariants::{self, Ledger};
use crate::store::StoreFault;
use crate::world::{BEGINNING_MS, Death, Process, World, request};

/// Once faults have ceased, this many runs bring the target to the source.
const RUNS_TO_CONVERGE: u64 = 2;

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
    /// Of all that the two sides saw and the store holds.
    pub digest: u64,
}

/// Plays one seed from its beginning to its end.
pub fn play(seed: u64) -> Played {
    Log::listen();
    Log::take();
    fastrand::seed(seed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let _inside = runtime.enter();
    let mut scenario =
        Scenario { world: World::new(seed), ledger: Ledger::default(), past: Vec::new(), resume: None };
    let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(scenario.play())));
    let result = result.unwrap_or_else(|panic| {
        let text =
            panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("?")))
    });
    let mut world = scenario.world;
    count_the_world(&mut world);
    let digest = runtime.block_on(digest(&world));
    let broken = result.err().map(|what| Broken { seed, what, story: world.story.clone() });
    Played { coverage: world.coverage, broken, story: world.story, digest }
}

fn count_the_world(world: &mut World) {
    let stats = world.sandbox.stats();
    let coverage = &mut world.coverage;
    coverage.count("worlds", "seeds", 1);
    coverage.count("worlds", "virtual hours", (world.clock.now_ms() - BEGINNING_MS) / 3_600_000);
    coverage.count("worlds", "rows taken by targets", stats.rows_written);
    coverage.count("worlds", "calls", stats.calls.values().sum());
    coverage.count("worlds", format!("shape {:?}", world.pipeline.shape), 1);
    coverage.count("worlds", if world.pipeline.qeasy { "kind qeasy" } else { "kind http" }, 1);
    coverage.count("target calls at once", stats.max_target_calls_at_once.to_string(), 1);
    for (kind, count) in stats.struck.iter().chain(&world.objects.struck()) {
        coverage.count("faults that struck", *kind, *count);
    }
}

async fn digest(world: &World) -> u64 {
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
}

type Step = Result<(), String>;

impl Scenario {
    async fn play(&mut self) -> Step {
        let steps = self.world.rng.u32(3..=12);
        if self.rng().bool() {
            self.some_faults()?;
        }
        for _ in 0..steps {
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
            87..=88 => self.rotate(),
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

    fn some_request(&mut self) -> Request {
        let mode = match self.rng().u8(0..10) {
            0 => Mode::Plan,
            1 => Mode::Verify,
            _ => Mode::Sync,
        };
        let deadline = (self.rng().u8(0..4) == 0)
            .then(|| tokio::time::Instant::now() + Duration::from_secs(self.world.rng.u64(6..120)));
        Request { allow_mass_delete: self.rng().u8(0..3) == 0, deadline, ..request(mode) }
    }

    async fn some_run(&mut self) -> Step {
        // Now and then somebody knocks early; mostly the time that the last run named is kept.
        if let Some(seconds) = self.resume.take()
            && self.rng().u8(0..3) > 0
        {
            self.world.tell(format!("wait {seconds} s, as the last run asked"));
            self.world.wind(Duration::from_secs(seconds)).await;
        }
        let request = self.some_request();
        self.run("run", &request, Death::None).await.map(drop)
    }

    async fn killed_run(&mut self) -> Step {
        let request = self.some_request();
        let death = match self.rng().u8(0..5) {
            0 | 1 => Death::After(self.world.rng.u64(0..2_000)),
            2 => Death::After(self.world.rng.u64(0..120_000)),
            3 => Death::AtPoll(self.world.rng.u32(0..120)),
            _ => Death::Stopped(self.world.rng.u64(0..20_000)),
        };
        self.run("run that dies", &request, death).await.map(drop)
    }

    async fn duplicate_event(&mut self) -> Step {
        let request = Request { deadline: None, ..self.some_request() };
        self.run("event", &request, Death::None).await?;
        self.run("the same event again", &request, Death::None).await.map(drop)
    }

    /// Drives one run that has the world to itself, and checks every promise.
    async fn run(&mut self, what: &str, request: &Request, death: Death) -> Result<Option<Outcome>, String> {
        let before = invariants::before(&self.world).await?;
        let process = self.world.process.clone();
        let store_before = self.world.objects.struck();
        let outcome = self.world.drive(&process, request, death).await?;
        self.note(what, &process, request, death, outcome.as_ref());
        if outcome.is_none() || matches!(death, Death::Stopped(_)) {
            self.world.restart();
        }
        invariants::after_any_run(&self.world, &mut self.ledger).await?;
        let store_struck = self.world.objects.struck() != store_before;
        // A store that hangs is the one thing that a run cannot cut short: what was acknowledged must be saved.
        let overdue = request.deadline.filter(|_| !store_struck).map(|at| at.elapsed()).unwrap_or_default();
        invariants::after_one_run(&self.world, &before, request.mode, overdue, outcome.as_ref()).await?;
        if request.mode == Mode::Sync {
            invariants::no_call_before_its_time(&self.world, &before, &process.clock)?;
        }
        Ok(outcome)
    }

    fn note(
        &mut self,
        what: &str,
        process: &Process,
        request: &Request,
        death: Death,
        outcome: Option<&Outcome>,
    ) {
        let world = &mut self.world;
        let mode = request.mode;
        let allow = if request.allow_mass_delete { ", mass delete allowed" } else { "" };
        let deadline = if request.deadline.is_some() { ", deadline" } else { "" };
        let start = format!("{what}: {mode} in process {}{allow}{deadline}, {death:?}", process.number);
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

    /// A second process starts while the first runs; at times the catalogue changes between them.
    async fn overlap(&mut self) -> Step {
        let (first, second) = (self.world.process.clone(), self.world.start_process());
        let (one, two) = (self.some_request(), self.some_request());
        let after = Duration::from_millis(self.rng().u64(0..4_000));
        let death =
            if self.rng().u8(0..4) == 0 { Death::After(self.world.rng.u64(0..6_000)) } else { Death::None };
        let changes = self.rng().bool();
        let sandbox = self.world.sandbox.clone();
        let world = &self.world;
        let (a, b) = futures::join!(world.drive(&first, &one, death), async {
            tokio::time::sleep(after).await;
            if changes {
                sandbox.simulate_edits();
                world.note_source();
            }
            world.drive(&second, &two, Death::None).await
        });
        let (a, b) = (a?, b?);
        self.world.coverage.count(
            "steps",
            if changes { "overlap with a change between" } else { "overlap" },
            1,
        );
        self.world.tell(format!(
            "two runs overlap, the second {} ms later, change between: {changes}",
            after.as_millis()
        ));
        self.note("first", &first, &one, death, a.as_ref());
        self.note("second", &second, &two, Death::None, b.as_ref());
        if a.is_none() || self.rng().bool() {
            self.world.process = second;
        }
        invariants::after_any_run(&self.world, &mut self.ledger).await
    }

    /// A process that is not scheduled for a while, while another one does its work and the catalogue stands still.
    async fn frozen_run(&mut self) -> Step {
        if !self.world.freezing {
            return self.restart();
        }
        let (first, second) = (self.world.process.clone(), self.world.start_process());
        let death = Death::Frozen(self.rng().u64(0..8_000), self.world.rng.u64(20_000..200_000));
        let Death::Frozen(after, asleep) = death else { return Ok(()) };
        let one = Request { deadline: None, ..request(Mode::Sync) };
        let begins = after + self.rng().u64(0..asleep);
        let world = &self.world;
        let (a, b) = futures::join!(world.drive(&first, &one, death), async {
            tokio::time::sleep(Duration::from_millis(begins)).await;
            world.drive(&second, &one, Death::None).await
        });
        let (a, b) = (a?, b?);
        self.world.coverage.count("steps", "frozen process", 1);
        self.world.tell(format!("a process freezes; another one begins after {begins} ms"));
        self.note("frozen", &first, &one, death, a.as_ref());
        self.note("other", &second, &one, Death::None, b.as_ref());
        if self.rng().bool() {
            self.world.process = second;
        }
        invariants::after_any_run(&self.world, &mut self.ledger).await
    }

    /// A change goes out, its answer is never seen, and people take the change back: the target may hold what nobody
    /// wants any more, and nobody was told so.
    async fn regret(&mut self) -> Step {
        self.run("before the regret", &request(Mode::Sync), Death::None).await?;
        let (before, sandbox) = (self.world.catalogue(), self.world.sandbox.clone());
        sandbox.edit(rename_everything);
        self.world.note_source();
        let death = if self.rng().bool() {
            Death::After(self.world.rng.u64(0..2_000))
        } else {
            let at = if self.world.pipeline.qeasy { Endpoint::QeasyStore } else { Endpoint::HttpTarget };
            sandbox.fault(Fault {
                at,
                kind: FaultKind::LostAfter,
                times: 6,
                after: self.world.rng.u32(0..4),
            });
            Death::None
        };
        self.run("regretted", &request(Mode::Sync), death).await?;
        self.past.push(self.world.catalogue());
        sandbox.edit(|catalogue| *catalogue = before);
        self.world.note_source();
        self.world.coverage.count("steps", "regret", 1);
        self.world.tell("catalogue: everything renamed, and back");
        invariants::after_any_run(&self.world, &mut self.ledger).await
    }

    fn change_catalogue(&mut self) -> Step {
        self.past.push(self.world.catalogue());
        let (what, sandbox) = (self.rng().u8(0..10), self.world.sandbox.clone());
        let now = i64::try_from(self.world.clock.now_ms() / 1000).unwrap();
        let seed = self.rng().u64(..);
        let name = match what {
            0..=2 => {
                sandbox.simulate_edits();
                "a working day"
            }
            3 | 4 => {
                let past = self.past.clone();
                let back = self.rng().choice(&past).unwrap().clone();
                sandbox.edit(|catalogue| *catalogue = back);
                "people change their mind"
            }
            5 => {
                sandbox.edit(|catalogue| remove_some(catalogue, &mut Rng::with_seed(seed)));
                "rows removed"
            }
            6 => {
                sandbox.edit(undelete);
                "undelete"
            }
            7 => {
                // Nobody announces that an id is now there twice: only a pipeline that reads everything can know.
                let twins = self.world.pipeline.text.contains("products = \"full\"");
                sandbox.edit(|catalogue| add_dirty_rows(catalogue, twins, &mut Rng::with_seed(seed)));
                "dirty rows"
            }
            8 => {
                sandbox.edit(rename_everything);
                "everything renamed"
            }
            _ => {
                let fresh = Catalogue::generate(seed, 12, 60, false, now);
                sandbox.edit(|catalogue| grow(catalogue, fresh));
                "rows added"
            }
        };
        self.world.note_source();
        self.world.coverage.count("steps", "catalogue changed", 1);
        self.world.tell(format!("catalogue: {name}"));
        Ok(())
    }

    fn some_faults(&mut self) -> Step {
        for _ in 0..self.rng().u32(1..=3) {
            if self.rng().u8(0..4) == 0 {
                let fault = match self.rng().u8(0..4) {
                    0 => StoreFault::Read,
                    1 => StoreFault::WriteBefore,
                    2 => StoreFault::WriteAfter,
                    _ => StoreFault::SlowWrite(self.world.rng.u64(1..50)),
                };
                let after = self.rng().u32(0..6);
                self.world.objects.fault(fault, after);
                self.world.coverage.count("faults queued", fault.name(), 1);
                self.world.tell(format!("fault {fault:?} after {after}"));
                continue;
            }
            let fault = self.some_fault();
            self.world.coverage.count("faults queued", fault.kind.name(), 1);
            self.world.tell(format!("fault {fault:?}"));
            self.world.sandbox.fault(fault);
        }
        Ok(())
    }

    fn some_fault(&mut self) -> Fault {
        let shape = self.world.pipeline.shape;
        let ids: Vec<String> = shape.rows(&self.world.catalogue()).into_keys().collect();
        let (qeasy, rng) = (self.world.pipeline.qeasy, &mut self.world.rng);
        let writes = if qeasy { Endpoint::QeasyStore } else { Endpoint::HttpTarget };
        let token = if qeasy { Endpoint::QeasyToken } else { Endpoint::HttpTarget };
        let mut at = match rng.u8(0..20) {
            0 => Endpoint::OkkiToken,
            1..=3 => Endpoint::OkkiGroups,
            4..=8 => Endpoint::OkkiProducts,
            9 => token,
            10 if qeasy => Endpoint::QeasyQuery,
            _ => writes,
        };
        let seconds = *rng.choice(&[0, 1, 7, 30, 74, 76, 300, 5000]).unwrap();
        let mut kind = match rng.u8(0..26) {
            0 => FaultKind::Throttle { retry_after_seconds: None },
            1 | 2 => FaultKind::Throttle { retry_after_seconds: Some(seconds) },
            3 => FaultKind::Overloaded { retry_after_seconds: seconds },
            4 | 5 => FaultKind::Lockout,
            6 | 7 => FaultKind::Status(*rng.choice(&[400, 401, 403, 404, 413, 500, 502, 503, 504]).unwrap()),
            8 | 9 => {
                let codes =
                    [-1, 400, 404, 500, 40001, 40003, 40029, 40101, 40102, 42901, 49999, 50000, 50201];
                FaultKind::BodyCode(*rng.choice(&codes).unwrap(), "系统错误".to_owned())
            }
            10 => FaultKind::NotJson,
            11 | 12 => FaultKind::Truncated,
            // Past the limit of 64 MiB a body costs too much to come often; under it, it is valid JSON of no use.
            13 => FaultKind::Giant(if rng.u8(0..60) == 0 { 65 << 20 } else { 300_000 }),
            14 => FaultKind::LostBefore,
            15..=17 => FaultKind::LostAfter,
            18 => FaultKind::Slow(Duration::from_millis(rng.u64(1..100_000))),
            19 => FaultKind::Redirect("https://elsewhere.example/".to_owned()),
            20 => FaultKind::AccessDenied,
            21 => FaultKind::ShiftPages,
            22 => FaultKind::SwapRows,
            _ => {
                let some = (0..rng.usize(1..5)).filter_map(|_| rng.choice(&ids).cloned()).collect();
                FaultKind::PartlyFailed(some)
            }
        };
        match kind {
            FaultKind::ShiftPages | FaultKind::SwapRows => at = Endpoint::OkkiProducts,
            FaultKind::PartlyFailed(_) if qeasy => at = Endpoint::QeasyStore,
            FaultKind::PartlyFailed(_) => kind = FaultKind::LostAfter,
            _ => {}
        }
        // A plain HTTP target without `success` is believed when its JSON says nothing to the contrary: documented.
        let gullible = at == Endpoint::HttpTarget && !self.world.pipeline.success_is_named;
        if gullible && matches!(kind, FaultKind::AccessDenied | FaultKind::Giant(_)) {
            kind = FaultKind::LostBefore;
        }
        let rng = &mut self.world.rng;
        let times =
            if matches!(kind, FaultKind::Giant(_)) { 1 } else { *rng.choice(&[1, 1, 1, 2, 3, 8]).unwrap() };
        let after = *rng.choice(&[0, 0, 1, 2, 3, 5, 9]).unwrap();
        Fault { at, kind, times, after }
    }

    fn revoke(&mut self) -> Step {
        self.world.sandbox.revoke_tokens();
        self.world.coverage.count("steps", "tokens revoked", 1);
        self.world.tell("all tokens are revoked");
        Ok(())
    }

    fn rotate(&mut self) -> Step {
        let service = if self.rng().bool() { Service::Okki } else { Service::Target };
        self.world.sandbox.rotate_credentials(service);
        let known = self.rng().u8(0..4) > 0;
        if known {
            self.world.restart();
        }
        self.world.coverage.count("steps", "credentials rotated", 1);
        self.world.tell(format!("new credentials at {service:?}, the program is told: {known}"));
        Ok(())
    }

    async fn wait(&mut self) -> Step {
        let seconds = *self.rng().choice(&[1, 20, 59, 61, 299, 301, 3600, 8000, 30_000]).unwrap();
        self.world.wind(Duration::from_secs(seconds)).await;
        self.world.tell(format!("{seconds} s go by"));
        Ok(())
    }

    /// The next process sees another time. A minute goes by before, since a jump inside the minute of a call
    /// cannot be told from time that went by.
    async fn jump_clock(&mut self) -> Step {
        self.world.wind(Duration::from_secs(61)).await;
        let most = 3 * 3_600_000;
        self.world.ahead_ms = self.rng().i64(-most..most);
        self.world.jumped = true;
        self.world.restart();
        self.world.coverage.count("steps", "clock jumped", 1);
        let ahead = self.world.ahead_ms;
        self.world.tell(format!("the clock jumps: now {ahead} ms ahead"));
        Ok(())
    }

    fn restart(&mut self) -> Step {
        self.world.restart();
        self.world.tell("the process starts again");
        Ok(())
    }

    /// All faults cease: two runs later the target equals the source, and a third one writes nothing.
    async fn finish(&mut self) -> Step {
        self.world.sandbox.clear_faults();
        self.world.objects.clear_faults();
        self.world.restart();
        self.world.wind(Duration::from_secs(2 * 3600)).await;
        self.world.tell("all faults cease, two hours go by");
        let request = Request { allow_mass_delete: true, ..request(Mode::Sync) };
        let (mut runs, mut refused) = (0_u64, 0_u64);
        loop {
            let outcome =
                self.run("at the end", &request, Death::None).await?.ok_or("a run was killed by nobody")?;
            runs += 1;
            // A clock that was set back makes an old lockout look young; its end is named, and kept.
            if let (Some(seconds), true, 1) = (self.resume.take(), self.world.jumped, runs) {
                self.world.wind(Duration::from_secs(seconds)).await;
                runs = 0;
                self.world.jumped = false;
                continue;
            }
            // It makes a dead run's lease look young too, for as long as a lease may last.
            let busy = outcome
                .error
                .as_ref()
                .is_some_and(|error| error.kind == okki_sync::testing::error::ErrorKind::Busy);
            if busy && self.world.jumped && runs == 1 {
                self.world.wind(Duration::from_secs(120)).await;
                runs = 0;
                self.world.jumped = false;
                continue;
            }
            if outcome.report.status == Status::Paused {
                return Err(format!("a run paused without any fault: {:?}", outcome.report.error));
            }
            if outcome.report.status == Status::Failed {
                return Err(format!("a run failed without any fault: {:?}", outcome.report.error));
            }
            // Rows that were refused earlier are due when their distance has run out.
            if invariants::has_refused_rows(&outcome) && refused < LONGEST_DISTANCE_RUNS {
                refused += 1;
                continue;
            }
            let equal = invariants::target_equals_source(&self.world);
            match equal {
                Ok(()) => break,
                Err(why) if runs >= RUNS_TO_CONVERGE + refused => return Err(why),
                Err(_) => {}
            }
        }
        let sent = self.world.sandbox.journal(0).len();
        let outcome =
            self.run("once more", &request, Death::None).await?.ok_or("a run was killed by nobody")?;
        let more = self.world.sandbox.journal(0).len() - sent;
        if more > 0 {
            return Err(format!("a run with nothing to do sent {more} rows: {:?}", outcome.report));
        }
        let verified = self.run("verify", &crate::world::request(Mode::Verify), Death::None).await?;
        match verified.map(|outcome| outcome.report) {
            Some(report) if report.remaining == 0 && report.status != Status::Failed => Ok(()),
            other => Err(format!("the target equals the source, verify says otherwise: {other:?}")),
        }
    }
}

fn rename_everything(catalogue: &mut Catalogue) {
    catalogue.products.iter_mut().for_each(|product| product.name.push('+'));
    catalogue.groups.iter_mut().for_each(|group| group.name.push('+'));
}

fn undelete(catalogue: &mut Catalogue) {
    catalogue.products.iter_mut().for_each(|product| product.enable_flag = 1);
}

fn remove_some(catalogue: &mut Catalogue, rng: &mut Rng) {
    let share = *rng.choice(&[1, 3, 10, 100]).unwrap();
    catalogue.products.retain(|_| rng.u8(0..100) >= share);
    if rng.bool() {
        catalogue.groups.retain(|_| rng.u8(0..100) >= share);
    }
}

/// Offenders of every sort: repeated ids, blank names, products of no group, orphans.
fn add_dirty_rows(catalogue: &mut Catalogue, twins: bool, rng: &mut Rng) {
    for _ in 0..rng.u8(1..4) {
        let (groups, products) = (catalogue.groups.len(), catalogue.products.len());
        match rng.u8(0..6) {
            0 if products > 0 && twins => {
                let mut twin = catalogue.products[rng.usize(0..products)].clone();
                twin.name.push_str(" twin");
                catalogue.products.push(twin);
            }
            1 if products > 0 => catalogue.products[rng.usize(0..products)].name = " ".to_owned(),
            2 if products > 0 => catalogue.products[rng.usize(0..products)].group_id = "999".to_owned(),
            3 if groups > 0 => catalogue.groups[rng.usize(0..groups)].name = "\t".to_owned(),
            4 if groups > 0 => catalogue.groups[rng.usize(0..groups)].parent_id = "998".to_owned(),
            5 if groups > 0 => {
                let mut twin = catalogue.groups[rng.usize(0..groups)].clone();
                twin.name.push_str(" twin");
                catalogue.groups.push(twin);
            }
            _ => {}
        }
    }
}

/// Adds groups and products with ids of their own.
fn grow(catalogue: &mut Catalogue, fresh: Catalogue) {
    let last = catalogue.products.iter().filter_map(|product| product.product_id.parse::<u64>().ok()).max();
    let group_id = catalogue.groups.iter().map(|group| group.id.clone()).find(|id| !id.is_empty());
    let mut id = last.unwrap_or(37_004_000_000);
    let known: std::collections::HashSet<String> =
        catalogue.groups.iter().map(|group| group.id.clone()).collect();
    for group in fresh.groups {
        if !known.contains(&group.id) && group.parent_id == "0" {
            catalogue.groups.push(group);
        }
    }
    for mut product in fresh.products {
        id += 3;
        product.product_id = id.to_string();
        if let Some(group_id) = &group_id {
            product.group_id.clone_from(group_id);
        }
        catalogue.products.push(product);
    }
}
