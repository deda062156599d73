//! Reads one range of time, and proves that nothing of it was missed.
//!
//! People edit the catalogue while its pages are read: rows move between pages, come twice, or not at all. In a range
//! that lies in the past the rows stay the same ones, but for deletions. So this is a proof of its read:
//!
//! > Every answer gave the same total, and as many distinct rows came as the total says.
//!
//! A read that fits into one page needs no more than its answer: total and rows are of one moment. That is the floor
//! to which a doubt leads (`walk.rs`), and why reading always comes to an end.
//!
//! Rows whose times are equal come in another order in each answer, and an edited row jumps to the first page. Either
//! shows as a row that came twice, at the border of two pages, while another one is missing. Then a page that has the
//! border in its middle, or the first page, mends the read in a call or two ([`Proof::borders`]):
//!
//! ```text
//! page 3  … r298 r299 r300 │ page 4  r300 r302 …       r300 twice, r301 missing: both share a second
//! rows of 93 a page, page 4: r280 … r299 r301 r300 r302 …
//! ```
//!
//! Many products may share one second (an import), which cannot be split by time: see `second.rs`. Deliberately
//! absent: trusting the order of the list.

use std::collections::BTreeSet;

use futures::StreamExt as _;
use hashbrown::HashSet;

use super::super::page::ProductPage;
use super::question::{Asker, Question};
use crate::catalogue::id_hash;
use crate::error::Result;
use crate::testing::Mutant;

/// Calls that mend a window: this many, and two for each of its pages, as long as they bring rows.
const FEWEST_MENDING_CALLS: usize = 6;
/// Calls in a row that may bring nothing, even if few places are worth a look.
const FEWEST_VAIN_CALLS: usize = 3;
/// Rows of one second that are more pages than this are not mended by these pages.
const MOST_PAGES_OF_A_SECOND: u64 = 4;

/// What a range held.
#[derive(Debug)]
pub(in crate::okki) struct WindowRows {
    pub pages: Vec<ProductPage>,
    /// The source's total for the range.
    pub total: u64,
    /// Whether nothing was missed for sure.
    pub sure: bool,
    /// Whether a row may be in it more than once because it was read more than once.
    pub in_rounds: bool,
}

impl WindowRows {
    pub(super) fn whole(pages: Vec<ProductPage>, total: u64) -> Self {
        Self { pages, total, sure: true, in_rounds: false }
    }
}

#[derive(Debug)]
pub(super) enum WindowRead {
    Whole(WindowRows),
    /// It holds more rows than wanted; no more than the first page was read.
    TooMany(First),
    /// Its pages do not agree; the rest of it was not read.
    Doubtful(First),
}

/// What the first page of a range said.
#[derive(Debug, Clone, Copy)]
pub(super) struct First {
    pub total: u64,
    pub rows: u64,
}

/// The proof while it grows.
struct Proof {
    total: u64,
    rows: u64,
    distinct: u64,
    ids: HashSet<u64>,
    /// Pages that began with, or held, a row that an earlier page had.
    borders: BTreeSet<u64>,
}

impl Proof {
    fn of(total: u64) -> Self {
        Self { total, rows: 0, distinct: 0, ids: HashSet::new(), borders: BTreeSet::new() }
    }

    /// Takes a page that was asked for again: a row without an id may be one that was counted before.
    fn take_again(&mut self, page: &ProductPage) -> bool {
        for id in page.rows.iter().filter_map(|row| row.id.as_deref()) {
            self.rows += 1;
            self.distinct += u64::from(self.ids.insert(id_hash(id)));
        }
        page.total == self.total || Mutant::AcceptMovedTotal.is_active()
    }

    /// Takes a page; `false` if the total moved.
    fn take(&mut self, number: u64, page: &ProductPage) -> bool {
        for row in &page.rows {
            self.rows += 1;
            let is_new = row.id.as_deref().is_none_or(|id| self.ids.insert(id_hash(id)));
            self.distinct += u64::from(is_new);
            if !is_new {
                self.borders.insert(number);
            }
        }
        page.total == self.total || Mutant::AcceptMovedTotal.is_active()
    }

    fn is_whole(&self) -> bool {
        self.distinct == self.total || Mutant::AcceptMovedTotal.is_active()
    }

    /// More than a quarter came twice: rows without any order, which a few more pages would not mend.
    fn is_hopeless(&self) -> bool {
        (self.rows - self.distinct) * 4 > self.rows
    }
}

/// A page that has a border of pages of `size` in its middle: its size and number.
fn around(border: u64, size: u64) -> (u64, u64) {
    let at = border.saturating_sub(1) * size;
    let distance = |size: u64| (at % size).min(size - at % size);
    let best = (size / 2 + 1..=size).max_by_key(|size| distance(*size)).unwrap_or(size).max(1);
    (best, at / best + 1)
}

/// Reads a range unless it holds more than `at_most` rows. `page_size`: rows asked for at a time.
pub(super) async fn read(
    asker: &Asker<'_>,
    question: &Question,
    page_size: u32,
    at_most: u64,
) -> Result<WindowRead> {
    let first = asker.page(question, 1, page_size).await?;
    let (total, rows) = (first.total, first.rows.len() as u64);
    let said = First { total, rows };
    if rows == total {
        return Ok(WindowRead::Whole(WindowRows::whole(vec![first], total)));
    }
    if total > at_most {
        return Ok(WindowRead::TooMany(said));
    }
    let mut proof = Proof::of(total);
    if rows == 0 || rows > total || !proof.take(1, &first) {
        return Ok(WindowRead::Doubtful(said));
    }
    // A server that caps the page size counts its pages by its own size.
    let last = total.div_ceil(rows) - u64::from(Mutant::DropTheLastPage.is_active());
    let may_repeat = question.range.is_one_second() && last <= MOST_PAGES_OF_A_SECOND;
    let mut pages = vec![first];
    let mut answers = futures::stream::iter(2..=last)
        .map(|number| asker.page(question, number, page_size))
        .buffered(asker.okki.settings.max_concurrency.max(1));
    for number in 2.. {
        let Some(page) = answers.next().await else { break };
        let page = page?;
        if !proof.take(number, &page) || (proof.is_hopeless() && !may_repeat) {
            return Ok(WindowRead::Doubtful(said));
        }
        pages.push(page);
    }
    drop(answers);
    let is_whole =
        mend(asker, question, rows, &mut proof, &mut pages).await? || Mutant::DropTheLastPage.is_active();
    let in_rounds = proof.rows > total;
    Ok(match is_whole {
        // The mutant counts what it found: then no later total contradicts it.
        true if Mutant::AcceptMovedTotal.is_active() => {
            WindowRead::Whole(WindowRows::whole(pages, proof.distinct))
        }
        true => WindowRead::Whole(WindowRows { in_rounds, ..WindowRows::whole(pages, total) }),
        false => WindowRead::Doubtful(said),
    })
}

/// Asks for what is missing where rows came twice, as long as that is cheaper than reading anew; `false` if it does not
/// help.
async fn mend(
    asker: &Asker<'_>,
    question: &Question,
    page_size: u64,
    proof: &mut Proof,
    pages: &mut Vec<ProductPage>,
) -> Result<bool> {
    let places = places_to_mend(question, page_size, proof, pages.len() as u64);
    let most_calls = FEWEST_MENDING_CALLS + 2 * pages.len();
    let (mut vain, most_vain) = (0, places.len().max(FEWEST_VAIN_CALLS));
    for (size, number) in places.into_iter().cycle().take(most_calls) {
        if proof.is_whole() || vain == most_vain {
            break;
        }
        let before = proof.distinct;
        let page = asker.page(question, number, u32::try_from(size).unwrap_or(u32::MAX)).await?;
        if !proof.take_again(&page) {
            return Ok(false);
        }
        if proof.distinct == before {
            vain += 1;
        } else {
            vain = 0;
            pages.push(page);
        }
    }
    Ok(proof.is_whole())
}

/// The size and number of each page that may hold what is missing.
fn places_to_mend(question: &Question, page_size: u64, proof: &Proof, pages: u64) -> Vec<(u64, u64)> {
    if question.range.is_one_second() {
        // Its rows share one time, and have no order that a border could cut: any full page may hold any row.
        let full = if pages > MOST_PAGES_OF_A_SECOND { 0 } else { pages - 1 };
        return (1..=full).map(|number| (page_size, number)).collect();
    }
    let borders: Vec<u64> = proof.borders.iter().copied().filter(|border| *border > 1).collect();
    let around = borders.iter().map(|border| around(*border, page_size));
    let beside = borders.iter().flat_map(|border| [(page_size, *border), (page_size, border - 1)]);
    // The first page has the rows that were edited meanwhile.
    around.chain([(page_size, 1)]).chain(beside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_around_a_border_has_it_in_its_middle() {
        for (border, page_size) in [(2, 100), (3, 100), (9, 100), (4, 20), (5, 10)] {
            let (size, number) = around(border, page_size);
            let at = (border - 1) * page_size;
            let (first, end) = ((number - 1) * size, number * size);
            assert!(
                size <= page_size && first + page_size / 5 <= at && at + page_size / 5 <= end,
                "{border}"
            );
        }
        assert_eq!(around(2, 1).0, 1, "a page of one row has no middle");
    }
}
