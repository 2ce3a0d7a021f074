//! From YAML to a checked model of the TDX ABI, and from the model to Rust, C, JSON and documentation.
//!
//! The stages are plain functions: [`source::Sources::read`] reads files, [`load::load`] makes a [`model::Spec`] of them,
//! [`check::check`] looks for contradictions, and the modules of [`emit`] write it out. [`read`] does the first three.
#![forbid(unsafe_code)]

extern crate alloc;

pub mod area;
pub mod check;
pub mod diagnostic;
pub mod emit;
pub mod expand;
#[cfg(feature = "generate")]
pub mod fmt;
pub mod load;
pub mod model;
mod parallel;
#[cfg(feature = "generate")]
pub mod schema;
pub mod source;
pub mod yaml;

use std::io;
use std::path::Path;

use crate::diagnostic::Diagnostics;
use crate::model::Spec;
use crate::source::Sources;

/// Why there is no model.
#[derive(Debug)]
pub enum Error {
    /// A file cannot be read.
    Io(io::Error),
    /// The files contradict the schema, each other or themselves.
    Mistakes(Diagnostics),
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Mistakes(diagnostics) => diagnostics.fmt(f),
        }
    }
}

impl core::error::Error for Error {}

/// A checked specification with the files it was read from.
#[derive(Clone, Debug)]
pub struct Specification {
    /// The model.
    pub spec: Spec,
    /// The files.
    pub sources: Sources,
}

/// Reads and checks the specification in `directory`.
///
/// # Errors
///
/// A file cannot be read, or there are mistakes; then all of them are reported.
pub fn read(directory: &Path) -> Result<Specification, Error> {
    let sources = Sources::read(directory).map_err(Error::Io)?;
    from_sources(sources).map_err(Error::Mistakes)
}

/// Checks the specification in `sources`.
///
/// # Errors
///
/// There are mistakes; all of them are reported.
pub fn from_sources(sources: Sources) -> Result<Specification, Diagnostics> {
    let (spec, mut mistakes) = load::load(&sources);
    mistakes.extend(check::check(&spec));
    if mistakes.is_empty() {
        Ok(Specification { spec, sources })
    } else {
        Err(Diagnostics::new(sources, mistakes))
    }
}
