//! Parses a query string into a [`Selection`].

use percent_encoding::percent_decode_str;

use super::path::{literal, split, split_nested, split_quoted};
use super::{
    After, Clause, Comparison, Cursor, Path, Predicate, Projection, Range, Selection, Sort, SortField, Test, Text,
};
use crate::record::RecordId;

/// Bounds on the cost of a request, far above what clients need.
const MAX_FILTERS: usize = 32;
const MAX_VALUES: usize = 256;
const MAX_FIELDS: usize = 64;
const MAX_SORT_FIELDS: usize = 8;

/// The longest part of a client's text that a response repeats, in characters.
const QUOTED_MAX: usize = 64;

/// The operators of filters.
pub const OPERATORS: [&str; 9] = ["eq", "ne", "gt", "gte", "lt", "lte", "in", "starts", "exists"];

/// A parameter that is wrong, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryError {
    pub parameter: String,
    pub detail: String,
}

impl QueryError {
    pub fn new(parameter: &str, detail: impl Into<String>) -> Self {
        Self { parameter: parameter.chars().take(QUOTED_MAX).collect(), detail: detail.into() }
    }
}

/// Decodes the parameters of a query: names and values, in their order. A plus is a space, as in HTML forms.
///
/// # Errors
///
/// When an escape is malformed, or the decoded text is not UTF-8.
pub fn decode(query: &str) -> Result<Vec<(String, String)>, QueryError> {
    let spaced = |text: &str| text.replace('+', " ");
    let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    parameters
        .map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if !has_valid_escapes(parameter) {
                let name = quoted(&percent_decode_str(name).decode_utf8_lossy());
                let detail = format!(
                    "The parameter `{name}` has a percent sign without two hex digits after it. Write a percent sign as %25."
                );
                return Err(QueryError::new(&name, detail));
            }
            let (name, value) = (spaced(name), spaced(value));
            match (percent_decode_str(&name).decode_utf8(), percent_decode_str(&value).decode_utf8()) {
                (Ok(name), Ok(value)) => Ok((name.into_owned(), value.into_owned())),
                _ => {
                    let name = percent_decode_str(&name).decode_utf8_lossy();
                    Err(QueryError::new(
                        &name,
                        format!("The parameter `{}`, percent-decoded, is not UTF-8.", quoted(&name)),
                    ))
                }
            }
        })
        .collect()
}

/// Returns true if every percent sign is followed by two hex digits.
pub fn has_valid_escapes(text: &str) -> bool {
    let mut escapes = text.split('%').skip(1);
    escapes.all(|rest| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit))
}

impl Selection {
    /// Reads the parameters of a list.
    ///
    /// # Errors
    ///
    /// When one is unknown, repeated, or has an invalid value.
    pub fn parse(parameters: &[(String, String)]) -> Result<Self, QueryError> {
        let mut selection = Self::default();
        let (mut clauses, mut filters) = (Vec::new(), 0);
        let mut after = None;
        let mut seen = Vec::new();
        for (name, value) in parameters {
            match name.as_str() {
                "limit" | "after" | "after_id" | "sort" | "fields" if seen.contains(&name) => {
                    return Err(QueryError::new(name, format!("`{name}` is there twice: give it once.")));
                }
                "limit" => selection.limit = Some(limit(value)?),
                "sort" => selection.sort = sort(value)?,
                "fields" => {
                    let paths = fields(value)?;
                    selection.projection = Some(paths.iter().collect());
                    selection.columns = columns(paths);
                }
                "after" => after = Some(value),
                // No URL addresses a record with an empty id, so the value was probably forgotten.
                "after_id" if value.is_empty() => {
                    return Err(QueryError::new(
                        name,
                        "`after_id` is empty: it is the id of a record, or is left out.",
                    ));
                }
                "after_id" => selection.after = Some(After::Id(RecordId::from(value.as_str()))),
                _ => {
                    let clause = clause(name, value)?;
                    filters += clause.0.len();
                    if filters > MAX_FILTERS {
                        return Err(QueryError::new(name, format!("At most {MAX_FILTERS} filters are possible.")));
                    }
                    clauses.push(clause);
                }
            }
            seen.push(name);
        }
        selection.filter = clauses.into_iter().collect();
        if matches!(selection.after, Some(After::Id(_))) {
            if after.is_some() {
                return Err(QueryError::new(
                    "after_id",
                    "`after` and `after_id` both say where to begin: give one of them.",
                ));
            }
            if !selection.sort.is_empty() {
                let detail = "`after_id` begins after a record in `_id` order: leave `sort` out, or use `after`.";
                return Err(QueryError::new("after_id", detail));
            }
        }
        if let Some(text) = after {
            let cursor = Cursor::decode(text, &selection.sort).ok_or_else(|| {
                let detail = "`after` is not a cursor of a list in this order. Take it, with all other parameters, out of \
                              the `Link` with rel=\"next\" of the page before, or leave it out to begin at the first record.";
                QueryError::new("after", detail)
            })?;
            selection.after = Some(After::Cursor(cursor));
        }
        Ok(selection)
    }

    /// Reads the parameters of a single record: only `fields` is valid there.
    ///
    /// # Errors
    ///
    /// Those of [`Selection::parse`].
    pub fn parse_projection(parameters: &[(String, String)]) -> Result<Option<Projection>, QueryError> {
        if let Some((name, _)) = parameters.iter().find(|(name, _)| name != "fields") {
            let detail = format!("There is no parameter `{}`: a single record has `fields`.", quoted(name));
            return Err(QueryError::new(name, detail));
        }
        match parameters {
            [] => Ok(None),
            [(_, value)] => Ok(Some(fields(value)?.iter().collect())),
            [.., (name, _)] => Err(QueryError::new(name, "`fields` is there twice: give it once.")),
        }
    }
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_MAX).collect()
}

fn limit(value: &str) -> Result<usize, QueryError> {
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    // A number too large for `usize` exceeds every limit; the comparison with the limit reports it.
    let number = if is_number { value.parse().unwrap_or(usize::MAX) } else { 0 };
    Some(number).filter(|number| *number > 0).ok_or_else(|| {
        QueryError::new("limit", "`limit` is how many records to send at most: a whole number, 1 or more.")
    })
}

fn path(parameter: &str, text: &str) -> Result<Path, QueryError> {
    Path::parse(text).map_err(|wrong| {
        let detail = format!(
            "`{}` {wrong}. A field is written as in `{parameter}=name`, or `{parameter}=name.de`.",
            quoted(text)
        );
        QueryError::new(parameter, detail)
    })
}

fn sort(value: &str) -> Result<Sort, QueryError> {
    let parts = split(value, ',');
    if parts.len() > MAX_SORT_FIELDS {
        return Err(QueryError::new("sort", format!("At most {MAX_SORT_FIELDS} fields can be sorted by.")));
    }
    let mut fields: Vec<SortField> = Vec::with_capacity(parts.len());
    for part in &parts {
        let (descending, text) = part.strip_prefix('-').map_or((false, part.as_str()), |text| (true, text));
        let path = path("sort", text)?;
        if fields.iter().any(|field| field.path == path) {
            return Err(QueryError::new("sort", format!("`{}` stands twice in `sort`: name it once.", quoted(text))));
        }
        fields.push(SortField { path, descending });
    }
    Ok(Sort(fields))
}

fn fields(value: &str) -> Result<Vec<Path>, QueryError> {
    let parts = split(value, ',');
    if parts.len() > MAX_FIELDS {
        return Err(QueryError::new("fields", format!("At most {MAX_FIELDS} fields can be named.")));
    }
    let paths = parts.iter().map(|part| {
        if part.starts_with('-') || split(part, '.').iter().any(|name| name == "*") {
            let detail = format!(
                "`{}` is not the name of a field. `fields` takes names with commas between them, as in `fields=name,address.city`; \
                 leave it out for whole records. A field can be left out only by naming the others. A field whose name begins with \
                 a minus or is an asterisk is written with a backslash before it.",
                quoted(part)
            );
            return Err(QueryError::new("fields", detail));
        }
        path("fields", part)
    });
    paths.collect()
}

/// See [`Selection::columns`].
fn columns(paths: Vec<Path>) -> Vec<Path> {
    let is_column = |(index, path): &(usize, &Path)| {
        let repeats = paths[..*index].contains(path);
        !repeats && !paths.iter().any(|other| other != *path && path.names().starts_with(other.names()))
    };
    paths.iter().enumerate().filter(is_column).map(|(_, path)| path.clone()).collect()
}

/// Parses a filter, or an `or` of several.
fn clause(parameter: &str, value: &str) -> Result<Clause, QueryError> {
    if parameter == "or" {
        return any_of(value).map(Clause);
    }
    let unknown = |name: &str| {
        let detail = format!(
            "There is no parameter `{name}`. A list has `limit`, `after`, `after_id`, `sort`, `fields` and `or`, and filters: a \
             field and an operator, as in `{name}.eq`. Operators are {}.",
            OPERATORS.join(", ")
        );
        QueryError::new(parameter, detail)
    };
    Ok(Clause(vec![predicate(parameter, value, false, unknown)?]))
}

/// Parses the value of `or`, such as `(a.eq=1,b.in=(2,3))`. Percent signs are decoded already; characters are escaped by a
/// backslash or by quotes.
fn any_of(value: &str) -> Result<Vec<Predicate>, QueryError> {
    let wrong = |detail: String| QueryError::new("or", detail);
    let Some(inner) = value.strip_prefix('(').and_then(|value| value.strip_suffix(')')) else {
        let detail = "`or` has filters in parentheses, with commas between them, as in `or=(a.eq=1,b.gt=2)`.";
        return Err(wrong(detail.into()));
    };
    let Some(filters) = split_nested(inner, ',') else {
        let detail = "In `or`, a parenthesis, a quote or the last character has no counterpart. Write a text that has commas, \
                      parentheses or quotes in double quotes, by JSON's rules, or put a backslash before each of them.";
        return Err(wrong(detail.into()));
    };
    let filter = |filter: String| {
        let parts = split(&filter, '=');
        let (name, operand) = filter.split_at(parts[0].len());
        let shown = quoted(name);
        let Some(operand) = operand.strip_prefix('=') else {
            return Err(wrong(format!("In `or`, `{shown}` is not a filter: write each as in `a.eq=1`.")));
        };
        let is_list = operand.len() > 1 && operand.starts_with('(') && operand.ends_with(')');
        let operand = match name.rsplit_once('.') {
            Some((_, "in")) if is_list => operand[1..operand.len() - 1].to_owned(),
            Some((_, "in")) => {
                return Err(wrong(format!("In `or`, the values of `{shown}` stand in parentheses: `{shown}=(1,2)`.")));
            }
            _ if !operand.starts_with('"') && has_parenthesis(operand) => {
                return Err(wrong(format!(
                    "In `or`, the text of `{shown}` has parentheses: put it in double quotes, or a backslash before each of them. \
                     An `or` has no other `or` in it."
                )));
            }
            _ => operand.to_owned(),
        };
        let unknown = |name: &str| {
            let operators = OPERATORS.join(", ");
            let detail = format!(
                "In `or`, `{name}` is not a field and an operator, as in `{name}.eq`. Operators are {operators}."
            );
            QueryError::new("or", detail)
        };
        predicate(name, &operand, true, unknown).map_err(|error| QueryError::new("or", error.detail))
    };
    filters.into_iter().map(filter).collect()
}

/// Returns true if the text has a parenthesis without a backslash before it.
fn has_parenthesis(text: &str) -> bool {
    split(text, '(').len() > 1 || split(text, ')').len() > 1
}

/// Parses `path.operator` and a value. With `is_escaped`, characters of a text that is not in quotes are escaped by a backslash.
fn predicate(
    parameter: &str,
    value: &str,
    is_escaped: bool,
    unknown: impl Fn(&str) -> QueryError,
) -> Result<Predicate, QueryError> {
    let unknown = || unknown(&quoted(parameter));
    let parts = split(parameter, '.');
    let Some((operator, names)) = parts.split_last().filter(|(_, names)| !names.is_empty()) else {
        return Err(unknown());
    };
    let read = |value: &str, is_escaped: bool| match is_escaped && !value.starts_with('"') {
        true => Ok(Text::Plain(literal(value).into())),
        false => Text::parse(value)
            .map_err(|wrong| QueryError::new(parameter, format!("In `{}`, {wrong}.", quoted(parameter)))),
    };
    let text = |value: &str| read(value, is_escaped);
    let compare =
        |comparison| Ok::<_, QueryError>(text(value)?.ranges(comparison).into_iter().map(range).collect::<Vec<_>>());
    let any = match operator.as_str() {
        "eq" | "ne" => equals(&[text(value)?]),
        "in" => {
            let values = split_quoted(value, ',');
            if values.len() > MAX_VALUES {
                return Err(QueryError::new(parameter, format!("At most {MAX_VALUES} values can be listed.")));
            }
            let texts = values.iter().map(|value| read(value, true));
            equals(&texts.collect::<Result<Vec<_>, _>>()?)
        }
        "gt" => compare(Comparison::Greater)?,
        "gte" => compare(Comparison::GreaterOrEqual)?,
        "lt" => compare(Comparison::Less)?,
        "lte" => compare(Comparison::LessOrEqual)?,
        "starts" => vec![Test::Starts(text(value)?.into_string().into())],
        "exists" if matches!(value, "true" | "false") => vec![Test::Exists],
        "exists" => {
            return Err(QueryError::new(parameter, "`exists` is `true` or `false`: whether the field is there."));
        }
        _ => return Err(unknown()),
    };
    let negated = operator == "ne" || (operator == "exists" && value == "false");
    let path = Path::of(names.iter().map(|name| literal(name)).collect())
        .map_err(|wrong| QueryError::new(parameter, format!("`{}` {wrong}.", quoted(parameter))))?;
    Ok(Predicate { path, any, negated })
}

/// Returns a test for the values that the texts denote, and one for each day.
fn equals(texts: &[Text]) -> Vec<Test> {
    let (values, days): (Vec<_>, Vec<_>) = texts.iter().map(Text::equals).unzip();
    let mut tests = vec![Test::In(values.into_iter().flatten().collect())];
    tests.extend(days.into_iter().flatten().map(range));
    tests
}

fn range(range: Range) -> Test {
    Test::Range(Box::new(range))
}
