//! Runs the bare-metal kernel in Bochs where Bochs is installed, and says so where it is not.

use std::path::Path;
use std::process::Command;
use std::process::Output;

/// Exit status of the runner without Bochs.
const NOT_INSTALLED: i32 = 77;

/// Builds and boots the kernel with `options`; `None` if Bochs is missing.
fn run(options: &[&str]) -> Option<Output> {
    let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernel/run");
    let output = Command::new(runner)
        .args(options)
        .output()
        .expect("the runner is a shell script of this repository");
    if output.status.code() == Some(NOT_INSTALLED) {
        eprintln!(
            "NOT RUN: no CPU emulator has walked the tables: {}",
            text(&output.stderr)
        );
        return None;
    }
    Some(output)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// Number of checks in a verdict such as `bare metal: verdict: passed, 64 checks`.
fn checks(output: &Output) -> Option<u32> {
    let verdict = text(&output.stdout);
    let rest = verdict.strip_prefix("bare metal: verdict: passed, ")?;
    rest.strip_suffix(" checks")?.parse().ok()
}

#[test]
fn the_kernel_passes_and_can_fail() {
    let Some(passed) = run(&[]) else { return };
    assert!(
        passed.status.success(),
        "{}\n{}",
        text(&passed.stdout),
        text(&passed.stderr)
    );
    let all = checks(&passed).expect("a passed run states its checks");
    assert!(
        all >= LEAST_CHECKS,
        "only {all} of at least {LEAST_CHECKS} checks ran"
    );

    for (fault, trace) in FAULTS {
        let failed = run(&[fault]).expect("Bochs was there a moment ago");
        assert_eq!(
            failed.status.code(),
            Some(1),
            "option {fault} went unnoticed: {}",
            text(&failed.stdout)
        );
        let log = text(&failed.stdout);
        let failures: Vec<&str> = log
            .lines()
            .filter_map(|line| line.strip_prefix("FAILED "))
            .collect();
        assert!(
            failures
                .iter()
                .all(|failure| trace.iter().any(|trace| failure.contains(trace))),
            "option {fault} failed in other ways: {failures:?}"
        );
        assert!(!failures.is_empty(), "option {fault} left no trace: {log}");
    }
}

/// Fewer checks than this mean that a part of the kernel's program was skipped.
const LEAST_CHECKS: u32 = 168;

/// Options of the kernel that break something and must therefore fail the run, and the checks that notice.
const FAULTS: [(&str, &[&str]); 4] = [
    (
        "seed-dropped-bit",
        &["the guest writes before it", "the first page is as it was"],
    ),
    ("seed-wrong-page", &["the first page is as it was"]),
    ("seed-wrong-level", &["the first page is as it was"]),
    ("seed-misconfigured", &["panic"]),
];
