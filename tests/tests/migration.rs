//! Migration where the recordings do not go: interrupted between any two entries or pages, spoiled on the way, aborted
//! by token. The recordings are changed and replayed; what is not changed must still come out as recorded.
#![expect(
    clippy::std_instead_of_core,
    reason = "a test binary: it has std, and a panic is how it fails"
)]

use std::io::BufReader;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use serde_json::Value;
use serde_json::json;
use tdx_abi::OpState;
use tdx_abi::OperandId;
use tdx_abi::StatusCode;
use tdx_cli::replay::Difference;
use tdx_cli::replay::Outcome;
use tdx_cli::replay::replay_on;
use tdx_emulator::Module;

/// Leaves that work page by page through a list of pages.
const STATE_LEAVES: [&str; 5] = [
    "TDH.EXPORT.STATE.IMMUTABLE",
    "TDH.EXPORT.STATE.VP",
    "TDH.IMPORT.STATE.IMMUTABLE",
    "TDH.IMPORT.STATE.TD",
    "TDH.IMPORT.STATE.VP",
];
/// Leaves that work entry by entry through a GPA list.
const LIST_LEAVES: [&str; 4] = [
    "TDH.EXPORT.BLOCKW",
    "TDH.EXPORT.MEM",
    "TDH.EXPORT.RESTORE",
    "TDH.IMPORT.MEM",
];
/// IA32_INTR_PENDING, and an interrupt in it that the host cannot mask.
const INTERRUPTS_PENDING: &str = "0x9a";
const NMI: u64 = 2;
/// R10: take up an interrupted call.
const RESUME: u64 = 1 << 63;
/// RAX: the TD is lost.
const FATAL: u64 = 1 << 61;
/// TDR of the source and of the destination in the recordings, and OP_STATE's field.
const SOURCE: u64 = 0x1_0000_0000;
const DESTINATION: u64 = 0x1_0200_0000;
const OP_STATE: u64 = 0x9010_0002_0000_0004;
/// A free page of shared memory, described as a buffer for an MBMD.
const MBMD: u64 = 0x0800_0001_a012_0000;

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/vectors")
}

fn lines(name: &str) -> Vec<Value> {
    let file = std::fs::File::open(vectors().join(name)).expect("the recordings are there");
    let mut text = String::new();
    tdx_cli::input::decompress(BufReader::new(file))
        .and_then(|mut reader| reader.read_to_string(&mut text))
        .expect("the recording is readable");
    let parsed = text.lines().map(serde_json::from_str);
    parsed.collect::<Result<_, _>>().expect("JSON lines")
}

/// The header of the migration recording, and the sequence of this name.
fn sequence(name: &str) -> (Value, Vec<Value>) {
    let all = lines("migration.jsonl.gz");
    let start = all.iter().position(|line| line["seq"] == name);
    let start = start.expect("the sequence is there");
    let steps = all[start + 1..]
        .iter()
        .take_while(|line| line.get("seq").is_none());
    let sequence = std::iter::once(&all[start]).chain(steps).cloned();
    (all[0].clone(), sequence.collect())
}

fn replayed(test: &str, lines: &[Value]) -> Outcome {
    replayed_on(Module::V1_5_01, test, lines)
}

fn replayed_on(module: Module, test: &str, lines: &[Value]) -> Outcome {
    let folder = format!("tdx-{test}-{}-{}", module.name(), std::process::id());
    let directory = std::env::temp_dir().join(folder);
    std::fs::create_dir_all(&directory).expect("a temporary directory");
    let file = directory.join("changed.jsonl");
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    std::fs::write(&file, text.join("\n")).expect("writable");
    let setups = vectors().join("setups.jsonl.gz");
    let outcome = replay_on(module, &file, Some(&setups), usize::MAX);
    std::fs::remove_dir_all(&directory).expect("removable");
    outcome.expect("the recording is readable")
}

#[track_caller]
fn assert_clean(outcome: &Outcome) {
    assert!(outcome.is_clean(), "{:#x?}", outcome.mismatches);
}

fn number(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or("0x0");
    u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("hexadecimal")
}

fn hex(number: u64) -> Value {
    json!(format!("{number:#x}"))
}

fn call(name: &str, rax: u64, inputs: &[(&str, u64)], outputs: &[(&str, u64)]) -> Value {
    let object = |registers: &[(&str, u64)]| -> serde_json::Map<String, Value> {
        registers
            .iter()
            .map(|&(name, value)| (name.to_owned(), hex(value)))
            .collect()
    };
    let mut inputs = object(inputs);
    inputs.insert("rax".to_owned(), hex(rax));
    json!({ "fn": name, "lp": 0, "in": inputs, "out": object(outputs) })
}

fn op_state_is(tdr: u64, state: OpState) -> Value {
    call(
        "TDH.MNG.RD",
        0xb,
        &[("rcx", tdr), ("rdx", OP_STATE)],
        &[("rax", 0), ("r8", state as u64)],
    )
}

/// The call interrupted after its first entry or page and resumed, if it has more than one and succeeds.
fn interrupted(step: &Value) -> Option<[Value; 4]> {
    let name = step["fn"].as_str()?;
    let is_list = LIST_LEAVES.contains(&name);
    if !is_list && !STATE_LEAVES.contains(&name) || number(&step["out"]["rax"]) != 0 {
        return None;
    }
    let info = if is_list { "rcx" } else { "r9" };
    if number(&step["in"][info]) >> 55 == 0 {
        return None;
    }
    let mut first = step.clone();
    let mut second = step.clone();
    first["out"] = json!({ "rax": hex(StatusCode::INTERRUPTED_RESUMABLE.value()) });
    if is_list {
        let next = number(&step["in"]["rcx"]) + (1 << 3);
        first["out"]["rcx"] = hex(next);
        second["in"]["rcx"] = hex(next);
    } else if name.starts_with("TDH.EXPORT") {
        first["out"]["rdx"] = json!("0x1");
    }
    if !matches!(name, "TDH.EXPORT.BLOCKW" | "TDH.EXPORT.RESTORE") {
        second["in"]["r10"] = hex(number(&step["in"]["r10"]) | RESUME);
    }
    let lp = &step["lp"];
    let pending = |value: u64| json!({ "msr": INTERRUPTS_PENDING, "lp": lp, "value": value });
    Some([pending(NMI), first, pending(0), second])
}

fn all_interrupted(name: &str, at_least: usize) {
    let mut changed = Vec::new();
    let mut count = 0;
    for line in lines(name) {
        match interrupted(&line) {
            Some(steps) => {
                count += 1;
                changed.extend(steps);
            }
            None => changed.push(line),
        }
    }
    assert!(count >= at_least, "{count} calls are interrupted");
    assert_clean(&replayed(name, &changed));
}

#[test]
fn interrupted_calls_go_on_where_they_stopped() {
    all_interrupted("migration.jsonl.gz", 10);
}

#[test]
fn interrupted_exports_and_imports_of_immutable_state_go_on() {
    all_interrupted("setups.jsonl.gz", 4);
}

/// The sequence up to the source's start token: source in POST_EXPORT, destination about to take the token.
fn up_to_the_start_token() -> (Value, Vec<Value>) {
    let (header, mut steps) = sequence("migrate_epochs");
    let token = steps
        .iter()
        .rposition(|step| step["fn"] == "TDH.IMPORT.TRACK");
    steps.truncate(token.expect("there is a start token"));
    (header, steps)
}

fn aborted_by_token(spoil: bool) -> Outcome {
    let (header, steps) = up_to_the_start_token();
    let mut lines = vec![header];
    lines.extend(steps);
    let mbmd = [("r8", MBMD), ("r10", 0)];
    let import_abort = [&[("rcx", DESTINATION)], mbmd.as_slice()].concat();
    lines.push(call(
        "TDH.IMPORT.ABORT",
        0x50,
        &import_abort,
        &[("rax", FATAL)],
    ));
    if spoil {
        lines.push(json!({ "fill": "0x1a0120020", "byte": 0, "len": 16 }));
    }
    let export_abort = [&[("rcx", SOURCE)], mbmd.as_slice()].concat();
    let (status, state) = if spoil {
        (StatusCode::INCORRECT_MBMD_MAC.value(), OpState::PostExport)
    } else {
        (0, OpState::Runnable)
    };
    lines.push(call(
        "TDH.EXPORT.ABORT",
        0x40,
        &export_abort,
        &[("rax", status)],
    ));
    lines.push(op_state_is(SOURCE, state));
    replayed(if spoil { "spoiled-token" } else { "token" }, &lines)
}

#[test]
fn the_destinations_abort_token_lets_the_source_run_again() {
    assert_clean(&aborted_by_token(false));
}

#[test]
fn a_spoiled_abort_token_does_not() {
    assert_clean(&aborted_by_token(true));
}

/// A bit that flips between the two platforms costs the import: page, list entry, MAC or MBMD.
#[test]
fn spoiled_memory_is_not_imported() {
    let (header, steps) = sequence("migrate_epochs");
    let import = steps
        .iter()
        .position(|step| step["fn"] == "TDH.IMPORT.MEM" && number(&step["out"]["rax"]) == 0);
    let import = import.expect("memory is imported");
    let list = number(&steps[import]["in"]["rcx"]);
    let page_mac = StatusCode::INVALID_PAGE_MAC.value()
        | u64::from(OperandId::GPA_LIST_ENTRY.number())
        | FATAL;
    let mbmd_mac = StatusCode::INCORRECT_MBMD_MAC.value();
    let macs = number(&steps[import]["in"]["r11"]);
    let mbmd = number(&steps[import]["in"]["r8"]) & ((1 << 52) - 1);
    for (what, address, status) in [
        ("page", 0x1_a014_0123, page_mac),
        ("mac", macs + 5, page_mac),
        ("mbmd", mbmd + 32, mbmd_mac),
    ] {
        let mut lines = vec![header.clone()];
        lines.extend_from_slice(&steps[..import]);
        // Bytes of ciphertext and MACs that happen to be this one would prove nothing; the MACs are fixed.
        lines.push(json!({ "fill": hex(address), "byte": 0x5a, "len": 1 }));
        let mut refused = steps[import].clone();
        refused["out"] = json!({ "rax": hex(status), "rcx": hex(list) });
        lines.push(refused);
        if status & FATAL != 0 {
            lines.push(op_state_is(DESTINATION, OpState::FailedImport));
        }
        assert_clean(&replayed(what, &lines));
    }
}

/// Version 1 of the leaves that take a GPA list returns in R8 what 1.5.01 counted in RAX (`tdh_export_blockw.c`,
/// `tdh_export_mem.c`, `tdh_export_restore.c`, `tdh_import_mem.c`).
#[test]
fn version_1_counts_failed_entries_in_r8() {
    const VERSION_1: u64 = 1 << 16;
    let (mut all, mut with_errors) = (0, 0);
    let changed: Vec<Value> = lines("migration.jsonl.gz")
        .into_iter()
        .map(|mut line| {
            let rax = number(&line["out"]["rax"]);
            let is_list = line["fn"]
                .as_str()
                .is_some_and(|name| LIST_LEAVES.contains(&name));
            if is_list && rax >> 32 == 0 {
                all += 1;
                with_errors += u32::from(rax != 0);
                line["in"]["rax"] = hex(number(&line["in"]["rax"]) | VERSION_1);
                line["out"]["rax"] = hex(0);
                line["out"]["r8"] = hex(rax);
            }
            line
        })
        .collect();
    assert!(all >= 20 && with_errors >= 5, "{with_errors} of {all}");
    for module in [Module::V1_5_34, Module::V2_0_18] {
        let outcome = replayed_on(module, "version-1", &changed);
        let wrong: Vec<_> = outcome
            .mismatches
            .iter()
            .filter(|mismatch| LIST_LEAVES.contains(&mismatch.name.as_str()))
            // What fails tells more of states in these modules.
            .filter(|mismatch| {
                matches!(&mismatch.difference, Difference::Registers { recorded, .. } if recorded.rax == 0)
            })
            .collect();
        assert!(wrong.is_empty(), "{module:?}: {wrong:#x?}");
    }
}
