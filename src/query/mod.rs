//! What a reader of a list may ask for: which records, of which fields, in which order, and how many at a time.
//!
//! Everything here is defined on a record's **wire JSON**, on what clients see, and nothing on what a store keeps. So it
//! means the same over every store: a store may use the [`Filters`] to find fewer candidates, and the same code then
//! decides about each of them.
//!
//! # Paths
//!
//! `name.de` is the field `de` of the object in the field `name`. A backslash takes what follows it literally: `a\.b` is
//! one field with a dot in its name, `a\\b` one with a backslash, and in a list `a\,b` one with a comma.
//!
//! A path reaches values, any number of them. An array on the way stands for its elements, and so does an array at the end
//! (beside itself): `lines.price` reaches the price of every line. An array directly inside an array is not entered, and
//! there are no positions. Of two fields with the same name, which JSON and BSON allow, the first counts.
//!
//! # Filters
//!
//! A parameter whose name is a path and an operator, as in `name.de.eq=Gold`. It holds when **some** value that the path
//! reaches satisfies it. All filters of a request must hold.
//!
//! | operator | a value satisfies it when |
//! |---|---|
//! | `eq` | it shows as the text: a string is that text; a number has the value that the text has as a JSON number; `true`, `false` and `null` are written so |
//! | `in` | it shows as one of the texts, which commas separate |
//! | `gt`, `gte`, `lt`, `lte` | the text is a JSON number, and the value is a number that compares so with it; or the text is anything else, and the value is a string that compares so with it, by Unicode code points |
//! | `exists=true` | always: the path reaches something, be it `null` |
//! | `ne` | the opposite of `eq`: **no** value that the path reaches shows as the text. So it holds where the field is missing |
//! | `exists=false` | the path reaches nothing |
//!
//! So `5` finds `5`, `5.0` and `"5"`, as it does as an id; a range over numbers never finds a string, nor the other way
//! round; a missing field satisfies no `eq` and no range, and `null` is not missing. What the wire shows as a string (a
//! date, an ObjectId, a Decimal128) is a string here: dates of the years 0 to 9999 sort by time that way. Values are never
//! read for anything else: no text is an operator, a pattern or a path.
//!
//! Numbers are 64-bit integers or doubles, and compare by value, exactly: `9007199254740993` is not `9007199254740992.0`.
//!
//! # Order
//!
//! By `_id`, or by the one field of `sort`: first records where the field is missing or `null`, then by numbers, strings,
//! objects, arrays, `false`, `true`; a minus before the path turns that round. Numbers compare by value, strings by the
//! code points of their first [`sort::PREFIX`] bytes or one character more; objects are alike, and so are arrays, which are not entered here. Records that
//! are alike come in `_id` order, whatever the direction.
//!
//! # Projection
//!
//! `fields` keeps the fields that it names, and `_id`, in the record's own order. Of an array on the way it keeps the
//! elements that are objects, each with what was asked for.

pub mod cursor;
mod fields;
mod filter;
mod parse;
mod path;
pub mod sort;
mod walk;

pub use cursor::Cursor;
pub use fields::Fields;
pub use filter::{Comparison, Filter, Filters, Operand, Test};
pub use parse::{Bad, OPERATORS, decode};
pub use path::Path;
pub use sort::Sort;

use crate::record::RecordId;

/// What was asked of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    pub filters: Filters,
    /// `None` is the order of `_id`.
    pub sort: Option<Sort>,
    /// `None` is the whole record.
    pub fields: Option<Fields>,
    pub limit: Option<usize>,
    pub after: Option<After>,
}

/// Where a list begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    Cursor(Cursor),
    /// Behind this record, in the order of `_id`: for whoever was cut off in the middle of a stream.
    Id(RecordId),
}
