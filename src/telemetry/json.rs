//! A line of the log as one JSON object: `timestamp` (RFC 3339, UTC), `level`, `target`, and the event's own fields beside
//! them, `message` among them.
//!
//! Written here and not by the subscriber's own JSON: that goes by way of a generic serialiser, which takes twice the time.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::LINE_BYTES;
use super::time::push_time;

pub struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        // Written at once at the end: a piece written by way of the subscriber is a call that the compiler cannot see
        // through, and there are dozens of them in a line.
        let mut line = String::with_capacity(LINE_BYTES);
        let metadata = event.metadata();
        push_head(&mut line, *metadata.level(), metadata.target());
        event.record(&mut Fields(&mut line));
        line.push_str("}\n");
        writer.write_str(&line)
    }
}

/// What each line begins with. Levels and targets are names in source code.
fn push_head(line: &mut String, level: Level, target: &str) {
    line.push_str("{\"timestamp\":\"");
    push_time(line);
    line.push_str("\",\"level\":\"");
    line.push_str(level.as_str());
    line.push_str("\",\"target\":\"");
    line.push_str(target);
    line.push('"');
}

/// The line of an error that comes to pass where there is no log.
pub fn error(target: &str, message: &str) -> String {
    let mut line = String::with_capacity(LINE_BYTES);
    push_head(&mut line, Level::ERROR, target);
    line.push_str(",\"message\":\"");
    push_escaped(&mut line, message);
    line.push_str("\"}\n");
    line
}

struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn name(&mut self, field: &Field) -> &mut String {
        self.0.push_str(",\"");
        self.0.push_str(field.name());
        self.0.push_str("\":");
        self.0
    }

    fn integer(&mut self, field: &Field, value: impl itoa::Integer) {
        self.name(field).push_str(itoa::Buffer::new().format(value));
    }
}

// Writing to a String cannot fail; what fails in here is a value's own `Debug`, and leaves a gap.
impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        let line = self.name(field);
        match value.is_finite() {
            true => line.push_str(zmij::Buffer::new().format_finite(value)),
            false => line.push_str("null"),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.integer(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.integer(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.name(field).push_str(if value { "true" } else { "false" });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let line = self.name(field);
        line.push('"');
        push_escaped(line, value);
        line.push('"');
    }

    /// Messages come this way too, and whatever is logged by its `Display`.
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let line = self.name(field);
        line.push('"');
        let _ = write!(Escaped(line), "{value:?}");
        line.push('"');
    }
}

/// Writes text as it stands in a JSON string.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        push_escaped(self.0, text);
        Ok(())
    }
}

fn push_escaped(line: &mut String, text: &str) {
    let special = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    let mut rest = text;
    while let Some(at) = rest.bytes().position(special) {
        let (plain, special) = rest.split_at(at);
        line.push_str(plain);
        let _ = match special.as_bytes()[0] {
            byte @ (b'"' | b'\\') => write!(line, "\\{}", char::from(byte)),
            b'\n' => write!(line, "\\n"),
            byte => write!(line, "\\u{byte:04x}"),
        };
        rest = &special[1..];
    }
    line.push_str(rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::push_escaped;

    proptest! {
        #[test]
        fn any_text_comes_back_out_of_its_json(text in any::<String>(), controls in "[\\x00-\\x7f]*") {
            for text in [text, controls] {
                let mut json = String::from('"');
                push_escaped(&mut json, &text);
                json.push('"');
                prop_assert!(!json.contains('\n'));
                prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
            }
        }
    }
}
