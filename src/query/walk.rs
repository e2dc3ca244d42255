//! Reads what a path reaches out of a record's JSON: one pass, no tree, no allocation but for strings with escapes.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::record::Key;

/// A value that a path reached.
#[derive(Debug)]
pub enum Leaf<'a> {
    Null,
    Bool(bool),
    /// An integer or a double.
    Number(Key),
    String(&'a str),
    Object,
    Array,
}

/// Shows `visit` every value that `path` reaches in the object `json`.
pub fn reached(json: &[u8], path: &[Box<str>], visit: &mut dyn FnMut(Leaf<'_>)) {
    walk(json, Walk { path, arrays: Arrays::Enter, visit });
}

/// As [`reached`], but an array is one value, also on the way: at most one value is shown.
pub fn reached_whole(json: &[u8], path: &[Box<str>], visit: &mut dyn FnMut(Leaf<'_>)) {
    walk(json, Walk { path, arrays: Arrays::Whole, visit });
}

fn walk(json: &[u8], walk: Walk<'_, '_>) {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    // Stores make records of valid JSON, nested no deeper than is skipped without recursion; and what cannot be read
    // reaches nothing.
    let _ = walk.deserialize(&mut deserializer);
}

#[derive(Clone, Copy, PartialEq)]
enum Arrays {
    /// For their elements.
    Enter,
    /// One was entered: the next one directly in it is a value.
    Entered,
    /// They are values.
    Whole,
}

struct Walk<'p, 'v> {
    /// What is left of it.
    path: &'p [Box<str>],
    arrays: Arrays,
    visit: &'v mut dyn FnMut(Leaf<'_>),
}

impl Walk<'_, '_> {
    fn scalar<E>(self, leaf: Leaf<'_>) -> Result<(), E> {
        if self.path.is_empty() {
            (self.visit)(leaf);
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.scalar(Leaf::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.scalar(Leaf::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.scalar(Leaf::Number(Key::Integer(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.scalar(Leaf::Number(i64::try_from(value).map_or_else(|_| Key::double(value as f64), Key::Integer)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.scalar(Leaf::Number(Key::double(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.scalar(Leaf::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        if self.path.is_empty() || self.arrays == Arrays::Whole {
            (self.visit)(Leaf::Array);
        }
        if self.arrays == Arrays::Enter {
            let (path, visit) = (self.path, self.visit);
            while elements.next_element_seed(Walk { path, arrays: Arrays::Entered, visit })?.is_some() {}
        } else {
            while elements.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let Some((name, rest)) = self.path.split_first() else {
            (self.visit)(Leaf::Object);
            while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        let arrays = if self.arrays == Arrays::Whole { Arrays::Whole } else { Arrays::Enter };
        let mut visit = Some(self.visit);
        while let Some(found) = fields.next_key_seed(Is(name))? {
            match if found { visit.take() } else { None } {
                Some(visit) => fields.next_value_seed(Walk { path: rest, arrays, visit })?,
                None => fields.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(())
    }
}

/// Whether a field has this name.
struct Is<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}
