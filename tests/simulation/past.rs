//! What the source held at each moment, by product and by group.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use okki_sync_sandbox::Sandbox;
use okki_sync_sandbox::catalogue::{Catalogue, Product};

/// The versions of one thing, each with the moment (milliseconds) from which on it was so.
type Versions<T> = Vec<(u64, T)>;

/// No run needs more calls to its source than this, and so many more for each product that it ever held: a page may have three
/// rows, and is read again where people edit.
const MOST_CALLS: u64 = 15_000;
const MORE_CALLS_A_PRODUCT: u64 = 3;

/// All that the source ever held, with times.
#[derive(Default)]
pub struct Past {
    /// When the world began; what fails is told from there.
    pub beginning_ms: u64,
    /// How late a change may become visible.
    late_ms: u64,
    revision: u64,
    /// Calls to the source since a run has begun, and changes.
    looks: u64,
    /// When the last change was made.
    changed_at_ms: u64,
    changes: usize,
    /// Whether the run that goes on knows nothing from a complete read.
    pub is_first_read: bool,
    /// Whether a first read has met what leaves no trace; see `traceless.rs`.
    pub has_traceless: bool,
    /// All rows with one id: mostly one; none while it is deleted.
    products: HashMap<String, Versions<Vec<Arc<Product>>>>,
    /// The names under one id.
    groups: HashMap<String, Versions<BTreeSet<String>>>,
}

/// A span of time in milliseconds, both ends included.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub from_ms: u64,
    pub to_ms: u64,
}

impl Past {
    pub fn since(beginning_ms: u64, late_ms: u64) -> Self {
        Self { beginning_ms, late_ms, ..Self::default() }
    }

    /// A run begins.
    pub fn begin_run(&mut self, is_first_read: bool) {
        (self.looks, self.is_first_read) = (0, is_first_read);
    }

    /// Whether a change was made since this moment, or before and became visible only then.
    pub fn shows_changes_since(&self, at_ms: u64) -> bool {
        self.changed_at_ms + self.late_ms > at_ms
    }

    /// Notes what has changed since the last time.
    pub fn note(&mut self, sandbox: &Sandbox, now_ms: u64) {
        self.looks += 1;
        let most = MOST_CALLS + MORE_CALLS_A_PRODUCT * self.products.len() as u64;
        assert!(self.looks < most, "{most} calls to the source: a read does not end");
        let revision = sandbox.revision();
        if revision == self.revision {
            return;
        }
        let changes = sandbox.changes(self.changes);
        self.changes += changes.len();
        let is_by_people = self.revision > 0 && revision - self.revision == changes.len() as u64;
        self.revision = revision;
        self.changed_at_ms = now_ms;
        let mut is_clear = true;
        for change in changes {
            let versions = self.products.entry(change.product_id).or_insert_with(never);
            is_clear &= versions.last().is_none_or(|(_, rows)| rows.len() < 2);
            let rows = change.product.map(Arc::new).into_iter().collect();
            versions.push((change.at_ms, rows));
        }
        if !is_by_people || !is_clear {
            self.note_all(&sandbox.catalogue(), now_ms);
        }
    }

    fn note_all(&mut self, catalogue: &Catalogue, now_ms: u64) {
        let mut products: HashMap<String, Vec<Arc<Product>>> = HashMap::new();
        for product in &catalogue.products {
            products.entry(product.product_id.clone()).or_default().push(Arc::new(product.clone()));
        }
        let mut groups: HashMap<String, BTreeSet<String>> = HashMap::new();
        for group in &catalogue.groups {
            groups.entry(group.id.clone()).or_default().insert(group.name.clone());
        }
        update(&mut self.products, products, now_ms);
        update(&mut self.groups, groups, now_ms);
    }

    /// The ids of all products that were ever there.
    pub fn product_ids(&self) -> impl Iterator<Item = &String> {
        self.products.keys()
    }

    /// The rows of a product at each moment of a span.
    pub fn product(&self, id: &str, span: Span) -> impl Iterator<Item = &[Arc<Product>]> {
        within(self.products.get(id), span).map(Vec::as_slice)
    }

    /// All versions of a product, the oldest first; before it was created it had no rows.
    pub fn versions(&self, id: &str) -> impl Iterator<Item = &[Arc<Product>]> {
        self.products.get(id).into_iter().flatten().map(|(_, rows)| rows.as_slice())
    }

    /// Whether a product went within a span.
    pub fn was_deleted(&self, id: &str, span: Span) -> bool {
        self.changes_of(id, span).any(|(before, after)| !before.is_empty() && after.is_empty())
    }

    /// Whether a product that had been deleted came back within a span.
    pub fn was_brought_back(&self, id: &str, span: Span) -> bool {
        self.changes_of(id, span).any(|(before, after)| before.is_empty() && !after.is_empty())
    }

    /// What a product was before and after each change within a span, but for its first version.
    fn changes_of(&self, id: &str, span: Span) -> impl Iterator<Item = (&[Arc<Product>], &[Arc<Product>])> {
        let versions = self.products.get(id).map(Vec::as_slice).unwrap_or_default();
        let from_ms = span.from_ms.saturating_sub(self.late_ms);
        let within = move |at_ms: u64| (from_ms..=span.to_ms).contains(&at_ms);
        let pairs = versions.get(1..).unwrap_or_default().windows(2);
        pairs.filter(move |pair| within(pair[1].0)).map(|pair| (pair[0].1.as_slice(), pair[1].1.as_slice()))
    }

    /// The names of a group at each moment of a span.
    pub fn group(&self, id: &str, span: Span) -> impl Iterator<Item = &BTreeSet<String>> {
        within(self.groups.get(id), span)
    }
}

fn update<T: PartialEq + Default>(
    known: &mut HashMap<String, Versions<T>>,
    mut now: HashMap<String, T>,
    now_ms: u64,
) {
    for (id, versions) in known.iter_mut() {
        let here = now.remove(id).unwrap_or_default();
        if versions.last().is_none_or(|(_, last)| *last != here) {
            versions.push((now_ms, here));
        }
    }
    for (id, here) in now {
        known.entry(id).or_insert_with(never).push((now_ms, here));
    }
}

/// What was not there before.
fn never<T: Default>() -> Versions<T> {
    vec![(0, T::default())]
}

/// The versions that held at a moment of the span, the one at its beginning included.
fn within<T>(versions: Option<&Versions<T>>, span: Span) -> impl Iterator<Item = &T> {
    let versions = versions.map(Vec::as_slice).unwrap_or_default();
    let first = versions.partition_point(|(at_ms, _)| *at_ms <= span.from_ms).saturating_sub(1);
    let last = versions.partition_point(|(at_ms, _)| *at_ms <= span.to_ms);
    versions.get(first..last).unwrap_or_default().iter().map(|(_, version)| version)
}
