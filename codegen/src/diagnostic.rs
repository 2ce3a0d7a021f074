//! What is wrong with a specification, where, and what to do about it.

use core::fmt;
use core::fmt::Write as _;

use crate::source::FileId;
use crate::source::Sources;
use crate::yaml::NodeId;
use crate::yaml::Position;

/// A node of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The file.
    pub file: FileId,
    /// The node in it.
    pub node: NodeId,
}

/// What kind of mistake a [`Diagnostic`] reports; printed in brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Code {
    /// The file cannot be read.
    Unreadable,
    /// The file is not YAML.
    Syntax,
    /// A value has the wrong type.
    WrongType,
    /// A key that the schema does not know.
    UnknownKey,
    /// A key that stands twice in one mapping.
    DuplicateKey,
    /// A key that must be there is not.
    MissingKey,
    /// A fact without a source.
    MissingCite,
    /// A name that nothing defines.
    UnknownName,
    /// A name or number that two entities claim.
    Conflict,
    /// Two fields on one bit or byte.
    Overlap,
    /// A bit or byte that no field accounts for.
    Unaccounted,
    /// A register that no operand can be in.
    UnknownRegister,
    /// A status that no table defines.
    UnknownStatus,
    /// A level that does not exist or does not fit.
    WrongLevel,
    /// A value outside its range.
    OutOfRange,
    /// A name that cannot be an identifier.
    BadName,
}

impl Code {
    /// The code as printed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Syntax => "syntax",
            Self::WrongType => "wrong-type",
            Self::UnknownKey => "unknown-key",
            Self::DuplicateKey => "duplicate-key",
            Self::MissingKey => "missing-key",
            Self::MissingCite => "missing-cite",
            Self::UnknownName => "unknown-name",
            Self::Conflict => "conflict",
            Self::Overlap => "overlap",
            Self::Unaccounted => "unaccounted",
            Self::UnknownRegister => "unknown-register",
            Self::UnknownStatus => "unknown-status",
            Self::WrongLevel => "wrong-level",
            Self::OutOfRange => "out-of-range",
            Self::BadName => "bad-name",
        }
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its kind.
    pub code: Code,
    /// What is wrong, in one line.
    pub message: String,
    /// Where.
    pub place: Place,
    /// Position given by the parser, if the file is not a tree of nodes.
    pub position: Option<Position>,
    /// A second place that belongs to it, with what is there.
    pub related: Option<(Place, String)>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A mistake at `place`.
    pub fn new(code: Code, place: Place, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            place,
            position: None,
            related: None,
            help: None,
        }
    }

    /// With advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With a second place.
    #[must_use]
    pub fn related(mut self, place: Place, what: impl Into<String>) -> Self {
        self.related = Some((place, what.into()));
        self
    }

    /// The mistake as text: a headline, the place with its line, and the advice.
    pub fn render(&self, sources: &Sources) -> String {
        let mut text = format!("error[{}]: {}\n", self.code.as_str(), self.message);
        let position = self.position.or_else(|| sources.position(self.place));
        snippet(&mut text, sources, self.place.file, position, None);
        if let Some((place, what)) = &self.related {
            snippet(
                &mut text,
                sources,
                place.file,
                sources.position(*place),
                Some(what),
            );
        }
        if let Some(help) = &self.help {
            let _ = writeln!(text, "  = help: {help}");
        }
        text
    }
}

fn snippet(
    text: &mut String,
    sources: &Sources,
    file: FileId,
    position: Option<Position>,
    label: Option<&str>,
) {
    let Some(source) = sources.get(file) else {
        return;
    };
    let label = label.map(|label| format!(": {label}")).unwrap_or_default();
    let Some(position) = position else {
        let _ = writeln!(text, "  --> {}{label}", source.name());
        return;
    };
    let _ = writeln!(
        text,
        "  --> {}:{}:{}{label}",
        source.name(),
        position.line,
        position.column
    );
    let Some(line) = source.text().lines().nth(position.line.saturating_sub(1)) else {
        return;
    };
    let number = position.line.to_string();
    let margin = " ".repeat(number.len());
    let (shown, caret) = shorten(line, position.column);
    let _ = writeln!(
        text,
        "{margin} |\n{number} | {shown}\n{margin} | {}^",
        " ".repeat(caret)
    );
}

/// A line of at most 110 characters around `column`, and where the column is in it, from 0.
fn shorten(line: &str, column: usize) -> (String, usize) {
    const WIDTH: usize = 110;
    let at = column.saturating_sub(1);
    let length = line.chars().count();
    if length <= WIDTH {
        return (line.to_owned(), at);
    }
    let from = at.saturating_sub(WIDTH / 3);
    let cut: String = line.chars().skip(from).take(WIDTH).collect();
    let before = if from > 0 { ".. " } else { "" };
    let after = if from + WIDTH < length { " .." } else { "" };
    (format!("{before}{cut}{after}"), at - from + before.len())
}

/// All mistakes of a specification, in the order of files and lines, with the texts they point into.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    sources: Sources,
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// `list` sorted, with the files that it speaks of.
    pub fn new(sources: Sources, mut list: Vec<Diagnostic>) -> Self {
        list.sort_by_key(|diagnostic| diagnostic.place);
        Self { sources, list }
    }

    /// The mistakes.
    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }

    /// Each mistake as text.
    pub fn rendered(&self) -> impl Iterator<Item = String> + '_ {
        self.list
            .iter()
            .map(|diagnostic| diagnostic.render(&self.sources))
    }

    /// The files.
    pub const fn sources(&self) -> &Sources {
        &self.sources
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for text in self.rendered() {
            writeln!(f, "{text}")?;
        }
        match self.list.len() {
            1 => write!(f, "1 mistake in the specification"),
            n => write!(f, "{n} mistakes in the specification"),
        }
    }
}

impl core::error::Error for Diagnostics {}
