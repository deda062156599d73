//! Which products a list call wants, found without rendering them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalogue::{Catalogue, Product};

/// Filters whose rows are remembered.
const FILTERS: usize = 8;

/// Positions of products in the catalogue, by ascending id.
pub(crate) type Positions = Arc<Vec<u32>>;

/// What a query over the catalogue needs, rebuilt after each change of the catalogue. Rows are rendered when their
/// page is asked for: 200,000 rendered rows would take a quarter of a gigabyte.
#[derive(Default)]
pub(crate) struct Index {
    revision: u64,
    all: Positions,
    group_names: HashMap<String, String>,
    /// The last filters and their rows, so that page 1,000 of a list is found as fast as page 1.
    filtered: Vec<(Filter, Positions)>,
}

/// Which products a list call wants; times are Unix seconds, inclusive.
#[derive(Clone, PartialEq, Default)]
pub(crate) struct Filter {
    pub(crate) by_creation: bool,
    pub(crate) from: Option<i64>,
    pub(crate) to: Option<i64>,
    pub(crate) product_type: Option<u8>,
}

impl Filter {
    fn matches(&self, product: &Product) -> bool {
        let time = if self.by_creation { product.create_time } else { product.update_time };
        self.from.is_none_or(|from| time >= from)
            && self.to.is_none_or(|to| time <= to)
            && self.product_type.is_none_or(|wanted| product.product_type == wanted)
    }
}

impl Index {
    /// Rebuilds the index unless it is of this revision.
    pub(crate) fn refresh(&mut self, catalogue: &Catalogue, revision: u64) {
        if self.revision == revision {
            return;
        }
        let mut order: Vec<(u64, u32)> = (0..)
            .zip(&catalogue.products)
            .map(|(at, product)| (product.product_id.parse().unwrap_or(0), at))
            .collect();
        order.sort_unstable();
        // Backwards, so that of two groups with one id the first gives the name.
        let groups = catalogue.groups.iter().rev();
        *self = Self {
            revision,
            all: Arc::new(order.into_iter().map(|(_, at)| at).collect()),
            group_names: groups.map(|group| (group.id.clone(), group.name.clone())).collect(),
            filtered: Vec::new(),
        };
    }

    pub(crate) fn all(&self) -> Positions {
        Arc::clone(&self.all)
    }

    /// The products that match. Call [`Index::refresh`] first.
    pub(crate) fn filtered(&mut self, catalogue: &Catalogue, filter: &Filter) -> Positions {
        if *filter == Filter::default() {
            return self.all();
        }
        if let Some((_, rows)) = self.filtered.iter().find(|(known, _)| known == filter) {
            return Arc::clone(rows);
        }
        let matches =
            |at: &u32| catalogue.products.get(*at as usize).is_some_and(|product| filter.matches(product));
        let rows = Arc::new(self.all.iter().copied().filter(matches).collect::<Vec<_>>());
        if self.filtered.len() == FILTERS {
            self.filtered.remove(0);
        }
        self.filtered.push((filter.clone(), Arc::clone(&rows)));
        rows
    }

    /// Empty for a group that does not exist.
    pub(crate) fn group_name(&self, id: &str) -> &str {
        self.group_names.get(id).map_or("", String::as_str)
    }
}
