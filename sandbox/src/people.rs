//! What people do to single products. Unlike [`Sandbox::edit`] it costs the same in a catalogue of any size.

use std::collections::VecDeque;

use fastrand::Rng;

use crate::Sandbox;
use crate::catalogue::{Catalogue, Product};
use crate::okki::Change;
use crate::state::SandboxState;

/// Deleted products that can be restored.
const MOST_DELETED: usize = 10_000;

pub(crate) struct People {
    /// Apart from the other generators, so that neither a catalogue nor a working day depends on it.
    pub(crate) rng: Rng,
    /// The highest product id ever, unless the catalogue has changed anyhow since.
    pub(crate) last_id: Option<u64>,
    /// Deleted products, the last one at the end.
    deleted: VecDeque<Product>,
}

impl People {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed ^ 0x9e0_91e), last_id: None, deleted: VecDeque::new() }
    }
}

impl Sandbox {
    /// Edits one product and sets its update time. `false` if there is none with this id.
    pub fn update(&self, product_id: &str, edit: impl FnOnce(&mut Product)) -> bool {
        let now = self.now_ms();
        let mut state = self.state();
        let at = state.catalogue.products.iter().position(|product| product.product_id == product_id);
        at.is_some_and(|at| state.update_at(at, edit, now))
    }

    /// Deletes a product: it is gone from the list. `false` if there is none with this id.
    pub fn remove(&self, product_id: &str) -> bool {
        let now = self.now_ms();
        self.state().remove_id(product_id, now)
    }

    /// Brings back the product with this id that [`Sandbox::remove`], a call or people have deleted: with its old
    /// creation time and a new update time. `false` if there is none.
    pub fn restore(&self, product_id: &str) -> bool {
        let now = self.now_ms();
        let mut state = self.state();
        let at = state.people.deleted.iter().rposition(|product| product.product_id == product_id);
        at.is_some_and(|at| state.restore(at, now))
    }

    /// Creates so many products in the present second, as an import does. Returns their ids.
    pub fn import(&self, rows: usize) -> Vec<String> {
        let now = self.now_ms();
        let mut state = self.state();
        (0..rows).filter_map(|_| state.create(now)).collect()
    }
}

impl SandboxState {
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
        product.update_time = (now_ms / 1000) as i64;
        self.change(Change::Add(Box::new(product)), now_ms);
        true
    }

    /// Creates a product in the group of another one and returns its id; `None` if nothing names a group.
    fn create(&mut self, now_ms: u64) -> Option<String> {
        let last_id = self.people.last_id.unwrap_or_else(|| self.catalogue.last_product_id());
        let product = self.catalogue.draw_product(&mut self.people.rng, last_id, (now_ms / 1000) as i64)?;
        let id = product.product_id.clone();
        self.change(Change::Add(Box::new(product)), now_ms);
        self.people.last_id = id.parse().ok();
        Some(id)
    }
}

impl Catalogue {
    fn last_product_id(&self) -> u64 {
        self.products.iter().filter_map(|product| product.product_id.parse().ok()).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use crate::tests::small;
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
}
