//! Areas of the ABI: what they say of types is what their users say, and `tdx-abi` has a feature for each.

extern crate alloc;

use alloc::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tdx_codegen::area::Areas;
use tdx_codegen::area::CORE;
use tdx_codegen::area::TABLES;
use tdx_codegen::area::of_field;
use tdx_codegen::area::of_leaf;
use tdx_codegen::emit::rust::Options;
use tdx_codegen::emit::rust::SECTIONS;
use tdx_codegen::model::Callee;
use tdx_codegen::model::Spec;

fn spec() -> Spec {
    tdx_codegen::read(Path::new(tdx_spec::DIRECTORY))
        .expect("no mistakes")
        .spec
}

#[test]
fn types_go_with_the_leaves_that_use_them() {
    let spec = spec();
    let areas = Areas::of_types(&spec);
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
fn statuses_go_with_the_leaves_that_return_them() {
    let spec = spec();
    let module = Areas::of_statuses(&spec, Callee::Module);
    for (name, area) in [
        ("SUCCESS", CORE),
        ("EPT_WALK_FAILED", CORE),
        ("IOMMU_IQ_FULL", "connect"),
        ("IMPORT_MISMATCH", "migration"),
    ] {
        assert_eq!(module.of(name), area, "{name}");
    }
    let seamldr = Areas::of_statuses(&spec, Callee::Seamldr);
    assert_eq!(seamldr.of("EBADPARAM"), "seamldr");
}

#[test]
fn fields_go_with_those_who_have_access() {
    let spec = spec();
    for (table, name, area) in [
        // Read by the host of any TD.
        ("TDR_TDCS", "TD_UUID", CORE),
        ("TDVPS", "VCPU_STATE_DETAILS", CORE),
        ("GLOBAL", "BUILD_DATE", CORE),
        // Registers of the guest.
        ("TDVPS", "CR2", "debug"),
        ("TD_VMCS", "Guest RIP", "debug"),
        ("TD_VMCS", "HOST_SSP", TABLES),
        // All of the table is the guest's.
        ("TD_L2_VMCS", "HOST_SSP", "guest"),
    ] {
        let mut tables = spec.fields.iter();
        let table = tables.find(|known| known.name == table).expect(table);
        assert!(table.rows.iter().any(|row| row.name == name), "{name}");
        assert_eq!(of_field(&spec, table, name), area, "{name}");
    }
}

/// Macros with a module for each part, and the parts.
const PARTS: [(&str, &[&str]); 2] = [
    ("leaves", &["tdh", "tdg", "seamldr"]),
    (
        "field_ids",
        &["global", "tdr_tdcs", "tdvps", "td_vmcs", "td_l2_vmcs"],
    ),
];
/// Macros without, whose items are of several areas.
const WHOLE: [&str; 4] = ["statuses", "leaf_numbers", "fields", "formats"];

/// Every macro whose items are of several areas, with each of its parts.
fn calls() -> Vec<(&'static str, Option<&'static str>)> {
    let parts = PARTS
        .iter()
        .flat_map(|(section, parts)| parts.iter().map(|part| (*section, Some(*part))));
    WHOLE
        .into_iter()
        .map(|section| (section, None))
        .chain(parts)
        .collect()
}

fn tokens(spec: &Spec, section: &str, area: Option<&str>, part: Option<&str>) -> String {
    let options = Options {
        root: quote::quote!(crate),
        bitfield: None,
        linted: true,
        area: area.map(str::to_owned),
        part: part.map(str::to_owned),
    };
    let section = SECTIONS.iter().find(|known| known.name == section);
    (section.expect("known").emit)(spec, &options).to_string()
}

#[test]
fn each_item_is_in_one_area() {
    let spec = spec();
    let items = |section: &str, area: Option<&str>, part: Option<&str>| {
        let tokens = tokens(&spec, section, area, part);
        let words: Vec<&str> = tokens.split(' ').collect();
        let names = words.windows(3).filter(|words| {
            ["struct", "static", "const", "type"].contains(&words[0])
                && words[1].starts_with(|c: char| c.is_ascii_uppercase())
        });
        let names = names.map(|words| words[1].to_owned());
        names.collect::<Vec<String>>()
    };
    let mut sections = WHOLE.to_vec();
    sections.extend(PARTS.map(|(section, _)| section));
    for section in sections {
        let named = spec.areas.iter().map(|area| area.name.as_str());
        let mut found: Vec<String> = named
            .chain([CORE])
            .flat_map(|area| {
                let calls = calls().into_iter().filter(|(name, _)| *name == section);
                calls.flat_map(move |(_, part)| items(section, Some(area), part))
            })
            .collect();
        found.sort();
        let mut all = items(section, None, None);
        all.sort();
        assert_eq!(found, all, "{section}");
        // Tables, and what modules fix; the others have constants or types.
        let least = if section == "fields" { 5 } else { 100 };
        assert!(all.len() > least, "{section}: {all:?}");
    }
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
    let spec = spec();
    let mut invoked = 0;
    for (section, part) in calls() {
        let text = match (section, part) {
            ("leaves", Some(part)) => file(&format!("{part}.rs")),
            (_, Some(part)) => file(&format!("field/{part}.rs")),
            ("statuses", None) => file("status.rs"),
            ("leaf_numbers", None) => file("leaf.rs"),
            ("fields", None) => file("field.rs") + &file("field/table.rs"),
            _ => file("format.rs"),
        };
        let named = spec.areas.iter().map(|area| area.name.as_str());
        for area in named.chain([CORE]) {
            let tokens = tokens(&spec, section, Some(area), part);
            let arguments = match part {
                Some(part) => format!("part = {part}, area = {area}"),
                None => format!("area = {area}"),
            };
            let call = format!("tdx_codegen_macros::{section}!({arguments});");
            // A module of markers without one is nothing that anybody misses.
            let empty = tokens.matches("pub").count() <= usize::from(section == "formats");
            assert_eq!(text.contains(&call), !empty, "{call}");
            invoked += usize::from(!empty);
        }
    }
    assert!(invoked > 25, "{invoked}");
}
