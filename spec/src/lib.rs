//! The Intel TDX ABI as YAML files.
//!
//! [`DIRECTORY`] is where the files lie on the machine that compiles this crate: what a procedural macro or a build
//! script needs. The schema of the files is described in `SCHEMA.md` beside them.
#![no_std]
#![forbid(unsafe_code)]

/// Absolute path of the directory that holds the YAML files.
pub const DIRECTORY: &str = env!("CARGO_MANIFEST_DIR");

/// Folders of [`DIRECTORY`] that hold YAML files; the rest of the crate is not part of the specification.
pub const FOLDERS: [&str; 8] = [
    ".",
    "modules",
    "tables",
    "fields",
    "enums",
    "formats",
    "structures",
    "leaves",
];

/// The YAML files as path below [`DIRECTORY`] and text, for tools that run where the directory is not.
#[cfg(feature = "embed")]
pub const FILES: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/files.rs"));
