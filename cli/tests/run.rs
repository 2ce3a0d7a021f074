//! `tdx run`: the boot of a real guest, end to end, and what it does with bad input.

mod command;

use command::complaint;
use command::file;
use command::json;
use command::repository;
use command::tdx;

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
