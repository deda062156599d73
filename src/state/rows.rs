//! Rows by their id, with all ids side by side in one text.
//!
//! An `IndexMap<CompactString, Fingerprint>` does the same in half the lines and as fast. It holds 13.4 MB at 200,000 rows
//! where this holds 9.0, and 107 MB at a million where this holds 46 (allocated bytes, ids of 11 digits, room reserved):
//! a quarter of a function's 256 MB. Loading takes 30 ms either way, asking in order 1 ms.

use std::fmt;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::Fingerprint;
use crate::catalogue::id_hash;

/// What the target holds of a row, as far as it has acknowledged it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledged {
    /// This content.
    Known(Fingerprint),
    /// The row was about to be sent for the first time: the target may have it. Saved before the sending, so that a row
    /// whose run was killed, and which the source then removes, is still deleted at the target.
    Unknown,
    /// The target has the row, which was about to be sent with other content, or deleted. Saved before the sending, so
    /// that a change whose run was killed, and which people then take back, is taken back at the target too.
    Unsure,
}

/// [`Acknowledged`], or nothing, in the 16 bytes of a fingerprint. No fingerprint is one of these three values.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark(u128);

impl Mark {
    const UNKNOWN: Self = Self(0);
    const UNSURE: Self = Self(1);
    /// The row was removed; its place stays.
    const REMOVED: Self = Self(u128::MAX);

    fn acknowledged(self) -> Option<Acknowledged> {
        match self {
            Self::REMOVED => None,
            Self::UNKNOWN => Some(Acknowledged::Unknown),
            Self::UNSURE => Some(Acknowledged::Unsure),
            Self(bits) => Some(Acknowledged::Known(Fingerprint(bits))),
        }
    }
}

impl From<Acknowledged> for Mark {
    fn from(acknowledged: Acknowledged) -> Self {
        match acknowledged {
            Acknowledged::Unknown => Self::UNKNOWN,
            Acknowledged::Unsure => Self::UNSURE,
            Acknowledged::Known(fingerprint) => Self(fingerprint.bits()),
        }
    }
}

/// Rows by their id, in the order in which the ids first came: what did not change is the same text when it is saved.
#[derive(Clone, Default)]
pub struct Rows {
    ids: String,
    /// Where each id ends in the text.
    ends: Vec<usize>,
    marks: Vec<Mark>,
    /// Places by id.
    index: HashTable<u32>,
}

fn id_at<'a>(ids: &'a str, ends: &[usize], place: usize) -> &'a str {
    let start = place.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
    ends.get(place).and_then(|end| ids.get(start..*end)).unwrap_or_default()
}

impl Rows {
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Number of places, those of removed rows included.
    pub fn places(&self) -> usize {
        self.ends.len()
    }

    /// Makes room for this many more rows.
    pub fn reserve(&mut self, rows: usize) {
        let Self { ids, ends, marks, index } = self;
        ends.reserve(rows);
        marks.reserve(rows);
        index.reserve(rows, |place| id_hash(id_at(ids, ends, *place as usize)));
    }

    /// The place of a row.
    pub fn place(&self, id: &str) -> Option<usize> {
        let is_it = |place: &u32| id_at(&self.ids, &self.ends, *place as usize) == id;
        self.index.find(id_hash(id), is_it).map(|place| *place as usize)
    }

    /// The place of a row that is probably at `expected`: most callers ask for rows in the order in which they came.
    pub fn place_near(&self, expected: usize, id: &str) -> Option<usize> {
        let is_there = id_at(&self.ids, &self.ends, expected) == id && self.at(expected).is_some();
        if is_there { Some(expected) } else { self.place(id) }
    }

    /// Replaces what is known of the row at a place; does nothing where there is no place.
    pub fn set(&mut self, place: usize, acknowledged: Acknowledged) {
        if let Some(mark) = self.marks.get_mut(place) {
            *mark = acknowledged.into();
        }
    }

    /// What is known of the row at a place; `None` if it was removed.
    pub fn at(&self, place: usize) -> Option<Acknowledged> {
        self.marks.get(place).and_then(|mark| mark.acknowledged())
    }

    /// What is known of a row.
    pub fn get(&self, id: &str) -> Option<Acknowledged> {
        self.place(id).and_then(|place| self.at(place))
    }

    /// Adds a row, or replaces what is known of it and returns what was.
    pub fn insert(&mut self, id: &str, acknowledged: Acknowledged) -> Option<Acknowledged> {
        let Self { ids, ends, marks, index } = self;
        let is_it = |place: &u32| id_at(ids, ends, *place as usize) == id;
        match index.entry(id_hash(id), is_it, |place| id_hash(id_at(ids, ends, *place as usize))) {
            Entry::Occupied(place) => {
                let mark = marks.get_mut(*place.get() as usize)?;
                std::mem::replace(mark, acknowledged.into()).acknowledged()
            }
            Entry::Vacant(vacant) => {
                // Four thousand million rows are more than any source's.
                vacant.insert(u32::try_from(ends.len()).unwrap_or(u32::MAX));
                ids.push_str(id);
                ends.push(ids.len());
                marks.push(acknowledged.into());
                None
            }
        }
    }

    /// Removes a row. Its place stays.
    pub fn remove(&mut self, id: &str) {
        let Self { ids, ends, marks, index } = self;
        let is_it = |place: &u32| id_at(ids, ends, *place as usize) == id;
        let Ok(found) = index.find_entry(id_hash(id), is_it) else { return };
        let (place, _) = found.remove();
        if let Some(mark) = marks.get_mut(place as usize) {
            *mark = Mark::REMOVED;
        }
    }

    /// All rows with their places.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &str, Acknowledged)> {
        let rows = self.marks.iter().enumerate();
        let there = rows.filter_map(|(place, mark)| Some((place, mark.acknowledged()?)));
        there.map(|(place, acknowledged)| (place, id_at(&self.ids, &self.ends, place), acknowledged))
    }
}

impl<'a> Extend<(&'a str, Acknowledged)> for Rows {
    fn extend<T: IntoIterator<Item = (&'a str, Acknowledged)>>(&mut self, rows: T) {
        for (id, acknowledged) in rows {
            self.insert(id, acknowledged);
        }
    }
}

impl PartialEq for Rows {
    fn eq(&self, other: &Self) -> bool {
        let same = |(_, id, acknowledged)| other.get(id) == Some(acknowledged);
        self.len() == other.len() && self.iter().all(same)
    }
}

impl Eq for Rows {}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(_, id, acknowledged)| (id, acknowledged))).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Numbers stand for ids; a row of which nothing is known is removed.
        #[test]
        fn it_holds_what_a_map_holds(steps in prop::collection::vec((0_u8..20, prop::option::of(0_u128..5)), 0..80)) {
            let (mut rows, mut map) = (Rows::default(), BTreeMap::new());
            for (id, mark) in steps {
                let id = id.to_string();
                match mark.and_then(|mark| Mark(mark).acknowledged()) {
                    Some(acknowledged) => {
                        prop_assert_eq!(rows.insert(&id, acknowledged), map.insert(id, acknowledged));
                    }
                    None => {
                        rows.remove(&id);
                        map.remove(&id);
                    }
                }
            }
            prop_assert_eq!(rows.len(), map.len());
            let listed: BTreeMap<String, Acknowledged> =
                rows.iter().map(|(_, id, acknowledged)| (id.to_owned(), acknowledged)).collect();
            prop_assert_eq!(&listed, &map);
            prop_assert!(map.iter().all(|(id, acknowledged)| rows.get(id) == Some(*acknowledged)));
            for (expected, id) in (0..25).flat_map(|expected| (0..20).map(move |id| (expected, id.to_string()))) {
                prop_assert_eq!(rows.place_near(expected, &id), rows.place(&id));
            }
        }
    }
}
