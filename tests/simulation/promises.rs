//! What a read promises, checked after every sync that had the world to itself:
//!
//! - Every row that it sends was true at a moment of the read, which may have taken several runs. (A run that says it is
//!   not done may have had no time to look for deletions: then since the last read that had.)
//! - Nothing is deleted that the source held throughout the read, neither a product nor an item of a group.
//! - Nothing that the source held throughout is missing once a run says that it is done, and the target holds nothing
//!   older than the read.
//! - Every run that has the time for it covers at least one window more, and counts its progress truly.
//!
//! Two things no reader can know, and so nothing is asked of them: a source without a filter that changes while its pages
//! are read (that way to read needs a catalogue that stands still, as the README says; where it can be asked for new
//! products, nothing is deleted all the same); and which products were deleted
//! while others were created in the same moments. So in a run during which the source changes, a product that was deleted
//! since the run before may still be sent: the target is never more than one run behind.
//!
//! A world whose changes become visible late moves the beginning of the read back by as much; where that is later than
//! the overlap of the program's reads ([`Reading::is_too_late`](crate::reading::Reading::is_too_late)), a change can be
//! missed until its window is read again, so only deletions are judged.

use std::collections::{BTreeMap, HashSet};

use okki_sync::testing::report::Status;
use okki_sync::testing::sync::Outcome;
use okki_sync_sandbox::catalogue::Product;
use serde_json::Value;

use crate::invariants::{Before, journal, rows_at_the_target};
use crate::oracle::{Shape, doubt, ids_of_items, is_tombstone};
use crate::past::{Past, Span};
use crate::pipeline::Pipeline;
use crate::world::World;

const PRODUCTS: &str = "cache/it.products";

/// What the store keeps of a read.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Kept {
    key: String,
    pub is_complete: bool,
    is_finished: bool,
    pub windows: usize,
    last_number: u64,
    changes_from: Option<i64>,
    /// Rows that it counts as held.
    held: u64,
    pub is_whole: bool,
}

impl Kept {
    pub async fn of(world: &World) -> Self {
        let Some(bytes) = world.objects.look(PRODUCTS).await else { return Self::default() };
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        let header: Value = serde_json::from_slice(&bytes[..end]).unwrap_or_default();
        let ledger = &header["ledger"];
        let windows = ledger["windows"].as_array().cloned().unwrap_or_default();
        let waiting: HashSet<u64> = ledger["waiting"]
            .as_array()
            .map(|waiting| waiting.iter().filter_map(|waiting| waiting["number"].as_u64()).collect())
            .unwrap_or_default();
        let of_body =
            header["text_bytes"].as_u64().unwrap_or(0) + header["lengths_bytes"].as_u64().unwrap_or(0);
        let numbers = bytes.get(end + 1 + of_body as usize..).map(numbers).unwrap_or_default();
        let offenders = header["offenders"].as_array().cloned().unwrap_or_default();
        let offenders = offenders.iter().filter_map(|offender| offender["number"].as_u64());
        let waits = numbers.into_iter().chain(offenders).filter(|number| waiting.contains(number)).count();
        Self {
            key: header["key"].as_str().unwrap_or_default().to_owned(),
            is_complete: ledger["complete"] == true,
            is_finished: ledger["finished"] == true,
            windows: windows.len(),
            last_number: ledger["next_number"].as_u64().unwrap_or(0),
            changes_from: ledger["changes_from"].as_i64(),
            held: windows.iter().filter_map(|window| window["rows"].as_u64()).sum::<u64>() + waits as u64,
            is_whole: !ledger["whole_because"].is_null(),
        }
    }

    /// Whether a read has come further since.
    fn has_moved(&self, before: &Self) -> bool {
        self.key != before.key
            || self.last_number > before.last_number
            || self.changes_from > before.changes_from
            || (self.is_complete && !before.is_complete)
            || (self.is_finished && !before.is_finished)
    }
}

/// LEB128.
fn numbers(bytes: &[u8]) -> Vec<u64> {
    let (mut numbers, mut number, mut shift) = (Vec::new(), 0, 0);
    for byte in bytes {
        number |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if *byte < 0x80 {
            numbers.push(number);
            (number, shift) = (0, 0);
        }
    }
    numbers
}

/// Whether a run says that it is done.
pub fn is_done(outcome: &Outcome) -> bool {
    matches!(outcome.report.status, Status::Succeeded | Status::Partial)
}

/// Whether a run has come to the end of its read.
pub fn has_read(outcome: &Outcome) -> bool {
    let report = &outcome.report;
    is_done(outcome) || (report.source.newly_read.is_none() && report.source.groups > 0)
}

/// The promises of a sync, whose read began at `since_ms`.
pub fn after_a_sync(
    world: &World,
    before: &Before,
    since_ms: u64,
    outcome: Option<&Outcome>,
) -> Result<(), String> {
    let late_ms = world.reading.visible_late_s * 1_000;
    let span = Span { from_ms: since_ms.saturating_sub(late_ms), to_ms: world.clock.now_ms() };
    let past = world.past.lock().unwrap();
    let moved = past.shows_changes_since(before.now_ms) && !world.reading.is_filtered();
    if moved && !world.reading.can_be_asked_for_new_products() {
        return Ok(());
    }
    for (id, row) in journal(world, before.journal) {
        if moved && !is_tombstone(row.get()) {
            // A read that may have missed a row takes nothing away that the target had.
            let had = before.rows().get(&id).map(|row| ids_of_items(row.get())).unwrap_or_default();
            let had = past.product_ids().filter(|item| had.contains(*item));
            items_are_whole(&past, &world.pipeline, (&id, row.get()), had, span, outcome)?;
            continue;
        }
        if world.reading.is_too_late() && !is_tombstone(row.get()) {
            continue;
        }
        if let Some(doubt) = doubt(&past, &world.pipeline, &id, &row, span) {
            return Err(format!("untrue: row {id}: {doubt}"));
        }
        items_are_whole(&past, &world.pipeline, (&id, row.get()), past.product_ids(), span, outcome)?;
    }
    let is_clear = !moved && !world.reading.is_too_late() && world.neighbours == 0;
    let Some(outcome) = outcome.filter(|_| is_clear) else { return Ok(()) };
    if !is_done(outcome) {
        return Ok(());
    }
    nothing_is_missing(world, &past, span, outcome)
}

fn rejected(outcome: &Outcome) -> HashSet<&str> {
    outcome.rejected.iter().filter_map(|row| row.id.as_deref()).collect()
}

/// A product that could be read at every moment, in this one group; `None` if it could not.
fn steady_product<'p>(past: &'p Past, pipeline: &Pipeline, id: &str, span: Span) -> Option<&'p Product> {
    let mut steady: Option<&Product> = None;
    if id.trim().is_empty() {
        return None;
    }
    for rows in past.product(id, span) {
        let [product] = rows else { return None };
        let is_fine = product.enable_flag == 1 && !product.name.trim().is_empty() && !pipeline.holds(product);
        let is_moved = steady.is_some_and(|steady| steady.group_id != product.group_id);
        if !is_fine || is_moved {
            return None;
        }
        steady = Some(product);
    }
    steady
}

/// None of these products that was in a group throughout is missing from the group's row.
fn items_are_whole<'p>(
    past: &Past,
    pipeline: &Pipeline,
    (group, row): (&str, &str),
    products: impl Iterator<Item = &'p String>,
    span: Span,
    outcome: Option<&Outcome>,
) -> Result<(), String> {
    if matches!(pipeline.shape, Shape::Groups | Shape::Products) || is_tombstone(row) {
        return Ok(());
    }
    let items = ids_of_items(row);
    let rejected = outcome.map(rejected).unwrap_or_default();
    for id in products.filter(|id| !items.contains(*id) && !rejected.contains(id.as_str())) {
        if steady_product(past, pipeline, id, span).is_some_and(|product| product.group_id == group) {
            return Err(format!("missing: item {id} was in group {group} throughout; its row is {row}"));
        }
    }
    Ok(())
}

fn nothing_is_missing(world: &World, past: &Past, span: Span, outcome: &Outcome) -> Result<(), String> {
    let rows = rows_at_the_target(world);
    let rejected = rejected(outcome);
    let shape = world.pipeline.shape;
    if shape == Shape::Products {
        for id in past.product_ids().filter(|id| !rejected.contains(id.as_str())) {
            if steady_product(past, &world.pipeline, id, span).is_none() {
                continue;
            }
            match rows.get(id) {
                None => {
                    return Err(format!("missing: product {id} was there throughout, the target has no row"));
                }
                Some(row) if is_tombstone(row.get()) => {
                    return Err(format!(
                        "missing: product {id} was there throughout, the target holds {row}"
                    ));
                }
                Some(row) => fresh(past, &world.pipeline, id, row, span)?,
            }
        }
        return Ok(());
    }
    for (id, row) in
        rows.iter().filter(|(id, row)| !is_tombstone(row.get()) && !rejected.contains(id.as_str()))
    {
        let is_steady = past.group(id, span).all(|names| names.len() == 1);
        if is_steady {
            let row_of = (id.as_str(), row.get());
            items_are_whole(past, &world.pipeline, row_of, past.product_ids(), span, Some(outcome))?;
            fresh(past, &world.pipeline, id, row, span)?;
        }
    }
    Ok(())
}

/// What the target holds was true during the read: no change before it was missed.
fn fresh(
    past: &Past,
    pipeline: &Pipeline,
    id: &str,
    row: &serde_json::value::RawValue,
    span: Span,
) -> Result<(), String> {
    doubt(past, pipeline, id, row, span).map_or(Ok(()), |doubt| Err(format!("stale: row {id}: {doubt}")))
}

/// Calls that a run made undisturbed, and what they came to.
pub fn it_moves(
    world: &World,
    before: &Before,
    kept_before: &Kept,
    kept: &Kept,
    outcome: &Outcome,
) -> Result<(), String> {
    let report = &outcome.report;
    let Some(newly_read) = report.source.newly_read else { return Ok(()) };
    let went_on = kept_before.key == kept.key && (!kept_before.is_finished || !world.pipeline.reads_all());
    let held_before = if went_on { kept_before.held } else { 0 };
    let (held, said) = (kept.held, report.source.products);
    // It began anew and ended before it kept anything.
    let kept_nothing = kept == kept_before && said == 0 && newly_read == 0;
    if !kept_nothing && (said != held || newly_read != held.saturating_sub(held_before)) {
        return Err(format!(
            "progress: the report says {said} products, {newly_read} of them new; {held} are kept, {held_before} were"
        ));
    }
    let is_disturbed = report.source.retries + report.source.throttled > 0
        || struck(&world.sandbox.stats().struck) > struck(&before.stats().struck);
    // Page by page a read cannot go on in a later run.
    if report.status != Status::Paused
        || is_disturbed
        || !world.reading.is_filtered()
        || report.source.requests < u64::from(world.calls_for_a_window())
    {
        return Ok(());
    }
    if kept.has_moved(kept_before) {
        return Ok(());
    }
    Err(format!(
        "no progress: {} calls, and nothing more is kept than before: {kept:?}",
        report.source.requests
    ))
}

fn struck(struck: &BTreeMap<&'static str, u64>) -> u64 {
    struck.values().sum()
}
