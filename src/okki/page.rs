//! A page of products, read straight into the columns that the pipeline names.
//!
//! The fast path reads a well-formed page in one pass, without building a tree of it. Anything else falls back to the
//! slow path (`protocol.rs`, then one row after the other), which reports the error and keeps the good rows:
//!
//! - an HTTP error, a failing body code, `error`, or a key with escapes in the envelope;
//! - no list, or no total; a total that is not a number;
//! - a row that is not an object; text that is not JSON.
//!
//! Where the fast path accepts a page, the slow path returns the same rows: a property test and a fuzz target check it.

use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;
use compact_str::CompactString;
use serde_json::value::RawValue;

use super::json::JsonCursor;
use super::protocol;
use super::row::{Row, RowReader};
use crate::catalogue::{Table, TableFull};
use crate::net::{Answer, CallError};

/// One product of a page; its cells are in the page's table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProductRow {
    /// `None` if missing or blank.
    pub id: Option<CompactString>,
    /// Whether it has a name that is not blank.
    pub named: bool,
    pub group: Option<CompactString>,
    /// `enable_flag` is 0.
    pub deleted: bool,
    /// Why the row cannot be read; `None` if it was read.
    pub unreadable: Option<String>,
}

#[derive(Debug)]
pub(super) struct ProductPage {
    /// The total that the source gives.
    pub total: u64,
    pub rows: Vec<ProductRow>,
    /// The cells of each row; column 0 is the id as the source sent it.
    pub cells: Table,
    text: PageText,
}

/// Where the raw JSON of a row is found when it goes into the quarantine, which few rows do.
#[derive(Debug)]
enum PageText {
    /// The body of the answer; where each row is in it is found out when the first one is needed.
    Body(Bytes, OnceLock<Vec<Range<usize>>>),
    Rows(Vec<String>),
}

impl ProductPage {
    pub(super) fn from_answer(
        answer: &Answer,
        now_ms: u64,
        reader: RowReader<'_>,
    ) -> Result<Self, CallError> {
        if answer.status.is_success()
            && let Some(page) = fast_path(&answer.body, reader)
        {
            return Ok(page);
        }
        let page = protocol::page(protocol::data(answer, now_ms)?)?;
        Ok(Self::from_rows(page.total, &page.rows, reader))
    }

    /// The slow path for the rows.
    pub(super) fn from_rows(total: u64, raw: &[&RawValue], reader: RowReader<'_>) -> Self {
        let mut page = Self {
            total,
            rows: Vec::with_capacity(raw.len()),
            cells: Table::new(reader.columns.len()),
            text: PageText::Rows(raw.iter().map(|raw| raw.get().to_owned()).collect()),
        };
        for raw in raw {
            match reader.read(raw.get()) {
                Ok(row) => {
                    // A page is far below the table's 4 GiB.
                    let _ = page.add(&row);
                }
                Err(why) => {
                    let _ = page.cells.push([]);
                    page.rows.push(ProductRow {
                        id: None,
                        named: false,
                        group: None,
                        deleted: false,
                        unreadable: Some(why),
                    });
                }
            }
        }
        page
    }

    /// Bytes of its cells.
    pub(super) fn bytes(&self) -> usize {
        self.cells.parts().0.len()
    }

    fn add_list<'a>(&mut self, cursor: &mut JsonCursor<'a>, reader: RowReader<'_>) -> Option<()> {
        let mut rows = reader.sequence();
        // A row has about 800 bytes, of which a pipeline names a tenth.
        let bytes = cursor.remaining();
        self.rows.reserve(bytes / 512);
        self.cells.reserve(bytes / 512, bytes / 8);
        cursor.list(|cursor| self.add(rows.read(cursor)?).ok())
    }

    fn add(&mut self, row: &Row<'_>) -> Result<(), TableFull> {
        self.cells.push(row.cells.iter().copied())?;
        self.rows.push(ProductRow {
            id: row.id.as_deref().map(CompactString::from),
            named: row.name.is_some(),
            group: row.parent.as_deref().map(CompactString::from),
            deleted: row.deleted,
            unreadable: None,
        });
        Ok(())
    }

    /// The raw JSON of a row, for the quarantine.
    pub(super) fn raw(&self, at: usize) -> String {
        match &self.text {
            PageText::Rows(rows) => rows.get(at).cloned().unwrap_or_default(),
            PageText::Body(body, places) => {
                let places = places.get_or_init(|| protocol::places_of_rows(body));
                let raw = places.get(at).and_then(|place| body.get(place.clone())).unwrap_or(b"");
                String::from_utf8_lossy(raw).into_owned()
            }
        }
    }
}

fn fast_path(body: &Bytes, reader: RowReader<'_>) -> Option<ProductPage> {
    let mut page = ProductPage {
        total: 0,
        rows: Vec::new(),
        cells: Table::new(reader.columns.len()),
        text: PageText::Body(body.clone(), OnceLock::new()),
    };
    let (mut count, mut total_item, mut found_rows) = (None, None, false);
    let mut cursor = JsonCursor::new(std::str::from_utf8(body).ok()?);
    cursor.object(|cursor, key| match key {
        "\"code\"" => protocol::is_success(cursor.value()?).then_some(()),
        "\"data\"" => cursor.object(|cursor, key| match key {
            "\"count\"" => set_total(&mut count, cursor.value()?),
            "\"totalItem\"" => set_total(&mut total_item, cursor.value()?),
            "\"list\"" if !found_rows => {
                found_rows = true;
                page.add_list(cursor, reader)
            }
            _ => protocol::skip_field(cursor, key),
        }),
        _ => protocol::skip_field(cursor, key),
    })?;
    cursor.expect_end()?;
    page.total = total_item.or(count)?;
    found_rows.then_some(page)
}

/// Reads a total: a non-negative integer, possibly quoted, or `null`. `None`: it is neither, and the page takes the slow
/// path.
fn set_total(total: &mut Option<u64>, raw: &str) -> Option<()> {
    *total = match raw {
        "null" => None,
        _ => Some(raw.trim_matches('"').parse().ok()?),
    };
    Some(())
}

/// Reads an answer as each call would, for the fuzz targets.
#[cfg(feature = "testing")]
pub(crate) fn fuzz(answer: &Answer) {
    let columns = crate::transform::Columns::naming(["product_id", "name", "cost", "fob.price_min"]);
    let reader = RowReader::products(&columns);
    let _ = protocol::token(answer, 0);
    let _ = ProductPage::from_answer(answer, 0, reader);
    fuzz_paths(answer, reader);
    if let Ok(groups) = protocol::groups(answer, 0) {
        groups.rows().for_each(|row| drop(reader.read(row)));
    }
}

/// Checks that the slow path returns the same rows whenever the fast path accepts a page.
#[cfg(feature = "testing")]
fn fuzz_paths(answer: &Answer, reader: RowReader<'_>) {
    let Some(fast) = fast_path(&answer.body, reader) else { return };
    assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&answer.body).is_ok());
    let Ok(page) = protocol::data(answer, 0).and_then(protocol::page) else { return };
    let slow = ProductPage::from_rows(page.total, &page.rows, reader);
    assert_eq!((fast.total, fast.rows), (slow.total, slow.rows));
    assert_eq!(fast.cells.parts(), slow.cells.parts());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::transform::Columns;

    fn both(body: &str) -> (Option<ProductPage>, Result<ProductPage, CallError>) {
        let columns = Columns::naming(["product_id", "name", "cost", "fob.price_min"]);
        let reader = RowReader::products(&columns);
        let body = Bytes::from(body.to_owned());
        let answer = Answer { status: http::StatusCode::OK, headers: http::HeaderMap::new(), body };
        let slow = protocol::data(&answer, 0)
            .and_then(protocol::page)
            .map(|page| ProductPage::from_rows(page.total, &page.rows, reader));
        (fast_path(&answer.body, reader), slow)
    }

    #[test]
    fn fast_and_slow_path_see_the_same() {
        for body in [
            r#"{"code":200,"message":"ok","now":"2026-11-23 10:00:00","data":{"count":2,"list":[{"product_id":1,"name":"手机","group_id":"7","cost":2999.10,"fob":{"price_min":"1"},"x":[1,{}]},{"product_id":"2","name":" ","enable_flag":0,"cost":null}]}}"#,
            r#"{"data":{"list":[],"totalItem":"0","count":9}}"#,
            r#"{"code":"0","data":{"count":1,"list":[{"name":"\"esc\\u4e2d","product_id":"a","name":"twice"}]}}"#,
        ] {
            let (fast, slow) = both(body);
            let (fast, slow) = (fast.unwrap(), slow.unwrap());
            assert_eq!((fast.total, &fast.rows), (slow.total, &slow.rows), "{body}");
            for row in 0..fast.rows.len() {
                assert_eq!(fast.raw(row), slow.raw(row));
                for column in 0..4 {
                    assert_eq!(fast.cells.cell(row, column), slow.cells.cell(row, column), "{body}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Rows that resemble each other in every way: keys missing, in another order or twice, values that begin alike.
        #[test]
        fn rows_of_a_sequence_are_what_each_is_alone(rows in prop::collection::vec(row(), 0..6)) {
            let body = format!(r#"{{"data":{{"count":{},"list":[{}]}}}}"#, rows.len(), rows.join(","));
            let (fast, slow) = both(&body);
            let (fast, slow) = (fast.unwrap(), slow.unwrap());
            prop_assert_eq!(&fast.rows, &slow.rows);
            prop_assert_eq!(fast.cells.parts(), slow.cells.parts());
        }
    }

    fn row() -> impl Strategy<Value = String> {
        let key = prop::sample::select(vec!["product_id", "name", "x", "cost", "y", "group_id", "fob", "z"]);
        let value =
            prop::sample::select(vec!["1", "10", "\"\"", "\"1\"", "[]", "[1]", "null", r#"{"price_min":1}"#]);
        let spelling = prop::sample::select(vec!["", " "]);
        let member =
            (key, spelling, value).prop_map(|(key, space, value)| format!("\"{key}\":{space}{value}"));
        prop::collection::vec(member, 0..9).prop_map(|members| format!("{{{}}}", members.join(",")))
    }

    #[test]
    fn malformed_pages_take_the_slow_path() {
        for body in [
            r#"{"code":500,"data":{"count":0,"list":[]}}"#,
            r#"{"data":{"count":0,"list":[]},"code":404}"#,
            r#"{"error":"access_denied","data":{"count":0,"list":[]}}"#,
            r#"{"data":{"list":[]}}"#,
            r#"{"data":{"count":1}}"#,
            r#"{"data":[]}"#,
            r#"{"data":{"count":2,"list":[{"product_id":1},7]}}"#,
            r#"{"data":{"count":0,"list":[]}} trailing"#,
            "<html>",
        ] {
            assert!(both(body).0.is_none(), "{body}");
        }
        let (_, slow) = both(r#"{"data":{"count":2,"list":[{"product_id":1},7]}}"#);
        assert!(slow.unwrap().rows.last().unwrap().unreadable.is_some());
    }
}
