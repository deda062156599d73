//! The one send loop: pace, token, send, judge, and the next step that `retry.rs` decides. Both sides use it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Mutex, SemaphorePermit};
use tokio::time::Instant;

use crate::budget::{Budget, interrupted};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result, Side};
use crate::net::limit::{PerMinute, PerSecond, RateLimit};
use crate::net::retry::{self, FailureKind, Next, Situation};
use crate::net::{Answer, Request, Wire};

/// A token that has less than this left is replaced before it is used.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);
/// A server that says "never" means this; no clock holds its number.
const LONGEST_TOKEN: Duration = Duration::from_secs(30 * 24 * 3600);
/// Tokens that a call fetches at most while it waits for its turn.
const TOKENS_PER_CALL: u32 = 4;
/// An answer that takes longer asks for a slower pace.
const SLOW_ANSWER: Duration = Duration::from_secs(10);

/// What a side's limit looks like.
pub(crate) enum Pace {
    /// Calls per second.
    PerSecond(PerSecond),
    /// Calls per minute.
    PerMinute {
        /// The calls of the last minute. Locked for a moment only, so that an answer is never kept waiting.
        window: std::sync::Mutex<PerMinute>,
        /// One caller at a time takes its slot, and stores its reservation before the next one counts on it.
        turn: Mutex<()>,
        /// Share of the limit that the server announces which is left to others.
        reserve_ratio: f64,
    },
}

/// Where the `Authorization` header comes from.
pub(crate) enum Auth {
    /// There is none.
    None,
    /// A fixed token.
    Fixed(SecretString),
    /// A login call whose answer holds a token for a while.
    Login {
        /// The login request.
        request: Request,
        /// Reads its answer.
        read: fn(&Answer, u64) -> Result<Token, CallError>,
    },
}

/// A token and its time.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    /// The token.
    pub value: SecretString,
    /// How long it is said to last.
    pub expires_in: Duration,
}

#[derive(Clone)]
struct Held {
    value: SecretString,
    renew_at: Instant,
    generation: u64,
}

/// An answer that is not what was hoped for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallError {
    /// What it means for the next step.
    pub failure: FailureKind,
    /// What kind of error it is, should it be final.
    pub kind: ErrorKind,
    /// What the server said.
    pub message: String,
}

/// How a call is made.
pub(crate) struct Call<T> {
    /// Its name in messages.
    what: &'static str,
    /// Its answer is only a verdict, the words of which may end in the quarantine: it is judged without our
    /// credentials and the token. (Answers that hold rows are judged as they came.)
    words_only: bool,
    /// What to answer when the answer was lost and it is cheaper to ask what became of the call than to repeat it.
    when_lost: Option<T>,
}

impl<T> Call<T> {
    /// A call that is repeated when its answer is lost.
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, words_only: false, when_lost: None }
    }

    /// The same, its answer judged without our secrets.
    pub(crate) fn for_words(self) -> Self {
        Self { words_only: true, ..self }
    }

    /// The same, ending with this value when its answer is lost.
    pub(crate) fn when_lost(self, value: Option<T>) -> Self {
        Self { when_lost: value, ..self }
    }
}

/// How far a call has come.
struct Attempts {
    what: &'static str,
    attempt: u32,
    refreshed: bool,
}

/// What the answer must not give away.
#[derive(Clone, Copy)]
struct Sent<'a> {
    token: Option<&'a SecretString>,
    words_only: bool,
}

/// What the loop does next.
enum Go {
    Again(Duration),
    WithNewToken,
    Ask(Duration),
}

/// Calls made, by what they were.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// All calls.
    pub requests: AtomicU64,
    /// Repeats.
    pub retries: AtomicU64,
    /// Answers that asked for a slower pace.
    pub throttled: AtomicU64,
    /// Calls that did not come to a good end at once. Only ever grows.
    pub failures: AtomicU64,
}

impl Counters {
    /// Reads (requests, retries, throttled) and starts again at zero.
    pub(crate) fn take(&self) -> (u64, u64, u64) {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        (take(&self.requests), take(&self.retries), take(&self.throttled))
    }
}

/// One side of the wire: its client, pace, token and counters. It lives as long as the program, so that tokens stay warm.
pub(crate) struct Client {
    side: Side,
    wire: Wire,
    clock: Clock,
    pace: Pace,
    auth: Auth,
    secrets: Vec<SecretString>,
    held: Mutex<Option<Held>>,
    generation: AtomicU64,
    /// Waits of this run, all calls together.
    waited_ms: AtomicU64,
    /// The other side wants no call by anybody before this, wall-clock milliseconds.
    silent_until_ms: AtomicU64,
    /// Calls made.
    pub counters: Counters,
}

impl Client {
    /// A client; `secrets` are taken out of whatever the server's texts may echo.
    pub(crate) fn new(
        side: Side,
        wire: Wire,
        clock: Clock,
        pace: Pace,
        auth: Auth,
        secrets: Vec<SecretString>,
    ) -> Self {
        Self {
            side,
            wire,
            clock,
            pace,
            auth,
            secrets,
            held: Mutex::new(None),
            generation: AtomicU64::new(0),
            waited_ms: AtomicU64::new(0),
            silent_until_ms: AtomicU64::new(0),
            counters: Counters::default(),
        }
    }

    /// The pace, for the state to keep.
    pub(crate) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// A run begins: its retry budget is whole.
    pub(crate) fn start_run(&self) {
        self.waited_ms.store(0, Ordering::Relaxed);
        self.counters.take();
    }

    /// Sends a request until it succeeds, or until that is pointless or too late.
    ///
    /// `build` makes the request (with the token, if there is one); `judge` reads the answer.
    pub(crate) async fn call<T>(
        &self,
        budget: &Budget,
        call: Call<T>,
        build: impl Fn(Option<&SecretString>) -> Request,
        judge: impl Fn(&Answer, u64) -> Result<T, CallError>,
    ) -> Result<T> {
        let Call { what, words_only, mut when_lost } = call;
        let mut progress = Attempts { what, attempt: 0, refreshed: false };
        loop {
            progress.attempt += 1;
            let token = self.token_in_time(budget, what).await?;
            let request = build(token.as_ref().map(|token| &token.value));
            let idempotent = request.idempotent;
            let sent = Sent { token: token.as_ref().map(|token| &token.value), words_only };
            let problem = match self.once(budget, &progress, request, sent, &judge).await? {
                Ok(done) => {
                    self.on_success().await;
                    return Ok(done);
                }
                Err(problem) => problem,
            };
            let next =
                self.judge_problem(budget, problem, &progress, idempotent, when_lost.is_some()).await?;
            match next {
                Go::Again(wait) => budget.sleep(wait).await?,
                Go::WithNewToken => {
                    let aged = token.as_ref().is_some_and(|token| Instant::now() >= token.renew_at);
                    // It may have expired while the call waited for its slot: that is no word on the credentials.
                    progress.refreshed = !aged || progress.attempt + 1 >= retry::MAX_ATTEMPTS;
                    if let Some(token) = token {
                        self.forget(token.generation).await;
                    }
                }
                Go::Ask(wait) => {
                    budget.sleep(wait).await?;
                    if let Some(lost) = when_lost.take() {
                        return Ok(lost);
                    }
                }
            }
        }
    }

    fn redacted_body(&self, answer: &Answer, token: Option<&SecretString>) -> Bytes {
        let secrets: Vec<&SecretString> = self.secrets.iter().chain(token).collect();
        crate::net::redact(&String::from_utf8_lossy(&answer.body), &secrets).into()
    }

    async fn judge_problem(
        &self,
        budget: &Budget,
        problem: CallError,
        progress: &Attempts,
        idempotent: bool,
        can_read_back: bool,
    ) -> Result<Go> {
        let limited = matches!(problem.failure, FailureKind::Throttled(_) | FailureKind::LockedOut(_));
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        if limited {
            self.counters.throttled.fetch_add(1, Ordering::Relaxed);
        }
        let waited = Duration::from_millis(self.waited_ms.load(Ordering::Relaxed));
        let situation = Situation {
            attempt: progress.attempt,
            // A fixed token cannot be refreshed.
            refreshed: progress.refreshed || !matches!(self.auth, Auth::Login { .. }),
            idempotent,
            can_read_back,
            left: budget.left(),
            budget: retry::RETRY_BUDGET.saturating_sub(waited),
            split_calls: 0,
            jitter: fastrand::f64(),
        };
        let what = progress.what;
        let next = retry::decide(&problem.failure, situation);
        if let (true, Next::Wait(wait) | Next::Pause(wait)) = (limited, next) {
            self.block_until(wait);
        }
        match next {
            Next::Refresh => Ok(Go::WithNewToken),
            Next::ReadBack(wait) => {
                // Asking what became of it stands in for repeating it.
                self.counters.retries.fetch_add(1, Ordering::Relaxed);
                Ok(Go::Ask(self.note_backoff(what, &problem, wait).await))
            }
            Next::Wait(wait) => Ok(Go::Again(self.note_backoff(what, &problem, wait).await)),
            Next::Pause(wait) => {
                let kind = if limited { ErrorKind::Throttled(self.side) } else { ErrorKind::Interrupted };
                let message =
                    format!("{what}: {}; come back in {} s", problem.message, wait.as_secs().max(1));
                Err(Error::new(kind, message).resume_after(wait))
            }
            // Rows are the target's business: it asks for itself.
            Next::Stop | Next::Split | Next::SkipRow => {
                Err(Error::new(problem.kind, format!("{what}: {}", problem.message)))
            }
        }
    }

    /// Stops all callers, not only the one that was told. Nothing is awaited here: the next caller knows it already.
    fn block_until(&self, wait: Duration) {
        if let Pace::PerMinute { .. } = &self.pace {
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            self.silent_until_ms.fetch_max(self.clock.now_ms().saturating_add(wait_ms), Ordering::Relaxed);
        }
    }

    /// How long the other side wants no call. A time that is more than an hour away is a clock that was set back.
    pub(crate) fn blocked_for(&self) -> Duration {
        let left = self.clock.until_ms(self.silent_until_ms.load(Ordering::Relaxed));
        if left > retry::RETRY_AFTER_CAP { Duration::ZERO } else { left }
    }

    async fn note_backoff(&self, what: &str, problem: &CallError, wait: Duration) -> Duration {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(side = %self.side, call = what, wait_ms, why = %problem.message, "will try again");
        self.waited_ms.fetch_add(wait_ms, Ordering::Relaxed);
        if let Pace::PerSecond(pace) = &self.pace {
            match problem.failure {
                // Stops all workers, not only this one.
                FailureKind::Throttled(_) => pace.slow_down(wait).await,
                FailureKind::ServerError => pace.slow_down(Duration::ZERO).await,
                _ => {}
            }
        }
        wait
    }

    async fn on_success(&self) {
        if let Pace::PerSecond(pace) = &self.pace {
            pace.on_success().await;
        }
    }

    async fn once<T>(
        &self,
        budget: &Budget,
        progress: &Attempts,
        request: Request,
        sent: Sent<'_>,
        judge: &impl Fn(&Answer, u64) -> Result<T, CallError>,
    ) -> Result<Result<T, CallError>> {
        let _in_flight = budget.before_a_call(self.slot(budget, progress.what)).await??;
        budget.check_open()?;
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        if progress.attempt > 1 {
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
        }
        let host = request.url.host_str().unwrap_or("?").to_owned();
        let started = Instant::now();
        let answer = budget.unless_stopped(self.wire.send(request, budget.left())).await?;
        self.took(started.elapsed()).await;
        Ok(match answer {
            Ok(mut answer) => {
                let now_ms = self.clock.now_ms();
                self.observe(&answer, now_ms);
                if sent.words_only {
                    answer.body = self.redacted_body(&answer, sent.token);
                }
                judge(&answer, now_ms)
                    .map_err(|problem| self.redact(problem, answer, sent.token, judge, now_ms))
            }
            // The deadline cut the call short: the run's time is over, and nothing is wrong with the other side.
            Err(_) if budget.left().is_zero() => return Err(interrupted("the run's time is over")),
            Err(lost) => Err(CallError {
                failure: if lost.may_pass { FailureKind::Lost } else { FailureKind::Refused },
                kind: ErrorKind::Unavailable(self.side),
                message: format!("{} at {host}: {}", self.side, lost.message),
            }),
        })
    }

    /// A slow answer is a word too: the other side has enough to do.
    async fn took(&self, time: Duration) {
        match &self.pace {
            Pace::PerSecond(pace) if time >= SLOW_ANSWER => pace.slow_down(Duration::ZERO).await,
            _ => {}
        }
    }

    fn observe(&self, answer: &Answer, now_ms: u64) {
        if let Pace::PerMinute { window, reserve_ratio, .. } = &self.pace {
            locked(window).observe(RateLimit::of(&answer.headers, now_ms), *reserve_ratio, now_ms);
        }
    }

    /// The same problem in words without our credentials and the token, should the server have echoed them. The
    /// answer is judged again without them, because messages are cut short and half a secret is one too many.
    fn redact<T>(
        &self,
        mut problem: CallError,
        mut answer: Answer,
        token: Option<&SecretString>,
        judge: &impl Fn(&Answer, u64) -> Result<T, CallError>,
        now_ms: u64,
    ) -> CallError {
        let secrets: Vec<&SecretString> = self.secrets.iter().chain(token).collect();
        let clean = self.redacted_body(&answer, token);
        if clean != answer.body {
            answer.body = clean;
            if let Err(clean) = judge(&answer, now_ms) {
                problem.message = clean.message;
            }
        }
        problem.message = crate::net::excerpt(&problem.message, &secrets);
        problem
    }

    async fn slot(&self, budget: &Budget, what: &str) -> Result<Option<SemaphorePermit<'_>>> {
        if budget.left().is_zero() {
            return Err(interrupted("the run's time is over"));
        }
        match &self.pace {
            Pace::PerSecond(pace) => tokio::time::timeout(budget.left(), pace.slot())
                .await
                .map_err(|_| interrupted("the run's time is over")),
            Pace::PerMinute { window, turn, .. } => {
                self.slot_of_the_minute(budget, what, window, turn).await.map(|()| None)
            }
        }
    }

    async fn slot_of_the_minute(
        &self,
        budget: &Budget,
        what: &str,
        window: &std::sync::Mutex<PerMinute>,
        turn: &Mutex<()>,
    ) -> Result<()> {
        loop {
            let taking = turn.lock().await;
            let wait = self.wait_for_a_slot(budget, what, window)?;
            if !wait.is_zero() {
                // Nobody is kept from seeing what has changed meanwhile, nor this caller after it.
                drop(taking);
                tokio::time::sleep(wait).await;
                continue;
            }
            self.note_reserved(budget, window).await?;
            // The store took its time: an answer may have asked for silence meanwhile.
            if self.wait_for_a_slot(budget, what, window)?.is_zero() {
                locked(window).count(self.clock.now_ms());
                return Ok(());
            }
        }
    }

    /// How long until the next call may be made; an error if that is too late for this run.
    fn wait_for_a_slot(
        &self,
        budget: &Budget,
        what: &str,
        window: &std::sync::Mutex<PerMinute>,
    ) -> Result<Duration> {
        let (silence, full) = (self.blocked_for(), locked(window).wait(self.clock.now_ms()));
        let wait = silence.max(full);
        if wait < budget.left() {
            return Ok(wait);
        }
        let why = if silence >= full && !silence.is_zero() {
            format!("{} asked for silence", self.side)
        } else {
            "the calls of this minute are used up".to_owned()
        };
        let message = format!("{what}: {why}; come back in {} s", wait.as_secs() + 1);
        Err(Error::new(ErrorKind::Throttled(self.side), message).resume_after(wait))
    }

    /// Reserves the next few calls where none are left, and stores that before the first of them is made.
    async fn note_reserved(&self, budget: &Budget, window: &std::sync::Mutex<PerMinute>) -> Result<()> {
        let reserved = locked(window).reserve(self.clock.now_ms());
        let (true, Some(lease)) = (reserved, &budget.lease) else { return Ok(()) };
        let persisted_ms = locked(window).persisted_ms();
        let noted = tokio::time::timeout(budget.left(), lease.note_calls(persisted_ms)).await;
        let noted = noted.unwrap_or_else(|_| Err(interrupted("the run's time is over")));
        if noted.is_err() {
            locked(window).release_reserved();
        }
        noted
    }

    /// A token for a call that can be made now: one that was fetched before a long wait may expire during it.
    async fn token_in_time(&self, budget: &Budget, what: &str) -> Result<Option<Held>> {
        for _ in 1..TOKENS_PER_CALL {
            let wait = self.wait_now(budget, what)?;
            if !wait.is_zero() {
                budget.sleep(wait).await?;
            }
            let token = self.token(budget).await?;
            if self.wait_now(budget, what)?.is_zero() {
                return Ok(token);
            }
        }
        self.token(budget).await
    }

    fn wait_now(&self, budget: &Budget, what: &str) -> Result<Duration> {
        if budget.left().is_zero() {
            return Err(interrupted("the run's time is over"));
        }
        match &self.pace {
            Pace::PerSecond(_) => Ok(Duration::ZERO),
            Pace::PerMinute { window, .. } => self.wait_for_a_slot(budget, what, window),
        }
    }

    async fn token(&self, budget: &Budget) -> Result<Option<Held>> {
        let (request, read) = match &self.auth {
            Auth::None => return Ok(None),
            Auth::Fixed(token) => {
                return Ok(Some(Held { value: token.clone(), renew_at: Instant::now(), generation: 0 }));
            }
            Auth::Login { request, read } => (request, read),
        };
        // Held while logging in, so that of many workers one logs in and the others use its token.
        let mut held = self.held.lock().await;
        if let Some(token) = held.as_ref().filter(|token| Instant::now() < token.renew_at) {
            return Ok(Some(token.clone()));
        }
        let token = self.login(budget, request, *read).await?;
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let expires_in = token.expires_in.min(LONGEST_TOKEN);
        let margin = TOKEN_MARGIN.min(expires_in / 2);
        let renew_at = Instant::now() + expires_in.saturating_sub(margin);
        *held = Some(Held { value: token.value, renew_at, generation });
        Ok(held.clone())
    }

    async fn login(
        &self,
        budget: &Budget,
        request: &Request,
        read: fn(&Answer, u64) -> Result<Token, CallError>,
    ) -> Result<Token> {
        // A refused login is final: there is nothing to refresh.
        let mut progress = Attempts { what: "token", attempt: 0, refreshed: true };
        let sent = Sent { token: None, words_only: false };
        loop {
            progress.attempt += 1;
            let problem = match self.once(budget, &progress, request.clone(), sent, &read).await? {
                Ok(token) => return Ok(token),
                Err(problem) => problem,
            };
            if let Go::Again(wait) = self.judge_problem(budget, problem, &progress, true, false).await? {
                budget.sleep(wait).await?;
            }
        }
    }

    /// Drops a token that was refused, unless another worker has replaced it already.
    async fn forget(&self, generation: u64) {
        let mut held = self.held.lock().await;
        if held.as_ref().is_some_and(|token| token.generation == generation) {
            *held = None;
        }
    }
}

/// Nothing panics while it holds the window.
pub(crate) fn locked(window: &std::sync::Mutex<PerMinute>) -> std::sync::MutexGuard<'_, PerMinute> {
    window.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A secret put into a JSON body.
pub(crate) fn exposed(secret: &SecretString) -> &str {
    secret.expose_secret()
}

/// The HTTP layer's verdict, shared by both sides: none if the status is a success.
pub(crate) fn judge_status(answer: &Answer, side: Side, now_ms: u64) -> Option<CallError> {
    let status = answer.status;
    if status.is_success() {
        return None;
    }
    let retry_after = answer
        .headers
        .get("retry-after")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| retry::retry_after(value, now_ms));
    let said = server_message(&answer.body);
    let (failure, kind, message) = match status.as_u16() {
        429 => (
            FailureKind::Throttled(retry_after),
            ErrorKind::Throttled(side),
            format!("{side} answered HTTP 429: {said}"),
        ),
        503 if retry_after.is_some() => (
            FailureKind::Throttled(retry_after),
            ErrorKind::Throttled(side),
            format!("{side} answered HTTP 503: {said}"),
        ),
        401 => (
            FailureKind::Unauthorized,
            ErrorKind::CredentialsRefused(side),
            format!("{side} answered HTTP 401: {said}"),
        ),
        403 => (
            FailureKind::Refused,
            ErrorKind::CredentialsRefused(side),
            format!("{side} answered HTTP 403: {said}"),
        ),
        300..=399 => {
            let message = format!(
                "{side} answered HTTP {status} with a redirect, which is not followed; set base_url to the final address"
            );
            (FailureKind::Refused, ErrorKind::BadAnswer(side), message)
        }
        408 | 500..=599 => (
            FailureKind::ServerError,
            ErrorKind::Unavailable(side),
            format!("{side} answered HTTP {status}: {said}"),
        ),
        _ => (
            FailureKind::Refused,
            ErrorKind::BadAnswer(side),
            format!("{side} answered HTTP {status}: {said}"),
        ),
    };
    Some(CallError { failure, kind, message })
}

/// What a body says in words: its message if it is one of the known error bodies, else its beginning.
pub(crate) fn server_message(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..4096).unwrap_or(body));
    let words = serde_json::from_slice::<serde_json::Value>(body).ok().and_then(|json| {
        ["error_description", "message", "msg", "detail", "error"]
            .iter()
            .find_map(|key| json.get(key).and_then(serde_json::Value::as_str).map(str::to_owned))
    });
    let words = words.unwrap_or_else(|| text.into_owned());
    if words.trim().is_empty() { "(no text)".to_owned() } else { crate::net::excerpt(&words, &[]) }
}
