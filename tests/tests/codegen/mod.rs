//! Comparison with expected texts.
#![expect(unreachable_pub, reason = "shared by test binaries")]

use std::env;
use std::fs;
use std::path::Path;

/// Compares `text` with the file `name` below `data/codegen`, or writes it if `TDX_BLESS` is set.
pub fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data/codegen")
        .join(name);
    if env::var_os("TDX_BLESS").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
        fs::write(&path, text).expect("the file can be written");
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == text,
        "{name} differs; TDX_BLESS=1 writes it anew.\n--- expected\n{expected}\n--- is\n{text}"
    );
}
