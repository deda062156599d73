//! Rows by their id, side by side in one text: a million of them take 45 MB, where a map of strings takes twice as much.

use std::fmt;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::Fingerprint;
use crate::catalogue::id_hash;

/// Stands in the place of a row that was removed. No fingerprint is this one: see [`Fingerprint::of`].
const REMOVED: Fingerprint = Fingerprint(u128::MAX);

/// Fingerprints by the row's id, in the order in which the ids first came: what did not change is the same text.
#[derive(Clone, Default)]
pub struct Rows {
    ids: String,
    /// Where each id ends in the text.
    ends: Vec<usize>,
    fingerprints: Vec<Fingerprint>,
    /// Places by id.
    index: HashTable<u32>,
}

fn id_at<'a>(ids: &'a str, ends: &[usize], place: usize) -> &'a str {
    let start = place.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
    ends.get(place).and_then(|end| ids.get(start..*end)).unwrap_or_default()
}

impl Rows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Number of places, those of removed rows included.
    pub fn places(&self) -> usize {
        self.ends.len()
    }

    /// Makes room for so many rows more.
    pub fn reserve(&mut self, rows: usize) {
        let Self { ids, ends, fingerprints, index } = self;
        ends.reserve(rows);
        fingerprints.reserve(rows);
        index.reserve(rows, |place| id_hash(id_at(ids, ends, *place as usize)));
    }

    /// The place of a row.
    pub fn place(&self, id: &str) -> Option<usize> {
        let is_it = |place: &u32| id_at(&self.ids, &self.ends, *place as usize) == id;
        self.index.find(id_hash(id), is_it).map(|place| *place as usize)
    }

    /// The same, for whoever expects it at a place: rows mostly are asked for in the order in which they came.
    pub fn place_near(&self, expected: usize, id: &str) -> Option<usize> {
        let is_there = id_at(&self.ids, &self.ends, expected) == id && self.at(expected).is_some();
        if is_there { Some(expected) } else { self.place(id) }
    }

    /// Sets the fingerprint of the row at a place, which must be one.
    pub fn set(&mut self, place: usize, fingerprint: Fingerprint) {
        if let Some(known) = self.fingerprints.get_mut(place) {
            *known = fingerprint;
        }
    }

    /// The fingerprint at a place.
    pub fn at(&self, place: usize) -> Option<Fingerprint> {
        self.fingerprints.get(place).copied().filter(|fingerprint| *fingerprint != REMOVED)
    }

    /// The fingerprint of a row.
    pub fn get(&self, id: &str) -> Option<Fingerprint> {
        self.place(id).and_then(|place| self.at(place))
    }

    /// Sets the fingerprint of a row; gives back the one that it had.
    pub fn insert(&mut self, id: &str, fingerprint: Fingerprint) -> Option<Fingerprint> {
        let Self { ids, ends, fingerprints, index } = self;
        let is_it = |place: &u32| id_at(ids, ends, *place as usize) == id;
        match index.entry(id_hash(id), is_it, |place| id_hash(id_at(ids, ends, *place as usize))) {
            Entry::Occupied(place) => {
                fingerprints.get_mut(*place.get() as usize).map(|known| std::mem::replace(known, fingerprint))
            }
            Entry::Vacant(vacant) => {
                // Four thousand million rows are more than any source's.
                vacant.insert(u32::try_from(ends.len()).unwrap_or(u32::MAX));
                ids.push_str(id);
                ends.push(ids.len());
                fingerprints.push(fingerprint);
                None
            }
        }
    }

    /// Takes a row out.
    pub fn remove(&mut self, id: &str) {
        let Self { ids, ends, fingerprints, index } = self;
        let is_it = |place: &u32| id_at(ids, ends, *place as usize) == id;
        let Ok(found) = index.find_entry(id_hash(id), is_it) else { return };
        let (place, _) = found.remove();
        if let Some(fingerprint) = fingerprints.get_mut(place as usize) {
            *fingerprint = REMOVED;
        }
    }

    /// All rows with their places.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &str, Fingerprint)> {
        let rows = self.fingerprints.iter().enumerate().filter(|(_, fingerprint)| **fingerprint != REMOVED);
        rows.map(|(place, fingerprint)| (place, id_at(&self.ids, &self.ends, place), *fingerprint))
    }
}

impl<'a> Extend<(&'a str, Fingerprint)> for Rows {
    fn extend<T: IntoIterator<Item = (&'a str, Fingerprint)>>(&mut self, rows: T) {
        for (id, fingerprint) in rows {
            self.insert(id, fingerprint);
        }
    }
}

impl PartialEq for Rows {
    fn eq(&self, other: &Self) -> bool {
        let same = |(_, id, fingerprint)| other.get(id) == Some(fingerprint);
        self.len() == other.len() && self.iter().all(same)
    }
}

impl Eq for Rows {}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(_, id, fingerprint)| (id, fingerprint))).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Numbers stand for ids; a row without a fingerprint is taken out.
        #[test]
        fn it_holds_what_a_map_holds(steps in prop::collection::vec((0_u8..20, prop::option::of(0_u128..5)), 0..80)) {
            let (mut rows, mut map) = (Rows::default(), BTreeMap::new());
            for (id, fingerprint) in steps {
                let id = id.to_string();
                match fingerprint.map(Fingerprint) {
                    Some(fingerprint) => {
                        prop_assert_eq!(rows.insert(&id, fingerprint), map.insert(id, fingerprint));
                    }
                    None => {
                        rows.remove(&id);
                        map.remove(&id);
                    }
                }
            }
            prop_assert_eq!(rows.len(), map.len());
            let listed: BTreeMap<String, Fingerprint> =
                rows.iter().map(|(_, id, fingerprint)| (id.to_owned(), fingerprint)).collect();
            prop_assert_eq!(&listed, &map);
            prop_assert!(map.iter().all(|(id, fingerprint)| rows.get(id) == Some(*fingerprint)));
            for (expected, id) in (0..25).flat_map(|expected| (0..20).map(move |id| (expected, id.to_string()))) {
                prop_assert_eq!(rows.place_near(expected, &id), rows.place(&id));
            }
        }
    }
}
