//! The time of a line: RFC 3339, UTC, to the microsecond.

use std::cell::RefCell;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// The time of day takes a calendar to tell: it is told once a second, and what is behind it for each line.
pub fn push_time(line: &mut String) {
    thread_local! {
        static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    // A clock before 1970 is not worth more.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if text.is_empty() || *second != now.as_secs() {
            *second = now.as_secs();
            text.clear();
            let time = i64::try_from(*second).ok().and_then(|second| Timestamp::from_second(second).ok());
            let _ = write!(text, "{}", time.unwrap_or_default());
            // The Z, which comes last.
            text.pop();
        }
        line.push_str(text);
    });
    let mut digits = *b".000000Z";
    let mut rest = now.subsec_micros();
    for digit in digits[1..7].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    line.push_str(std::str::from_utf8(&digits).unwrap_or_default());
}
