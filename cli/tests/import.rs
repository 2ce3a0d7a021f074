//! `tdx spec import` on tables of Intel's modules that were read independently of the specification.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;

use serde_json::Value;

const TABLES: [&str; 10] = [
    "status_codes",
    "operand_ids",
    "seamcall_leaves",
    "tdcall_leaves",
    "metadata_global",
    "metadata_tdr_tdcs",
    "metadata_tdvps",
    "metadata_td_vmcs",
    "metadata_td_l2_vmcs",
    "msr_virtualization",
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn table(module: &str, name: &str) -> PathBuf {
    repository().join(format!("tests/data/facts/tdx-module-{module}/{name}.json"))
}

fn import(module: &str, files: &[PathBuf], further: &[&str]) -> (Output, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_tdx"))
        .args(["spec", "import", "--json", "--module", module])
        .args(further)
        .args(files)
        .output()
        .expect("tdx runs");
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, report)
}

#[test]
fn importing_again_changes_nothing() {
    for (module, rows) in [("1.5.01", 976), ("1.5.34", 336 + 73 + 99), ("2.0.18", 1037)] {
        let files = TABLES.map(|name| table(module, name));
        let files: Vec<PathBuf> = files.into_iter().filter(|path| path.exists()).collect();
        let (output, report) = import(module, &files, &[]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(report["rows"], rows, "{module}");
        assert_eq!(report["changes"], Value::Array(Vec::new()), "{module}");
    }
}

/// A copy of the specification's files.
fn copy(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if target.exists() {
        fs::remove_dir_all(&target).expect("the old copy is removed");
    }
    let source = repository().join("spec");
    for (_, file) in tdx_codegen::source::Sources::read(&source)
        .expect("the specification")
        .iter()
    {
        let path = target.join(file.name());
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, file.text()).expect("a copy");
    }
    target
}

#[test]
fn what_is_written_can_be_read_and_taken_back() {
    let spec = copy("import");
    let directory = spec.display().to_string();
    let write = ["--write", "--spec", &directory];
    let read = ["--spec", &directory];
    // The tables of one module under the name of another: rows come, go and change.
    let before = TABLES.map(|name| table("1.5.01", name));
    let after = TABLES.map(|name| table("2.0.18", name));
    let (output, report) = import("1.5.01", &after[..2], &read);
    assert!(!output.status.success());
    assert_eq!(report["changes"].as_array().map(Vec::len), Some(124 + 13));
    for files in [&after[4..9], &before[4..9]] {
        let (output, report) = import("1.5.01", files, &write);
        assert!(output.status.success(), "{output:?}");
        assert_ne!(report["changes"], Value::Array(Vec::new()));
        let (output, report) = import("1.5.01", files, &read);
        assert!(output.status.success(), "{output:?}");
        // Names that differ stay as they are.
        let left = report["changes"].as_array().expect("changes");
        assert!(
            left.iter()
                .all(|change| change["kind"]["named"].is_object()),
            "{left:?}"
        );
        if let Err(error) = tdx_codegen::read(&spec) {
            panic!("{error}");
        }
    }
    let (output, _) = import("2.0.18", &after[4..9], &read);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn bad_input_gives_one_line() {
    let existing = table("1.5.01", "op_states");
    let garbage = repository().join("README.md");
    let missing = PathBuf::from("/nonexistent/table.json");
    for (module, file) in [
        ("1.5.01", &existing),
        ("1.5.01", &garbage),
        ("1.5.01", &missing),
        ("one", &existing),
    ] {
        let (output, _) = import(module, core::slice::from_ref(file), &[]);
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
