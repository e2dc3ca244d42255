//! The wire mapping once more, written in the obvious slow way from the table in `records::wire` and from other crates'
//! code, for tests to compare with.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use jiff::SignedDuration;
use jiff::civil::DateTime;
use records::document::{Fields, Value};

use crate::documents::hex;

pub fn object(fields: &Fields) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{}:{}", string(name), json(value))).collect();
    format!("{{{}}}", fields.join(","))
}

pub fn json(value: &Value) -> String {
    match value {
        Value::Double(value) => serde_json::Value::from(*value).to_string(),
        Value::Int32(value) => value.to_string(),
        Value::Int64(value) => value.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Null | Value::Undefined => "null".into(),
        Value::String(text) | Value::Code(text) | Value::Symbol(text) => string(text),
        Value::MinKey => string("MinKey"),
        Value::MaxKey => string("MaxKey"),
        Value::ObjectId(id) => string(&hex(id)),
        Value::Date(millis) => string(&date(*millis)),
        Value::Decimal128(value) => string(&value.to_string()),
        Value::Regex { pattern, options } => string(&format!("/{pattern}/{options}")),
        Value::Binary { subtype: 4, bytes } if bytes.len() == 16 => {
            let hex = hex(bytes);
            string(&[&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
        }
        Value::Binary { bytes, .. } => string(&BASE64_STANDARD.encode(bytes)),
        Value::Document(fields) => object(fields),
        Value::Array(values) => format!("[{}]", values.iter().map(json).collect::<Vec<_>>().join(",")),
        Value::Timestamp { time, increment } => format!(r#"{{"t":{time},"i":{increment}}}"#),
        Value::DbPointer { namespace, id } => format!(r#"{{"$ref":{},"$id":"{}"}}"#, string(namespace), hex(id)),
        Value::CodeWithScope { code, scope } => format!(r#"{{"code":{},"scope":{}}}"#, string(code), object(scope)),
    }
}

fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The calendar repeats every 400 years, so a crate that knows the years to 9999 knows them all.
pub fn date(millis: i64) -> String {
    const CYCLE_MS: i64 = 146_097 * 86_400_000;
    let (cycles, millis) = (millis.div_euclid(CYCLE_MS), millis.rem_euclid(CYCLE_MS));
    let time = DateTime::constant(1970, 1, 1, 0, 0, 0, 0) + SignedDuration::from_millis(millis);
    let year = cycles * 400 + i64::from(time.year());
    let year = if (0..=9999).contains(&year) { format!("{year:04}") } else { format!("{year:+07}") };
    format!("{year}{}Z", time.strftime("-%m-%dT%H:%M:%S%.3f"))
}
