//! Areas of the ABI: what they say of types is what their users say, and `tdx-abi` has a feature for each.

extern crate alloc;

use alloc::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tdx_codegen::area::CORE;
use tdx_codegen::area::TypeAreas;
use tdx_codegen::area::of_leaf;
use tdx_codegen::emit::rust::Options;
use tdx_codegen::emit::rust::SECTIONS;
use tdx_codegen::model::Spec;

fn spec() -> Spec {
    tdx_codegen::read(Path::new(tdx_spec::DIRECTORY))
        .expect("no mistakes")
        .spec
}

#[test]
fn types_go_with_the_leaves_that_use_them() {
    let spec = spec();
    let areas = TypeAreas::new(&spec);
    for (name, area) in [
        // An operand of many leaves of the host.
        ("GpaMapping", CORE),
        // An operand of TDH.IOMMU.* alone.
        ("IommuId", "connect"),
        // A field of an operand of TDH.MMIO.MT.SET.
        ("MmioMtType", "connect"),
        // A field of a field of what TDG.MR.REPORT writes, and a variant of that.
        ("ReportTeeType", "guest"),
        ("TdReportV2", "guest"),
        // Named by areas.yaml, and a field of such a type.
        ("MbmdHeader", "migration"),
        ("MbType", "migration"),
        // Of TDH.SERVTD.PREBIND (migration) and TDG.MR.RTMR.EXTEND (guest).
        ("Sha384Digest", CORE),
        ("SeamldrInfo", "seamldr"),
        // No leaf's operand.
        ("StatusBits", CORE),
    ] {
        assert_eq!(areas.of(name), area, "{name}");
    }
}

#[test]
fn the_longest_group_decides() {
    let spec = spec();
    for (name, area) in [
        ("TDH.MEM.PAGE.ADD", CORE),
        ("TDH.EXPORT.MEM", "migration"),
        ("TDG.MR.REPORT", "guest"),
        ("TDG.SERVTD.RD", "migration"),
        ("TDG.DEVIF.RD", "connect"),
        ("SEAMLDR.INFO", "seamldr"),
    ] {
        let leaf = spec.leaves.iter().find(|leaf| leaf.name == name);
        assert_eq!(of_leaf(&spec, leaf.expect(name)), area, "{name}");
    }
}

#[test]
fn each_item_is_in_one_area() {
    let spec = spec();
    let items = |section: &str, area: Option<&str>, side: Option<&str>| {
        let options = Options {
            root: quote::quote!(crate),
            bitfield: None,
            linted: true,
            area: area.map(str::to_owned),
            side: side.map(str::to_owned),
        };
        let section = SECTIONS.iter().find(|known| known.name == section);
        let tokens = (section.expect("known").emit)(&spec, &options).to_string();
        let words: Vec<&str> = tokens.split(' ').collect();
        let names = words.windows(3).filter(|words| {
            ["struct", "static", "const", "type"].contains(&words[0])
                && words[1].starts_with(|c: char| c.is_ascii_uppercase())
        });
        let mut names: Vec<String> = names.map(|words| words[1].to_owned()).collect();
        names.sort();
        names
    };
    let areas = || {
        let named = spec.areas.iter().map(|area| area.name.as_str());
        named.chain([CORE])
    };
    for section in ["fields", "formats"] {
        let mut parts: Vec<String> = areas()
            .flat_map(|area| items(section, Some(area), None))
            .collect();
        parts.sort();
        assert_eq!(parts, items(section, None, None), "{section}");
        assert!(parts.len() > 100, "{section}: {parts:?}");
    }
    let sides = ["tdh", "tdg", "seamldr"];
    let mut parts: Vec<String> = areas()
        .flat_map(|area| sides.map(|side| items("leaves", Some(area), Some(side))))
        .flatten()
        .collect();
    parts.sort();
    assert_eq!(parts, items("leaves", None, None), "leaves");
    assert!(parts.len() > 100, "leaves: {parts:?}");
}

#[test]
fn tdx_abi_has_a_feature_for_each_area() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tdx-abi/Cargo.toml");
    let manifest = fs::read_to_string(manifest).expect("it is there");
    let spec = spec();
    let areas: BTreeSet<&str> = spec.areas.iter().map(|area| &*area.name).collect();
    let full = manifest
        .lines()
        .find_map(|line| line.strip_prefix("full = ["))
        .expect("the feature `full`");
    let full: BTreeSet<&str> = full.trim_end_matches(']').split(", ").collect();
    let full: BTreeSet<&str> = full.iter().map(|name| name.trim_matches('"')).collect();
    assert_eq!(full, areas);
    for area in areas {
        assert!(manifest.contains(&format!("\n{area} = []\n")), "{area}");
    }
}

/// What a crate does not invoke is missing from it without a word.
#[test]
fn tdx_abi_invokes_whatever_an_area_has() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tdx-abi/src");
    let file = |name: &str| fs::read_to_string(folder.join(name)).expect(name);
    let fields = file("field.rs") + &file("field/table.rs");
    let formats = file("format.rs");
    let sides = [
        ("tdh", file("tdh.rs")),
        ("tdg", file("tdg.rs")),
        ("seamldr", file("seamldr.rs")),
    ];
    let sides = sides.map(|(side, text)| ("leaves", Some(side), text));
    let sections = [("fields", None, fields), ("formats", None, formats)];
    let spec = spec();
    let mut invoked = 0;
    for (name, side, text) in sections.into_iter().chain(sides) {
        let section = SECTIONS.iter().find(|section| section.name == name);
        let named = spec.areas.iter().map(|area| area.name.as_str());
        for area in named.chain([CORE]) {
            let options = Options {
                root: quote::quote!(crate),
                bitfield: None,
                linted: true,
                area: Some(area.to_owned()),
                side: side.map(str::to_owned),
            };
            let tokens = (section.expect("known").emit)(&spec, &options);
            let arguments = match side {
                Some(side) => format!("side = {side}, area = {area}"),
                None => format!("area = {area}"),
            };
            let call = format!("tdx_codegen_macros::{name}!({arguments});");
            // A module of markers without one is nothing that anybody misses.
            let empty = tokens.to_string().matches("pub").count() <= usize::from(name == "formats");
            assert_eq!(text.contains(&call), !empty, "{call}");
            invoked += usize::from(!empty);
        }
    }
    assert!(invoked > 10, "{invoked}");
}
