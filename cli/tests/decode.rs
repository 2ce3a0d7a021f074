//! `tdx list`, `explain` and `decode`, as a person or a script calls them.
#![expect(
    clippy::unwrap_used,
    reason = "a test binary: it has std, and a panic is how it fails"
)]

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use serde_json::Value;
use sha2::Digest;
use sha2::Sha384;

fn tdx(arguments: &[&str]) -> Output {
    tdx_with_input(arguments, b"")
}

fn tdx_with_input(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tdx"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

#[track_caller]
fn json(arguments: &[&str]) -> Value {
    let output = tdx(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn fails(arguments: &[&str]) -> String {
    let output = tdx(arguments);
    assert!(!output.status.success(), "{arguments:?} succeeded");
    assert!(output.stdout.is_empty(), "{arguments:?} printed a result");
    String::from_utf8(output.stderr).unwrap()
}

fn data(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/data")
        .join(path)
        .display()
        .to_string()
}

/// Leaf, RAX and the rest of each failure that a user reported, with its name by the reporter's source.
fn reported() -> Vec<(Option<u64>, u64, String)> {
    let text = std::fs::read_to_string(data("logs/seamcall-failures.tsv")).unwrap();
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let rows = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            (
                number(columns[0]),
                number(columns[1]).unwrap(),
                columns[3].to_string(),
            )
        });
    rows.collect()
}

#[test]
fn failures_that_users_reported_are_decoded_as_their_reports_say() {
    let failures = reported();
    assert!(failures.len() >= 7, "the list has {} rows", failures.len());
    for (leaf, rax, expected) in failures {
        let status = json(&["decode", "status", &format!("{rax:#x}"), "--json"]);
        let name = status["name"].as_str().unwrap();
        assert!(
            expected.contains(name),
            "{rax:#x} is {name}, reported as {expected}"
        );
        if let Some((_, operand)) = expected.split_once("operand ") {
            assert_eq!(
                status["operand"].as_str().unwrap(),
                operand.trim(),
                "{rax:#x}"
            );
        }
        let Some(leaf) = leaf else { continue };
        for printed in [format!("({leaf:#018x})"), format!("({leaf})")] {
            let line = format!("[    3.141592] virt/tdx: SEAMCALL {printed} failed: {rax:#018x}\n");
            let output = tdx_with_input(&["decode", "log", "--json"], line.as_bytes());
            let found: Value = serde_json::from_slice(&output.stdout).unwrap();
            let named = expected.split(" / ").next().unwrap();
            assert_eq!(found["leaf"].as_str(), Some(named), "{line}");
            assert_eq!(found["status"].as_str(), Some(name), "{line}");
            assert_eq!(found["line"], 1);
        }
    }
}

#[test]
fn a_log_passes_through_with_explanations_in_place() {
    let log = b"before\n\xff\xfe not text\n[2] SEAMCALL (34) failed: 0xc000050500000000 RCX 0x0 RDX 0x9100000100000008\nafter";
    let output = tdx_with_input(&["decode", "log"], log);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let kept: Vec<u8> = {
        let lines = output.stdout.split(|byte| *byte == b'\n');
        lines
            .filter(|line| !line.starts_with(b"    | "))
            .collect::<Vec<_>>()
            .join(&b'\n')
    };
    assert_eq!(kept, log, "{text}");
    assert!(
        text.contains("TDH.SYS.RD returned TDX_SYS_NOT_READY"),
        "{text}"
    );
}

#[test]
fn register_lines_after_a_failure_are_explained_whatever_they_hold() {
    let zeros = |names: [&str; 3]| {
        let [a, b, c] = names;
        format!("virt/tdx: {a} 0x0000000000000000 {b} 0x0000000000000000 {c} 0x0000000000000000")
    };
    for (leaf, rax, rdx) in [
        (0x1c_u64, 0xc000_0300_0000_0001_u64, 0_u64),
        (0x22, 0xc000_0505_0000_0000, 0x9100_0001_0000_0008),
        (0xf, 0xc000_0b08_0000_0001, 0x400),
        (0x3ff, 0xc000_0100_0000_0000, 1),
    ] {
        let log = format!(
            "virt/tdx: SEAMCALL ({leaf:#018x}) failed: {rax:#018x}\nvirt/tdx: RCX 0x0000000000000000 RDX {rdx:#018x} R08 0x0000000000000000\n{}\nafter\n",
            zeros(["R09", "R10", "R11"])
        );
        let output = tdx_with_input(&["decode", "log", "--json"], log.as_bytes());
        let lines: Vec<u64> = output
            .stdout
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                serde_json::from_slice::<Value>(line).unwrap()["line"]
                    .as_u64()
                    .unwrap()
            })
            .collect();
        assert_eq!(lines, [1, 2, 3], "{log}");
    }
}

#[test]
fn lines_about_nothing_pass_byte_by_byte() {
    let mut log = b"\xff\xfe not text \x00\r\n\r\n\n".to_vec();
    log.extend(vec![b'y'; (64 << 10) - 1]);
    log.extend(b" SEAMCALL (33) failed: 0xc000090000000000\r\n");
    log.extend("RCX 0x0 RDX 0x0 R08 0x0\n\u{1f980}\x1b[31mred\x1b[0m".as_bytes());
    assert_eq!(tdx_with_input(&["decode", "log", "-"], &log).stdout, log);
}

#[test]
fn a_log_without_line_ends_needs_no_memory_for_them() {
    let log = vec![b'x'; 3 << 20];
    assert_eq!(tdx_with_input(&["decode", "log", "-"], &log).stdout, log);
}

#[test]
fn the_hashes_of_a_real_report_are_verified() {
    let path = data("tdreport/tdreport_azure_1024.bin");
    let report = json(&["decode", "tdreport", &path, "--json"]);
    let bytes = std::fs::read(&path).unwrap();
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    assert_eq!(
        report["fields"]["report_mac.tee_tcb_info_hash"],
        hex(&Sha384::digest(&bytes[256..495]))
    );
    assert_eq!(
        report["fields"]["report_mac.tee_info_hash"],
        hex(&Sha384::digest(&bytes[512..1024]))
    );
    assert_eq!(report["fields"]["td_info.mrtd"], hex(&bytes[528..576]));
    assert_eq!(report["hashes_verified"]["tee_tcb_info_hash"], true);
    assert_eq!(report["hashes_verified"]["tee_info_hash"], true);

    let mut changed = bytes;
    changed[600] ^= 1;
    let path = std::env::temp_dir().join(format!("tdreport-{}", std::process::id()));
    std::fs::write(&path, &changed).unwrap();
    let output = tdx(&["decode", "tdreport", path.to_str().unwrap(), "--json"]);
    std::fs::remove_file(&path).unwrap();
    assert!(!output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["hashes_verified"]["tee_info_hash"], false);
}

#[test]
fn values_are_taken_apart() {
    let gpa = json(&["decode", "gpa", "0x800012345678", "--json"]);
    assert_eq!(
        (gpa["shared"].as_bool(), gpa["address"].as_str()),
        (Some(true), Some("0x12345678"))
    );
    let gpa = json(&["decode", "gpa", "0x800012345678", "--gpaw", "52", "--json"]);
    assert_eq!(
        (gpa["shared"].as_bool(), gpa["indices"]["pml4"].as_u64()),
        (Some(false), Some(256))
    );
    for id in ["0x9110000300000016", "0x1110000300000016"] {
        assert_eq!(
            json(&["decode", "field", id, "--json"])["name"],
            "CONFIG_FLAGS"
        );
    }
    let entry = json(&["decode", "sept", "0x8000000100400081", "--json"]);
    assert_eq!(entry["fields"]["hpa"].as_u64(), Some(0x1_0040_0000));
    let seamldr = json(&[
        "decode",
        "status",
        "0x8000000000030000",
        "--from",
        "seamldr",
        "--json",
    ]);
    let module = json(&["decode", "status", "0x8000000300000000", "--json"]);
    assert_eq!(module["name"], "TDX_INTERRUPTED_RESUMABLE");
    assert_ne!(seamldr["name"], module["name"]);
    let leaf = json(&["decode", "leaf", "0x10003", "--json"]);
    assert_eq!(
        (leaf[0]["name"].as_str(), leaf[0]["version"].as_u64()),
        (Some("TDH.MEM.SEPT.ADD"), Some(1))
    );
}

#[test]
fn a_status_without_its_prefix_is_recognised() {
    let output = tdx(&["decode", "status", "8000020000000092"]).stdout;
    let text = String::from_utf8(output).unwrap();
    assert!(text.contains("0x8000020000000092"), "{text}");
}

/// Leaves that import a TD set FATAL in the status of what went wrong (src/vmm_dispatcher/migration_api_calls of the module).
#[test]
fn a_status_that_a_leaf_made_fatal_keeps_its_name() {
    for (rax, name, operand) in [
        (
            "0xe000010000000062",
            "TDX_OPERAND_INVALID",
            Some("MIG_BUFF_LIST_ENTRY"),
        ),
        ("0x2000000000000000", "TDX_SUCCESS", None),
    ] {
        let status = json(&["decode", "status", rax, "--json"]);
        assert_eq!(status["name"], name);
        assert_eq!(status["operand"].as_str(), operand);
        for command in [&["decode", "status", rax][..], &["explain", rax]] {
            let output = tdx(command).stdout;
            let text = String::from_utf8(output).unwrap();
            assert!(text.contains(name) && text.contains("FATAL"), "{text}");
        }
    }
    let output = tdx(&["decode", "status", "0x6000000200000000"]).stdout;
    let text = String::from_utf8(output).unwrap();
    assert!(
        text.contains("TDX_NON_RECOVERABLE_TD") && !text.contains("bit 61"),
        "{text}"
    );
}

/// Intel's tables say which modules have a status.
#[test]
fn statuses_that_only_newer_modules_have_are_marked_in_a_leaf() {
    let modules = ["1.5.01", "1.5.34", "2.0.18"];
    let tables = modules.map(|module| {
        let path = data(&format!("facts/tdx-module-{module}/status_codes.json"));
        let rows: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let names = rows.iter().map(|row| row["name"].as_str().unwrap());
        names.map(str::to_owned).collect::<Vec<_>>()
    });
    let output = tdx(&["explain", "TDH.MEM.PAGE.ADD"]).stdout;
    let text = String::from_utf8(output).unwrap();
    let mut marked = 0;
    for name in [
        "OPERAND_BUSY",
        "MISSING_PAMT_PAGE_PAIR",
        "INCOMPATIBLE_MRTD_CONTEXT",
    ] {
        let full = format!("TDX_{name}");
        let having = modules.iter().zip(&tables);
        let having = having.filter(|(_, table)| table.contains(&full));
        let having: Vec<&str> = having.map(|(module, _)| *module).collect();
        if having.len() == modules.len() {
            assert!(text.contains(&format!(" {name}, ")), "{text}");
        } else {
            marked += 1;
            assert!(
                text.contains(&format!(" {name} ({})", having.join(", "))),
                "{text}"
            );
        }
    }
    assert!((1..3).contains(&marked), "{marked}");
}

#[test]
fn explain_finds_names_in_every_spelling_and_suggests_others() {
    for name in ["TDH.MEM.PAGE.AUG", "tdh_mem_page_aug", "tdh.mem.page.aug"] {
        assert_eq!(json(&["explain", name, "--json"])[0]["number"], 6, "{name}");
    }
    assert_eq!(
        json(&["explain", "OPERAND_BUSY", "--json"]),
        json(&["explain", "TDX_OPERAND_BUSY", "--json"])
    );
    assert!(fails(&["explain", "TDH.MEM.PAGE.AUGG"]).contains("TDH.MEM.PAGE.AUG"));
    assert!(fails(&["explain", "qqqqqqqq"]).contains("nothing is known"));
    // A status that does not exist has the class and code of a field, but is no id of one.
    assert!(fails(&["explain", "0xC000020400000000"]).contains("nothing is known"));
}

#[test]
fn completions_and_manual_know_every_subcommand() {
    let manual = tdx(&["man"]).stdout;
    let manual = String::from_utf8(manual).unwrap();
    let bash = String::from_utf8(tdx(&["completions", "bash"]).stdout).unwrap();
    for subcommand in [
        "run", "measure", "replay", "list", "explain", "decode", "spec",
    ] {
        assert!(bash.contains(subcommand), "bash: {subcommand}");
        assert!(
            manual.contains(&format!("tdx\\-{subcommand}")),
            "man: {subcommand}"
        );
    }
    assert!(!tdx(&["completions", "no-such-shell"]).status.success());
}

#[test]
fn a_specification_is_checked_with_places_and_advice() {
    assert_eq!(
        json(&["spec", "check", "--json"])["mistakes"],
        serde_json::json!([])
    );

    let folder = std::env::temp_dir().join(format!("spec-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("enums")).unwrap();
    let broken = "kind: enum\nname: Colour\nwidth: 8\nshade: 3\ndoc: A colour.\ncite: { id: nowhere }\nvalues:\n  - { name: RED, value: 1 }\n";
    std::fs::write(folder.join("enums/Colour.yaml"), broken).unwrap();
    for (file, text, expected) in [
        ("Empty", &b""[..], "expected a mapping"),
        ("Tab", b"kind: enum\n\tname: Tab\n", "indent with spaces"),
        (
            "Latin",
            b"kind: enum\ndoc: caf\xe9\n",
            "Latin.yaml:2: this is not UTF-8",
        ),
    ] {
        let path = folder.join(format!("enums/{file}.yaml"));
        std::fs::write(&path, text).unwrap();
        let output = tdx(&["spec", "check", folder.to_str().unwrap()]);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(said.contains(expected), "{file}: {said}");
    }
    let output = tdx(&["spec", "check", folder.to_str().unwrap(), "--json"]);
    let person = tdx(&["spec", "check", folder.to_str().unwrap()]);
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(!output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mistakes = report["mistakes"].as_array().unwrap();
    let shade = mistakes
        .iter()
        .find(|it| it["message"].as_str().unwrap().contains("shade"));
    assert_eq!(
        shade.map(|it| (it["file"].as_str(), it["line"].as_u64())),
        Some((Some("enums/Colour.yaml"), Some(4)))
    );
    let text = String::from_utf8(person.stdout).unwrap();
    assert!(text.contains("Colour.yaml:4:"), "{text}");
}

#[test]
fn bad_input_gives_one_line_and_a_failure() {
    let cases: [&[&str]; 7] = [
        &["decode", "status", "0xg"],
        &["decode", "leaf", "99999999999999999999999"],
        &["decode", "tdreport", "/nonexistent"],
        &["decode", "tdreport", "/dev/null"],
        &["decode", "log", "/nonexistent"],
        &["list", "leaves", "--module", "9.9.99"],
        &["explain", ""],
    ];
    for arguments in cases {
        let message = fails(arguments);
        assert_eq!(
            message.trim_end().lines().count(),
            1,
            "{arguments:?}: {message}"
        );
        assert!(message.starts_with("tdx: "), "{arguments:?}: {message}");
    }
}
