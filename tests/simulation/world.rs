//! One world: a sandbox, a store, a pipeline, and the processes that run on them one after another or side by side.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use fastrand::Rng;
use okki_sync::app::{App, PipelineSource, Wires};
use okki_sync::testing::clock::Clock;
use okki_sync::testing::report::Mode;
use okki_sync::testing::sync::{Outcome, RunRequest};
use okki_sync_sandbox::catalogue::Catalogue;
use okki_sync_sandbox::{CodeReading, IdCheck, ListOrder, Options, Sandbox};

use crate::coverage::Coverage;
use crate::pace::SourceCalls;
use crate::past::Past;
use crate::pipeline::Pipeline;
use crate::promises::Kept;
use crate::reading::Reading;
use crate::store::Objects;
use crate::traceless::watching;
use crate::traffic::{Side, Traffic};
use crate::wires::{Outbursts, listening, with_a_way_back};

/// On this day each world begins, milliseconds since 1970: 2027-01-15.
const FIRST_DAY_MS: u64 = 1_799_971_200_000;
const DAY_MS: u64 = 86_400_000;
/// The connection that is looked at most.
pub const CONNECTION: &str = "it";
/// People do not work longer than this between two runs.
const LONGEST_WORK: Duration = Duration::from_secs(600);
/// No run takes longer, or it never ends.
const ENDLESS: Duration = Duration::from_secs(12 * 3600);

/// The sandbox's time when a world begins, milliseconds since 1970: at any time of the day, and at no other one for the
/// same seed. A stream of random numbers of its own.
fn beginning_ms(seed: u64) -> u64 {
    FIRST_DAY_MS + Rng::with_seed(seed ^ 0xda_b4ea).u64(0..DAY_MS)
}

/// The scheme's idCheck, until somebody switches it off at the end. It has a stream of random numbers of its own: the
/// other draws of a seed stay what they were.
fn id_check(seed: u64) -> IdCheck {
    match Rng::with_seed(seed ^ 0x1d_c4ec).u8(0..16) {
        0 => IdCheck::CountedAsFailed,
        1 | 2 => IdCheck::Excluded,
        _ => IdCheck::Off,
    }
}

/// How a run dies, if it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    None,
    /// Killed after this many milliseconds.
    After(u64),
    /// Killed at the await that it comes to as the n-th.
    AtPoll(u32),
    /// Killed this many milliseconds after the target has taken its first rows.
    OnceWritten(u64),
    /// Asked to stop (Ctrl-C, SIGTERM) after this many milliseconds.
    Stopped(u64),
    /// After the first number of milliseconds, not scheduled for the second: a virtual machine that was paused.
    Frozen(u64, u64),
}

/// One running program: its warm tokens and paces die with it.
#[derive(Clone)]
pub struct Process {
    pub number: u32,
    pub app: Arc<App>,
    pub clock: Clock,
}

pub struct World {
    pub rng: Rng,
    /// How the source behaves while it is read.
    pub reading: Reading,
    /// Apart from the other draws.
    pub reading_rng: Rng,
    /// For steps with single rows.
    pub rows_rng: Rng,
    /// Other connections with the same key and the same pipeline.
    pub neighbours: u8,
    pub neighbours_rng: Rng,
    /// For runs that die while they write. (A stream of its own.)
    pub deaths_rng: Rng,
    pub sandbox: Sandbox,
    pub clock: Clock,
    pub beginning_ms: u64,
    pub pipeline: Pipeline,
    /// The scheme's, until the end.
    pub id_check: IdCheck,
    pub objects: Objects,
    pub process: Process,
    processes: u32,
    /// How far the processes' clock is ahead of the sandbox's.
    pub ahead_ms: i64,
    /// Whether the clock has jumped.
    pub jumped: bool,
    /// Whether processes may freeze here; the server's limit is then above ours, since a call that was decided
    /// before the freeze and leaves after it is nobody's fault.
    pub freezing: bool,
    pub past: Arc<Mutex<Past>>,
    /// Calls to the target that a process made while it knew that the target wants silence.
    pub outbursts: Outbursts,
    pub traffic: Traffic,
    pub source_calls: SourceCalls,
    pub story: Vec<String>,
    /// Everything that people and logs were told.
    pub told: String,
    pub coverage: Coverage,
}

/// Calls to the source that a token lasts for at least.
const CALLS_OF_A_TOKEN: f64 = 12.0;

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (mut reading, reading_rng) = Reading::of(seed);
        let mut pipeline = Pipeline::random(&mut rng, &reading);
        let mut rows_rng = Rng::with_seed(seed ^ 0x0e05_a11d);
        pipeline.guard(&mut rows_rng);
        let mut neighbours_rng = Rng::with_seed(seed ^ 0x4e16_4b05);
        let objects = Objects::new(seed);
        // Saves to one file wait for each other, and all processes are in this thread. An item that is held back stays as its
        // own connection had it acknowledged: connections that write the same rows would not agree on them.
        let is_shared =
            neighbours_rng.u8(0..6) == 0 && !objects.is_directory() && pipeline.max_cost.is_none();
        let neighbours = if is_shared { neighbours_rng.u8(1..=4) } else { 0 };
        let beginning_ms = beginning_ms(seed);
        let (clock, id_check) = (Clock::starting_at_ms(beginning_ms), id_check(seed));
        let freezing = rng.u8(0..6) == 0;
        let mut options = Options {
            seed: rng.u64(..),
            groups: if rng.u8(0..12) == 0 { 0 } else { rng.usize(1..30) },
            products: if rng.u8(0..12) == 0 { 0 } else { rng.usize(0..200) },
            dirty: rng.u8(0..3) == 0,
            token_lifetime: Duration::from_secs(if rng.u8(0..4) == 0 { rng.u64(3..120) } else { 28_800 }),
            target_token_lifetime: Duration::from_secs(if rng.u8(0..4) == 0 {
                rng.u64(3..120)
            } else {
                7200
            }),
            expires_in: rng.bool(),
            ids_as_strings: rng.bool(),
            total_item: rng.bool(),
            success_code: *rng.choice(&[Some(200), Some(0), None]).unwrap(),
            msg_key: rng.bool(),
            max_page_size: if rng.bool() { 100 } else { 20 },
            calls_per_minute: pipeline.calls_per_minute * if freezing { 4 } else { 1 },
            query_shape: rng.u8(1..=4),
            codes: *rng.choice(&[CodeReading::A, CodeReading::B, CodeReading::C]).unwrap(),
            latency: Duration::from_millis(rng.u64(1..40)),
            id_check,
            target_merges: Rng::with_seed(seed ^ 0x6e_46e5).u8(0..3) == 0,
            journal: true,
            ..Options::default()
        };
        if options.dirty {
            // Which of two rows with one id comes first depends on the order.
            reading.order = ListOrder::ById;
        }
        // A token outlasts the calls that are in line when it is fetched, also where it does not say how long it lasts.
        let in_line = Duration::from_secs_f64(CALLS_OF_A_TOKEN / pipeline.pace);
        options.token_lifetime = options.token_lifetime.max(in_line);
        reading.keep_readable(pipeline.pace, pipeline.page_size, options.products);
        reading.keep_writable(pipeline.calls_per_minute, pipeline.max_rows_per_batch);
        reading.apply(&mut options);
        let story = vec![format!("begins at {}\n{options:?}\n{}", clock.now(), pipeline.text)];
        let sandbox = Sandbox::new(options, move || clock.now_ms());
        let past = Arc::new(Mutex::new(Past::since(beginning_ms, reading.visible_late_s * 1_000)));
        let (outbursts, traffic, source_calls) = Default::default();
        objects.tell_silences(&source_calls, clock);
        let listeners = (&outbursts, &traffic, &source_calls);
        let process = process(&sandbox, &objects, &past, listeners, clock, 0, clock.now_ms());
        let world = Self {
            rng,
            reading,
            reading_rng,
            rows_rng,
            neighbours,
            neighbours_rng,
            deaths_rng: Rng::with_seed(seed ^ 0xdead_b47c),
            sandbox,
            clock,
            beginning_ms,
            pipeline,
            id_check,
            objects,
            process,
            processes: 1,
            ahead_ms: 0,
            jumped: false,
            freezing,
            past,
            outbursts,
            traffic,
            source_calls,
            story,
            told: String::new(),
            coverage: Coverage::default(),
        };
        world.note_source();
        world
    }

    pub fn tell(&mut self, line: impl AsRef<str>) {
        let seconds = self.virtual_ms() as f64 / 1000.0;
        self.story.push(format!("{seconds:>10.3} {}", self.objects.anonymous(line.as_ref())));
    }

    pub fn virtual_ms(&self) -> u64 {
        self.clock.now_ms() - self.beginning_ms
    }

    /// A new process with the credentials that are valid now.
    pub fn start_process(&mut self) -> Process {
        let now = self.clock.now_ms().checked_add_signed(self.ahead_ms).unwrap();
        let number = self.processes;
        self.processes += 1;
        let listeners = (&self.outbursts, &self.traffic, &self.source_calls);
        process(&self.sandbox, &self.objects, &self.past, listeners, self.clock, number, now)
    }

    pub fn restart(&mut self) {
        self.process = self.start_process();
    }

    /// See [`Reading::calls_for_a_window`].
    pub fn calls_for_a_window(&self) -> u32 {
        let mut cap = 0;
        self.sandbox.set_options(|options| cap = options.max_page_size);
        let page = (self.pipeline.page_size as usize).min(cap);
        self.reading.calls_for_a_window(self.catalogue().products.len().div_ceil(page) as u32)
    }

    pub fn catalogue(&self) -> Catalogue {
        self.sandbox.catalogue()
    }

    /// Notes what the source says now. To be called after each change.
    pub fn note_source(&self) {
        note(&self.past, &self.sandbox, self.clock);
    }

    /// Runs in this process, with this end. `None` if it was killed.
    pub async fn drive(
        &self,
        process: &Process,
        request: &RunRequest,
        death: Death,
    ) -> Result<Option<Outcome>, String> {
        self.drive_connection(CONNECTION, process, request, death).await
    }

    /// The same for another connection with the same pipeline.
    pub async fn drive_connection(
        &self,
        connection: &str,
        process: &Process,
        request: &RunRequest,
        death: Death,
    ) -> Result<Option<Outcome>, String> {
        let is_first_read = connection == CONNECTION
            && request.mode == Mode::Sync
            && (self.pipeline.reads_all() || !Kept::of(self).await.is_complete);
        self.past.lock().unwrap().begin_run(is_first_read);
        let number = self.traffic.begin(connection, request.mode, self.clock.now_ms());
        let ended =
            Traffic::within(number, self.drive_to_its_end(connection, process, request, death)).await?;
        if let Some(outcome) = &ended {
            self.traffic.end(number, self.clock.now_ms(), outcome);
        }
        Ok(ended)
    }

    async fn drive_to_its_end(
        &self,
        connection: &str,
        process: &Process,
        request: &RunRequest,
        death: Death,
    ) -> Result<Option<Outcome>, String> {
        let dies = matches!(death, Death::After(_) | Death::AtPoll(_) | Death::OnceWritten(_));
        let death = if dies && self.objects.is_directory() { Death::None } else { death };
        let text = self.pipeline.of_connection(connection);
        let from = PipelineSource::Text { name: format!("{connection}.toml"), text };
        let watch = |_| {};
        let mut run = Box::pin(process.app.run(from, request, &watch));
        let ended = match death {
            Death::None => None,
            Death::After(ms) => return Ok(for_a_while(&mut run, ms).await),
            Death::AtPoll(polls) => return Ok(polled(&mut run, polls).await),
            Death::OnceWritten(ms) => match self.until_it_writes(&mut run).await {
                Some(ended) => Some(ended),
                None => return Ok(for_a_while(&mut run, ms).await),
            },
            Death::Stopped(ms) => {
                let ended = for_a_while(&mut run, ms).await;
                process.app.stop();
                ended
            }
            Death::Frozen(after, ms) => {
                let ended = for_a_while(&mut run, after).await;
                tokio::time::sleep(Duration::from_millis(ms)).await;
                ended
            }
        };
        if ended.is_some() {
            return Ok(ended);
        }
        match tokio::time::timeout(ENDLESS, run).await {
            Ok(outcome) => Ok(Some(outcome)),
            Err(_) => Err(format!("a run does not end within {} h", ENDLESS.as_secs() / 3600)),
        }
    }

    /// Drives a run until the target has taken rows of it; the outcome if it ends before.
    async fn until_it_writes<T>(&self, run: &mut Pin<Box<impl Future<Output = T>>>) -> Option<T> {
        let before = self.sandbox.stats().rows_written;
        std::future::poll_fn(|context| match run.as_mut().poll(context) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending if self.sandbox.stats().rows_written > before => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Time goes by. People rest while much of it does.
    pub async fn wind(&self, duration: Duration) {
        let rests = self.is_at_work() && duration > LONGEST_WORK;
        if rests {
            self.people(false);
        }
        tokio::time::advance(duration).await;
        if rests {
            self.people(true);
        }
    }

    pub fn is_at_work(&self) -> bool {
        let mut rate = 0.0;
        self.sandbox.set_options(|options| rate = options.edits_per_minute);
        rate > 0.0
    }

    /// Whether people are at work from now on, if this world has any.
    pub fn people(&self, at_work: bool) {
        let rate = if at_work { self.reading.edits_per_minute } else { 0.0 };
        self.sandbox.set_options(|options| options.edits_per_minute = rate);
        self.note_source();
    }
}

/// The name of another connection with the same key.
pub fn neighbour(number: u8) -> String {
    format!("n{number}")
}

pub fn request(mode: Mode) -> RunRequest {
    crate::support::request(mode)
}

fn note(past: &Arc<Mutex<Past>>, sandbox: &Sandbox, clock: Clock) {
    past.lock().unwrap().note(sandbox, clock.now_ms());
}

fn process(
    sandbox: &Sandbox,
    objects: &Objects,
    past: &Arc<Mutex<Past>>,
    (outbursts, traffic, source_calls): (&Outbursts, &Traffic, &SourceCalls),
    clock: Clock,
    number: u32,
    now_ms: u64,
) -> Process {
    let env = crate::support::env_with(sandbox.current_credentials());
    let seen = {
        let (sandbox, past) = (sandbox.clone(), Arc::clone(past));
        move || note(&past, &sandbox, clock)
    };
    let okki = watching(with_a_way_back(sandbox.okki(), seen), Arc::clone(past), move || clock.now_ms());
    let clock = Clock::starting_at_ms(now_ms);
    let okki = source_calls.on(okki, number);
    let wires = Wires {
        source: Some(crate::support::in_process(traffic.on(okki, Side::Source))),
        target: Some(crate::support::in_process(
            traffic.on(listening(with_a_way_back(sandbox.target(), || ()), outbursts), Side::Target),
        )),
        store: Some(objects.store(number)),
    };
    Process { number, app: Arc::new(App::with_wires(env, wires, clock)), clock }
}

async fn for_a_while<T>(run: &mut Pin<Box<impl Future<Output = T>>>, ms: u64) -> Option<T> {
    tokio::time::timeout(Duration::from_millis(ms), run).await.ok()
}

async fn polled<T>(run: &mut Pin<Box<impl Future<Output = T>>>, polls: u32) -> Option<T> {
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        run.as_mut().poll(context).map(Some)
    })
    .await
}
