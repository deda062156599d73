//! The promises, checked after every run and at the end of a world.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use okki_sync::testing::catalogue::RowKind;
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::state::{Acknowledged, Fingerprint, State};
use okki_sync::testing::sync::{Outcome, RunRequest};
use okki_sync_sandbox::Stats;
use okki_sync_sandbox::catalogue::Product;
use serde_json::value::RawValue;

use crate::oracle::{Shape, doubt, is_tombstone, said_of_product};
use crate::past::Span;
use crate::support::without_revival;
use crate::world::{CONNECTION, World, neighbour};

/// How the world stood before a run.
pub struct Before {
    revision: u64,
    pub journal: usize,
    stats: Stats,
    state_text: Option<Vec<u8>>,
    state: State,
    blocked_until_ms: Option<u64>,
    pub now_ms: u64,
    rows: BTreeMap<String, Box<RawValue>>,
}

impl Before {
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What the target held.
    pub fn rows(&self) -> &BTreeMap<String, Box<RawValue>> {
        &self.rows
    }
}

/// What the checks remember from run to run.
#[derive(Default)]
pub struct Ledger {
    /// Fingerprints of the rows that the target took, by id.
    accepted: HashMap<String, HashSet<Fingerprint>>,
    read: usize,
    /// Of each product the version that the target took last.
    newest: HashMap<String, usize>,
}

/// As many characters of a secret's beginning are the secret.
const SHOWN_OF_A_SECRET: usize = 24;
/// Who runs, and what the target wants.
const RUN: &str = "state/it.run";

async fn state_of(world: &World) -> Result<(Option<Vec<u8>>, State), String> {
    state_of_connection(world, CONNECTION).await
}

/// Ids that other connections with the same target know.
async fn known_elsewhere(world: &World) -> Result<HashSet<String>, String> {
    let mut known = HashSet::new();
    for number in 1..=world.neighbours {
        let (_, state) = state_of_connection(world, &neighbour(number)).await?;
        known.extend(state.rows.iter().map(|(_, id, _)| id.to_owned()));
    }
    Ok(known)
}

async fn state_of_connection(world: &World, connection: &str) -> Result<(Option<Vec<u8>>, State), String> {
    let path = format!("state/{connection}.state");
    let Some(bytes) = world.objects.look(&path).await else { return Ok((None, State::default())) };
    let first: serde_json::Value =
        serde_json::from_slice(bytes.split(|byte| *byte == b'\n').next().unwrap_or_default())
            .map_err(|error| format!("the state cannot be read: {error}"))?;
    let target = first["target"].as_str().unwrap_or_default();
    let state = State::from_bytes(&bytes, connection, target)
        .map_err(|error| format!("the state cannot be read: {error}"))?;
    Ok((Some(bytes.to_vec()), state))
}

pub async fn before(world: &World) -> Result<Before, String> {
    let (state_text, state) = state_of(world).await?;
    let run = world.objects.look(RUN).await.unwrap_or_default();
    let run: serde_json::Value = serde_json::from_slice(&run).unwrap_or_default();
    Ok(Before {
        revision: world.sandbox.revision(),
        journal: world.sandbox.journal(0).len(),
        stats: world.sandbox.stats(),
        state_text,
        state,
        blocked_until_ms: run["target_blocked_until_ms"].as_u64(),
        now_ms: world.clock.now_ms(),
        rows: crate::values::rows_now(world),
    })
}

pub fn rows_at_the_target(world: &World) -> indexmap::IndexMap<String, Box<RawValue>> {
    let rows = if world.pipeline.qeasy { world.sandbox.target_rows() } else { world.sandbox.http_rows() };
    rows.into_iter().map(|(id, row)| (id, as_made(&row))).collect()
}

/// The row as the pipeline makes it.
fn as_made(row: &RawValue) -> Box<RawValue> {
    RawValue::from_string(without_revival(row.get()).into_owned()).unwrap()
}

/// The rows that the targets took since the `from`th, as the pipeline makes them.
pub fn journal(world: &World, from: usize) -> Vec<(String, Box<RawValue>)> {
    world.sandbox.journal(from).into_iter().map(|(id, row)| (id, as_made(&row))).collect()
}

/// An undo sends rows that the target took before, and tombstones. Another pipeline may have made them.
pub fn only_former_rows_were_sent(world: &World, ledger: &mut Ledger) -> Result<(), String> {
    let journal = journal(world, ledger.read);
    ledger.read += journal.len();
    for (id, row) in journal.iter().filter(|(_, row)| !is_tombstone(row.get())) {
        let fingerprint = Fingerprint::of(row.get().as_bytes());
        if !ledger.accepted.get(id).is_some_and(|taken| taken.contains(&fingerprint)) {
            return Err(format!("an undo sent a row that the target never held: {id} {row}"));
        }
    }
    Ok(())
}

/// What holds after any run, however many ran and however they ended.
pub async fn after_any_run(world: &World, ledger: &mut Ledger) -> Result<(), String> {
    let journal = journal(world, ledger.read);
    ledger.read += journal.len();
    for (id, row) in &journal {
        ledger.accepted.entry(id.clone()).or_default().insert(Fingerprint::of(row.get().as_bytes()));
        // A value guard never lets a held value through.
        if let Some(cost) = world.pipeline.let_through(row.get()) {
            return Err(format!("value guard: row {id} went out with cost {cost}: {row}"));
        }
    }
    nothing_goes_back(world, ledger, &journal)?;
    let (_, state) = state_of(world).await?;
    let rows = rows_at_the_target(world);

    // State never ahead of the target.
    for (_, id, acknowledged) in state.rows.iter() {
        let Acknowledged::Known(fingerprint) = acknowledged else { continue };
        let taken = ledger.accepted.get(id).is_some_and(|taken| taken.contains(&fingerprint));
        if !taken {
            return Err(format!(
                "state ahead of the target: row {id} counts as written, the target never took it"
            ));
        }
    }
    let taken = |id: &str, content: &Fingerprint| {
        ledger.accepted.get(id).is_some_and(|taken| taken.contains(content))
    };
    crate::values::the_ledger_is_true(world, &state, taken).await?;
    let elsewhere = known_elsewhere(world).await?;
    // What others write of the same rows, this connection's state cannot know.
    let is_alone = world.neighbours == 0;
    if is_alone {
        what_counts_is_there(&state, &rows)?;
    }
    // Every source row is at the target or will be planned.
    let catalogue = world.catalogue();
    let wanted = world.pipeline.rows(&catalogue);
    for (id, row) in &wanted {
        let there = rows.get(id).is_some_and(|theirs| theirs.get() == row);
        let counted =
            state.rows.get(id.as_str()) == Some(Acknowledged::Known(Fingerprint::of(row.as_bytes())));
        if is_alone && counted && !there {
            let theirs = rows.get(id).map(|row| row.get());
            return Err(format!(
                "row lost: the state counts row {id} as written with the source's content, no run will plan it; the target holds {theirs:?}, the source {row}"
            ));
        }
    }
    // Every row at the target that the source has no more is known to the state, so that it will be deleted.
    let known = world.pipeline.shape.known(&catalogue);
    for (id, row) in &rows {
        let is_known = state.rows.get(id.as_str()).is_some() || elsewhere.contains(id);
        if !known.contains(id) && !is_tombstone(row.get()) && !is_known {
            return Err(format!(
                "orphan: the target holds row {id}, neither the source nor the state knows it"
            ));
        }
    }
    // Nothing that the source never said.
    let past = world.past.lock().unwrap();
    let ever = Span { from_ms: 0, to_ms: world.clock.now_ms() };
    for (id, row) in &journal {
        if let Some(doubt) = doubt(&past, &world.pipeline, id, row, ever) {
            return Err(format!("outside the source: {doubt}"));
        }
    }
    drop(past);
    limits(world)?;
    the_source_s_pace(world)?;
    world.traffic.busy_runs_are_silent()?;
    if !world.freezing {
        world.traffic.nobody_writes_beside_another()?;
    }
    match world.objects.lost_updates().first() {
        Some(lost) => Err(format!("save without compare: {lost}")),
        None => Ok(()),
    }
}

/// No acknowledged row that the target does not hold.
fn what_counts_is_there(state: &State, rows: &IndexMap<String, Box<RawValue>>) -> Result<(), String> {
    for (_, id, acknowledged) in state.rows.iter() {
        let Acknowledged::Known(fingerprint) = acknowledged else { continue };
        let theirs = rows.get(id).map(|row| row.get());
        if theirs.map(|row| Fingerprint::of(row.as_bytes())) != Some(fingerprint) {
            return Err(format!(
                "acknowledged, and not there: row {id} counts as written, the target holds {theirs:?}"
            ));
        }
    }
    Ok(())
}

/// A row never goes back to an older version of its product than the one that the target took last.
fn nothing_goes_back(
    world: &World,
    ledger: &mut Ledger,
    journal: &[(String, Box<RawValue>)],
) -> Result<(), String> {
    // Pages that were read while the catalogue moved may agree by chance: there a row can be gone for a moment. Connections
    // that write the same rows have read them at different times.
    let is_alone = world.neighbours == 0;
    if world.pipeline.shape != Shape::Products || !world.reading.is_filtered() || !is_alone {
        return Ok(());
    }
    let past = world.past.lock().unwrap();
    for (id, row) in journal {
        let newest = ledger.newest.entry(id.clone()).or_default();
        let is_meant = |rows: &[Arc<Product>]| said_of_product(world.pipeline.shape, row, rows);
        match past.versions(id).skip(*newest).position(is_meant) {
            Some(later) => *newest += later,
            None => {
                let said: Vec<_> = past.versions(id).collect();
                return Err(format!("row {id} goes back behind version {newest} of {said:?}: {row}"));
            }
        }
    }
    Ok(())
}

/// No run takes away more than the guard allows, unless somebody has allowed it.
fn the_guard_is_kept(
    world: &World,
    before: &Before,
    request: &RunRequest,
    journal: &[(String, Box<RawValue>)],
) -> Result<(), String> {
    let tombstones = journal.iter().filter(|(_, row)| is_tombstone(row.get()));
    let gone: HashSet<&str> = tombstones.map(|(id, _)| id.as_str()).collect();
    let (gone, known) = (gone.len(), before.state.rows.len());
    let most = world.pipeline.max_delete_ratio;
    if request.allow_mass_delete || gone <= 10 || gone as f64 <= most * known as f64 {
        return Ok(());
    }
    Err(format!("guard: {gone} of {known} rows were deleted, the guard allows {most}"))
}

fn limits(world: &World) -> Result<(), String> {
    let stats = world.sandbox.stats();
    let most = world.pipeline.calls_per_minute * if world.freezing { 4 } else { 1 };
    if stats.lockouts > 0 {
        return Err(format!("limit: {} lockouts were provoked", stats.lockouts));
    }
    if stats.max_target_calls_per_minute > most as usize {
        return Err(format!(
            "limit: {} calls in a minute, {most} are allowed",
            stats.max_target_calls_per_minute
        ));
    }
    if let Some(outburst) = world.outbursts.lock().unwrap().first() {
        return Err(format!("limit: a call while the target wants silence: {outburst}"));
    }
    if stats.okki_writes + stats.qeasy_dispatches > 0 {
        let (okki, qeasy) = (stats.okki_writes, stats.qeasy_dispatches);
        return Err(format!("calls that change a source: {okki} at OKKI, {qeasy} dispatches at Qeasy"));
    }
    Ok(())
}

/// All processes together keep the source's pace, and heed its silence.
fn the_source_s_pace(world: &World) -> Result<(), String> {
    // A call that was decided before a freeze may leave after it.
    if world.freezing {
        return Ok(());
    }
    world.source_calls.keep_the_pace(world.pipeline.pace)?;
    // A silence on another clock; a store that was not there when it was asked.
    if world.jumped || !world.objects.struck().is_empty() {
        return Ok(());
    }
    world.source_calls.heed_the_silence()
}

/// What holds after a run that had the world to itself. `outcome` is `None` if it was killed.
pub async fn after_one_run(
    world: &World,
    before: &Before,
    request: &RunRequest,
    overdue: Duration,
    outcome: Option<&Outcome>,
) -> Result<(), String> {
    let (mode, is_only) = (request.mode, !request.only.is_empty());
    let journal = journal(world, before.journal);
    let (state_text, state) = state_of(world).await?;
    if is_only {
        only_the_named(world, before, &state, request, &journal)?;
    }
    the_guard_is_kept(world, before, request, &journal)?;
    if mode != Mode::Sync && (!journal.is_empty() || state_text != before.state_text) {
        return Err(format!("a run that only looks has written {} rows", journal.len()));
    }
    let stats = world.sandbox.stats();
    let struck = |stats: &Stats, kind| stats.struck.get(kind).copied().unwrap_or(0);
    let told = stats.calls_during_lockout - before.stats.calls_during_lockout;
    let lockouts = struck(&stats, "lockout") - struck(&before.stats, "lockout");
    // A lockout refuses the calls that were in flight when its answer came, and no others.
    let most = u64::from(world.pipeline.at_once);
    if world.pipeline.qeasy && told + lockouts > most && told > 0 {
        return Err(format!("a lockout was knocked on: {told} calls were refused by it in one run"));
    }
    // All changes must be visible before the run. (Later than the program allows for, they are missed.)
    let is_seen = !world.past.lock().unwrap().shows_changes_since(before.now_ms);
    let still = world.sandbox.revision() == before.revision && is_seen && !world.reading.is_too_late();
    let catalogue = world.catalogue();
    let wanted = world.pipeline.rows(&catalogue);
    // Of a run that is not done, `promises` judges what it sent.
    if still && outcome.is_some_and(crate::promises::is_done) {
        nothing_outside_the_plan(world, before, &wanted, &journal, is_only)?;
    }
    if let Some(outcome) = outcome {
        if !overdue.is_zero() {
            return Err(format!("a run outlived its deadline by {} ms", overdue.as_millis()));
        }
        the_report_is_true(world, mode, still && !is_only, &wanted, outcome)?;
        if world.neighbours == 0 {
            crate::values::former_rows_are_true(world, before, outcome).await?;
        }
    }
    Ok(())
}

/// A run for named rows sends no other one, deletes nothing, and leaves everything else of the state as it was.
fn only_the_named(
    world: &World,
    before: &Before,
    state: &State,
    request: &RunRequest,
    journal: &[(String, Box<RawValue>)],
) -> Result<(), String> {
    let named: HashSet<&str> = request.only.ids.iter().map(String::as_str).collect();
    // A product that is an item stands for the row of its group, held back or not.
    let (past, ever) = (world.past.lock().unwrap(), Span { from_ms: 0, to_ms: world.clock.now_ms() });
    let groups: HashSet<String> = named
        .iter()
        .flat_map(|id| past.product(id, ever).flatten())
        .map(|product| product.group_id.clone())
        .collect();
    for (id, row) in journal {
        if is_tombstone(row.get()) || !(named.contains(id.as_str()) || groups.contains(id)) {
            return Err(format!("only {named:?}: row {id} was sent: {row}"));
        }
    }
    drop(past);
    let kept = |state: &State| {
        (state.runs, state.source_products, state.tombstones.clone(), state.dismissed.clone())
    };
    // What comes back after its tombstone says so, and then it has none.
    let (was, is) = (kept(&before.state), kept(state));
    if (was.0, was.1, &was.3) != (is.0, is.1, &is.3) || !is.2.is_subset(&was.2) {
        return Err(format!("only {named:?}: the state says {is:?}, it said {was:?}"));
    }
    Ok(())
}

/// Rows were sent because they differ from what was acknowledged, and tombstones because the source has no such row.
fn nothing_outside_the_plan(
    world: &World,
    before: &Before,
    wanted: &BTreeMap<String, String>,
    journal: &[(String, Box<RawValue>)],
    is_only: bool,
) -> Result<(), String> {
    let catalogue = world.catalogue();
    let known = world.pipeline.shape.known(&catalogue);
    for (id, row) in journal {
        let acknowledged = before.state.rows.get(id.as_str());
        let planned = if is_tombstone(row.get()) {
            world.pipeline.tombstones && !known.contains(id) && acknowledged.is_some()
        } else {
            wanted.get(id).is_some_and(|wanted| *wanted == world.pipeline.without_held(&catalogue, row.get()))
                && (is_only
                    || acknowledged != Some(Acknowledged::Known(Fingerprint::of(row.get().as_bytes()))))
        };
        if !planned {
            return Err(format!(
                "outside the plan: row {id} was sent as {row}, the source says {:?}",
                wanted.get(id)
            ));
        }
    }
    Ok(())
}

fn the_report_is_true(
    world: &World,
    mode: Mode,
    still: bool,
    wanted: &BTreeMap<String, String>,
    outcome: &Outcome,
) -> Result<(), String> {
    let report = &outcome.report;
    let set_aside = outcome.rejected.iter().partition::<Vec<_>, _>(|row| row.dismissed);
    if (set_aside.0.len() as u64, set_aside.1.len() as u64) != (report.dismissed, report.quarantined)
        || report.quarantined_by_kind.values().sum::<u64>() != report.quarantined
    {
        return Err(format!("a quarantine that is counted wrong: {report:?}"));
    }
    let fine = match report.status {
        Status::Succeeded => report.remaining == 0 && report.error.is_none() && report.quarantined == 0,
        Status::Partial => report.error.is_none(),
        Status::Paused => report.remaining > 0 && report.error.is_some(),
        Status::Failed => report.error.is_some(),
    };
    if !fine {
        return Err(format!("a report that contradicts itself: {report:?}"));
    }
    if !still || !matches!(report.status, Status::Succeeded | Status::Partial) || mode == Mode::Plan {
        return Ok(());
    }
    if world.neighbours > 0 || (mode == Mode::Verify && report.remaining > 0) {
        return Ok(());
    }
    // Done: each row of the source is at the target or in the quarantine.
    let rows = rows_at_the_target(world);
    let catalogue = world.catalogue();
    let set_aside: HashSet<&str> = outcome.rejected.iter().filter_map(|row| row.id.as_deref()).collect();
    for (id, row) in wanted {
        let theirs = rows.get(id).map(|theirs| world.pipeline.without_held(&catalogue, theirs.get()));
        if theirs.is_none_or(|theirs| theirs != *row) && !set_aside.contains(id.as_str()) {
            let theirs = rows.get(id).map(|row| row.get());
            return Err(format!(
                "{mode} says {}, row {id} is not there: {theirs:?} instead of {row}",
                report.status.as_str()
            ));
        }
    }
    let known = world.pipeline.shape.known(&world.catalogue());
    let offenders = known.iter().filter(|id| !id.trim().is_empty() && !wanted.contains_key(*id));
    for id in offenders {
        if !set_aside.contains(id.as_str()) {
            return Err(format!(
                "{mode} says {}, row {id} is neither clean nor in the quarantine",
                report.status.as_str()
            ));
        }
    }
    if !world.pipeline.tombstones {
        return Ok(());
    }
    for (id, row) in &rows {
        if !known.contains(id) && !is_tombstone(row.get()) && !set_aside.contains(id.as_str()) {
            return Err(format!("{mode} says {}, row {id} should be gone: {row}", report.status.as_str()));
        }
    }
    Ok(())
}

/// Whether the target refused rows, which are offered again with growing distance.
pub fn has_refused_rows(outcome: &Outcome) -> bool {
    outcome.rejected.iter().any(|row| row.kind == RowKind::Record)
}

/// The end: byte for byte.
pub fn target_equals_source(world: &World) -> Result<(), String> {
    let catalogue = world.catalogue();
    let (wanted, known) = (world.pipeline.rows(&catalogue), world.pipeline.shape.known(&catalogue));
    let rows = rows_at_the_target(world);
    for (id, row) in &wanted {
        let theirs = rows.get(id).map(|theirs| world.pipeline.without_held(&catalogue, theirs.get()));
        if theirs.as_ref() != Some(row) {
            return Err(format!(
                "no convergence: row {id} at the target is {theirs:?}, the source says {row}"
            ));
        }
    }
    for (id, row) in rows.iter().filter(|(id, _)| !known.contains(*id)) {
        if world.pipeline.tombstones && !is_tombstone(row.get()) {
            return Err(format!("no convergence: row {id} should be gone: {row}"));
        }
    }
    Ok(())
}

/// No secret anywhere that people look: logs, reports, quarantine, state.
pub async fn no_secret_was_told(world: &World) -> Result<(), String> {
    let secrets = world.sandbox.issued();
    // A message may have cut off the end of one.
    let starts: Vec<&str> =
        secrets.iter().map(|secret| secret.get(..SHOWN_OF_A_SECRET).unwrap_or(secret)).collect();
    let look = |place: &str, text: &str| match starts.iter().find(|start| text.contains(**start)) {
        Some(start) => {
            let at = text.find(start).unwrap_or(0);
            let line = text[..at].rfind('\n').map_or(0, |at| at + 1);
            Err(format!("a secret in the {place}: {}", text[line..].lines().next().unwrap_or_default()))
        }
        None => Ok(()),
    };
    look("log or report", &world.told)?;
    for (path, bytes) in world.objects.all().await {
        match path.ends_with(".zst") {
            true => look(&path, &crate::values::lines(&bytes).join("\n"))?,
            false => look(&path, &String::from_utf8_lossy(&bytes))?,
        }
    }
    Ok(())
}

/// A run that knows of a lockout makes no call.
pub fn no_call_before_its_time(
    world: &World,
    before: &Before,
    process: &okki_sync::testing::clock::Clock,
) -> Result<(), String> {
    let Some(until_ms) = before.blocked_until_ms else { return Ok(()) };
    let then_ms = process.now_ms() - (world.clock.now_ms() - before.now_ms);
    let wait_ms = until_ms.saturating_sub(then_ms);
    if wait_ms == 0 || wait_ms > 3_600_000 {
        return Ok(());
    }
    // A slow store may have kept the run waiting until the time had come.
    if world.clock.now_ms() >= before.now_ms + wait_ms {
        return Ok(());
    }
    let calls = |stats: &Stats| -> u64 {
        stats
            .calls
            .iter()
            .filter(|(at, _)| !format!("{at:?}").starts_with("Okki"))
            .map(|(_, calls)| calls)
            .sum()
    };
    let made = calls(&world.sandbox.stats()) - calls(&before.stats);
    if made == 0 { Ok(()) } else { Err(format!("{made} calls were made before the target's time had come")) }
}

/// Somebody has changed what becomes of rows: nobody was called.
pub fn nothing_was_sent(world: &World, before: &Before) -> Result<(), String> {
    let (was, is) = (&before.stats.calls, world.sandbox.stats().calls);
    if *was == is {
        Ok(())
    } else {
        Err(format!("a change of the quarantine made calls: {was:?}, then {is:?}"))
    }
}
