//! A second, simple implementation of the wire mapping, after the table in `records::wire` and by other crates, to compare with.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bson::spec::BinarySubtype;
use bson::{Bson, Document};
use jiff::SignedDuration;
use jiff::civil::DateTime;

use crate::documents::{hex, parts_of};

pub fn object(fields: &Document) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{}:{}", string(name), json(value))).collect();
    format!("{{{}}}", fields.join(","))
}

pub fn json(value: &Bson) -> String {
    match value {
        Bson::Double(value) => serde_json::Value::from(*value).to_string(),
        Bson::Int32(value) => value.to_string(),
        Bson::Int64(value) => value.to_string(),
        Bson::Boolean(value) => value.to_string(),
        Bson::Null | Bson::Undefined => "null".into(),
        Bson::String(text) | Bson::JavaScriptCode(text) | Bson::Symbol(text) => string(text),
        Bson::MinKey => string("MinKey"),
        Bson::MaxKey => string("MaxKey"),
        Bson::ObjectId(id) => string(&hex(&id.bytes())),
        Bson::DateTime(value) => string(&date(value.timestamp_millis())),
        Bson::Decimal128(value) => string(&value.to_string()),
        Bson::RegularExpression(regex) => string(&format!("/{}/{}", regex.pattern.as_str(), regex.options.as_str())),
        Bson::Binary(binary) if binary.subtype == BinarySubtype::Uuid && binary.bytes.len() == 16 => {
            let hex = hex(&binary.bytes);
            string(&[&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
        }
        Bson::Binary(binary) => string(&BASE64_STANDARD.encode(&binary.bytes)),
        Bson::Document(fields) => object(fields),
        Bson::Array(values) => format!("[{}]", values.iter().map(json).collect::<Vec<_>>().join(",")),
        Bson::Timestamp(value) => format!(r#"{{"t":{},"i":{}}}"#, value.time, value.increment),
        Bson::DbPointer(pointer) => {
            let (namespace, id) = parts_of(pointer);
            format!(r#"{{"$ref":{},"$id":"{}"}}"#, string(&namespace), hex(&id))
        }
        Bson::JavaScriptCodeWithScope(code) => {
            format!(r#"{{"code":{},"scope":{}}}"#, string(&code.code), object(&code.scope))
        }
    }
}

fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Formats a date. The calendar repeats every 400 years, so a crate that covers the years to 9999 is enough.
pub fn date(millis: i64) -> String {
    const CYCLE_MS: i64 = 146_097 * 86_400_000;
    let (cycles, millis) = (millis.div_euclid(CYCLE_MS), millis.rem_euclid(CYCLE_MS));
    let time = DateTime::constant(1970, 1, 1, 0, 0, 0, 0) + SignedDuration::from_millis(millis);
    let year = cycles * 400 + i64::from(time.year());
    let year = if (0..=9999).contains(&year) { format!("{year:04}") } else { format!("{year:+07}") };
    format!("{year}{}Z", time.strftime("-%m-%dT%H:%M:%S%.3f"))
}
