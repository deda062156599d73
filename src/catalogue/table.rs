//! Rows of equal width in one text.
//!
//! A cell costs its bytes and four more for where it ends, and no allocation: that is what lets 200,000 products fit
//! into a small Lambda, and what the cache of products is written from without a second copy.

use std::ops::Range;

use crate::words::{Message, Words, say};

/// A cell holds raw JSON, an id, or nothing (the source did not send the field).
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    width: usize,
    text: String,
    /// Where each cell ends in the text; it begins where the one before it ends.
    ends: Vec<u32>,
}

/// The table's text would pass 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.words())]
pub(crate) struct TableFull;

impl Words for TableFull {
    fn words(&self) -> Message {
        say!("more than 4 GiB of source data in one run")
    }
}

impl Table {
    /// An empty table of rows with `width` cells.
    pub(crate) fn new(width: usize) -> Self {
        Self { width, text: String::new(), ends: Vec::new() }
    }

    /// The text, and where each cell ends in it.
    pub(crate) fn parts(&self) -> (&str, &[u32]) {
        (&self.text, &self.ends)
    }

    /// A table of these parts; `None` if they do not fit together.
    pub(crate) fn from_parts(width: usize, text: String, ends: Vec<u32>) -> Option<Self> {
        let whole = width > 0 && ends.len().is_multiple_of(width);
        let ordered = ends.is_sorted() && ends.last().is_none_or(|end| *end as usize == text.len());
        (whole && ordered).then_some(Self { width, text, ends })
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.ends.len().checked_div(self.width).unwrap_or(0)
    }

    /// Number of cells in a row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Makes room for this many rows with this many bytes together, so that the text need not grow by doubling.
    pub(crate) fn reserve(&mut self, rows: usize, bytes: usize) {
        self.text.reserve(bytes);
        self.ends.reserve(rows.saturating_mul(self.width));
    }

    /// Adds a row. Missing cells are empty, surplus ones are left out.
    pub(crate) fn push<'a>(&mut self, cells: impl IntoIterator<Item = &'a str>) -> Result<(), TableFull> {
        let mut cells = cells.into_iter();
        for _ in 0..self.width {
            self.text.push_str(cells.next().unwrap_or(""));
            self.ends.push(u32::try_from(self.text.len()).map_err(|_| TableFull)?);
        }
        Ok(())
    }

    /// The cells of a row.
    pub(crate) fn row(&self, row: usize) -> impl Iterator<Item = &str> {
        (0..self.width).map(move |column| self.cell(row, column))
    }

    /// One cell; empty where the table has none.
    pub(crate) fn cell(&self, row: usize, column: usize) -> &str {
        let index = row * self.width + column;
        let Some(&end) = self.ends.get(index) else { return "" };
        self.text.get(self.start(index)..end as usize).unwrap_or("")
    }

    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| *end as usize)
    }

    /// The range of the text that holds a row.
    pub(crate) fn text_range(&self, row: usize) -> Range<usize> {
        self.start(row * self.width)..self.start((row + 1) * self.width)
    }

    /// The length of each cell of a row.
    pub(crate) fn lengths(&self, row: usize) -> impl Iterator<Item = u32> {
        self.row(row).map(|cell| u32::try_from(cell.len()).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_table_returns_the_cells_it_got_and_empty_ones_for_the_rest() {
        let mut table = Table::new(3);
        table.push(["7", "\"手机\"", "2999.10"]).unwrap();
        table.push(["8"]).unwrap();
        assert_eq!(table.len(), 2);
        assert_eq!(table.cell(0, 1), "\"手机\"");
        assert_eq!(table.cell(0, 2), "2999.10");
        assert_eq!((table.cell(1, 0), table.cell(1, 2)), ("8", ""));
        assert_eq!(table.cell(9, 9), "");
    }
}
