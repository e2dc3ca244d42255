//! Requests for lists in MongoDB's query language, as far as it can say them.
//!
//! | request | `find` |
//! |---|---|
//! | filter | one clause for each filter; a field whose name has a dot or begins with `$` cannot be named, and its filter is left to the executor |
//! | sort | the fields and the `_id` |
//! | after a cursor | a condition on the sort values: see [`keyset`] |
//! | projection | the paths, where all can be named |
//!
//! Operands stand only where the language takes a value: after `$eq`, `$in` and the comparisons, or in `$literal`.

use mongodb::bson::spec::ElementType;
use mongodb::bson::{Bson, Document as Bdoc, doc};

use crate::query::{Bound, Filter, Path, Position, Predicate, Projection, Range, Sort, SortField, Test, position};
use crate::record::{Key, ValueRef, rank, to_bson};

/// The dotted name of a field; `None` for a name that the language cannot say.
pub fn dotted(names: &[Box<str>]) -> Option<String> {
    let can_be_said = |name: &str| !name.is_empty() && !name.starts_with('$') && !name.contains(['.', '\0']);
    names.iter().all(|name| can_be_said(name)).then(|| names.join("."))
}

/// A filter in the query language.
pub struct Pushed {
    pub clauses: Vec<Bdoc>,
    /// The clauses that the reader must check: those that cannot be said, and those that the language can only approximate.
    pub residual: Filter,
    /// Every clause is said, at least approximately: `clauses` admits few documents that do not match.
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

/// A range admits arrays of which one element is above the prefix and another one below its end, and strings that are not UTF-8.
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

/// The least string after all those that begin with `prefix`. `None` where every greater string begins with it.
fn prefix_end(prefix: &str) -> Option<String> {
    let rest = prefix.trim_end_matches(char::MAX);
    let last = rest.chars().next_back()?;
    // A range of characters leaves the surrogates out.
    let next = (last..=char::MAX).nth(1)?;
    Some(format!("{}{next}", &rest[..rest.len() - last.len_utf8()]))
}

/// All of the clauses.
pub fn conjunction(mut clauses: Vec<Bdoc>) -> Bdoc {
    match clauses.len() {
        0 => Bdoc::new(),
        1 => clauses.remove(0),
        _ => doc! { "$and": clauses },
    }
}

/// The order; `None` when it cannot be said.
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

/// A name that no index has, so that the server reads the documents. From an index alone it would return the fields in the
/// order of the index, not in that of the document.
const NOT_INDEXED: &str = "\u{1}";

/// The projection, which also keeps the whole of each field that the sort or the residual filter looks into; `None` when it
/// cannot be said.
pub fn projection(projection: &Projection, sort: &Sort, residual: &Filter) -> Option<Bdoc> {
    let mut projection = projection.clone();
    let paths = sort.0.iter().map(|field| &field.path);
    for path in paths.chain(residual.predicates().map(|predicate| &predicate.path)) {
        // The whole: a part of an array of documents has other sort keys than the array.
        let top = Path::of(path.names()[..1].to_vec()).ok()?;
        projection.add(&top);
    }
    let mut fields = doc! { NOT_INDEXED: 1 };
    for path in projection.paths() {
        let names: Vec<Box<str>> = path.into_iter().map(Into::into).collect();
        fields.insert(dotted(&names)?, 1);
    }
    Some(fields)
}

/// The condition that a document comes later in the order than `at`; `None` when it cannot be said.
///
/// It admits every document after the position, and perhaps some before it, which the reader drops. The order compares across
/// types, and so do expressions, where `$gt` stays within one type. They compare an array as a whole, where the order uses its
/// least or greatest element:
///
/// - With `no_arrays`, one branch for each sort field, in a form for which the server uses an index.
/// - Otherwise one expression, which also admits every document with an array on a sort path. It keeps the server from reading
///   an index that does not help: the server sorts the documents that it reads anyway.
pub fn keyset(sort: &Sort, at: &Position, no_arrays: bool) -> Option<Bdoc> {
    let (values, id) = at.split(sort).ok()?;
    let fields = keyset_fields(sort, &values)?;
    // A sort that names the `_id` needs no second one.
    let id = match fields.iter().any(|field| field.name == "_id") {
        true => None,
        false => Some(bson_of(&id)?),
    };
    if no_arrays { by_branches(&fields, id) } else { Some(by_expression(&fields, id)) }
}

/// The documents that keep [`keyset`] from being exact with `no_arrays`: in descending order they come after null, and the
/// server, when it merges branches, takes undefined and missing fields for equal. `None` where there are no such documents.
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

    /// The documents whose field comes later. In the order a missing field is null; in an expression it comes before it, after
    /// `MinKey`.
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

    /// The documents whose field is equal; `None` where it is undefined, which the language cannot say.
    fn equal(&self) -> Option<Bdoc> {
        Some(self.value.clone())
            .filter(|value| *value != Bson::Undefined)
            .map(|value| doc! { &self.name: { "$eq": value } })
    }

    /// The same as one expression.
    fn later_expression(&self) -> Bdoc {
        let operator = if self.descending { "$lt" } else { "$gt" };
        let later = doc! { operator: [self.or_null(), { "$literal": self.value.clone() }] };
        if self.descending && self.is(ElementType::Null) {
            // As an expression, undefined is null.
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
    // Documents that are equal in all fields before.
    let mut equal: Vec<Bdoc> = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        for later in field.later() {
            branches.push(conjunction(equal.iter().cloned().chain([later]).collect()));
        }
        equal.push(field.equal()?);
        // The server merges the branches by their documents, and there a missing field comes before null: one branch has both.
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
        // Nothing comes after the greatest value there is.
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

/// The documents with an array at the path or on the way there. A collection has no `_id` that is an array.
pub fn arrays(names: &[Box<str>]) -> Vec<Bdoc> {
    let prefixes = (1..=names.len()).filter_map(|count| dotted(&names[..count])).filter(|name| name != "_id");
    prefixes.map(|name| doc! { name: { "$type": "array" } }).collect()
}

/// Whether an index on the path tells if there are arrays: a name of digits is a position in an array too, and an index on
/// such a path is not multikey by it.
pub fn index_tells_arrays(sort: &Sort) -> bool {
    sort.0.iter().all(|field| field.path.names().iter().skip(1).all(|name| position(name).is_none()))
}

/// Whether the plan reads the sort order from indexes in which no document has an array.
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
