//! Facts as lines of a lock file.

use core::fmt;

use super::Facts;
use super::Key;
use super::Kind;
use super::Scope;

/// First lines of a lock file.
const HEADER: &str = "\
# The TDX ABI, one fact a line: kind, entity: aspect = value @ modules (none: bound to no module).
# Written by `tdx spec lock` from the YAML files beside it, and never by hand. `tdx spec lock --check` compares.
";

/// A line of a lock file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub(in crate::spec) struct LineError {
    line: usize,
    what: &'static str,
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEADER)?;
        let mut before = None;
        for (key, values) in &self.facts {
            if before != Some(key.kind) {
                writeln!(f)?;
                before = Some(key.kind);
            }
            for (value, scope) in values {
                let word = key.kind.word();
                write!(f, "{word} {}: {} = {value}", key.entity, key.aspect)?;
                let modules: Vec<&str> = scope.iter().flatten().map(String::as_str).collect();
                if scope.contains(&None) {
                    writeln!(f)?;
                } else {
                    writeln!(f, " @ {}", modules.join(" "))?;
                }
            }
        }
        Ok(())
    }
}

impl Facts {
    /// Reads a lock file.
    pub(in crate::spec) fn parse(text: &str) -> Result<Self, LineError> {
        let mut facts = Self::default();
        for (line, text) in (1..).zip(text.lines()) {
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let wrong = |what| LineError { line, what };
            let (word, rest) = text
                .split_once(' ')
                .ok_or_else(|| wrong("expected a kind and an entity"))?;
            let (kind, ..) = Kind::ALL
                .into_iter()
                .find(|(_, known, _)| *known == word)
                .ok_or_else(|| wrong("no such kind of fact"))?;
            let (entity, rest) = rest
                .split_once(": ")
                .ok_or_else(|| wrong("expected `: ` after the entity"))?;
            let (aspect, rest) = rest
                .split_once(" = ")
                .ok_or_else(|| wrong("expected ` = ` after the aspect"))?;
            let (value, scope) = match rest.rsplit_once(" @ ") {
                None => (rest, super::unbound()),
                Some((value, modules)) => {
                    let modules = modules.split_whitespace();
                    let scope: Scope = modules.map(|name| Some(name.to_owned())).collect();
                    (value, scope)
                }
            };
            let key = Key {
                kind,
                entity: entity.to_owned(),
                aspect: aspect.to_owned(),
            };
            facts
                .facts
                .entry(key)
                .or_default()
                .entry(value.to_owned())
                .or_default()
                .extend(scope);
        }
        Ok(facts)
    }
}
