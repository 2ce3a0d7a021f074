//! Running the command.
#![expect(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "shared by test binaries; a panic is how a test fails"
)]
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::PathBuf;
use std::process::Command;
use std::process::Output;

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(path)
}

/// Runs `tdx` with these arguments.
pub fn tdx<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tdx"))
        .args(arguments)
        .output()
        .unwrap()
}

/// Runs `tdx` with these arguments, which succeeds and prints JSON.
#[track_caller]
pub fn json<S: AsRef<std::ffi::OsStr>>(
    arguments: impl IntoIterator<Item = S>,
) -> serde_json::Value {
    let output = tdx(arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs `tdx` with these arguments, which fails with one line on standard error and nothing on
/// standard output. Returns the line.
#[track_caller]
pub fn complaint<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> String {
    let output = tdx(arguments);
    assert!(
        output.status.code().is_some_and(|code| code != 0),
        "{:?}",
        output.status
    );
    assert_eq!(output.stdout, b"");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("tdx: ") && text.len() > 10, "{text}");
    text.trim_end().to_owned()
}

/// A file with this content, in a folder of its own for each test.
pub fn file(name: &str, content: &[u8]) -> PathBuf {
    let folder =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(std::thread::current().name().unwrap());
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path
}
