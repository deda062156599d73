//! Targets: Qeasy and plain HTTP. Writes batches, finds out which rows of a doubtful one are stored, reads back.
//!
//! What both kinds share is here: the account's limit, the acknowledgement, rows by id. A protocol ([`qeasy`], [`http`])
//! builds requests and judges answers; [`refused`] finds the rows for which a batch failed. Deliberately absent: any
//! knowledge of the source, and any delete call; a tombstone is a row like any other.

mod answer;
pub(crate) mod batch;
mod body;
mod compare;
mod held;
mod http;
mod qeasy;
mod read_back;
mod refused;
mod settings;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use secrecy::SecretString;

use self::answer::Verdict;
use self::batch::{Batch, Entry};
use self::http::HttpTarget;
use self::qeasy::Qeasy;
use self::refused::BatchFailure;
use crate::budget::Budget;
use crate::catalogue::Rejected;
use crate::clock::Clock;
use crate::error::{Result, Side};
use crate::net::limit::{CallLedger, Pace};
use crate::net::{Answer, Auth, Call, CallError, Client, Counters, Request, Wire, exposed};
use crate::testing::Mutant;
use crate::words::written;
pub(crate) use batch::Wrap;
pub(crate) use compare::contains;
pub(crate) use held::{HeldRow, HeldRows};
pub(crate) use read_back::IDS_PER_CALL;
pub(crate) use settings::TargetSettings;
pub(crate) use settings::{Limit, TokenIn};

/// What became of the rows of a batch.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Rows that the target holds now, with the bodies in which they were sent.
    pub acknowledged: Vec<Batch>,
    pub refused: Vec<Refused>,
    /// Batches acknowledged in whole or in part.
    pub batches: u64,
}

/// A row that the target refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub entry: Entry,
    /// In the target's words.
    pub reason: String,
    /// The row for the quarantine.
    pub rejected: Rejected,
}

pub(crate) struct Target {
    client: Client,
    protocol: Protocol,
    wrap: Wrap,
    identity: String,
    id_field: String,
    /// Calls that this run has spent on bisecting.
    split_calls: AtomicU32,
    /// Whether this run has said that the scheme keeps its older rows.
    told_of_id_check: AtomicBool,
}

#[expect(clippy::large_enum_variant, reason = "there is one for each connection")]
enum Protocol {
    Qeasy(Qeasy),
    Http(HttpTarget),
}

impl Target {
    /// The target behind this wire, at the pace of its account. `id_field` is the target field that holds the row's id.
    pub(crate) fn new(
        settings: TargetSettings,
        id_field: String,
        pace: Arc<Pace>,
        wire: Wire,
        clock: Clock,
    ) -> Result<Self> {
        let identity = settings.identity();
        let (protocol, wrap, auth, credentials) = match settings {
            TargetSettings::Qeasy { base_url, scheme_id, token_in, app_key, app_secret } => {
                let qeasy = Qeasy::new(base_url, scheme_id, token_in);
                let auth = qeasy.auth(&app_key, &app_secret);
                (Protocol::Qeasy(qeasy), Wrap::Content, auth, vec![app_key, app_secret])
            }
            TargetSettings::Http { url, method, headers, token, wrap, success, read_url } => {
                let http = HttpTarget { url, method, headers, success, read_url };
                let credentials = token.iter().chain(http.secret_headers()).cloned().collect();
                let auth = token.map_or(Auth::None, Auth::Fixed);
                (Protocol::Http(http), wrap, auth, credentials)
            }
        };
        let client = Client::new(Side::Target, wire, clock, pace, auth, credentials);
        Ok(Self {
            client,
            protocol,
            wrap,
            identity,
            id_field,
            split_calls: AtomicU32::new(0),
            told_of_id_check: AtomicBool::new(false),
        })
    }

    /// How rows are wrapped into a body.
    pub(crate) fn wrap(&self) -> Wrap {
        self.wrap
    }

    /// Names the target in the state.
    pub(crate) fn identity(&self) -> String {
        self.identity.clone()
    }

    /// The field that holds a row's id.
    pub(crate) fn id_field(&self) -> &str {
        &self.id_field
    }

    /// Whether reading back takes many calls, so that it is worth a checkpoint.
    pub(crate) fn is_read_in_pages(&self) -> bool {
        matches!(self.protocol, Protocol::Qeasy(_))
    }

    /// The calls of this run.
    pub(crate) fn counters(&self) -> &Counters {
        &self.client.counters
    }

    /// Adds the calls of the last minute that earlier runs made.
    pub(crate) fn restore_calls(&self, calls_ms: &[u64]) {
        if !Mutant::ForgetTheLimit.is_active() {
            self.client.pace.restore_calls(calls_ms);
        }
    }

    /// The run has ended: drops reserved calls, and returns the calls of the last minute.
    pub(crate) fn release_reservations(&self) -> Vec<u64> {
        self.client.pace.release_reservations()
    }

    /// A run begins: counters and the budgets for retries and for bisecting start afresh.
    pub(crate) fn start_run(&self) {
        self.client.start_run();
        self.split_calls.store(0, Ordering::Relaxed);
        self.told_of_id_check.store(false, Ordering::Relaxed);
    }

    /// The target for one run, whose calls are reserved in this ledger. There is no other way to call it.
    pub(crate) fn reserving_in<'a>(&'a self, ledger: &'a dyn CallLedger) -> TargetRun<'a> {
        TargetRun { target: self, ledger }
    }
}

/// The target as one run calls it.
#[derive(Clone, Copy)]
pub(crate) struct TargetRun<'a> {
    target: &'a Target,
    ledger: &'a dyn CallLedger,
}

impl TargetRun<'_> {
    /// Grows whenever a call or a batch does not succeed at once.
    pub(crate) fn failures(self) -> u64 {
        self.target.client.counters.failures()
    }

    /// Writes a batch. If the answer leaves it open which rows are stored, they are read back, or sent again in halves.
    ///
    /// On an error, `written` still holds what was acknowledged before it.
    pub(crate) async fn write(self, budget: &Budget, batch: Batch, written: &mut Written) -> Result<()> {
        if Mutant::AcknowledgeBeforeTheAnswer.is_active() {
            accept(&batch, batch.entries.clone(), written);
        }
        let mut waiting = vec![batch];
        while let Some(mut batch) = waiting.pop() {
            let (failure, reason) = match self.send(budget, &batch).await? {
                Verdict::Accepted => {
                    let entries = std::mem::take(&mut batch.entries);
                    accept(&batch, entries, written);
                    continue;
                }
                Verdict::Lost => {
                    self.read_back_lost(budget, batch, &mut waiting, written).await?;
                    continue;
                }
                Verdict::PartlyFailed { failed, reason } => {
                    let rows = batch.entries.len();
                    let failed = failed.at_most(rows);
                    self.warn_of_part(failed, rows, &reason);
                    (
                        BatchFailure::PartlyStored,
                        written!("{failed} of {rows} rows failed: {reason}", failed, rows, reason),
                    )
                }
                Verdict::Refused(reason) => (BatchFailure::Refused, reason),
                Verdict::Unfulfilled { asked, said } => {
                    (BatchFailure::Refused, written!("{asked}: {said}", asked, said))
                }
            };
            self.target.client.counters.count_failure();
            self.find_refused(budget, batch, (failure, &reason), &mut waiting, written).await?;
        }
        Ok(())
    }

    /// A call to the target, counted in the run's ledger.
    async fn call<T>(
        self,
        budget: &Budget,
        call: Call<'_, T>,
        build: impl Fn(Option<&SecretString>) -> Request,
        judge: impl Fn(&Answer, u64) -> Result<T, CallError>,
    ) -> Result<T> {
        self.target.client.call(budget, call.reserved_in(self.ledger), build, judge).await
    }

    async fn send(self, budget: &Budget, batch: &Batch) -> Result<Verdict> {
        match &self.target.protocol {
            Protocol::Qeasy(qeasy) => qeasy.store(self, budget, batch).await,
            Protocol::Http(http) => http.write(self, budget, batch).await,
        }
    }
}

fn accept(batch: &Batch, entries: Vec<Entry>, written: &mut Written) {
    if !entries.is_empty() {
        written.batches += 1;
        written.acknowledged.push(batch.with(entries));
    }
}

fn with_token(request: Request, token: Option<&SecretString>, token_in: TokenIn) -> Request {
    match (token, token_in) {
        (None, _) => request,
        (Some(token), TokenIn::Header) => request.bearer(token),
        (Some(token), TokenIn::Query) => {
            let mut request = request;
            request.url.query_pairs_mut().append_pair("access_token", exposed(token));
            request
        }
    }
}

/// Reads an answer in every way, for the fuzz targets.
#[cfg(feature = "testing")]
pub(crate) fn fuzz(answer: &Answer, success: &indexmap::IndexMap<String, serde_json::Value>) {
    let _ = qeasy::token(answer, 0);
    let _ = qeasy::stored(answer, 3, 0);
    let _ = qeasy::queried(answer, 0);
    let _ = http::written(answer, 3, success, 0);
    let _ = http::written(answer, 3, &indexmap::IndexMap::new(), 0);
    let _ = http::listed(answer, 0);
}
