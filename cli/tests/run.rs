//! `tdx run`: the boot of a real guest, end to end, and what it does with bad input.

#![expect(
    clippy::std_instead_of_alloc,
    clippy::unwrap_used,
    reason = "a test binary: it has std, and a panic is how it fails"
)]

mod command;

use std::collections::BTreeSet;

use command::complaint;
use command::file;
use command::json;
use command::repository;
use command::tdx;
use tdx_cli::host::image;
use tdx_cli::run::PageSize;
use tdx_cli::run::replay;
use tdx_cli::run::report::Report;
use tdx_cli::trace::Event;
use tdx_cli::trace::Trace;

#[track_caller]
fn holds(report: &serde_json::Value) {
    assert_eq!(
        report["mirror_equals_sept"], true,
        "{}",
        report["difference"]
    );
    assert_eq!(report["pages_returned"], true, "{}", report["missing"]);
    assert_eq!(report["unexpected_count"], 0, "{}", report["unexpected"]);
}

/// Expected numbers: what the recorder of the trace counted.
#[test]
fn the_boot_in_4k_pages() {
    let report = json(["run", "--json"]);
    holds(&report);
    assert_eq!(report["events"], 50_715);
    assert_eq!(report["faults"]["private, mapped 4 KiB"], 50_648);
    assert_eq!(report["faults"]["shared, mapped 4 KiB"], 66);
    assert_eq!(report["seamcalls"]["TDH.MEM.PAGE.AUG"], 50_648);
    // The conversion of 64 MiB, every page of which was mapped, in four steps with one TRACK each.
    assert_eq!(report["seamcalls"]["TDH.MEM.PAGE.REMOVE"], 16_384);
    assert_eq!(report["seamcalls"]["TDH.MEM.TRACK"], 4);
    assert_eq!(report["zero_pages_verified"], 50_648);
    assert_eq!(report["stamps_written"], 50_628 + 66);
    // 20 pages of the built-in image; nothing was touched there.
    assert_eq!(report["pages"]["4k"], 50_648 - 16_384 + 66 + 20);
}

#[test]
fn the_boot_in_2m_pages_from_real_firmware() {
    let firmware = repository("tests/data/firmware/OVMF.fd.gz");
    let arguments = [
        "run",
        "--json",
        "--page-size",
        "2m",
        "--firmware",
        firmware.to_str().unwrap(),
    ];
    let report = json(arguments);
    holds(&report);
    let facts = std::fs::read(repository("tests/data/firmware/ovmf-bookworm.json")).unwrap();
    let facts: serde_json::Value = serde_json::from_slice(&facts).unwrap();
    assert_eq!(report["mrtd"], facts[0]["mrtd_page_order"]);
    assert!(report["pages"]["2m"].as_u64().unwrap() > 60);
    let augmented = report["seamcalls"]["TDH.MEM.PAGE.AUG"].as_u64().unwrap();
    assert!(augmented < 2000, "one call maps 512 pages: {augmented}");
}

/// Discards, conversions in both directions and re-touches on one, two and three vCPUs.
#[test]
fn a_small_trace_that_does_everything() {
    let trace = "# gpatrace v1 name=small ram=0x800000 page=4096\n\
        T 0 200000 w p v0 rw-\nT 0 201000 w p v1 rw-\nT 0 3ff000 r p v0 r--\n\
        C 1 200000 1000\nT 1 200000 w s v1 -w-\nT 1 201000 w p v0 rw-\n\
        D 2 201000 1000\nT 3 201000 w p v1 rw-\nT 3 200000 w p v0 rw-\n\
        D 4 0 800000\nT 5 200000 w p v0 rwx\nT 5 400000 x p v0 --x\nM 6 PHASE end\n";
    let path = file("small.trace", trace.as_bytes());
    for size in ["4k", "2m"] {
        for vcpus in ["1", "2", "3"] {
            let path = path.to_str().unwrap();
            let report = json(["run", path, "--page-size", size, "--vcpus", vcpus, "--json"]);
            holds(&report);
            assert_eq!(report["events"], 12);
            assert_eq!(report["trace"], "small");
            assert_eq!(report["stamps_written"], 7);
        }
    }
    let shown = String::from_utf8(tdx(["run", path.to_str().unwrap()]).stdout).unwrap();
    for words in [
        "shared PT",
        "mirrored PT",
        "private PT",
        "mirror equals S-EPT",
        "every page returned",
    ] {
        assert!(shown.contains(words), "{words}");
    }
}

/// Each 2 MiB range of the host has its pair while 4 KiB pages of it are in use: PAMT.ADD brings it or a split does,
/// PAMT.REMOVE takes it back or a promotion does, and after teardown none is left.
#[test]
fn a_small_trace_with_dynamic_pamt() {
    let trace = "# gpatrace v1 name=small ram=0x1000000 page=4096\n\
        T 0 200000 w p v0 rw-\nT 0 201000 w p v1 rw-\nT 0 400000 w p v0 r--\nT 0 800000 w p v0 r--\n\
        C 1 200000 1000\nT 1 200000 w s v1 -w-\nT 1 201000 w p v0 rw-\n\
        D 2 401000 1000\nT 3 401000 w p v1 rw-\nT 3 200000 w p v0 rw-\nM 6 PHASE end\n";
    let path = file("dynamic.trace", trace.as_bytes());
    for size in ["4k", "2m"] {
        let path = path.to_str().unwrap();
        let options = ["--module", "2.0.18", "--dynamic-pamt", "--json"];
        let report = json([&["run", path, "--page-size", size][..], &options].concat());
        holds(&report);
        assert_eq!(report["stamps_written"], 8);
        let calls = |leaf| report["seamcalls"][leaf].as_u64().unwrap_or(0);
        let added = calls("TDH.PHYMEM.PAMT.ADD") + calls("TDH.MEM.PAGE.DEMOTE");
        assert!(calls("TDH.PHYMEM.PAMT.ADD") > 0);
        assert_eq!(
            calls("TDH.MEM.PAGE.DEMOTE"),
            if size == "2m" { 2 } else { 0 }
        );
        assert_eq!(
            added,
            calls("TDH.PHYMEM.PAMT.REMOVE") + calls("TDH.MEM.PAGE.PROMOTE")
        );
        let pamt = |what| report["pamt"][what].as_u64().unwrap();
        // A few ranges are in use, of the thousands that a PAMT without Dynamic PAMT has room for.
        assert!(
            (1..16).contains(&(pamt("pairs") / 8192)),
            "{}",
            report["pamt"]
        );
        assert!(20 * (pamt("reserved") + pamt("pairs")) < pamt("without_dynamic_pamt"));
    }
    let shown = tdx([
        "run",
        path.to_str().unwrap(),
        "--module",
        "2.0.18",
        "--dynamic-pamt",
    ]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("without Dynamic PAMT"), "{shown}");
    let line = complaint(["run", path.to_str().unwrap(), "--dynamic-pamt"]);
    assert!(line.contains("the module has no Dynamic PAMT"), "{line}");
    assert!(!tdx(["run", "--module", "1.4"]).status.success());
}

#[test]
fn bad_traces_are_one_line() {
    let path = |name, content: &[u8]| file(name, content).to_str().unwrap().to_owned();
    let line = complaint(["run", "/nowhere/x.trace"]);
    assert_eq!(
        line,
        "tdx: cannot read /nowhere/x.trace: No such file or directory (os error 2)"
    );
    let packed = std::fs::read(repository("cli/data/boot-shell-1g.trace.gz")).unwrap();
    for (name, content, what) in [
        ("empty", &b""[..], "it has no events"),
        ("garbage", &[0xfe; 5000][..], "line 1"),
        ("text", b"hello\n", "line 1: unknown event \"hello\""),
        ("half.gz", &packed[..packed.len() / 2], "cannot read line"),
        (
            "outside",
            b"# gpatrace v1 ram=0x1000\nT 0 1000 w p v0 rwx\n",
            "line 2: 0x1000 + 0x1000 is not",
        ),
    ] {
        let line = complaint(["run".to_owned(), path(name, content)]);
        assert!(line.contains(what), "{name}: {line}");
    }
    let line = complaint(["run", "--firmware", &path("firmware", b"no firmware")]);
    assert!(line.contains("not a usable TDVF image"), "{line}");
    assert!(!tdx(["run", "--vcpus", "0"]).status.success());
    assert!(!tdx(["run", "--page-size", "3k"]).status.success());
}

const PAGE: u64 = 4096;

/// What a trace asks for, counted page by page with nothing of the MMU.
struct Counted {
    touched: u64,
    /// Private pages that the guest or the host took away while they were mapped.
    removed: u64,
    /// Discards, those counted together that come in one element of the balloon's queue.
    batches: u64,
}

fn count(trace: &Trace) -> Counted {
    let (mut mapped, mut counted) = (BTreeSet::new(), [0; 3]);
    let mut in_batch = 0;
    for event in &trace.events {
        let is_discard = matches!(event, Event::Discard { .. });
        counted[2] += u64::from(is_discard && in_batch % 256 == 0);
        in_batch = if is_discard { in_batch + 1 } else { 0 };
        match *event {
            Event::Touch {
                gpa, shared: false, ..
            } => {
                assert!(mapped.insert(gpa));
                counted[0] += 1;
            }
            Event::Touch { .. } => {}
            Event::Convert { gpa, len } | Event::Discard { gpa, len } => {
                let pages = (gpa..gpa + len).step_by(PAGE as usize);
                counted[1] += pages.filter(|page| mapped.remove(page)).count() as u64;
            }
        }
    }
    let [touched, removed, batches] = counted;
    Counted {
        touched,
        removed,
        batches,
    }
}

fn balloon(events: usize) -> Trace {
    let path = repository("tests/data/traces/balloon-1g.trace.gz");
    let mut trace = tdx_cli::run::load(Some(&path)).unwrap();
    trace.events.truncate(events);
    trace
}

fn replayed(trace: &Trace, size: PageSize) -> Report {
    let (report, _) = replay(trace, &image::builtin(), size, 2).unwrap();
    report.verdict().unwrap();
    assert!(report.mirror_equals_sept && report.pages_returned);
    report
}

/// Every invariant, in both sizes of pages, and what large pages and batching save against KVM.
fn balloon_costs(events: usize) {
    let trace = balloon(events);
    let counted = count(&trace);
    let small = replayed(&trace, PageSize::Small);
    let large = replayed(&trace, PageSize::Large);
    for report in [&small, &large] {
        assert_eq!(report.kvm.kicks, counted.removed);
        assert_eq!(report.kvm.faults, counted.touched);
        assert_eq!(
            report.kvm.seamcalls,
            counted.touched + 4 * counted.removed + report.kvm.leaves.get("TDH.MEM.SEPT.ADD")
        );
    }
    let leaf = |name| small.event_leaves.get(name);
    assert_eq!(leaf("TDH.MEM.PAGE.AUG"), counted.touched);
    assert_eq!(leaf("TDH.MEM.PAGE.REMOVE"), counted.removed);
    assert_eq!(leaf("TDH.MEM.RANGE.BLOCK"), counted.removed);
    // One for all that the host takes back at once; a conversion of 64 MiB goes in four steps.
    assert!((1..=counted.batches + 4).contains(&leaf("TDH.MEM.TRACK")));
    // The other vCPU is inside at every conversion, both at every discard.
    assert_eq!(small.event_kicks, leaf("TDH.MEM.TRACK"));
    assert!(small.event_seamcalls < small.kvm.seamcalls);
    assert!(large.event_kicks <= 2 * (counted.batches + 4));
    assert!(2 * large.event_seamcalls < small.event_seamcalls);
    assert!(10 * large.event_leaves.get("TDH.MEM.PAGE.AUG") < large.kvm.faults);
}

/// The boot of the guest, and the first of what its balloon gives back.
#[test]
fn the_beginning_of_the_balloon() {
    balloon_costs(56_000);
}

/// All of it: `cargo test --release -p tdx-cli --test run -- --ignored`.
#[test]
#[ignore = "takes minutes without optimization"]
fn the_whole_balloon() {
    balloon_costs(usize::MAX);
    let trace = balloon(usize::MAX);
    assert_eq!(trace.events.len(), 434_315);
    let discards = |event: &&Event| matches!(event, Event::Discard { .. });
    assert_eq!(trace.events.iter().filter(discards).count(), 60_601);
    // As the recorder counted them.
    assert_eq!(count(&trace).removed, 251_752);
}
