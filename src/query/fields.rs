//! Projection: of a record's JSON, the fields that were asked for.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Path;
use crate::wire;

/// Which fields of a record to keep. `_id` is always one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields(Node);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    /// All of it, whatever `fields` says.
    whole: bool,
    fields: Vec<(Box<str>, Node)>,
}

impl Fields {
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut root = Node::default();
        root.at("_id").whole = true;
        for path in paths {
            root.leading_to(path).whole = true;
        }
        Self(root)
    }

    /// These, and all that `path` leads to.
    #[must_use]
    pub fn and(mut self, path: &Path) -> Self {
        self.0.leading_to(path).whole = true;
        self
    }

    /// The names of the record's own fields of which anything is kept.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.fields.iter().map(|(name, _)| &**name)
    }

    /// The kept part of the object `json`, as wire JSON again.
    pub fn kept(&self, json: &[u8]) -> Vec<u8> {
        let mut kept = Vec::new();
        self.project(&mut kept, json);
        kept
    }

    /// As [`kept`](Self::kept), behind what `out` has.
    pub fn project(&self, out: &mut Vec<u8>, json: &[u8]) {
        let start = out.len();
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let kept = Keep { node: &self.0, out, in_array: false }.deserialize(&mut deserializer);
        if !matches!(kept, Ok(true)) {
            // Stores make records of valid JSON objects; this one would be a defect, and keeps nothing.
            out.truncate(start);
            out.extend_from_slice(b"{}");
        }
    }
}

impl Node {
    fn find(&self, name: &str) -> Option<&(Box<str>, Self)> {
        self.fields.iter().find(|(field, _)| **field == *name)
    }

    fn leading_to(&mut self, path: &Path) -> &mut Self {
        path.names().iter().fold(self, |node, name| node.at(name))
    }

    fn at(&mut self, name: &str) -> &mut Self {
        let index = self.fields.iter().position(|(field, _)| **field == *name).unwrap_or_else(|| {
            self.fields.push((name.into(), Self::default()));
            self.fields.len() - 1
        });
        &mut self.fields[index].1
    }
}

/// Writes what is kept of a value, and says whether there was any: a value that has no fields has none.
struct Keep<'a> {
    node: &'a Node,
    out: &'a mut Vec<u8>,
    in_array: bool,
}

impl Keep<'_> {
    /// Where `separated` writes nothing it leaves nothing behind, the comma neither.
    fn part<E>(
        &mut self,
        open: usize,
        separated: impl FnOnce(&mut Vec<u8>) -> Result<Option<bool>, E>,
    ) -> Result<Option<bool>, E> {
        let start = self.out.len();
        if start > open {
            self.out.push(b',');
        }
        let written = separated(self.out)?;
        if written != Some(true) {
            self.out.truncate(start);
        }
        Ok(written)
    }
}

impl<'de> DeserializeSeed<'de> for Keep<'_> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keep<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<bool, A::Error> {
        if self.in_array {
            while elements.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(false);
        }
        self.out.push(b'[');
        let (open, node) = (self.out.len(), self.node);
        while self.part(open, |out| elements.next_element_seed(Keep { node, out, in_array: true }))?.is_some() {}
        self.out.push(b']');
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<bool, A::Error> {
        self.out.push(b'{');
        let (open, node) = (self.out.len(), self.node);
        while let Some(found) = fields.next_key_seed(FieldOf(node))? {
            let Some((name, node)) = found else {
                fields.next_value::<IgnoredAny>()?;
                continue;
            };
            self.part(open, |out| {
                wire::string(out, name);
                out.push(b':');
                if !node.whole {
                    return fields.next_value_seed(Keep { node, out, in_array: false }).map(Some);
                }
                out.extend_from_slice(fields.next_value::<&RawValue>()?.get().as_bytes());
                Ok(Some(true))
            })?;
        }
        self.out.push(b'}');
        Ok(true)
    }
}

/// The field that has the name, if it is one to keep.
struct FieldOf<'a>(&'a Node);

impl<'de, 'a> DeserializeSeed<'de> for FieldOf<'a> {
    type Value = Option<&'a (Box<str>, Node)>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for FieldOf<'a> {
    type Value = Option<&'a (Box<str>, Node)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.find(name))
    }
}
