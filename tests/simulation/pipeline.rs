//! A world's pipeline.

use std::collections::{BTreeMap, HashSet};

use fastrand::Rng;
use okki_sync_sandbox::catalogue::{Catalogue, Product};

use crate::oracle::{Shape, without_items};
use crate::reading::Reading;

/// A world's pipeline: its text, and what the checks need to know of it.
#[derive(Debug, Clone)]
pub struct Pipeline {
    pub shape: Shape,
    pub qeasy: bool,
    pub tombstones: bool,
    /// A plain target says what success is.
    pub success_is_named: bool,
    pub calls_per_minute: u32,
    pub max_rows_per_batch: u32,
    /// Batches in flight at a time.
    pub at_once: u32,
    /// Calls to the source in a second.
    pub pace: f64,
    pub page_size: u32,
    /// The most that a product may cost, where a value guard says so.
    pub max_cost: Option<f64>,
    /// Larger deletions of more than ten rows are refused.
    pub max_delete_ratio: f64,
    pub text: String,
}

impl Pipeline {
    pub fn random(rng: &mut Rng, reading: &Reading) -> Self {
        let shape = *rng
            .choice(&[Shape::Groups, Shape::GroupsWithItems, Shape::Products, Shape::Products, Shape::Own])
            .unwrap();
        let (qeasy, tombstones) = (rng.u8(0..4) > 0, rng.u8(0..5) > 0);
        let (calls_per_minute, success_is_named) = (rng.u32(5..=60), rng.bool());
        let target = if qeasy {
            let token_in = if rng.bool() { "header" } else { "query" };
            format!("kind = \"qeasy\"\ntoken_in = \"{token_in}\"")
        } else {
            crate::support::http_target(if success_is_named { "success = { \"/code\" = 0 }" } else { "" })
        };
        let max_concurrency = rng.u32(1..=4);
        // Small batches of products, so that several are really in flight.
        let max_rows = if shape == Shape::Products { rng.u32(3..20) } else { rng.u32(3..50) };
        let (pace, page_size) = (f64::from(rng.u32(2..50)), rng.u32(10..=100));
        let (pace, page_size) = (reading.pace.unwrap_or(pace), reading.page_size.unwrap_or(page_size));
        let (max_concurrency_at_source, is_full) = (rng.u32(1..=4), rng.u8(0..3) == 0);
        // What was missed between two pages shows only where everything is read again and again.
        let is_full = is_full || reading.is_untimed();
        let max_delete_ratio = if rng.bool() { 0.2 } else { 0.9 };
        let text = format!(
            "connection = \"it\"\n[source]\nmax_requests_per_second = {pace:.1}\npage_size = {page_size}\nmax_concurrency = {}\n{}{}\n\
             [target]\n{target}\nmax_rows_per_batch = {max_rows}\nmax_concurrency = {max_concurrency}\nrequests_per_minute = {calls_per_minute}\non_delete = \"{}\"\n\
             [guard]\nmax_delete_ratio = {max_delete_ratio}\n",
            max_concurrency_at_source,
            // Left out, it is "incremental".
            if is_full && shape != Shape::Groups { "products = \"full\"\n" } else { "" },
            shape.record(),
            if tombstones { "tombstone" } else { "ignore" },
        );
        Self {
            shape,
            qeasy,
            tombstones,
            success_is_named,
            calls_per_minute,
            max_rows_per_batch: max_rows,
            at_once: max_concurrency,
            pace,
            page_size,
            max_cost: None,
            max_delete_ratio,
            text,
        }
    }

    /// Its text for another connection.
    pub fn of_connection(&self, connection: &str) -> String {
        self.text.replacen("connection = \"it\"", &format!("connection = \"{connection}\""), 1)
    }

    /// In some worlds a value guard holds back what is dear. Drawn apart from the rest.
    pub fn guard(&mut self, rng: &mut Rng) {
        let max = *rng.choice(&[None, None, Some(20.0), Some(300.0), Some(2_000.0)]).unwrap();
        let Some(max) = max.filter(|_| self.shape != Shape::Groups) else { return };
        let field = if self.shape == Shape::Products { "cost" } else { "items.cost" };
        let guard = format!("max_held_ratio = 1.0\n[[guard.values]]\nfield = \"{field}\"\nmax = {max:.1}\n");
        self.text.push_str(&guard);
        self.max_cost = Some(max);
    }

    /// Whether the value guard holds a product back.
    pub fn holds(&self, product: &Product) -> bool {
        let cost = if self.shape == Shape::OwnTaxed { &product.cost_with_tax } else { &product.cost };
        let cost = cost.as_deref().and_then(|cost| cost.parse::<f64>().ok());
        matches!((self.max_cost, cost), (Some(max), Some(cost)) if cost > max)
    }

    /// The rows of a catalogue that go through, by id.
    pub fn rows(&self, catalogue: &Catalogue) -> BTreeMap<String, String> {
        if self.max_cost.is_none() {
            return self.shape.rows(catalogue);
        }
        let held = self.held(catalogue);
        let mut rest = catalogue.clone();
        rest.products.retain(|product| !held.contains(product.product_id.as_str()));
        self.shape.rows(&rest)
    }

    /// The products that the value guard holds back. Of rows with one id the first counts, held back or not.
    fn held<'c>(&self, catalogue: &'c Catalogue) -> HashSet<&'c str> {
        let mut seen = HashSet::new();
        let first = catalogue.products.iter().filter(|product| seen.insert(&product.product_id));
        first.filter(|product| self.holds(product)).map(|product| product.product_id.as_str()).collect()
    }

    /// A row of a group without the items that the value guard holds back: they stay as they were acknowledged.
    pub fn without_held(&self, catalogue: &Catalogue, row: &str) -> String {
        if self.max_cost.is_none() || self.shape == Shape::Products {
            return row.to_owned();
        }
        let held = self.held(catalogue);
        let without = without_items(row, |id| held.contains(id));
        without.unwrap_or_else(|| row.to_owned())
    }

    /// A value in a row that the value guard should have held back.
    pub fn let_through(&self, row: &str) -> Option<f64> {
        let max = self.max_cost?;
        let row: serde_json::Value = serde_json::from_str(row).unwrap_or_default();
        let items = row["items"].as_array().cloned().unwrap_or_default();
        let mut costs = items.iter().chain([&row]).filter_map(|fields| fields["cost"].as_f64());
        costs.find(|cost| *cost > max)
    }

    /// Whether each sync reads all products anew.
    pub fn reads_all(&self) -> bool {
        self.text.contains("products = \"full\"")
    }

    /// Somebody asks for another cost: what was read for the old fields is of no use. `false` if it has none.
    pub fn ask_for_another_cost(&mut self) -> bool {
        let other = match self.shape {
            Shape::Own => Shape::OwnTaxed,
            Shape::OwnTaxed => Shape::Own,
            _ => return false,
        };
        self.text = self.text.replace(&self.shape.record(), &other.record());
        self.shape = other;
        true
    }
}
