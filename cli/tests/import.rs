//! `tdx spec import` on tables of Intel's modules that were read independently of the specification.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;

use serde_json::Value;

const TABLES: [&str; 12] = [
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
    "op_states",
    "sept_states",
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
    for (module, rows) in [("1.5.01", 1008), ("1.5.34", 1402), ("2.0.18", 1083)] {
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

/// Several ranges of MSRs share a name, so that the name alone does not tell where a row goes.
#[test]
fn new_rows_stand_where_they_stand_in_the_source() {
    let spec = copy("order");
    let directory = spec.display().to_string();
    let files = [table("1.5.34", "msr_virtualization")];
    let file = spec.join("tables/msrs.yaml");
    let text = fs::read_to_string(&file).expect("the table");
    let kept = text
        .lines()
        .filter(|line| !line.contains("modules: [\"1.5.34\"]"));
    let kept: Vec<String> = kept
        .map(|line| line.replace(", \"1.5.34\"]", "]"))
        .collect();
    fs::write(&file, kept.join("\n")).expect("the table of 1.5.01 alone");
    let (output, _) = import("1.5.34", &files, &["--write", "--spec", &directory]);
    assert!(output.status.success(), "{output:?}");
    let written = fs::read_to_string(&file).expect("the table");
    assert_eq!(written, text);
}

/// In the shape of the module's cpuid_configurations.c; rows stand in no order there.
const CPUID: &str = "
const cpuid_lookup_t cpuid_lookup[MAX_NUM_CPUID_LOOKUP] = {
 [1] = { .leaf_subleaf = {.leaf = 0x4, .subleaf = 0x0},
  .valid_entry = true,
  .faulting = true,
  .verify_mask = { .ebx = 0xfff },
  .verify_value = { .ebx = 0x0 },
  .config_index = CPUID_CONFIG_NULL_IDX
  },
 [0] = { .leaf_subleaf = {.leaf = 0x1, .subleaf = 0xffffffff},
  .valid_entry = true,
  .fixed1 = { .ecx = 0x80000000, .edx = 0x200 },
  .config_index = 0
  }
};
const ordered_cpuid_lookup_t ordered_cpuid_lookup[MAX_NUM_ORDERED_CPUID_LOOKUP] = {
 [0] = { .leaf_subleaf = {.leaf = 0x0, .subleaf = 0xffffffff},
  .valid_entry = true,
  .fixed0 = false,
  .index_to_cpuid_lookup = 10
  }
};
const cpuid_configurable_t cpuid_configurable[MAX_NUM_CPUID_CONFIG] = {
 [0] = { .leaf_subleaf = {.leaf = 0x1, .subleaf = 0xffffffff},
  .valid_entry = true,
  .config_direct = { .eax = 0xfff3fff, .ebx = 0xff0000 },
  .allow_direct = { .ecx = 0x31044d88 },
  .lookup_index = 0
  }
};
const cpuid_config_return_values_t xfam_mask_0x1_0xffffffff[XCR0_MAX_VALID_BIT + 1] = {

    [2]={ .ecx = 0x30001000  } ,

};
";

const CPUID_ROWS: &str = r#"modules: ["2.0.18"]
cite: { id: tdx-module-2.0.18, at: cpuid_configurations.c }
lookup:
  - { leaf: 0x1, config: 0, fixed1: [0x0, 0x0, 0x80000000, 0x200] }
  - { leaf: 0x4, subleaf: 0x0, faulting: true, verify_mask: [0x0, 0xfff, 0x0, 0x0] }
configurable:
  - { leaf: 0x1, direct: [0xfff3fff, 0xff0000, 0x0, 0x0], allow: [0x0, 0x0, 0x31044d88, 0x0] }
xfam_masks:
  - { leaf: 0x1, xfam_bit: 2, mask: [0x0, 0x0, 0x30001000, 0x0] }
"#;

#[test]
fn cpuid_tables_become_a_file_of_the_module() {
    let spec = copy("cpuid");
    let directory = spec.display().to_string();
    let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cpuid_configurations.c");
    let files = [source.clone()];
    fs::write(&source, CPUID).expect("the source is written");
    let write = ["--write", "--spec", &directory];
    let (output, report) = import("2.0.18", &files, &write);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report["changes"].as_array().map(Vec::len), Some(4));
    let file = spec.join("tables/cpuid_2_0_18.yaml");
    let text = fs::read_to_string(&file).expect("a file of its own");
    assert!(text.ends_with(CPUID_ROWS), "{text}");
    if let Err(error) = tdx_codegen::read(&spec) {
        panic!("{error}");
    }
    let (_, report) = import("2.0.18", &files, &write[1..]);
    assert_eq!(report["changes"], Value::Array(Vec::new()));

    // Another value, and a row less; what was written by hand at the head stays.
    fs::write(&file, format!("# By hand.\n{text}")).expect("the file is written");
    let changed = CPUID.replace(".ebx = 0xfff }", ".ebx = 0xffe }");
    let changed = changed.replace("    [2]={ .ecx = 0x30001000  } ,\n", "");
    fs::write(&source, changed).expect("the source is written");
    let (_, report) = import("2.0.18", &files, &write);
    assert_eq!(report["changes"].as_array().map(Vec::len), Some(2));
    let text = fs::read_to_string(&file).expect("the file");
    assert!(text.starts_with("# By hand.\n"), "{text}");
    assert!(text.contains("[0x0, 0xffe, 0x0, 0x0] }"), "{text}");
    assert!(text.ends_with("xfam_masks: []\n"), "{text}");
    if let Err(error) = tdx_codegen::read(&spec) {
        panic!("{error}");
    }

    for broken in [
        CPUID.replace("[1] = {", "[2] = {"),
        CPUID.replace("0x31044d88", "0x1ffffffff"),
        CPUID.replace(".valid_entry = true", ".valid_entry = perhaps"),
    ] {
        fs::write(&source, broken).expect("the source is written");
        let (output, _) = import("2.0.18", &files, &[]);
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn bad_input_gives_one_line() {
    let existing = table("1.5.01", "operand_ids");
    let releases = repository().join("tests/data/facts/module_releases.json");
    let garbage = repository().join("README.md");
    let missing = PathBuf::from("/nonexistent/table.json");
    for (module, file) in [
        ("1.5.01", &releases),
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
