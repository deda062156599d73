//! OKKI, the source: reads groups and products, and returns a clean catalogue.
//!
//! From the outside in: `protocol` (the wire format) and `page` (a page of products, on `row` and `json`) parse;
//! `read` decides which way a read goes: `reading` reads the products in `windows`, on top of a `cache`, with a `delta` and a
//! comparison of totals (`settle`); `whole` is the old way, where the source's filters cannot be believed. `snapshot` builds the catalogue of one read (on
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
mod read;
mod reading;
mod row;
mod sample;
mod sample_text;
mod search;
mod seen;
mod settle;
mod snapshot;
mod surplus;
mod totals;
mod tree;
mod whole;
mod windows;

use std::sync::Arc;

use secrecy::SecretString;
use url::Url;

use crate::budget::Budget;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result, Side};
use crate::net::limit::Pace;
use crate::net::{
    Answer, Auth, Call, Client, Counters, Login, MAX_LIST_BYTES, Request, Wire, exposed, join_path,
};
use crate::transform::RowMap;
use crate::words::{Message, say};
pub(crate) use cache::Cache;
use page::ProductPage;
#[cfg(feature = "testing")]
pub(crate) use page::fuzz;
use protocol::GroupList;
pub(crate) use read::{ReadInfo, ReadStart, Unfinished};
pub(crate) use reading::Keep;
use row::RowReader;
pub(crate) use sample::{RawRows, Sample};
use seen::Duplicates;
pub use totals::SourceTotals;
pub(crate) use whole::MAX_READS;

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
