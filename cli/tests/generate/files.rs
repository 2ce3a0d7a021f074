//! What becomes of files that are there already.

use std::fs;

use super::command::complaint;
use super::folder;
use super::generate;

#[test]
fn a_second_run_writes_nothing() {
    let folder = folder("again");
    // What became of files; the folder's own name may hold any word.
    let becomes = |text: &str, word: &str| {
        text.lines()
            .any(|line| line.split_whitespace().next() == Some(word))
    };
    let first = generate("c", &folder, &[]);
    assert!(
        becomes(&first, "new") && !becomes(&first, "unchanged"),
        "{first}"
    );
    let header = folder.join("tdx_leaf.h");
    let before = fs::metadata(&header).unwrap().modified().unwrap();
    let second = generate("c", &folder, &["--check"]);
    assert!(
        becomes(&second, "unchanged") && !becomes(&second, "new"),
        "{second}"
    );
    generate("c", &folder, &[]);
    assert_eq!(fs::metadata(&header).unwrap().modified().unwrap(), before);
}

#[test]
fn what_somebody_else_wrote_is_kept() {
    let folder = folder("foreign");
    let arguments = |more: &[&str]| {
        let mut arguments = vec!["spec", "generate", "--lang", "c", "--out"]
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>();
        arguments.push(folder.to_str().unwrap().to_owned());
        arguments.extend(more.iter().map(|more| (*more).to_owned()));
        arguments
    };
    fs::write(folder.join("tdx.h"), "mine").unwrap();
    fs::write(folder.join("other.h"), "mine too").unwrap();
    let complaint = complaint(arguments(&[]));
    assert!(
        complaint.contains("tdx.h") && complaint.contains("--force"),
        "{complaint}"
    );
    assert_eq!(fs::read_to_string(folder.join("tdx.h")).unwrap(), "mine");
    assert!(!folder.join("tdx_leaf.h").exists(), "all or nothing");
    generate("c", &folder, &["--force"]);
    assert!(
        fs::read_to_string(folder.join("tdx.h"))
            .unwrap()
            .contains("tdx_leaf.h")
    );
    assert_eq!(
        fs::read_to_string(folder.join("other.h")).unwrap(),
        "mine too"
    );
}

#[test]
fn what_is_generated_no_longer_goes() {
    let folder = folder("stale");
    generate("c", &folder, &[]);
    fs::write(folder.join("tdx_old.h"), "generated once").unwrap();
    let outside = folder.parent().unwrap().join("outside.h");
    fs::write(&outside, "not ours").unwrap();
    let list = folder.join(".tdx-generated");
    let names = fs::read_to_string(&list).unwrap();
    fs::write(&list, names + "tdx_old.h\n../outside.h\n").unwrap();
    fs::write(folder.join("tdx_leaf.h"), "edited").unwrap();
    let summary = generate("c", &folder, &[]);
    assert!(
        summary.contains("removed") && summary.contains("updated"),
        "{summary}"
    );
    assert!(!folder.join("tdx_old.h").exists());
    assert!(
        outside.exists(),
        "names that lead out of the folder are not followed"
    );
    assert!(
        fs::read_to_string(folder.join("tdx_leaf.h"))
            .unwrap()
            .contains("TDH_MEM_PAGE_AUG")
    );
}

#[test]
fn a_module_is_for_rust() {
    let folder = folder("module");
    let path = folder.to_str().unwrap();
    for module in ["tdx", "crate", "crate::a b", "crate::1"] {
        let line = complaint([
            "spec", "generate", "--lang", "rust", "--out", path, "--module", module,
        ]);
        assert!(line.contains("crate::tdx"), "{line}");
    }
    complaint([
        "spec",
        "generate",
        "--lang",
        "c",
        "--out",
        path,
        "--module",
        "crate::tdx",
    ]);
}
