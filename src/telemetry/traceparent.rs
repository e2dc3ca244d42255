//! `traceparent`: where a request stands in a trace that began elsewhere
//! ([W3C Trace Context](https://www.w3.org/TR/trace-context/)).

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What stands in a `traceparent` of version 00, in bytes.
const LENGTH: usize = 55;

/// The flags that mean something: that the trace is recorded, and that its id is random.
const KNOWN_FLAGS: u8 = 0b11;

/// One span of a trace: who asks, or who answers. Shows as the header's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    pub trace: TraceId,
    /// Never 0.
    pub span: u64,
    pub flags: u8,
}

/// The id that all spans of a trace have in common; shows as its 32 hex digits. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub u128);

impl TraceParent {
    /// Reads the header's value. `None` when it is not valid: then it says nothing, and nothing of it is used.
    ///
    /// A version after 00 may have more behind what is known of it.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(LENGTH)?;
        let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let version = hex(&known[..2])?;
        let ends = match version {
            0 => rest.is_empty(),
            0xff => return None,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        let (trace, span, flags) = (hex(&known[3..35])?, hex(&known[36..52])? as u64, hex(&known[53..])? as u8);
        (dashes && ends && trace != 0 && span != 0).then_some(Self {
            trace: TraceId(trace),
            span,
            flags: flags & KNOWN_FLAGS,
        })
    }

    /// A span of our own in the same trace.
    pub fn child(self) -> Self {
        Self { span: span_id(), ..self }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// At most 32 digits, lower case only: the specification has no others.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

/// Any but 0, and not the same again for a long time: a count, scattered by SplitMix64, from where chance has put this
/// process.
fn span_id() -> u64 {
    static NEXT: LazyLock<AtomicU64> =
        LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one(std::process::id())));
    let mut id = NEXT.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    id = (id ^ (id >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    id = (id ^ (id >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (id ^ (id >> 31)).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::{TraceId, TraceParent};

    #[rstest]
    #[case::of_the_specification("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true)]
    #[case::not_recorded("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", true)]
    #[case::flags_that_nobody_knows("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff", true)]
    #[case::a_later_version("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true)]
    #[case::a_later_version_with_more("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what", true)]
    #[case::a_later_version_grown_together("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01what", false)]
    #[case::more_than_version_0_has("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what", false)]
    #[case::no_version("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false)]
    #[case::no_trace("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false)]
    #[case::no_span("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false)]
    #[case::upper_case("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false)]
    #[case::other_dashes("00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01", false)]
    #[case::other_digits("00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01", false)]
    #[case::signs("00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false)]
    #[case::short("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0", false)]
    #[case::empty("", false)]
    fn what_is_valid_is_what_the_specification_says(#[case] value: &str, #[case] valid: bool) {
        let parsed = TraceParent::parse(value.as_bytes());
        assert_eq!(parsed.is_some(), valid);
        if let Some(parent) = parsed {
            assert_eq!(parent.trace.to_string(), value[3..35]);
            assert_eq!(format!("{:016x}", parent.span), value[36..52]);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace in 1u128.., span in 1u64.., flags in 0u8..4) {
            let parent = TraceParent { trace: TraceId(trace), span, flags };
            prop_assert_eq!(TraceParent::parse(parent.to_string().as_bytes()), Some(parent));
            let child = parent.child();
            prop_assert_eq!((child.trace, child.flags), (parent.trace, parent.flags));
            prop_assert!(child.span != 0 && child.span != parent.child().span);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>(), near in "[0-9a-fF-]{50,60}") {
            let _ = TraceParent::parse(&bytes);
            let _ = TraceParent::parse(near.as_bytes());
        }

        #[test]
        fn one_changed_byte_is_never_taken_for_the_same(at in 0usize..55, byte in any::<u8>()) {
            let value = *b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            let mut changed = value;
            changed[at] = byte;
            if let Some(parent) = TraceParent::parse(&changed) {
                // Of the version, and of the flags that nobody knows, nothing is kept.
                let kept = (3..53).contains(&at) && byte != value[at];
                prop_assert_eq!(kept, parent.trace != TraceId(0x4bf92f3577b34da6a3ce929d0e0e4736) || parent.span != 0x00f067aa0ba902b7);
            }
        }
    }
}
