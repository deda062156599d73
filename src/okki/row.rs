//! One row of OKKI's, group or product: the fields that every row needs, and those that the pipeline names. Pure.
//!
//! Rows of one answer resemble each other: their keys stand in one order, and most values are those of the row before.
//! Both are expected here and neither is relied on.

use std::borrow::Cow;
use std::ops::Range;

use super::json::{JsonCursor, is_same};
use crate::transform::{Columns, canonical_group_key, canonical_product_key};

/// The fields of one row that every row needs, and the cells that the pipeline names.
#[derive(Debug, Default)]
pub(super) struct Row<'a> {
    /// `id` or `product_id`; none if missing or blank.
    pub id: Option<Cow<'a, str>>,
    /// The display name, none if missing or blank.
    pub name: Option<Cow<'a, str>>,
    /// `parent_id` of a group, `group_id` of a product.
    pub parent: Option<Cow<'a, str>>,
    /// `enable_flag` is 0.
    pub deleted: bool,
    /// A group's own list of products (the document's sample has it; OKKI does not).
    pub products: Option<&'a str>,
    /// Raw JSON by column; empty where the source sent nothing.
    pub cells: Vec<&'a str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowType {
    Group,
    Product,
}

/// How to read a row.
#[derive(Clone, Copy)]
pub(super) struct RowReader<'m> {
    /// Columns to keep.
    pub columns: &'m Columns,
    /// The id's key.
    pub id: &'m str,
    /// The name's key.
    pub name: &'m str,
    /// The parent's key.
    pub parent: &'m str,
    pub row_type: RowType,
}

impl<'m> RowReader<'m> {
    /// Reads products.
    pub(super) fn products(columns: &'m Columns) -> Self {
        Self { columns, id: "product_id", name: "name", parent: "group_id", row_type: RowType::Product }
    }

    /// Reads groups, whose id and display name are under these keys.
    pub(super) fn groups(columns: &'m Columns, id: &'m str, name: &'m str) -> Self {
        let (id, name) = (canonical_group_key(id), canonical_group_key(name));
        Self { columns, id, name, parent: "parent_id", row_type: RowType::Group }
    }

    /// Reads one row by itself; an error says why it is none.
    pub(super) fn read<'a>(self, raw: &'a str) -> Result<Row<'a>, String> {
        let mut row = Row { cells: vec![""; self.columns.len()], ..Row::default() };
        let is_object = JsonCursor::new(raw).object(|walk, key| {
            match self.uses(&unquoted(key)) {
                Some(uses) => row.keep(&uses, walk.value()?),
                None => walk.step()?,
            }
            Some(())
        });
        is_object.map(|()| row).ok_or_else(|| "is not a JSON object with readable fields".to_owned())
    }

    /// Reads rows that stand in one text.
    pub(super) fn rows<'a>(self) -> Rows<'m, 'a> {
        Rows { reader: self, keys: Vec::new(), row: Row::default() }
    }

    fn uses(&self, key: &str) -> Option<Uses<'m>> {
        let is_product = self.row_type == RowType::Product;
        let key = if is_product { canonical_product_key(key) } else { canonical_group_key(key) };
        let uses = Uses {
            id: key == self.id,
            name: key == self.name,
            parent: key == self.parent,
            deleted: is_product && key == "enable_flag",
            products: !is_product && key == "products",
            columns: self.columns.starting_with(key).collect(),
        };
        let needed = uses.id || uses.name || uses.parent || uses.deleted || uses.products;
        (needed || !uses.columns.is_empty()).then_some(uses)
    }
}

/// Reads the rows of one text, whose keys stand in the same order in all of them, most often.
pub(super) struct Rows<'m, 'a> {
    reader: RowReader<'m>,
    /// In the order of the first row.
    keys: Vec<Member<'m, 'a>>,
    row: Row<'a>,
}

/// A member of a row.
struct Member<'m, 'a> {
    /// All that stood before its value where it was met first: bracket or comma, key, colon.
    lead: &'a str,
    /// The key with its quotes.
    key: &'a str,
    uses: Option<Uses<'m>>,
    /// Where it stood in the last row that had it, lead and value.
    last: Range<usize>,
}

/// What the value of a key is good for.
struct Uses<'m> {
    id: bool,
    name: bool,
    parent: bool,
    deleted: bool,
    products: bool,
    columns: Vec<(usize, &'m [String])>,
}

impl<'a> Rows<'_, 'a> {
    /// Reads the row that comes next; none if it is not an object.
    pub(super) fn read(&mut self, walk: &mut JsonCursor<'a>) -> Option<&Row<'a>> {
        let mut cells = std::mem::take(&mut self.row.cells);
        cells.clear();
        cells.resize(self.reader.columns.len(), "");
        self.row = Row { cells, ..Row::default() };
        walk.peek()?;
        let mut expected = 0;
        loop {
            expected = self.step_over_repeated(walk, expected);
            let (start, is_first) = (walk.at(), expected == 0);
            let at = match self.keys.get(expected) {
                Some(member) if walk.eat_text(member.lead) => expected,
                _ => match self.find(walk, is_first)? {
                    Some(at) => at,
                    None => return Some(&self.row),
                },
            };
            let member = self.keys.get_mut(at)?;
            match &member.uses {
                Some(uses) => self.row.keep(uses, walk.value()?),
                None => walk.step()?,
            }
            member.last = start..walk.at();
            expected = at + 1;
        }
    }

    /// Steps over members that nobody asks for and that are, byte for byte, as in the row before: most fields of a
    /// catalogue are empty or the same in all rows. Gives back which member is expected next.
    ///
    /// What was walked over there is good JSON here too, if the byte after it is the same.
    fn step_over_repeated(&mut self, walk: &mut JsonCursor<'a>, expected: usize) -> usize {
        let Some(Member { uses: None, last, .. }) = self.keys.get(expected) else { return expected };
        let (here, there) = (walk.at(), last.start);
        let same = walk.same_as_at(there);
        let (mut next, mut end) = (expected, there);
        while let Some(member) = self.keys.get_mut(next)
            && member.uses.is_none()
            && member.last.start == end
            && member.last.end < there + same
        {
            end = member.last.end;
            member.last = member.last.start + here - there..end + here - there;
            next += 1;
        }
        walk.step_bytes(end - there);
        next
    }

    /// Steps to the value of whatever member comes next, and gives back where it stands among the known ones; `Some(None)`
    /// is the end of the object.
    fn find(&mut self, walk: &mut JsonCursor<'a>, is_first: bool) -> Option<Option<usize>> {
        let start = walk.at();
        if is_first {
            walk.eat(b'{')?;
        }
        if walk.eat(b'}').is_some() {
            return Some(None);
        }
        if !is_first {
            walk.eat(b',')?;
        }
        let key = walk.string()?;
        walk.eat(b':')?;
        let lead = walk.since(start)?;
        Some(Some(
            self.keys
                .iter()
                .position(|member| is_same(member.key.as_bytes(), key.as_bytes()))
                .unwrap_or_else(|| {
                    self.keys.push(Member { lead, key, uses: self.reader.uses(&unquoted(key)), last: 0..0 });
                    self.keys.len() - 1
                }),
        ))
    }
}

impl<'a> Row<'a> {
    fn keep(&mut self, uses: &Uses<'_>, raw: &'a str) {
        if uses.id {
            self.id = scalar(raw);
        }
        if uses.name {
            self.name = scalar(raw);
        }
        if uses.parent {
            self.parent = scalar(raw);
        }
        if uses.deleted {
            self.deleted = matches!(raw, "0" | "\"0\"" | "false");
        }
        if uses.products {
            self.products = Some(raw);
        }
        for (column, rest) in &uses.columns {
            if let Some(cell) = self.cells.get_mut(*column) {
                *cell = inner(raw, rest).unwrap_or_default();
            }
        }
    }
}

/// A string's text. One that stands for no text (half a surrogate pair) is empty.
fn unquoted(raw: &str) -> Cow<'_, str> {
    match raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
        _ => Cow::Owned(serde_json::from_str(raw).unwrap_or_default()),
    }
}

/// An id or a name as text, trimmed; none if it is null, blank, or no scalar.
pub(super) fn scalar(raw: &str) -> Option<Cow<'_, str>> {
    let text = match raw.as_bytes().first() {
        Some(b'"') => unquoted(raw),
        Some(b'-' | b'0'..=b'9') => Cow::Borrowed(raw),
        _ => return None,
    };
    let trimmed = match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    };
    (!trimmed.is_empty()).then_some(trimmed)
}

/// Follows a path into nested objects.
fn inner<'a>(raw: &'a str, path: &[String]) -> Option<&'a str> {
    let Some((key, rest)) = path.split_first() else { return Some(raw) };
    let mut found = None;
    JsonCursor::new(raw).object(|walk, quoted| {
        let value = walk.value()?;
        if unquoted(quoted) == *key {
            found = Some(value);
        }
        Some(())
    })?;
    inner(found?, rest)
}
