//! Translates requests for lists to MongoDB's query language, as far as that can express them.
//!
//! | request | `find` |
//! |---|---|
//! | filter | a clause for each filter; a field whose name has a dot or begins with `$` cannot be named: the executor filters by it |
//! | sort | the fields and the `_id` |
//! | after a cursor | a condition on the sort values: see [`keyset`] |
//! | projection | the paths, where all can be named |
//!
//! Operands stand only where the language takes a value: after `$eq`, `$in` and the comparisons, or in `$literal`.

use std::sync::LazyLock;

use mongodb::bson::spec::ElementType;
use mongodb::bson::{Bson, Document as Bdoc, doc};

use crate::query::{Bound, Filter, Path, Position, Predicate, Projection, Range, Sort, SortField, Test, position};
use crate::record::{Key, ValueRef, rank, to_bson};

/// Returns the dotted name of a field; `None` if the language cannot express it.
pub fn dotted(names: &[Box<str>]) -> Option<String> {
    let can_be_said = |name: &str| !name.is_empty() && !name.starts_with('$') && !name.contains(['.', '\0']);
    names.iter().all(|name| can_be_said(name)).then(|| names.join("."))
}

/// A filter in the query language.
pub struct Pushed {
    pub clauses: Vec<Bdoc>,
    /// The clauses that the reader must check: those that the language cannot express, or only approximately.
    pub residual: Filter,
    /// True if every clause is expressed at least approximately: then `clauses` admits few documents that do not match.
    pub is_complete: bool,
}

pub fn push_down(filter: &Filter) -> Pushed {
    let mut pushed = Pushed { clauses: Vec::new(), residual: Filter::default(), is_complete: true };
    let residual = filter.clauses().iter().filter(|clause| {
        let Some(said) = clause.0.iter().map(say).collect::<Option<Vec<_>>>() else {
            pushed.is_complete = false;
            return true;
        };
        pushed.clauses.push(any_of(said));
        clause.0.iter().any(is_approximate)
    });
    pushed.residual = residual.cloned().collect();
    pushed
}

/// Returns true for a prefix: as a range it also admits strings that are not UTF-8, and arrays that have one element above the
/// start of the range and another one below its end.
fn is_approximate(predicate: &Predicate) -> bool {
    predicate.any.iter().any(|test| matches!(test, Test::Starts(_)))
}

fn say(predicate: &Predicate) -> Option<Bdoc> {
    let field = dotted(predicate.path.names())?;
    let tests: Vec<Bdoc> = predicate.any.iter().map(|test| doc! { &field: operators(test) }).collect();
    match predicate.negated {
        true if is_approximate(predicate) => None,
        true => Some(doc! { "$nor": tests }),
        false => Some(any_of(tests)),
    }
}

fn operators(test: &Test) -> Bdoc {
    match test {
        Test::Exists => doc! { "$exists": true },
        Test::Starts(prefix) => {
            let mut range = doc! { "$gte": &**prefix };
            if let Some(end) = prefix_end(prefix) {
                range.insert("$lt", end);
            }
            range
        }
        Test::In(operands) => match operands.as_slice() {
            [operand] => doc! { "$eq": operand.value.clone() },
            operands => doc! { "$in": operands.iter().map(|operand| operand.value.clone()).collect::<Vec<_>>() },
        },
        Test::Range(range) => {
            let Range { lower, upper } = &**range;
            let mut range = Bdoc::new();
            let mut add = |bound: &Option<Bound>, inclusive: &str, exclusive: &str| {
                if let Some(bound) = bound {
                    range.insert(if bound.inclusive { inclusive } else { exclusive }, bound.operand.value.clone());
                }
            };
            add(lower, "$gte", "$gt");
            add(upper, "$lte", "$lt");
            range
        }
    }
}

/// Returns the least string after all those that begin with `prefix`. `None` if every greater string begins with it.
fn prefix_end(prefix: &str) -> Option<String> {
    let rest = prefix.trim_end_matches(char::MAX);
    let last = rest.chars().next_back()?;
    // A range of `char` skips the surrogates.
    let next = (last..=char::MAX).nth(1)?;
    Some(format!("{}{next}", &rest[..rest.len() - last.len_utf8()]))
}

/// Combines the clauses by `$and`.
pub fn conjunction(mut clauses: Vec<Bdoc>) -> Bdoc {
    match clauses.len() {
        0 => Bdoc::new(),
        1 => clauses.remove(0),
        _ => doc! { "$and": clauses },
    }
}

/// Returns the sort document; `None` if the language cannot express the order.
pub fn order(sort: &Sort) -> Option<Bdoc> {
    let mut order = Bdoc::new();
    for field in &sort.0 {
        order.insert(dotted(field.path.names())?, if field.descending { -1 } else { 1 });
    }
    if !order.contains_key("_id") {
        order.insert("_id", 1);
    }
    Some(order)
}

/// A field that no index has. Projecting it makes the server read the documents: from an index alone, it would return the fields
/// in the order of the index. The name is random, so that no document has the field and no request names it.
static NOT_INDEXED: LazyLock<String> = LazyLock::new(|| format!("\u{1}{:032x}", fastrand::u128(..)));

/// Returns the projection; `None` if the language cannot express it. It also keeps, as a whole, each field that the sort or the
/// residual filter needs.
pub fn projection(projection: &Projection, sort: &Sort, residual: &Filter) -> Option<Bdoc> {
    if !projection.has_kept_paths() {
        // A field that is hidden as a whole is in no sort order, but the residual filter may need it.
        let is_needed = |path: &[&str]| residual.predicates().any(|predicate| *predicate.path.names()[0] == *path[0]);
        return dotted_fields(Bdoc::new(), projection.dropped_paths().into_iter().filter(|path| !is_needed(path)), 0);
    }
    let mut projection = projection.clone();
    let paths = sort.0.iter().map(|field| &field.path);
    for path in paths.chain(residual.predicates().map(|predicate| &predicate.path)) {
        // The whole field, since a part of an array of documents has other sort keys than the array.
        let top = Path::of(path.names()[..1].to_vec()).ok()?;
        projection.add(&top);
    }
    dotted_fields(doc! { &*NOT_INDEXED: 1 }, projection.paths().into_iter(), 1)
}

fn dotted_fields<'a>(mut fields: Bdoc, paths: impl Iterator<Item = Vec<&'a str>>, value: i32) -> Option<Bdoc> {
    for path in paths {
        let names: Vec<Box<str>> = path.into_iter().map(Into::into).collect();
        fields.insert(dotted(&names)?, value);
    }
    Some(fields)
}

/// Returns the condition that a document comes after `at` in the order; `None` if the language cannot express it.
///
/// It admits every document after the position, and perhaps some before it, which the reader drops. It uses expressions, since
/// they compare across types as the order does, while `$gt` in a query stays within one type. But expressions compare an array as
/// a whole, while the order uses its least or greatest element:
///
/// - With `no_arrays`, the condition has a branch for each sort field, in a form that can use an index.
/// - Otherwise it is a single expression, which also admits every document with an array on a sort path. The server cannot use an
///   index for it, which would not help: the server sorts the documents anyway.
pub fn keyset(sort: &Sort, at: &Position, no_arrays: bool) -> Option<Bdoc> {
    let (values, id) = at.split(sort).ok()?;
    let fields = keyset_fields(sort, &values)?;
    // The `_id` is appended unless the sort names it.
    let id = match fields.iter().any(|field| field.name == "_id") {
        true => None,
        false => Some(bson_of(&id)?),
    };
    if no_arrays { by_branches(&fields, id) } else { Some(by_expression(&fields, id)) }
}

/// Returns a condition for documents with which [`keyset`] would be wrong with `no_arrays`: when the server merges branches, it
/// treats undefined as equal to a missing field, but in descending order undefined comes after null. `None` if this order has no
/// such case.
pub fn undefined_after(sort: &Sort, at: &Position) -> Option<Bdoc> {
    let (values, _) = at.split(sort).ok()?;
    let (mut equal, mut undefined) = (Vec::new(), Vec::new());
    for field in keyset_fields(sort, &values)? {
        if field.descending && field.is(ElementType::Null) {
            let is_undefined = doc! { &field.name: { "$type": "undefined" } };
            undefined.push(conjunction(equal.iter().cloned().chain([is_undefined]).collect()));
        }
        match field.equal() {
            Some(clause) => equal.push(clause),
            None => break,
        }
    }
    (!undefined.is_empty()).then(|| any_of(undefined))
}

fn keyset_fields<'a>(sort: &Sort, values: &'a [Key]) -> Option<Vec<KeysetField<'a>>> {
    let field = |(field, key): (&SortField, &'a Key)| {
        let name = dotted(field.path.names())?;
        Some(KeysetField { name, key, value: bson_of(key)?, descending: field.descending })
    };
    sort.0.iter().zip(values).map(field).collect()
}

struct KeysetField<'a> {
    name: String,
    key: &'a Key,
    value: Bson,
    descending: bool,
}

impl KeysetField<'_> {
    fn is(&self, kind: ElementType) -> bool {
        self.key.rank() == rank(kind)
    }

    /// Returns conditions for documents whose field comes later. The order treats a missing field as null, while expressions
    /// sort it between `MinKey` and null.
    fn later(&self) -> Vec<Bdoc> {
        let name = &self.name;
        let types = |names: &[&str]| vec![doc! { name: { "$type": names.to_vec() } }];
        if self.descending {
            return if self.is(ElementType::Null) {
                types(&["undefined", "minKey"])
            } else if self.is(ElementType::Undefined) {
                types(&["minKey"])
            } else if self.is(ElementType::MinKey) {
                Vec::new()
            } else {
                vec![expression("$lt", name, self.value.clone())]
            };
        }
        if self.is(ElementType::MaxKey) {
            return Vec::new();
        }
        vec![expression("$gt", name, self.value.clone())]
    }

    /// Returns the condition that the field is equal; `None` for undefined, which the language cannot express.
    fn equal(&self) -> Option<Bdoc> {
        Some(self.value.clone())
            .filter(|value| *value != Bson::Undefined)
            .map(|value| doc! { &self.name: { "$eq": value } })
    }

    /// Returns the condition of [`later`](Self::later) as one expression.
    fn later_expression(&self) -> Bdoc {
        let operator = if self.descending { "$lt" } else { "$gt" };
        let later = doc! { operator: [self.or_null(), { "$literal": self.value.clone() }] };
        if self.descending && self.is(ElementType::Null) {
            // `$ifNull` turns undefined into null, which is not later than null.
            let undefined = doc! { "$eq": [{ "$type": self.reference() }, "undefined"] };
            return doc! { "$or": [later, undefined] };
        }
        later
    }

    fn equal_expression(&self) -> Bson {
        match self.is(ElementType::Undefined) {
            true => true.into(),
            false => doc! { "$eq": [self.or_null(), { "$literal": self.value.clone() }] }.into(),
        }
    }

    fn or_null(&self) -> Bdoc {
        doc! { "$ifNull": [self.reference(), Bson::Null] }
    }

    fn reference(&self) -> String {
        format!("${}", self.name)
    }
}

fn by_branches(fields: &[KeysetField<'_>], id: Option<Bson>) -> Option<Bdoc> {
    let mut branches = Vec::new();
    // The condition that all previous fields are equal.
    let mut equal: Vec<Bdoc> = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        for later in field.later() {
            branches.push(conjunction(equal.iter().cloned().chain([later]).collect()));
        }
        equal.push(field.equal()?);
        // The server merges branches by a comparison in which a missing field comes before null. So null and missing must be in
        // one branch, and the remaining fields become one expression.
        let rest = &fields[index + 1..];
        if field.is(ElementType::Null) && rest.len() + usize::from(id.is_some()) > 1 {
            equal.push(by_expression(rest, id));
            branches.push(conjunction(equal));
            return Some(any_of(branches));
        }
    }
    if let Some(id) = id {
        equal.push(expression("$gt", "_id", id));
        branches.push(conjunction(equal));
    }
    Some(any_of(branches))
}

fn any_of(mut branches: Vec<Bdoc>) -> Bdoc {
    match branches.len() {
        // After the greatest value, the condition matches nothing.
        0 => doc! { "$nor": [{}] },
        1 => branches.remove(0),
        _ => doc! { "$or": branches },
    }
}

fn by_expression(fields: &[KeysetField<'_>], id: Option<Bson>) -> Bdoc {
    let mut branches: Vec<Bson> = Vec::new();
    let mut equal: Vec<Bson> = Vec::new();
    for field in fields {
        let mut branch = equal.clone();
        branch.push(field.later_expression().into());
        branches.push(doc! { "$and": branch }.into());
        equal.push(field.equal_expression());
    }
    if let Some(id) = id {
        equal.push(doc! { "$gt": ["$_id", { "$literal": id }] }.into());
        branches.push(doc! { "$and": equal }.into());
    }
    branches.extend(fields.iter().map(|field| doc! { "$isArray": [field.reference()] }.into()));
    doc! { "$expr": { "$or": branches } }
}

fn expression(operator: &str, name: &str, value: Bson) -> Bdoc {
    doc! { "$expr": { operator: [format!("${name}"), { "$literal": value }] } }
}

pub fn bson_of(key: &Key) -> Option<Bson> {
    let (kind, bytes) = key.to_value().ok()?;
    to_bson(ValueRef { kind, bytes: &bytes })
}

/// Returns conditions for documents with an array at the path or on the way to it. An `_id` cannot be an array in a collection.
pub fn arrays(names: &[Box<str>]) -> Vec<Bdoc> {
    let prefixes = (1..=names.len()).filter_map(|count| dotted(&names[..count])).filter(|name| name != "_id");
    prefixes.map(|name| doc! { name: { "$type": "array" } }).collect()
}

/// Returns true if an index on each path shows if there are arrays. A name of digits can also be a position in an array, and such
/// an array does not make the index multikey.
pub fn index_tells_arrays(sort: &Sort) -> bool {
    sort.0.iter().all(|field| field.path.names().iter().skip(1).all(|name| position(name).is_none()))
}

/// Returns true if the plan reads the sort order from indexes in which no document has an array.
///
/// `plan` is the `winningPlan` of an [explain](https://www.mongodb.com/docs/manual/reference/explain-results/).
pub fn sorts_by_index_without_arrays(plan: &Bson) -> bool {
    fn visit(plan: &Bson, indexes: &mut usize) -> bool {
        match plan {
            Bson::Document(stage) => {
                let sorts = stage.get_str("stage").is_ok_and(|stage| matches!(stage, "SORT" | "COLLSCAN"));
                if let Ok(is_multikey) = stage.get_bool("isMultiKey") {
                    *indexes += 1;
                    if is_multikey {
                        return false;
                    }
                }
                !sorts && stage.values().all(|value| visit(value, indexes))
            }
            Bson::Array(values) => values.iter().all(|value| visit(value, indexes)),
            _ => true,
        }
    }
    let mut indexes = 0;
    visit(plan, &mut indexes) && indexes > 0
}
