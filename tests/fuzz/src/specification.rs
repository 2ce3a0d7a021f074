//! The YAML loader, the checks and the emitters.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use quote::quote;
use tdx_codegen::emit::rust::Options;
use tdx_codegen::emit::rust::SECTIONS;
use tdx_codegen::source::Sources;

/// Names and texts of a small specification without mistakes.
fn small() -> &'static [(String, String)] {
    static SMALL: OnceLock<Vec<(String, String)>> = OnceLock::new();
    SMALL.get_or_init(|| {
        let directory = super::data().join("codegen/golden_spec");
        let mut files = Vec::new();
        collect(&directory, &directory, &mut files);
        files.sort();
        files
    })
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() {
            collect(root, &path, files);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let name: &Path = path.strip_prefix(root).unwrap_or(&path);
            files.push((name.to_string_lossy().into_owned(), text));
        }
    }
}

/// One file of a small specification is `bytes`: the one that declares the same thing, or another one beside them.
///
/// What has mistakes is reported with a place; what has none is emitted.
pub(super) fn yaml(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let key = |text: &str| -> Vec<String> {
        let wanted = |line: &&str| {
            ["kind:", "name:", "table:"]
                .iter()
                .any(|key| line.starts_with(key))
        };
        text.lines().filter(wanted).map(str::to_owned).collect()
    };
    let declared = key(&text);
    let mut sources = Sources::default();
    for (name, other) in small() {
        if key(other) != declared {
            sources.add(name.clone(), other.clone());
        }
    }
    sources.add("fuzzed.yaml", text.into_owned());
    match tdx_codegen::from_sources(sources) {
        Ok(specification) => {
            let options = Options {
                root: quote!(crate),
                bitfield: Some(quote!(bitfield_struct::bitfield)),
                linted: false,
                area: None,
                part: None,
            };
            for section in SECTIONS {
                let _ = (section.emit)(&specification.spec, &options).to_string();
            }
        }
        Err(mistakes) => assert!(!mistakes.to_string().is_empty()),
    }
}

#[cfg(test)]
mod tests {
    /// Unchanged, each of its files leads to code: else nothing behind the loader would ever be reached.
    #[test]
    fn seeds_reach_the_emitters() {
        assert!(super::small().len() > 10);
        let mut sources = tdx_codegen::source::Sources::default();
        for (name, text) in super::small() {
            sources.add(name.clone(), text.clone());
        }
        assert!(tdx_codegen::from_sources(sources).is_ok());
    }
}
