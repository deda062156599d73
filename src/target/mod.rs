//! Targets: Qeasy and plain HTTP. Writes batches, finds out which rows of a doubtful one are stored, reads back.

pub mod batch;
mod wire;

use std::collections::HashMap;

use indexmap::IndexMap;
use secrecy::SecretString;
use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;

use crate::client::{Auth, Budget, Client, Pace, exposed};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result, Side};
use crate::http::{Request, Wire, at};
use crate::model::{Rejected, RowKind};
use crate::pace::PerMinute;
use batch::{Batch, Entry, Wrap};
use wire::{ReadPage, Verdict};

/// Rows per read-back call: Qeasy's largest page.
const QUERY_PAGE: usize = 100;
/// Calls that a run spends on finding refused rows by halving.
const SPLIT_CALLS: u32 = 64;

/// Where Qeasy's token goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenIn {
    /// `Authorization: Bearer …`
    Header,
    /// `?access_token=…`
    Query,
}

/// Which target, with all that it needs.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one for each connection")]
pub enum Settings {
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

impl Settings {
    /// Where the calls go.
    pub fn address(&self) -> &Url {
        match self {
            Self::Qeasy { base_url, .. } => base_url,
            Self::Http { url, .. } => url,
        }
    }
}

/// What became of the rows of a batch.
#[derive(Debug, Default)]
pub struct Written {
    /// Rows that the target holds now.
    pub acknowledged: Vec<Entry>,
    /// Rows that it refused, with its words.
    pub rejected: Vec<Rejected>,
    /// Batches acknowledged in whole or in part.
    pub batches: u64,
}

/// The target.
pub struct Target {
    client: Client,
    settings: Settings,
    id_field: String,
    split_calls: std::sync::atomic::AtomicU32,
}

impl Target {
    /// The target behind this wire. `id_field` is the target field that holds the row's id.
    pub fn new(
        settings: Settings,
        id_field: String,
        requests_per_minute: u32,
        wire: Wire,
        clock: Clock,
    ) -> Result<Self> {
        let (auth, secrets) = match &settings {
            Settings::Qeasy { base_url, app_key, app_secret, .. } => {
                let login =
                    serde_json::json!({"app_key": exposed(app_key), "app_secret": exposed(app_secret)});
                let request = Request::post(at(base_url, "/v2/oauth"), login.to_string());
                (Auth::Login { request, read: wire::token }, vec![app_key.clone(), app_secret.clone()])
            }
            Settings::Http { token: Some(token), headers, .. } => {
                let secrets = std::iter::once(token).chain(headers.values()).cloned().collect();
                (Auth::Fixed(token.clone()), secrets)
            }
            Settings::Http { headers, .. } => (Auth::None, headers.values().cloned().collect()),
        };
        let pace = Pace::PerMinute(tokio::sync::Mutex::new(PerMinute::new(requests_per_minute, [])));
        let client = Client::new(Side::Target, wire, clock, pace, auth, secrets);
        Ok(Self { client, settings, id_field, split_calls: std::sync::atomic::AtomicU32::new(0) })
    }

    /// How rows are wrapped.
    pub fn wrap(&self) -> Wrap {
        match &self.settings {
            Settings::Qeasy { .. } => Wrap::Content,
            Settings::Http { wrap, .. } => *wrap,
        }
    }

    /// Names the target in the state, without its address on this machine (a local one changes its port).
    pub fn identity(&self) -> String {
        let host = |url: &Url| {
            if crate::http::is_loopback(url) {
                "local".to_owned()
            } else {
                url.host_str().unwrap_or_default().to_owned()
            }
        };
        match &self.settings {
            Settings::Qeasy { base_url, scheme_id, .. } => format!("qeasy {} {scheme_id}", host(base_url)),
            Settings::Http { url, .. } => format!("http {} {}", host(url), url.path()),
        }
    }

    /// Calls made since the last time, as (requests, retries, throttled).
    pub fn take_counters(&self) -> (u64, u64, u64) {
        self.client.counters.take()
    }

    /// Tells the pace what earlier runs used of the minute.
    pub async fn remember_calls(&self, calls_ms: &[u64]) {
        if let Pace::PerMinute(pace) = self.client.pace() {
            pace.lock().await.remember(calls_ms.iter().copied());
        }
    }

    /// The calls of the last minute, for the state.
    pub async fn calls_ms(&self) -> Vec<u64> {
        match self.client.pace() {
            Pace::PerMinute(pace) => pace.lock().await.calls_ms(),
            Pace::PerSecond(_) => Vec::new(),
        }
    }

    /// A new run: the budget for halving starts afresh.
    pub fn start_run(&self) {
        self.split_calls.store(0, std::sync::atomic::Ordering::Relaxed);
    }

    /// Writes a batch. Rows of which the answer leaves it open whether they are stored are read back, or sent
    /// again in halves; what the target refuses comes back as rejected, what it holds as acknowledged.
    ///
    /// On an error, `written` still holds what was acknowledged before it.
    pub async fn write(&self, budget: &Budget, batch: Batch, written: &mut Written) -> Result<()> {
        let mut waiting = vec![batch];
        while let Some(batch) = waiting.pop() {
            match self.send(budget, &batch).await? {
                Verdict::Accepted => accept(batch.entries, written),
                Verdict::PartlyFailed { failed, said } => {
                    tracing::warn!(failed, rows = batch.entries.len(), %said, "the target stored a batch only in part");
                    match self.stored_rows(budget, &batch).await? {
                        Some(stored) => self.settle(&batch, &stored, failed, &said, written),
                        None => self.halve(
                            batch,
                            &format!("{failed} rows failed: {said}"),
                            &mut waiting,
                            written,
                        )?,
                    }
                }
                Verdict::Refused(said) => self.halve(batch, &said, &mut waiting, written)?,
            }
        }
        Ok(())
    }

    fn halve(&self, batch: Batch, said: &str, waiting: &mut Vec<Batch>, written: &mut Written) -> Result<()> {
        let Some((left, right)) = batch.halves() else {
            for entry in &batch.entries {
                written.rejected.push(refused(&batch, entry, said));
            }
            return Ok(());
        };
        let spent = self.split_calls.fetch_add(2, std::sync::atomic::Ordering::Relaxed);
        if spent >= SPLIT_CALLS {
            return Err(Error::new(
                Kind::BadAnswer(Side::Target),
                format!(
                    "target refuses too many rows to find each one ({SPLIT_CALLS} calls spent): {said}; mend the scheme or [record]"
                ),
            ));
        }
        waiting.push(right);
        waiting.push(left);
        Ok(())
    }

    /// With the rows that were read back, decides for each row of a batch.
    fn settle(
        &self,
        batch: &Batch,
        stored: &HashMap<String, Value>,
        failed: u64,
        said: &str,
        written: &mut Written,
    ) {
        let mut acknowledged = Vec::new();
        for entry in &batch.entries {
            let ours = std::str::from_utf8(batch.row(entry))
                .ok()
                .and_then(|row| serde_json::from_str::<&RawValue>(row).ok());
            let is_stored = match (stored.get(entry.id.as_str()), ours) {
                (Some(theirs), Some(ours)) => wire::holds(theirs, ours),
                _ => false,
            };
            if is_stored {
                acknowledged.push(entry.clone());
            } else {
                let reason = format!(
                    "the target counted {failed} rows of this batch as failed ({said}) and does not hold this one as sent"
                );
                written.rejected.push(refused(batch, entry, &reason));
            }
        }
        accept(acknowledged, written);
    }

    async fn send(&self, budget: &Budget, batch: &Batch) -> Result<Verdict> {
        match &self.settings {
            Settings::Qeasy { base_url, scheme_id, token_in, .. } => {
                let url = scheme_url(base_url, scheme_id, "store");
                let build = |token: Option<&SecretString>| {
                    with_token(Request::post(url.clone(), batch.body.clone()), token, *token_in)
                };
                self.client.call_for_verdict(budget, "store", build, wire::stored).await
            }
            Settings::Http { url, method, headers, success, .. } => {
                let build = |token: Option<&SecretString>| {
                    let mut request =
                        with_token(Request::post(url.clone(), batch.body.clone()), token, TokenIn::Header);
                    request.method = method.clone();
                    request.headers.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
                    request
                };
                self.client
                    .call_for_verdict(budget, "write", build, |answer, now_ms| {
                        wire::accepted(answer, success, now_ms)
                    })
                    .await
            }
        }
    }

    /// The rows of this batch as the target holds them, by id; none where a target cannot be asked.
    async fn stored_rows(&self, budget: &Budget, batch: &Batch) -> Result<Option<HashMap<String, Value>>> {
        let Settings::Qeasy { .. } = &self.settings else { return Ok(None) };
        let mut stored = HashMap::new();
        for ids in batch.entries.chunks(QUERY_PAGE) {
            // `$in`, because a plain string matches fuzzily.
            let ids: Vec<&str> = ids.iter().map(|entry| entry.id.as_str()).collect();
            let filter = serde_json::json!({"page": 1, "pageSize": QUERY_PAGE, format!("CONTENT_{}", self.id_field): {"$in": ids}});
            let page = self.query(budget, &filter).await?;
            self.keep(page.rows, &mut stored);
        }
        Ok(Some(stored))
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
        let Settings::Qeasy { base_url, scheme_id, token_in, .. } = &self.settings else {
            return Ok(ReadPage::default());
        };
        let url = scheme_url(base_url, scheme_id, "query");
        let build = |token: Option<&SecretString>| {
            with_token(Request::post(url.clone(), filter.to_string()), token, *token_in)
        };
        self.client.call(budget, "query", build, wire::queried).await
    }

    /// Reads every row back, by id. Tombstones count as absent.
    pub async fn read_back(&self, budget: &Budget, on_page: impl Fn(u64)) -> Result<HashMap<String, Value>> {
        let mut rows = HashMap::new();
        match &self.settings {
            Settings::Qeasy { .. } => {
                let mut read = 0;
                for page in 1_u64.. {
                    let answer = self
                        .query(budget, &serde_json::json!({"page": page, "pageSize": QUERY_PAGE}))
                        .await?;
                    let on_this_page = answer.rows.len();
                    read += on_this_page as u64;
                    self.keep(answer.rows, &mut rows);
                    on_page(read);
                    let all = answer.total.map_or(on_this_page < QUERY_PAGE, |total| read >= total);
                    if all || on_this_page == 0 {
                        break;
                    }
                }
            }
            Settings::Http { read_url: None, .. } => {
                return Err(Error::new(
                    Kind::BadPipeline,
                    "target.read_url is not set: a target of kind http says nowhere else what it holds; set it to a GET address that lists the rows",
                ));
            }
            Settings::Http { read_url: Some(url), headers, .. } => {
                let build = |token: Option<&SecretString>| {
                    let mut request = with_token(Request::get(url.clone()), token, TokenIn::Header);
                    request.headers.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
                    request
                };
                let page = self.client.call(budget, "read back", build, wire::listed).await?;
                on_page(page.rows.len() as u64);
                self.keep(page.rows, &mut rows);
            }
        }
        rows.retain(|_, row| row.get("deleted").and_then(Value::as_bool) != Some(true));
        Ok(rows)
    }
}

/// Whether a row that was read back holds what ours says.
pub fn holds(theirs: &Value, ours: &[u8]) -> bool {
    std::str::from_utf8(ours)
        .ok()
        .and_then(|ours| serde_json::from_str::<&RawValue>(ours).ok())
        .is_some_and(|ours| wire::holds(theirs, ours))
}

fn accept(entries: Vec<Entry>, written: &mut Written) {
    if !entries.is_empty() {
        written.batches += 1;
    }
    written.acknowledged.extend(entries);
}

fn refused(batch: &Batch, entry: &Entry, reason: &str) -> Rejected {
    let row = String::from_utf8_lossy(batch.row(entry));
    Rejected::new(
        RowKind::Record,
        Some(entry.id.to_string()),
        format!("refused by the target: {reason}"),
        &row,
    )
}

fn scheme_url(base: &Url, scheme_id: &str, call: &str) -> Url {
    at(base, &format!("/v2/open-api/business/{scheme_id}/{call}"))
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
