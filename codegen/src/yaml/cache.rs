//! Parsed files kept from one compilation to the next.
//!
//! Reading YAML is most of what a macro does, and an edit touches one file of hundreds. What the parser makes of a text is a
//! function of the text alone, so it is kept beside the text. The cache is a convenience: one that is missing, damaged or of
//! another version is as good as an empty one, and nothing is reported about it.
//!
//! Macros run without optimization, while one processor waits. So texts are compared and not hashed, loops are written out, and
//! two threads decode.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::parallel::both;

use super::Node;
use super::NodeId;
use super::SyntaxError;
use super::Value;

/// Changes whenever the encoding or the meaning of a node does.
const MAGIC: &[u8] = b"tdx-codegen yaml 2\n";
/// Deeper than any file that is worth keeping.
const DEPTH: u32 = 64;

/// Parsed files in a file.
#[derive(Debug, Default)]
pub struct Cache {
    path: Option<PathBuf>,
    kept: Vec<u8>,
    /// Where in `kept` each entry begins.
    entries: Vec<usize>,
    /// Entries of what was asked for last.
    used: Vec<u8>,
}

/// A file: its text, the texts of its nodes in a row, and the nodes.
#[derive(Clone, Copy)]
struct Entry<'b> {
    text: &'b [u8],
    words: &'b [u8],
    nodes: &'b [u8],
    sum: u64,
}

impl<'b> Entry<'b> {
    /// The entry that `bytes` begin with, and what follows it.
    fn read(bytes: &'b [u8]) -> Option<(Self, &'b [u8])> {
        let mut rest = bytes;
        let sum = number(&mut rest)?;
        let mut lengths = [0; 3];
        for length in &mut lengths {
            *length = usize::try_from(number(&mut rest)?).ok()?;
        }
        let (text, rest) = rest.split_at_checked(lengths[0])?;
        let (words, rest) = rest.split_at_checked(lengths[1])?;
        let (nodes, rest) = rest.split_at_checked(lengths[2])?;
        let entry = Self {
            text,
            words,
            nodes,
            sum,
        };
        Some((entry, rest))
    }

    fn write(&self, to: &mut Vec<u8>) {
        let lengths = [self.text.len(), self.words.len(), self.nodes.len()];
        to.extend(self.sum.to_le_bytes());
        for length in lengths {
            to.extend((length as u64).to_le_bytes());
        }
        to.extend_from_slice(self.text);
        to.extend_from_slice(self.words);
        to.extend_from_slice(self.nodes);
    }

    /// The root, if the entry is whole.
    fn root(self) -> Option<Node> {
        if sum(self.words, self.nodes) != self.sum {
            return None;
        }
        let mut decoder = Decoder {
            words: core::str::from_utf8(self.words).ok()?,
            nodes: self.nodes,
            next: 0,
        };
        let root = decoder.node(DEPTH)?;
        (decoder.words.is_empty() && decoder.nodes.is_empty()).then_some(root)
    }
}

impl Cache {
    /// A cache that keeps nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// The cache in the file at `path`, which need not exist.
    pub fn open(path: PathBuf) -> Self {
        let kept = fs::read(&path).unwrap_or_default();
        let mut entries = Vec::new();
        let mut rest = kept.strip_prefix(MAGIC).unwrap_or_default();
        while let Some((_, after)) = Entry::read(rest) {
            entries.push(kept.len() - rest.len());
            rest = after;
        }
        Self {
            path: Some(path),
            kept,
            entries,
            ..Self::default()
        }
    }

    /// [`super::parse`] of each text, from the cache where it knows the text.
    ///
    /// What the parser makes of another text is shown to `sound`, with the text's position, and only kept if that says so. Errors
    /// are not kept.
    pub fn parse(
        &mut self,
        texts: &[&str],
        mut sound: impl FnMut(usize, &Node) -> bool,
    ) -> Vec<Result<Node, SyntaxError>> {
        let mut next = 0;
        let mut entries = Vec::new();
        for text in texts {
            let position = self.find(text.as_bytes(), next);
            next = position.map_or(next, |position| position + 1);
            entries.push(position.and_then(|position| self.entry(position)));
        }
        let (first, second) = entries.split_at(entries.len() / 2);
        let (mut known, rest) = both(|| roots(first), || roots(second));
        known.extend(rest);
        let mut used = Vec::new();
        let mut all = Vec::new();
        for (position, (root, entry)) in known.into_iter().zip(entries).enumerate() {
            if let (Some(root), Some(entry)) = (root, entry) {
                entry.write(&mut used);
                all.push(Ok(root));
                continue;
            }
            let text = texts[position];
            let root = super::parse(text);
            if let Ok(root) = &root
                && sound(position, root)
            {
                write(text, root, &mut used);
            }
            all.push(root);
        }
        self.used = used;
        all
    }

    fn entry(&self, position: usize) -> Option<Entry<'_>> {
        let begin = *self.entries.get(position)?;
        let (entry, _) = Entry::read(self.kept.get(begin..)?)?;
        Some(entry)
    }

    /// Position of the entry with this text; it is likely to be `next`, for files are read in the same order every time.
    fn find(&self, text: &[u8], next: usize) -> Option<usize> {
        let count = self.entries.len();
        let mut positions = (0..count).map(|turn| (next + turn) % count);
        positions.find(|position| {
            let entry = self.entry(*position);
            entry.is_some_and(|entry| entry.text == text)
        })
    }

    /// Writes what was asked for last, if the file holds anything else; another process sees the
    /// old file or the new one.
    pub fn save(self) {
        let known = self.kept.strip_prefix(MAGIC).unwrap_or_default();
        let Some(path) = self.path.filter(|_| known != self.used) else {
            return;
        };
        let _ = replace(&path, &[MAGIC, &self.used].concat());
    }
}

/// Writes the entry of `text`, which the parser made `root` of.
fn write(text: &str, root: &Node, to: &mut Vec<u8>) {
    let (mut words, mut nodes) = (String::new(), Vec::new());
    encode(root, &mut words, &mut nodes);
    let entry = Entry {
        text: text.as_bytes(),
        words: words.as_bytes(),
        nodes: &nodes,
        sum: sum(words.as_bytes(), &nodes),
    };
    entry.write(to);
}

/// The roots of those that are there and whole.
fn roots(entries: &[Option<Entry<'_>>]) -> Vec<Option<Node>> {
    let mut roots = Vec::new();
    for entry in entries {
        roots.push(entry.and_then(|entry| entry.root()));
    }
    roots
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path)
}

/// Changes with every byte.
fn sum(words: &[u8], nodes: &[u8]) -> u64 {
    let mut sum = words.len() as u64;
    for bytes in [words, nodes] {
        let mut rest = bytes;
        while let Some((chunk, after)) = rest.split_first_chunk() {
            sum = (sum.rotate_left(5) ^ u64::from_le_bytes(*chunk)).wrapping_mul(SPREAD);
            rest = after;
        }
        for byte in rest {
            sum = (sum.rotate_left(5) ^ u64::from(*byte)).wrapping_mul(SPREAD);
        }
    }
    sum
}

/// Odd, so that multiplying by it loses nothing.
const SPREAD: u64 = 0x517c_c1b7_2722_0a95;

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

/// Lengths below this take a byte.
const LONG: u8 = 0xff;

fn put_length(length: usize, nodes: &mut Vec<u8>) {
    match u8::try_from(length) {
        Ok(short) if short != LONG => nodes.push(short),
        _ => {
            nodes.push(LONG);
            nodes.extend((length as u64).to_le_bytes());
        }
    }
}

fn encode(node: &Node, words: &mut String, nodes: &mut Vec<u8>) {
    match &node.value {
        Value::Null => nodes.push(0),
        Value::Bool(value) => nodes.extend([1, u8::from(*value)]),
        Value::Unsigned(value) => {
            nodes.push(2);
            nodes.extend(value.to_le_bytes());
        }
        Value::Negative(value) => {
            nodes.push(3);
            nodes.extend(value.to_le_bytes());
        }
        Value::Float(value) => {
            nodes.push(4);
            nodes.extend(value.to_bits().to_le_bytes());
        }
        Value::Text(text) => {
            nodes.push(5);
            put_length(text.len(), nodes);
            words.push_str(text);
        }
        Value::List(items) => {
            nodes.push(6);
            put_length(items.len(), nodes);
            for item in items {
                encode(item, words, nodes);
            }
        }
        Value::Map(entries) => {
            nodes.push(7);
            put_length(entries.len(), nodes);
            for (key, value) in entries {
                encode(key, words, nodes);
                encode(value, words, nodes);
            }
        }
    }
}

/// Numbers the nodes as the parser does: in reading order.
struct Decoder<'b> {
    words: &'b str,
    nodes: &'b [u8],
    next: u32,
}

impl Decoder<'_> {
    fn node(&mut self, depth: u32) -> Option<Node> {
        let id = NodeId(self.next);
        self.next += 1;
        let value = match self.byte()? {
            0 => Value::Null,
            1 => Value::Bool(self.byte()? != 0),
            2 => Value::Unsigned(number(&mut self.nodes)?),
            3 => Value::Negative(number(&mut self.nodes)?.cast_signed()),
            4 => Value::Float(f64::from_bits(number(&mut self.nodes)?)),
            5 => {
                let (text, rest) = self.words.split_at_checked(self.length()?)?;
                self.words = rest;
                Value::Text(text.to_owned())
            }
            6 if depth > 0 => {
                let length = self.length()?;
                let mut items = Vec::with_capacity(length.min(self.nodes.len()));
                for _ in 0..length {
                    items.push(self.node(depth - 1)?);
                }
                Value::List(items)
            }
            7 if depth > 0 => {
                let length = self.length()?;
                let mut entries = Vec::with_capacity(length.min(self.nodes.len()));
                for _ in 0..length {
                    entries.push((self.node(depth - 1)?, self.node(depth - 1)?));
                }
                Value::Map(entries)
            }
            _ => return None,
        };
        Some(Node { id, value })
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.nodes.split_first()?;
        self.nodes = rest;
        Some(*byte)
    }

    fn length(&mut self) -> Option<usize> {
        match self.byte()? {
            LONG => usize::try_from(number(&mut self.nodes)?).ok(),
            short => Some(usize::from(short)),
        }
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
        let texts = [TEXT, "unsound: 1", "no: [yaml"];
        let expected = texts.map(super::super::parse).to_vec();
        assert!(expected[0].is_ok() && expected[1].is_ok() && expected[2].is_err());
        let mut first = Cache::open(path.clone());
        assert_eq!(first.parse(&texts, |position, _| position == 0), expected);
        first.save();
        let mut second = Cache::open(path.clone());
        assert_eq!(second.entries.len(), 1);
        let mut asked = Vec::new();
        let known = second.parse(&texts, |position, _| {
            asked.push(position);
            false
        });
        assert_eq!((known, asked), (expected.clone(), vec![1]));

        let whole = std::fs::read(&path).expect("written");
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x81;
            for bytes in [&damaged[..], &whole[..at]] {
                std::fs::write(&path, bytes).expect("writable");
                assert_eq!(
                    Cache::open(path.clone()).parse(&texts, |_, _| true),
                    expected
                );
            }
        }
        std::fs::remove_file(&path).expect("removable");
    }
}
