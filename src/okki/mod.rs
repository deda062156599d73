//! OKKI, the source: reads groups and products until a read is consistent, and returns a clean catalogue.
//!
//! From the outside in: `protocol` (the wire format) and `page` (a page of products, on `row` and `json`) parse;
//! `snapshot` builds the catalogue of one read (on `tree`, `placing`, `products` and `dedup`); `delta` reads only what
//! changed since the `cache` was written.
//!
//! Races:
//! - Pages overlap while people edit the catalogue: a row may come twice, another one not at all. A read counts only if
//!   it holds as many distinct ids as the total says and the total stayed the same; else everything is read again.
//! - A row deleted and another one created between two pages leave the total as it was and hide a third row. Only the
//!   plan knows whether that matters; it asks [`Okki::grew_since`].
//!
//! Deliberately absent: writing. OKKI's one host is production, in spite of its name, so only `GET` is sent, apart from
//! the login.

pub(crate) mod cache;
mod dedup;
mod delta;
mod json;
mod page;
mod placing;
mod products;
mod protocol;
mod row;
mod snapshot;
mod tree;

use std::ops::ControlFlow;

use futures::StreamExt as _;
use secrecy::SecretString;
use url::Url;

use crate::budget::Budget;
use crate::catalogue::Catalogue;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result, Side};
use crate::net::limit::Pace;
use crate::net::{Answer, Auth, Call, Client, Login, MAX_LIST_BYTES, Request, Wire, exposed, join_path};
use crate::report::{Progress, Watch};
use crate::testing::Mutant;
use crate::transform::RowMap;
pub(crate) use cache::Cache;
use dedup::Duplicates;
use page::ProductPage;
#[cfg(feature = "testing")]
pub(crate) use page::fuzz;
use protocol::GroupList;
use row::RowReader;
pub(crate) use snapshot::ReadInfo;
use snapshot::{ReadScope, Snapshot, SnapshotBuilder};

/// Reads of everything before giving up on a catalogue that keeps changing.
pub(crate) const MAX_READS: u32 = 5;

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
    pub(crate) fn new(settings: SourceSettings, wire: Wire, clock: Clock) -> Result<Self> {
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
        let pace = Pace::per_second(settings.max_requests_per_second, settings.max_concurrency);
        let secrets = vec![settings.client_id.clone(), settings.client_secret.clone()];
        Ok(Self { client: Client::new(Side::Source, wire, clock, pace, auth, secrets), settings })
    }

    /// Calls since this was last asked, as (requests, retries, throttled).
    pub(crate) fn take_counters(&self) -> (u64, u64, u64) {
        self.client.counters.take()
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

    /// Reads everything that the pipeline needs, until a read is consistent; with a cache, only what changed since.
    pub(crate) async fn read(
        &self,
        budget: &Budget,
        map: &RowMap,
        cache: Option<Cache>,
        watch: &Watch,
    ) -> Result<(Catalogue, ReadInfo)> {
        if let Some(cache) = cache
            && let Some(read) = self.read_changes(budget, map, cache, watch).await?
        {
            return Ok(read);
        }
        self.read_all(budget, map, watch).await
    }

    /// Reads until a read is consistent, or until two reads in a row agree with each other and have as many rows as the
    /// total says: then the source really holds ids twice, and their rows are rejected like any other offender.
    async fn read_all(&self, budget: &Budget, map: &RowMap, watch: &Watch) -> Result<(Catalogue, ReadInfo)> {
        let mut last_signature = None;
        let mut last_why = String::new();
        for attempt in 1..=MAX_READS {
            let read = self.read_once(budget, map, watch).await?;
            let Some(why) = read.inconsistency else { return Ok((read.catalogue, read.info)) };
            if last_signature == Some(read.signature) && read.total == Some(read.rows) {
                tracing::warn!(
                    total = read.total,
                    distinct = read.distinct,
                    "two reads agree: the difference is the source's own"
                );
                return Ok((read.catalogue, read.info));
            }
            last_signature = Some(read.signature);
            last_why.clone_from(&why);
            tracing::warn!(attempt, %why, "the pages do not agree, reading again");
            watch(Progress::ReadingAgain { attempt: attempt + 1, why });
        }
        Err(Error::new(
            ErrorKind::InconsistentSource,
            format!(
                "source: {MAX_READS} reads in a row did not agree (the last: {last_why}); nothing was written"
            ),
        )
        .help("run again when the catalogue is not being edited"))
    }

    async fn read_once(&self, budget: &Budget, map: &RowMap, watch: &Watch) -> Result<Snapshot> {
        let groups = self.groups(budget).await?;
        let mut builder = SnapshotBuilder::new(&self.settings, map, &groups);
        let (mut began, mut pages) = (None, 0);
        if map.uses_products() {
            if builder.has_embedded_products() {
                builder.add_embedded()?;
            } else {
                pages = self.read_products(budget, map, &mut builder, watch).await?;
                began = groups.now.clone();
            }
        }
        Ok(builder.finish(ReadScope::Everything, began, pages))
    }

    async fn groups(&self, budget: &Budget) -> Result<GroupList> {
        if self.settings.base_url.scheme() == "file" {
            return groups_of_file(&self.settings.base_url);
        }
        let url = join_path(&self.settings.base_url, &self.settings.api);
        let build = |token: Option<&SecretString>| {
            bearer(Request::get(url.clone()).answered_by_at_most(MAX_LIST_BYTES), token)
        };
        self.client.call(budget, Call::new("groups"), build, protocol::groups).await
    }

    async fn page(
        &self,
        budget: &Budget,
        number: u64,
        filter: &[(&str, &str)],
        reader: RowReader<'_>,
    ) -> Result<ProductPage> {
        let (number, size) = (number.to_string(), self.settings.page_size.to_string());
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

    /// Reads all pages into the builder; returns their number.
    async fn read_products(
        &self,
        budget: &Budget,
        map: &RowMap,
        builder: &mut SnapshotBuilder<'_>,
        watch: &Watch,
    ) -> Result<u64> {
        self.read_pages(budget, map, &[], |page| {
            builder.add_page(&page)?;
            watch(Progress::Reading { read: builder.rows(), total: page.total });
            Ok(ControlFlow::Continue(()))
        })
        .await
    }

    /// Calls `take` with each page, in the order of the list rather than of arrival: it decides which of two rows with
    /// one id is the first. Returns the number of pages.
    async fn read_pages(
        &self,
        budget: &Budget,
        map: &RowMap,
        filter: &[(&str, &str)],
        mut take: impl FnMut(ProductPage) -> Result<ControlFlow<()>>,
    ) -> Result<u64> {
        let reader = RowReader::products(&map.product_columns);
        let first = self.page(budget, 1, filter, reader).await?;
        // A server that caps the page size counts its pages by its own size.
        let size = (first.rows.len() as u64).clamp(1, u64::from(self.settings.page_size));
        let total = first.total;
        if take(first)?.is_break() {
            return Ok(1);
        }
        let pages = total.div_ceil(size) - u64::from(Mutant::DropTheLastPage.is_active() && total > size);
        let mut answers = futures::stream::iter(2..=pages)
            .map(|number| self.page(budget, number, filter, reader))
            .buffered(self.settings.max_concurrency.max(1));
        while let Some(page) = answers.next().await {
            let page = page?;
            let is_past_the_end = page.rows.is_empty();
            // No page follows an empty one, even if the total promised more.
            if take(page)?.is_break() || is_past_the_end {
                break;
            }
        }
        Ok(pages)
    }
}

fn bearer(request: Request, token: Option<&SecretString>) -> Request {
    match token {
        Some(token) => request.bearer(token),
        None => request,
    }
}

/// The errors of a file name the file and never its content: it may be any file of the machine.
fn groups_of_file(url: &Url) -> Result<GroupList> {
    let fail = |kind: ErrorKind, why: String| Error::new(kind, format!("source file {url}: {why}"));
    let unreadable = |why: String| fail(ErrorKind::Unavailable(Side::Source), why);
    let path = url.to_file_path().map_err(|()| unreadable("is not a local path".to_owned()))?;
    let body = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    let answer = Answer { status: http::StatusCode::OK, headers: http::HeaderMap::new(), body: body.into() };
    protocol::groups(&answer, 0).map_err(|_| {
        fail(ErrorKind::BadAnswer(Side::Source), "is not an answer of OKKI's groups call".to_owned())
            .help("save the answer as OKKI sends it, as JSON")
    })
}
