//! `tdx spec generate`, `fmt` and `schema`: what they write is built, run, and held against Intel's tables and an interpreter of the model.
#![expect(
    clippy::unwrap_used,
    clippy::std_instead_of_alloc,
    clippy::std_instead_of_core,
    reason = "a test: a panic is how it fails"
)]

#[path = "../command/mod.rs"]
mod command;

mod book;
mod c;
mod facts;
mod files;
mod fmt;
mod json;
mod rust;
mod schema;

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// An empty folder of this name.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("generate")
        .join(name);
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs `tdx spec generate` and returns what it prints.
#[track_caller]
fn generate(language: &str, folder: &Path, more: &[&str]) -> String {
    let mut arguments = vec![
        "spec",
        "generate",
        "--lang",
        language,
        "--out",
        folder.to_str().unwrap(),
    ];
    arguments.extend(more);
    let output = command::tdx(arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that succeeds, and returns what it prints.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
