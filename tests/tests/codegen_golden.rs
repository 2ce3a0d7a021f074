//! What is written for a small specification, pretty-printed; `TDX_BLESS=1` writes the expected files anew.

mod codegen;

use std::path::Path;

use codegen::compare;
use tdx_codegen::emit::rust::Options;
use tdx_codegen::emit::rust::SECTIONS;

#[test]
fn sections() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/codegen/golden_spec");
    let spec = tdx_codegen::read(&directory).expect("no mistakes").spec;
    for bitfield_struct in [false, true] {
        let options = Options {
            root: quote::quote!(crate),
            bitfield: bitfield_struct.then(|| quote::quote!(bitfield_struct::bitfield)),
            linted: true,
            area: None,
            part: None,
        };
        for section in SECTIONS {
            let tokens = (section.emit)(&spec, &options);
            let file = syn::parse2(tokens).expect("the section parses");
            let folder = if bitfield_struct {
                "golden/bitfield_struct"
            } else {
                "golden"
            };
            if !bitfield_struct || section.name == "formats" {
                compare(
                    &format!("{folder}/{}.rs", section.name),
                    &prettyplease::unparse(&file),
                );
            }
        }
    }
}

/// The whole specification parses too, in the form that needs no library.
#[test]
fn the_specification_parses() {
    let spec = tdx_codegen::read(Path::new(tdx_spec::DIRECTORY))
        .expect("no mistakes")
        .spec;
    let options = Options {
        root: quote::quote!(some::path),
        bitfield: None,
        linted: true,
        area: None,
        part: None,
    };
    for section in SECTIONS {
        let file: syn::File =
            syn::parse2((section.emit)(&spec, &options)).expect("the section parses");
        assert!(!file.items.is_empty(), "{}", section.name);
    }
}
