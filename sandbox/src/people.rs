//! What people do to single products, once or without end. Unlike [`Sandbox::edit`] it costs little in a catalogue of
//! any size.

use std::collections::VecDeque;

use fastrand::Rng;
use serde_json::value::RawValue;

use crate::Sandbox;
use crate::catalogue::{Product, price};
use crate::okki::Change;
use crate::options::ChangeMix;
use crate::state::SandboxState;
use crate::stored_rows::RowKey;

/// Deleted products that can be restored.
const MOST_DELETED: usize = 10_000;
const MINUTE_MS: f64 = 60_000.0;

/// A change of one product in the past (see [`crate::Options::change_log`]).
#[derive(Debug, Clone, PartialEq)]
pub struct PastChange {
    /// When it happened: milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// The product's id.
    pub product_id: String,
    /// The product from then on; `None` if it was deleted.
    pub product: Option<Product>,
}

pub(crate) struct People {
    /// Apart from the other generators, so that neither a catalogue nor a working day depends on it.
    pub(crate) rng: Rng,
    /// Up to when (milliseconds) their changes have been applied.
    until_ms: u64,
    /// When (milliseconds) the next one is due, if people are at work.
    next_ms: Option<f64>,
    /// Deleted products, the last one at the end.
    deleted: VecDeque<Product>,
}

impl People {
    pub(crate) fn new(seed: u64, now_ms: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed ^ 0x9e0_91e),
            until_ms: now_ms,
            next_ms: None,
            deleted: VecDeque::new(),
        }
    }

    /// The time to the next change of many people who know nothing of each other: exponentially distributed.
    fn gap_ms(&mut self, changes_per_minute: f64) -> f64 {
        -(1.0 - self.rng.f64()).ln() * MINUTE_MS / changes_per_minute
    }
}

impl Sandbox {
    /// Edits one product and sets its update time. `false` if there is none with this id.
    pub fn update(&self, product_id: &str, edit: impl FnOnce(&mut Product)) -> bool {
        let (mut state, now) = self.state_now();
        let at = state.catalogue.products.iter().position(|product| product.product_id == product_id);
        at.is_some_and(|at| state.update_at(at, edit, now))
    }

    /// Deletes a product: it is gone from the list. `false` if there is none with this id.
    pub fn remove(&self, product_id: &str) -> bool {
        let (mut state, now) = self.state_now();
        state.remove_id(product_id, now)
    }

    /// Brings back the product with this id that [`Sandbox::remove`], a call or people have deleted: with its old
    /// creation time and a new update time. `false` if there is none.
    pub fn restore(&self, product_id: &str) -> bool {
        let (mut state, now) = self.state_now();
        let at = state.people.deleted.iter().rposition(|product| product.product_id == product_id);
        at.is_some_and(|at| state.restore(at, now))
    }

    /// Somebody works at the target itself: replaces a row that it holds, given as JSON. `false` if it holds none of its id.
    pub fn overwrite_target_row(&self, row: &str) -> bool {
        let (mut state, now) = self.state_now();
        let Ok(row) = serde_json::from_str::<&RawValue>(row) else { return false };
        let of_qeasy = RowKey::of(row).is_some_and(|key| state.qeasy.rows.contains(&key.id));
        let state = &mut *state;
        let rows = if of_qeasy { &mut state.qeasy.rows } else { &mut state.http_rows };
        match RowKey::of(row).filter(|key| rows.contains(&key.id)) {
            Some(key) => rows.put(key, row, now),
            None => return false,
        }
        true
    }

    /// Brings back the product that was deleted last. `false` if there is none.
    pub fn restore_last(&self) -> bool {
        let (mut state, now) = self.state_now();
        let last = state.people.deleted.len().checked_sub(1);
        last.is_some_and(|last| state.restore(last, now))
    }

    /// Creates so many products in the present second, as an import does. Returns their ids.
    pub fn import(&self, rows: usize) -> Vec<String> {
        let (mut state, now) = self.state_now();
        (0..rows).filter_map(|_| state.create(now)).collect()
    }

    /// The changes of single products after the first `skip` ones, in their order (see
    /// [`crate::Options::change_log`]).
    pub fn changes(&self, skip: usize) -> Vec<PastChange> {
        let (state, _) = self.state_now();
        state.change_log.get(skip..).unwrap_or_default().to_vec()
    }
}

impl SandboxState {
    /// Applies what people have done up to now, each change at its own time.
    pub(crate) fn catch_up(&mut self, now_ms: u64) {
        let rate = self.options.edits_per_minute;
        let since_ms = self.people.until_ms;
        self.people.until_ms = now_ms.max(since_ms);
        if !rate.is_finite() || rate <= 0.0 {
            self.people.next_ms = None;
            return;
        }
        let mut due = match self.people.next_ms {
            Some(due) => due,
            None => since_ms as f64 + self.people.gap_ms(rate),
        };
        self.okki.listing.expect_changes(((now_ms as f64 - due) * rate / MINUTE_MS) as usize);
        while due.ceil() as u64 <= now_ms {
            self.do_something(due.ceil() as u64);
            due += self.people.gap_ms(rate);
        }
        self.people.next_ms = Some(due);
    }

    /// One change by somebody.
    fn do_something(&mut self, at_ms: u64) {
        let ChangeMix { edits, creations, deletions, restores } = self.options.edit_mix;
        let products = self.catalogue.products.len();
        let rng = &mut self.people.rng;
        let drawn = rng.u32(0..(edits + creations + deletions + restores).max(1));
        if drawn >= edits + creations + deletions {
            let deleted = self.people.deleted.len();
            if deleted > 0 {
                let which = rng.usize(0..deleted);
                self.restore(which, at_ms);
            }
        } else if (edits..edits + creations).contains(&drawn) {
            self.create(at_ms);
        } else if products > 0 {
            let which = rng.usize(0..products);
            if drawn < edits {
                let cost = price(rng);
                self.update_at(which, |product| product.cost = Some(cost), at_ms);
            } else {
                self.remove_at(which, at_ms);
            }
        }
    }

    pub(crate) fn remove_id(&mut self, product_id: &str, now_ms: u64) -> bool {
        let at = self.catalogue.products.iter().position(|product| product.product_id == product_id);
        at.is_some_and(|at| self.remove_at(at, now_ms))
    }

    fn update_at(&mut self, at: usize, edit: impl FnOnce(&mut Product), now_ms: u64) -> bool {
        let Some(mut product) = self.catalogue.products.get(at).cloned() else { return false };
        edit(&mut product);
        product.update_time = (now_ms / 1000) as i64;
        self.change(Change::Replace(at, Box::new(product)), now_ms).is_some()
    }

    fn remove_at(&mut self, at: usize, now_ms: u64) -> bool {
        let Some(removed) = self.change(Change::Remove(at), now_ms) else { return false };
        if self.people.deleted.len() == MOST_DELETED {
            self.people.deleted.pop_front();
        }
        self.people.deleted.push_back(removed);
        true
    }

    fn restore(&mut self, at: usize, now_ms: u64) -> bool {
        let Some(mut product) = self.people.deleted.remove(at) else { return false };
        // An edit of the whole catalogue may have brought it back before.
        if self.catalogue.products.iter().any(|known| known.product_id == product.product_id) {
            return false;
        }
        product.update_time = (now_ms / 1000) as i64;
        self.change(Change::Add(Box::new(product)), now_ms);
        true
    }

    /// Creates a product in the group of another one and returns its id; `None` if nothing names a group.
    fn create(&mut self, now_ms: u64) -> Option<String> {
        let product = self.catalogue.draw_product(&mut self.people.rng, (now_ms / 1000) as i64)?;
        let id = product.product_id.clone();
        self.change(Change::Add(Box::new(product)), now_ms);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use crate::Sandbox;
    use crate::catalogue::Product;
    use crate::tests::{call, small};
    use std::collections::HashSet;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_restored_product_has_its_old_creation_and_a_new_update_time() {
        let sandbox = small(|_| ());
        let old = sandbox.catalogue().products[5].clone();
        assert!(sandbox.remove(&old.product_id) && !sandbox.remove(&old.product_id));
        assert_eq!(sandbox.catalogue().products.len(), 249);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(sandbox.restore(&old.product_id) && !sandbox.restore(&old.product_id));
        let back = sandbox.catalogue().products.last().unwrap().clone();
        assert_eq!((&back.product_id, back.create_time), (&old.product_id, old.create_time));
        assert_eq!(back.update_time, 1_800_000_010);
    }

    #[tokio::test]
    async fn an_import_makes_a_second_of_many_pages() {
        let sandbox = small(|_| ());
        let ids = sandbox.import(1000);
        let products = sandbox.catalogue().products;
        let imported = products.iter().filter(|product| ids.contains(&product.product_id));
        assert_eq!(imported.clone().count(), 1000);
        assert!(imported.clone().all(|product| product.create_time == 1_800_000_000));
        assert!(imported.clone().all(|product| product.update_time == 1_800_000_000));
        assert_eq!(products.len(), 1250);
    }

    fn busy(edits_per_minute: f64) -> Sandbox {
        small(|options| {
            options.edits_per_minute = edits_per_minute;
            options.edit_mix = "6:2:1:1".parse().unwrap();
            options.change_log = true;
        })
    }

    #[tokio::test(start_paused = true)]
    async fn people_never_stop_and_a_seed_replays_however_often_one_looks() {
        let mut logs = Vec::new();
        for looks in [1, 60] {
            let sandbox = busy(60.0);
            for _ in 0..looks {
                tokio::time::advance(Duration::from_secs(600 / looks)).await;
                call(sandbox.okki(), "GET", "/v1/product/list", "", "").await;
            }
            logs.push(sandbox.changes(0));
        }
        assert_eq!(logs[0], logs[1]);
        let log = &logs[0];
        assert!((500..700).contains(&log.len()), "{}", log.len());
        assert!(log.is_sorted_by_key(|change| change.at_ms));
        assert!(log.iter().any(|change| change.at_ms % 1000 != 0), "changes come within seconds");
        let of = |wanted: fn(&Product, i64) -> bool| {
            let kept = log.iter().filter_map(|change| Some((change.product.as_ref()?, change.at_ms / 1000)));
            kept.filter(|(product, second)| wanted(product, *second as i64)).count()
        };
        assert_eq!(of(|product, second| product.update_time != second), 0);
        assert!(of(|product, second| product.create_time == second) > 50, "creations");
        assert!(log.iter().filter(|change| change.product.is_none()).count() > 20, "deletions");
        let mut gone = HashSet::new();
        let restored = log.iter().filter(|change| match &change.product {
            None => !gone.insert(&change.product_id),
            Some(_) => gone.remove(&change.product_id),
        });
        assert!(restored.count() > 20, "restores");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_seen_from_its_moment_on_and_not_before() {
        let sandbox = busy(10.0);
        tokio::time::advance(Duration::from_secs(120)).await;
        let log = sandbox.changes(0);
        let again = busy(10.0);
        for (before, change) in log.iter().enumerate() {
            again.state().catch_up(change.at_ms - 1);
            assert_eq!(again.state().change_log, log[..before]);
            again.state().catch_up(change.at_ms);
            assert_eq!(again.state().change_log, log[..=before]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn people_begin_and_end_their_work_when_the_options_say() {
        let sandbox = small(|_| ());
        let revision = sandbox.revision();
        tokio::time::advance(Duration::from_secs(3600)).await;
        sandbox.set_options(|options| options.edits_per_minute = 60.0);
        assert_eq!(sandbox.revision(), revision, "an hour of rest stays one");
        tokio::time::advance(Duration::from_secs(60)).await;
        sandbox.set_options(|options| options.edits_per_minute = 0.0);
        let worked = sandbox.revision();
        assert!(worked > revision + 30);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(sandbox.revision(), worked);
    }
}
