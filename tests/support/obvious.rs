//! A simple mapping of BSON to wire JSON by the tree of the `bson` crate, with which tests and `fuzz/` compare `records::wire`.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bson::spec::BinarySubtype;
use bson::{Bson, Document as Tree};

/// Returns the wire JSON of a value, in the simplest way. `None` if the crate gives no access to the value.
fn slow(value: &Bson) -> Option<String> {
    let text = |text: &str| serde_json::to_string(text).ok();
    match value {
        Bson::Double(value) => serde_json::to_string(value).ok(),
        Bson::String(value) | Bson::Symbol(value) | Bson::JavaScriptCode(value) => text(value),
        Bson::Document(fields) => slow_document(fields),
        Bson::Array(values) => Some(format!("[{}]", values.iter().map(slow).collect::<Option<Vec<_>>>()?.join(","))),
        Bson::Binary(binary) => match binary.to_uuid() {
            Ok(uuid) if binary.subtype == BinarySubtype::Uuid => text(&uuid.to_string()),
            _ => text(&BASE64_STANDARD.encode(&binary.bytes)),
        },
        Bson::ObjectId(id) => text(&id.to_hex()),
        Bson::Boolean(value) => Some(value.to_string()),
        Bson::DateTime(date) => {
            // Years with four digits; other years have separate tests.
            let year = -62_167_219_200_000..253_402_300_800_000_i64;
            let millis = Some(date.timestamp_millis()).filter(|millis| year.contains(millis))?;
            let time = jiff::Timestamp::from_millisecond(millis).ok()?;
            text(&time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())
        }
        Bson::Null | Bson::Undefined => Some("null".into()),
        Bson::RegularExpression(regex) => text(&format!("/{}/{}", regex.pattern.as_str(), regex.options.as_str())),
        Bson::JavaScriptCodeWithScope(code) => {
            Some(format!(r#"{{"code":{},"scope":{}}}"#, text(&code.code)?, slow_document(&code.scope)?))
        }
        Bson::Int32(value) => Some(value.to_string()),
        Bson::Int64(value) => Some(value.to_string()),
        Bson::Timestamp(time) => Some(format!(r#"{{"t":{},"i":{}}}"#, time.time, time.increment)),
        Bson::Decimal128(value) => text(&value.to_string()),
        Bson::MinKey => text("MinKey"),
        Bson::MaxKey => text("MaxKey"),
        Bson::DbPointer(_) => None,
    }
}

pub fn slow_document(fields: &Tree) -> Option<String> {
    let field =
        |(name, value): (&String, &Bson)| Some(format!("{}:{}", serde_json::to_string(name).ok()?, slow(value)?));
    Some(format!("{{{}}}", fields.iter().map(field).collect::<Option<Vec<_>>>()?.join(",")))
}
