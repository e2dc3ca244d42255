//! Filters, which speak of wire JSON, as a MongoDB query that finds **at least** every document whose JSON they hold of.
//!
//! [`selected`](crate::store::selected) decides about what was found, so nothing here needs to be exact, but nothing may be
//! missed: each clause covers every BSON type that can show as the JSON in question ([`crate::wire`] has the table). What
//! cannot be said in a query is left out of it, and so is every negation.
//!
//! Each clause is a value, a range of one type, or a whole type, so that an index of the field serves all of them. Values
//! stand where MongoDB takes a value and nothing else (`$in`, `$gte`, …), and never as a regular expression, which `$in`
//! would run.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Decimal128, Document, doc};

use super::bson::from_key;
use crate::query::{Comparison, Filter, Filters, Operand, Path, Test};
use crate::record::Key;
use crate::store::Query;
use crate::wire;

/// The first and the last millisecond of the years 0 to 9999, whose dates sort as text.
pub const YEAR_0: i64 = -62_167_219_200_000;
pub const YEAR_9999: i64 = 253_402_300_799_999;

/// What shows as a string without being one, and has no range of its own below.
const SHOWN_AS_STRINGS: [&str; 6] = ["javascript", "binData", "decimal", "regex", "minKey", "maxKey"];

/// What a string that is not UTF-8 shows in place of what it has.
const REPLACEMENT: char = '\u{fffd}';

/// How many alternatives the filters of a query have in all, not counting those that have none: enough for a range of text from
/// both sides. MongoDB weighs the combinations of them all when there are indexes, which takes it seconds where there are many.
const ALTERNATIVES: usize = 26;

const NOT_FROM_AN_INDEX: &str = "(not from an index)";

/// The query for candidates, from behind `after` on.
pub fn candidates(filters: &Filters, after: Option<&Key>) -> Document {
    let all: Vec<Document> = after.map(behind).into_iter().chain(clauses(filters)).collect();
    match all.is_empty() {
        true => doc! {},
        false => doc! { "$and": all },
    }
}

/// Unlike `$gt` alone, the expression compares across all types; both use the index.
pub fn behind(key: &Key) -> Document {
    doc! { "$expr": { "$gt": ["$_id", { "$literal": from_key(key) }] } }
}

/// What must hold of a candidate: all of these.
pub fn clauses(filters: &Filters) -> impl Iterator<Item = Document> {
    let mut left = ALTERNATIVES;
    filters.iter().filter_map(alternatives).filter_map(move |mut any| {
        if any.len() == 1 {
            return any.pop();
        }
        left = left.checked_sub(any.len())?;
        Some(doc! { "$or": any })
    })
}

/// What a candidate is found by, one or the other.
fn alternatives(filter: &Filter) -> Option<Vec<Document>> {
    if filter.negated {
        return None;
    }
    let path = dotted(&filter.path)?;
    let mut any = match &filter.test {
        Test::Exists => vec![doc! { &path: { "$exists": true } }],
        Test::In(operands) => shown_as(&path, operands),
        Test::Compares(comparison, operand) => match operand.number() {
            Some(number) => vec![doc! { &path: { operator(*comparison): from_key(number) } }],
            None => compares(&path, *comparison, operand.text()),
        },
    };
    any.extend(inside_of_scalars(&filter.path));
    Some(any)
}

/// The projection that leaves `query` what it looks at: whole fields of the record, since inside of them MongoDB goes by other
/// rules. `None` when it looks at all, or at names that cannot be said.
pub fn fields(query: &Query) -> Option<Document> {
    let asked_about = query.filters.iter().filter_map(|filter| filter.path.names().first());
    let names = query.fields.as_ref()?.names().chain(asked_about.map(|name| &**name));
    let mut projection = names
        .map(|name| is_plain(name).then(|| (name.to_owned(), Bson::Boolean(true))))
        .collect::<Option<Document>>()?;
    // A name that no index has. An index that has all of the fields would answer in their place, in its own order, and
    // `null` for what is missing.
    projection.insert(NOT_FROM_AN_INDEX, true);
    Some(projection)
}

/// The path as MongoDB writes it, if it can.
pub fn dotted(path: &Path) -> Option<String> {
    path.names().iter().all(|name| is_plain(name)).then(|| path.names().join("."))
}

/// Whether MongoDB takes the name for a field's, and for that one field's.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('$') && !name.contains(['.', '\0', REPLACEMENT])
}

/// Types that are one value to MongoDB and an object on the wire, with fields that the path may go on to.
pub fn inside_of_scalars(path: &Path) -> Vec<Document> {
    let mut clauses = Vec::new();
    for (index, name) in path.names().iter().enumerate().skip(1) {
        let kind = match &**name {
            "code" | "scope" => "javascriptWithScope",
            "t" | "i" => "timestamp",
            _ => continue,
        };
        clauses.push(doc! { path.names()[..index].join("."): { "$type": kind } });
    }
    clauses
}

/// Everything that shows as one of the texts.
fn shown_as(path: &str, operands: &[Operand]) -> Vec<Document> {
    let mut values = Vec::new();
    let mut types = Vec::new();
    for operand in operands {
        let text = operand.text();
        values.extend([Bson::String(text.into()), Bson::Symbol(text.into()), Bson::JavaScriptCode(text.into())]);
        values.extend(operand.number().map(from_key));
        values.extend(wire::parse_object_id(text).map(|id| Bson::ObjectId(ObjectId::from_bytes(id))));
        values.extend(wire::parse_date(text).map(date));
        values.extend(
            wire::parse_uuid(text)
                .map(|uuid| Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: uuid.to_vec() })),
        );
        // By value, so this finds numbers of other types too.
        values.extend(text.parse::<Decimal128>().ok().map(Bson::Decimal128));
        match text {
            "true" => values.push(Bson::Boolean(true)),
            "false" => values.push(Bson::Boolean(false)),
            "null" => {
                // Also what is missing. What is not finite has no JSON.
                values.push(Bson::Null);
                values.extend([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(Bson::Double));
                types.push("undefined");
            }
            "MinKey" => types.push("minKey"),
            "MaxKey" => types.push("maxKey"),
            _ => {}
        }
        if BASE64_STANDARD.decode(text).is_ok() {
            types.push("binData");
        }
        if text.starts_with('/') {
            types.push("regex");
        }
        if text.contains(REPLACEMENT) {
            types.extend(["string", "symbol", "javascript", "regex"]);
        }
    }
    types.sort_unstable();
    types.dedup();
    let mut clauses = vec![doc! { path: { "$in": values } }];
    clauses.extend(types.into_iter().map(|kind| doc! { path: { "$type": kind } }));
    clauses
}

fn operator(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Greater => "$gt",
        Comparison::GreaterOrEqual => "$gte",
        Comparison::Less => "$lt",
        Comparison::LessOrEqual => "$lte",
    }
}

/// Everything that shows as a string on this side of `text`.
fn compares(path: &str, comparison: Comparison, text: &str) -> Vec<Document> {
    let up = matches!(comparison, Comparison::Greater | Comparison::GreaterOrEqual);
    let mut clauses: Vec<Document> = SHOWN_AS_STRINGS.iter().map(|kind| doc! { path: { "$type": *kind } }).collect();
    clauses.push(doc! { path: { "$type": "symbol" } });
    clauses.push(doc! { path: strings(comparison, text, up) });
    clauses.push(doc! { path: { if up { "$gte" } else { "$lte" }: object_id(text, up) } });
    clauses.extend(dates(text, up).map(|range| doc! { path: range }));
    clauses
}

/// Strings that are not UTF-8 show U+FFFD where they are not, and sort by that: elsewhere than by their bytes, but only among
/// what is not ASCII.
fn strings(comparison: Comparison, text: &str, up: bool) -> Document {
    if text.is_ascii() {
        return doc! { operator(comparison): text };
    }
    let ascii = &text[..text.find(|character: char| !character.is_ascii()).unwrap_or(text.len())];
    match ascii.as_bytes().split_last() {
        _ if up => doc! { "$gte": ascii },
        // Behind everything that begins with `ascii`.
        Some((last @ ..0x7f, begin)) => {
            let begin = String::from_utf8_lossy(begin);
            doc! { "$lt": format!("{begin}{}", char::from(last + 1)) }
        }
        _ => doc! { "$type": "string" },
    }
}

/// The first ObjectId whose digits can be behind `text`, or the last one whose digits can be before it.
pub fn object_id(text: &str, up: bool) -> ObjectId {
    let digits = text.bytes().take(24).take_while(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).count();
    let filled = text[..digits].to_owned() + &if up { "0" } else { "f" }.repeat(24 - digits);
    let id = wire::parse_object_id(&filled).unwrap_or(if up { [0; 12] } else { [0xff; 12] });
    ObjectId::from_bytes(id)
}

pub fn date(millis: i64) -> Bson {
    Bson::DateTime(DateTime::from_millis(millis))
}

/// Ranges of dates: by bisection those that show on this side of `text`, and all that are shown with a signed year.
pub fn dates(text: &str, up: bool) -> impl Iterator<Item = Document> {
    let is_before = |millis: i64| {
        let mut shown = Vec::new();
        wire::date(&mut shown, millis);
        &shown[1..shown.len() - 1] < text.as_bytes()
    };
    // The first date that is not before `text`, or the one behind the last.
    let (mut low, mut high) = (YEAR_0, YEAR_9999 + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_before(middle) { low = middle + 1 } else { high = middle }
    }
    let plain = match up {
        true => doc! { "$gte": date(low), "$lte": date(YEAR_9999) },
        // What shows as `text` itself may be asked for too.
        false => doc! { "$gte": date(YEAR_0), "$lte": date(low) },
    };
    [plain, doc! { "$lt": date(YEAR_0) }, doc! { "$gt": date(YEAR_9999) }].into_iter()
}
