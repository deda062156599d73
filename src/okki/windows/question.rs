//! What the source is asked about ranges of time: pages and totals.

use super::super::Okki;
use super::super::page::ProductPage;
use super::super::row::RowReader;
use super::times::{TimeAxis, TimeRange, to_text};
use crate::budget::Budget;
use crate::error::Result;
use crate::net::Call;
use crate::testing::Mutant;

/// Rows of a range, perhaps of one product type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    pub axis: TimeAxis,
    pub range: TimeRange,
    pub product_type: Option<u8>,
}

/// Asks the source in its own time.
#[derive(Clone, Copy)]
pub(in crate::okki) struct Asker<'a> {
    pub okki: &'a Okki,
    pub budget: &'a Budget,
    pub reader: RowReader<'a>,
    /// See `Ledger::start_shift_seconds`.
    pub start_shift_seconds: i64,
    /// See `Ledger::surplus`.
    pub surplus: u64,
}

impl Asker<'_> {
    /// One page of a question. An answer that refuses the filter is `NotSupported`: there is another way to read.
    pub(super) async fn page(&self, question: &Question, number: u64, size: u32) -> Result<ProductPage> {
        let Question { axis, range, product_type } = *question;
        // The mutant believes that the start of a range is left out.
        let shift = self.start_shift_seconds - i64::from(Mutant::HalfOpenBounds.is_active());
        let from = to_text(range.from.saturating_sub(shift));
        let to = range.to.map(to_text);
        let product_type = product_type.map(|kind| kind.to_string());
        let mut query = vec![("time_type", axis.time_type()), ("start_time", from.as_str())];
        query.extend(to.as_deref().map(|to| ("end_time", to)));
        query.extend(product_type.as_deref().map(|kind| ("product_type", kind)));
        let mut page = self.okki.page(self.budget, number, size, &query, self.reader).await?;
        page.total = page.total.saturating_sub(self.surplus);
        Ok(page)
    }

    /// How many rows a range holds, in a call of one row.
    pub(in crate::okki) async fn total(&self, axis: TimeAxis, range: TimeRange) -> Result<u64> {
        Ok(self.page(&Question { axis, range, product_type: None }, 1, 1).await?.total)
    }

    /// How many products the source holds, in a call of one row.
    pub(in crate::okki) async fn total_of_all(&self) -> Result<u64> {
        let query = [("start_index", "1"), ("count", "1")];
        let page = self.okki.list(self.budget, Call::new("products"), &query, self.reader).await?;
        Ok(page.total.saturating_sub(self.surplus))
    }

    /// What a range counts that shows no rows; `None` if it shows some.
    pub(in crate::okki) async fn total_of_nothing(&self, range: TimeRange) -> Result<Option<u64>> {
        let question = Question { axis: TimeAxis::Creation, range, product_type: None };
        let page = self.page(&question, 1, 1).await?;
        Ok(page.rows.is_empty().then_some(page.total))
    }
}
