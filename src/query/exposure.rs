//! The part of the records that an operator shows: some of the fields, and the records that match a filter.
//!
//! A request sees a store that has nothing else. A field that is not shown can stand in none of its parameters, and neither can
//! a path whose value would tell something of it: a parent in a filter or an order, or a position in an array that leads there.
//! The condition itself may use hidden fields.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::parse::{QueryError, decode};
use super::path::{Path, split};
use super::{Filter, Projection, Selection};
use crate::record::{Document, Malformed};

/// The part of the records that a store shows. The default is all of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposure {
    filter: Filter,
    fields: Fields,
    projection: Option<Projection>,
    scope: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Fields {
    #[default]
    All,
    /// These, and what is in them.
    Only(Vec<Path>),
    /// All but these, and what is in them.
    Except(Vec<Path>),
}

impl Exposure {
    /// Reads a list of fields to show, or of fields to hide, and the condition of the records to show: filters as in a URL.
    ///
    /// # Errors
    ///
    /// The setting that is wrong (`expose`, `hide` or `where`), and what is valid there.
    pub fn parse(expose: &[String], hide: &[String], condition: Option<&str>) -> Result<Self, (&'static str, String)> {
        let filter = condition.map(parse_condition).transpose().map_err(|wrong| ("where", wrong))?.unwrap_or_default();
        let (expose, hide) = (
            parse_fields(expose).map_err(|wrong| ("expose", wrong))?,
            parse_fields(hide).map_err(|wrong| ("hide", wrong))?,
        );
        let mut scope = String::new();
        let (fields, projection) = match (expose.is_empty(), hide.is_empty()) {
            (true, true) => (Fields::All, None),
            (false, true) => {
                write_scope(&mut scope, "expose", &expose);
                let projection = Projection::keeping(&expose);
                (Fields::Only(expose), Some(projection))
            }
            (true, false) => {
                if hide.iter().any(|path| &*path.names()[0] == "_id") {
                    let detail = "`_id` cannot be hidden: links and cursors hold it".to_owned();
                    return Err(("hide", detail));
                }
                write_scope(&mut scope, "hide", &hide);
                let projection = Projection::dropping(&hide);
                (Fields::Except(hide), Some(projection))
            }
            (false, false) => {
                return Err(("hide", "fields are either exposed or hidden: leave one of the two out".to_owned()));
            }
        };
        if let Some(condition) = condition {
            // A digest: the condition may hold hidden values, and the scope is stored and logged.
            let _ = write!(scope, "{}where=", if scope.is_empty() { "" } else { "&" });
            for byte in Sha256::digest(condition.trim()) {
                let _ = write!(scope, "{byte:02x}");
            }
        }
        Ok(Self { filter, fields, projection, scope })
    }

    /// Returns true if everything is shown.
    pub fn is_whole(&self) -> bool {
        self.scope.is_empty()
    }

    /// A stable text, which differs where something else is shown. Empty if everything is shown.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// The condition of the records that are shown.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The fields that are shown; `None` if all are.
    pub fn projection(&self) -> Option<&Projection> {
        self.projection.as_ref()
    }

    /// Restricts the filter and the projection of a request.
    pub fn restrict(&self, filter: Filter, projection: Option<Projection>) -> (Filter, Option<Projection>) {
        let filter = match self.filter.is_empty() {
            true => filter,
            false => self.filter.clauses().iter().chain(filter.clauses()).cloned().collect(),
        };
        let projection = match (&self.projection, projection) {
            (Some(shown), Some(wanted)) => Some(shown.intersect(&wanted)),
            (shown, wanted) => wanted.or_else(|| shown.clone()),
        };
        (filter, projection)
    }

    /// The document as it is shown; `None` if it does not match the condition.
    ///
    /// # Errors
    ///
    /// When the bytes are not BSON.
    pub fn show(&self, document: Document) -> Result<Option<Document>, Malformed> {
        if !self.filter.matches(document.bson())? {
            return Ok(None);
        }
        match &self.projection {
            Some(projection) => projection.apply(&document).map(Some),
            None => Ok(Some(document)),
        }
    }

    /// Checks that a request names only fields that are shown.
    ///
    /// # Errors
    ///
    /// Names the first field that is not shown.
    pub fn check(&self, selection: &Selection) -> Result<(), QueryError> {
        if matches!(self.fields, Fields::All) {
            return Ok(());
        }
        let filters = selection.filter.predicates().map(|predicate| ("", &predicate.path));
        let sorts = selection.sort.0.iter().map(|field| ("sort", &field.path));
        for (parameter, path) in filters.chain(sorts) {
            if !self.shows_all_of(path.names()) {
                return Err(hidden(parameter, &path.to_string()));
            }
        }
        selection.projection.as_ref().map_or(Ok(()), |projection| self.check_projection(projection))
    }

    /// Checks only the projection, which may name a field that contains a hidden one.
    ///
    /// # Errors
    ///
    /// Those of [`check`](Self::check).
    pub fn check_projection(&self, projection: &Projection) -> Result<(), QueryError> {
        let is_within = |names: &[Box<str>], path: &Path| names.starts_with(path.names());
        for names in projection.paths() {
            let names: Vec<Box<str>> = names.into_iter().map(Into::into).collect();
            let is_shown = match &self.fields {
                Fields::All => true,
                Fields::Except(paths) => !paths.iter().any(|path| is_within(&without_positions(&names), path)),
                Fields::Only(paths) => {
                    is_id(&names)
                        || paths.iter().any(|path| is_within(&names, path) || path.names().starts_with(&names))
                }
            };
            if !is_shown {
                return Err(hidden("fields", &Path::of(names).map(|path| path.to_string()).unwrap_or_default()));
            }
        }
        Ok(())
    }

    /// Returns true if every value that a filter or an order can find at the path is shown, with all that is in it.
    fn shows_all_of(&self, names: &[Box<str>]) -> bool {
        match &self.fields {
            Fields::All => true,
            Fields::Only(paths) => is_id(names) || paths.iter().any(|path| names.starts_with(path.names())),
            Fields::Except(paths) => {
                let names = without_positions(names);
                !paths.iter().any(|path| names.starts_with(path.names()) || path.names().starts_with(&names))
            }
        }
    }
}

fn is_id(names: &[Box<str>]) -> bool {
    names.first().is_some_and(|name| **name == *"_id")
}

/// The fields on the path. A name of digits may be a position in an array, which then leads to a field in its elements.
fn without_positions(names: &[Box<str>]) -> Vec<Box<str>> {
    let is_position = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    names
        .iter()
        .enumerate()
        .filter(|(index, name)| *index == 0 || !is_position(name))
        .map(|(_, name)| name.clone())
        .collect()
}

fn hidden(parameter: &str, path: &str) -> QueryError {
    let parameter = if parameter.is_empty() { path } else { parameter };
    QueryError::new(
        parameter,
        format!("The records show no field `{path}`, or not all of it. Name a field that they show as a whole."),
    )
}

fn write_scope(scope: &mut String, setting: &str, paths: &[Path]) {
    let mut texts: Vec<_> = paths.iter().map(Path::to_string).collect();
    texts.sort();
    texts.dedup();
    let _ = write!(scope, "{setting}={}", texts.join(","));
}

fn parse_fields(values: &[String]) -> Result<Vec<Path>, String> {
    if values.is_empty() {
        return Ok(Vec::new());
    }
    // A comma that belongs to a name has a backslash before it.
    let parse = |part: &String| {
        let names = split(part, '.');
        if names.iter().any(|name| name == "*") {
            return Err(format!("`{part}` has a wildcard, which does not exist: name each field"));
        }
        let path = Path::parse(part).map_err(|wrong| format!("`{part}` {wrong}"))?;
        if path.names().iter().any(|name| name.is_empty()) {
            return Err(format!("`{part}` has an empty name: write it as in name or address.city"));
        }
        if without_positions(path.names()).len() < path.names().len() {
            let detail = "names a position in an array: a field in the elements of an array is named without one";
            return Err(format!("`{part}` {detail}, as in items.price"));
        }
        Ok(path)
    };
    split(&values.join(","), ',').iter().map(parse).collect()
}

fn parse_condition(text: &str) -> Result<Filter, String> {
    let parsed = decode(text.trim()).and_then(|parameters| Selection::parse(&parameters));
    let selection = parsed.map_err(|wrong| wrong.detail)?;
    let filter = selection.filter.clone();
    if filter.is_empty() || selection != (Selection { filter: filter.clone(), ..Selection::default() }) {
        return Err("it must consist of filters alone, as in a URL: public.eq=true&rating.gte=4".to_owned());
    }
    Ok(filter)
}
