//! The text of a query into a [`Selection`].

use percent_encoding::percent_decode_str;

use super::path::{literal, split};
use super::{After, Comparison, Cursor, Fields, Filter, Operand, Path, Selection, Sort, Test};
use crate::record::RecordId;

/// More of each than anybody needs: a request's cost has a bound.
const MAX_FILTERS: usize = 32;
const MAX_VALUES: usize = 256;
const MAX_FIELDS: usize = 64;

/// How much of a client's text an answer repeats, in characters.
const QUOTED_MAX: usize = 64;

/// What a filter can ask of a field.
pub const OPERATORS: [&str; 8] = ["eq", "ne", "gt", "gte", "lt", "lte", "in", "exists"];

/// What is wrong with a query: the parameter, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    pub parameter: String,
    pub detail: String,
}

impl Bad {
    pub fn new(parameter: &str, detail: impl Into<String>) -> Self {
        Self { parameter: parameter.chars().take(QUOTED_MAX).collect(), detail: detail.into() }
    }
}

/// The parameters of a query, decoded: names and values, in their order. A plus is a space, as forms write it.
///
/// # Errors
///
/// When what is decoded is not UTF-8.
pub fn decode(query: &str) -> Result<Vec<(String, String)>, Bad> {
    let spaced = |text: &str| text.replace('+', " ");
    let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    parameters
        .map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let (name, value) = (spaced(name), spaced(value));
            match (percent_decode_str(&name).decode_utf8(), percent_decode_str(&value).decode_utf8()) {
                (Ok(name), Ok(value)) => Ok((name.into_owned(), value.into_owned())),
                _ => {
                    let name = percent_decode_str(&name).decode_utf8_lossy();
                    Err(Bad::new(&name, format!("The parameter `{}`, percent-decoded, is not UTF-8.", quoted(&name))))
                }
            }
        })
        .collect()
}

impl Selection {
    /// Reads the parameters of a list.
    ///
    /// # Errors
    ///
    /// When one is unknown, there twice, or has a value that means nothing.
    pub fn parse(parameters: &[(String, String)]) -> Result<Self, Bad> {
        let mut selection = Self::default();
        let mut filters = Vec::new();
        let mut after = None;
        let mut seen = Vec::new();
        for (name, value) in parameters {
            match name.as_str() {
                "limit" | "after" | "after_id" | "sort" | "fields" if seen.contains(&name) => {
                    return Err(Bad::new(name, format!("`{name}` is there twice: give it once.")));
                }
                "limit" => selection.limit = Some(limit(value)?),
                "sort" => selection.sort = Some(sort(value)?),
                "fields" => selection.fields = Some(fields(value)?),
                "after" => after = Some(value),
                // No address leads to an empty id, so it is one that somebody has forgotten to fill in.
                "after_id" if value.is_empty() => {
                    return Err(Bad::new(name, "`after_id` is empty: it is the id of a record, or is left out."));
                }
                "after_id" => selection.after = Some(After::Id(RecordId::from(value.as_str()))),
                _ if filters.len() == MAX_FILTERS => {
                    return Err(Bad::new(name, format!("At most {MAX_FILTERS} filters are possible.")));
                }
                _ => filters.push(filter(name, value)?),
            }
            seen.push(name);
        }
        selection.filters = filters.into_iter().collect();
        if matches!(selection.after, Some(After::Id(_))) {
            if after.is_some() {
                return Err(Bad::new("after_id", "`after` and `after_id` both say where to begin: give one of them."));
            }
            if selection.sort.is_some() {
                let detail =
                    "`after_id` begins behind a record in the order of `_id`: leave `sort` out, or use `after`.";
                return Err(Bad::new("after_id", detail));
            }
        }
        if let Some(text) = after {
            let cursor = Cursor::decode(text, selection.sort.as_ref()).ok_or_else(|| {
                let detail = "`after` is not a cursor of a list in this order. Take it, with all other parameters, out of \
                              the `Link` with rel=\"next\" of the page before, or leave it out to begin at the first record.";
                Bad::new("after", detail)
            })?;
            selection.after = Some(After::Cursor(cursor));
        }
        Ok(selection)
    }

    /// Reads the parameters of a single record, which has nothing to choose but fields.
    ///
    /// # Errors
    ///
    /// As [`Selection::parse`].
    pub fn fields_alone(parameters: &[(String, String)]) -> Result<Option<Fields>, Bad> {
        if let Some((name, _)) = parameters.iter().find(|(name, _)| name != "fields") {
            let detail = format!("There is no parameter `{}`: a single record has `fields`.", quoted(name));
            return Err(Bad::new(name, detail));
        }
        match parameters {
            [] => Ok(None),
            [(_, value)] => fields(value).map(Some),
            [.., (name, _)] => Err(Bad::new(name, "`fields` is there twice: give it once.")),
        }
    }
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_MAX).collect()
}

fn limit(value: &str) -> Result<usize, Bad> {
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than a number has here are more than any limit allows, and whoever compares with that says so.
    let number = if is_number { value.parse().unwrap_or(usize::MAX) } else { 0 };
    Some(number)
        .filter(|number| *number > 0)
        .ok_or_else(|| Bad::new("limit", "`limit` is how many records to send at most: a whole number, 1 or more."))
}

fn path(parameter: &str, text: &str) -> Result<Path, Bad> {
    Path::parse(text).map_err(|wrong| {
        let detail = format!(
            "`{}` {wrong}. A field is written as in `{parameter}=name`, or `{parameter}=name.de`.",
            quoted(text)
        );
        Bad::new(parameter, detail)
    })
}

fn sort(value: &str) -> Result<Sort, Bad> {
    let (descending, text) = value.strip_prefix('-').map_or((false, value), |text| (true, text));
    if split(text, ',').len() > 1 {
        return Err(Bad::new(
            "sort",
            "`sort` is one field, or a minus and a field: records that are alike come by `_id`.",
        ));
    }
    Ok(Sort { path: path("sort", text)?, descending })
}

fn fields(value: &str) -> Result<Fields, Bad> {
    let parts = split(value, ',');
    if parts.len() > MAX_FIELDS {
        return Err(Bad::new("fields", format!("At most {MAX_FIELDS} fields can be named.")));
    }
    let paths = parts.iter().map(|part| path("fields", part)).collect::<Result<Vec<_>, _>>()?;
    Ok(Fields::of(&paths))
}

/// `path.operator` and a value.
fn filter(parameter: &str, value: &str) -> Result<Filter, Bad> {
    let unknown = || {
        let name = quoted(parameter);
        let operators = OPERATORS.join(", ");
        let detail = format!(
            "There is no parameter `{name}`. A list has `limit`, `after`, `after_id`, `sort` and `fields`, and filters: a \
             field and an operator, as in `{name}.eq`. Operators are {operators}."
        );
        Bad::new(parameter, detail)
    };
    let parts = split(parameter, '.');
    let Some((operator, names)) = parts.split_last().filter(|(_, names)| !names.is_empty()) else {
        return Err(unknown());
    };
    let one = || vec![Operand::from(value)];
    let compares = |comparison| Test::Compares(comparison, value.into());
    let (test, negated) = match operator.as_str() {
        "eq" => (Test::In(one()), false),
        "ne" => (Test::In(one()), true),
        "in" => {
            let values: Vec<Operand> = split(value, ',').iter().map(|value| literal(value).into()).collect();
            if values.len() > MAX_VALUES {
                return Err(Bad::new(parameter, format!("At most {MAX_VALUES} values can be listed.")));
            }
            (Test::In(values), false)
        }
        "gt" => (compares(Comparison::Greater), false),
        "gte" => (compares(Comparison::GreaterOrEqual), false),
        "lt" => (compares(Comparison::Less), false),
        "lte" => (compares(Comparison::LessOrEqual), false),
        "exists" => match value {
            "true" => (Test::Exists, false),
            "false" => (Test::Exists, true),
            _ => {
                return Err(Bad::new(parameter, "`exists` is `true` or `false`: whether the field is there."));
            }
        },
        _ => return Err(unknown()),
    };
    let path = Path::of(names.iter().map(|name| literal(name)).collect())
        .map_err(|wrong| Bad::new(parameter, format!("`{}` {wrong}.", quoted(parameter))))?;
    Ok(Filter { path, test, negated })
}
