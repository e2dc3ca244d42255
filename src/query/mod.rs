//! The parameters of a list: filters, sort order, projection, limit and cursor.
//!
//! Each parameter stands for a MongoDB query, and every store answers it as MongoDB would: types, comparison, ordering and
//! matching follow MongoDB 8.0. `docs/reference/queries.md` states the query for each parameter.
//!
//! # Paths
//!
//! `name.de` is the field `de` of the document in the field `name`; of an array on the way, of each document in it, and a
//! name of digits is a position in an array too. A backslash takes the next character literally: `a\.b` is one field with a
//! dot in its name, `a\\b` one with a backslash, and in a list `a\,b` one with a comma.
//!
//! # Filters
//!
//! | parameter | MongoDB query |
//! |---|---|
//! | `a.eq=V`, `a.in=V,W` | `{a: {$in: [every typed value that the texts denote]}}` |
//! | `a.ne=V` | the negation, by `$nor` |
//! | `a.gt=V`, `gte`, `lt`, `lte` | one range, within the type that the text denotes |
//! | `a.starts=V` | the strings that begin with V: a range that ends before the next prefix |
//! | `a.exists=true`, `false` | `{a: {$exists: …}}` |
//! | `or=(a.eq=V,b.gt=W)` | `{$or: [the query of each]}` |
//!
//! A text denotes a number (if it is one in JSON), `true`, `false`, `null`, an ObjectId, a UUID, a date (RFC 3339), and
//! always the string itself; in double quotes the string alone. See [`operand`].
//!
//! # Order
//!
//! `sort=a,-b` is `sort({a: 1, b: -1, _id: 1})`. See [`sort`].

mod cursor;
mod exposure;
mod filter;
mod operand;
mod parse;
mod path;
mod projection;
mod sort;
mod traverse;

pub use cursor::Cursor;
pub use exposure::Exposure;
pub use filter::{Clause, Filter, Predicate, Test};
pub use operand::{Bound, Comparison, Operand, Range, Text};
pub use parse::{OPERATORS, QueryError, decode, has_valid_escapes};
pub use path::Path;
pub use projection::Projection;
pub use sort::{Position, Sort, SortError, SortField};
pub use traverse::position;

use crate::record::RecordId;

/// The parameters of a list, parsed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    pub filter: Filter,
    pub sort: Sort,
    /// `None` is the whole record.
    pub projection: Option<Projection>,
    /// The fields of `projection` in the order of the request, each once, and without those inside of another one.
    pub columns: Vec<Path>,
    pub limit: Option<usize>,
    pub after: Option<After>,
}

/// The place where a list begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    Cursor(Cursor),
    /// After this record, in `_id` order: for a client that was cut off in the middle of a stream.
    Id(RecordId),
}
