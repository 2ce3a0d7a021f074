//! The emulated module against recorded answers of Intel's module code: every register of every call.

use std::path::Path;
use std::path::PathBuf;

use tdx_cli::replay::replay;

/// A folder of recordings: `vectors`, or others whose sequences begin with the setups of `vectors`.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data")
        .join(name)
}

fn vectors() -> PathBuf {
    folder("vectors")
}

/// Replays a file that has this many calls and checks; fewer would mean that some were skipped.
#[track_caller]
fn all_as_recorded(in_folder: &str, name: &str, calls: u64, checks: u64) {
    let setups = vectors().join("setups.jsonl.gz");
    let outcome =
        replay(&folder(in_folder).join(name), Some(&setups), 3).expect("the recording is readable");
    assert_eq!((outcome.calls, outcome.checks), (calls, checks));
    assert_eq!(outcome.matched + outcome.mismatched, outcome.calls);
    assert!(outcome.is_clean(), "{name}: {:#x?}", outcome.mismatches);
}

macro_rules! recordings {
    ($folder:literal $every:ident: $($test:ident $calls:literal $checks:literal)*) => {
        $(#[test]
        fn $test() {
            all_as_recorded($folder, concat!(stringify!($test), ".jsonl.gz"), $calls, $checks);
        })*

        #[test]
        fn $every() {
            let mut tested = vec![$(concat!(stringify!($test), ".jsonl.gz").to_owned()),*];
            let mut present: Vec<String> = std::fs::read_dir(folder($folder))
                .expect("the recordings are there")
                .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
                .filter(|name| name.ends_with(".gz"))
                .collect();
            tested.sort();
            present.sort();
            assert_eq!(tested, present);
        }
    };
}

recordings! {
    "vectors" every_recording_has_a_test:
    busy 1148 1020
    economical 5370 0
    errors 5143 0
    guest 8533 0
    l2 208 0
    lifecycle 3179 0
    lifecycle_2pkg 903 0
    metadata 11263 0
    migration 832 92
    random_build 12186 0
    random_intr 4653 0
    random_long 5864 0
    random_meta 5316 0
    random_run 23821 0
    random_two 10282 0
    servtd 3793 2
    setups 2056 2
    sys 1424 0
}

recordings! {
    "varied" every_varied_recording_has_a_test:
    varied_guest 4138 0
    varied_memory 4361 138
    varied_metadata 4065 0
    varied_migration 3035 0
    varied_random 6499 198
    varied_sys 3001 0
    varied_system 194 4
}

recordings! {
    "sequences" every_recorded_sequence_has_a_test:
    host_build 2000 64
    host_guest 1782 87
    host_journeys 974 413
    host_l2 2405 112
    host_memory 2007 84
    host_migration 2405 931
    host_servtd 2003 154
    host_teardown 1601 48
    sept_sweep 23249 1044
    sys_config 1257 0
}

/// A replay that could not fail would prove nothing: one changed bit of a recorded register is a mismatch.
#[test]
fn a_changed_recording_does_not_match() {
    let directory = std::env::temp_dir().join(format!("tdx-replay-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a temporary directory");
    let file = directory.join("changed.jsonl");
    let mut text = Vec::new();
    let input = std::fs::File::open(vectors().join("lifecycle_2pkg.jsonl.gz")).expect("there");
    let mut reader = tdx_cli::input::decompress(std::io::BufReader::new(input)).expect("gzip");
    std::io::Read::read_to_end(&mut reader, &mut text).expect("readable");
    let text = String::from_utf8(text).expect("text");
    let changed = text.replacen("\"out\":{\"rax\":\"0x0\"}", "\"out\":{\"rax\":\"0x1\"}", 1);
    assert_ne!(changed, text);
    std::fs::write(&file, changed).expect("writable");
    let outcome = replay(&file, None, 3).expect("the recording is readable");
    std::fs::remove_dir_all(&directory).expect("removable");
    assert_eq!((outcome.mismatched, outcome.calls), (1, 903));
}
