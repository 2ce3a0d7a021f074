//! A checked model written out.

#[cfg(feature = "generate")]
pub mod book;
#[cfg(feature = "generate")]
pub mod c;
#[cfg(feature = "generate")]
pub mod json;
pub mod rust;
#[cfg(feature = "generate")]
pub mod vendor;

/// A file to be written.
#[cfg(feature = "generate")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Path below the folder that it is written to, with `/`.
    pub name: String,
    /// What it holds.
    pub text: String,
}

#[cfg(feature = "generate")]
impl File {
    /// The file called `name` with this text.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
        }
    }
}
