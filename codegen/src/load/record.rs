//! A mapping being read: each key is asked for once, and what nobody asked for is unknown.

use core::cell::RefCell;

use crate::diagnostic::Code;
use crate::diagnostic::Diagnostic;
use crate::diagnostic::Place;
use crate::model::At;
use crate::source::FileId;
use crate::yaml::Node;
use crate::yaml::Value;

use super::question::Type;
use super::question::Use;
#[cfg(feature = "generate")]
use super::trace::Trace;

/// Where mistakes are collected while files are read.
pub(crate) struct Reader {
    diagnostics: RefCell<Vec<Diagnostic>>,
    /// What is asked of each node, for whoever wants to know.
    #[cfg(feature = "generate")]
    trace: Option<RefCell<Trace>>,
}

impl Reader {
    pub(crate) const fn new() -> Self {
        Self {
            diagnostics: RefCell::new(Vec::new()),
            #[cfg(feature = "generate")]
            trace: None,
        }
    }

    /// A reader that remembers what is asked.
    #[cfg(feature = "generate")]
    pub(crate) fn tracing() -> Self {
        Self {
            trace: Some(RefCell::default()),
            ..Self::new()
        }
    }

    /// What was asked.
    #[cfg(feature = "generate")]
    pub(crate) fn take_trace(&self) -> Trace {
        self.trace.as_ref().map(RefCell::take).unwrap_or_default()
    }

    pub(crate) fn report(&self, diagnostic: Diagnostic) {
        self.diagnostics.borrow_mut().push(diagnostic);
    }

    pub(crate) fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.diagnostics.into_inner()
    }
}

/// A node with what is needed to complain about it.
#[derive(Clone, Copy)]
pub(crate) struct Item<'n> {
    pub(crate) reader: &'n Reader,
    pub(crate) file: FileId,
    pub(crate) node: &'n Node,
}

impl<'n> Item<'n> {
    pub(crate) const fn place(&self) -> Place {
        Place {
            file: self.file,
            node: self.node.id,
        }
    }

    fn with(&self, node: &'n Node) -> Self {
        Self { node, ..*self }
    }

    pub(crate) fn wrong<T>(&self, expected: &str) -> Option<T> {
        let message = format!("expected {expected}, found {}", self.node.value.kind());
        let mut diagnostic = Diagnostic::new(Code::WrongType, self.place(), message);
        diagnostic = diagnostic.help(match expected {
            "a text" => "put it in quotes",
            "a number from 0" => {
                "write it in decimal, or in hexadecimal with 0x, and without quotes"
            }
            _ => "SCHEMA.md shows an example of each kind of file",
        });
        self.reader.report(diagnostic);
        None
    }

    /// Remembers what is asked of the node, if somebody wants to know.
    #[cfg(feature = "generate")]
    pub(crate) fn note(&self, what: Use<'_>) {
        if let Some(trace) = &self.reader.trace {
            trace.borrow_mut().note(self.place(), what);
        }
    }

    /// Only what makes the JSON Schemas wants to know.
    #[cfg(not(feature = "generate"))]
    pub(crate) const fn note(&self, _: Use<'_>) {}

    pub(crate) fn text(&self) -> Option<String> {
        self.note(Use::As(Type::Text));
        match &self.node.value {
            Value::Text(text) => Some(text.clone()),
            _ => self.wrong("a text"),
        }
    }

    pub(crate) fn at_text(&self) -> Option<At<String>> {
        Some(At {
            place: self.place(),
            value: self.text()?,
        })
    }

    pub(crate) fn bool(&self) -> Option<bool> {
        self.note(Use::As(Type::Bool));
        match self.node.value {
            Value::Bool(value) => Some(value),
            _ => self.wrong("true or false"),
        }
    }

    pub(crate) fn number(&self) -> Option<u64> {
        self.note(Use::As(Type::Number));
        match self.node.value {
            Value::Unsigned(value) => Some(value),
            _ => self.wrong("a number from 0"),
        }
    }

    /// A number of at most `max`, which the type holds.
    pub(crate) fn number_to<T: TryFrom<u64>>(&self, max: u64) -> Option<T> {
        self.note(Use::Max(max));
        let value = self.number()?;
        if value <= max {
            return T::try_from(value).ok();
        }
        let message = format!("{value} is out of range");
        let help = format!("the largest value here is {max} ({max:#x})");
        self.reader
            .report(Diagnostic::new(Code::OutOfRange, self.place(), message).help(help));
        None
    }

    pub(crate) fn u32(&self) -> Option<u32> {
        self.number_to(u64::from(u32::MAX))
    }

    fn list(&self) -> Option<&'n [Node]> {
        self.note(Use::As(Type::List));
        match &self.node.value {
            Value::List(items) => Some(items),
            _ => self.wrong("a list"),
        }
    }

    /// What `read` makes of each element; elements that it cannot read are left out, the mistakes being reported.
    pub(crate) fn each<T>(&self, mut read: impl FnMut(Self) -> Option<T>) -> Option<Vec<T>> {
        let mut all = Vec::new();
        for node in self.list()? {
            if let Some(value) = read(self.with(node)) {
                all.push(value);
            }
        }
        Some(all)
    }

    /// A list, or one element that stands for a list of one.
    pub(crate) fn one_or_each<T>(&self, mut read: impl FnMut(Self) -> Option<T>) -> Option<Vec<T>> {
        if matches!(self.node.value, Value::List(_)) {
            self.each(read)
        } else {
            Some(vec![read(*self)?])
        }
    }

    pub(crate) fn entries(&self) -> Option<impl Iterator<Item = (Self, Self)> + use<'n>> {
        self.note(Use::As(Type::Entries));
        match &self.node.value {
            Value::Map(entries) => {
                let this = *self;
                Some(
                    entries
                        .iter()
                        .map(move |(key, value)| (this.with(key), this.with(value))),
                )
            }
            _ => self.wrong("a mapping"),
        }
    }

    pub(crate) fn record(&self) -> Option<Record<'n>> {
        self.note(Use::As(Type::Record));
        match &self.node.value {
            Value::Map(entries) => Some(Record {
                item: *self,
                entries,
                asked: Vec::new(),
                incomplete: false,
            }),
            _ => self.wrong("a mapping"),
        }
    }

    /// What `read` makes of a mapping whose keys are the schema's: [`Self::record`], all of it, and [`Record::finish`].
    pub(crate) fn mapping<T>(&self, read: impl FnOnce(&mut Record<'n>) -> T) -> Option<T> {
        let mut record = self.record()?;
        let value = read(&mut record);
        record.finish()?;
        Some(value)
    }

    /// [`Self::mapping`] for each element.
    pub(crate) fn each_mapping<T>(
        &self,
        mut read: impl FnMut(&mut Record<'n>) -> T,
    ) -> Option<Vec<T>> {
        self.each(|item| item.mapping(&mut read))
    }
}

/// A mapping whose keys are the schema's.
pub(crate) struct Record<'n> {
    pub(crate) item: Item<'n>,
    entries: &'n [(Node, Node)],
    asked: Vec<&'static str>,
    /// Whether a value that must be there is not, or cannot be read; this has been reported.
    incomplete: bool,
}

impl<'n> Record<'n> {
    pub(crate) const fn place(&self) -> Place {
        self.item.place()
    }

    /// The value of `key`, if it is there.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<Item<'n>> {
        self.asked.push(key);
        self.item.note(Use::Key(key, None));
        let (_, value) = self
            .entries
            .iter()
            .find(|(k, _)| matches!(&k.value, Value::Text(text) if text == key))?;
        Some(self.item.with(value))
    }

    /// The value of `key`; its absence is reported.
    pub(crate) fn need(&mut self, key: &'static str) -> Option<Item<'n>> {
        let found = self.get(key);
        self.item.note(Use::Need(key));
        if found.is_none() {
            let code = if key == "cite" {
                Code::MissingCite
            } else {
                Code::MissingKey
            };
            let message = format!("`{key}` is missing");
            let mut diagnostic = Diagnostic::new(code, self.place(), message);
            diagnostic = diagnostic.help(if key == "cite" {
                "every fact names its source: `cite: { id: <source>, at: <where> }`".to_owned()
            } else {
                format!("add `{key}: ..` to this mapping; SCHEMA.md says what it holds")
            });
            self.item.reader.report(diagnostic);
        }
        found
    }

    /// What `read` makes of the value of `key`. If it is not there or cannot be read, this is reported, and
    /// [`Self::finish`] says so: the rest of the mapping is read first, so that all of its mistakes come at once.
    pub(crate) fn require<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Item<'n>) -> Option<T>,
    ) -> Option<T> {
        let value = self.need(key).and_then(read);
        self.incomplete |= value.is_none();
        value
    }

    /// The value of `key`, which must be there, by [`Self::require`].
    pub(crate) fn require_or_default<T: Default>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Item<'n>) -> Option<T>,
    ) -> T {
        self.require(key, read).unwrap_or_default()
    }

    /// The text of `key`, which must be there.
    pub(crate) fn required_text(&mut self, key: &'static str) -> String {
        self.require_or_default(key, |item| item.text())
    }

    /// The number of `key`, which must be there.
    pub(crate) fn required_number(&mut self, key: &'static str) -> u64 {
        self.require_or_default(key, |item| item.number())
    }

    /// The 32-bit number of `key`, which must be there.
    pub(crate) fn required_u32(&mut self, key: &'static str) -> u32 {
        self.require_or_default(key, |item| item.u32())
    }

    /// What `read` makes of the value of `key`; `None` if it is absent. What cannot be read makes the mapping incomplete.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Item<'n>) -> Option<T>,
    ) -> Option<T> {
        let item = self.get(key)?;
        let value = read(item);
        self.incomplete |= value.is_none();
        value
    }

    /// Says that what was read is not all that must be there.
    pub(crate) const fn spoil(&mut self) {
        self.incomplete = true;
    }

    pub(crate) fn flag(&mut self, key: &'static str) -> bool {
        self.item.note(Use::Key(key, Some(Type::Bool)));
        self.get(key).and_then(|item| item.bool()).unwrap_or(false)
    }

    pub(crate) fn text(&mut self, key: &'static str) -> Option<String> {
        self.item.note(Use::Key(key, Some(Type::Text)));
        self.get(key)?.text()
    }

    pub(crate) fn number_or(&mut self, key: &'static str, default: u64) -> u64 {
        self.item.note(Use::Key(key, Some(Type::Number)));
        self.get(key)
            .and_then(|item| item.number())
            .unwrap_or(default)
    }

    /// Reports the keys that were never asked for. `None` if a value that must be there was not, or could not be read.
    pub(crate) fn finish(self) -> Option<()> {
        for (key, _) in self.entries {
            let Value::Text(name) = &key.value else {
                self.item.with(key).wrong::<()>("a text");
                continue;
            };
            if self.asked.contains(&name.as_str()) {
                continue;
            }
            let diagnostic = Diagnostic::new(
                Code::UnknownKey,
                self.item.with(key).place(),
                format!("unknown key `{name}`"),
            );
            self.item
                .reader
                .report(diagnostic.help(suggestion(name, &self.asked)));
        }
        (!self.incomplete).then_some(())
    }
}

/// "did you mean", or the list of what there is.
pub(crate) fn suggestion(name: &str, known: &[&str]) -> String {
    match closest(name, known.iter().copied()) {
        Some(best) => format!("did you mean `{best}`?"),
        None => {
            let mut known = known.to_vec();
            known.sort();
            known.dedup();
            format!("known here: {}", known.join(", "))
        }
    }
}

/// The name in `known` that differs from `name` by at most a third of its letters.
pub fn closest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let limit = name.chars().count() / 3 + 1;
    known
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(d, _)| *d <= limit)
        .min()
        .map(|(_, c)| c)
}

/// Edits between two words, without regard to case.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
