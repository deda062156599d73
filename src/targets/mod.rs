//! Targets: Qeasy and plain HTTP. Writes batches, finds out which rows of a doubtful one are stored, reads back.

pub(crate) mod batch;
mod wire;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use indexmap::IndexMap;
use secrecy::SecretString;
use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;

use crate::budget::Budget;
use crate::catalogue::{Rejected, RowKind};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result, Side};
use crate::net::limit::Pace;
use crate::net::retry::{self, FailureKind, Next, Situation};
use crate::net::{Answer, Auth, Call, Client, Login, Request, Wire, exposed, join_path, stored_host};
use crate::testing::Mutant;
use batch::{Batch, Entry, Wrap};
use wire::{ReadPage, Verdict};

/// Rows per read-back call: Qeasy's largest page.
const QUERY_PAGE: usize = 100;
/// No key is shorter.
const SHORTEST_KEY: usize = 8;
/// Calls that a run spends on finding refused rows by halving.
const SPLIT_CALLS: u32 = 64;

/// Where Qeasy's token goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenIn {
    /// `Authorization: Bearer …`
    Header,
    /// `?access_token=…`
    Query,
}

/// Which target, with all that it needs.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one for each connection")]
pub(crate) enum TargetSettings {
    /// A Qeasy scheme.
    Qeasy {
        /// Where Qeasy is.
        base_url: Url,
        /// The scheme.
        scheme_id: String,
        /// Where the token goes.
        token_in: TokenIn,
        /// App key.
        app_key: SecretString,
        /// App secret.
        app_secret: SecretString,
    },
    /// Any endpoint that takes an array of rows.
    Http {
        /// Where rows go.
        url: Url,
        /// POST, PUT or PATCH.
        method: http::Method,
        /// Extra headers.
        headers: IndexMap<String, SecretString>,
        /// Bearer token.
        token: Option<SecretString>,
        /// How rows are wrapped.
        wrap: Wrap,
        /// JSON pointers and the values that mean success.
        success: IndexMap<String, Value>,
        /// Where rows are read back.
        read_url: Option<Url>,
    },
}

impl TargetSettings {
    /// Where the calls go.
    pub(crate) fn address(&self) -> &Url {
        match self {
            Self::Qeasy { base_url, .. } => base_url,
            Self::Http { url, .. } => url,
        }
    }
}

/// How often the target may be called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// Calls per minute.
    pub requests_per_minute: u32,
    /// Share of the limit that the target's headers announce which is left to others, 0.0 to 0.9.
    pub reserve_ratio: f64,
}

/// What became of the rows of a batch.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Rows that the target holds now.
    pub acknowledged: Vec<Entry>,
    /// Rows that it refused.
    pub refused: Vec<Refused>,
    /// Batches acknowledged in whole or in part.
    pub batches: u64,
}

/// A row that the target refused.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The row.
    pub entry: Entry,
    /// What the target said of it.
    pub said: String,
    /// The row for the quarantine.
    pub rejected: Rejected,
}

/// The target.
pub(crate) struct Target {
    client: Client,
    settings: TargetSettings,
    id_field: String,
    split_calls: AtomicU32,
}

impl Target {
    /// The target behind this wire. `id_field` is the target field that holds the row's id.
    pub(crate) fn new(
        settings: TargetSettings,
        id_field: String,
        limit: Limit,
        wire: Wire,
        clock: Clock,
    ) -> Result<Self> {
        let (auth, secrets) = match &settings {
            TargetSettings::Qeasy { base_url, app_key, app_secret, .. } => {
                let login =
                    serde_json::json!({"app_key": exposed(app_key), "app_secret": exposed(app_secret)});
                let request = Request::post(join_path(base_url, "/v2/oauth"), login.to_string()).idempotent();
                (Auth::Login(Login { request, read: wire::token }), vec![app_key.clone(), app_secret.clone()])
            }
            TargetSettings::Http { token: Some(token), headers, .. } => {
                let secrets = std::iter::once(token).chain(secret_headers(headers)).cloned().collect();
                (Auth::Fixed(token.clone()), secrets)
            }
            TargetSettings::Http { headers, .. } => (Auth::None, secret_headers(headers).cloned().collect()),
        };
        let pace = Pace::per_minute(limit.requests_per_minute, limit.reserve_ratio, Side::Target, clock);
        let client = Client::new(Side::Target, wire, clock, pace, auth, secrets);
        Ok(Self { client, settings, id_field, split_calls: AtomicU32::new(0) })
    }

    /// How rows are wrapped.
    pub(crate) fn wrap(&self) -> Wrap {
        match &self.settings {
            TargetSettings::Qeasy { .. } => Wrap::Content,
            TargetSettings::Http { wrap, .. } => *wrap,
        }
    }

    /// Names the target in the state, without its address on this machine (a local one changes its port).
    pub(crate) fn identity(&self) -> String {
        match &self.settings {
            TargetSettings::Qeasy { base_url, scheme_id, .. } => {
                format!("qeasy {} {scheme_id}", stored_host(base_url))
            }
            TargetSettings::Http { url, .. } => format!("http {} {}", stored_host(url), url.path()),
        }
    }

    /// Calls made since the last time, as (requests, retries, throttled).
    pub(crate) fn take_counters(&self) -> (u64, u64, u64) {
        self.client.counters.take()
    }

    /// Tells the pace what earlier runs used of the minute.
    pub(crate) fn restore_calls(&self, calls_ms: &[u64]) {
        if !Mutant::ForgetTheLimit.is_active() {
            self.client.pace.restore_calls(calls_ms);
        }
    }

    /// The run is over: drops reserved calls, and returns the calls of the last minute.
    pub(crate) fn release_reservations(&self) -> Vec<u64> {
        self.client.pace.release_reservations()
    }

    /// For how long the target wants no call by anybody.
    pub(crate) fn blocked_for(&self) -> Duration {
        self.client.pace.blocked_for()
    }

    /// Grows whenever a batch does not come to a good end at once.
    pub(crate) fn failures(&self) -> u64 {
        self.client.counters.failures()
    }

    /// A new run: counters and the budgets for retries and for halving start afresh.
    pub(crate) fn start_run(&self) {
        self.client.start_run();
        self.split_calls.store(0, Ordering::Relaxed);
    }

    /// Writes a batch. Rows of which the answer leaves it open whether they are stored are read back, or sent
    /// again in halves; what the target refuses comes back as rejected, what it holds as acknowledged.
    ///
    /// On an error, `written` still holds what was acknowledged before it.
    pub(crate) async fn write(&self, budget: &Budget, batch: Batch, written: &mut Written) -> Result<()> {
        if Mutant::AcknowledgeBeforeTheAnswer.is_active() {
            accept(batch.entries.clone(), written);
        }
        let mut waiting = vec![batch];
        while let Some(batch) = waiting.pop() {
            let rows = batch.entries.len();
            let (failure, said) = match self.send(budget, &batch).await? {
                Verdict::Accepted => {
                    accept(batch.entries, written);
                    continue;
                }
                Verdict::Lost => {
                    self.read_back_lost(budget, batch, &mut waiting, written).await?;
                    continue;
                }
                Verdict::PartlyFailed { failed, said } => {
                    tracing::warn!(failed, rows, %said, "the target stored a batch only in part");
                    let failed = failed.min(rows as u64);
                    (FailureKind::PartlyStored(rows), format!("{failed} of {rows} rows failed: {said}"))
                }
                Verdict::Refused(said) => (FailureKind::RowsRefused(rows), said),
            };
            self.client.counters.count_failure();
            self.find_refused(budget, batch, &failure, &said, &mut waiting, written).await?;
        }
        Ok(())
    }

    /// The answer was lost: what the target holds of the batch is acknowledged, the rest is sent again.
    async fn read_back_lost(
        &self,
        budget: &Budget,
        batch: Batch,
        waiting: &mut Vec<Batch>,
        written: &mut Written,
    ) -> Result<()> {
        let stored = self.stored_rows(budget, &batch).await?;
        let (held, missing): (Vec<Entry>, Vec<Entry>) =
            batch.entries.iter().cloned().partition(|entry| is_stored(&batch, entry, &stored));
        tracing::info!(
            stored = held.len(),
            missing = missing.len(),
            "an answer was lost; the target was asked what it holds"
        );
        if !missing.is_empty() {
            let mut again = batch.only(&missing);
            again.asked = true;
            waiting.push(again);
        }
        accept(held, written);
        Ok(())
    }

    async fn find_refused(
        &self,
        budget: &Budget,
        batch: Batch,
        failure: &FailureKind,
        said: &str,
        waiting: &mut Vec<Batch>,
        written: &mut Written,
    ) -> Result<()> {
        let by_reading = matches!(self.settings, TargetSettings::Qeasy { .. });
        match retry::decide(failure, self.situation(budget, by_reading)) {
            Next::ReadBack(_) => match self.stored_rows(budget, &batch).await {
                Ok(stored) => {
                    settle(&batch, &stored, said, written);
                    return Ok(());
                }
                // A target that cannot be asked: halving finds them too.
                Err(error) if matches!(error.kind, ErrorKind::BadAnswer(_)) => {
                    tracing::warn!(error = %error.line(), "the batch cannot be read back, halving it instead");
                }
                Err(error) => return Err(error),
            },
            next => return self.halve(next, batch, said, waiting, written),
        }
        let next = retry::decide(failure, self.situation(budget, false));
        self.halve(next, batch, said, waiting, written)
    }

    fn situation(&self, budget: &Budget, can_read_back: bool) -> Situation {
        Situation {
            attempt: 1,
            refreshed: true,
            idempotent: true,
            can_read_back,
            left: budget.left(),
            budget: retry::RETRY_BUDGET,
            split_calls: SPLIT_CALLS.saturating_sub(self.split_calls.load(Ordering::Relaxed)),
            jitter: 0.5,
        }
    }

    fn halve(
        &self,
        next: Next,
        batch: Batch,
        said: &str,
        waiting: &mut Vec<Batch>,
        written: &mut Written,
    ) -> Result<()> {
        match (next, batch.halves()) {
            (Next::Split, Some((left, right))) => {
                self.split_calls.fetch_add(2, Ordering::Relaxed);
                waiting.push(right);
                waiting.push(left);
                Ok(())
            }
            (Next::Split | Next::SkipRow, _) => {
                written.refused.extend(batch.entries.iter().map(|entry| refused(&batch, entry, said)));
                Ok(())
            }
            _ => Err(Error::new(
                ErrorKind::BadAnswer(Side::Target),
                format!(
                    "target refuses too many rows to find each one ({SPLIT_CALLS} calls spent): {said}; mend the scheme or [record]"
                ),
            )),
        }
    }

    async fn send(&self, budget: &Budget, batch: &Batch) -> Result<Verdict> {
        match &self.settings {
            TargetSettings::Qeasy { base_url, scheme_id, token_in, .. } => {
                let url = scheme_url(base_url, scheme_id, "store");
                let build = |token: Option<&SecretString>| {
                    let request = Request::post(url.clone(), batch.body.clone()).idempotent();
                    with_token(request, token, *token_in)
                };
                // One call asks for a page of rows: for a larger batch, sending it again is cheaper than asking.
                let cheap = batch.entries.len() <= QUERY_PAGE && !batch.asked;
                let call = Call::new("store").redacted().when_lost(cheap.then_some(Verdict::Lost));
                self.client.call(budget, call, build, wire::stored).await
            }
            TargetSettings::Http { url, method, headers, success, .. } => {
                let build = |token: Option<&SecretString>| {
                    // The rows carry their ids: writing one twice leaves it as it is.
                    let request = Request::post(url.clone(), batch.body.clone()).idempotent();
                    let mut request = with_token(request, token, TokenIn::Header);
                    request.method = method.clone();
                    request.headers.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
                    request
                };
                let judge = |answer: &Answer, now_ms| wire::accepted(answer, success, now_ms);
                self.client.call(budget, Call::new("write").redacted(), build, judge).await
            }
        }
    }

    /// The rows of this batch as the target holds them, by id.
    async fn stored_rows(&self, budget: &Budget, batch: &Batch) -> Result<HashMap<String, Value>> {
        let mut stored = HashMap::new();
        for ids in batch.entries.chunks(QUERY_PAGE) {
            // `$in`, because a plain string matches fuzzily.
            let ids: Vec<&str> = ids.iter().map(|entry| entry.id.as_str()).collect();
            let filter = serde_json::json!({"page": 1, "pageSize": QUERY_PAGE, format!("CONTENT_{}", self.id_field): {"$in": ids}});
            let page = self.query(budget, &filter).await?;
            self.keep(page.rows, &mut stored);
        }
        Ok(stored)
    }

    fn keep(&self, rows: Vec<Value>, by_id: &mut HashMap<String, Value>) {
        for row in rows {
            let id = match row.get(&self.id_field) {
                Some(Value::String(id)) => id.clone(),
                Some(Value::Number(id)) => id.to_string(),
                _ => continue,
            };
            by_id.insert(id, row);
        }
    }

    async fn query(&self, budget: &Budget, filter: &Value) -> Result<ReadPage> {
        let TargetSettings::Qeasy { base_url, scheme_id, token_in, .. } = &self.settings else {
            return Ok(ReadPage::default());
        };
        let url = scheme_url(base_url, scheme_id, "query");
        let build = |token: Option<&SecretString>| {
            let request = Request::post(url.clone(), filter.to_string()).idempotent();
            with_token(request, token, *token_in)
        };
        self.client.call(budget, Call::new("query"), build, wire::queried).await
    }

    /// Reads every row back, by id. Tombstones count as absent.
    pub(crate) async fn read_back(
        &self,
        budget: &Budget,
        on_page: impl Fn(u64),
    ) -> Result<HashMap<String, Value>> {
        let mut rows = HashMap::new();
        match &self.settings {
            TargetSettings::Qeasy { .. } => {
                let mut read = 0;
                for page in 1_u64.. {
                    let answer = self
                        .query(budget, &serde_json::json!({"page": page, "pageSize": QUERY_PAGE}))
                        .await?;
                    let (known, on_this_page) = (rows.len(), answer.rows.len());
                    read += on_this_page as u64;
                    self.keep(answer.rows, &mut rows);
                    on_page(read);
                    // A page without a new row is the last one, whatever the total promises; a short one need not be.
                    if rows.len() == known
                        || answer.total.is_some_and(|total| read >= total)
                        || on_this_page == 0
                    {
                        break;
                    }
                }
            }
            TargetSettings::Http { read_url: None, .. } => {
                return Err(Error::new(
                    ErrorKind::BadPipeline,
                    "target.read_url is not set: a target of kind http says nowhere else what it holds; set it to a GET address that lists the rows",
                ));
            }
            TargetSettings::Http { read_url: Some(url), headers, .. } => {
                let build = |token: Option<&SecretString>| {
                    let mut request = with_token(Request::get(url.clone()), token, TokenIn::Header);
                    request.headers.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
                    request
                };
                let page = self.client.call(budget, Call::new("read back"), build, wire::listed).await?;
                on_page(page.rows.len() as u64);
                self.keep(page.rows, &mut rows);
            }
        }
        rows.retain(|_, row| row.get("deleted").and_then(Value::as_bool) != Some(true));
        Ok(rows)
    }
}

/// Whether a row that was read back holds what ours says.
pub(crate) fn holds(theirs: &Value, ours: &[u8]) -> bool {
    std::str::from_utf8(ours)
        .ok()
        .and_then(|ours| serde_json::from_str::<&RawValue>(ours).ok())
        .is_some_and(|ours| wire::holds(theirs, ours))
}

/// Headers that may hold a key. Short ones ("true", "json") are words, which an answer may hold too.
fn secret_headers(headers: &IndexMap<String, SecretString>) -> impl Iterator<Item = &SecretString> {
    headers.values().filter(|value| exposed(value).len() >= SHORTEST_KEY)
}

fn accept(entries: Vec<Entry>, written: &mut Written) {
    if !entries.is_empty() {
        written.batches += 1;
    }
    written.acknowledged.extend(entries);
}

/// With the rows that were read back, decides for each row of a batch.
fn settle(batch: &Batch, stored: &HashMap<String, Value>, said: &str, written: &mut Written) {
    let (held, missing): (Vec<Entry>, Vec<Entry>) =
        batch.entries.iter().cloned().partition(|entry| is_stored(batch, entry, stored));
    let reason = format!(
        "{said}; of these it does not hold this one as sent (a scheme whose idCheck is on excludes repeated ids: changes need it off)"
    );
    written.refused.extend(missing.iter().map(|entry| refused(batch, entry, &reason)));
    accept(held, written);
}

fn is_stored(batch: &Batch, entry: &Entry, stored: &HashMap<String, Value>) -> bool {
    stored.get(entry.id.as_str()).is_some_and(|theirs| holds(theirs, batch.row(entry)))
}

fn refused(batch: &Batch, entry: &Entry, said: &str) -> Refused {
    let row = String::from_utf8_lossy(batch.row(entry));
    let id = Some(entry.id.to_string());
    let reason = format!("refused by the target: {said}");
    Refused {
        entry: entry.clone(),
        said: said.to_owned(),
        rejected: Rejected::new(RowKind::Record, id, reason, &row),
    }
}

fn scheme_url(base: &Url, scheme_id: &str, call: &str) -> Url {
    join_path(base, &format!("/v2/open-api/business/{scheme_id}/{call}"))
}

fn with_token(request: Request, token: Option<&SecretString>, token_in: TokenIn) -> Request {
    let Some(token) = token else { return request };
    if token_in == TokenIn::Header {
        return request.bearer(token);
    }
    let mut request = request;
    request.url.query_pairs_mut().append_pair("access_token", exposed(token));
    request
}

/// Reads an answer in every way, for the fuzz targets.
#[cfg(feature = "testing")]
pub(crate) fn fuzz(answer: &Answer, success: &IndexMap<String, Value>) {
    let _ = wire::token(answer, 0);
    let _ = wire::stored(answer, 0);
    let _ = wire::accepted(answer, success, 0);
    let _ = wire::accepted(answer, &IndexMap::new(), 0);
    let _ = wire::queried(answer, 0);
    let _ = wire::listed(answer, 0);
}
