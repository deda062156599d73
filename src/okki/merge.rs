//! Rows of windows and deltas, merged into what is held.
//!
//! | the row that comes | an earlier row with its id | what happens |
//! |---|---|---|
//! | of a window | waits | it is found: it gets the window's number, and the content of now |
//! | of a window | belongs to another window | the source holds the id twice: [`Duplicates`] decides, one is an offender |
//! | of a delta | belongs to a window | new content, the same number |
//! | of a delta | waits, or there is none | the delta's number: it waits for windows that are read later |
//!
//! A delta that asks again for what has changed ([`Numbers::again`]) tells rows that it finds from those that are new.

use std::collections::HashMap;

use tokio::time::Instant;

use super::cache::{Offender, RowStatus};
use super::page::{ProductPage, ProductRow};
use super::seen::Duplicates;
use super::snapshot::SnapshotBuilder;
use super::windows::{Ledger, Seconds, WindowRows};
use crate::catalogue::{GroupRef, PRODUCT_EXTRA_COLUMNS, PRODUCT_ID_COLUMN, RecordId, kept_fields};
use crate::error::Result;
use crate::testing::Mutant;

/// A row of a page, with its id.
#[derive(Clone, Copy)]
pub(super) struct Incoming<'p> {
    pub page: &'p ProductPage,
    pub at: usize,
    pub row: &'p ProductRow,
    pub id: &'p RecordId,
}

impl<'p> Incoming<'p> {
    pub(super) fn raw(self) -> String {
        self.page.raw(self.at)
    }

    /// A row without a group keeps its id in the table, and of its content what the cache must know.
    pub(super) fn cells(self, group: GroupRef) -> impl Iterator<Item = &'p str> {
        let is_kept = !matches!(group, GroupRef::DELETED | GroupRef::REJECTED);
        (0..self.page.cells.width()).map(move |column| match column {
            PRODUCT_ID_COLUMN => self.id.as_str(),
            _ if is_kept => self.page.cells.cell(self.at, column),
            _ => "",
        })
    }

    pub(super) fn status<'r>(self, group: GroupRef, raw: &'r str) -> RowStatus<'r>
    where
        'p: 'r,
    {
        match group {
            GroupRef::DELETED => RowStatus::Deleted,
            GroupRef::REJECTED => RowStatus::Rejected(raw),
            _ => RowStatus::InGroup(self.row.group.as_deref().unwrap_or("")),
        }
    }
}

/// What a delta brought.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    /// Rows that differ from what was known.
    pub rows: u64,
    /// Rows that were not known at all.
    pub created: u64,
    /// Whether a row may have been missed.
    pub is_unsure: bool,
    /// Numbers of the reads that found two rows with an id that came again: which of them changed, only reading tells.
    pub ambiguous: Vec<u32>,
}

/// The numbers that a delta gives to its rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    /// For a row that is not known.
    pub new: u32,
    /// For one that waits. Another one than `new` where the delta asks again which rows are still there.
    pub again: u32,
    /// The number of the tail that was read just before: its rows keep it.
    pub tail: Option<u32>,
}

impl Numbers {
    fn is_search(self) -> bool {
        self.again != self.new
    }
}

/// The window that is being merged.
struct Merging<'m> {
    number: u32,
    in_rounds: bool,
    /// Where each window begins, by its number.
    starts: &'m HashMap<u32, Seconds>,
}

impl Merging<'_> {
    /// Whether a row of this number waits to be found.
    fn waits(&self, number: u32) -> bool {
        number != self.number && !self.starts.contains_key(&number)
    }

    /// Whether this window comes before the one of this number. The same decision at each read, whichever of the two is
    /// read later.
    fn is_before(&self, other: u32) -> bool {
        matches!((self.starts.get(&self.number), self.starts.get(&other)), (Some(here), Some(there)) if here < there)
    }
}

impl SnapshotBuilder<'_> {
    /// Adds the rows of a window that was read under this number.
    pub(super) fn add_window(&mut self, window: &WindowRows, number: u32, ledger: &Ledger) -> Result<()> {
        let started = Instant::now();
        let starts = ledger.starts();
        let merging = Merging { number, in_rounds: window.in_rounds, starts: &starts };
        for page in &window.pages {
            for (at, row) in page.rows.iter().enumerate() {
                let Some(id) = &row.id else {
                    self.add_offender(number, None, page.raw(at), |known| merging.waits(known));
                    continue;
                };
                let incoming = Incoming { page, at, row, id };
                match self.products.find(id) {
                    None => self.push(incoming, number, None)?,
                    Some(known) => self.meet(known, incoming, &merging)?,
                }
            }
        }
        self.cleaned_in += started.elapsed();
        Ok(())
    }

    /// Whether a window brings a row that is not known.
    pub(super) fn is_any_unknown(&mut self, window: &WindowRows) -> bool {
        let mut ids = window.pages.iter().flat_map(|page| &page.rows).filter_map(|row| row.id.as_ref());
        ids.any(|id| self.products.find(id).is_none())
    }

    /// A window brings an id that is known.
    fn meet(&mut self, known: usize, incoming: Incoming<'_>, merging: &Merging<'_>) -> Result<()> {
        let (number, before) = (merging.number, self.products.number(known));
        if merging.waits(before) {
            return self.renew(known, incoming, number).map(drop);
        }
        if before == number && merging.in_rounds {
            return Ok(());
        }
        match (self.duplicates, merging.is_before(before)) {
            (Duplicates::KeepFirst, false) => {
                self.add_offender(number, Some(incoming.id), incoming.raw(), |known| merging.waits(known));
            }
            (Duplicates::KeepLast, true) => {}
            (Duplicates::KeepLast, false) => self.push(incoming, number, None)?,
            (Duplicates::KeepFirst, true) => {
                let raw = self.kept(known, incoming.id);
                self.add_offender(before, Some(incoming.id), raw, |_| false);
                self.push(incoming, number, None)?;
            }
        }
        Ok(())
    }

    /// Adds the rows that a delta brought under these numbers.
    pub(super) fn add_changes(
        &mut self,
        pages: &[ProductPage],
        numbers: Numbers,
        ledger: &Ledger,
        fresh: &mut Fresh,
    ) -> Result<()> {
        let started = Instant::now();
        let starts = ledger.starts();
        for page in pages {
            for (at, row) in page.rows.iter().enumerate() {
                match &row.id {
                    Some(id) => self.add_change(Incoming { page, at, row, id }, numbers, &starts, fresh)?,
                    None => {
                        let raw = page.raw(at);
                        self.find_offenders_again(numbers, &starts, |known| known.raw == raw);
                        // The overlap brings it again.
                        if !self.offenders.iter().any(|known| known.raw == raw) {
                            self.add_offender(numbers.new, None, raw, |_| false);
                            fresh.created += 1;
                        }
                    }
                }
            }
        }
        self.cleaned_in += started.elapsed();
        Ok(())
    }

    /// A delta that asks which rows are still there has found these.
    fn find_offenders_again(
        &mut self,
        numbers: Numbers,
        starts: &HashMap<u32, Seconds>,
        is_found: impl Fn(&Offender) -> bool,
    ) {
        let waits = |number| !starts.contains_key(&number) && Some(number) != numbers.tail;
        if numbers.is_search() {
            let found = self.offenders.iter_mut().filter(|known| waits(known.number) && is_found(known));
            found.for_each(|known| known.number = numbers.again);
        }
    }

    fn add_change(
        &mut self,
        incoming: Incoming<'_>,
        numbers: Numbers,
        starts: &HashMap<u32, Seconds>,
        fresh: &mut Fresh,
    ) -> Result<()> {
        let Some(known) = self.products.find(incoming.id) else {
            fresh.created += 1;
            fresh.rows += 1;
            return self.push(incoming, numbers.new, None);
        };
        let before = self.products.number(known);
        let is_placed = starts.contains_key(&before) || Some(before) == numbers.tail;
        if let Some(twins) = self.twins_of(known, incoming) {
            fresh.ambiguous.extend(twins);
            self.find_offenders_again(numbers, starts, |twin| twin.id.as_deref() == Some(incoming.id));
            if numbers.is_search() && !is_placed {
                self.products.set_number(known, numbers.again);
            }
            return Ok(());
        }
        let number = if is_placed { before } else { numbers.again };
        fresh.rows += u64::from(self.renew(known, incoming, number)?);
        Ok(())
    }

    /// The reads that found rows with this id, if there are several and none of them has this content.
    fn twins_of(&self, known: usize, incoming: Incoming<'_>) -> Option<Vec<u32>> {
        let mut twins =
            self.offenders.iter().filter(|offender| offender.id.as_deref() == Some(incoming.id)).peekable();
        twins.peek()?;
        let raw = incoming.raw();
        let numbers: Vec<u32> =
            twins.clone().map(|twin| twin.number).chain([self.products.number(known)]).collect();
        let is_known = twins.any(|twin| twin.raw == raw) || self.is_same(known, incoming);
        Some(if is_known { Vec::new() } else { numbers })
    }

    fn is_same(&self, known: usize, incoming: Incoming<'_>) -> bool {
        let (group, raw) = match self.placer.place(incoming, None) {
            Ok(group) => (group, String::new()),
            Err(_) => (GroupRef::REJECTED, incoming.raw()),
        };
        self.products.is_same(known, incoming.cells(group), incoming.status(group, &raw))
    }

    /// A row is found again: returns whether its content differs.
    fn renew(&mut self, known: usize, incoming: Incoming<'_>, number: u32) -> Result<bool> {
        if !self.is_same(known, incoming) {
            self.push(incoming, number, None)?;
            return Ok(true);
        }
        if !Mutant::ForgetTheWindow.is_active() {
            self.products.set_number(known, number);
        }
        Ok(false)
    }

    /// Stands for the raw JSON of a row that is in the table.
    fn kept(&self, row: usize, id: &str) -> String {
        let table = self.products.table();
        let named = table.width().saturating_sub(PRODUCT_EXTRA_COLUMNS);
        let cells: Vec<&str> = table.row(row).take(named).skip(1).collect();
        kept_fields(&[("product_id", id), ("group_id", table.cell(row, named))], &cells)
    }
}
