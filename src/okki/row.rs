//! One row of OKKI, group or product: the fields that every row needs, and those that the pipeline names. Pure.
//!
//! Rows of one answer resemble each other: their keys come in one order, and most values equal those of the previous
//! row. [`RowSequence`], the fast path, assumes both; a row for which either does not hold is parsed field by field,
//! with the same result. [`RowReader::read`], the slow path, reads one row by itself.

use std::borrow::Cow;
use std::ops::Range;

use super::json::{JsonCursor, is_same};
use crate::transform::{Columns, canonical_group_key, canonical_product_key};
use crate::words::written;

/// `None`: the field is missing or blank.
#[derive(Debug, Default)]
pub(super) struct Row<'a> {
    /// `id` of a group, `product_id` of a product.
    pub id: Option<Cow<'a, str>>,
    /// The display name.
    pub name: Option<Cow<'a, str>>,
    /// `parent_id` of a group, `group_id` of a product.
    pub parent: Option<Cow<'a, str>>,
    /// `enable_flag` is 0.
    pub deleted: bool,
    /// Whether a group's `layer` or `prefix` says that it is a root; `None` if it has neither.
    pub root: Option<bool>,
    /// `system_flag` or `is_sys` of a group is 1: it is OKKI's own.
    pub system: bool,
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
    /// The fields to keep.
    pub columns: &'m Columns,
    /// Keys: of the id, the name, the parent.
    pub id: &'m str,
    pub name: &'m str,
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

    /// Reads one row; the error says why it cannot be read.
    pub(super) fn read<'a>(self, raw: &'a str) -> Result<Row<'a>, String> {
        let mut row = Row { cells: vec![""; self.columns.len()], ..Row::default() };
        let is_object = JsonCursor::new(raw).object(|cursor, key| {
            match self.uses(&unquoted(key)) {
                Some(uses) => row.set_field(&uses, cursor.value()?),
                None => cursor.skip_value()?,
            }
            Some(())
        });
        is_object.map(|()| row).ok_or_else(|| written!("is not a JSON object with readable fields"))
    }

    /// Reads rows that follow each other in one text.
    pub(super) fn sequence<'a>(self) -> RowSequence<'m, 'a> {
        RowSequence { reader: self, fields: Vec::new(), row: Row::default() }
    }

    fn uses(&self, key: &str) -> Option<Uses<'m>> {
        let is_product = self.row_type == RowType::Product;
        let key = if is_product { canonical_product_key(key) } else { canonical_group_key(key) };
        let uses = Uses {
            id: key == self.id,
            name: key == self.name,
            parent: key == self.parent,
            deleted: is_product && key == "enable_flag",
            layer: !is_product && key == "layer",
            prefix: !is_product && key == "prefix",
            system: !is_product && matches!(key, "system_flag" | "is_sys"),
            products: !is_product && key == "products",
            columns: self.columns.starting_with(key).collect(),
        };
        let of_both = uses.id || uses.name || uses.parent;
        let of_one = uses.deleted || uses.layer || uses.prefix || uses.system || uses.products;
        (of_both || of_one || !uses.columns.is_empty()).then_some(uses)
    }
}

/// Reads the rows of one text and remembers where their fields were.
pub(super) struct RowSequence<'m, 'a> {
    reader: RowReader<'m>,
    /// In the order in which they were first met.
    fields: Vec<RowField<'m, 'a>>,
    row: Row<'a>,
}

struct RowField<'m, 'a> {
    /// All bytes before the value where the field was first met: bracket or comma, key, colon.
    lead: &'a str,
    /// With its quotes.
    key: &'a str,
    /// `None`: the pipeline does not use it.
    uses: Option<Uses<'m>>,
    /// Lead and value in the last row that had the field, as a range of the text.
    last: Range<usize>,
}

/// What the value of a field is used for.
struct Uses<'m> {
    id: bool,
    name: bool,
    parent: bool,
    deleted: bool,
    layer: bool,
    prefix: bool,
    system: bool,
    products: bool,
    /// Each column with the path into the value.
    columns: Vec<(usize, &'m [String])>,
}

/// What comes next in a row.
enum Next {
    /// The value of the field at this index.
    RowField(usize),
    EndOfRow,
}

impl<'a> RowSequence<'_, 'a> {
    /// Reads the row that comes next; `None` if it is not an object.
    pub(super) fn read(&mut self, cursor: &mut JsonCursor<'a>) -> Option<&Row<'a>> {
        let mut cells = std::mem::take(&mut self.row.cells);
        cells.clear();
        cells.resize(self.reader.columns.len(), "");
        self.row = Row { cells, ..Row::default() };
        cursor.peek()?;
        let mut expected = 0;
        loop {
            expected = self.skip_repeated(cursor, expected);
            let start = cursor.position();
            let index = match self.fields.get(expected) {
                Some(field) if cursor.skip_text(field.lead) => expected,
                _ => match self.find(cursor, expected == 0)? {
                    Next::RowField(index) => index,
                    Next::EndOfRow => return Some(&self.row),
                },
            };
            let field = self.fields.get_mut(index)?;
            match &field.uses {
                Some(uses) => self.row.set_field(uses, cursor.value()?),
                None => cursor.skip_value()?,
            }
            field.last = start..cursor.position();
            expected = index + 1;
        }
    }

    /// Skips fields that the pipeline does not use when their bytes equal those of the previous row: most fields of a
    /// catalogue are constant. Returns the index of the field that is expected next.
    ///
    /// With `unit`, `image` and `stock` unused, after the value of `product_id`:
    ///
    /// ```text
    /// previous row   {"product_id":1,"unit":"PCS","image":"","stock":1,"name":"A"}
    /// this row       {"product_id":2,"unit":"PCS","image":"","stock":12,"name":"B"}
    ///                               ^ cursor                          ^ first difference
    ///                               [   unit    ][  image  ][ stock ...
    /// ```
    ///
    /// `unit` and `image` are skipped without being parsed: bytes that were valid in the previous row are valid here as
    /// well, provided the byte that follows them is equal too. `stock` is parsed, because its value goes on in this row.
    fn skip_repeated(&mut self, cursor: &mut JsonCursor<'a>, expected: usize) -> usize {
        let Some(RowField { uses: None, last, .. }) = self.fields.get(expected) else { return expected };
        let (here, previous) = (cursor.position(), last.start);
        let equal_until = previous + cursor.common_with(previous);
        let (mut next, mut end) = (expected, previous);
        while let Some(field) = self.fields.get_mut(next)
            && field.uses.is_none()
            && field.last.start == end
            && field.last.end < equal_until
        {
            end = field.last.end;
            field.last = field.last.start - previous + here..end - previous + here;
            next += 1;
        }
        cursor.advance(end - previous);
        next
    }

    /// Skips to the value of the field that comes next where that is not the expected one: looked up by its key, and
    /// remembered if it is new.
    ///
    /// ```text
    /// first row   {"product_id":1,"name":"A","cost":2}    fields: product_id (0), name (1), cost (2)
    /// this row    {"product_id":2,"cost":3,"unit":"PCS"}
    ///                            ^ first call: expected name, returns RowField(2)
    ///                                     ^ second call: expected nothing more, adds unit and returns RowField(3)
    /// ```
    fn find(&mut self, cursor: &mut JsonCursor<'a>, is_first: bool) -> Option<Next> {
        let start = cursor.position();
        if is_first {
            cursor.expect_byte(b'{')?;
        }
        if cursor.skip_byte(b'}') {
            return Some(Next::EndOfRow);
        }
        if !is_first {
            cursor.expect_byte(b',')?;
        }
        let key = cursor.string()?;
        cursor.expect_byte(b':')?;
        let lead = cursor.text_since(start)?;
        let known = self.fields.iter().position(|field| is_same(field.key.as_bytes(), key.as_bytes()));
        Some(Next::RowField(known.unwrap_or_else(|| {
            self.fields.push(RowField { lead, key, uses: self.reader.uses(&unquoted(key)), last: 0..0 });
            self.fields.len() - 1
        })))
    }
}

impl<'a> Row<'a> {
    fn set_field(&mut self, uses: &Uses<'_>, raw: &'a str) {
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
        if uses.layer {
            self.say_root(scalar(raw).map(|layer| layer == "1"));
        }
        if uses.prefix {
            self.say_root(scalar(raw).map(|prefix| prefix == "0-"));
        }
        if uses.system {
            self.system |= scalar(raw).is_some_and(|flag| flag == "1");
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

    /// One field that says so is enough.
    fn say_root(&mut self, said: Option<bool>) {
        self.root = self.root.max(said);
    }
}

/// A string's text; empty if its escapes are not text (half a surrogate pair).
fn unquoted(raw: &str) -> Cow<'_, str> {
    match raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
        _ => Cow::Owned(serde_json::from_str(raw).unwrap_or_default()),
    }
}

/// An id or a name as text, trimmed; `None` if it is blank, or neither a string nor a number.
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

/// Follows a path into nested objects. Of a key that comes twice the last value counts.
fn inner<'a>(raw: &'a str, path: &[String]) -> Option<&'a str> {
    let Some((key, rest)) = path.split_first() else { return Some(raw) };
    let mut found = None;
    JsonCursor::new(raw).object(|cursor, quoted| {
        let value = cursor.value()?;
        if unquoted(quoted) == *key {
            found = Some(value);
        }
        Some(())
    })?;
    inner(found?, rest)
}
