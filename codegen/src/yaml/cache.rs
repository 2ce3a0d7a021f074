//! Parsed files kept from one compilation to the next.
//!
//! Reading YAML is most of what a macro does, and an edit touches one file of hundreds. What the parser makes of a text is a
//! function of the text alone, so it is kept under the text's hash. The cache is a convenience: one that is missing,
//! damaged or of another version is as good as an empty one, and nothing is reported about it.

use core::hash::Hasher as _;
use std::collections::HashMap;
use std::fs;
use std::hash::DefaultHasher;
use std::path::Path;
use std::path::PathBuf;

use super::Node;
use super::NodeId;
use super::SyntaxError;
use super::Value;

/// Changes whenever the encoding or the meaning of a node does.
const MAGIC: &[u8] = b"tdx-codegen yaml 1\n";
/// Deeper than any file that is worth keeping.
const DEPTH: u32 = 64;

/// Encoded nodes by hash and length of their text.
type Nodes = HashMap<(u64, u64), Vec<u8>>;

/// Parsed files in a file.
#[derive(Debug, Default)]
pub struct Cache {
    path: Option<PathBuf>,
    kept: Nodes,
    used: Nodes,
    changed: bool,
}

impl Cache {
    /// A cache that keeps nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// The cache in the file at `path`, which need not exist.
    pub fn open(path: PathBuf) -> Self {
        let kept = fs::read(&path).ok().and_then(|bytes| entries(&bytes));
        Self {
            path: Some(path),
            kept: kept.unwrap_or_default(),
            ..Self::default()
        }
    }

    /// [`super::parse`], from the cache if it knows the text.
    ///
    /// # Errors
    ///
    /// As [`super::parse`]; errors are not kept.
    pub fn parse(&mut self, text: &str) -> Result<Node, SyntaxError> {
        if self.path.is_none() {
            return super::parse(text);
        }
        let key = (hash(text.as_bytes()), text.len() as u64);
        if let Some(bytes) = self.kept.remove(&key) {
            let mut decoder = Decoder {
                bytes: &bytes,
                next: 0,
            };
            if let Some(node) = decoder.node(DEPTH)
                && decoder.bytes.is_empty()
            {
                self.used.insert(key, bytes);
                return Ok(node);
            }
        }
        self.changed = true;
        let node = super::parse(text)?;
        let mut bytes = Vec::new();
        encode(&node, &mut bytes);
        self.used.insert(key, bytes);
        Ok(node)
    }

    /// Writes what was asked for since [`open`](Self::open), if the file holds anything else; another process sees the
    /// old file or the new one.
    pub fn save(self) {
        let Some(path) = self.path.filter(|_| self.changed || !self.kept.is_empty()) else {
            return;
        };
        let mut bytes = Vec::new();
        for ((hash, length), node) in &self.used {
            bytes.extend(hash.to_le_bytes());
            bytes.extend(length.to_le_bytes());
            bytes.extend((node.len() as u64).to_le_bytes());
            bytes.extend(node);
        }
        let sum = hash(&bytes).to_le_bytes();
        let _ = replace(&path, &[MAGIC, &sum, &bytes].concat());
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path)
}

fn entries(bytes: &[u8]) -> Option<Nodes> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    if word(&mut rest)? != hash(rest) {
        return None;
    }
    let mut kept = HashMap::new();
    while !rest.is_empty() {
        let (hash, length, size) = (word(&mut rest)?, word(&mut rest)?, word(&mut rest)?);
        let (node, after) = rest.split_at_checked(usize::try_from(size).ok()?)?;
        kept.insert((hash, length), node.to_vec());
        rest = after;
    }
    Some(kept)
}

fn word(bytes: &mut &[u8]) -> Option<u64> {
    let (word, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*word))
}

fn put_length(length: usize, out: &mut Vec<u8>) {
    out.extend((length as u64).to_le_bytes());
}

fn encode(node: &Node, out: &mut Vec<u8>) {
    match &node.value {
        Value::Null => out.push(0),
        Value::Bool(value) => out.extend([1, u8::from(*value)]),
        Value::Unsigned(value) => {
            out.push(2);
            out.extend(value.to_le_bytes());
        }
        Value::Negative(value) => {
            out.push(3);
            out.extend(value.to_le_bytes());
        }
        Value::Float(value) => {
            out.push(4);
            out.extend(value.to_bits().to_le_bytes());
        }
        Value::Text(text) => {
            out.push(5);
            put_length(text.len(), out);
            out.extend(text.as_bytes());
        }
        Value::List(items) => {
            out.push(6);
            put_length(items.len(), out);
            items.iter().for_each(|item| encode(item, out));
        }
        Value::Map(entries) => {
            out.push(7);
            put_length(entries.len(), out);
            for (key, value) in entries {
                encode(key, out);
                encode(value, out);
            }
        }
    }
}

/// Numbers the nodes as the parser does: in reading order.
struct Decoder<'b> {
    bytes: &'b [u8],
    next: u32,
}

impl Decoder<'_> {
    fn node(&mut self, depth: u32) -> Option<Node> {
        let depth = depth.checked_sub(1)?;
        let id = NodeId(self.next);
        self.next += 1;
        let (tag, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        let value = match tag {
            0 => Value::Null,
            1 => {
                let (value, rest) = self.bytes.split_first()?;
                self.bytes = rest;
                Value::Bool(*value != 0)
            }
            2 => Value::Unsigned(word(&mut self.bytes)?),
            3 => Value::Negative(word(&mut self.bytes)?.cast_signed()),
            4 => Value::Float(f64::from_bits(word(&mut self.bytes)?)),
            5 => {
                let length = self.length()?;
                let (text, rest) = self.bytes.split_at_checked(length)?;
                self.bytes = rest;
                Value::Text(core::str::from_utf8(text).ok()?.to_owned())
            }
            6 => {
                let length = self.length()?;
                let items = (0..length).map(|_| self.node(depth)).collect::<Option<_>>();
                Value::List(items?)
            }
            7 => {
                let length = self.length()?;
                let entries = (0..length).map(|_| Some((self.node(depth)?, self.node(depth)?)));
                Value::Map(entries.collect::<Option<_>>()?)
            }
            _ => return None,
        };
        Some(Node { id, value })
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(word(&mut self.bytes)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Cache;

    const TEXT: &str = "a: [1, -2, 3.5, ~, true, \"text\"]\nb: { c: { d: ä } }\n";

    /// What comes out of the cache is what the parser says, node numbers included, and damage is not believed.
    #[test]
    fn kept_nodes_are_the_parsers() {
        let path = std::env::temp_dir().join(format!("tdx-yaml-cache-{}", std::process::id()));
        let expected = super::super::parse(TEXT);
        assert!(expected.is_ok());
        let mut first = Cache::open(path.clone());
        assert_eq!(first.parse(TEXT), expected);
        first.save();
        let mut second = Cache::open(path.clone());
        assert_eq!(second.kept.len(), 1);
        assert_eq!(second.parse(TEXT), expected);
        assert!(!second.changed, "the text was not found");

        let whole = std::fs::read(&path).expect("written");
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x81;
            for bytes in [&damaged[..], &whole[..at]] {
                std::fs::write(&path, bytes).expect("writable");
                assert_eq!(Cache::open(path.clone()).parse(TEXT), expected);
            }
        }
        std::fs::remove_file(&path).expect("removable");
    }
}
