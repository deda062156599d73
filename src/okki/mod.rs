//! OKKI, the source: reads groups and products, and returns a clean catalogue.
//!
//! From the outside in: `protocol` (the wire format) and `page` (a page of products, on `row` and `json`) parse;
//! `reading` reads the products in `windows`, on top of a `cache`, with a `delta` and a comparison of totals (`settle`);
//! `whole` is the old way, where the source's filters cannot be believed. `snapshot` builds the catalogue of one read (on
//! `tree`, `placing`, `products` and `seen`), and `clean` judges its rows.
//!
//! Deliberately absent: writing. OKKI's one host is production, in spite of its name, so only `GET` is sent, apart from
//! the login; and only to paths that are known to read.

mod accounts;
mod bounds;
pub(crate) mod cache;
mod clean;
mod delta;
mod exact;
mod filters;
mod json;
mod merge;
mod newest;
mod page;
mod placing;
mod products;
mod protocol;
mod reading;
mod row;
mod sample;
mod sample_text;
mod seen;
mod settle;
mod snapshot;
mod surplus;
mod totals;
mod tree;
mod whole;
mod windows;

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::Instant;
use url::Url;

use crate::budget::Budget;
use crate::catalogue::Catalogue;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result, Side};
use crate::net::limit::Pace;
use crate::net::{
    Answer, Auth, Call, Client, Counters, Login, MAX_LIST_BYTES, Request, Wire, exposed, join_path,
};
use crate::report::Watch;
use crate::transform::RowMap;
use crate::words::{Message, say};
pub(crate) use cache::Cache;
use clean::Cleaned;
use page::ProductPage;
#[cfg(feature = "testing")]
pub(crate) use page::fuzz;
use protocol::GroupList;
pub(crate) use reading::Keep;
use reading::{Reading, Stop};
use row::RowReader;
pub(crate) use sample::{RawRows, Sample};
use seen::Duplicates;
use snapshot::SnapshotBuilder;
pub use totals::SourceTotals;
pub(crate) use whole::MAX_READS;
use windows::{Asker, Ledger, Sizing, SourceClock};

/// What a read goes on from.
pub(crate) struct ReadStart {
    /// Of an earlier read.
    pub cache: Option<Cache>,
    /// `Some`: what is held is trusted, and every part of it is read again within this time.
    pub full_read_every: Option<Duration>,
    pub clock: Clock,
}

/// How a catalogue was read.
#[derive(Debug, Default)]
pub(crate) struct ReadInfo {
    /// Whether all products were read, rather than those that changed.
    pub full_read: bool,
    /// Products that differ from the cache (all of them where there was none).
    pub fresh_products: u64,
    /// Products that the source marks as deleted (`enable_flag` 0).
    pub deleted_products: u64,
    /// Whether products were created between the pages, so that one can have been missed; `None` if nobody knows.
    pub grew: Option<bool>,
    /// When the part was read that was read longest ago, wall-clock milliseconds; `None` if there are no parts.
    pub oldest_read_at_ms: Option<u64>,
    /// Whether the source's total was compared to the end. If not, products that were deleted lately may be held still.
    pub is_compared: bool,
    /// Time spent on cleaning.
    pub cleaned_in: Duration,
}

impl ReadInfo {
    fn of(cleaned: Cleaned) -> Self {
        Self {
            deleted_products: cleaned.deleted,
            cleaned_in: cleaned.took,
            grew: Some(false),
            is_compared: true,
            ..Self::default()
        }
    }
}

/// A read that ended before it was complete. What it read is kept.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub error: Error,
    /// Products read so far.
    pub read: u64,
    /// How many of them this read brought.
    pub newly_read: u64,
    /// Products that are not read yet; `None` if that is not known, or nothing is kept.
    pub unread: Option<u64>,
}

impl From<Error> for Unfinished {
    fn from(error: Error) -> Self {
        Self { error, read: 0, newly_read: 0, unread: None }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct SourceSettings {
    /// `file:///sample.json` reads the groups, with their products, from a file.
    pub base_url: Url,
    /// Path of the groups call.
    pub api: String,
    /// Key of a group's id.
    pub id: String,
    /// Key of a group's display name.
    pub number: String,
    /// Whether later rows with a known id are rejected; if not, they replace the earlier ones.
    pub id_check: bool,
    pub page_size: u32,
    pub max_requests_per_second: f64,
    /// Pages that are read at the same time.
    pub max_concurrency: usize,
    pub client_id: SecretString,
    pub client_secret: SecretString,
}

pub(crate) struct Okki {
    client: Client,
    settings: SourceSettings,
}

impl SourceSettings {
    fn duplicates(&self) -> Duplicates {
        if self.id_check { Duplicates::KeepFirst } else { Duplicates::KeepLast }
    }
}

impl Okki {
    /// The source behind this wire, at the pace of its account.
    pub(crate) fn new(settings: SourceSettings, pace: Arc<Pace>, wire: Wire, clock: Clock) -> Result<Self> {
        let login = serde_json::json!({
            "grant_type": "client_credentials",
            "client_id": exposed(&settings.client_id),
            "client_secret": exposed(&settings.client_secret),
            "scope": "product",
        });
        let auth = Auth::Login(Login {
            request: Request::post(
                join_path(&settings.base_url, "/v1/oauth2/access_token"),
                login.to_string(),
            )
            .idempotent(),
            read: protocol::token,
        });
        let secrets = vec![settings.client_id.clone(), settings.client_secret.clone()];
        Ok(Self { client: Client::new(Side::Source, wire, clock, pace, auth, secrets), settings })
    }

    /// The calls of this run.
    pub(crate) fn counters(&self) -> &Counters {
        &self.client.counters
    }

    /// Resets the counters and the retry budget.
    pub(crate) fn start_run(&self) {
        self.client.start_run();
    }

    /// What a cache depends on: the fields that the pipeline names, and the source.
    pub(crate) fn cache_key(&self, map: &RowMap) -> String {
        let SourceSettings { base_url, id_check, .. } = &self.settings;
        let host = crate::net::stored_host(base_url);
        format!("{} {host}{} {id_check}", map.fingerprint(), base_url.path())
    }

    /// Reads everything that the pipeline needs; with the cache of an earlier read, what is missing and what changed.
    pub(crate) async fn read(
        &self,
        budget: &Budget,
        map: &RowMap,
        start: ReadStart,
        keep: &impl Keep,
        watch: &Watch,
    ) -> Result<(Catalogue, ReadInfo), Unfinished> {
        let groups = self.groups(budget).await?;
        let mut later = None;
        let mut builder = SnapshotBuilder::new(&self.settings, map, &groups);
        if !map.uses_products() {
            let (catalogue, cleaned) = builder.finish()?;
            return Ok((catalogue, ReadInfo::of(cleaned)));
        }
        let began = groups.now.as_deref().and_then(windows::times::from_text);
        let Some(began) = began.filter(|_| !builder.has_embedded_products()) else {
            return self.whole(budget, map, &groups, start.clock, None, keep, watch).await;
        };
        let ReadStart { cache, full_read_every, clock } = start;
        let mut ledger = cache.map_or_else(Ledger::default, |cache| builder.add_cached(cache));
        if let Some(why) = ledger.whole_because.clone() {
            let every = full_read_every.unwrap_or(whole::TRY_WINDOWS_AGAIN_AFTER);
            if ledger.is_whole_due(every, clock.now_ms()) {
                // Perhaps its filters can be believed by now.
                (builder, ledger) = (SnapshotBuilder::new(&self.settings, map, &groups), Ledger::default());
            } else if full_read_every.is_none() {
                return self.whole(budget, map, &groups, clock, Some(why), keep, watch).await;
            }
        }
        ledger.began.get_or_insert(began);
        let asker = Asker {
            okki: self,
            budget,
            reader: builder.reader(),
            start_shift_seconds: ledger.start_shift_seconds,
            surplus: ledger.surplus,
        };
        let sizing = Sizing::for_run(&self.settings, budget.left());
        let is_resumed = !ledger.finished && !ledger.windows().is_empty();
        let (windows_before, first_number) = (ledger.complete, ledger.last_number());
        let mut reading = Reading {
            asker,
            builder,
            ledger,
            source_clock: SourceClock { began, at: Instant::now() },
            clock,
            key: self.cache_key(map),
            keep,
            watch,
            sizing,
            held_at_start: 0,
            kept_at: Instant::now(),
            is_checkpoint_there: is_resumed,
            is_dirty: false,
            fresh_rows: 0,
            tail: None,
            has_unplaced: false,
            is_compared: true,
        };
        reading.held_at_start = reading.held();
        match reading.run(full_read_every).await {
            Ok(()) => {}
            Err(Stop::ReadWhole(why)) => {
                return self.whole(budget, map, &groups, clock, Some(why), keep, watch).await;
            }
            Err(Stop::Error(error)) => {
                if reading.is_dirty {
                    reading.checkpoint().await;
                }
                return Err(reading.unfinished(error));
            }
        }
        reading.keep_complete().await;
        let full_read = !windows_before || reading.ledger.all_newer_than(first_number);
        let Reading { mut builder, ledger, fresh_rows, is_compared, .. } = reading;
        if builder.met_unknown_group {
            // The group may be as new as the product.
            let groups = later.insert(self.groups(budget).await?);
            builder = builder.with_groups(&self.settings, groups);
        }
        let (catalogue, cleaned) = builder.finish()?;
        let info = ReadInfo {
            full_read,
            fresh_products: fresh_rows,
            oldest_read_at_ms: ledger.oldest_read_at_ms(),
            is_compared,
            ..ReadInfo::of(cleaned)
        };
        Ok((catalogue, info))
    }

    async fn groups(&self, budget: &Budget) -> Result<GroupList> {
        if self.settings.base_url.scheme() == "file" {
            return groups_of_file(&self.settings.base_url);
        }
        let url = join_path(&self.settings.base_url, &self.settings.api);
        let request = Request::get(url).answered_by_at_most(MAX_LIST_BYTES);
        let build = |token: Option<&SecretString>| bearer(request.clone(), token);
        self.client.call(budget, Call::new("groups"), build, protocol::groups).await
    }

    async fn page(
        &self,
        budget: &Budget,
        number: u64,
        size: u32,
        filter: &[(&str, &str)],
        reader: RowReader<'_>,
    ) -> Result<ProductPage> {
        let (number, size) = (number.to_string(), size.to_string());
        let page = [("start_index", number.as_str()), ("count", size.as_str())];
        let query: Vec<(&str, &str)> = page.iter().chain(filter).copied().collect();
        let call = Call::new("products");
        // A source without such a filter can still be read in full.
        let call = if filter.is_empty() { call } else { call.optional() };
        self.list(budget, call, &query, reader).await
    }

    async fn list(
        &self,
        budget: &Budget,
        call: Call<'_, ProductPage>,
        query: &[(&str, &str)],
        reader: RowReader<'_>,
    ) -> Result<ProductPage> {
        let mut url = join_path(&self.settings.base_url, "/v1/product/list");
        url.query_pairs_mut().extend_pairs(query);
        let build = |token: Option<&SecretString>| bearer(Request::get(url.clone()), token);
        let judge = |answer: &Answer, now_ms| ProductPage::from_answer(answer, now_ms, reader);
        self.client.call(budget, call, build, judge).await
    }
}

fn bearer(request: Request, token: Option<&SecretString>) -> Request {
    let Some(token) = token else { return request };
    request.bearer(token)
}

/// The errors of a file name the file and never its content: it may be any file of the machine.
fn groups_of_file(url: &Url) -> Result<GroupList> {
    let fail = |kind: ErrorKind, why: Message| Error::new(kind, say!("source file {url}: {why}", url, why));
    let unreadable = |why: Message| fail(ErrorKind::Unavailable(Side::Source), why);
    let path = url.to_file_path().map_err(|()| unreadable(say!("is not a local path")))?;
    let body = std::fs::read(path).map_err(|error| unreadable(error.to_string().into()))?;
    let answer = Answer { status: http::StatusCode::OK, headers: http::HeaderMap::new(), body: body.into() };
    protocol::groups(&answer, 0).map_err(|_| {
        fail(ErrorKind::BadAnswer(Side::Source), say!("is not an answer of OKKI's groups call"))
            .help(say!("save the answer as OKKI sends it, as JSON"))
    })
}
