//! The fields of the three built-in shapes, as a pipeline would spell them.

use indexmap::IndexMap;

use super::spec::{As, FieldSpec, FieldTable, Shape};

/// The fields of a shape. `id` and `number` are the source metadata's fields.
pub(super) fn shape_fields(shape: Shape, id: &str, number: &str) -> IndexMap<String, FieldSpec> {
    let field = |from: &str, kind| {
        FieldSpec::Table(FieldTable { from: Some(from.to_owned()), kind, ..FieldTable::default() })
    };
    let named = |list: Vec<(&str, FieldSpec)>| {
        list.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<IndexMap<_, _>>()
    };
    let item = vec![
        ("id", field("product_id", Some(As::String))),
        ("name", field("name", Some(As::String))),
        ("cost", field("cost", Some(As::Number))),
    ];
    match shape {
        Shape::Groups => named(vec![
            ("productGroupId", field(id, Some(As::String))),
            ("productName", field(number, Some(As::String))),
        ]),
        Shape::GroupsWithItems => named(vec![
            ("id", field(id, Some(As::String))),
            ("name", field(number, Some(As::String))),
            (
                "items",
                FieldSpec::Table(FieldTable {
                    each: Some("products".to_owned()),
                    fields: Some(named(item)),
                    ..FieldTable::default()
                }),
            ),
        ]),
        Shape::Products => {
            let mut fields = named(item);
            fields.insert("groupId".to_owned(), field(&format!("group.{id}"), Some(As::String)));
            fields.insert("groupName".to_owned(), field(&format!("group.{number}"), Some(As::String)));
            fields
        }
    }
}
