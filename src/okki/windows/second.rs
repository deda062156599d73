//! Reads one second that holds more than a page, and whose pages do not agree: no shorter range of time is left to split it
//! into.

use hashbrown::HashSet;
use tokio::time::Instant;

use super::super::page::ProductPage;
use super::question::{Asker, Question};
use super::times::TimeAxis;
use super::window::{WindowRead, WindowRows, read};
use crate::catalogue::id_hash;
use crate::error::Result;

/// The largest page that is asked for when one second holds more than the usual one.
const LARGEST_PAGE: u32 = 1_000;
/// OKKI's product types: plain, with variants, bundle.
const PRODUCT_TYPES: [u8; 3] = [1, 2, 3];
/// Reads of one second whose pages never agree, put together, before what they brought is taken as it is.
const MAX_ROUNDS: u32 = 16;
/// Rounds in a row without a new row: the difference is the source's own. (Where ties have no order, a round leaves out a
/// certain row with a chance of e⁻¹: eight rounds in a row do so once in three thousand times.)
const QUIET_ROUNDS: u32 = 8;
/// The same where they have taken longer than the run has left: a run that reads on for certainty comes to no end.
const QUIET_ROUNDS_IN_HASTE: u32 = 4;
/// Fewer rows than this come in the same order by chance: once in 300,000 times are eight alike where the order is random.
const FEWEST_ROWS_OF_AN_ORDER: usize = 8;

/// Reads one second whose pages did not agree: in one larger page; by product type; at last by reading it again and
/// again, until what came together is as many rows as the total says.
pub(super) async fn read_second(
    asker: &Asker<'_>,
    question: &Question,
    page_size: u32,
) -> Result<WindowRows> {
    if let WindowRead::Whole(rows) = read(asker, question, LARGEST_PAGE.max(page_size), 0).await? {
        return Ok(rows);
    }
    if let Some(rows) = read_by_type(asker, question, page_size).await? {
        return Ok(rows);
    }
    read_in_rounds(asker, question, page_size).await
}

/// `None` unless each type can be read whole and all of them make up the total.
async fn read_by_type(asker: &Asker<'_>, question: &Question, page_size: u32) -> Result<Option<WindowRows>> {
    let mut all = WindowRows::whole(Vec::new(), 0);
    for product_type in PRODUCT_TYPES {
        let part = Question { product_type: Some(product_type), ..*question };
        let larger = read(asker, &part, LARGEST_PAGE.max(page_size), 0).await?;
        let part = match larger {
            WindowRead::Whole(rows) => rows,
            _ => match read(asker, &part, page_size, u64::MAX).await? {
                WindowRead::Whole(rows) => rows,
                _ => return Ok(None),
            },
        };
        all.total += part.total;
        all.in_rounds |= part.in_rounds;
        all.pages.extend(part.pages);
    }
    let total = asker.total(question.axis, question.range).await?;
    Ok((total == all.total).then_some(all))
}

/// Rows of one second without a lasting order: each round brings most of them, and all rounds together bring all. If
/// they never do, an id comes more than once in the source, or a row is hidden: then nothing is deleted for it.
///
/// Two rounds in a row that are the same in each row show that the order does last, and that nothing moved: an id that
/// comes twice is twice in the source.
async fn read_in_rounds(asker: &Asker<'_>, question: &Question, page_size: u32) -> Result<WindowRows> {
    let started = Instant::now();
    let (mut pages, mut seen) = (Vec::new(), HashSet::new());
    let (mut total, mut quiet) = (0, 0);
    let mut order_before = None;
    for _ in 0..MAX_ROUNDS {
        let round = read_round(asker, question, page_size).await?;
        let order = order_of(&round);
        if let (Some(rows), Some(rows_before)) = (&order, &order_before)
            && rows == rows_before
        {
            let total = rows.len() as u64;
            return Ok(WindowRows::whole(round, total));
        }
        order_before = order;
        let before = seen.len();
        for page in round {
            if page.total != total {
                // Something left or came back, perhaps between two pages: what was seen before may be gone.
                (total, quiet) = (page.total, 0);
                seen.clear();
                // A change that was seen stays one.
                if question.axis == TimeAxis::Creation {
                    pages.clear();
                }
            }
            let fresh = page.rows.iter().filter_map(|row| row.id.as_deref()).map(id_hash);
            if fresh.fold(false, |any, id| seen.insert(id) | any)
                || page.rows.iter().any(|row| row.id.is_none())
            {
                pages.push(page);
            }
        }
        if seen.len() as u64 == total {
            return Ok(WindowRows { in_rounds: true, ..WindowRows::whole(pages, total) });
        }
        quiet = if seen.len() == before { quiet + 1 } else { 0 };
        let is_in_haste = started.elapsed() > asker.budget.left();
        if quiet >= if is_in_haste { QUIET_ROUNDS_IN_HASTE } else { QUIET_ROUNDS } {
            break;
        }
    }
    tracing::warn!(
        total,
        distinct = seen.len(),
        "products of one second never add up; none of them is deleted"
    );
    Ok(WindowRows { pages, total, sure: false, in_rounds: true })
}

/// All pages, one after the other.
async fn read_round(asker: &Asker<'_>, question: &Question, page_size: u32) -> Result<Vec<ProductPage>> {
    let (mut pages, mut rows) = (Vec::new(), 0);
    for number in 1.. {
        let page = asker.page(question, number, page_size).await?;
        rows += page.rows.len() as u64;
        let is_last = page.rows.is_empty() || rows >= page.total;
        pages.push(page);
        if is_last {
            break;
        }
    }
    Ok(pages)
}

/// The ids of a round's rows in the order in which they came; `None` if these are not as many as each total says, or so few
/// that chance could put them in one order twice.
fn order_of(round: &[ProductPage]) -> Option<Vec<Option<u64>>> {
    let rows = round.iter().flat_map(|page| &page.rows);
    let ids: Vec<Option<u64>> = rows.map(|row| row.id.as_deref().map(id_hash)).collect();
    let is_told = round.iter().all(|page| page.total == ids.len() as u64);
    Some(ids).filter(|ids| is_told && ids.len() >= FEWEST_ROWS_OF_AN_ORDER)
}
