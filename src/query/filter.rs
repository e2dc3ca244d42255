//! Filters: what must hold of a record. The [module above](super) says what each means.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Path;
use super::walk::{Leaf, reached};
use crate::record::Key;

/// Filters that must all hold. Cloning shares them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(Arc<[Filter]>);

impl Filters {
    /// Whether all of them hold of the record with this wire JSON.
    pub fn hold(&self, json: &[u8]) -> bool {
        self.0.iter().all(|filter| filter.holds(json))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Filter> {
        self.0.iter()
    }
}

impl FromIterator<Filter> for Filters {
    fn from_iter<T: IntoIterator<Item = Filter>>(filters: T) -> Self {
        Self(filters.into_iter().collect())
    }
}

/// That some value which `path` reaches passes `test`; or, `negated`, that none does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    pub path: Path,
    pub test: Test,
    pub negated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// Shows as one of these.
    In(Vec<Operand>),
    Compares(Comparison, Operand),
    /// Is there.
    Exists,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Comparison {
    fn allows(self, ordering: Ordering) -> bool {
        match self {
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
        }
    }
}

/// The text that a value is compared with, and the number that it is in JSON, if it is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operand {
    text: Box<str>,
    number: Option<Key>,
}

impl Operand {
    pub fn text(&self) -> &str {
        &self.text
    }

    /// An integer or a double.
    pub fn number(&self) -> Option<&Key> {
        self.number.as_ref()
    }

    fn is_shown_by(&self, leaf: &Leaf<'_>) -> bool {
        match leaf {
            Leaf::Null => &*self.text == "null",
            Leaf::Bool(value) => &*self.text == if *value { "true" } else { "false" },
            Leaf::Number(value) => self.number.as_ref() == Some(value),
            Leaf::String(value) => &*self.text == *value,
            Leaf::Object | Leaf::Array => false,
        }
    }
}

impl<T: Into<Box<str>>> From<T> for Operand {
    fn from(text: T) -> Self {
        let text = text.into();
        Self { number: number(&text), text }
    }
}

impl Filter {
    pub fn holds(&self, json: &[u8]) -> bool {
        let mut passed = false;
        reached(json, self.path.names(), &mut |leaf| passed = passed || self.test.passes(&leaf));
        passed != self.negated
    }
}

impl Test {
    fn passes(&self, leaf: &Leaf<'_>) -> bool {
        match self {
            Self::In(operands) => operands.iter().any(|operand| operand.is_shown_by(leaf)),
            Self::Compares(comparison, operand) => match (operand.number(), leaf) {
                (Some(bound), Leaf::Number(value)) => comparison.allows(value.cmp(bound)),
                // Bytes of UTF-8 compare as code points do.
                (None, Leaf::String(value)) => comparison.allows((**value).cmp(operand.text())),
                _ => false,
            },
            Self::Exists => true,
        }
    }
}

/// The number that `text` is in JSON's grammar, to the precision of a 64-bit integer or else a double.
fn number(text: &str) -> Option<Key> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    let whole = whole.strip_prefix('-').unwrap_or(whole);
    let is_json = digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)));
    if !is_json {
        return None;
    }
    text.parse().map(Key::Integer).or_else(|_| text.parse().map(Key::double)).ok()
}
