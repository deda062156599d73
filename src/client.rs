//! The one send loop: pace, token, send, judge, and the next step that `retry.rs` decides. Both sides use it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::error::{Error, Kind, Result, Side};
use crate::http::{Answer, Request, Wire};
use crate::pace::{PerMinute, PerSecond};
use crate::retry::{self, Happened, Next};

/// A token that has less than this left is replaced before it is used.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);
/// Time kept free before the deadline, for saving the state and the report.
pub const SAVE_RESERVE: Duration = Duration::from_secs(5);

/// The run's budget of time, and the wish that it stop.
#[derive(Debug, Clone)]
pub struct Budget {
    deadline: Option<Instant>,
    stop: watch::Receiver<bool>,
}

impl Budget {
    /// A budget that ends at the deadline, or when `stop` turns true.
    pub fn new(deadline: Option<Instant>, stop: watch::Receiver<bool>) -> Self {
        Self { deadline, stop }
    }

    /// Time left for work; [`SAVE_RESERVE`] is already taken off.
    pub fn left(&self) -> Duration {
        match self.deadline {
            Some(deadline) => deadline.saturating_duration_since(Instant::now()).saturating_sub(SAVE_RESERVE),
            None => Duration::MAX,
        }
    }

    /// Whether the run should end now.
    pub fn is_over(&self) -> bool {
        *self.stop.borrow() || self.left().is_zero()
    }

    /// Runs something unless the run is asked to stop meanwhile.
    pub async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let mut stop = self.stop.clone();
        let stopped = async move {
            if stop.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            // In this order, so that a simulated run replays exactly.
            biased;
            done = work => Ok(done),
            () = stopped => Err(interrupted("the run was asked to stop")),
        }
    }
}

fn interrupted(why: &str) -> Error {
    Error::new(Kind::Interrupted, format!("{why}; what remains is for the next run"))
}

/// What a side's limit looks like.
pub enum Pace {
    /// Calls per second.
    PerSecond(PerSecond),
    /// Calls per minute.
    PerMinute(Mutex<PerMinute>),
}

/// Where the `Authorization` header comes from.
pub enum Auth {
    /// There is none.
    None,
    /// A fixed token.
    Fixed(SecretString),
    /// A login call whose answer holds a token for a while.
    Login {
        /// The login request.
        request: Request,
        /// Reads its answer.
        read: fn(&Answer, u64) -> Result<Token, Problem>,
    },
}

/// A token and its time.
#[derive(Debug, Clone)]
pub struct Token {
    /// The token.
    pub value: SecretString,
    /// How long it is said to last.
    pub expires_in: Duration,
}

struct Held {
    value: SecretString,
    renew_at: Instant,
    generation: u64,
}

/// An answer that is not what was hoped for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What it means for the next step.
    pub happened: Happened,
    /// What kind of error it is, should it be final.
    pub kind: Kind,
    /// What the server said.
    pub message: String,
}

/// Calls made, by what they were.
#[derive(Debug, Default)]
pub struct Counters {
    /// All calls.
    pub requests: AtomicU64,
    /// Repeats.
    pub retries: AtomicU64,
    /// Answers that asked for a slower pace.
    pub throttled: AtomicU64,
}

impl Counters {
    /// Reads (requests, retries, throttled) and starts again at zero.
    pub fn take(&self) -> (u64, u64, u64) {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        (take(&self.requests), take(&self.retries), take(&self.throttled))
    }
}

/// One side of the wire: its client, pace, token and counters. It lives as long as the program, so that tokens stay warm.
pub struct Client {
    side: Side,
    wire: Wire,
    clock: Clock,
    pace: Pace,
    auth: Auth,
    secrets: Vec<SecretString>,
    held: Mutex<Option<Held>>,
    generation: AtomicU64,
    /// Calls made.
    pub counters: Counters,
}

impl Client {
    /// A client; `secrets` are taken out of whatever the server's texts may echo.
    pub fn new(
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
            counters: Counters::default(),
        }
    }

    /// The pace, for the state to keep.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Sends a request until it succeeds, or until that is pointless or too late.
    ///
    /// `build` makes the request (with the token, if there is one); `judge` reads the answer. All calls that
    /// go through here may be repeated: they read, or they write rows that carry their ids.
    pub async fn call<T>(
        &self,
        budget: &Budget,
        what: &str,
        build: impl Fn(Option<&SecretString>) -> Request,
        judge: impl Fn(&Answer, u64) -> Result<T, Problem>,
    ) -> Result<T> {
        let mut refreshed = false;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let token = self.token(budget).await?;
            let request = build(token.as_ref().map(|(value, _)| value));
            let sent = token.as_ref().map(|(value, _)| value);
            let problem = match self.once(budget, what, request, sent, &judge, attempt > 1).await? {
                Ok(done) => {
                    self.went_well().await;
                    return Ok(done);
                }
                Err(problem) => problem,
            };
            let wait = self.judge_problem(budget, what, problem, attempt, refreshed).await?;
            match wait {
                Some(wait) => budget.unless_stopped(tokio::time::sleep(wait)).await?,
                None => {
                    refreshed = true;
                    if let Some((_, generation)) = token {
                        self.forget(generation).await;
                    }
                }
            }
        }
    }

    /// The same for calls whose answer is only a verdict, the words of which may end in the quarantine: it is judged
    /// without our credentials and the token. (Answers that hold rows are judged as they came.)
    pub async fn call_for_verdict<T>(
        &self,
        budget: &Budget,
        what: &str,
        build: impl Fn(Option<&SecretString>) -> Request,
        judge: impl Fn(&Answer, u64) -> Result<T, Problem>,
    ) -> Result<T> {
        let sent = std::sync::Mutex::new(None);
        let sent = || sent.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let build = |token: Option<&SecretString>| {
            *sent() = token.cloned();
            build(token)
        };
        let judge = |answer: &Answer, now_ms: u64| {
            let token = sent().clone();
            judge(&self.without_secrets(answer, token.as_ref()), now_ms)
        };
        self.call(budget, what, build, judge).await
    }

    fn without_secrets(&self, answer: &Answer, token: Option<&SecretString>) -> Answer {
        let secrets: Vec<&SecretString> = self.secrets.iter().chain(token).collect();
        let body = crate::http::without(&String::from_utf8_lossy(&answer.body), &secrets);
        Answer { body: body.into(), ..answer.clone() }
    }

    /// Some(wait) = send again after it; None = with a new token.
    async fn judge_problem(
        &self,
        budget: &Budget,
        what: &str,
        problem: Problem,
        attempt: u32,
        refreshed: bool,
    ) -> Result<Option<Duration>> {
        if matches!(problem.happened, Happened::Throttled(_) | Happened::LockedOut(_)) {
            self.counters.throttled.fetch_add(1, Ordering::Relaxed);
        }
        // A fixed token cannot be refreshed.
        let refreshed = refreshed || !matches!(self.auth, Auth::Login { .. });
        let next = retry::decide(&problem.happened, attempt, refreshed, budget.left(), fastrand::f64());
        let error = Error::new(problem.kind, format!("{what}: {}", problem.message));
        match next {
            Next::Stop => Err(error),
            Next::Refresh => Ok(None),
            Next::Pause(wait) => {
                let message =
                    format!("{what}: {}; come back in {} s", problem.message, wait.as_secs().max(1));
                Err(Error::new(Kind::Throttled(self.side), message).resume_after(wait))
            }
            Next::Wait(wait) => {
                tracing::debug!(side = %self.side, call = what, attempt, wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), why = %problem.message, "will try again");
                if let (Pace::PerSecond(pace), Happened::Throttled(_)) = (&self.pace, &problem.happened) {
                    pace.slow_down(wait).await;
                }
                Ok(Some(wait))
            }
        }
    }

    async fn went_well(&self) {
        if let Pace::PerSecond(pace) = &self.pace {
            pace.went_well().await;
        }
    }

    async fn once<T>(
        &self,
        budget: &Budget,
        what: &str,
        request: Request,
        token: Option<&SecretString>,
        judge: &impl Fn(&Answer, u64) -> Result<T, Problem>,
        repeat: bool,
    ) -> Result<Result<T, Problem>> {
        budget.unless_stopped(self.slot(budget, what)).await??;
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        if repeat {
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
        }
        let host = request.url.host_str().unwrap_or("?").to_owned();
        let answer = budget.unless_stopped(self.wire.send(request, budget.left())).await?;
        Ok(match answer {
            Ok(answer) => {
                let now_ms = self.clock.now_ms();
                judge(&answer, now_ms).map_err(|problem| self.redact(problem, answer, token, judge, now_ms))
            }
            // The deadline cut the call short: the run's time is over, and nothing is wrong with the other side.
            Err(_) if budget.left().is_zero() => return Err(interrupted("the run's time is over")),
            Err(lost) => Err(Problem {
                happened: if lost.may_pass { Happened::Lost } else { Happened::Refused },
                kind: Kind::Unavailable(self.side),
                message: format!("{} at {host}: {}", self.side, lost.message),
            }),
        })
    }

    /// The same problem in words without our credentials and the token, should the server have echoed them. The
    /// answer is judged again without them, because messages are cut short and half a secret is one too many.
    fn redact<T>(
        &self,
        mut problem: Problem,
        mut answer: Answer,
        token: Option<&SecretString>,
        judge: &impl Fn(&Answer, u64) -> Result<T, Problem>,
        now_ms: u64,
    ) -> Problem {
        let secrets: Vec<&SecretString> = self.secrets.iter().chain(token).collect();
        let text = String::from_utf8_lossy(&answer.body);
        let clean = crate::http::without(&text, &secrets);
        if clean != text {
            answer.body = clean.into();
            if let Err(clean) = judge(&answer, now_ms) {
                problem.message = clean.message;
            }
        }
        problem.message = crate::http::excerpt(&problem.message, &secrets);
        problem
    }

    async fn slot(&self, budget: &Budget, what: &str) -> Result<()> {
        let left = budget.left();
        if left.is_zero() {
            return Err(interrupted("the run's time is over"));
        }
        match &self.pace {
            Pace::PerSecond(pace) => pace.slot().await,
            Pace::PerMinute(pace) => {
                let mut pace = pace.lock().await;
                let wait = pace.wait(self.clock.now_ms());
                if wait >= left {
                    let message = format!(
                        "{what}: the calls of this minute are used up; come back in {} s",
                        wait.as_secs() + 1
                    );
                    return Err(Error::new(Kind::Throttled(self.side), message).resume_after(wait));
                }
                tokio::time::sleep(wait).await;
                pace.count(self.clock.now_ms());
            }
        }
        Ok(())
    }

    async fn token(&self, budget: &Budget) -> Result<Option<(SecretString, u64)>> {
        let (request, read) = match &self.auth {
            Auth::None => return Ok(None),
            Auth::Fixed(token) => return Ok(Some((token.clone(), 0))),
            Auth::Login { request, read } => (request, read),
        };
        // Held while logging in, so that of many workers one logs in and the others use its token.
        let mut held = self.held.lock().await;
        if let Some(token) = held.as_ref().filter(|token| Instant::now() < token.renew_at) {
            return Ok(Some((token.value.clone(), token.generation)));
        }
        let token = self.login(budget, request, *read).await?;
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let margin = TOKEN_MARGIN.min(token.expires_in / 2);
        let renew_at = Instant::now() + token.expires_in.saturating_sub(margin);
        *held = Some(Held { value: token.value.clone(), renew_at, generation });
        Ok(Some((token.value, generation)))
    }

    async fn login(
        &self,
        budget: &Budget,
        request: &Request,
        read: fn(&Answer, u64) -> Result<Token, Problem>,
    ) -> Result<Token> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let problem = match self.once(budget, "token", request.clone(), None, &read, attempt > 1).await? {
                Ok(token) => return Ok(token),
                Err(problem) => problem,
            };
            // A refused login is final: there is nothing to refresh.
            if let Some(wait) = self.judge_problem(budget, "token", problem, attempt, true).await? {
                budget.unless_stopped(tokio::time::sleep(wait)).await?;
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

/// A secret put into a JSON body.
pub fn exposed(secret: &SecretString) -> &str {
    secret.expose_secret()
}

/// The HTTP layer's verdict, shared by both sides: none if the status is a success.
pub fn judge_status(answer: &Answer, side: Side, now_ms: u64) -> Option<Problem> {
    let status = answer.status;
    if status.is_success() {
        return None;
    }
    let retry_after = answer
        .headers
        .get("retry-after")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| retry::retry_after(value, now_ms));
    let said = said(&answer.body);
    let (happened, kind, message) = match status.as_u16() {
        429 => (
            Happened::Throttled(retry_after),
            Kind::Throttled(side),
            format!("{side} answered HTTP 429: {said}"),
        ),
        503 if retry_after.is_some() => (
            Happened::Throttled(retry_after),
            Kind::Throttled(side),
            format!("{side} answered HTTP 503: {said}"),
        ),
        401 => (
            Happened::Unauthorized,
            Kind::CredentialsRefused(side),
            format!("{side} answered HTTP 401: {said}"),
        ),
        403 => {
            (Happened::Refused, Kind::CredentialsRefused(side), format!("{side} answered HTTP 403: {said}"))
        }
        300..=399 => {
            let message = format!(
                "{side} answered HTTP {status} with a redirect, which is not followed; set base_url to the final address"
            );
            (Happened::Refused, Kind::BadAnswer(side), message)
        }
        408 | 500..=599 => {
            (Happened::ServerError, Kind::Unavailable(side), format!("{side} answered HTTP {status}: {said}"))
        }
        _ => (Happened::Refused, Kind::BadAnswer(side), format!("{side} answered HTTP {status}: {said}")),
    };
    Some(Problem { happened, kind, message })
}

/// What a body says in words: its message if it is one of the known error bodies, else its beginning.
pub fn said(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..4096).unwrap_or(body));
    let words = serde_json::from_slice::<serde_json::Value>(body).ok().and_then(|json| {
        ["error_description", "message", "msg", "detail", "error"]
            .iter()
            .find_map(|key| json.get(key).and_then(serde_json::Value::as_str).map(str::to_owned))
    });
    let words = words.unwrap_or_else(|| text.into_owned());
    if words.trim().is_empty() { "(no text)".to_owned() } else { crate::http::excerpt(&words, &[]) }
}
