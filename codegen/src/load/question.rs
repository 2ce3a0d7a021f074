//! What the loader asks of a node.

/// What a node is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Type {
    Text,
    Bool,
    Number,
    List,
    /// A mapping whose keys are the schema's.
    Record,
    /// A mapping whose keys are data.
    Entries,
}

/// One question.
#[cfg_attr(
    not(feature = "generate"),
    expect(dead_code, reason = "the trace reads it")
)]
pub(crate) enum Use<'a> {
    As(Type),
    /// A number of at most this.
    Max(u64),
    /// A text that is one of these.
    Names(&'a [&'a str]),
    /// A text or number that this regular expression describes.
    Pattern(&'static str),
    /// The value of a key of a record, and what it is taken for if it is there.
    Key(&'static str, Option<Type>),
    /// The key must be there.
    Need(&'static str),
}
