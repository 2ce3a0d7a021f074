//! What is fuzzed of this crate: each function takes any bytes and comes back. Not part of the interface.

use std::io;

use crate::decode;
use crate::output::Output;
use crate::replay;
use crate::spec;

/// `tdx decode` of the value that `text` is, as `what` (0 to 7: status of each callee, leaf, field, S-EPT, EPT, GPA of both widths).
pub fn value(what: u8, level: Option<u8>, text: &str) {
    for json in [false, true] {
        let _ = decode::value(what, level, text, json, &mut Output::sink());
    }
}

/// `tdx decode tdreport`.
pub fn tdreport(bytes: &[u8]) {
    for json in [false, true] {
        let _ = decode::report("fuzz", bytes, json, &mut Output::sink());
    }
}

/// `tdx decode log`: what is no explanation comes out as it went in.
pub fn log(bytes: &[u8]) {
    let _ = decode::explain_log(bytes, io::sink(), true);
    let mut through = Vec::new();
    if decode::explain_log(bytes, &mut through, false).is_ok() {
        assert!(through.len() >= bytes.len(), "part of the log is missing");
    }
}

/// Recorded calls.
pub fn recording(bytes: &[u8]) {
    let _ = replay::parse(bytes);
}

/// `tdx spec import` of a file of any kind.
pub fn import(text: &str) {
    for name in [
        "tables.json",
        "tdx_error_codes_defs.h",
        "td_vmcs_fields_lookup.c",
        "op_state_lookup.c",
    ] {
        let _ = spec::import::parse(name, text);
    }
}

/// `tdx spec crosscheck` of a source in C or Rust.
pub fn constants(text: &str) {
    let _ = spec::parse_constants(text);
}
