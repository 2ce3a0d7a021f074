//! Files to a model: every value gets its type here, and every key must be one of the schema's.

mod cpuid;
mod format;
mod leaf;
mod modules;
mod question;
mod record;
mod table;
#[cfg(feature = "generate")]
mod trace;

#[cfg(feature = "generate")]
pub(crate) use question::Type;
pub use record::closest;
#[cfg(feature = "generate")]
pub(crate) use trace::Trace;
#[cfg(feature = "generate")]
pub(crate) use trace::Uses;

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;

use crate::diagnostic::Code;
use crate::diagnostic::Diagnostic;
use crate::diagnostic::Place;
use crate::model::ModuleSet;
use crate::model::Spec;
use crate::source::FileId;
use crate::source::Sources;
use crate::yaml::Node;
use crate::yaml::NodeId;
use crate::yaml::Value;
use crate::yaml::cache::Cache;

use question::Use;
use record::Item;
use record::Reader;
use record::Record;

/// Reads every file of `sources`.
///
/// What cannot be read is left out of the model and reported. A syntax error costs the whole file.
pub fn load(sources: &Sources) -> (Spec, Vec<Diagnostic>) {
    load_cached(sources, &mut Cache::none())
}

/// [`load`], with what `cache` knows of the files.
pub fn load_cached(sources: &Sources, cache: &mut Cache) -> (Spec, Vec<Diagnostic>) {
    let reader = Reader::new();
    let (spec, _) = load_with(&reader, sources, cache);
    (spec, reader.into_diagnostics())
}

/// The roots of the files that can be parsed, and what the loader asks of them.
#[cfg(feature = "generate")]
pub(crate) fn load_traced(sources: &Sources) -> (Vec<(FileId, Node)>, Trace) {
    let reader = Reader::tracing();
    let (_, documents) = load_with(&reader, sources, &mut Cache::none());
    (documents, reader.take_trace())
}

/// What to do about a syntax error in line `line`.
fn syntax_help(text: &str, line: usize) -> &'static str {
    let line = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let indent = line.len() - line.trim_start().len();
    if line[..indent].contains('\t') {
        "indent with spaces: YAML takes no tabs there; the rest of this file was not read"
    } else {
        "look at indentation, quotes and brackets here and in the line above; the rest of this file was not read"
    }
}

fn load_with(reader: &Reader, sources: &Sources, cache: &mut Cache) -> (Spec, Vec<(FileId, Node)>) {
    let (mut files, mut texts) = (Vec::new(), Vec::new());
    for (file, source) in sources.iter() {
        files.push(file);
        texts.push(source.text());
    }
    let sound = |position: usize, root: &Node| !duplicate_keys(reader, files[position], root);
    let roots = cache.parse(&texts, sound);
    let mut documents = Vec::new();
    for (position, root) in roots.into_iter().enumerate() {
        let (file, text) = (files[position], texts[position]);
        match root {
            Ok(root) => documents.push((file, root)),
            Err(error) => {
                let mut diagnostic = Diagnostic::new(Code::Syntax, root_of(file), error.message);
                let line = error.position.map_or(0, |position| position.line);
                diagnostic.position = error.position;
                reader.report(diagnostic.help(syntax_help(text, line)));
            }
        }
    }
    let mut loader = Loader {
        reader,
        modules: Vec::new(),
        spec: Spec::default(),
    };
    loader.module_names(&documents);
    for (file, root) in &documents {
        loader.file(Item {
            reader,
            file: *file,
            node: root,
        });
    }
    (loader.spec, documents)
}

const fn root_of(file: FileId) -> Place {
    Place {
        file,
        node: NodeId::ROOT,
    }
}

/// Whether a key stands twice in one mapping; it is reported.
fn duplicate_keys(reader: &Reader, file: FileId, node: &Node) -> bool {
    let mut found = false;
    match &node.value {
        Value::List(items) => {
            for item in items {
                found |= duplicate_keys(reader, file, item);
            }
        }
        Value::Map(entries) => {
            let mut first: BTreeMap<Cow<'_, str>, NodeId> = BTreeMap::new();
            for (key, value) in entries {
                let name = match &key.value {
                    Value::Text(text) => Cow::Borrowed(text.as_str()),
                    other => Cow::Owned(format!("{other:?}")),
                };
                if let Some(before) = first.get(&name) {
                    let message = format!("the key `{name}` stands twice in one mapping");
                    let place = |node| Place { file, node };
                    reader.report(
                        Diagnostic::new(Code::DuplicateKey, place(key.id), message)
                            .related(place(*before), "it stands here already")
                            .help("remove one of them"),
                    );
                    found = true;
                } else {
                    first.insert(name, key.id);
                }
                found |= duplicate_keys(reader, file, value);
            }
        }
        _ => {}
    }
    found
}

struct Loader<'r> {
    reader: &'r Reader,
    /// Names of the modules with a manifest, oldest first.
    modules: Vec<String>,
    spec: Spec,
}

/// Reads a file of one kind.
type ReadKind<'r> = fn(&mut Loader<'r>, &mut Record<'_>);

impl Loader<'_> {
    /// The manifests' names, before anything refers to them.
    fn module_names(&mut self, documents: &[(FileId, Node)]) {
        for (_, root) in documents {
            let Value::Map(entries) = &root.value else {
                continue;
            };
            let text = |wanted: &str| {
                entries
                    .iter()
                    .find_map(|(key, value)| match (&key.value, &value.value) {
                        (Value::Text(key), Value::Text(value)) if key == wanted => {
                            Some(value.as_str())
                        }
                        _ => None,
                    })
            };
            if text("kind") == Some("module")
                && let Some(name) = text("name")
            {
                self.modules.push(name.to_owned());
            }
        }
        self.modules.sort();
        self.modules.dedup();
    }

    fn file(&mut self, item: Item<'_>) {
        let Some(mut record) = item.record() else {
            return;
        };
        let Some(kind) = record.need("kind") else {
            return;
        };
        let Some(name) = kind.text() else { return };
        let kinds: [(&str, ReadKind<'_>); 16] = [
            ("sources", Self::sources),
            ("features", Self::features),
            ("areas", Self::areas),
            ("releases", Self::releases),
            ("module", Self::module),
            ("statuses", Self::statuses),
            ("operands", Self::operands),
            ("op_states", Self::op_states),
            ("sept_states", Self::sept_states),
            ("fields", Self::fields),
            ("msrs", Self::msrs),
            ("cpuid", Self::cpuid),
            ("enum", Self::enumeration),
            ("format", Self::format),
            ("structure", Self::structure),
            ("leaf", Self::leaf),
        ];
        let Some((_, read)) = kinds.iter().find(|(known, _)| *known == name) else {
            let known = kinds.map(|(known, _)| known);
            let diagnostic = Diagnostic::new(
                Code::UnknownName,
                kind.place(),
                format!("unknown kind `{name}`"),
            );
            self.reader
                .report(diagnostic.help(record::suggestion(&name, &known)));
            return;
        };
        read(self, &mut record);
        // What makes the file incomplete has been reported.
        let _ = record.finish();
    }

    /// The modules that `modules` in this record names; `default` if it is absent.
    fn module_set(&self, record: &mut Record<'_>, default: ModuleSet) -> ModuleSet {
        let Some(item) = record.get("modules") else {
            return default;
        };
        self.module_list(item)
    }

    fn module_list(&self, item: Item<'_>) -> ModuleSet {
        let names = item.one_or_each(|item| item.at_text()).unwrap_or_default();
        names.iter().fold(ModuleSet::default(), |set, name| {
            match self.modules.iter().position(|known| *known == name.value) {
                Some(index) => set.with(index),
                None => {
                    let known: Vec<&str> = self.modules.iter().map(String::as_str).collect();
                    let message = format!("no module `{}` has a manifest", name.value);
                    self.reader.report(
                        Diagnostic::new(Code::UnknownName, name.place, message)
                            .help(record::suggestion(&name.value, &known)),
                    );
                    set
                }
            }
        })
    }

    fn every_module(&self) -> ModuleSet {
        ModuleSet::first(self.modules.len())
    }
}

/// One of the names in `known`, or a complaint.
fn one_of<T: Copy>(item: Item<'_>, what: &str, known: &[(&str, T)]) -> Option<T> {
    let mut names = Vec::new();
    for (name, _) in known {
        names.push(*name);
    }
    Some(known[position(item, what, &names)?].1)
}

/// Where in `known` the name stands, or a complaint.
fn position(item: Item<'_>, what: &str, known: &[&str]) -> Option<usize> {
    item.note(Use::Names(known));
    let name = item.text()?;
    let found = known.iter().position(|candidate| *candidate == name);
    if found.is_none() {
        let diagnostic = Diagnostic::new(
            Code::UnknownName,
            item.place(),
            format!("unknown {what} `{name}`"),
        );
        item.reader
            .report(diagnostic.help(record::suggestion(&name, known)));
    }
    found
}
