//! Formatting: it changes the form alone, and a second time nothing.

use std::fs;

use proptest::prelude::*;
use tdx_codegen::fmt::format;
use tdx_codegen::source::Sources;
use tdx_codegen::yaml;

use super::command::complaint;
use super::command::repository;
use super::command::tdx;
use super::folder;

fn texts() -> Vec<(String, String)> {
    let sources = Sources::embedded();
    let texts = sources
        .iter()
        .map(|(_, source)| (source.name().to_owned(), source.text().to_owned()));
    texts.collect()
}

#[test]
fn the_specification_is_formatted_and_says_the_same() {
    for (name, text) in texts() {
        let formatted = format(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(formatted, text, "`tdx spec fmt` formats {name}");
        assert_eq!(yaml::parse(&formatted), yaml::parse(&text), "{name}");
    }
}

#[test]
fn form_is_canonical_and_comments_stay() {
    let text = "# head\n\n\nkind:   'enum'   # what\nlist:\n# before\n-   { a : 1,b: [ x,y ],\n     c: \"plain text\" }\n\n- deep:\n      er: 0x10 # end\n  more: 'it''s'\n-\n  - 1.5.01\n  - '1.5.01'\ntext: one\n  two\nempty:\n# tail\n";
    let expected = "# head\n\nkind: enum # what\nlist:\n  # before\n  - { a: 1, b: [x, y], c: plain text }\n\n  - deep:\n      er: 0x10 # end\n    more: \"it's\"\n  - - \"1.5.01\"\n    - \"1.5.01\"\ntext: one two\nempty:\n# tail\n";
    assert_eq!(format(text).unwrap(), expected);
    assert_eq!(format(expected).unwrap(), expected);
}

#[test]
fn texts_that_would_be_read_as_something_else_keep_their_quotes() {
    for text in [
        "true", "null", "0x10", "1e3", "~", "", " a", "a ", "a: b", "a #b", "a;b", "x, y", "-",
        "\\", "\"", "a\nb", "Yes", "no", "on",
    ] {
        let document = yaml::Value::Text(text.to_owned());
        let quoted = serde_json::to_string(text).unwrap();
        let formatted = format(&format!(
            "a: {quoted}\nb: [{quoted}]\nc: {{ d: {quoted} }}\n"
        ))
        .unwrap();
        let yaml::Value::Map(entries) = yaml::parse(&formatted).unwrap().value else {
            panic!("a mapping")
        };
        assert_eq!(entries[0].1.value, document, "{formatted}");
    }
}

#[test]
fn what_is_not_supported_is_refused() {
    for text in [
        "a: &x 1\nb: *x\n",
        "a: !tag 1\n",
        "--- \na: 1\n",
        "a: [1, # why\n 2]\n",
        "a: [\n",
        "a: \"\n",
        "? a\n: b\n",
    ] {
        assert!(format(text).is_err(), "{text}");
    }
}

#[test]
fn the_command_formats_a_folder() {
    let folder = folder("fmt");
    let file = folder.join("sources.yaml");
    fs::write(&file, "kind:   sources\nsources: [ ]\n").unwrap();
    let path = folder.to_str().unwrap();
    // What is not formatted is named on standard output.
    let checked = tdx(["spec", "fmt", "--check", path]);
    assert!(!checked.status.success());
    assert_eq!(
        String::from_utf8(checked.stdout).unwrap(),
        "sources.yaml: not formatted\n"
    );
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        "kind:   sources\nsources: [ ]\n"
    );
    assert!(tdx(["spec", "fmt", path]).status.success());
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        "kind: sources\nsources: []\n"
    );
    assert!(tdx(["spec", "fmt", "--check", path]).status.success());
    assert!(
        tdx([
            "spec",
            "fmt",
            "--check",
            repository("spec").to_str().unwrap()
        ])
        .status
        .success()
    );
    complaint(["spec", "fmt", "/nowhere"]);
}

/// Changes the form of a file without changing what it says, as far as that can be told without reading YAML: at places outside
/// quotes.
fn perturbed(text: &str, mut random: u64) -> String {
    let mut next = move |limit: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % limit
    };
    let mut out = String::new();
    for line in text.lines() {
        if line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
            continue;
        }
        let mut quoted = false;
        let mut escaped = false;
        let mut depth = 0_u32;
        for c in line.chars() {
            match c {
                '"' if !escaped => quoted = !quoted,
                '[' | '{' if !quoted => depth += 1,
                ']' | '}' if !quoted => depth = depth.saturating_sub(1),
                _ => {}
            }
            escaped = c == '\\' && !escaped;
            out.push(c);
            let breaks = !quoted && depth > 0 && matches!(c, ',' | '{' | '[');
            if breaks && next(4) == 0 {
                out.push_str(if next(3) == 0 {
                    "\n            "
                } else {
                    "   "
                });
            }
        }
        match next(8) {
            0 => out.push_str("   "),
            1 => out.push_str("\n\n"),
            _ => {}
        }
        out.push('\n');
    }
    out
}

/// Plain words in quotes.
fn requoted(text: &str, seed: u64) -> String {
    let mut count = seed;
    let lines = text.lines().map(|line| {
        count = count.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        match line.split_once(": ") {
            Some((key, value))
                if count >> 62 != 0
                    && line.starts_with(|c: char| c.is_ascii_lowercase())
                    && value.starts_with(|c: char| c.is_ascii_alphabetic())
                    && !value.contains(['\'', '"', '#']) =>
            {
                format!("\"{key}\":   '{value}'")
            }
            _ => line.to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn perturbed_files_become_what_they_were(index in any::<prop::sample::Index>(), random in 1_u64.., quotes in any::<bool>()) {
        let texts = texts();
        let small: Vec<_> = texts.iter().filter(|(_, text)| text.len() < 9000).collect();
        let (name, text) = index.get(&small);
        let mut changed = perturbed(text, random);
        if quotes {
            changed = requoted(&changed, random);
        }
        let (Ok(before), Ok(after)) = (yaml::parse(text), yaml::parse(&changed)) else {
            return Err(TestCaseError::reject("the perturbation broke the file"));
        };
        prop_assume!(before == after || quotes);
        let formatted = format(&changed).unwrap_or_else(|error| panic!("{name}: {error}\n{changed}"));
        prop_assert_eq!(yaml::parse(&formatted).unwrap(), after);
        prop_assert_eq!(&format(&formatted).unwrap(), &formatted);
        if before == yaml::parse(&changed).unwrap() {
            let without = |text: &str| text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(without(&formatted), without(&format(text).unwrap()));
        }
    }

    #[test]
    fn any_text_is_formatted_or_refused(text in "([a-c]|[-:#,'\"\\[\\]{}|>&!\\\\ \n]|: |\n- |\n  )*") {
        if let Ok(formatted) = format(&text) {
            prop_assert_eq!(yaml::parse(&formatted), yaml::parse(&text));
            prop_assert_eq!(format(&formatted), Ok(formatted));
        }
    }
}
