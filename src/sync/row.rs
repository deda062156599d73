//! Where a row is and why: the source now, the row that the pipeline makes of it, the plan, what the target has
//! acknowledged, the quarantine, and what was sent in which run.

use serde::Serialize;

use super::checkpoint::Checkpoint;
use super::ledger::RowLedger;
use super::read::Decided;
use super::{Run, RunContext, RunRequest, Watch, history};
use crate::budget::Budget;
use crate::catalogue::{Catalogue, PRODUCT_EXTRA_COLUMNS, PRODUCT_ID_COLUMN};
use crate::changes::{ChangeAction, ChangeLine, FieldChange, Json};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::diff::{self, Digits};
use crate::plan::{self, Action, RowRef, RowWriter, name_of};
use crate::report::Mode;
use crate::state::{Acknowledged, Fingerprint, State};
use crate::transform::RowUnit;
use crate::words::{phrase, say};

/// Entries of a history, at most.
const HISTORY: usize = 50;
/// Ids that an error names.
const NEAREST: usize = 3;

/// Everything that is known of a row.
#[derive(Debug, Serialize)]
pub struct RowStory {
    /// The id that was asked for.
    pub id: String,
    /// Its name at the source, or in its last row.
    pub name: String,
    /// The target row whose item it is; absent where it is a row itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item_of: Option<String>,
    /// The fields of the source that the pipeline names; `None` if the source does not have it.
    pub source: Option<Json>,
    /// The target row (or its item) that the pipeline makes of it now.
    pub row: Option<Json>,
    /// The row (or its item) that the target has acknowledged, if its content is known.
    pub acknowledged: Option<Json>,
    /// Whether the target has acknowledged the row, and its content is not known.
    pub acknowledged_unknown: bool,
    /// When it was acknowledged, if a run of the last 90 days did it.
    pub acknowledged_at: Option<String>,
    /// What the next sync does with it.
    pub plan: Option<RowPlan>,
    /// Why it cannot go through, if it cannot.
    pub quarantine: Option<RowQuarantine>,
    /// What was sent and answered, newest first.
    pub history: Vec<HistoryEntry>,
}

/// What the next sync does with a row.
#[derive(Debug, Serialize)]
pub struct RowPlan {
    /// `create`, `update`, `delete`, `unchanged`, or `skip` for a row in the quarantine.
    pub action: &'static str,
    /// What changes in it.
    pub fields: Vec<FieldChange>,
}

/// Why a row cannot go through.
#[derive(Debug, Serialize)]
pub struct RowQuarantine {
    /// `group`, `product` or `record`.
    pub kind: String,
    /// Why.
    pub reason: String,
    /// The row as it came.
    pub raw: Json,
    /// How often the target has refused it.
    pub tries: u32,
    /// In how many runs it is sent again, unless its content changes; `None`: when it changes at the source.
    pub next_try: Option<u64>,
}

/// What a run did with a row.
#[derive(Debug, Serialize)]
pub struct HistoryEntry {
    /// The run.
    pub run_id: String,
    /// When the target answered.
    pub at: String,
    /// What was sent.
    pub action: ChangeAction,
    /// What changed in it, where it is known.
    pub fields: Vec<FieldChange>,
    /// What the target said.
    pub answer: String,
}

/// Where an id stands at the source.
struct Found {
    /// The row of the target, if there is one for it.
    row: Option<RowRef>,
    row_id: String,
    /// Whether it is an item of that row.
    is_item: bool,
    name: String,
    source: Option<Json>,
}

/// Tells everything about a row. It reads the source, as a plan does, and writes nothing.
pub(crate) async fn row(
    context: &RunContext<'_>,
    id: &str,
    budget: &Budget,
    watch: &Watch,
) -> Result<RowStory> {
    let mut run = Run::begin(context, watch);
    let (budget, waits) = budget.with_waits();
    waits.tell(watch, run.story(id, &budget)).await
}

impl Run<'_> {
    async fn story(&mut self, id: &str, budget: &Budget) -> Result<RowStory> {
        let mut checkpoint = Checkpoint::load(self.context).await?;
        checkpoint.bump_run_counter();
        let state = &checkpoint.state;
        let decided = self.read_and_decide(budget, &RunRequest::new(Mode::Plan), state).await?;
        let Decided { catalogue, plan, .. } = &decided;
        let rejected = std::mem::take(&mut self.tally.rejected);
        let quarantined = rejected.iter().find(|row| row.id.as_deref() == Some(id));
        let found = match find(self.context, catalogue, id) {
            Some(found) => found,
            None if state.rows.get(id).is_some() || quarantined.is_some() => Found {
                row: state.rows.get(id).map(|_| RowRef::Gone),
                row_id: id.to_owned(),
                is_item: false,
                name: String::new(),
                source: quarantined.map(|row| Json::from(&*row.raw)),
            },
            None => return Err(unknown(id, catalogue, state)),
        };
        let is_part = |row: &str| {
            if found.is_item { diff::element(row, id).map(str::to_owned) } else { Some(row.to_owned()) }
        };
        let json = |row: Option<&str>| row.and_then(is_part).and_then(|part| Json::parse(&part));
        let only_its = |fields: Vec<FieldChange>| match found.is_item {
            true => diff::of_element(&fields, id),
            false => fields,
        };

        let new = self.written(catalogue, found.row, &found.row_id);
        let known = state.rows.get(&found.row_id);
        let old = match known {
            Some(Acknowledged::Known(fingerprint)) => {
                let wanted = [(found.row_id.as_str(), fingerprint)];
                let contents = RowLedger::new(self.context).contents(&wanted).await;
                contents
                    .get(found.row_id.as_str())
                    .and_then(|content| String::from_utf8(content.to_vec()).ok())
            }
            _ => None,
        };
        let is_known = !matches!(known, None | Some(Acknowledged::Unknown));
        let changes = plan.changes(catalogue).find(|change| change.id == found.row_id);
        let plan = found.row.map(|_| {
            let action = changes.map_or(phrase!("skip"), |change| word(change.action));
            let fields = match (old.as_deref(), is_known) {
                _ if matches!(action, "unchanged" | "skip") => Vec::new(),
                (Some(old), _) => diff::diff(Some(old), new.as_deref(), Digits::Count),
                (None, true) => diff::over_unknown(new.as_deref()),
                (None, false) => diff::diff(None, new.as_deref(), Digits::Count),
            };
            RowPlan { action, fields: only_its(fields) }
        });
        let lines = history::of_row(self.context, &found.row_id, HISTORY).await?;
        let acknowledged_at =
            lines.iter().find(|(_, line)| line.is_accepted()).map(|(_, line)| line.at.clone());
        let history = entries(lines, old.as_deref(), &only_its);
        let history =
            history.into_iter().filter(|entry| !found.is_item || !entry.fields.is_empty()).collect();
        let name = match found.name.is_empty() {
            true => old.as_deref().and_then(|old| self.context.rows.name_in(old)).unwrap_or_default(),
            false => found.name.clone(),
        };
        let waiting = rejected.iter().find(|row| row.id.as_deref() == Some(found.row_id.as_str()));
        Ok(RowStory {
            id: id.to_owned(),
            name,
            item_of: found.is_item.then(|| found.row_id.clone()),
            row: json(new.as_deref()),
            acknowledged: json(old.as_deref()),
            acknowledged_unknown: is_known && old.is_none(),
            acknowledged_at: acknowledged_at.filter(|_| is_known),
            plan,
            quarantine: quarantined.or(waiting).map(|row| quarantine(row, state)),
            history,
            source: found.source,
        })
    }

    /// The row as the pipeline makes it now.
    fn written(&self, catalogue: &Catalogue, row: Option<RowRef>, id: &str) -> Option<String> {
        let row = row.filter(|row| *row != RowRef::Gone)?;
        let mut out = Vec::new();
        RowWriter::new(self.context.rows, catalogue, self.former()).write(row, id, &mut out).ok()?;
        String::from_utf8(out).ok()
    }
}

fn word(action: Action) -> &'static str {
    match action {
        Action::Create => phrase!("create"),
        Action::Update => phrase!("update"),
        Action::Delete => phrase!("delete"),
        Action::Unchanged => phrase!("unchanged"),
        Action::Skip => phrase!("skip"),
    }
}

fn find(context: &RunContext<'_>, catalogue: &Catalogue, id: &str) -> Option<Found> {
    let unit = context.rows.unit();
    if let Some(group) = catalogue.groups.iter().position(|group| group.id == id) {
        let row = RowRef::Group(group);
        return Some(Found {
            row: (unit == RowUnit::Group).then_some(row),
            row_id: id.to_owned(),
            is_item: false,
            name: name_of(row, catalogue),
            source: source_group(context, catalogue, group),
        });
    }
    let is_it = |(_, product): &(usize, u32)| {
        catalogue.product_cells.cell(*product as usize, PRODUCT_ID_COLUMN) == id
    };
    let (group, product) = catalogue.placed_products().find(is_it)?;
    let row = RowRef::Product(group, product);
    let is_item = unit == RowUnit::Group;
    let row_id = if is_item { RowRef::Group(group).id(catalogue) } else { id };
    Some(Found {
        row: Some(if is_item { RowRef::Group(group) } else { row }),
        row_id: row_id.to_owned(),
        is_item,
        name: name_of(row, catalogue),
        source: source_product(context, catalogue, group, product as usize),
    })
}

fn source_group(context: &RunContext<'_>, catalogue: &Catalogue, group: usize) -> Option<Json> {
    let of = catalogue.groups.get(group)?;
    let parent =
        of.parent.and_then(|parent| catalogue.groups.get(parent)).map_or("0", |parent| parent.id.as_str());
    let named = [("id", of.id.as_str()), ("name", &of.name), ("parent_id", parent)];
    let cells = (0..catalogue.group_cells.width()).map(|column| catalogue.group_cells.cell(group, column));
    object(&named, context.rows.group_columns.names().zip(cells))
}

fn source_product(
    context: &RunContext<'_>,
    catalogue: &Catalogue,
    group: usize,
    product: usize,
) -> Option<Json> {
    let table = &catalogue.product_cells;
    let group = catalogue.groups.get(group).map(|group| group.id.as_str()).unwrap_or_default();
    let named = [("product_id", table.cell(product, PRODUCT_ID_COLUMN)), ("group_id", group)];
    let cells =
        (0..table.width().saturating_sub(PRODUCT_EXTRA_COLUMNS)).map(|column| table.cell(product, column));
    object(&named, context.rows.product_columns.names().zip(cells))
}

/// An object of these texts, and of these cells, which are JSON already; a field that is there twice counts once.
fn object<'a>(named: &[(&str, &str)], cells: impl Iterator<Item = (String, &'a str)>) -> Option<Json> {
    let mut fields: indexmap::IndexMap<String, String> = indexmap::IndexMap::new();
    for (key, value) in named {
        fields.insert((*key).to_owned(), serde_json::Value::from(*value).to_string());
    }
    for (key, cell) in cells.filter(|(_, cell)| !cell.is_empty()) {
        fields.entry(key).or_insert_with(|| cell.to_owned());
    }
    let fields: Vec<String> = fields
        .iter()
        .map(|(key, value)| format!("{}:{value}", serde_json::Value::from(key.as_str())))
        .collect();
    Json::parse(&format!("{{{}}}", fields.join(",")))
}

fn quarantine(row: &crate::catalogue::Rejected, state: &State) -> RowQuarantine {
    let refusal = row.id.as_deref().and_then(|id| state.refused.get(id));
    RowQuarantine {
        kind: row.kind.to_string(),
        reason: row.reason.clone(),
        raw: Json::from(&*row.raw),
        tries: refusal.map_or(0, |refusal| refusal.times),
        next_try: refusal.map(|refusal| refusal.not_before_run.saturating_sub(state.runs)),
    }
}

/// The history of a row. A row that was created is told from what it was when it changed next, or is now.
fn entries(
    lines: Vec<(String, ChangeLine)>,
    now: Option<&str>,
    only_its: &impl Fn(Vec<FieldChange>) -> Vec<FieldChange>,
) -> Vec<HistoryEntry> {
    let mut later = now.map(str::to_owned);
    let mut entries = Vec::with_capacity(lines.len());
    for (run_id, line) in lines {
        let is_later = |content: &&str| {
            line.sent.as_deref() == Some(Fingerprint::of(content.as_bytes()).text().as_str())
        };
        let created = later.as_deref().filter(is_later);
        let fields = match (line.action, created) {
            (ChangeAction::Create, Some(row)) => diff::bounded(diff::diff(None, Some(row), Digits::Count)),
            _ => line.fields.clone(),
        };
        if line.is_accepted() {
            later = line.was.as_ref().map(|was| was.text().to_owned());
        }
        entries.push(HistoryEntry {
            run_id,
            at: line.at,
            action: line.action,
            fields: only_its(fields),
            answer: line.answer,
        });
    }
    entries
}

fn unknown(id: &str, catalogue: &Catalogue, state: &State) -> Error {
    let groups = catalogue.groups.iter().map(|group| group.id.as_str());
    let products = catalogue
        .placed_products()
        .map(|(_, product)| catalogue.product_cells.cell(product as usize, PRODUCT_ID_COLUMN));
    let known = state.rows.iter().map(|(_, id, _)| id);
    let near = plan::nearest_ids(id, groups.chain(products).chain(known), NEAREST);
    let id = crate::catalogue::short(id);
    let what = say!("{id} is not an id of the source or of the target", id);
    Error::new(ErrorKind::BadEvent, what).help(match near.is_empty() {
        true => say!("neither of them holds any row"),
        false => say!("the nearest ones: {near}", near = near.join(", ")),
    })
}
