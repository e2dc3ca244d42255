//! Filters: the conditions of a list. The [module above](super) says what each parameter means.

use std::sync::Arc;

use bson::spec::ElementType;
use smallvec::{SmallVec, smallvec};

use super::operand::{Bound, Operand, Range};
use super::path::Path;
use super::traverse::visit_path;
use crate::record::{KeyBytes, Malformed, ValueRef, encode, rank};

/// A conjunction of clauses. Clones share them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter(Arc<[Clause]>);

/// A disjunction of predicates: one for a filter, several for `or`.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause(pub Vec<Predicate>);

impl Clause {
    pub fn matches(&self, document: &[u8]) -> Result<bool, Malformed> {
        for predicate in &self.0 {
            if predicate.matches(document)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Filter {
    /// Returns true if all clauses match the document.
    ///
    /// # Errors
    ///
    /// When the bytes are not BSON.
    pub fn matches(&self, document: &[u8]) -> Result<bool, Malformed> {
        for clause in &*self.0 {
            if !clause.matches(document)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn clauses(&self) -> &[Clause] {
        &self.0
    }

    /// The predicates of all clauses.
    pub fn predicates(&self) -> impl Iterator<Item = &Predicate> {
        self.0.iter().flat_map(|clause| &clause.0)
    }
}

impl FromIterator<Clause> for Filter {
    /// Merges ranges over the same field and type, so that a database reads one range of an index.
    fn from_iter<T: IntoIterator<Item = Clause>>(clauses: T) -> Self {
        let mut merged: Vec<Clause> = Vec::new();
        for clause in clauses {
            let found = merged.iter_mut().find_map(|other| match (other.0.as_slice(), clause.0.as_slice()) {
                ([one], [another]) => Some((one.merge(another)?, other)),
                _ => None,
            });
            match found {
                Some((both, other)) => other.0 = vec![both],
                None => merged.push(clause),
            }
        }
        Self(merged.into())
    }
}

/// A condition on the values at `path`: any value passes any of the tests. `negated` inverts the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicate {
    pub path: Path,
    pub any: Vec<Test>,
    pub negated: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Equal to one of these. Null also equals a missing field.
    In(Vec<Operand>),
    Range(Box<Range>),
    /// A string that begins with these bytes.
    Starts(Box<str>),
    Exists,
}

impl Predicate {
    /// Both predicates as one, if each consists of ranges over the same types in the same order.
    fn merge(&self, other: &Self) -> Option<Self> {
        if self.path != other.path || self.negated || other.negated || self.any.len() != other.any.len() {
            return None;
        }
        let both = self.any.iter().zip(&other.any).map(|tests| match tests {
            (Test::Range(a), Test::Range(b)) => a.intersect(b).map(|both| Test::Range(Box::new(both))),
            _ => None,
        });
        Some(Self { any: both.collect::<Option<_>>()?, ..self.clone() })
    }

    pub fn matches(&self, document: &[u8]) -> Result<bool, Malformed> {
        // For each test, whether a value was above its lower bound, and whether one was below its upper bound: in an array
        // these may be two elements, as in MongoDB.
        let mut passed: SmallVec<[(bool, bool); 4]> = smallvec![(false, false); self.any.len()];
        let mut failure = None;
        visit_path(document, self.path.names(), &mut |value| {
            let mut key = KeyBytes::new();
            for (test, passed) in self.any.iter().zip(&mut passed) {
                match test.check(value, &mut key) {
                    Ok((lower, upper)) => (passed.0, passed.1) = (passed.0 | lower, passed.1 | upper),
                    Err(malformed) => failure = Some(malformed),
                }
            }
        })?;
        match failure {
            Some(malformed) => Err(malformed),
            None => Ok(passed.contains(&(true, true)) != self.negated),
        }
    }
}

impl Test {
    /// Tests the value against the lower and the upper bound. `key` caches the key of the value between tests.
    fn check(&self, value: Option<ValueRef<'_>>, key: &mut KeyBytes) -> Result<(bool, bool), Malformed> {
        let both = |passed| Ok((passed, passed));
        let Some(value) = value else {
            return both(matches!(self, Self::In(operands) if operands.iter().any(|o| o.value == bson::Bson::Null)));
        };
        if let Self::Starts(prefix) = self {
            let is_text = matches!(value.kind, ElementType::String | ElementType::Symbol);
            return both(is_text && value.text()?.starts_with(prefix.as_bytes()));
        }
        let rank = rank(value.kind);
        let is_of_type = match self {
            Self::Exists | Self::Starts(_) => return both(true),
            Self::In(operands) => operands.iter().any(|operand| operand.key.rank() == rank),
            Self::Range(range) => range.rank() == rank,
        };
        if !is_of_type {
            return both(false);
        }
        if key.is_empty() {
            encode(key, value)?;
        }
        Ok(match self {
            Self::Exists | Self::Starts(_) => (true, true),
            Self::In(operands) => return both(operands.iter().any(|operand| operand.key.as_bytes() == key.as_slice())),
            // MongoDB sorts NaN before all numbers, and has it in no range.
            Self::Range(_) if is_nan(key) => (false, false),
            Self::Range(range) => {
                let Range { lower, upper } = &**range;
                let is_above = |bound: &Bound| match key.as_slice().cmp(bound.operand.key.as_bytes()) {
                    std::cmp::Ordering::Equal => bound.inclusive,
                    order => order.is_gt(),
                };
                let is_below = |bound: &Bound| match key.as_slice().cmp(bound.operand.key.as_bytes()) {
                    std::cmp::Ordering::Equal => bound.inclusive,
                    order => order.is_lt(),
                };
                (lower.as_ref().is_none_or(is_above), upper.as_ref().is_none_or(is_below))
            }
        })
    }
}

fn is_nan(key: &[u8]) -> bool {
    key.first() == Some(&rank(bson::spec::ElementType::Double)) && key[1..].iter().all(|byte| *byte == 0)
}
