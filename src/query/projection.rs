//! Projection: the fields of a record that are kept, as MongoDB's projections keep and drop them
//! ([Project fields](https://www.mongodb.com/docs/manual/tutorial/project-fields-from-query-results/)).

use super::path::Path;
use crate::record::raw::{self, Elements, Result};
use crate::record::{Document, ValueRef};

/// The fields to keep, always including `_id`, without the fields to drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projection {
    /// `None` keeps all.
    keep: Option<Node>,
    drop: Node,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    /// Keeps the whole value, whatever `fields` says.
    whole: bool,
    fields: Vec<(Box<str>, Node)>,
}

impl<'a> FromIterator<&'a Path> for Projection {
    fn from_iter<T: IntoIterator<Item = &'a Path>>(paths: T) -> Self {
        Self::keeping(paths)
    }
}

impl Projection {
    /// Keeps the values at `paths`.
    pub fn keeping<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut keep = Node::default();
        keep.field("_id").whole = true;
        paths.into_iter().for_each(|path| keep.add(path));
        Self { keep: Some(keep), drop: Node::default() }
    }

    /// Keeps all but the values at `paths`.
    pub fn dropping<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut drop = Node::default();
        paths.into_iter().for_each(|path| drop.add(path));
        Self { keep: None, drop }
    }

    /// Keeps the value at `path` too.
    pub fn add(&mut self, path: &Path) {
        if let Some(keep) = &mut self.keep {
            keep.add(path);
        }
    }

    /// Returns the fields that both keep.
    pub fn intersect(&self, other: &Self) -> Self {
        let keep = match (&self.keep, &other.keep) {
            (Some(one), Some(another)) => Some(one.intersect(another)),
            (one, another) => one.clone().or_else(|| another.clone()),
        };
        let mut drop = self.drop.clone();
        drop.merge(&other.drop);
        Self { keep, drop }
    }

    /// The document with the kept fields, in its own order.
    ///
    /// # Errors
    ///
    /// When the bytes are not BSON.
    pub fn apply(&self, document: &Document) -> Result<Document> {
        let mut kept = None;
        if let Some(keep) = &self.keep {
            let mut out = Vec::with_capacity(document.bson().len().min(1024));
            project(&mut out, keep, document.bson())?;
            kept = Some(out);
        }
        if !self.drop.fields.is_empty() {
            let document = kept.as_deref().unwrap_or(document.bson());
            let mut out = Vec::with_capacity(document.len());
            remove(&mut out, &self.drop, document)?;
            kept = Some(out);
        }
        Ok(match kept {
            Some(bson) => Document::with_key(document.key().clone(), bson),
            None => document.clone(),
        })
    }

    /// The names that lead to each kept value; where a value and a part of it are both named, the value alone. Empty where all is
    /// kept.
    pub fn paths(&self) -> Vec<Vec<&str>> {
        self.keep.as_ref().map(Node::paths).unwrap_or_default()
    }

    /// Returns true if only the values at [`paths`](Self::paths) are kept.
    pub fn has_kept_paths(&self) -> bool {
        self.keep.is_some()
    }

    /// Returns true if values are either kept or dropped, as a projection of MongoDB can express it.
    pub fn is_inclusion_or_exclusion(&self) -> bool {
        self.keep.is_none() || self.drop.fields.is_empty()
    }

    /// The names that lead to each dropped value.
    pub fn dropped_paths(&self) -> Vec<Vec<&str>> {
        self.drop.paths()
    }
}

impl Node {
    fn paths(&self) -> Vec<Vec<&str>> {
        fn collect<'a>(node: &'a Node, prefix: &[&'a str], out: &mut Vec<Vec<&'a str>>) {
            for (name, node) in &node.fields {
                let path = [prefix, &[&**name]].concat();
                if node.whole {
                    out.push(path);
                } else {
                    collect(node, &path, out);
                }
            }
        }
        let mut paths = Vec::new();
        collect(self, &[], &mut paths);
        paths
    }

    fn add(&mut self, path: &Path) {
        path.names().iter().fold(self, |node, name| node.field(name)).whole = true;
    }

    fn intersect(&self, other: &Self) -> Self {
        match (self.whole, other.whole) {
            (true, _) => other.clone(),
            (_, true) => self.clone(),
            (false, false) => {
                let both = self.fields.iter().filter_map(|(name, node)| {
                    let (_, other) = other.fields.iter().find(|(other, _)| other == name)?;
                    Some((name.clone(), node.intersect(other)))
                });
                Self { whole: false, fields: both.collect() }
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        self.whole |= other.whole;
        for (name, node) in &other.fields {
            self.field(name).merge(node);
        }
    }

    fn field(&mut self, name: &str) -> &mut Self {
        let index = self.fields.iter().position(|(field, _)| **field == *name).unwrap_or_else(|| {
            self.fields.push((name.into(), Self::default()));
            self.fields.len() - 1
        });
        &mut self.fields[index].1
    }
}

/// Copies the document without the values that `node` names, also in the elements of arrays and of arrays in them.
fn remove(out: &mut Vec<u8>, node: &Node, document: &[u8]) -> Result<()> {
    let mut removed = Ok(());
    raw::append_document(out, |out| removed = remove_fields(out, node, document));
    removed
}

fn remove_fields(out: &mut Vec<u8>, node: &Node, document: &[u8]) -> Result<()> {
    for element in Elements::new(document)? {
        let (name, value) = element?;
        match node.fields.iter().find(|(field, _)| field.as_bytes() == name) {
            Some((_, node)) if node.whole => {}
            Some((_, node)) => remove_inside(out, node, name, value)?,
            None => raw::append_element(out, name, value),
        }
    }
    Ok(())
}

fn remove_inside(out: &mut Vec<u8>, node: &Node, name: &[u8], value: ValueRef<'_>) -> Result<()> {
    if value.is_document() {
        raw::append_name(out, name, value.kind);
        return remove(out, node, value.bytes);
    }
    if !value.is_array() {
        raw::append_element(out, name, value);
        return Ok(());
    }
    raw::append_name(out, name, value.kind);
    let mut removed = Ok(());
    raw::append_document(out, |out| {
        removed = value.elements().and_then(|mut elements| {
            elements.try_for_each(|element| element.and_then(|(index, value)| remove_inside(out, node, index, value)))
        });
    });
    removed
}

fn project(out: &mut Vec<u8>, node: &Node, document: &[u8]) -> Result<()> {
    let mut projected = Ok(());
    raw::append_document(out, |out| projected = project_fields(out, node, document));
    projected
}

fn project_fields(out: &mut Vec<u8>, node: &Node, document: &[u8]) -> Result<()> {
    for element in Elements::new(document)? {
        let (name, value) = element?;
        match node.fields.iter().find(|(field, _)| field.as_bytes() == name) {
            Some((_, node)) if node.whole => raw::append_element(out, name, value),
            Some((_, node)) => project_value(out, node, name, value)?,
            None => {}
        }
    }
    Ok(())
}

/// Keeps documents and arrays with the fields that are kept of them; a scalar has none.
fn project_value(out: &mut Vec<u8>, node: &Node, name: &[u8], value: ValueRef<'_>) -> Result<()> {
    if value.is_document() {
        raw::append_name(out, name, value.kind);
        return project(out, node, value.bytes);
    }
    if !value.is_array() {
        return Ok(());
    }
    raw::append_name(out, name, value.kind);
    let mut projected = Ok(());
    raw::append_document(out, |out| projected = project_elements(out, node, value));
    projected
}

fn project_elements(out: &mut Vec<u8>, node: &Node, array: ValueRef<'_>) -> Result<()> {
    let mut kept = 0;
    let mut index = itoa::Buffer::new();
    for element in array.elements()? {
        let (_, value) = element?;
        if value.is_document() || value.is_array() {
            project_value(out, node, index.format(kept).as_bytes(), value)?;
            kept += 1;
        }
    }
    Ok(())
}
