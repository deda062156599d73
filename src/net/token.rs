//! Where the `Authorization` of a side comes from, and the token that its last login brought.
//!
//! A side's workers share one token: of many that need one, one logs in and the others wait for it. Three things can go
//! wrong with it:
//! - It is about to expire. [`TOKEN_MARGIN`] before that it is replaced.
//! - It expires while its call waits for a turn (Qeasy's minute can take longer than its token lasts). So the token is
//!   fetched only when the call can go at once, and again if the login itself used that turn up.
//! - The other side refuses it early. [`TokenCache::forget`] drops it, but not the newer one that another worker has
//!   fetched meanwhile: each token has a generation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::error::Result;
use crate::net::verdict::CallError;
use crate::net::{Answer, Request};

/// A token that has less than this left is replaced before it is used; half of its life if it lasts less than twice this.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);
/// A server that says "never" means this; no clock holds its number.
const LONGEST_TOKEN: Duration = Duration::from_secs(30 * 24 * 3600);
/// A clock that is set right moves by less than this.
const CLOCK_STEP: Duration = Duration::from_secs(3_600);
/// Tokens that a call fetches at most while it waits for its turn.
const TOKENS_PER_CALL: u32 = 4;

/// Where the `Authorization` header comes from.
pub(crate) enum Auth {
    None,
    Fixed(SecretString),
    Login(Login),
}

/// A call whose answer holds a token for a while.
pub(crate) struct Login {
    pub request: Request,
    /// Reads the answer; the second argument is the wall clock in milliseconds.
    pub read: fn(&Answer, u64) -> Result<Token, CallError>,
}

/// A token as the other side hands it out.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub value: SecretString,
    pub expires_in: Duration,
}

/// Who needs a token: a call that waits for its turn.
pub(super) trait Caller {
    /// How far its turn is away; an error if that is too late for it.
    fn wait(&self) -> Result<Duration>;
    fn sleep(&self, wait: Duration) -> impl Future<Output = Result<()>> + Send;
    fn log_in(&self, login: &Login) -> impl Future<Output = Result<Token>> + Send;
}

/// A token, and how long it is used. It is measured by the wall clock: a frozen environment stops the timer, and the token
/// expires all the same.
#[derive(Debug, Clone)]
pub(super) struct CachedToken {
    pub value: SecretString,
    fetched_at_ms: u64,
    use_for: Duration,
    generation: u64,
}

impl CachedToken {
    /// A login that is more than an hour ahead was made before the clock was set back: nobody knows how old it is.
    pub(super) fn is_stale(&self, clock: Clock) -> bool {
        let age = Duration::from_millis(clock.now_ms().saturating_sub(self.fetched_at_ms));
        age >= self.use_for || clock.until_ms(self.fetched_at_ms) > CLOCK_STEP
    }
}

pub(super) struct TokenCache {
    auth: Auth,
    clock: Clock,
    cached: Mutex<Option<CachedToken>>,
    generation: AtomicU64,
}

impl TokenCache {
    pub(super) fn new(auth: Auth, clock: Clock) -> Self {
        Self { auth, clock, cached: Mutex::new(None), generation: AtomicU64::new(0) }
    }

    /// Whether another token can be had if this one is refused.
    pub(super) fn can_refresh(&self) -> bool {
        matches!(self.auth, Auth::Login(_))
    }

    /// A token for a call that can be made now.
    pub(super) async fn get_in_time(&self, caller: &impl Caller) -> Result<Option<CachedToken>> {
        for _ in 1..TOKENS_PER_CALL {
            let wait = caller.wait()?;
            if !wait.is_zero() {
                caller.sleep(wait).await?;
            }
            let token = self.get(caller).await?;
            if caller.wait()?.is_zero() {
                return Ok(token);
            }
        }
        self.get(caller).await
    }

    /// The cached token, or one from a new login. `None` if the side wants none.
    async fn get(&self, caller: &impl Caller) -> Result<Option<CachedToken>> {
        let login = match &self.auth {
            Auth::None => return Ok(None),
            Auth::Fixed(value) => {
                let (value, use_for) = (value.clone(), Duration::ZERO);
                return Ok(Some(CachedToken { value, fetched_at_ms: 0, use_for, generation: 0 }));
            }
            Auth::Login(login) => login,
        };
        // Locked while logging in, so that one worker logs in and the others use its token.
        let mut cached = self.cached.lock().await;
        if let Some(token) = cached.as_ref().filter(|token| !token.is_stale(self.clock)) {
            return Ok(Some(token.clone()));
        }
        let token = caller.log_in(login).await?;
        let expires_in = token.expires_in.min(LONGEST_TOKEN);
        let margin = TOKEN_MARGIN.min(expires_in / 2);
        let token = CachedToken {
            value: token.value,
            fetched_at_ms: self.clock.now_ms(),
            use_for: expires_in.saturating_sub(margin),
            generation: self.generation.fetch_add(1, Ordering::Relaxed) + 1,
        };
        *cached = Some(token.clone());
        Ok(Some(token))
    }

    /// Drops a token that was refused, unless another worker has replaced it already.
    pub(super) async fn forget(&self, refused: &CachedToken) {
        let mut cached = self.cached.lock().await;
        if cached.as_ref().is_some_and(|token| token.generation == refused.generation) {
            *cached = None;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::AtomicU32;

    use secrecy::ExposeSecret as _;
    use tokio::time::Instant;
    use url::Url;

    use super::*;

    /// A caller whose logins count: its tokens are "1", "2", …
    struct Worker {
        expires_in: Duration,
        logins: AtomicU32,
        turn: Turn,
    }

    enum Turn {
        AtOnce,
        At(Instant),
        Always(Duration),
        TooLate,
    }

    impl Worker {
        fn new(expires_in_seconds: u64) -> Self {
            let expires_in = Duration::from_secs(expires_in_seconds);
            Self { expires_in, logins: AtomicU32::new(0), turn: Turn::AtOnce }
        }

        fn logins(&self) -> u32 {
            self.logins.load(Ordering::Relaxed)
        }
    }

    impl Caller for Worker {
        fn wait(&self) -> Result<Duration> {
            match self.turn {
                Turn::AtOnce => Ok(Duration::ZERO),
                Turn::At(turn) => Ok(turn.saturating_duration_since(Instant::now())),
                Turn::Always(wait) => Ok(wait),
                Turn::TooLate => Err(crate::budget::interrupted("too late")),
            }
        }

        async fn sleep(&self, wait: Duration) -> Result<()> {
            tokio::time::sleep(wait).await;
            Ok(())
        }

        async fn log_in(&self, _: &Login) -> Result<Token> {
            let login = self.logins.fetch_add(1, Ordering::Relaxed) + 1;
            Ok(Token { value: login.to_string().into(), expires_in: self.expires_in })
        }
    }

    fn cache() -> TokenCache {
        let request = Request::get(Url::parse("https://example.com/login").unwrap());
        TokenCache::new(Auth::Login(Login { request, read: |_, _| unreachable!() }), Clock::pinned())
    }

    async fn get(cache: &TokenCache, worker: &Worker) -> CachedToken {
        cache.get_in_time(worker).await.unwrap().unwrap()
    }

    fn value(token: &CachedToken) -> &str {
        token.value.expose_secret()
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_used_until_a_minute_before_it_expires() {
        let (cache, worker) = (cache(), Worker::new(7200));
        assert_eq!(value(&get(&cache, &worker).await), "1");
        tokio::time::advance(Duration::from_secs(7139)).await;
        assert_eq!(value(&get(&cache, &worker).await), "1");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(value(&get(&cache, &worker).await), "2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_grows_old_while_the_timer_stands_still() {
        let cache = cache();
        let token = get(&cache, &Worker::new(7200)).await;
        let wall = |ms: u64| Clock::starting_at_ms(ms);
        let fetched_ms = token.fetched_at_ms;
        for (now_ms, is_stale) in [
            (fetched_ms + 7_139_999, false),
            (fetched_ms + 7_140_000, true),
            // The clock was set back: by a little, and by nobody knows how much.
            (fetched_ms - 3_600_000, false),
            (fetched_ms - 3_600_001, true),
        ] {
            assert_eq!(token.is_stale(wall(now_ms)), is_stale, "{now_ms}, fetched at {fetched_ms}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_lasts_less_than_two_minutes_is_used_for_half_its_life() {
        let (cache, worker) = (cache(), Worker::new(60));
        get(&cache, &worker).await;
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(value(&get(&cache, &worker).await), "1");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(value(&get(&cache, &worker).await), "2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_never_expires_is_kept_for_thirty_days() {
        let (cache, worker) = (cache(), Worker::new(u64::MAX));
        get(&cache, &worker).await;
        tokio::time::advance(LONGEST_TOKEN - TOKEN_MARGIN - Duration::from_secs(1)).await;
        assert_eq!(value(&get(&cache, &worker).await), "1");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(value(&get(&cache, &worker).await), "2");
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_workers_one_logs_in_and_the_others_use_its_token() {
        let (cache, worker) = (cache(), Worker::new(7200));
        let (one, other) = tokio::join!(get(&cache, &worker), get(&cache, &worker));
        assert_eq!((value(&one), value(&other), worker.logins()), ("1", "1", 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_is_forgotten_and_its_successor_is_not() {
        let (cache, worker) = (cache(), Worker::new(7200));
        let first = get(&cache, &worker).await;
        cache.forget(&first).await;
        let second = get(&cache, &worker).await;
        assert_eq!(value(&second), "2");
        // Another worker learns late that the first one was refused.
        cache.forget(&first).await;
        assert_eq!(value(&get(&cache, &worker).await), "2");
        cache.forget(&second).await;
        assert_eq!(value(&get(&cache, &worker).await), "3");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_expires_during_the_wait_for_a_turn_is_replaced_after_it() {
        let (cache, mut worker) = (cache(), Worker::new(120));
        get(&cache, &worker).await;
        let started = Instant::now();
        worker.turn = Turn::At(started + Duration::from_secs(200));
        let token = get(&cache, &worker).await;
        assert_eq!((value(&token), token.is_stale(cache.clock)), ("2", false));
        assert_eq!(started.elapsed(), Duration::from_secs(200));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_turn_never_comes_fetches_four_tokens_at_most() {
        let (cache, mut worker) = (cache(), Worker::new(0));
        worker.turn = Turn::Always(Duration::from_secs(30));
        get(&cache, &worker).await;
        assert_eq!(worker.logins(), TOKENS_PER_CALL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_is_too_late_for_the_run_ends_the_call_before_its_login() {
        let (cache, mut worker) = (cache(), Worker::new(7200));
        worker.turn = Turn::TooLate;
        assert!(cache.get_in_time(&worker).await.is_err());
        assert_eq!(worker.logins(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fixed_token_needs_no_login_and_cannot_be_refreshed() {
        let (fixed, worker) =
            (TokenCache::new(Auth::Fixed("fixed".into()), Clock::pinned()), Worker::new(7200));
        assert_eq!(value(&get(&fixed, &worker).await), "fixed");
        assert!(!fixed.can_refresh());
        assert!(TokenCache::new(Auth::None, Clock::pinned()).get_in_time(&worker).await.unwrap().is_none());
        assert_eq!(worker.logins(), 0);
    }
}
