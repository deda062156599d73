//! Both sides, compared by ids: what the target lacks, has too much, or has otherwise. Pure.
//!
//! The sandbox does not know the pipeline. A row of the target is a group's or a product's if its id is one's, and the
//! names and costs that it shows under their usual keys are compared; what it does not show is not.

use std::collections::{HashMap, HashSet};

use serde_json::value::RawValue;

use super::target_rows::{Target, Told};
use crate::catalogue::{Catalogue, Group, Product};

/// How a line of the tree differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// Both sides have it with the same content.
    Same,
    /// The target lacks it.
    Missing,
    /// Only the target has it.
    Extra,
    /// Both have it, with another name, cost or group.
    Different,
    /// The target has no rows of this kind.
    Apart,
}

/// A group or a product on one side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Side {
    pub name: Option<String>,
    pub cost: Option<String>,
}

/// A group or a product on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub id: String,
    pub mark: Mark,
    pub source: Option<Side>,
    pub target: Option<Side>,
}

/// A group with what is below it.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// `None` for the place of products whose group is not known.
    pub line: Option<Line>,
    /// Places of the groups below it.
    pub groups: Vec<usize>,
    pub products: Vec<Line>,
    /// Lines at and below it that are missing, extra or different.
    pub differing: usize,
}

/// Both sides.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub nodes: Vec<Node>,
    /// Places of the groups at the top.
    pub top: Vec<usize>,
    /// Groups and products of the source.
    pub source: (usize, usize),
    /// Rows of the target, deleted ones aside.
    pub target_rows: usize,
    pub missing: usize,
    pub extra: usize,
    pub different: usize,
}

/// The source's groups and products by id; of two with one id the first.
pub(super) struct Source<'a> {
    pub(super) groups: HashMap<&'a str, &'a Group>,
    pub(super) products: HashMap<&'a str, &'a Product>,
}

impl<'a> Source<'a> {
    fn of(catalogue: &'a Catalogue) -> Self {
        let groups = catalogue.groups.iter().rev().map(|group| (group.id.as_str(), group)).collect();
        let kept = catalogue.products.iter().rev().filter(|product| product.enable_flag == 1);
        Self { groups, products: kept.map(|product| (product.product_id.as_str(), product)).collect() }
    }
}

/// Compares the catalogue with the rows of the target.
pub(super) fn compare<'r>(
    catalogue: &Catalogue,
    rows: impl Iterator<Item = (&'r str, &'r RawValue)>,
) -> Comparison {
    let source = Source::of(catalogue);
    let target = Target::read(rows, &source);
    let mut tree = Tree::new(catalogue, &source, &target);
    tree.products(catalogue, &source, &target);
    tree.finish(&source, &target)
}

struct Tree {
    nodes: Vec<Node>,
    places: HashMap<String, usize>,
    top: Vec<usize>,
}

impl Tree {
    fn new(catalogue: &Catalogue, source: &Source<'_>, target: &Target) -> Self {
        let mut tree = Self { nodes: Vec::new(), places: HashMap::new(), top: Vec::new() };
        let mut below: HashMap<&str, Vec<&Group>> = HashMap::new();
        for group in &catalogue.groups {
            let is_first =
                source.groups.get(group.id.as_str()).is_some_and(|first| std::ptr::eq(*first, group));
            if is_first {
                // A parent that is not there, or itself (as group 0), leaves a group at the top.
                let has_parent =
                    group.parent_id != group.id && source.groups.contains_key(group.parent_id.as_str());
                let parent = if has_parent && group.parent_id != "0" { group.parent_id.as_str() } else { "" };
                below.entry(parent).or_default().push(group);
            }
        }
        let mut seen = HashSet::new();
        tree.top = tree.add_below("", &below, &mut seen, target);
        // Groups of a circle hang from none at the top.
        for group in &catalogue.groups {
            if !seen.contains(group.id.as_str()) {
                let place = tree.add(group, &below, &mut seen, target);
                tree.top.push(place);
            }
        }
        let mut extra: Vec<(&String, &Told)> =
            target.groups.iter().filter(|(id, _)| !source.groups.contains_key(id.as_str())).collect();
        extra.sort_by_key(|(id, _)| *id);
        for (id, told) in extra {
            let line =
                Line { id: id.clone(), mark: Mark::Extra, source: None, target: Some(told.side.clone()) };
            let place = tree.push(Some(line), id);
            tree.top.push(place);
        }
        tree
    }

    fn push(&mut self, line: Option<Line>, id: &str) -> usize {
        self.nodes.push(Node { line, groups: Vec::new(), products: Vec::new(), differing: 0 });
        self.places.insert(id.to_owned(), self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn add_below<'a>(
        &mut self,
        parent: &str,
        below: &HashMap<&'a str, Vec<&'a Group>>,
        seen: &mut HashSet<&'a str>,
        target: &Target,
    ) -> Vec<usize> {
        let groups = below.get(parent).map(Vec::as_slice).unwrap_or_default();
        let mut places = Vec::new();
        for group in groups {
            if !seen.contains(group.id.as_str()) {
                places.push(self.add(group, below, seen, target));
            }
        }
        places
    }

    fn add<'a>(
        &mut self,
        group: &'a Group,
        below: &HashMap<&'a str, Vec<&'a Group>>,
        seen: &mut HashSet<&'a str>,
        target: &Target,
    ) -> usize {
        seen.insert(&group.id);
        let here = Side { name: Some(group.name.clone()), cost: None };
        let there = target.groups.get(&group.id).map(|told| told.side.clone());
        let comparable = !target.groups.is_empty() || target.rows == 0;
        let mark = mark(&here, there.as_ref(), comparable);
        let line = Line { id: group.id.clone(), mark, source: Some(here), target: there };
        let place = self.push(Some(line), &group.id);
        let groups = self.add_below(&group.id, below, seen, target);
        if let Some(node) = self.nodes.get_mut(place) {
            node.groups = groups;
        }
        place
    }

    fn products(&mut self, catalogue: &Catalogue, source: &Source<'_>, target: &Target) {
        let comparable = target.has_products() || target.rows == 0;
        for product in &catalogue.products {
            let first = source.products.get(product.product_id.as_str());
            if !first.is_some_and(|first| std::ptr::eq(*first, product)) {
                continue;
            }
            let here = Side { name: Some(product.name.clone()), cost: product.cost.clone() };
            let told = target.products.get(&product.product_id);
            let moved =
                told.and_then(|told| told.group.as_ref()).is_some_and(|group| *group != product.group_id);
            let mut mark = mark(&here, told.map(|told| &told.side), comparable);
            if moved && mark == Mark::Same {
                mark = Mark::Different;
            }
            let target = told.map(|told| told.side.clone());
            self.put(
                &product.group_id,
                Line { id: product.product_id.clone(), mark, source: Some(here), target },
            );
        }
        let is_extra = |id: &str| !source.products.contains_key(id);
        let mut extra: Vec<_> = target.products.iter().filter(|(id, _)| is_extra(id)).collect();
        extra.sort_by_key(|(id, _)| *id);
        for (id, told) in extra {
            let line =
                Line { id: id.clone(), mark: Mark::Extra, source: None, target: Some(told.side.clone()) };
            self.put(told.group.as_deref().unwrap_or_default(), line);
        }
    }

    /// Puts a product below its group, or at the place of those without one.
    fn put(&mut self, group: &str, line: Line) {
        const NOWHERE: &str = "";
        let place = match self.places.get(group).or_else(|| self.places.get(NOWHERE)) {
            Some(place) => *place,
            None => {
                let place = self.push(None, NOWHERE);
                self.top.push(place);
                place
            }
        };
        if let Some(node) = self.nodes.get_mut(place) {
            node.products.push(line);
        }
    }

    fn finish(mut self, source: &Source<'_>, target: &Target) -> Comparison {
        let mut all = Comparison {
            source: (source.groups.len(), source.products.len()),
            target_rows: target.rows,
            ..Comparison::default()
        };
        for place in (0..self.nodes.len()).rev() {
            let Some(node) = self.nodes.get(place) else { continue };
            let mut differing = 0;
            for line in node.line.iter().chain(&node.products) {
                let count = match line.mark {
                    Mark::Missing => &mut all.missing,
                    Mark::Extra => &mut all.extra,
                    Mark::Different => &mut all.different,
                    Mark::Same | Mark::Apart => continue,
                };
                *count += 1;
                differing += 1;
            }
            // A group stands behind those above it: what is below is counted by now.
            let below: usize = node
                .groups
                .iter()
                .filter_map(|below| self.nodes.get(*below))
                .map(|below| below.differing)
                .sum();
            if let Some(node) = self.nodes.get_mut(place) {
                node.differing = differing + below;
            }
        }
        Comparison { nodes: self.nodes, top: self.top, ..all }
    }
}

fn mark(here: &Side, there: Option<&Side>, comparable: bool) -> Mark {
    let Some(there) = there else {
        return if comparable { Mark::Missing } else { Mark::Apart };
    };
    let other_name = there.name.is_some() && there.name != here.name;
    let other_cost = match (&there.cost, &here.cost) {
        (Some(there), Some(here)) => !same_number(there, here),
        // What a pipeline sends in place of no cost is its own.
        _ => false,
    };
    if other_name || other_cost { Mark::Different } else { Mark::Same }
}

/// `2999.10` and `2999.1` are one price.
fn same_number(a: &str, b: &str) -> bool {
    a == b || matches!((a.parse::<f64>(), b.parse::<f64>()), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn group(id: &str, parent: &str, name: &str) -> Group {
        Group { id: id.into(), parent_id: parent.into(), name: name.into(), ..Group::default() }
    }

    fn product(id: &str, group: &str, cost: &str) -> Product {
        Product {
            product_id: id.into(),
            group_id: group.into(),
            name: format!("P{id}"),
            cost: Some(cost.into()),
            enable_flag: 1,
            ..Product::default()
        }
    }

    fn catalogue() -> Catalogue {
        Catalogue {
            groups: vec![
                group("1", "0", "A"),
                group("2", "1", "B"),
                group("8", "9", "X"),
                group("9", "8", "Y"),
            ],
            products: vec![product("11", "1", "2999.10"), product("12", "2", "5"), product("13", "77", "1")],
            ..Catalogue::default()
        }
    }

    fn with(rows: &[(&str, &str)]) -> Comparison {
        let rows: Vec<(String, Box<RawValue>)> = rows
            .iter()
            .map(|(id, row)| ((*id).to_owned(), RawValue::from_string((*row).to_owned()).unwrap()))
            .collect();
        compare(&catalogue(), rows.iter().map(|(id, row)| (id.as_str(), &**row)))
    }

    fn marks(all: &Comparison) -> Vec<(&str, Mark)> {
        let lines = all.nodes.iter().flat_map(|node| node.line.iter().chain(&node.products));
        lines.map(|line| (line.id.as_str(), line.mark)).collect()
    }

    fn counts(all: &Comparison) -> (usize, usize, usize) {
        (all.missing, all.extra, all.different)
    }

    #[test]
    fn an_empty_target_lacks_everything_once() {
        let all = with(&[]);
        assert_eq!((counts(&all), all.source, all.target_rows), ((7, 0, 0), (4, 3), 0));
        assert_eq!(all.top.len(), 3, "A, one of the circle, and products without a group");
        assert_eq!(all.nodes[0].differing, 4, "A, B and their products");
    }

    #[test]
    fn rows_of_groups_with_items_are_compared_with_both() {
        let all = with(&[
            (
                "1",
                r#"{"id":"1","name":"A","items":[{"id":"11","name":"P11","cost":2999.1},{"id":"99","name":"old"}]}"#,
            ),
            ("2", r#"{"id":"2","name":"b","items":[]}"#),
            ("5", r#"{"id":"5","name":"gone","items":[]}"#),
            ("6", r#"{"id":"6","deleted":true}"#),
        ]);
        let marks = marks(&all);
        let expected = [
            ("1", Mark::Same),
            ("11", Mark::Same),
            ("99", Mark::Extra),
            ("2", Mark::Different),
            ("12", Mark::Missing),
            ("8", Mark::Missing),
            ("9", Mark::Missing),
            ("5", Mark::Extra),
            ("13", Mark::Missing),
        ];
        assert_eq!(marks, expected);
        assert_eq!((counts(&all), all.target_rows), ((4, 2, 1), 3));
    }

    #[test]
    fn rows_of_groups_alone_say_nothing_of_products() {
        let all = with(&[("1", r#"{"productGroupId":"1","productName":"A"}"#)]);
        assert_eq!(marks(&all)[1], ("11", Mark::Apart));
        assert_eq!(counts(&all), (3, 0, 0));
    }

    #[test]
    fn rows_of_products_say_nothing_of_groups_and_see_a_move() {
        let all = with(&[
            ("11", r#"{"id":"11","name":"P11","cost":1,"groupId":"1"}"#),
            ("12", r#"{"id":"12","name":"P12","cost":5,"groupId":"1"}"#),
            ("66", r#"{"id":"66","name":"<b>","cost":"x","groupId":"2"}"#),
        ]);
        let expected = [
            ("1", Mark::Apart),
            ("11", Mark::Different),
            ("2", Mark::Apart),
            ("12", Mark::Different),
            ("66", Mark::Extra),
            ("8", Mark::Apart),
            ("9", Mark::Apart),
            ("13", Mark::Missing),
        ];
        assert_eq!(marks(&all), expected);
    }
}
