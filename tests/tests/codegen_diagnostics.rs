//! What is said about mistakes in a specification, word for word; `TDX_BLESS=1` writes the expected texts anew.

mod codegen;

use std::fs;
use std::path::Path;

use codegen::compare;

fn broken() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/codegen/broken")
}

fn reported(case: &str) -> String {
    match tdx_codegen::read(&broken().join(case)) {
        Ok(_) => "no mistake\n".to_owned(),
        Err(error) => format!("{error}\n"),
    }
}

#[test]
fn every_mistake_is_reported_where_it_is() {
    let mut cases: Vec<String> = fs::read_dir(broken())
        .expect("the cases are there")
        .map(|entry| {
            entry
                .expect("readable")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    cases.sort();
    assert_eq!(cases.len(), 15);
    for case in &cases {
        let text = reported(case);
        assert_eq!(text == "no mistake\n", case == "correct", "{case}: {text}");
        compare(&format!("expected/{case}.txt"), &text);
    }
}

#[test]
fn a_missing_key_hides_no_other_mistake_of_the_mapping() {
    let text = reported("missing_key");
    for mistake in [
        "`value` is missing",
        "unknown key `retrie`",
        "`name` is missing",
        "unknown key `mane`",
        "expected a number from 0, found",
        "unknown key `lokc`",
        "`resource` is missing",
        "unknown key `host`",
    ] {
        assert!(text.contains(mistake), "{mistake} is missing:\n{text}");
    }
}

#[test]
fn mistakes_are_reported_all_at_once() {
    let text = reported("many");
    for code in [
        "overlap",
        "unknown-name",
        "unknown-status",
        "unknown-register",
        "unknown-key",
        "bad-name",
        "conflict",
        "out-of-range",
    ] {
        assert!(
            text.contains(&format!("error[{code}]")),
            "{code} is missing:\n{text}"
        );
    }
}

#[test]
fn a_syntax_error_costs_its_own_file_only() {
    let mut sources = tdx_codegen::source::Sources::default();
    sources.add("a.yaml", "kind: sources\nsources: [\n");
    sources.add("b.yaml", "kind: sources\nsources: []\nextra: 1\n");
    let mistakes = tdx_codegen::from_sources(sources).expect_err("two mistakes");
    let text = mistakes.to_string();
    assert!(
        text.contains("error[syntax]")
            && text.contains("unknown key `extra`")
            && text.contains("b.yaml:3:1"),
        "{text}"
    );
}

#[test]
fn a_missing_directory_is_an_error() {
    let error = tdx_codegen::read(&broken().join("nothing")).expect_err("there is none");
    assert!(error.to_string().contains("nothing"), "{error}");
}

/// The loader takes any text: it reports, and never panics.
#[test]
fn damaged_files_are_reported() {
    let sources =
        tdx_codegen::source::Sources::read(Path::new(tdx_spec::DIRECTORY)).expect("readable");
    let texts: Vec<(String, String)> = sources
        .iter()
        .map(|(_, source)| (source.name().to_owned(), source.text().to_owned()))
        .collect();
    let mut random = 0x1234_5678_9abc_def1_u64;
    let mut next = move |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % limit.max(1) as u64) as usize
    };
    let small: Vec<&(String, String)> =
        texts.iter().filter(|(_, text)| text.len() < 6000).collect();
    for _ in 0..150 {
        let (name, text) = small[next(small.len())];
        let mut bytes = text.clone().into_bytes();
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            match next(4) {
                0 => bytes[at] = b' ' + next(90) as u8,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"{}[]:,\"-#&*!|>'%@0x\n"[next(20)]),
                _ => bytes.truncate(at),
            }
            if bytes.is_empty() {
                break;
            }
        }
        let mut damaged = tdx_codegen::source::Sources::default();
        damaged.add(name.clone(), String::from_utf8_lossy(&bytes));
        if let Err(mistakes) = tdx_codegen::from_sources(damaged) {
            assert!(!mistakes.to_string().is_empty());
        }
    }
}
