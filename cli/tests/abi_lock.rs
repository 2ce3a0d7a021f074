//! The ABI lock file: it is up to date, and no change of the ABI gets past it.

mod command;

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use command::repository;
use command::tdx;

/// A copy of the specification with its lock file, for this test alone.
fn copy() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(std::thread::current().name().expect("a test's thread"))
        .join("spec");
    if target.exists() {
        fs::remove_dir_all(&target).expect("the old copy is removed");
    }
    let source = repository("spec");
    let sources = tdx_codegen::source::Sources::read(&source).expect("the specification");
    for (_, file) in sources.iter() {
        let path = target.join(file.name());
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, file.text()).expect("a copy");
    }
    fs::copy(source.join("abi.lock"), target.join("abi.lock")).expect("the lock file");
    target
}

/// Replaces the only `old` in a file.
#[track_caller]
fn edit(spec: &Path, file: &str, old: &str, new: &str) {
    let path = spec.join(file);
    let text = fs::read_to_string(&path).expect("a file");
    assert_eq!(text.matches(old).count(), 1, "{file}: {old}");
    fs::write(path, text.replace(old, new)).expect("the change");
}

/// What `tdx spec lock --check` says, and whether it is content.
fn check(spec: &Path) -> (bool, String) {
    let spec = spec.to_str().expect("a path");
    let output = tdx(["spec", "lock", "--check", spec]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.success(),
        text(&output.stdout) + &text(&output.stderr),
    )
}

#[test]
fn the_lock_file_is_up_to_date() {
    let (is_good, text) = check(&repository("spec"));
    assert!(is_good, "{text}");
}

const SEEDS: [(&str, &str, &str, &str, &str); 8] = [
    (
        "leaves/tdh/TDH.MEM.TRACK.yaml",
        "number: 38",
        "number: 76",
        "TDH.MEM.TRACK  renumbered from 0x26 to 0x4c",
        "major",
    ),
    (
        "formats/GpaMapping.yaml",
        "{ bits: \"11:3\", reserved: 0 }",
        "{ bits: \"11:4\", reserved: 0 }\n  - { bits: \"3\", name: hot }",
        "GpaMapping  bit 3 defined as hot, was reserved",
        "minor",
    ),
    (
        "leaves/tdh/TDH.MEM.PAGE.AUG.yaml",
        "resource: TDR, mode: shared",
        "resource: TDR, mode: exclusive",
        "TDH.MEM.PAGE.AUG  lock TDR rdx: exclusive, host priority, was shared, host priority",
        "major",
    ),
    (
        "tables/statuses.yaml",
        "name: OPERAND_BUSY, value: 0x8000020000000000",
        "name: OPERAND_BUSY, value: 0x8000021000000000",
        "OPERAND_BUSY  value: 0x8000021000000000, was 0x8000020000000000",
        "major",
    ),
    (
        "fields/tdr_tdcs.yaml",
        "name: NUM_TDCX, id: 0x8010000200000002",
        "name: NUM_TDCX, id: 0x8010000200000072",
        "TDR_TDCS.NUM_TDCX  renumbered from 0x8010000200000002 to 0x8010000200000072",
        "major",
    ),
    (
        "features.yaml",
        "name: DYNAMIC_PAMT, bit: 36",
        "name: DYNAMIC_PAMT, bit: 61",
        "DYNAMIC_PAMT  bit: 61, was 36",
        "major",
    ),
    (
        "enums/PageType.yaml",
        "name: NDA,",
        "name: FREE,",
        "PageType  NDA renamed FREE (0)",
        "major",
    ),
    (
        "leaves/tdh/TDH.PHYMEM.PAMT.REMOVE.yaml",
        "  r8: { name: pamt_page_1",
        "  r9: { name: pamt_page_1",
        "TDH.PHYMEM.PAMT.REMOVE  output pamt_page_1 moved from r8 to r9",
        "major",
    ),
];

#[test]
fn every_seeded_change_fails_and_is_named() {
    let spec = copy();
    assert!(check(&spec).0);
    for (file, old, new, told, verdict) in SEEDS {
        let path = spec.join(file);
        let before = fs::read(&path).expect("a file");
        edit(&spec, file, old, new);
        let (is_good, text) = check(&spec);
        assert!(!is_good, "{file}: {new}");
        assert!(text.contains(told), "{told}:\n{text}");
        assert!(
            text.contains(&format!("verdict: {verdict} ")),
            "{verdict}:\n{text}"
        );
        fs::write(&path, before).expect("the old content");
    }
    assert!(check(&spec).0);
}

#[test]
fn texts_are_no_change() {
    let spec = copy();
    let file = "leaves/tdh/TDH.MEM.TRACK.yaml";
    let text = fs::read_to_string(spec.join(file)).expect("a file");
    let doc = text.lines().find(|line| line.starts_with("doc:"));
    edit(&spec, file, doc.expect("a text"), "doc: Something else.");
    let (is_good, text) = check(&spec);
    assert!(is_good, "{text}");
}

#[test]
fn writing_the_lock_file_anew_settles_it() {
    let spec = copy();
    let (file, old, new, ..) = SEEDS[0];
    edit(&spec, file, old, new);
    let folder = spec.to_str().expect("a path");
    assert!(tdx(["spec", "lock", folder]).status.success());
    assert!(check(&spec).0);
}

#[test]
fn a_damaged_lock_file_is_refused() {
    let spec = copy();
    let lock = spec.join("abi.lock");
    let whole = fs::read_to_string(&lock).expect("the lock file");
    for damaged in [
        whole.replacen("leaf TDH", "leef TDH", 1),
        whole.replacen(" = ", " ", 1),
        // The same facts in another order.
        whole.lines().rev().collect::<Vec<_>>().join("\n"),
        String::new(),
    ] {
        fs::write(&lock, damaged).expect("the damage");
        assert!(!check(&spec).0);
    }
    fs::remove_file(&lock).expect("the lock file");
    assert!(!check(&spec).0);
}

fn json(arguments: &[&str]) -> serde_json::Value {
    let mut all = vec!["spec", "diff", "--json"];
    all.extend(arguments);
    command::json(all)
}

/// Number of changes of this kind and event.
fn count(diff: &serde_json::Value, kind: &str, event: &str) -> usize {
    let changes = diff["changes"].as_array().expect("changes").iter();
    changes
        .filter(|change| change["kind"] == kind && change["event"] == event)
        .count()
}

#[test]
fn modules_differ_as_intels_tables_do() {
    let diff = json(&["1.5.01", "2.0.18"]);
    // 106 and 32 leaves against 69 and 21; 289 codes against 165; 63 operand ids against 50; 26 states against 16.
    assert_eq!(count(&diff, "leaf", "added"), 106 - 69 + 32 - 21);
    assert_eq!(count(&diff, "status", "added"), 289 - 165);
    assert_eq!(count(&diff, "operand", "added"), 63 - 50);
    assert_eq!(count(&diff, "op_state", "added"), 2);
    assert_eq!(count(&diff, "sept_state", "added"), 26 - 16);
    for kind in ["leaf", "status", "operand", "op_state", "sept_state"] {
        assert_eq!(count(&diff, kind, "removed"), 0, "{kind}");
    }
    let changes = diff["changes"].as_array().expect("changes");
    for field in ["TDR_TDCS.CONFIG_FLAGS", "TDR_TDCS.TD_CTLS"] {
        let mut of_field = changes.iter().filter(|change| change["entity"] == field);
        // Only bit 63 differs.
        assert!(
            of_field.any(|change| change["level"] == "patch"
                && change["what"]
                    .as_str()
                    .is_some_and(|it| it.starts_with("renumbered"))),
            "{field}"
        );
    }
    assert_eq!(diff["verdict"], "major");
    assert_eq!(
        json(&["2.0.18", "2.0.18"])["verdict"],
        serde_json::Value::Null
    );
}

fn git(folder: &Path, arguments: &[&str]) {
    let identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"];
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(identity)
        .args(arguments)
        .output()
        .expect("git runs");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn revisions_and_folders_are_compared() {
    let spec = copy();
    let root = spec.parent().expect("a folder");
    git(root, &["init", "--quiet"]);
    git(root, &["add", "."]);
    git(root, &["commit", "--quiet", "-m", "x"]);
    let (file, old, new, ..) = SEEDS[0];
    edit(&spec, file, old, new);
    git(root, &["commit", "--quiet", "-a", "-m", "y"]);
    let root = root.to_str().expect("a path");
    let diff = json(&["--repository", root, "HEAD~1", "HEAD"]);
    assert_eq!(diff["verdict"], "major");
    let changes = diff["changes"].as_array().expect("changes");
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0]["entity"], "TDH.MEM.TRACK");
    assert_eq!(
        changes[0]["modules"],
        serde_json::json!(["1.5.01", "1.5.34", "2.0.18"])
    );
    // The revision before, the folder as it is, and the lock file of before: all the same ABI but the change.
    let folder = spec.to_str().expect("a path");
    let lock = spec.join("abi.lock");
    let lock = lock.to_str().expect("a path");
    assert_eq!(
        json(&["--repository", root, "HEAD", folder])["verdict"],
        serde_json::Value::Null
    );
    assert_eq!(json(&[lock, folder])["changes"], diff["changes"]);
    let output = tdx(["spec", "diff", "--changelog", lock, folder]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("### ABI\n"), "{text}");
    assert!(
        text.contains("\n- `TDH.MEM.TRACK`: renumbered from 0x26 to 0x4c"),
        "{text}"
    );
}

#[test]
fn what_is_no_specification_is_refused() {
    let folder = env!("CARGO_MANIFEST_DIR");
    let spec = repository("spec");
    let spec = spec.to_str().expect("a path");
    for pair in [
        ["1.5.01", "9.9.99"],
        ["1.5.01", spec],
        ["nonsense", spec],
        [folder, spec],
        [env!("CARGO_MANIFEST_PATH"), spec],
        ["--upload-pack=x", spec],
    ] {
        let mut arguments = vec!["spec", "diff", "--repository", folder, "--"];
        arguments.extend(pair);
        let output = tdx(arguments);
        assert!(!output.status.success(), "{pair:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.starts_with("tdx: "), "{error}");
    }
}
