//! Filters: [`Selection::parse`] and [`Filter::matches`] compared with a find by the MongoDB query that the documentation of the
//! parameters states. The test builds the query from its own knowledge of the values, not by the product's parser.

use bson::{Bson, Decimal128, Document as Tree, doc};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use records::query::{Filter, Selection, decode};

use crate::documents::{binary, contains, date_of};
use crate::server::{Server, check, number};
use crate::values::{DAY, TEXTS, numbered_documents, path, tree};

const MILLIS_PER_DAY: i64 = 86_400_000;

/// A text and the values that it denotes.
#[derive(Clone, Debug)]
struct Operand {
    text: String,
    /// The values without the string itself.
    typed: Vec<Bson>,
    comparison: Comparison,
}

/// The operand of a range.
#[derive(Clone, Debug)]
enum Comparison {
    String(String),
    Value(Bson),
    /// The number that the text denotes, or the two numbers around its value.
    Numbers(Vec<Bson>),
    Instant(i64),
    /// An instant after this millisecond and before the next one.
    Between(i64),
    Day(i64),
}

#[derive(Clone, Debug)]
enum Condition {
    In(Vec<Operand>),
    NotEqual(Operand),
    Compare(&'static str, Operand),
    Exists(bool),
    /// The text of a prefix, and the prefix.
    Starts(String, String),
    /// An `or`, whatever the path.
    Any(Vec<Parameter>),
}

#[derive(Clone, Debug)]
pub struct Parameter {
    path: Vec<&'static str>,
    condition: Condition,
}

/// Texts that denote only strings.
const PLAIN: &[&str] = &[
    "",
    "a",
    "aa",
    "B",
    "é",
    "\u{10000}",
    "a\0",
    "a\0b",
    ":",
    "\"",
    "\"a",
    "a\"",
    "a,b",
    "a\\b",
    "+5",
    "01",
    ".5",
    "1.",
    "1e",
    "0x10",
    " 1",
    "NaN",
    "Infinity",
    "-",
    "TRUE",
    "undefined",
    "$a",
    "$gt",
    "{\"$gt\":1}",
    "[1]",
    "/a/",
    "2024-01",
    "2024-1-2",
    "2024-02-30",
    "2024-13-01",
    "2024-01-02T00:00Z",
    "2024-01-02T00Z",
    "20240102T000000Z",
    "2024-01-02T24:00:00Z",
    "2024-01-02T00:00:60Z",
    "2024-01-02T00:00:00+01",
    "2024-01-02T00:00:00+0100",
    "2024-01-02T00:00:00+01:00:00",
    "2024-01-02T00:00:00+24:00",
    "2024-01-02T00:00:00+01:60",
    "2024-01-02T00:00:00",
    "2024-01-02T00:00:00.5",
    "2024-01-02T",
    "2024-01-02 ",
    "+2024-01-02",
    "2024-01-02T00:00:00,5Z",
    "2024-01-02T00:00:00.Z",
    "2024-01-02T00:00:00Z[UTC]",
    "2024-01-02T00:00:00+00:00[Europe/London]",
    "2024-01-02[UTC]",
    "2024-01-02T00:00:00Z ",
    "507f1f77bcf86cd79943901",
    "507f1f77bcf86cd79943901g",
    "3b241101e2bb42558caf4136c566a962",
    "{3b241101-e2bb-4255-8caf-4136c566a962}",
];

/// Prefixes. Many occur in the documents.
const PREFIXES: &[&str] = &[
    "",
    "a",
    "aa",
    "b",
    "B",
    "é",
    "\u{e9}",
    "\u{7f}",
    "\u{d7ff}",
    "\u{10ffff}",
    "a\u{10ffff}",
    "\u{10000}",
    "a\0",
    "(",
    ")",
    ",",
    "^",
    "5",
    "2024-01",
    "1",
];

/// Texts of numbers, with their values as Decimal128 and as double.
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "-0.0",
    "1",
    "2",
    "-1",
    "3",
    "1.0",
    "1.50",
    "0.5",
    "0.1",
    "-0.1",
    "0.10",
    "1e0",
    "1E+3",
    "1000",
    "5e-1",
    "9007199254740992",
    "9007199254740993",
    "9007199254740992.5",
    "9223372036854775807",
    "9223372036854775808",
    "9223372036854775807.5",
    "-9223372036854775808",
    "-9223372036854775809",
    "1e22",
    "1e23",
    "1.7976931348623157e308",
    "1.797693134862315708145274237317043e308",
    "1.797693134862315708145274237317044e308",
    "1e309",
    "1e400",
    "-1e400",
    "1e6144",
    "1e-400",
    "-1e-400",
    "4.9e-324",
    "5e-324",
    "1e-6176",
    "0.1000000000000000055511151231257827021181583404541015625",
    "12345678901234567890123456789012345678901234567890",
];

fn operand() -> impl Strategy<Value = Operand> {
    let string = |text: &str| Comparison::String(text.to_owned());
    let plain = move |text: &str| Operand { text: text.to_owned(), typed: vec![], comparison: string(text) };
    let literal = select(vec![("true", Bson::Boolean(true)), ("false", Bson::Boolean(false)), ("null", Bson::Null)]);
    let id = ("507f1f77bcf86cd799439011", [0x50, 0x7f, 0x1f, 0x77, 0xbc, 0xf8, 0x6c, 0xd7, 0x99, 0x43, 0x90, 0x11]);
    let ids = select(vec![id, ("000000000000000000000000", [0; 12]), ("FFFFFFFFFFFFFFFFFFFFFFFF", [0xff; 12])]);
    let uuid = [0x3b, 0x24, 0x11, 0x01, 0xe2, 0xbb, 0x42, 0x55, 0x8c, 0xaf, 0x41, 0x36, 0xc5, 0x66, 0xa9, 0x62];
    let upper = |text: &str, is_upper| if is_upper { text.to_uppercase() } else { text.to_owned() };
    prop_oneof![
        4 => select(PLAIN).prop_map(plain),
        2 => select(TEXTS).prop_map(move |text| Operand {
            text: serde_json::to_string(text).expect("JSON"),
            typed: vec![],
            comparison: string(text),
        }),
        2 => literal.prop_map(move |(text, value)| Operand { typed: vec![value], ..plain(text) }),
        5 => select(NUMBERS).prop_map(|text| numeric(text.to_owned())),
        2 => (-3..4_i32).prop_map(|number| numeric(number.to_string())),
        1 => any::<f64>().prop_filter("JSON has no other", |double| double.is_finite()).prop_map(|double| numeric(double.to_string())),
        1 => (ids, any::<bool>()).prop_map(move |((text, id), is_upper)| {
            let value = Bson::ObjectId(bson::oid::ObjectId::from_bytes(id));
            Operand { text: upper(text, is_upper), typed: vec![value.clone()], comparison: Comparison::Value(value) }
        }),
        1 => any::<bool>().prop_map(move |is_upper| {
            let value = binary(4, &uuid);
            let text = upper("3b241101-e2bb-4255-8caf-4136c566a962", is_upper);
            Operand { text, typed: vec![value.clone()], comparison: Comparison::Value(value) }
        }),
        4 => instant(),
        2 => (-1..=1_i64).prop_map(|days| Operand {
            text: civil(DAY + days * MILLIS_PER_DAY)[..10].to_owned(),
            typed: vec![],
            comparison: Comparison::Day(DAY + days * MILLIS_PER_DAY),
        }),
    ]
}

fn numeric(text: String) -> Operand {
    let double = text.parse::<f64>().ok().filter(|double| double.is_finite()).map(Bson::Double);
    let decimal = text.parse::<Decimal128>().ok().map(Bson::Decimal128);
    let typed: Vec<Bson> = match text.parse::<i64>() {
        Ok(integer) => vec![Bson::Int64(integer)],
        Err(_) => double.into_iter().chain(decimal).collect(),
    };
    Operand { text, comparison: Comparison::Numbers(typed.clone()), typed }
}

fn civil(millis: i64) -> String {
    let time = jiff::civil::DateTime::constant(1970, 1, 1, 0, 0, 0, 0) + jiff::SignedDuration::from_millis(millis);
    time.strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

/// Generates an instant near [`DAY`] in any spelling of RFC 3339.
fn instant() -> impl Strategy<Value = Operand> {
    let offset = prop_oneof![
        3 => select(vec![("Z", 0), ("z", 0), ("+00:00", 0), ("-00:00", 0)]).prop_map(|(text, minutes)| (text.to_owned(), minutes)),
        2 => (-1_439..1_440_i64).prop_map(|minutes| {
            let sign = if minutes < 0 { '-' } else { '+' };
            (format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60), minutes)
        }),
    ];
    let fraction = select(vec![
        "",
        "000",
        "0",
        "00",
        "000000",
        "000000000",
        "5",
        "500",
        "001",
        "0010",
        "999",
        "0001",
        "9999",
        "000000001",
        "000000000000",
        "0000000000001",
    ]);
    let separator = select(vec!['T', 't', ' ']);
    (-1..=1_i64, -1..=0_i64, fraction, separator, offset).prop_map(
        |(days, seconds, fraction, separator, (offset, minutes))| {
            let second = DAY + days * MILLIS_PER_DAY + seconds * 1_000;
            let local = civil(second + minutes * 60_000).replace('T', &separator.to_string());
            let point = if fraction.is_empty() { "" } else { "." };
            let nanos: i64 = format!("{fraction:0<9}")[..9].parse().expect("digits");
            let is_exact = fraction.trim_end_matches('0').len() <= 3;
            let millis = second + nanos / 1_000_000;
            Operand {
                text: format!("{local}{point}{fraction}{offset}"),
                typed: if is_exact { vec![date_of(millis)] } else { vec![] },
                comparison: if is_exact { Comparison::Instant(millis) } else { Comparison::Between(millis) },
            }
        },
    )
}

pub fn parameters() -> impl Strategy<Value = Vec<Parameter>> {
    let condition = prop_oneof![
        3 => operand().prop_map(|operand| Condition::In(vec![operand])),
        2 => vec(operand(), 1..4).prop_map(Condition::In),
        2 => operand().prop_map(Condition::NotEqual),
        6 => (select(vec!["gt", "gte", "lt", "lte"]), operand()).prop_map(|(name, operand)| Condition::Compare(name, operand)),
        1 => any::<bool>().prop_map(Condition::Exists),
        2 => (select(PREFIXES), any::<bool>()).prop_map(|(prefix, is_quoted)| {
            let text = if is_quoted { serde_json::to_string(prefix).expect("JSON") } else { prefix.to_owned() };
            Condition::Starts(text, prefix.to_owned())
        }),
    ];
    let any = vec((path(), condition.clone()).prop_map(|(path, condition)| Parameter { path, condition }), 1..4);
    let any = any.prop_map(|any| Parameter { path: vec![], condition: Condition::Any(any) });
    let one = (path(), condition.clone()).prop_map(|(path, condition)| vec![Parameter { path, condition }]).boxed();
    // Bounds of one range.
    let both = (path(), vec(condition, 2..4)).prop_map(|(path, conditions)| {
        conditions.into_iter().map(|condition| Parameter { path: path.clone(), condition }).collect()
    });
    let dates = (path(), vec((select(vec!["gt", "gte", "lt", "lte"]), instant()), 2)).prop_map(|(path, bounds)| {
        let condition =
            |(name, operand)| Parameter { path: path.clone(), condition: Condition::Compare(name, operand) };
        bounds.into_iter().map(condition).collect()
    });
    let with_any = (one.clone(), vec(any, 1..3)).prop_map(|(one, any)| [one, any].concat());
    prop_oneof![4 => one, 3 => both, 1 => dates, 3 => with_any]
}

/// Returns the query string of the parameters.
pub fn query(parameters: &[Parameter]) -> String {
    let encoded = |text: &str| {
        let byte = |byte: u8| match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'.' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        text.bytes().map(byte).collect::<String>()
    };
    fn parameter(Parameter { path, condition }: &Parameter) -> (String, String) {
        let (operator, value) = match condition {
            Condition::In(operands) if operands.len() == 1 => ("eq", operands[0].text.clone()),
            Condition::In(operands) => ("in", operands.iter().map(listed).collect::<Vec<_>>().join(",")),
            Condition::NotEqual(operand) => ("ne", operand.text.clone()),
            Condition::Compare(name, operand) => (*name, operand.text.clone()),
            Condition::Exists(exists) => ("exists", exists.to_string()),
            Condition::Starts(text, _) => ("starts", text.clone()),
            Condition::Any(any) => {
                return ("or".to_owned(), format!("({})", any.iter().map(nested).collect::<Vec<_>>().join(",")));
            }
        };
        (format!("{}.{operator}", path.join(".")), value)
    }
    /// A filter inside of an `or`.
    fn nested(filter: &Parameter) -> String {
        let (name, value) = parameter(filter);
        let value = match &filter.condition {
            Condition::In(operands) if operands.len() > 1 => {
                format!("({})", operands.iter().map(listed).collect::<Vec<_>>().join(","))
            }
            _ => escaped(&value),
        };
        format!("{name}={value}")
    }
    let each = parameters.iter().map(parameter).map(|(name, value)| format!("{name}={}", encoded(&value)));
    each.collect::<Vec<_>>().join("&")
}

/// Returns the text in a list, where a backslash or quotes protect its commas.
fn listed(operand: &Operand) -> String {
    escaped(&operand.text)
}

fn escaped(text: &str) -> String {
    let is_quoted = text.len() > 1 && text.starts_with('"') && text.ends_with('"');
    if is_quoted {
        return text.to_owned();
    }
    let special = |character: char| matches!(character, '\\' | ',' | '"' | '(' | ')');
    text.chars().flat_map(|character| special(character).then_some('\\').into_iter().chain([character])).collect()
}

/// Returns a condition by a regular expression, where the product uses a range.
fn begins_with(name: &str, prefix: &str) -> Tree {
    let quoted: String = prefix.chars().map(|character| format!("\\x{{{:x}}}", u32::from(character))).collect();
    doc! { name: { "$regex": format!("^{quoted}") } }
}

/// Returns the MongoDB query of the parameters.
pub fn translated(parameters: &[Parameter]) -> Tree {
    let mut all: Vec<Tree> = Vec::new();
    // Dates are compared as dates and as strings; the bounds of one field are one range of each.
    let mut dates: Vec<(String, Vec<Tree>, Vec<Tree>)> = Vec::new();
    for Parameter { path, condition } in parameters {
        let name = path.join(".");
        match condition {
            Condition::In(operands) => all.push(any_of(equals(&name, operands))),
            Condition::NotEqual(operand) => all.push(doc! { "$nor": equals(&name, std::slice::from_ref(operand)) }),
            Condition::Exists(exists) => all.push(doc! { &name: { "$exists": *exists } }),
            Condition::Starts(_, prefix) => all.push(begins_with(&name, prefix)),
            Condition::Any(any) => {
                let each: Vec<Tree> = any.iter().map(|one| translated(std::slice::from_ref(one))).collect();
                all.push(doc! { "$or": each });
            }
            Condition::Compare(operator, Operand { text, comparison, .. }) => {
                let with = |value: Bson| doc! { &name: { format!("${operator}"): value } };
                let date = |operator: &str, millis: i64| doc! { &name: { operator: date_of(millis) } };
                let is_lower = operator.starts_with('g');
                let dated = match comparison {
                    Comparison::String(text) => {
                        all.push(with(Bson::String(text.clone())));
                        continue;
                    }
                    Comparison::Value(value) => {
                        all.push(with(value.clone()));
                        continue;
                    }
                    Comparison::Numbers(numbers) => {
                        let each: Vec<Tree> = numbers.iter().map(|number| with(number.clone())).collect();
                        // A value above both numbers is above the greater one.
                        all.push(if matches!(*operator, "gt" | "lt") {
                            doc! { "$and": each }
                        } else {
                            any_of(each)
                        });
                        continue;
                    }
                    Comparison::Instant(millis) => with(date_of(*millis)),
                    Comparison::Between(millis) if is_lower => date("$gte", millis + 1),
                    Comparison::Between(millis) => date("$lte", *millis),
                    Comparison::Day(start) => match *operator {
                        "gt" => date("$gte", start + MILLIS_PER_DAY),
                        "lte" => date("$lt", start + MILLIS_PER_DAY),
                        _ => with(date_of(*start)),
                    },
                };
                let digits = if is_lower {
                    doc! { "$lt": ":" }
                } else {
                    doc! { "$gte": "0" }
                };
                let string = [with(Bson::String(text.clone())), doc! { &name: digits }];
                match dates.iter_mut().find(|(field, ..)| *field == name) {
                    Some((_, dates, strings)) => {
                        dates.push(dated);
                        strings.extend(string);
                    }
                    None => dates.push((name, vec![dated], string.into())),
                }
            }
        }
    }
    all.extend(dates.into_iter().map(|(_, dates, strings)| doc! { "$or": [{ "$and": dates }, { "$and": strings }] }));
    doc! { "$and": all }
}

fn any_of(mut clauses: Vec<Tree>) -> Tree {
    if clauses.len() == 1 {
        clauses.remove(0)
    } else {
        doc! { "$or": clauses }
    }
}

fn equals(name: &str, operands: &[Operand]) -> Vec<Tree> {
    let mut values = Vec::new();
    let mut clauses = Vec::new();
    for Operand { text, typed, comparison } in operands {
        values.extend(typed.iter().cloned());
        values.push(Bson::String(match comparison {
            Comparison::String(string) => string.clone(),
            _ => text.clone(),
        }));
        if let Comparison::Day(start) = comparison {
            clauses.push(doc! { name: { "$gte": date_of(*start), "$lt": date_of(start + MILLIS_PER_DAY) } });
        }
    }
    clauses.push(doc! { name: { "$in": values } });
    clauses
}

pub fn tests_null(parameters: &[Parameter]) -> bool {
    let is_null = |operand: &Operand| operand.typed.contains(&Bson::Null);
    parameters.iter().any(|parameter| match &parameter.condition {
        Condition::In(operands) => operands.iter().any(is_null),
        Condition::NotEqual(operand) => is_null(operand),
        Condition::Any(any) => tests_null(any),
        _ => false,
    })
}

/// Parses the filter of a query string by the product.
pub fn filter(query: &str) -> Filter {
    let selection = decode(query).and_then(|parameters| Selection::parse(&parameters));
    selection.unwrap_or_else(|error| panic!("{query}: {}", error.detail)).filter
}

pub fn filters_match_as_a_find_does(server: &Server) {
    let collection = server.collection();
    check(128, &(numbered_documents(), vec(parameters(), 1..30)), |(documents, queries)| {
        collection.fill(&documents);
        for parameters in queries {
            let query = query(&parameters);
            let filter = filter(&query);
            let mut ours = Vec::new();
            let mut compared = Vec::new();
            for document in &documents {
                let tree = tree(document);
                // Before MongoDB 8.0, null also matches undefined.
                if server.version < 8
                    && tests_null(&parameters)
                    && contains(&tree.into(), &|value| matches!(value, Bson::Undefined))
                {
                    continue;
                }
                compared.push(number(document));
                if filter.matches(document.bson()).expect("BSON") {
                    ours.push(number(document));
                }
            }
            let translated = translated(&parameters);
            let scope = doc! { "$and": [translated.clone(), { "_id": { "$in": compared } }] };
            let found = collection.find_numbers(scope, doc! { "_id": 1 }).expect("a find");
            prop_assert_eq!(&found, &ours, "{} is {}, read as {:?}", query, translated, filter);
        }
        Ok(())
    });
}
