//! `tdx spec crosscheck` on the sources of published crates.

use std::path::PathBuf;
use std::process::Command;
use std::process::Output;

use serde_json::Value;

/// The folder of a crate that Cargo has unpacked.
fn sources(name: &str) -> PathBuf {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(metadata.status.success(), "{metadata:?}");
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let package = packages.iter().find(|package| package["name"] == name);
    let manifest = package.expect("the package")["manifest_path"].as_str();
    let mut path = PathBuf::from(manifest.expect("a path"));
    path.set_file_name("src");
    path
}

fn crosscheck(path: &PathBuf) -> (Output, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_tdx"))
        .args(["spec", "crosscheck", "--json"])
        .arg(path)
        .output()
        .expect("tdx runs");
    let reports = serde_json::from_slice(&output.stdout).expect("JSON");
    (output, reports)
}

/// Name and kind of every difference.
fn differences(reports: &Value) -> Vec<(&str, &str)> {
    let reports = reports.as_array().expect("reports").iter();
    let findings = reports.flat_map(|report| report["findings"].as_array().expect("findings"));
    findings
        .map(|finding| {
            (
                finding["name"].as_str().expect("a name"),
                finding["kind"].as_str().expect("a kind"),
            )
        })
        .collect()
}

#[test]
fn tdx_tdcall_has_invvpid_where_others_have_invgla() {
    let (output, reports) = crosscheck(&sources("tdx-tdcall"));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(reports[0]["compared"], 29);
    let found = differences(&reports);
    assert!(
        found.contains(&("TDCALL_VP_INVVPID", "contested")),
        "{found:?}"
    );
    let renamed = found.iter().filter(|(_, kind)| *kind == "name").count();
    assert_eq!((found.len(), renamed), (13, 12), "{found:?}");
}

#[test]
fn tdx_guest_has_other_field_ids_and_two_more_sub_functions() {
    let (output, reports) = crosscheck(&sources("tdx-guest"));
    assert!(!output.status.success());
    let found = differences(&reports);
    let of = |wanted: &str| -> Vec<&str> {
        let found = found.iter().filter(|(_, kind)| *kind == wanted);
        found.map(|(name, _)| *name).collect()
    };
    assert_eq!(of("bit63"), ["CONFIG_FLAGS", "TD_CTLS"]);
    assert_eq!(of("form"), ["NOTIFY_ENABLES", "TOPOLOGY_ENUM_CONFIGURED"]);
    assert_eq!(of("contested"), ["TdcallNum::VpInvgla"]);
    assert_eq!(
        of("unknown"),
        ["TdVmcallNum::Wbinvd", "TdVmcallNum::PConfig"]
    );
    assert_eq!(of("value"), [""; 0]);
}

#[test]
fn what_is_no_source_is_refused() {
    for path in ["/nonexistent/tdx.h", env!("CARGO_MANIFEST_PATH")] {
        let output = Command::new(env!("CARGO_BIN_EXE_tdx"))
            .args(["spec", "crosscheck", path])
            .output()
            .expect("tdx runs");
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
