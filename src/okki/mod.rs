//! OKKI: reads groups and products until a read is consistent, and hands over a clean catalogue.
//!
//! Only `GET` is sent, but for the token: OKKI's one host is production, whatever its name says. Pages overlap
//! while people edit the catalogue, so a read counts only if it holds as many distinct ids as the total says and
//! the total stayed the same; see [`Okki::read`]. Deliberately absent: writing, and the catalogue's images.

pub(crate) mod cache;
mod dedup;
mod json;
mod page;
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
use crate::net::{Answer, Auth, Call, Client, Login, Request, Wire, exposed, join_path};
use crate::report::{Progress, Watch};
use crate::testing::Mutant;
use crate::transform::{Columns, RowMap};
pub(crate) use cache::Cache;
use page::ProductPage;
use row::RowReader;
pub(crate) use snapshot::ReadInfo;
use snapshot::{Changes, Snapshot, SnapshotBuilder};

/// Reads at most so often before giving up on a catalogue that moves.
pub(crate) const MAX_READS: u32 = 5;
/// More changes than this are not kept in memory beside the cache: everything is read, page by page.
const MOST_CHANGES: u64 = 20_000;
/// Changes are read so often before everything is.
const CHANGE_READS: u32 = 2;

/// What the source needs to know.
#[derive(Debug, Clone)]
pub(crate) struct SourceSettings {
    /// Where OKKI is; `file:///sample.json` reads the groups (with their products) from a file instead.
    pub base_url: Url,
    /// Path of the groups call.
    pub api: String,
    /// Key of a group's id.
    pub id: String,
    /// Key of a group's display name.
    pub number: String,
    /// Whether ids are checked to be unique, the first staying.
    pub id_check: bool,
    /// Products per page.
    pub page_size: u32,
    /// Calls per second.
    pub max_requests_per_second: f64,
    /// Pages read side by side.
    pub max_concurrency: usize,
    /// Client id.
    pub client_id: SecretString,
    /// Client secret.
    pub client_secret: SecretString,
}

/// The source.
pub(crate) struct Okki {
    client: Client,
    settings: SourceSettings,
}

impl Okki {
    /// The source behind this wire.
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

    /// Calls made since the last time, as (requests, retries, throttled).
    pub(crate) fn take_counters(&self) -> (u64, u64, u64) {
        self.client.counters.take()
    }

    /// A new run: counters and the retry budget start afresh.
    pub(crate) fn start_run(&self) {
        self.client.start_run();
    }

    /// What a cache depends on: the fields that the pipeline names, and the source.
    pub(crate) fn cache_key(&self, map: &RowMap) -> String {
        let SourceSettings { base_url, id_check, .. } = &self.settings;
        let host = crate::net::stored_host(base_url);
        format!("{} {host}{} {id_check}", map.fingerprint(), base_url.path())
    }

    /// Reads everything that the pipeline needs, until a read is consistent; with a cache only what changed since.
    ///
    /// Two full reads in a row that agree with each other, and whose rows are as many as the total says, are the truth
    /// too: then ids really are there twice, and are rejected like any other offender.
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

    async fn read_all(&self, budget: &Budget, map: &RowMap, watch: &Watch) -> Result<(Catalogue, ReadInfo)> {
        let mut last: Option<(u64, u64)> = None;
        let mut doubts = String::new();
        for attempt in 1..=MAX_READS {
            let read = self.read_once(budget, map, watch).await?;
            let Some(doubt) = read.doubt else { return Ok((read.catalogue, read.info)) };
            if last == Some(read.signature) && read.total == Some(read.rows) {
                tracing::warn!(
                    total = read.total,
                    distinct = read.distinct,
                    "two reads agree: the difference is the source's own"
                );
                return Ok((read.catalogue, read.info));
            }
            last = Some(read.signature);
            doubts.clone_from(&doubt);
            tracing::warn!(attempt, why = %doubt, "the pages do not agree, reading again");
            watch(Progress::ReadingAgain { attempt: attempt + 1, why: doubt });
        }
        Err(Error::new(
            ErrorKind::InconsistentSource,
            format!(
                "source: {MAX_READS} reads in a row did not agree (the last: {doubts}); nothing was written; run again when the catalogue is not being edited"
            ),
        ))
    }

    async fn read_once(&self, budget: &Budget, map: &RowMap, watch: &Watch) -> Result<Snapshot> {
        let answer = self.groups_answer(budget).await?;
        let protocol::GroupList { rows, now: began } = protocol::groups(&answer, 0).map_err(as_error)?;
        let mut reading = SnapshotBuilder::new(&self.settings, map, &rows);
        if map.uses_products() {
            if reading.embedded.is_empty() {
                let pages = self.read_products(budget, &mut reading, watch).await?;
                reading.several_pages = pages > 1;
                reading.began = began;
            } else {
                reading.take_embedded()?;
            }
        }
        reading.finish()
    }

    async fn groups_answer(&self, budget: &Budget) -> Result<Answer> {
        if self.settings.base_url.scheme() == "file" {
            return read_file(&self.settings.base_url);
        }
        let url = join_path(&self.settings.base_url, &self.settings.api);
        self.client
            .call(
                budget,
                Call::new("groups"),
                |token| bearer(Request::get(url.clone()), token),
                |answer, now_ms| protocol::groups(answer, now_ms).map(|_| answer.clone()),
            )
            .await
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
        self.client
            .call(
                budget,
                call,
                |token| bearer(Request::get(url.clone()), token),
                |answer, now_ms| ProductPage::from_answer(answer, now_ms, reader),
            )
            .await
    }

    /// Whether products were created since this read began (by the source's own clock), in one call of one row. None if
    /// the source cannot say: it gives no time, or has no such filter.
    pub(crate) async fn grew_since(&self, budget: &Budget, read: &ReadInfo) -> Result<Option<bool>> {
        let Some(began) = &read.read_began else { return Ok(Some(false)) };
        let query = [("start_index", "1"), ("count", "1"), ("time_type", "2"), ("start_time", began)];
        let columns = Columns::default();
        let created =
            match self.list(budget, Call::new("products").optional(), &query, product_reader(&columns)).await
            {
                Ok(page) => page.total,
                Err(error) if matches!(error.kind, ErrorKind::NotSupported(_)) => {
                    tracing::debug!(error = %error.line(), "the source cannot be asked for new products");
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
        Ok((created == 0 || created < read.source_total).then_some(created > 0))
    }

    /// Reads all pages into the reading; gives back how many there were.
    async fn read_products(
        &self,
        budget: &Budget,
        reading: &mut SnapshotBuilder<'_>,
        watch: &Watch,
    ) -> Result<u64> {
        let map = reading.map;
        self.read_pages(budget, map, &[], |page| {
            reading.take_page(&page)?;
            watch(Progress::Reading { read: reading.rows_seen, total: page.total });
            Ok(ControlFlow::Continue(()))
        })
        .await
    }

    /// Hands over the pages of a list in their order, whatever order they arrive in: of rows with one id the first stays.
    async fn read_pages(
        &self,
        budget: &Budget,
        map: &RowMap,
        filter: &[(&str, &str)],
        mut take: impl FnMut(ProductPage) -> Result<ControlFlow<()>>,
    ) -> Result<u64> {
        let reader = product_reader(&map.product_columns);
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
            // Whatever the total promised: an empty page is followed by empty pages.
            if take(page)?.is_break() || is_past_the_end {
                break;
            }
        }
        Ok(pages)
    }

    /// Groups in full, products by the source's own clock, merged into the cache. None means: read everything.
    ///
    /// Deletions are not announced: the number of products that the source gives in one call of one row must be the
    /// number of rows that the cache comes to, else something is gone (or came without a new update time).
    async fn read_changes(
        &self,
        budget: &Budget,
        map: &RowMap,
        cache: Cache,
        watch: &Watch,
    ) -> Result<Option<(Catalogue, ReadInfo)>> {
        let Some(since) = cache.changes_since() else { return Ok(None) };
        let answer = self.groups_answer(budget).await?;
        let protocol::GroupList { rows, now } = protocol::groups(&answer, 0).map_err(as_error)?;
        let Some(began) = now else { return Ok(None) };
        for _ in 0..CHANGE_READS {
            let mut reading = SnapshotBuilder::new(&self.settings, map, &rows);
            if !reading.embedded.is_empty() {
                return Ok(None);
            }
            let mut changed = Changes::default();
            let filter = [("time_type", "1"), ("start_time", since.as_str())];
            let pages = self.read_pages(budget, map, &filter, |page| {
                changed.take(page);
                watch(Progress::Reading { read: changed.ids.len() as u64, total: changed.total });
                let too_many = changed.total > MOST_CHANGES;
                Ok(if too_many { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            });
            let all = match pages.await {
                Ok(_) if changed.total > MOST_CHANGES => return Ok(None),
                Ok(_) => self.page_of_one(budget, map).await?,
                Err(error) if matches!(error.kind, ErrorKind::NotSupported(_)) => {
                    tracing::info!(error = %error.line(), "the source cannot be asked for changes");
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            if !changed.is_consistent() {
                continue;
            }
            let cached = cache.count_except(&changed.ids) + changed.ids.len();
            if cached as u64 != all {
                tracing::info!(total = all, cached, "the cache and the source's total differ");
                continue;
            }
            reading.take_cached(cache, &changed)?;
            reading.total = Some(all);
            reading.began = Some(began);
            reading.full_read = false;
            reading.several_pages = changed.pages.len() > 1;
            let read = reading.finish()?;
            return Ok(read.doubt.is_none().then_some((read.catalogue, read.info)));
        }
        tracing::info!("reading all products");
        Ok(None)
    }

    async fn page_of_one(&self, budget: &Budget, map: &RowMap) -> Result<u64> {
        let query = [("start_index", "1"), ("count", "1")];
        Ok(self
            .list(budget, Call::new("products"), &query, product_reader(&map.product_columns))
            .await?
            .total)
    }
}

fn product_reader(columns: &Columns) -> RowReader<'_> {
    RowReader { columns, id: "product_id", name: "name", parent: "group_id", product: true }
}

fn bearer(request: Request, token: Option<&SecretString>) -> Request {
    match token {
        Some(token) => request.bearer(token),
        None => request,
    }
}

fn as_error(problem: crate::net::CallError) -> Error {
    Error::new(problem.kind, problem.message)
}

fn read_file(url: &Url) -> Result<Answer> {
    let unreadable =
        |why: String| Error::new(ErrorKind::Unavailable(Side::Source), format!("source file {url}: {why}"));
    let path = url.to_file_path().map_err(|()| unreadable("is not a local path".to_owned()))?;
    let body = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    Ok(Answer { status: http::StatusCode::OK, headers: http::HeaderMap::new(), body: body.into() })
}

/// Reads an answer in every way, for the fuzz targets.
#[cfg(feature = "testing")]
pub(crate) fn fuzz(answer: &Answer) {
    let _ = protocol::token(answer, 0);
    let columns = Columns::naming(["product_id", "name", "cost", "fob.price_min"]);
    let _ = ProductPage::from_answer(answer, 0, product_reader(&columns));
    page::fuzz(answer, product_reader(&columns));
    if let Ok(groups) = protocol::groups(answer, 0) {
        let reader = product_reader(&columns);
        groups.rows.into_iter().for_each(|row| drop(reader.read(row)));
    }
}
