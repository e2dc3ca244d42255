//! Operands: what the text in a filter can denote, as BSON values.

use bson::{Bson, DateTime};

use crate::record::text::{self, MILLIS_PER_DAY, Number, Time};
use crate::record::{Key, text::key};

/// A value that a filter compares with.
#[derive(Clone, Debug, PartialEq)]
pub struct Operand {
    pub value: Bson,
    pub key: Key,
}

impl From<Bson> for Operand {
    fn from(value: Bson) -> Self {
        Self { key: key(&value), value }
    }
}

impl Operand {
    fn date(millis: i64) -> Self {
        Bson::DateTime(DateTime::from_millis(millis)).into()
    }

    fn string(text: &str) -> Self {
        Bson::String(text.to_owned()).into()
    }
}

/// The lower or upper end of a range.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    pub operand: Operand,
    pub inclusive: bool,
}

/// The values of one type between two bounds. At least one bound is set.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    pub lower: Option<Bound>,
    pub upper: Option<Bound>,
}

impl Range {
    /// The rank of the type.
    pub fn rank(&self) -> u8 {
        self.lower.as_ref().or(self.upper.as_ref()).map_or(0, |bound| bound.operand.key.rank())
    }

    fn from(lower: Operand, inclusive: bool) -> Self {
        Self { lower: Some(Bound { operand: lower, inclusive }), upper: None }
    }

    fn to(upper: Operand, inclusive: bool) -> Self {
        Self { lower: None, upper: Some(Bound { operand: upper, inclusive }) }
    }

    /// The values in both ranges, if they are of one type.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        if self.rank() != other.rank() {
            return None;
        }
        let tighter = |a: &Option<Bound>, b: &Option<Bound>, lower: bool| match (a, b) {
            (Some(a), Some(b)) => {
                // If the bounds are equal, the exclusive one is tighter.
                let order = a.operand.key.cmp(&b.operand.key);
                let order = if lower { order } else { order.reverse() };
                Some(if order.then(b.inclusive.cmp(&a.inclusive)).is_ge() { a.clone() } else { b.clone() })
            }
            (bound, None) | (None, bound) => bound.clone(),
        };
        Some(Self { lower: tighter(&self.lower, &other.lower, true), upper: tighter(&self.upper, &other.upper, false) })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Comparison {
    fn is_inclusive(self) -> bool {
        matches!(self, Self::GreaterOrEqual | Self::LessOrEqual)
    }

    fn range(self, operand: Operand) -> Range {
        match self {
            Self::Greater | Self::GreaterOrEqual => Range::from(operand, self.is_inclusive()),
            Self::Less | Self::LessOrEqual => Range::to(operand, self.is_inclusive()),
        }
    }
}

/// The text of an operand, which quotes can make a string and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    Quoted(String),
    Plain(String),
}

impl Text {
    /// # Errors
    ///
    /// When the text stands in double quotes and is no JSON string.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() < 2 || !text.starts_with('"') || !text.ends_with('"') {
            return Ok(Self::Plain(text.to_owned()));
        }
        serde_json::from_str(text).map(Self::Quoted).map_err(|_| {
            "a text in double quotes is a JSON string: write a quote inside it as `\\\"`, a backslash as `\\\\`"
                .to_owned()
        })
    }

    pub fn into_string(self) -> String {
        match self {
            Self::Quoted(text) | Self::Plain(text) => text,
        }
    }

    /// Every value that the text denotes, and the day, where it is a date without a time.
    pub fn equals(&self) -> (Vec<Operand>, Option<Range>) {
        match self {
            Self::Quoted(text) => (vec![Operand::string(text)], None),
            Self::Plain(text) => {
                let mut values: Vec<Operand> = text::typed(text).into_iter().map(Operand::from).collect();
                values.push(Operand::string(text));
                let day = match text::time(text) {
                    Some(Time::Day(start)) => Some(day(start)),
                    _ => None,
                };
                (values, day)
            }
        }
    }

    /// Returns the ranges of values that compare this way with the text. A value matches if any range contains it. A date
    /// yields two ranges, because dates may also be stored as ISO 8601 strings.
    pub fn ranges(&self, comparison: Comparison) -> Vec<Range> {
        let text = match self {
            Self::Quoted(text) => return vec![comparison.range(Operand::string(text))],
            Self::Plain(text) => text,
        };
        if let Some(id) = text::object_id(text) {
            return vec![comparison.range(id.into())];
        }
        if let Some(number) = text::number(text) {
            return vec![comparison.range(number_bound(number, comparison))];
        }
        if let Some(time) = text::time(text) {
            let dates = match time {
                Time::Instant(millis) => comparison.range(Operand::date(millis)),
                // No date lies between two milliseconds, so the bound moves to the one before.
                Time::Between(millis) => match comparison {
                    Comparison::Greater | Comparison::GreaterOrEqual => Range::from(Operand::date(millis), false),
                    Comparison::Less | Comparison::LessOrEqual => Range::to(Operand::date(millis), true),
                },
                Time::Day(start) => match comparison {
                    Comparison::Greater => Range::from(Operand::date(start + MILLIS_PER_DAY), true),
                    Comparison::GreaterOrEqual => Range::from(Operand::date(start), true),
                    Comparison::Less => Range::to(Operand::date(start), false),
                    Comparison::LessOrEqual => Range::to(Operand::date(start + MILLIS_PER_DAY), false),
                },
            };
            let digits = Range {
                lower: Some(Bound { operand: Operand::string("0"), inclusive: true }),
                // The character after 9.
                upper: Some(Bound { operand: Operand::string(":"), inclusive: false }),
            };
            let strings = comparison.range(Operand::string(text));
            return vec![dates, strings.intersect(&digits).unwrap_or(strings)];
        }
        vec![comparison.range(text::uuid(text).map_or_else(|| Operand::string(text), Operand::from))]
    }
}

fn day(start: i64) -> Range {
    Range {
        lower: Some(Bound { operand: Operand::date(start), inclusive: true }),
        upper: Some(Bound { operand: Operand::date(start + MILLIS_PER_DAY), inclusive: false }),
    }
}

/// The one of two values by which neither of them passes that should not: `gt` and `lte` use the greater, `gte` and `lt` the
/// smaller.
fn number_bound(number: Number, comparison: Comparison) -> Operand {
    let upper = matches!(comparison, Comparison::Greater | Comparison::LessOrEqual);
    match number.upper.filter(|_| upper) {
        Some(upper) => upper.into(),
        None => number.lower.into(),
    }
}
