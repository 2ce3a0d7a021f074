//! The only user of serde_yaml: text to a tree of numbered nodes, and the place of a node in the text.
//!
//! serde_yaml gives values no positions, but stamps an error with the place of the node whose visitor failed. So
//! every node gets a number in reading order, and [`locate`] reads the text once more and fails at that number.

pub mod cache;

use core::fmt;

use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::Error as _;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

/// Number of a node in reading order; keys count too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// The root of every document.
    pub const ROOT: Self = Self(0);
}

/// A node of a YAML document.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The node's number.
    pub id: NodeId,
    /// What the node holds.
    pub value: Value,
}

/// What a [`Node`] holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `~`, or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number from 0.
    Unsigned(u64),
    /// A number below 0.
    Negative(i64),
    /// A number with a fraction.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys and values in their order, duplicates included.
    Map(Vec<(Node, Node)>),
}

impl Value {
    /// What the value is called in a message.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Unsigned(_) => "a number",
            Self::Negative(_) => "a negative number",
            Self::Float(_) => "a number with a fraction",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// A line and column, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// A document that is not YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// What the parser says.
    pub message: String,
    /// Where, if it says so.
    pub position: Option<Position>,
}

/// Reads one document.
///
/// # Errors
///
/// The text is not YAML, holds several documents or uses tags or keys that are no scalars.
pub fn parse(text: &str) -> Result<Node, SyntaxError> {
    let mut counter = Counter {
        next: 0,
        stop: None,
    };
    counter
        .deserialize_root(text)
        .map_err(|error| syntax_error(&error))
}

/// Where the node with number `id` begins in `text`, which [`parse`] has read before.
pub fn locate(text: &str, id: NodeId) -> Option<Position> {
    let mut counter = Counter {
        next: 0,
        stop: Some(id.0),
    };
    match counter.deserialize_root(text) {
        Ok(_) => None,
        Err(error) => error.location().map(position),
    }
}

fn syntax_error(error: &serde_yaml::Error) -> SyntaxError {
    SyntaxError {
        message: strip_position(&error.to_string()),
        position: error.location().map(position),
    }
}

fn position(location: serde_yaml::Location) -> Position {
    Position {
        line: location.line(),
        column: location.column(),
    }
}

/// Without the " at line .. column .." that serde_yaml appends: the diagnostic shows the place itself.
fn strip_position(message: &str) -> String {
    match message.find(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message.to_owned(),
    }
}

struct Counter {
    next: u32,
    stop: Option<u32>,
}

impl Counter {
    fn deserialize_root(&mut self, text: &str) -> Result<Node, serde_yaml::Error> {
        NodeSeed(self).deserialize(serde_yaml::Deserializer::from_str(text))
    }
}

struct NodeSeed<'c>(&'c mut Counter);

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let id = self.0.next;
        self.0.next += 1;
        deserializer.deserialize_any(NodeVisitor {
            id,
            counter: self.0,
        })
    }
}

struct NodeVisitor<'c> {
    id: u32,
    counter: &'c mut Counter,
}

impl NodeVisitor<'_> {
    fn stop<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.counter.stop == Some(self.id) {
            Err(E::custom("here"))
        } else {
            Ok(())
        }
    }

    fn scalar<E: serde::de::Error>(&self, value: Value) -> Result<Node, E> {
        self.stop()?;
        Ok(Node {
            id: NodeId(self.id),
            value,
        })
    }
}

impl<'de> Visitor<'de> for NodeVisitor<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value without tags")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Node, E> {
        self.scalar(Value::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Node, E> {
        self.scalar(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Node, E> {
        self.scalar(Value::Bool(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Node, E> {
        self.scalar(Value::Unsigned(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Node, E> {
        match u64::try_from(value) {
            Ok(value) => self.scalar(Value::Unsigned(value)),
            Err(_) => self.scalar(Value::Negative(value)),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        self.scalar(Value::Float(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Node, E> {
        self.scalar(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        self.stop()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(NodeSeed(self.counter))? {
            items.push(item);
        }
        Ok(Node {
            id: NodeId(self.id),
            value: Value::List(items),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        self.stop()?;
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(NodeSeed(self.counter))? {
            if matches!(key.value, Value::List(_) | Value::Map(_)) {
                return Err(A::Error::custom("a key must be a text or a number"));
            }
            let value = map.next_value_seed(NodeSeed(self.counter))?;
            entries.push((key, value));
        }
        Ok(Node {
            id: NodeId(self.id),
            value: Value::Map(entries),
        })
    }
}
