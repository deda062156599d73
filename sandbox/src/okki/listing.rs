//! What the product list shows: the catalogue, or the catalogue as it was some time ago.

use std::collections::VecDeque;

use super::index::{Filter, Index, Order};
use crate::catalogue::{Catalogue, Product};
use crate::people::PastChange;

/// A new index is built faster than it follows so many changes of single products.
const MANY_CHANGES: usize = 256;

/// A change of one product. Positions are those of the moment of the change.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Add(Box<Product>),
    Replace(usize, Box<Product>),
    /// The last product takes the position.
    Remove(usize),
}

/// The list with its index, which follows the changes of single products.
#[derive(Default)]
pub(crate) struct Listing {
    index: Index,
    /// Counts changes of what is shown.
    revision: u64,
    /// If changes show late.
    lag: Option<Lag>,
}

/// A copy of the catalogue that gets its changes later, in their order: positions stay the same in both.
struct Lag {
    shown: Catalogue,
    /// Each with the time when it shows (milliseconds).
    waiting: VecDeque<(u64, Waiting)>,
}

enum Waiting {
    One(Change),
    All(Box<Catalogue>),
}

impl Listing {
    /// Lets changes show late from now on, or everything at once.
    pub(crate) fn lag(&mut self, is_late: bool, catalogue: &Catalogue) {
        if is_late == self.lag.is_some() {
            return;
        }
        self.lag = is_late.then(|| Lag { shown: catalogue.clone(), waiting: VecDeque::new() });
        self.show_anew();
    }

    fn show_anew(&mut self) {
        self.index.forget();
        self.revision += 1;
    }

    /// Applies a change of one product to the catalogue and shows it at `shown_at_ms`. Returns the product that was
    /// there.
    pub(crate) fn change(
        &mut self,
        catalogue: &mut Catalogue,
        change: Change,
        shown_at_ms: u64,
    ) -> Option<Product> {
        match &mut self.lag {
            Some(lag) => {
                lag.waiting.push_back((shown_at_ms, Waiting::One(change.clone())));
                change.apply(catalogue, None)
            }
            None => {
                self.revision += 1;
                change.apply(catalogue, Some(&mut self.index))
            }
        }
    }

    /// Notes that the catalogue has changed anyhow, and shows that at `shown_at_ms`.
    pub(crate) fn change_anyhow(&mut self, catalogue: &Catalogue, shown_at_ms: u64) {
        match &mut self.lag {
            Some(lag) => {
                lag.waiting.push_back((shown_at_ms, Waiting::All(Box::new(catalogue.clone()))));
            }
            None => self.show_anew(),
        }
    }

    /// Prepares for so many changes of single products.
    pub(crate) fn expect_changes(&mut self, count: usize) {
        if count > MANY_CHANGES && self.lag.is_none() {
            self.index.forget();
        }
    }

    /// Shows the changes whose time has come.
    pub(super) fn show_what_is_due(&mut self, now_ms: u64) {
        let Some(lag) = &mut self.lag else { return };
        if lag.waiting.get(MANY_CHANGES).is_some_and(|(shown_at_ms, _)| *shown_at_ms <= now_ms) {
            self.index.forget();
        }
        while lag.waiting.front().is_some_and(|(shown_at_ms, _)| *shown_at_ms <= now_ms) {
            self.revision += 1;
            match lag.waiting.pop_front() {
                Some((_, Waiting::One(change))) => drop(change.apply(&mut lag.shown, Some(&mut self.index))),
                Some((_, Waiting::All(catalogue))) => {
                    lag.shown = *catalogue;
                    self.index.forget();
                }
                None => return,
            }
        }
    }

    /// What is shown in place of the catalogue.
    pub(super) fn shown<'a>(&'a self, catalogue: &'a Catalogue) -> &'a Catalogue {
        self.lag.as_ref().map_or(catalogue, |lag| &lag.shown)
    }

    /// How many products match, and the positions of those from the first of `places` on, the second at most.
    pub(super) fn page(
        &mut self,
        catalogue: &Catalogue,
        filter: Filter,
        order: Order,
        places: (usize, usize),
    ) -> (usize, Vec<u32>) {
        let shown = self.lag.as_ref().map_or(catalogue, |lag| &lag.shown);
        self.index.refresh(shown);
        self.index.page(shown, filter, order, places)
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn group_name(&self, id: &str) -> &str {
        self.index.group_name(id)
    }
}

impl Change {
    /// What the log of changes keeps of it.
    pub(crate) fn record(&self, catalogue: &Catalogue, at_ms: u64) -> Option<PastChange> {
        let (id, product) = match self {
            Self::Add(product) | Self::Replace(_, product) => {
                (&product.product_id, Some(product.as_ref().clone()))
            }
            Self::Remove(at) => (&catalogue.products.get(*at)?.product_id, None),
        };
        Some(PastChange { at_ms, product_id: id.clone(), product })
    }

    /// Returns the product that was there.
    fn apply(self, catalogue: &mut Catalogue, index: Option<&mut Index>) -> Option<Product> {
        let products = &mut catalogue.products;
        match self {
            Self::Add(product) => {
                if let Some(index) = index {
                    index.add(&product, products.len() as u32);
                }
                products.push(*product);
                None
            }
            Self::Replace(at, product) => {
                let slot = products.get_mut(at)?;
                if let Some(index) = index {
                    index.replace((slot, at as u32), (&product, at as u32));
                }
                Some(std::mem::replace(slot, *product))
            }
            Self::Remove(at) => {
                if at >= products.len() {
                    return None;
                }
                let removed = products.swap_remove(at);
                if let Some(index) = index {
                    index.remove(&removed, at as u32);
                    if let Some(moved) = products.get(at) {
                        index.replace((moved, products.len() as u32), (moved, at as u32));
                    }
                }
                Some(removed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::index::TimeRange;
    use super::*;
    use fastrand::Rng;

    const NOW: i64 = 1_800_000_000;

    /// A change as people make it; few seconds and repeated ids make many ties.
    fn draw(catalogue: &Catalogue, rng: &mut Rng) -> Change {
        let at = rng.usize(0..catalogue.products.len());
        let mut product = catalogue.products[at].clone();
        product.update_time = NOW + rng.i64(0..5);
        match rng.u8(0..4) {
            0 => Change::Remove(at),
            1 => {
                product.product_id = (37_004_000_000 + rng.u64(0..500)).to_string();
                product.create_time = if rng.u8(0..4) == 0 { Product::UNTIMED } else { NOW + rng.i64(0..5) };
                Change::Add(Box::new(product))
            }
            2 => {
                product.product_type = rng.u8(1..4);
                Change::Replace(at, Box::new(product))
            }
            _ => Change::Replace(at, Box::new(product)),
        }
    }

    fn filters() -> Vec<Filter> {
        let range = |by_creation, from, to| Some(TimeRange { by_creation, from, to });
        let times = [
            None,
            range(false, NOW, NOW + 2),
            range(true, i64::MIN, NOW + 2),
            range(true, NOW - 40_000_000, NOW - 10_000_000),
            range(false, NOW + 9, NOW),
        ];
        let of = |time| [None, Some(2)].map(|product_type| Filter { time, product_type });
        times.into_iter().flat_map(of).collect()
    }

    #[test]
    fn an_index_that_follows_changes_is_the_one_that_is_built_anew() {
        let orders = [
            Order::ById,
            Order::NewestFirst { ties: None },
            Order::NewestFirst { ties: Some(3) },
            Order::Shuffled(3),
        ];
        let mut rng = Rng::with_seed(4);
        let mut catalogue = Catalogue::generate(1, 20, 300, true, NOW);
        let mut listing = Listing::default();
        for turn in 0..100 {
            for (filter, order) in
                filters().into_iter().flat_map(|filter| orders.map(|order| (filter, order)))
            {
                let followed = listing.page(&catalogue, filter, order, (2, 40));
                let anew = Listing::default().page(&catalogue, filter, order, (2, 40));
                let sorted = !matches!(order, Order::Shuffled(_));
                // The rows of a shuffle are the same, its base may be another.
                assert!(followed.0 == anew.0 && (!sorted || followed == anew), "{turn} {filter:?} {order:?}");
            }
            let change = draw(&catalogue, &mut rng);
            listing.change(&mut catalogue, change, 0);
            assert!(listing.index.is_fresh(), "{turn}");
        }
    }
}
