//! A line of the log for people who read it in a file: as the subscriber writes it to a terminal, without the colours.
//!
//! Written here for the same reason as [`super::json`]: a line a request must cost little, and this takes half the time.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::LINE_BYTES;
use super::time::push_time;

pub struct Text;

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::with_capacity(LINE_BYTES);
        push_time(&mut line);
        let metadata = event.metadata();
        let level = metadata.level().as_str();
        // The longest level has five letters.
        line.push_str(if level.len() < 5 { "  " } else { " " });
        line.push_str(level);
        line.push(' ');
        line.push_str(metadata.target());
        line.push(':');
        event.record(&mut Fields(&mut line));
        line.push('\n');
        writer.write_str(&line)
    }
}

struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn name(&mut self, field: &Field) -> &mut String {
        self.0.push(' ');
        if field.name() != "message" {
            self.0.push_str(field.name());
            self.0.push('=');
        }
        self.0
    }
}

// Writing to a String cannot fail; what fails in here is a value's own `Debug`, and leaves a gap.
impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.name(field).push_str(zmij::Buffer::new().format(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.name(field).push_str(itoa::Buffer::new().format(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.name(field).push_str(itoa::Buffer::new().format(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let line = self.name(field);
        line.push('"');
        // A client's own request id is one of these: it must not look like more fields.
        push_visible(line, value, &['"', '\\']);
        line.push('"');
    }

    /// Messages come this way too, and whatever is logged by its `Display`.
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(Visible(self.name(field)), "{value:?}");
    }
}

/// Writes text so that it is one line, and moves no cursor.
struct Visible<'a>(&'a mut String);

impl Write for Visible<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        push_visible(self.0, text, &[]);
        Ok(())
    }
}

/// `also` is escaped like what is not visible.
fn push_visible(line: &mut String, text: &str, also: &[char]) {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && !text.contains(also) {
        line.push_str(text);
        return;
    }
    for character in text.chars() {
        match character.is_control() || also.contains(&character) {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::push_visible;

    proptest! {
        #[test]
        fn any_text_stays_on_its_line(text in any::<String>(), controls in "[\\x00-\\x7f\\x80-\\x9f]*") {
            for text in [text, controls] {
                let mut line = String::new();
                push_visible(&mut line, &text, &[]);
                prop_assert!(!line.chars().any(char::is_control));
                prop_assert!(text.chars().any(char::is_control) || line == text);
            }
        }
    }
}
