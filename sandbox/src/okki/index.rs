//! Which products a list call wants and in which order, found without rendering them.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use super::permutation::{mix, shuffled};
use crate::catalogue::{Catalogue, Product};

/// Filters whose rows are remembered, so that page 1,000 of a list is found as fast as page 1.
const FILTERS: usize = 64;
/// Rows that all remembered filters have together, for each product of the catalogue.
const REMEMBERED_ROWS: usize = 4;

/// Which products a list call wants.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Filter {
    pub(super) time: Option<TimeRange>,
    pub(super) product_type: Option<u8>,
}

/// Unix seconds, both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TimeRange {
    pub(super) by_creation: bool,
    pub(super) from: i64,
    pub(super) to: i64,
}

impl Filter {
    fn matches(&self, product: &Product) -> bool {
        self.product_type.is_none_or(|wanted| product.product_type == wanted)
            && self.time.is_none_or(|range| range.holds(product))
    }
}

impl TimeRange {
    fn holds(&self, product: &Product) -> bool {
        let time = if self.by_creation { product.create_time } else { product.update_time };
        time != Product::UNTIMED && (self.from..=self.to).contains(&time)
    }
}

/// The order of a list's pages.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    ById,
    /// `ties` shuffles the rows of one second; without it they come by id.
    NewestFirst {
        ties: Option<u64>,
    },
    Shuffled(u64),
}

/// What rows are sorted by. Their ids break ties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Id,
    Creation,
    Update,
}

/// Sort value, id, and position in the catalogue.
type Key = (i64, u64, u32);

impl Sort {
    fn key(self, product: &Product, at: u32) -> Key {
        let id = number(product);
        match self {
            Self::Id => (0, id, at),
            Self::Creation => (product.create_time, id, at),
            // Read from its end, so that the newest row, which each edit adds, moves no other; ids ascend then.
            Self::Update => (product.update_time, !id, at),
        }
    }
}

fn number(product: &Product) -> u64 {
    product.product_id.parse().unwrap_or(0)
}

/// What queries over a catalogue need. A change of one product takes one move within each list that has it.
///
/// Rows are rendered when their page is asked for: 200,000 rendered rows would take a quarter of a gigabyte.
#[derive(Default)]
pub(super) struct Index {
    /// Whether it is that of the catalogue.
    fresh: bool,
    by_id: Vec<Key>,
    /// Without the products that have no creation time.
    by_creation: Vec<Key>,
    by_update: Vec<Key>,
    group_names: HashMap<String, String>,
    /// The last used one is the last.
    remembered: VecDeque<Remembered>,
}

struct Remembered {
    filter: Filter,
    sort: Sort,
    keys: Vec<Key>,
}

impl Index {
    /// The catalogue has changed in a way that only a new index can follow.
    pub(super) fn forget(&mut self) {
        self.fresh = false;
    }

    #[cfg(test)]
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Builds the index if it is not that of the catalogue.
    pub(super) fn refresh(&mut self, catalogue: &Catalogue) {
        if self.fresh {
            return;
        }
        let sorted = |sort: Sort, filter: fn(&Product) -> bool| {
            let rows = (0..).zip(&catalogue.products).filter(|(_, product)| filter(product));
            let mut keys: Vec<Key> = rows.map(|(at, product)| sort.key(product, at)).collect();
            keys.sort_unstable();
            keys
        };
        *self = Self {
            fresh: true,
            by_id: sorted(Sort::Id, |_| true),
            by_creation: sorted(Sort::Creation, Product::is_timed),
            by_update: sorted(Sort::Update, |_| true),
            group_names: catalogue.group_names(),
            remembered: VecDeque::new(),
        };
    }

    /// Follows a product that came to this position.
    pub(super) fn add(&mut self, product: &Product, at: u32) {
        self.for_each_list(|sort, filter, keys| {
            if filter(product) {
                insert(keys, sort.key(product, at));
            }
            Some(())
        });
    }

    /// Follows a product that leaves this position.
    pub(super) fn remove(&mut self, product: &Product, at: u32) {
        self.for_each_list(|sort, filter, keys| {
            if filter(product) {
                remove(keys, &sort.key(product, at))?;
            }
            Some(())
        });
    }

    /// Follows a product that changes, or moves to another position.
    pub(super) fn replace(&mut self, old: (&Product, u32), new: (&Product, u32)) {
        self.for_each_list(|sort, filter, keys| {
            let (from, to) = (sort.key(old.0, old.1), sort.key(new.0, new.1));
            match (filter(old.0), filter(new.0)) {
                (true, true) if from != to => shift(keys, &from, to)?,
                (true, false) => remove(keys, &from)?,
                (false, true) => insert(keys, to),
                _ => {}
            }
            Some(())
        });
    }

    /// Changes each list, given what it is sorted by and what it holds. A list that lacks what it should hold makes
    /// the index start anew.
    fn for_each_list(
        &mut self,
        mut change: impl FnMut(Sort, &dyn Fn(&Product) -> bool, &mut Vec<Key>) -> Option<()>,
    ) {
        if !self.fresh {
            return;
        }
        let mut done = change(Sort::Id, &|_| true, &mut self.by_id)
            .and_then(|()| change(Sort::Creation, &Product::is_timed, &mut self.by_creation))
            .and_then(|()| change(Sort::Update, &|_| true, &mut self.by_update));
        for Remembered { filter, sort, keys } in &mut self.remembered {
            done = done.and_then(|()| change(*sort, &|product| filter.matches(product), keys));
        }
        self.fresh = done.is_some();
    }

    /// How many products match, and the positions of those from place `skipped` on, `wanted` at most. Call
    /// [`Index::refresh`] first.
    pub(super) fn page(
        &mut self,
        catalogue: &Catalogue,
        filter: Filter,
        order: Order,
        (skipped, wanted): (usize, usize),
    ) -> (usize, Vec<u32>) {
        let keys = self.keys(catalogue, filter, order);
        let total = keys.len();
        let places = skipped.min(total)..skipped.saturating_add(wanted).min(total);
        let positions = places.filter_map(|place| {
            let at = match order {
                Order::ById => place,
                Order::Shuffled(key) => shuffled(place, total, key),
                Order::NewestFirst { ties: None } => total - 1 - place,
                Order::NewestFirst { ties: Some(key) } => swap_within_second(keys, total - 1 - place, key),
            };
            keys.get(at).map(|key| key.2)
        });
        (total, positions.collect())
    }

    /// The products that match, sorted as the order needs it.
    fn keys(&mut self, catalogue: &Catalogue, filter: Filter, order: Order) -> &[Key] {
        let sort = match order {
            Order::ById => Some(Sort::Id),
            Order::NewestFirst { .. } => Some(Sort::Update),
            Order::Shuffled(_) => None,
        };
        let (own_sort, range) = self.candidates(filter.time);
        if filter.product_type.is_none() && sort.is_none_or(|sort| sort == own_sort) {
            return self.list(own_sort).get(range).unwrap_or_default();
        }
        if filter == Filter::default() && sort == Some(Sort::Update) {
            return &self.by_update;
        }
        let sort = sort.unwrap_or(own_sort);
        let known = self.remembered.iter().position(|known| known.filter == filter && known.sort == sort);
        let known = match known.and_then(|at| self.remembered.remove(at)) {
            Some(known) => known,
            None => {
                let rows = self.list(own_sort).get(range).unwrap_or_default().iter();
                let found = rows.filter_map(|key| Some((key.2, catalogue.products.get(key.2 as usize)?)));
                let found = found.filter(|(_, product)| filter.matches(product));
                let mut keys: Vec<Key> = found.map(|(at, product)| sort.key(product, at)).collect();
                keys.sort_unstable();
                Remembered { filter, sort, keys }
            }
        };
        self.remembered.push_back(known);
        self.forget_the_oldest();
        self.remembered.back().map_or(&[], |known| &known.keys)
    }

    fn forget_the_oldest(&mut self) {
        let most = self.by_id.len().saturating_mul(REMEMBERED_ROWS);
        let mut rows: usize = self.remembered.iter().map(|known| known.keys.len()).sum();
        while self.remembered.len() > FILTERS || (rows > most && self.remembered.len() > 1) {
            rows -= self.remembered.pop_front().map_or(rows, |known| known.keys.len());
        }
    }

    fn list(&self, sort: Sort) -> &[Key] {
        match sort {
            Sort::Id => &self.by_id,
            Sort::Creation => &self.by_creation,
            Sort::Update => &self.by_update,
        }
    }

    /// The list that has all products of a time range next to each other, and their places there.
    fn candidates(&self, time: Option<TimeRange>) -> (Sort, Range<usize>) {
        let Some(TimeRange { by_creation, from, to }) = time else { return (Sort::Id, 0..self.by_id.len()) };
        let sort = if by_creation { Sort::Creation } else { Sort::Update };
        let keys = self.list(sort);
        let start = keys.partition_point(|key| key.0 < from);
        let end = keys.partition_point(|key| key.0 <= to);
        (sort, start..end.max(start))
    }

    /// Empty for a group that does not exist.
    pub(super) fn group_name(&self, id: &str) -> &str {
        self.group_names.get(id).map_or("", String::as_str)
    }
}

/// The place of a row among those of its second, when these are shuffled.
fn swap_within_second(keys: &[Key], at: usize, key: u64) -> usize {
    let Some(&(second, ..)) = keys.get(at) else { return at };
    let start = keys.partition_point(|key| key.0 < second);
    let end = keys.partition_point(|key| key.0 <= second);
    start + shuffled(at - start, end - start, mix(key, second as u64))
}

fn insert(keys: &mut Vec<Key>, key: Key) {
    let place = keys.partition_point(|known| *known < key);
    keys.insert(place, key);
}

fn remove(keys: &mut Vec<Key>, key: &Key) -> Option<()> {
    let place = keys.binary_search(key).ok()?;
    keys.remove(place);
    Some(())
}

/// Replaces a key; only the rows between its old and its new place move.
fn shift(keys: &mut [Key], old: &Key, new: Key) -> Option<()> {
    let from = keys.binary_search(old).ok()?;
    let to = keys.partition_point(|known| *known < new);
    let place = if to > from {
        keys.get_mut(from..to)?.rotate_left(1);
        to - 1
    } else {
        keys.get_mut(to..=from)?.rotate_right(1);
        to
    };
    *keys.get_mut(place)? = new;
    Some(())
}
