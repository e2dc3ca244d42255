//! Projection: the fields of a record that were asked for, as MongoDB's inclusive projection keeps them
//! ([Project fields](https://www.mongodb.com/docs/manual/tutorial/project-fields-from-query-results/)).

use super::path::Path;
use crate::record::raw::{self, Elements, Result};
use crate::record::{Document, ValueRef};

/// The fields to keep, always including `_id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projection(Node);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    /// Keeps the whole value, whatever `fields` says.
    whole: bool,
    fields: Vec<(Box<str>, Node)>,
}

impl<'a> FromIterator<&'a Path> for Projection {
    fn from_iter<T: IntoIterator<Item = &'a Path>>(paths: T) -> Self {
        let mut root = Node::default();
        root.field("_id").whole = true;
        let mut projection = Self(root);
        paths.into_iter().for_each(|path| projection.add(path));
        projection
    }
}

impl Projection {
    /// Keeps the value at `path` too.
    pub fn add(&mut self, path: &Path) {
        path.names().iter().fold(&mut self.0, |node, name| node.field(name)).whole = true;
    }

    /// The document with the kept fields, in its own order.
    ///
    /// # Errors
    ///
    /// When the bytes are not BSON.
    pub fn apply(&self, document: &Document) -> Result<Document> {
        let mut out = Vec::with_capacity(document.bson().len().min(1024));
        project(&mut out, &self.0, document.bson())?;
        Ok(Document::with_key(document.key().clone(), out))
    }

    /// The names that lead to each kept value; where a value and a part of it are both named, the value alone.
    pub fn paths(&self) -> Vec<Vec<&str>> {
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
        collect(&self.0, &[], &mut paths);
        paths
    }
}

impl Node {
    fn field(&mut self, name: &str) -> &mut Self {
        let index = self.fields.iter().position(|(field, _)| **field == *name).unwrap_or_else(|| {
            self.fields.push((name.into(), Self::default()));
            self.fields.len() - 1
        });
        &mut self.fields[index].1
    }
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
