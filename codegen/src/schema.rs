//! JSON Schemas of the specification's files, for editors.
//!
//! They are not written down anywhere: the loader reads the specification, every question that it asks of a node is
//! remembered, and the questions about all nodes in one place make its schema. A key that the loader never asks for is unknown
//! to the schema too.

use alloc::collections::BTreeMap;
use alloc::collections::BTreeSet;

use serde_json::Map;
use serde_json::Value as Json;
use serde_json::json;

use crate::diagnostic::Place;
use crate::load;
use crate::load::Trace;
use crate::load::Type;
use crate::load::Uses;
use crate::source::FileId;
use crate::source::Sources;
use crate::yaml::Node;
use crate::yaml::Value;

/// The schema of each kind of file, by the kind; `sources` must show what each can hold.
pub fn schemas(sources: &Sources) -> BTreeMap<String, Json> {
    let (documents, trace) = load::load_traced(sources);
    let mut shapes: BTreeMap<String, Shape> = BTreeMap::new();
    for (file, root) in &documents {
        if let Some(kind) = kind(root) {
            let shape = shapes.entry(kind.to_owned()).or_default();
            shape.see(&trace, *file, root);
        }
    }
    let schemas = shapes.into_iter().map(|(kind, shape)| {
        let mut schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": format!("TDX ABI specification, a file of kind `{kind}`"),
        });
        if let (Json::Object(schema), Json::Object(mut rest)) = (&mut schema, shape.json()) {
            if let Some(property) = rest
                .get_mut("properties")
                .and_then(|all| all.get_mut("kind"))
            {
                *property = json!({ "const": kind });
            }
            schema.extend(rest);
        }
        (kind, schema)
    });
    schemas.collect()
}

fn kind(root: &Node) -> Option<&str> {
    entries(root)
        .iter()
        .find_map(|(key, value)| match (&key.value, &value.value) {
            (Value::Text(key), Value::Text(kind)) if key == "kind" => Some(kind.as_str()),
            _ => None,
        })
}

fn entries(node: &Node) -> &[(Node, Node)] {
    match &node.value {
        Value::Map(entries) => entries,
        _ => &[],
    }
}

/// What the loader makes of the nodes in one place of a kind of file.
#[derive(Debug, Default)]
struct Shape {
    types: BTreeSet<Type>,
    /// What a text may be, if every one is taken for one of a few names.
    names: BTreeSet<String>,
    any_text: bool,
    /// The largest number, if there is a limit everywhere.
    max: Option<u64>,
    any_number: bool,
    pattern: Option<&'static str>,
    /// Nodes taken for a record.
    records: usize,
    keys: BTreeMap<&'static str, Key>,
    items: Option<Box<Self>>,
    /// Keys and values of a mapping whose keys are data.
    entries: Option<(Box<Self>, Box<Self>)>,
}

#[derive(Debug, Default)]
struct Key {
    shape: Shape,
    /// Records in which it must be.
    needed: usize,
}

impl Shape {
    fn see(&mut self, trace: &Trace, file: FileId, node: &Node) {
        let place = Place {
            file,
            node: node.id,
        };
        let none = Uses::default();
        let uses = trace.uses.get(&place).unwrap_or(&none);
        if uses.types.is_empty() || uses.pattern.is_some() {
            self.types.extend(observed(&node.value));
        }
        self.types.extend(&uses.types);
        self.records += usize::from(uses.types.contains(&Type::Record));
        self.pattern = self.pattern.or(uses.pattern);
        match (&node.value, &uses.names) {
            (Value::Text(_), Some(names)) => self.names.extend(names.iter().cloned()),
            // Compared with one word and nothing else.
            (Value::Text(text), None) if uses.types.is_empty() && uses.pattern.is_none() => {
                self.names.insert(text.clone());
            }
            (Value::Text(_), None) => self.any_text = true,
            _ => {}
        }
        match (&node.value, uses.max) {
            (Value::Unsigned(_), Some(max)) => self.max = Some(self.max.unwrap_or(0).max(max)),
            (Value::Unsigned(_), None) => self.any_number = true,
            _ => {}
        }
        for (name, asked) in &uses.keys {
            let key = self.keys.entry(name).or_default();
            key.needed += usize::from(asked.needed);
            let found = entries(node)
                .iter()
                .find(|(key, _)| matches!(&key.value, Value::Text(text) if text == name));
            match (found, asked.ty) {
                (Some((_, value)), _) => key.shape.see(trace, file, value),
                (None, Some(ty)) => key.shape.expect(ty),
                (None, None) => {}
            }
        }
        if let Value::List(list) = &node.value {
            let items = self.items.get_or_insert_default();
            list.iter().for_each(|item| items.see(trace, file, item));
        }
        if uses.types.contains(&Type::Entries) {
            let (keys, values) = self.entries.get_or_insert_default();
            for (key, value) in entries(node) {
                keys.see(trace, file, key);
                values.see(trace, file, value);
            }
        }
    }

    /// A node that is not there would be taken for this.
    fn expect(&mut self, ty: Type) {
        self.types.insert(ty);
        self.any_text |= ty == Type::Text;
        self.any_number |= ty == Type::Number;
    }

    fn json(&self) -> Json {
        let mut ways: Vec<Map<String, Json>> = self.types.iter().map(|ty| self.way(*ty)).collect();
        match ways.len() {
            0 => json!({}),
            1 => Json::Object(ways.remove(0)),
            _ => json!({ "anyOf": ways }),
        }
    }

    fn way(&self, ty: Type) -> Map<String, Json> {
        let mut out = Map::new();
        let mut put = |key: &str, value: Json| {
            out.insert(key.to_owned(), value);
        };
        match ty {
            Type::Text => {
                put("type", json!("string"));
                if let Some(pattern) = self.pattern {
                    put("pattern", json!(pattern));
                } else if !self.any_text && !self.names.is_empty() {
                    put("enum", json!(self.names));
                }
            }
            Type::Bool => put("type", json!("boolean")),
            Type::Number => {
                put("type", json!("integer"));
                put("minimum", json!(0));
                if let Some(max) = self.max.filter(|_| !self.any_number) {
                    put("maximum", json!(max));
                }
            }
            Type::List => {
                put("type", json!("array"));
                put(
                    "items",
                    self.items
                        .as_ref()
                        .map_or_else(|| json!({}), |items| items.json()),
                );
            }
            Type::Record => {
                put("type", json!("object"));
                let properties: Map<String, Json> = self
                    .keys
                    .iter()
                    .map(|(name, key)| ((*name).to_owned(), key.shape.json()))
                    .collect();
                put("properties", Json::Object(properties));
                // A key that only some records need depends on another key.
                let all = self.records.max(1);
                let required = self.keys.iter().filter(|(_, key)| key.needed == all);
                let required: Vec<&str> = required.map(|(name, _)| *name).collect();
                put("required", json!(required));
                put("additionalProperties", json!(false));
            }
            Type::Entries => {
                put("type", json!("object"));
                if let Some((keys, values)) = &self.entries {
                    put("propertyNames", keys.json());
                    put("additionalProperties", values.json());
                }
            }
        }
        out
    }
}

const fn observed(value: &Value) -> Option<Type> {
    match value {
        Value::Text(_) => Some(Type::Text),
        Value::Bool(_) => Some(Type::Bool),
        Value::Unsigned(_) => Some(Type::Number),
        Value::List(_) => Some(Type::List),
        Value::Map(_) => Some(Type::Entries),
        Value::Null | Value::Negative(_) | Value::Float(_) => None,
    }
}
