//! The one loop around a call: a turn, a token, send, judge, and the next step that `retry.rs` decides. Both sides use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::Instant;

use crate::budget::{Budget, interrupted};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result, Side};
use crate::net::call::{Attempts, Call, Counters, Requote};
use crate::net::limit::{Pace, Turn};
use crate::net::redact::Secrets;
use crate::net::retry::{self, CallAction, CallContext, FailureKind};
use crate::net::token::{self, Auth, Login, Token, TokenCache};
use crate::net::verdict::{CallError, judge_redacted};
use crate::net::{Answer, Request, TransportError, Wire};
use crate::words::say;

/// What one attempt came to. (An error of the attempt ends the call.)
enum Attempted<T> {
    Done(T),
    Failed(CallError),
}

/// What the loop does after a failed attempt.
enum Step {
    Repeat(Duration),
    Refresh,
    ReadBack(Duration),
}

/// One side of the wire. It lives as long as the program, so that its token and its connections stay warm.
pub(crate) struct Client {
    side: Side,
    wire: Wire,
    clock: Clock,
    pub(crate) pace: Arc<Pace>,
    tokens: TokenCache,
    credentials: Vec<SecretString>,
    /// Backoffs of this run, all calls together.
    waited_ms: AtomicU64,
    pub(crate) counters: Counters,
}

impl Client {
    /// `credentials` are removed from every text of the server's that is reported.
    pub(crate) fn new(
        side: Side,
        wire: Wire,
        clock: Clock,
        pace: Arc<Pace>,
        auth: Auth,
        credentials: Vec<SecretString>,
    ) -> Self {
        let tokens = TokenCache::new(auth, clock);
        let (waited_ms, counters) = (AtomicU64::new(0), Counters::default());
        Self { side, wire, clock, pace, tokens, credentials, waited_ms, counters }
    }

    /// A run begins: counters, times and the retry budget start afresh.
    pub(crate) fn start_run(&self) {
        self.waited_ms.store(0, Ordering::Relaxed);
        self.counters.restart();
    }

    /// Sends a request until it succeeds, or until that is pointless or too late.
    ///
    /// `build` makes the request (with the token, if there is one); `judge` reads the answer.
    pub(crate) async fn call<T>(
        &self,
        budget: &Budget,
        call: Call<'_, T>,
        build: impl Fn(Option<&SecretString>) -> Request,
        judge: impl Fn(&Answer, u64) -> Result<T, CallError>,
    ) -> Result<T> {
        let Call { turn, requote, optional, mut when_lost } = call;
        let can_refresh = self.tokens.can_refresh();
        let can_read_back = when_lost.is_some();
        let mut attempts =
            Attempts { turn, attempt: 0, optional, can_refresh, can_doubt: optional, can_read_back };
        loop {
            attempts.attempt += 1;
            let token = self.tokens.get_in_time(&ClientCaller { client: self, budget, turn }).await?;
            let token_text = token.as_ref().map(|token| &token.value);
            let request = build(token_text);
            let idempotent = request.idempotent;
            let secrets = Secrets { credentials: &self.credentials, token: token_text };
            let error = match self.attempt(budget, &attempts, request, secrets, requote, &judge).await? {
                Attempted::Done(done) => {
                    self.pace.on_success();
                    return Ok(done);
                }
                Attempted::Failed(error) => error,
            };
            let is_unsupported = error.failure == FailureKind::NotSupported;
            match self.next_step(budget, error, &attempts, idempotent).await? {
                Step::Repeat(wait) => {
                    attempts.can_doubt &= !is_unsupported;
                    self.sleep(budget, wait).await?;
                }
                Step::Refresh => {
                    // A token that expired while the call waited for its turn says nothing about the credentials.
                    let stale = token.as_ref().is_some_and(|token| token.is_stale(self.clock));
                    attempts.can_refresh = stale && attempts.attempt + 1 < retry::MAX_ATTEMPTS;
                    if let Some(token) = token {
                        self.tokens.forget(&token).await;
                    }
                }
                Step::ReadBack(wait) => {
                    self.sleep(budget, wait).await?;
                    if let Some(lost) = when_lost.take() {
                        return Ok(lost);
                    }
                }
            }
        }
    }

    async fn login(&self, budget: &Budget, turn: Turn<'_>, login: &Login) -> Result<Token> {
        let mut attempts = Attempts::at_login(turn);
        let secrets = Secrets { credentials: &self.credentials, token: None };
        loop {
            attempts.attempt += 1;
            let request = login.request.clone();
            match self.attempt(budget, &attempts, request, secrets, None, &login.read).await? {
                Attempted::Done(token) => return Ok(token),
                Attempted::Failed(error) => {
                    if let Step::Repeat(wait) = self.next_step(budget, error, &attempts, true).await? {
                        self.sleep(budget, wait).await?;
                    }
                }
            }
        }
    }

    /// Waits between two attempts.
    async fn sleep(&self, budget: &Budget, wait: Duration) -> Result<()> {
        let _waiting = self.counters.recorder.wait();
        budget.sleep(self.side, wait).await
    }

    async fn attempt<T>(
        &self,
        budget: &Budget,
        attempts: &Attempts<'_>,
        request: Request,
        secrets: Secrets<'_>,
        requote: Option<Requote<T>>,
        judge: &impl Fn(&Answer, u64) -> Result<T, CallError>,
    ) -> Result<Attempted<T>> {
        let waiting = self.counters.recorder.wait();
        let _slot = budget.before_a_call(self.pace.acquire(budget, attempts.turn)).await??;
        drop(waiting);
        budget.check_open()?;
        self.counters.recorder.called();
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        if attempts.attempt > 1 {
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
        }
        let host = request.url.host_str().unwrap_or("?").to_owned();
        let started = Instant::now();
        let answer = budget.unless_stopped(self.wire.send(request, budget.left())).await?;
        let took = started.elapsed();
        let now_ms = self.clock.now_ms();
        self.pace.observe(&answer, took, now_ms);
        match answer {
            Ok(answer) => Ok(match judge_redacted(answer, secrets, requote, now_ms, judge) {
                Ok(done) => Attempted::Done(done),
                Err(error) => Attempted::Failed(error),
            }),
            // The deadline cut the call short: the run's time is over, and nothing is wrong with the other side.
            Err(_) if budget.left().is_zero() => Err(interrupted(say!("the run's time is over"))),
            Err(error) => Ok(Attempted::Failed(self.no_answer(&host, &error))),
        }
    }

    fn no_answer(&self, host: &str, error: &TransportError) -> CallError {
        let failure = if error.may_pass { FailureKind::Lost } else { FailureKind::Refused };
        let message = say!("{side} at {host}: {message}", side = self.side, host, message = error.message);
        CallError::new(failure, ErrorKind::Unavailable(self.side), message)
    }

    async fn next_step(
        &self,
        budget: &Budget,
        error: CallError,
        attempts: &Attempts<'_>,
        idempotent: bool,
    ) -> Result<Step> {
        self.counters.count_failure();
        let is_limit = error.failure.is_limit();
        self.counters.recorder.failed(is_limit);
        if is_limit {
            self.counters.throttled.fetch_add(1, Ordering::Relaxed);
        }
        let waited = Duration::from_millis(self.waited_ms.load(Ordering::Relaxed));
        let context = CallContext {
            attempt: attempts.attempt,
            can_refresh: attempts.can_refresh,
            can_doubt: attempts.can_doubt,
            idempotent,
            can_read_back: attempts.can_read_back,
            left: budget.left(),
            budget: retry::RETRY_BUDGET.saturating_sub(waited),
            jitter: fastrand::f64(),
        };
        let what = attempts.turn.what;
        match retry::after_call(&error.failure, context) {
            CallAction::Refresh => Ok(Step::Refresh),
            CallAction::Wait(wait) => {
                self.back_off(attempts.turn, &error, wait).await;
                Ok(Step::Repeat(wait))
            }
            CallAction::ReadBack(wait) => {
                // Reading back stands in for repeating the call.
                self.counters.retries.fetch_add(1, Ordering::Relaxed);
                self.back_off(attempts.turn, &error, wait).await;
                Ok(Step::ReadBack(wait))
            }
            CallAction::Pause(wait) => {
                self.pace.block(&error.failure, wait, attempts.turn).await;
                let kind = if is_limit { ErrorKind::Throttled(self.side) } else { ErrorKind::Interrupted };
                let message = say!(
                    "{what}: {message}; come back in {wait} s",
                    what,
                    message = error.message,
                    wait = wait.as_secs().max(1)
                );
                Err(Error::new(kind, message).resume_after(wait))
            }
            CallAction::Stop => {
                let not_supported = attempts.optional && error.failure == FailureKind::NotSupported;
                let kind = if not_supported { ErrorKind::NotSupported(self.side) } else { error.kind };
                Err(Error::new(kind, say!("{what}: {message}", what, message = error.message)))
            }
        }
    }

    async fn back_off(&self, turn: Turn<'_>, error: &CallError, wait: Duration) {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(side = %self.side, call = turn.what, wait_ms, why = %error.message, "will try again");
        self.waited_ms.fetch_add(wait_ms, Ordering::Relaxed);
        self.pace.back_off(&error.failure, wait, turn).await;
    }
}

/// A call that needs a token.
struct ClientCaller<'a> {
    client: &'a Client,
    budget: &'a Budget,
    turn: Turn<'a>,
}

impl token::Caller for ClientCaller<'_> {
    fn wait(&self) -> Result<Duration> {
        self.client.pace.wait(self.budget, self.turn.what)
    }

    async fn sleep(&self, wait: Duration) -> Result<()> {
        self.client.sleep(self.budget, wait).await
    }

    async fn log_in(&self, login: &Login) -> Result<Token> {
        self.client.login(self.budget, self.turn, login).await
    }
}
