//! The row ledger in the store: found row by row, saved segment by segment.
//!
//! A run that changes nothing does not come here. One that changes a row reads the beginning of each slot (64 KiB, which
//! mostly is header and index) and the block that has the row, and saves what it sent:
//!
//! | the segment of what the run sent, with | fits into | then the store is called |
//! |---|---|---|
//! | the latest | 256 KiB | 1 GET, 1 PUT |
//! | the recent and the latest | 2 MiB | 2 GET, 2 PUT: the latest is empty now |
//! | all | | 3 GET, 3 PUT |
//!
//! So a run with one changed row writes 256 KiB at most, and all is written anew once for 2 MiB of changes, which are some
//! 60,000 rows. Every save takes in the slots above its own, so the order of slots is the order of time, and a kill between
//! two PUTs leaves rows twice and loses none.
//!
//! Deliberately absent: a failure. Former values are for people; a run whose store fails here goes on, and says that
//! they are not known.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use bytes::{Bytes, BytesMut};
use object_store::PutPayload;

use super::RunContext;
use crate::catalogue::RecordId;
use crate::error::Result;
use crate::ledger::{Head, Needs, Segment, Slot, counts, merge};
use crate::state::Fingerprint;
use crate::store::{Store, paths};
use crate::transform::Former;

/// Bytes of a slot that are read at first.
const START_BYTES: usize = 64 * 1024;
/// Blocks of a slot that are read one by one; more are read with all the others.
const SINGLE_BLOCKS: usize = 8;

/// The acknowledged content of rows, by their ids.
pub(super) type Contents = HashMap<RecordId, Bytes>;

/// A row's id, and what the target has acknowledged of it.
pub(super) type Wanted<'r> = (&'r str, Option<Fingerprint>);

impl Former for Contents {
    fn content(&self, id: &str) -> Option<Cow<'_, [u8]>> {
        self.get(id).map(|content| Cow::Borrowed(content.as_ref()))
    }
}

/// A connection's ledger.
pub(super) struct RowLedger<'a> {
    store: &'a Store,
    connection: &'a str,
    /// The slots that are there; `None` until somebody asks.
    open: Option<Vec<Open>>,
}

/// A slot whose beginning was read.
struct Open {
    path: String,
    head: Head,
    /// The file from its first byte, as far as it was read.
    start: Bytes,
}

impl<'a> RowLedger<'a> {
    pub(super) fn new(context: &RunContext<'a>) -> Self {
        Self { store: context.store, connection: context.connection, open: None }
    }

    /// The content of these rows, as far as it is known: what the target has acknowledged, and nothing else.
    pub(super) async fn contents(&mut self, wanted: &[(&str, Fingerprint)]) -> Contents {
        let wanted: Vec<Wanted<'_>> = wanted.iter().map(|(id, known)| (*id, Some(*known))).collect();
        self.last_contents(&wanted).await
    }

    /// The same; of rows without a fingerprint what the target has acknowledged last, as far as the ledger knows. It may
    /// hold something newer.
    pub(super) async fn last_contents(&mut self, wanted: &[Wanted<'_>]) -> Contents {
        let mut found = Contents::new();
        if wanted.is_empty() {
            return found;
        }
        if self.open.is_none() {
            self.open = Some(open(self.store, self.connection).await);
        }
        for slot in self.open.iter_mut().flatten() {
            let mut blocks: BTreeMap<usize, Vec<Wanted<'_>>> = BTreeMap::new();
            for (id, acknowledged) in wanted.iter().filter(|(id, _)| !found.contains_key(*id)) {
                if let Some(block) = slot.head.block_of(id) {
                    blocks.entry(block).or_default().push((id, *acknowledged));
                }
            }
            if let Err(why) = slot.find(self.store, &blocks, &mut found).await {
                set_aside(&slot.path, &why);
            }
        }
        found
    }

    /// Saves what the target has acknowledged since the last time.
    pub(super) async fn add(&mut self, segment: Segment) {
        if segment.is_empty() {
            return;
        }
        self.open = None;
        if let Err(error) = self.save(segment).await {
            tracing::warn!(error = %error.line(), "the row ledger cannot be kept; former values of these rows will not be known");
        }
    }

    async fn save(&self, segment: Segment) -> Result<()> {
        let mut segments = vec![segment];
        // Slots whose rows move on, by their keys.
        let mut moved = Vec::new();
        for (slot, path) in Slot::ALL.into_iter().zip(paths::ledger(self.connection)) {
            let stored = load(self.store, self.connection, &path).await?;
            let was_empty = stored.as_ref().is_none_or(Segment::is_empty);
            segments.extend(stored);
            let merged = merge(std::mem::take(&mut segments), slot == Slot::Main);
            if merged.bytes() <= slot.most_bytes() {
                self.put(&path, &merged).await?;
                break;
            }
            segments = vec![merged];
            moved.extend((!was_empty).then_some(path));
        }
        for path in moved {
            self.put(&path, &Segment::default()).await?;
        }
        Ok(())
    }

    /// Replaces all that is known: the target was read back.
    pub(super) async fn replace(&mut self, segment: &Segment) {
        self.open = None;
        let [latest, recent, main] = paths::ledger(self.connection);
        let nothing = Segment::default();
        for (path, segment) in [(main, segment), (recent, &nothing), (latest, &nothing)] {
            if let Err(error) = self.put(&path, segment).await {
                tracing::warn!(error = %error.line(), "the row ledger cannot be rebuilt; former values will not be known");
                return;
            }
        }
    }

    async fn put(&self, path: &str, segment: &Segment) -> Result<()> {
        self.store.put(path, PutPayload::from_iter(segment.to_pieces(self.connection))).await
    }
}

fn set_aside(path: &str, why: &str) {
    tracing::warn!(
        path,
        why,
        "the row ledger is set aside; former values are not known until rows are sent again, or state rebuild reads them back"
    );
}

/// A slot as a whole; `None` if there is none, or if it is damaged.
async fn load(store: &Store, connection: &str, path: &str) -> Result<Option<Segment>> {
    let Some((bytes, _)) = store.load(path).await? else { return Ok(None) };
    match Segment::from_bytes(&bytes, connection) {
        Ok(segment) => Ok(Some(segment)),
        Err(why) => {
            set_aside(path, why);
            Ok(None)
        }
    }
}

async fn open(store: &Store, connection: &str) -> Vec<Open> {
    let slots = paths::ledger(connection).map(|path| open_slot(store, connection, path));
    futures::future::join_all(slots).await.into_iter().flatten().collect()
}

async fn open_slot(store: &Store, connection: &str, path: String) -> Option<Open> {
    match read_head(store, connection, &path).await {
        Ok(found) => found.map(|(head, start)| Open { path, head, start }),
        Err(why) => {
            set_aside(&path, &why);
            None
        }
    }
}

async fn read_head(store: &Store, connection: &str, path: &str) -> Result<Option<(Head, Bytes)>, String> {
    let mut bytes = START_BYTES;
    // The first answer says how long header and index are, the second has them.
    for _ in 0..2 {
        let part = store.load_part(path, 0..bytes as u64).await.map_err(|error| error.line())?;
        let Some(start) = part else { return Ok(None) };
        match Head::read(&start, connection)? {
            Needs::Nothing(head) => return Ok(Some((head, start))),
            Needs::Bytes(more) if more > bytes => bytes = more,
            Needs::Bytes(_) => break,
        }
    }
    Err("it is damaged".to_owned())
}

impl Open {
    async fn find(
        &mut self,
        store: &Store,
        blocks: &BTreeMap<usize, Vec<Wanted<'_>>>,
        found: &mut Contents,
    ) -> Result<(), String> {
        let is_missing =
            |block: &&usize| self.head.range(**block).is_some_and(|range| range.end > self.start.len());
        if blocks.keys().filter(is_missing).count() > SINGLE_BLOCKS {
            self.read_all(store).await?;
        }
        for (block, wanted) in blocks {
            let packed = self.block(store, *block).await?;
            self.head.rows(*block, &packed, |id, content| {
                let is_wanted = |(wanted, acknowledged): &&Wanted<'_>| {
                    *wanted == id && acknowledged.is_none_or(|known| counts(content, known))
                };
                if wanted.iter().any(|row| is_wanted(&row)) {
                    found.insert(id.into(), Bytes::copy_from_slice(content));
                }
            })?;
        }
        Ok(())
    }

    /// Reads what is left of the file.
    async fn read_all(&mut self, store: &Store) -> Result<(), String> {
        let end = self
            .head
            .blocks
            .len()
            .checked_sub(1)
            .and_then(|last| self.head.range(last))
            .map_or(0, |last| last.end);
        let rest = self.part(store, self.start.len()..end).await?;
        let mut all = BytesMut::with_capacity(end);
        all.extend_from_slice(&self.start);
        all.extend_from_slice(&rest);
        self.start = all.freeze();
        Ok(())
    }

    async fn block(&self, store: &Store, block: usize) -> Result<Bytes, String> {
        let range = self.head.range(block).ok_or("it is damaged")?;
        if range.end <= self.start.len() {
            return Ok(self.start.slice(range));
        }
        self.part(store, range).await
    }

    async fn part(&self, store: &Store, range: std::ops::Range<usize>) -> Result<Bytes, String> {
        let part = store.load_part(&self.path, range.start as u64..range.end as u64).await;
        part.map_err(|error| error.line())?.ok_or_else(|| "it is gone".to_owned())
    }
}
