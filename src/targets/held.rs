//! What the target holds, as far as it has been read back, in the form in which a checkpoint keeps it. Pure; `sync`
//! stores it.
//!
//! Rows stay packed: one gzip member for each page, one row a line. So a large target fits into memory and its checkpoint
//! is saved without packing anything twice; the rows are unpacked one at a time when they are compared. A checkpoint
//! that cannot be used means that the target is read anew, and nothing worse.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::read_back::Page;
use crate::state::header;

const FORMAT_NAME: &str = "okki-sync read-back";
const FORMAT_VERSION: u32 = 1;
/// A read-back that began longer ago says too little about the target of today.
const OLDEST: Duration = Duration::from_secs(24 * 3600);
const DAMAGED: &str = "it is damaged";

/// The rows of a target that were read back.
#[derive(Debug)]
pub(crate) struct HeldRows {
    header: Header,
    /// Packed rows in the order in which they were read.
    blocks: Vec<Block>,
    /// Hashes of the ids that were read.
    ids: HashSet<u64>,
}

#[derive(Debug)]
struct Block {
    packed: Bytes,
    is_fresh: bool,
}

/// A row that was read back.
#[derive(Debug, PartialEq)]
pub(crate) struct HeldRow {
    pub id: String,
    /// `None`: the target was asked for this id and holds no such row, or a tombstone.
    pub content: Option<Value>,
    pub is_tombstone: bool,
    /// Whether no sync has written since it was read.
    pub is_fresh: bool,
}

impl HeldRow {
    pub(crate) fn new(id: String, row: Option<Value>, is_fresh: bool) -> Self {
        let is_tombstone = row.as_ref().is_some_and(is_tombstone);
        Self { id, content: row.filter(|_| !is_tombstone), is_tombstone, is_fresh }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    target: String,
    id_field: String,
    /// Checksum of the state when the last row was read; empty if there was none. Each sync that writes changes it.
    state: String,
    began_at_ms: u64,
    pages: u64,
    complete: bool,
    /// The target's number of rows, as its last page says.
    total: Option<u64>,
    /// Bytes of the rows that were read before a sync wrote; the others follow them.
    stale_bytes: usize,
    checksum: String,
}

impl Header {
    /// Without its line feed.
    fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn checksum(&self, blocks: &[Block]) -> String {
        let unsigned = Self { checksum: String::new(), ..self.clone() };
        header::checksum(&unsigned.line(), blocks.iter().map(|block| block.packed.as_ref()))
    }
}

impl HeldRows {
    /// Nothing read yet. `state` is the stored state as it is now.
    pub(crate) fn new(target: &str, id_field: &str, state: Option<&[u8]>, now_ms: u64) -> Self {
        let header = Header {
            format: FORMAT_NAME.to_owned(),
            version: FORMAT_VERSION,
            target: target.to_owned(),
            id_field: id_field.to_owned(),
            state: checksum_of(state),
            began_at_ms: now_ms,
            pages: 0,
            complete: false,
            total: None,
            stale_bytes: 0,
            checksum: String::new(),
        };
        Self { header, blocks: Vec::new(), ids: HashSet::new() }
    }

    /// Goes on from a checkpoint; the error says why it cannot be used.
    pub(crate) fn from_bytes(
        bytes: &Bytes,
        target: &str,
        id_field: &str,
        state: Option<&[u8]>,
        now_ms: u64,
    ) -> Result<Self, &'static str> {
        let (line, body) = header::split(bytes).ok_or(DAMAGED)?;
        let header: Header = serde_json::from_slice(line).map_err(|_| DAMAGED)?;
        if (header.format.as_str(), header.version) != (FORMAT_NAME, FORMAT_VERSION) {
            return Err("another version of the program wrote it");
        }
        let body = bytes.slice_ref(body);
        if header.stale_bytes > body.len() {
            return Err(DAMAGED);
        }
        let fresh = body.slice(header.stale_bytes..);
        let parts = [(body.slice(..header.stale_bytes), false), (fresh, true)];
        let blocks = parts.into_iter().filter(|(packed, _)| !packed.is_empty());
        let blocks = blocks.map(|(packed, is_fresh)| Block { packed, is_fresh }).collect();
        let mut held = Self { header, blocks, ids: HashSet::new() };
        if held.header.checksum(&held.blocks) != held.header.checksum {
            return Err(DAMAGED);
        }
        if (held.header.target.as_str(), held.header.id_field.as_str()) != (target, id_field) {
            return Err("it is of another target");
        }
        // One from the future means that the clock was set back.
        let age_ms = now_ms.checked_sub(held.header.began_at_ms);
        if age_ms.is_none_or(|age_ms| Duration::from_millis(age_ms) > OLDEST) {
            return Err("it is older than a day");
        }
        let mut ids = HashSet::new();
        held.for_each(|row| ids.extend([xxh3_64(row.id.as_bytes())])).map_err(|_| DAMAGED)?;
        held.ids = ids;
        let state = checksum_of(state);
        if held.header.state != state {
            held.header.state = state;
            held.blocks.iter_mut().for_each(|block| block.is_fresh = false);
        }
        Ok(held)
    }

    /// The checkpoint in pieces, which share the rows with this one.
    pub(crate) fn to_pieces(&self) -> Vec<Bytes> {
        let mut header = self.header.clone();
        let stale = self.blocks.iter().filter(|block| !block.is_fresh);
        header.stale_bytes = stale.map(|block| block.packed.len()).sum();
        header.checksum = header.checksum(&self.blocks);
        let line = Bytes::from(header.line() + "\n");
        std::iter::once(line).chain(self.blocks.iter().map(|block| block.packed.clone())).collect()
    }

    /// The page to be read next, from 1; `None` if all were read.
    pub(crate) fn next_page(&self) -> Option<u64> {
        (!self.header.complete).then_some(self.header.pages + 1)
    }

    pub(crate) fn add_page(&mut self, page: &Page) {
        let known = self.ids.len();
        self.add(page.rows.iter().map(|(id, row)| (id.as_str(), Some(row))));
        let (is_new, length) = (self.ids.len() > known, page.length);
        let has_stale_rows = self.has_stale_rows();
        let Header { pages, total, complete, .. } = &mut self.header;
        *pages += 1;
        *total = page.total;
        let held = self.ids.len() as u64;
        // A page without a new row is the last one, whatever the total promises; a short one need not be. Only if rows
        // were written between two pages may they have moved a page of known rows to here.
        let may_have_moved =
            has_stale_rows && total.is_some_and(|total| pages.saturating_mul(length) < total);
        *complete = page.is_only
            || length == 0
            || total.is_some_and(|total| held >= total)
            || !(is_new || may_have_moved);
        if let (true, Some(total)) = (*complete, *total)
            && held < total
        {
            let pages = *pages;
            tracing::warn!(total, held, pages, "the target counts more rows than its pages held ids");
        }
    }

    /// Adds the answer for single ids; of an id that was read before it replaces the older one.
    pub(crate) fn add<'a>(&mut self, rows: impl IntoIterator<Item = (&'a str, Option<&'a Value>)>) {
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        for (id, row) in rows {
            self.ids.insert(xxh3_64(id.as_bytes()));
            let mut line = serde_json::to_vec(&(id, row)).unwrap_or_default();
            line.push(b'\n');
            // Writing to memory cannot fail.
            let _ = packer.write_all(&line);
        }
        let packed = packer.finish().unwrap_or_default();
        self.blocks.push(Block { packed: packed.into(), is_fresh: true });
    }

    /// Unpacks every row in the order in which they were read; of an id that comes twice the later one counts.
    pub(crate) fn for_each(&self, mut take: impl FnMut(HeldRow)) -> std::io::Result<()> {
        let mut line = Vec::new();
        for Block { packed, is_fresh } in &self.blocks {
            let mut rows = BufReader::new(MultiGzDecoder::new(packed.as_ref()));
            while rows.read_until(b'\n', &mut line)? > 0 {
                let (id, content): (String, Option<Value>) = serde_json::from_slice(&line)?;
                take(HeldRow::new(id, content, *is_fresh));
                line.clear();
            }
        }
        Ok(())
    }

    /// Rows read so far.
    pub(crate) fn len(&self) -> u64 {
        self.ids.len() as u64
    }

    /// Rows of the target that were not read yet, as far as it is known: at least one until all pages were read.
    pub(crate) fn unread(&self) -> u64 {
        let left = self.header.total.unwrap_or(0).saturating_sub(self.len());
        left.max(u64::from(!self.header.complete))
    }

    /// Whether a sync has written since rows were read.
    pub(crate) fn has_stale_rows(&self) -> bool {
        self.blocks.iter().any(|block| !block.is_fresh)
    }

    /// Whether all rows came in one answer, which no deletion can have shifted, and no sync has written since.
    pub(crate) fn is_one_answer(&self) -> bool {
        self.header.complete && self.header.pages == 1 && !self.has_stale_rows()
    }
}

/// Whether the row stands for one that was deleted.
pub(super) fn is_tombstone(row: &Value) -> bool {
    row.get("deleted").and_then(Value::as_bool) == Some(true)
}

fn checksum_of(state: Option<&[u8]>) -> String {
    state.map(|bytes| header::checksum("", [bytes])).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use serde_json::json;

    use super::*;

    const STATE: Option<&[u8]> = Some(b"state");

    fn page(ids: &[u64], total: Option<u64>) -> Page {
        let rows = ids.iter().map(|id| (id.to_string(), json!({"id": id.to_string(), "name": "灯"})));
        Page { rows: rows.collect(), length: ids.len() as u64, total, is_only: false }
    }

    fn held(pages: &[Page]) -> HeldRows {
        let mut held = HeldRows::new("t", "id", STATE, 1_000);
        pages.iter().for_each(|page| held.add_page(page));
        held
    }

    fn saved(held: &HeldRows) -> Vec<u8> {
        held.to_pieces().concat()
    }

    fn loaded(bytes: &[u8], state: Option<&[u8]>) -> Result<HeldRows, &'static str> {
        HeldRows::from_bytes(&Bytes::copy_from_slice(bytes), "t", "id", state, 2_000)
    }

    fn rows(held: &HeldRows) -> Vec<(String, bool, bool)> {
        let mut rows = Vec::new();
        held.for_each(|row| rows.push((row.id, row.content.is_some(), row.is_fresh))).unwrap();
        rows
    }

    #[test]
    fn a_checkpoint_goes_on_from_its_end_and_every_changed_byte_is_noticed() {
        let mut first = held(&[page(&[1, 2], Some(5))]);
        first.add([("9", None)]);
        let bytes = saved(&first);
        let again = loaded(&bytes, STATE).unwrap();
        assert_eq!((again.next_page(), again.len(), again.unread()), (Some(2), 3, 2));
        let expected = [("1", true, true), ("2", true, true), ("9", false, true)];
        assert_eq!(
            rows(&again),
            expected.map(|(id, is_there, is_fresh)| (id.to_owned(), is_there, is_fresh))
        );
        assert_eq!(saved(&again), bytes);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(loaded(&damaged, STATE).is_err(), "byte {at} changed");
            assert!(loaded(&bytes[..at], STATE).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn one_of_another_target_or_id_field_or_of_yesterday_is_of_no_use() {
        let bytes = Bytes::from(saved(&held(&[page(&[1], None)])));
        let day_ms = 24 * 3600 * 1000;
        for (target, id_field, now_ms, is_usable) in [
            ("t", "id", 1_000 + day_ms, true),
            ("t", "id", 1_001 + day_ms, false),
            ("t", "id", 999, false),
            ("u", "id", 2_000, false),
            ("t", "productGroupId", 2_000, false),
        ] {
            let read = HeldRows::from_bytes(&bytes, target, id_field, STATE, now_ms);
            assert_eq!(read.is_ok(), is_usable, "{target} {id_field} {now_ms}");
        }
    }

    #[test]
    fn rows_that_were_read_before_a_sync_wrote_stay_stale_in_later_checkpoints() {
        let bytes = saved(&held(&[page(&[1], Some(3))]));
        let mut later = loaded(&bytes, Some(b"another state")).unwrap();
        assert!(later.has_stale_rows());
        later.add_page(&page(&[2], Some(3)));
        let again = loaded(&saved(&later), Some(b"another state")).unwrap();
        let expected = [("1", true, false), ("2", true, true)];
        assert_eq!(
            rows(&again),
            expected.map(|(id, is_there, is_fresh)| (id.to_owned(), is_there, is_fresh))
        );
    }

    #[test]
    fn the_last_page_is_known_by_the_total_or_by_bringing_nothing_new() {
        for (pages, is_complete) in [
            (vec![page(&[1, 2], Some(3))], false),
            (vec![page(&[1, 2], Some(3)), page(&[3], Some(3))], true),
            (vec![page(&[1, 2], None)], false),
            (vec![page(&[1, 2], None), page(&[], None)], true),
            (vec![page(&[1, 2], Some(1_000)), page(&[1, 2], Some(1_000))], true),
            // A row that is seen twice hides another one: the total counts rows, so one more page is asked for.
            (vec![page(&[1, 2], Some(4)), page(&[2, 3], Some(4))], false),
        ] {
            assert_eq!(held(&pages).next_page().is_none(), is_complete, "{pages:?}");
        }
    }

    #[test]
    fn a_page_of_known_rows_is_not_the_last_one_if_rows_were_written_between() {
        let bytes = saved(&held(&[page(&[1, 2], Some(6))]));
        let mut later = loaded(&bytes, Some(b"another state")).unwrap();
        later.add_page(&page(&[1, 2], Some(8)));
        assert_eq!(later.next_page(), Some(3));
        later.add_page(&page(&[1, 2], Some(8)));
        later.add_page(&page(&[1, 2], Some(8)));
        assert_eq!(later.next_page(), None, "it does not go on for ever");
    }
}
