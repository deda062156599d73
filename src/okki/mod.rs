//! OKKI: reads groups and products until a read is consistent, and hands over a clean catalogue.
//!
//! Only `GET` is sent, but for the token: OKKI's one host is production, whatever its name says. Pages overlap
//! while people edit the catalogue, so a read counts only if it holds as many distinct ids as the total says and
//! the total stayed the same; see [`Okki::read`]. Deliberately absent: writing, and the catalogue's images.

pub mod cache;
mod clean;
mod page;
mod wire;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use compact_str::CompactString;
use futures::StreamExt as _;
use secrecy::SecretString;
use serde_json::value::RawValue;
use tokio::time::Instant;
use url::Url;

use crate::client::{Auth, Budget, Call, Client, Pace, exposed};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result, Side};
use crate::http::{Answer, Request, Wire, at};
use crate::model::{
    Catalogue, PRODUCT_EXTRA_COLUMNS, PRODUCT_ID_COLUMN, RecordId, Rejected, RowKind, Table, TableFull,
    id_order,
};
use crate::mutants::Mutant;
use crate::pace::PerSecond;
use crate::report::{Progress, Watch};
use crate::transform::{Columns, RowMap};
pub use cache::Cache;
use cache::CachedRow;
use clean::SourceGroup;
use page::{ProductPage, ProductRow};
use wire::RowReader;

/// Reads at most so often before giving up on a catalogue that moves.
pub const MAX_READS: u32 = 5;
/// A total is only what a server says: no more room than for this is made in advance.
const MOST_ROWS_EXPECTED: usize = 2_000_000;
/// Changes are read so often before everything is.
const CHANGE_READS: u32 = 2;

/// What the source needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
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
pub struct Okki {
    client: Client,
    settings: Settings,
}

/// One attempt at reading everything.
struct Attempt {
    catalogue: Catalogue,
    total: Option<u64>,
    /// Distinct ids, and rows without one.
    distinct: u64,
    /// The same for two reads that saw the same ids.
    signature: (u64, u64),
    /// Why it does not count, if so.
    doubt: Option<String>,
}

impl Okki {
    /// The source behind this wire.
    pub fn new(settings: Settings, wire: Wire, clock: Clock) -> Result<Self> {
        let login = serde_json::json!({
            "grant_type": "client_credentials",
            "client_id": exposed(&settings.client_id),
            "client_secret": exposed(&settings.client_secret),
            "scope": "product",
        });
        let auth = Auth::Login {
            request: Request::post(at(&settings.base_url, "/v1/oauth2/access_token"), login.to_string())
                .safe_to_repeat(),
            read: wire::token,
        };
        let pace =
            Pace::PerSecond(PerSecond::new(settings.max_requests_per_second, settings.max_concurrency));
        let secrets = vec![settings.client_id.clone(), settings.client_secret.clone()];
        Ok(Self { client: Client::new(Side::Source, wire, clock, pace, auth, secrets), settings })
    }

    /// Calls made since the last time, as (requests, retries, throttled).
    pub fn take_counters(&self) -> (u64, u64, u64) {
        self.client.counters.take()
    }

    /// A new run: counters and the retry budget start afresh.
    pub fn start_run(&self) {
        self.client.start_run();
    }

    /// What a cache depends on: the fields that the pipeline names, and the source.
    pub fn cache_key(&self, map: &RowMap) -> String {
        let Settings { base_url, id_check, .. } = &self.settings;
        let host =
            if crate::http::is_loopback(base_url) { "local" } else { base_url.host_str().unwrap_or("") };
        format!("{} {host}{} {id_check}", map.fingerprint(), base_url.path())
    }

    /// Reads everything that the pipeline needs, until a read is consistent; with a cache only what changed since.
    ///
    /// Two full reads in a row that agree with each other are the truth too: then the difference between the total
    /// and the rows is the source's own (real duplicates), which are rejected like any other offender.
    pub async fn read(
        &self,
        budget: &Budget,
        map: &RowMap,
        cache: Option<Cache>,
        watch: &Watch,
    ) -> Result<Catalogue> {
        if let Some(cache) = cache
            && let Some(catalogue) = self.read_changes(budget, map, &cache, watch).await?
        {
            return Ok(catalogue);
        }
        self.read_all(budget, map, watch).await
    }

    async fn read_all(&self, budget: &Budget, map: &RowMap, watch: &Watch) -> Result<Catalogue> {
        let mut last: Option<(u64, u64)> = None;
        let mut doubts = String::new();
        for attempt in 1..=MAX_READS {
            let read = self.read_once(budget, map, watch).await?;
            let Some(doubt) = read.doubt else { return Ok(read.catalogue) };
            if last == Some(read.signature) {
                tracing::warn!(
                    total = read.total,
                    distinct = read.distinct,
                    "two reads agree: the difference is the source's own"
                );
                return Ok(read.catalogue);
            }
            last = Some(read.signature);
            doubts.clone_from(&doubt);
            tracing::warn!(attempt, why = %doubt, "the pages do not agree, reading again");
            watch(Progress::ReadingAgain { attempt: attempt + 1, why: doubt });
        }
        Err(Error::new(
            Kind::InconsistentSource,
            format!(
                "source: {MAX_READS} reads in a row did not agree (the last: {doubts}); nothing was written; run again when the catalogue is not being edited"
            ),
        ))
    }

    async fn read_once(&self, budget: &Budget, map: &RowMap, watch: &Watch) -> Result<Attempt> {
        let answer = self.groups_answer(budget).await?;
        let began = wire::server_time(&answer.body);
        let data = wire::data(&answer, 0).map_err(as_error)?;
        let rows = wire::groups(data).map_err(as_error)?;
        let mut reading = Reading::new(&self.settings, map, &rows);
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
        let url = at(&self.settings.base_url, &self.settings.api);
        self.client
            .call(
                budget,
                Call::new("groups"),
                |token| bearer(Request::get(url.clone()), token),
                |answer, now_ms| {
                    let data = wire::data(answer, now_ms)?;
                    wire::groups(data).map(|_| answer.clone())
                },
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
        self.list(budget, &query, reader).await
    }

    async fn list(
        &self,
        budget: &Budget,
        query: &[(&str, &str)],
        reader: RowReader<'_>,
    ) -> Result<ProductPage> {
        let mut url = at(&self.settings.base_url, "/v1/product/list");
        url.query_pairs_mut().extend_pairs(query);
        self.client
            .call(
                budget,
                Call::new("products"),
                |token| bearer(Request::get(url.clone()), token),
                |answer, now_ms| ProductPage::of_answer(answer, now_ms, reader),
            )
            .await
    }

    /// Whether products were created since this read began (by the source's own clock), in one call of one row.
    ///
    /// A server that cannot say (no time, no such filter) leaves it at what the pages said.
    pub async fn grew_since(&self, budget: &Budget, catalogue: &Catalogue) -> Result<bool> {
        let Some(began) = &catalogue.read_began else { return Ok(false) };
        let query = [("start_index", "1"), ("count", "1"), ("time_type", "2"), ("start_time", began)];
        let columns = Columns::default();
        let created = match self.list(budget, &query, product_reader(&columns)).await {
            Ok(page) => page.total,
            Err(error) if matches!(error.kind, Kind::BadAnswer(_)) => {
                tracing::debug!(error = %error.line(), "the source cannot be asked for new products");
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        Ok(created > 0 && created < catalogue.source_total.max(1))
    }

    /// Reads all pages into the reading; gives back how many there were.
    async fn read_products(&self, budget: &Budget, reading: &mut Reading<'_>, watch: &Watch) -> Result<u64> {
        let map = reading.map;
        self.read_pages(budget, map, &[], |page| {
            reading.take_page(&page)?;
            watch(Progress::Reading { read: reading.rows_seen, total: page.total });
            Ok(())
        })
        .await
    }

    /// Hands over the pages of a list in their order, whatever order they arrive in: of rows with one id the first stays.
    async fn read_pages(
        &self,
        budget: &Budget,
        map: &RowMap,
        filter: &[(&str, &str)],
        mut take: impl FnMut(ProductPage) -> Result<()>,
    ) -> Result<u64> {
        let reader = product_reader(&map.product_columns);
        let first = self.page(budget, 1, filter, reader).await?;
        // A server that caps the page size counts its pages by its own size.
        let size = (first.rows.len() as u64).clamp(1, u64::from(self.settings.page_size));
        let total = first.total;
        take(first)?;
        let pages = total.div_ceil(size) - u64::from(Mutant::DropTheLastPage.lives() && total > size);
        let mut answers = futures::stream::iter(2..=pages)
            .map(|number| self.page(budget, number, filter, reader))
            .buffered(self.settings.max_concurrency.max(1));
        while let Some(page) = answers.next().await {
            take(page?)?;
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
        cache: &Cache,
        watch: &Watch,
    ) -> Result<Option<Catalogue>> {
        let Some(since) = cache.changes_since() else { return Ok(None) };
        let answer = self.groups_answer(budget).await?;
        let Some(began) = wire::server_time(&answer.body) else { return Ok(None) };
        let rows = wire::groups(wire::data(&answer, 0).map_err(as_error)?).map_err(as_error)?;
        for _ in 0..CHANGE_READS {
            let mut reading = Reading::new(&self.settings, map, &rows);
            if !reading.embedded.is_empty() {
                return Ok(None);
            }
            let mut changed = Changes::default();
            let filter = [("time_type", "1"), ("start_time", since.as_str())];
            self.read_pages(budget, map, &filter, |page| {
                changed.take(page);
                watch(Progress::Reading { read: changed.ids.len() as u64, total: changed.total });
                Ok(())
            })
            .await?;
            let all = self.page_of_one(budget, map).await?;
            if !changed.is_consistent() {
                continue;
            }
            reading.take_cached(cache, &changed)?;
            if reading.distinct == all {
                reading.total = Some(all);
                reading.began = Some(began);
                reading.full_read = false;
                reading.several_pages = changed.pages.len() > 1;
                return Ok(Some(reading.finish()?.catalogue));
            }
            tracing::info!(total = all, cached = reading.distinct, "the cache and the source's total differ");
        }
        tracing::info!("reading all products");
        Ok(None)
    }

    async fn page_of_one(&self, budget: &Budget, map: &RowMap) -> Result<u64> {
        let query = [("start_index", "1"), ("count", "1")];
        Ok(self.list(budget, &query, product_reader(&map.product_columns)).await?.total)
    }
}

/// The pages of products that changed.
#[derive(Default)]
struct Changes {
    pages: Vec<ProductPage>,
    ids: HashSet<CompactString>,
    total: u64,
    rows: u64,
    moved: bool,
}

impl Changes {
    fn take(&mut self, page: ProductPage) {
        self.moved |= !self.pages.is_empty() && self.total != page.total;
        self.total = page.total;
        self.rows += page.rows.len() as u64;
        self.ids.extend(page.rows.iter().filter_map(|row| row.id.clone()));
        self.pages.push(page);
    }

    /// As many different ids as rows as the total says.
    fn is_consistent(&self) -> bool {
        !self.moved && self.rows == self.total && self.ids.len() as u64 == self.total
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

fn as_error(problem: crate::client::Problem) -> Error {
    Error::new(problem.kind, problem.message)
}

fn read_file(url: &Url) -> Result<Answer> {
    let unreadable =
        |why: String| Error::new(Kind::Unavailable(Side::Source), format!("source file {url}: {why}"));
    let path = url.to_file_path().map_err(|()| unreadable("is not a local path".to_owned()))?;
    let body = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    Ok(Answer { status: http::StatusCode::OK, headers: http::HeaderMap::new(), body: body.into() })
}

/// Collects one read.
struct Reading<'a> {
    map: &'a RowMap,
    id_check: bool,
    groups: Vec<crate::model::Group>,
    group_of: HashMap<RecordId, u32>,
    quarantined_groups: Vec<RecordId>,
    group_cells: Table,
    product_cells: Table,
    /// The group of each product row; `GONE` where a later row took its place.
    product_group: Vec<u32>,
    seen: HashMap<CompactString, u32>,
    rejected: Vec<Rejected>,
    held_products: Vec<RecordId>,
    deleted: u64,
    rows_seen: u64,
    without_id: u64,
    signature: u64,
    total: Option<u64>,
    total_moved: Option<(u64, u64)>,
    began: Option<String>,
    several_pages: bool,
    full_read: bool,
    /// Distinct ids, and rows without one.
    distinct: u64,
    /// Rows that the cache does not hold as they are now.
    fresh: u64,
    /// Whether each row has an id of its own: only then can changes be merged into the table.
    unique: bool,
    embedded: Vec<(RecordId, &'a RawValue)>,
    cleaned_in: Duration,
}

fn full_table(full: TableFull) -> Error {
    Error::new(Kind::BadAnswer(Side::Source), format!("source: {full}"))
}

/// A row that was replaced, or that never became a product.
const GONE: u32 = u32::MAX;

impl<'a> Reading<'a> {
    fn new(settings: &'a Settings, map: &'a RowMap, rows: &[&'a RawValue]) -> Self {
        let started = Instant::now();
        let id = crate::transform::canonical_group_key(&settings.id);
        let name = crate::transform::canonical_group_key(&settings.number);
        let reader = RowReader { columns: &map.group_columns, id, name, parent: "parent_id", product: false };
        let mut rejected = Vec::new();
        let mut source = Vec::with_capacity(rows.len());
        let mut cells = Vec::with_capacity(rows.len());
        let mut embedded = Vec::new();
        for raw in rows {
            match reader.read(raw) {
                Ok(row) => {
                    if let (Some(id), Some(products)) = (&row.id, row.products) {
                        embedded.push((RecordId::from(id.as_str()), products));
                    }
                    source.push(SourceGroup {
                        id: row.id,
                        name: row.name,
                        parent: row.parent,
                        raw: raw.get().to_owned(),
                    });
                    cells.push(row.cells);
                }
                Err(why) => rejected.push(Rejected::new(RowKind::Group, None, why, raw.get())),
            }
        }
        let tree = clean::tree(&source, settings.id_check);
        rejected.extend(tree.rejected);
        let mut group_cells = Table::new(map.group_columns.len());
        let mut groups = Vec::with_capacity(tree.groups.len());
        for (at, group) in tree.groups {
            // 5,000 groups are far below the table's 4 GiB; a full table shows itself with the products.
            let row = cells.get(at).map_or(&[][..], Vec::as_slice);
            let _ = group_cells.push(row.iter().map(|cell| cell.as_deref().unwrap_or("")));
            groups.push(group);
        }
        let group_of =
            groups.iter().zip(0..).map(|(group, at)| (group.id.clone(), at)).collect::<HashMap<_, _>>();
        let quarantined_groups = rejected
            .iter()
            .filter_map(|r| r.id.as_deref().map(RecordId::from))
            .filter(|id| !group_of.contains_key(id))
            .collect();
        Self {
            map,
            id_check: settings.id_check,
            groups,
            group_of,
            quarantined_groups,
            group_cells,
            product_cells: Table::new(map.product_columns.len() + PRODUCT_EXTRA_COLUMNS),
            product_group: Vec::new(),
            seen: HashMap::new(),
            rejected,
            held_products: Vec::new(),
            deleted: 0,
            rows_seen: 0,
            without_id: 0,
            signature: 0,
            total: None,
            total_moved: None,
            began: None,
            several_pages: false,
            full_read: true,
            distinct: 0,
            fresh: 0,
            unique: true,
            embedded,
            cleaned_in: started.elapsed(),
        }
    }

    fn take_page(&mut self, page: &ProductPage) -> Result<()> {
        let started = Instant::now();
        match self.total {
            Some(total) if total != page.total => self.total_moved = Some((total, page.total)),
            _ => self.total = Some(page.total),
        }
        if self.product_cells.is_empty() {
            self.expect(page);
        }
        self.take_rows(page, None)?;
        self.cleaned_in += started.elapsed();
        Ok(())
    }

    /// The first page tells how much room all of them will take.
    fn expect(&mut self, first: &ProductPage) {
        let total = usize::try_from(first.total).unwrap_or(0).min(MOST_ROWS_EXPECTED);
        let group_id_bytes = 12;
        let row_bytes = first.bytes().div_ceil(first.rows.len().max(1)) + group_id_bytes;
        self.product_cells.reserve(total, total.saturating_mul(row_bytes).saturating_mul(21) / 20);
        self.product_group.reserve(total);
        self.seen.reserve(total);
    }

    /// The document's sample: each group brings its own products.
    fn take_embedded(&mut self) -> Result<()> {
        for (group, list) in std::mem::take(&mut self.embedded) {
            let rows: Vec<&RawValue> = serde_json::from_str(list.get()).map_err(|_| {
                Error::new(
                    Kind::BadAnswer(Side::Source),
                    format!("source: products of group {group} are not a list"),
                )
            })?;
            let reader = product_reader(&self.map.product_columns);
            self.take_rows(&ProductPage::of_rows(0, &rows, reader), Some(&group))?;
        }
        Ok(())
    }

    fn take_rows(&mut self, page: &ProductPage, group: Option<&RecordId>) -> Result<()> {
        for (at, row) in page.rows.iter().enumerate() {
            self.take_product(page, at, row, group)?;
        }
        Ok(())
    }

    fn take_product(
        &mut self,
        page: &ProductPage,
        at: usize,
        row: &ProductRow,
        group: Option<&RecordId>,
    ) -> Result<()> {
        self.rows_seen += 1;
        self.fresh += 1;
        let Some(id) = &row.id else {
            (self.without_id, self.distinct) = (self.without_id + 1, self.distinct + 1);
            self.unique = false;
            let why = row.unreadable.clone().unwrap_or_else(|| "product_id is missing or blank".to_owned());
            self.rejected.push(Rejected::new(RowKind::Product, None, why, &page.raw(at)));
            return Ok(());
        };
        let place = u32::try_from(self.product_group.len()).unwrap_or(GONE);
        match self.seen.entry(id.clone()) {
            Entry::Occupied(_) if self.id_check => {
                self.unique = false;
                let reason = format!("product_id {id} is repeated; the first row stays");
                let raw = page.raw(at);
                self.rejected.push(Rejected::new(RowKind::Product, Some(id.to_string()), reason, &raw));
                return Ok(());
            }
            Entry::Occupied(mut first) => {
                self.unique = false;
                if let Some(group) = self.product_group.get_mut(*first.get() as usize) {
                    *group = GONE;
                }
                first.insert(place);
            }
            Entry::Vacant(vacant) => {
                self.signature = self.signature.wrapping_add(xxhash_rust::xxh3::xxh3_64(id.as_bytes()));
                self.distinct += 1;
                vacant.insert(place);
            }
        }
        let cell = |column: usize| if column == 0 { id.as_str() } else { page.cells.cell(at, column) };
        let of = match self.map.product_misfit(id, cell) {
            _ if row.deleted => self.count_deleted(),
            Some(reason) => self.quarantine_product(id, reason, page.raw(at)),
            None => self.group_for(row, id, group, page, at),
        };
        self.product_group.push(of);
        let named = self.map.product_columns.len();
        // A row that goes nowhere keeps its place in the table and of its bytes what the cache must know.
        let status = match of {
            GONE if row.deleted => cache::DELETED.to_owned(),
            GONE => format!("{}{}", cache::REJECTED, page.raw(at)),
            _ => String::new(),
        };
        let cells = (0..named).map(|column| if of == GONE && column > 0 { "" } else { cell(column) });
        let group = if of == GONE { "" } else { row.group.as_deref().unwrap_or("") };
        self.product_cells.push(cells.chain([group, &status])).map_err(full_table)
    }

    /// Takes the cache's rows, but for those that changed, and then these.
    fn take_cached(&mut self, cache: &Cache, changed: &Changes) -> Result<()> {
        let started = Instant::now();
        let known: HashMap<&str, CachedRow<'_>> =
            cache.rows_only(&changed.ids).map(|row| (row.cell(PRODUCT_ID_COLUMN), row)).collect();
        for row in cache.rows_except(&changed.ids) {
            self.take_cached_row(row)?;
        }
        for page in &changed.pages {
            let before = self.product_cells.len();
            self.take_rows(page, None)?;
            // Read once more because of the overlap, and as it was.
            let same = (before..self.product_cells.len())
                .filter(|at| {
                    let id = self.product_cells.cell(*at, PRODUCT_ID_COLUMN);
                    known.get(id).is_some_and(|row| row.cells().eq(self.product_cells.row(*at)))
                })
                .count();
            self.fresh -= same as u64;
        }
        self.cleaned_in += started.elapsed();
        Ok(())
    }

    fn take_cached_row(&mut self, row: CachedRow<'_>) -> Result<()> {
        let (group, status) = row.group_and_status();
        if let Some(raw) = status.strip_prefix(cache::REJECTED) {
            // Judged anew: what stood in its way may be gone.
            let Ok(raw) = serde_json::from_str::<&RawValue>(raw) else { return Ok(()) };
            let page = ProductPage::of_rows(0, &[raw], product_reader(&self.map.product_columns));
            self.take_rows(&page, None)?;
            self.fresh -= 1;
            return Ok(());
        }
        self.rows_seen += 1;
        self.distinct += 1;
        let of = match self.group_of.get(group) {
            _ if status == cache::DELETED => self.count_deleted(),
            Some(&at) => at,
            None => {
                let id = RecordId::from(row.cell(PRODUCT_ID_COLUMN));
                let cells: Vec<&str> = row.cells().skip(1).take(self.map.product_columns.len() - 1).collect();
                let raw = crate::plan::kept_fields(&[("product_id", &id), ("group_id", group)], &cells);
                let reason = self.no_group(&id, group);
                self.quarantine_product(&id, reason, raw)
            }
        };
        self.product_group.push(of);
        self.product_cells.push(row.cells()).map_err(full_table)
    }

    fn quarantine_product(&mut self, id: &RecordId, reason: String, raw: String) -> u32 {
        self.held_products.push(id.clone());
        self.rejected.push(Rejected::new(RowKind::Product, Some(id.to_string()), reason, &raw));
        GONE
    }

    fn count_deleted(&mut self) -> u32 {
        self.deleted += 1;
        GONE
    }

    /// The index of a product's group, or `GONE` with the product rejected.
    fn group_for(
        &mut self,
        row: &ProductRow,
        id: &RecordId,
        embedded_in: Option<&RecordId>,
        page: &ProductPage,
        at: usize,
    ) -> u32 {
        let reason = match (row.named, embedded_in.or(row.group.as_ref())) {
            (false, _) => format!("name of product {id} is missing or blank"),
            (_, None) => format!("product {id} names no group"),
            (_, Some(group)) => match self.group_of.get(group) {
                Some(&at) => return at,
                None => self.no_group(id, group),
            },
        };
        self.quarantine_product(id, reason, page.raw(at))
    }

    fn no_group(&self, id: &str, group: &str) -> String {
        if self.quarantined_groups.iter().any(|quarantined| quarantined == group) {
            format!("group {group} of product {id} is in the quarantine")
        } else {
            format!("group {group} of product {id} is unknown")
        }
    }

    fn finish(self) -> Result<Attempt> {
        let distinct = self.distinct;
        let doubt = match (self.total, self.total_moved) {
            (_, Some((before, after))) => {
                Some(format!("the total moved from {before} to {after} while reading"))
            }
            (Some(total), None) if total != distinct => {
                Some(format!("the total says {total} products, the pages held {distinct} different ones"))
            }
            _ => None,
        };
        let total = self.total_moved.map(|(_, after)| after).or(self.total);
        let mut products_of = vec![Vec::new(); self.groups.len()];
        for (&group, product) in self.product_group.iter().zip(0_u32..) {
            if let Some(products) = products_of.get_mut(group as usize) {
                products.push(product);
            }
        }
        for products in &mut products_of {
            // By id, so that the same content gives the same row in whatever order the pages came.
            products.sort_unstable_by(|&a, &b| {
                let id = |row: u32| self.product_cells.cell(row as usize, crate::model::PRODUCT_ID_COLUMN);
                id_order(id(a), id(b))
            });
        }
        let held = if self.map.per_product() { self.held_products } else { self.quarantined_groups };
        let catalogue = Catalogue {
            groups: self.groups,
            group_cells: self.group_cells,
            product_cells: self.product_cells,
            products_of,
            rejected: self.rejected,
            held,
            deleted_products: self.deleted,
            cursor: self.began.clone().filter(|_| self.unique),
            read_began: self.began.filter(|_| self.several_pages && self.full_read),
            full_read: self.full_read,
            fresh_products: self.fresh,
            worth_keeping: self.fresh > 0 || self.several_pages,
            source_total: total.unwrap_or(0),
            cleaned_in: self.cleaned_in,
        };
        Ok(Attempt { catalogue, total, distinct, signature: (self.signature, total.unwrap_or(0)), doubt })
    }
}

/// Reads an answer in every way, for the fuzz targets.
#[cfg(fuzzing)]
pub fn fuzz(answer: &Answer) {
    let _ = wire::token(answer, 0);
    let _ = wire::server_time(&answer.body);
    let columns = Columns::naming(["product_id", "name", "cost", "fob.price_min"]);
    let _ = ProductPage::of_answer(answer, 0, product_reader(&columns));
    if let Ok(data) = wire::data(answer, 0) {
        let reader = product_reader(&columns);
        wire::groups(data).into_iter().flatten().for_each(|row| drop(reader.read(row)));
    }
}
