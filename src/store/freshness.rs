//! The bounds that a reader sets on the staleness of an answer, and the logical time of a store.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use super::{Error, Result};

/// The bounds that a reader sets on the staleness of an answer. The default accepts any answer that the operator allows. A store
/// without a replica is never stale, and meets every bound but the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// The greatest staleness of an answer while the primary may answer instead. `Some(ZERO)`: the primary answers. `None`: any.
    pub max_staleness: Option<Duration>,
    /// The greatest staleness of an answer once the primary has failed.
    pub max_staleness_on_error: Option<Duration>,
    /// The primary is not asked.
    pub only_replica: bool,
    /// The answer contains every write up to this time.
    pub not_before: Option<ClusterTime>,
}

impl Freshness {
    /// Returns true if the reader sets a bound.
    pub fn is_bounded(&self) -> bool {
        *self != Self::default()
    }

    /// The check of a store that has no cluster time.
    ///
    /// # Errors
    ///
    /// `Invalid`, with a text for the client, if there is a [`not_before`](Self::not_before).
    pub fn without_cluster_time(&self) -> Result<()> {
        match self.not_before {
            None => Ok(()),
            Some(_) => Err(Error::no_cluster_time()),
        }
    }
}

impl Error {
    /// An error of kind `Invalid` about [`Freshness::not_before`].
    pub fn no_cluster_time() -> Self {
        let detail = "The records are in a store without a cluster time, such as a MongoDB that is no replica set: leave the \
                      header out.";
        Self::rejected(NOT_BEFORE, detail)
    }
}

/// The parameter of [`Error::rejection`].
pub const NOT_BEFORE: &str = "Records-Not-Before";

/// A time of the logical clock of a store ([cluster time](https://www.mongodb.com/docs/manual/reference/glossary/)): each write
/// has one, and a later write has a greater one. Its text is `SECONDS.INCREMENT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterTime(NonZeroU64);

impl ClusterTime {
    /// From seconds in the upper and an increment in the lower half. `None` if both are 0.
    pub fn new(bits: u64) -> Option<Self> {
        NonZeroU64::new(bits).map(Self)
    }

    pub fn bits(self) -> u64 {
        self.0.get()
    }

    /// `SECONDS.INCREMENT`, without a formatter: each response from a replica has this text.
    pub fn to_text(self) -> String {
        let (mut seconds, mut increment) = (itoa::Buffer::new(), itoa::Buffer::new());
        [seconds.format(self.bits() >> 32), ".", increment.format(self.bits() as u32)].concat()
    }
}

impl fmt::Display for ClusterTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

/// The text is not `SECONDS.INCREMENT`.
#[derive(Debug)]
pub struct InvalidClusterTime;

impl FromStr for ClusterTime {
    type Err = InvalidClusterTime;

    fn from_str(text: &str) -> std::result::Result<Self, InvalidClusterTime> {
        let number = |digits: &str| -> Option<u64> {
            let is_number = digits.bytes().all(|digit| digit.is_ascii_digit());
            digits.parse::<u32>().ok().filter(|_| is_number).map(u64::from)
        };
        let parsed = text.split_once('.').and_then(|(seconds, increment)| Some((number(seconds)?, number(increment)?)));
        parsed.and_then(|(seconds, increment)| Self::new(seconds << 32 | increment)).ok_or(InvalidClusterTime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_time_is_two_numbers() {
        for text in ["1764338423.17", "0.1", "1.0", "4294967295.4294967295"] {
            assert_eq!(text.parse::<ClusterTime>().unwrap().to_string(), text);
        }
        for text in ["", ".", "1", "1.", ".1", "0.0", "+1.1", "1.-1", "1.1.1", " 1.1", "4294967296.1", "1,1", "x"] {
            assert!(text.parse::<ClusterTime>().is_err(), "{text}");
        }
        assert!("1.2".parse::<ClusterTime>().unwrap() < "2.1".parse().unwrap());
        assert!("1.9".parse::<ClusterTime>().unwrap() < "1.10".parse().unwrap());
    }
}
