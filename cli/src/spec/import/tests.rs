//! Small tables in every shape that is read, written for these tests.

use super::merge::Change;
use super::merge::Kind;
use super::merge::merge;
use super::read::Contents;
use super::read::ReadError;
use super::read::read;
use super::record::Imported;
use super::record::Record;
use super::record::Table;
use super::record::Value;
use super::row::File;
use super::states::merge as merge_states;
use std::collections::HashMap;
use tdx_codegen::source::Sources;

const JSON_2022: &str = r#"{
  "Header": { "Copyright": "-", "Info": "TDX TD-Scope Metadata", "Version": "2.0" },
  "Fields": [
    { "Control Structure": "TDCS", "Class": "TD Management", "Field Name": "CONFIG_FLAGS", "Description": ["x"],
      "Type": "64b bitmap", "Initial Value": null, "Field Size (Bytes)": "8", "Num Fields": "1", "Num Elements": "1",
      "Element Size (Bytes)": "8", "Base FIELD_ID (Hex)": "0x9110000300000016",
      "Host VMM Rd Mask for a Production TD ": "-1", "Host VMM Wr Mask for a Production TD ": "0",
      "Guest Rd Mask": "0xF", "Migration TD wr Mask": "0" },
    { "Control Structure": "TDR", "Field Name": "FATAL", "Num Fields": "1", "Num Elements": "1",
      "Element Size (Bytes)": "1", "Base FIELD_ID (Hex)": "0x8010000000000001", "Guest Rd Mask": "-1" }
  ]
}"#;

const JSON_2025: &str = r#"{
  "Header": { "Copyright": "-", "Info": "TDX Global Metadata", "Version": "2.0" },
  "Fields": [
    { "TDX_FEATURES Enum. Bits": "Always", "Class": "Platform Info", "Field Name": "PKG_FMS", "Type": "N/A",
      "Field Size (Bytes)": "4", "Max Num Fields": "8", "Num Elements": "1", "Element Size (Bytes)": "4",
      "Base FIELD_ID (Hex)": "0x0000000200000001", "Host VMM Access": "RO", "Guest Access": "None" }
  ]
}"#;

const LOOKUP: &str = "\
const md_lookup_t tdr_tdcs_lookup[MAX] = {
 {
   // NUM_TDCX // 1
   .field_id =  { .raw  = 0x8010000200000002 },
   .num_of_fields = 1, .num_of_elem = 2, .offset = 0x0004, .attributes = { .raw = 0x5 },
   .prod_rd_mask = (-1ULL & 0xFFFFFFFFULL), .prod_wr_mask = (0ULL & 0xFFFFFFFFULL),
   .special_rd_handling = false, .special_wr_handling = true,
   .mig_export = MIG_NONE, .mig_import = MIG_CBO
 },
 {
   // end
   .field_id = { .raw = 0xFFFFFFFFFFFFFFFF }
 }
};
";

const ROWS: &str = r#"[
  { "name": "NUM_TDCX", "field_id": "0x8010000200000002", "num_of_fields": 1, "num_of_elem": 2, "offset": "0x0004",
    "prod_rd_mask": "0xffffffff", "mig_export": "MIG_NONE", "mig_import": "MIG_CBO", "special_wr_handling": true }
]"#;

fn only(contents: Contents) -> Imported {
    let mut tables = contents.tables;
    assert_eq!((tables.len(), contents.left_out), (1, 0));
    tables.remove(0)
}

fn values(table: &Imported) -> Vec<(String, Vec<String>)> {
    let one = |record: &Record| {
        let values = record.values.iter();
        let values = values.filter(|(key, value)| !value.is_default(key));
        let texts = values.map(|(key, value)| format!("{key}: {value}"));
        (record.name.clone(), texts.collect())
    };
    table.records.iter().map(one).collect()
}

#[test]
fn both_shapes_of_the_published_json() {
    let table = only(read("td_scope_metadata.json", JSON_2022).expect("a table"));
    assert_eq!(table.table, Table::TdrTdcs);
    let expected = [
        (
            "CONFIG_FLAGS",
            vec![
                "id: 0x9110000300000016",
                "prod_rd: 0xffffffffffffffff",
                "guest_rd: 0xf",
            ],
        ),
        ("FATAL", vec!["id: 0x8010000000000001", "guest_rd: 0xff"]),
    ];
    let expected = expected.map(|(name, keys)| {
        let keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
        (name.to_owned(), keys)
    });
    assert_eq!(values(&table), expected);

    let table = only(read("global_metadata.json", JSON_2025).expect("a table"));
    assert_eq!(table.table, Table::Global);
    assert_eq!(
        table.records[0].values,
        [
            ("id", Value::wide(0x2_0000_0001)),
            ("num_of_fields", Value::Decimal(8)),
            ("num_of_elem", Value::Decimal(1)),
        ]
    );
}

#[test]
fn generated_sources_and_their_rows_as_json() {
    let mut keys = vec![
        "id: 0x8010000200000002",
        "offset: 0x4",
        "num_of_elem: 2",
        "prod_rd: 0xffffffff",
        "mig_import: CBO",
        "special_wr: true",
    ];
    let rows = only(read("metadata_tdr_tdcs.json", ROWS).expect("a table"));
    assert_eq!(values(&rows)[0].1, keys);
    keys.push("attributes: [hpa, private]");
    let table = only(read("tdr_tdcs_fields_lookup.c", LOOKUP).expect("a table"));
    assert_eq!(values(&table)[0].1, keys);
    assert_eq!((table.table, table.records.len()), (Table::TdrTdcs, 1));

    let header = "#define TDX_SUCCESS 0ULL\n#define TDX_OPERAND_BUSY 0x8000020000000000ULL\n\
                  #define UNINITIALIZE_ERROR 0xFFFFFFFFFFFFFFFFULL\ntypedef enum { OPERAND_ID_RCX = 1 } id_e;";
    let contents = read("tdx_error_codes_defs.h", header).expect("tables");
    let names = |table: &Imported| -> Vec<String> {
        table.records.iter().map(|it| it.name.clone()).collect()
    };
    let names: Vec<_> = contents.tables.iter().map(names).collect();
    assert_eq!(names, [vec!["SUCCESS", "OPERAND_BUSY"], vec!["RCX"]]);
}

const MSRS: &str = "\
const msr_lookup_t msr_lookup[MAX] = {
 {
  // 0 - IA32_A
  .start_address  = 0x10, .end_address = 0x10,
  .rd_bit_meaning = MSR_BITMAP_FIXED_0, .rd_action = MSR_ACTION_FATAL_ERROR,
  .wr_bit_meaning = MSR_BITMAP_FIXED_1, .wr_action = MSR_ACTION_VE
 },
 {
  // 1 - Reserved
  .start_address  = 0x800, .end_address = 0x801,
  .rd_bit_meaning = MSR_BITMAP_FIXED_1, .rd_action = MSR_ACTION_GP,
  .wr_bit_meaning = MSR_BITMAP_FIXED_1, .wr_action = MSR_ACTION_GP
 },
 {
  // 2 - Reserved
  .start_address  = 0x810, .end_address = 0x811,
  .rd_bit_meaning = MSR_BITMAP_FIXED_1, .rd_action = MSR_ACTION_GP,
  .wr_bit_meaning = MSR_BITMAP_FIXED_1, .wr_action = MSR_ACTION_GP
 }
};
";

const MSR_ROW: &str = r#"[{ "name": "IA32_A", "start": "0x10", "end": "0x10",
  "read": { "bitmap": "MSR_BITMAP_FIXED_0", "action": "MSR_ACTION_FATAL_ERROR" },
  "write": { "bitmap": "MSR_BITMAP_FIXED_1", "action": "MSR_ACTION_VE" } }]"#;

/// A field of the TD VMCS, one of the VMCS of each of two L2 VMs, and one of TDVPS; `fields` as each shape calls their number.
fn vcpu_scope(fields: &str) -> String {
    let row = |class: &str, name: &str, id: &str, guest: &str| {
        format!(
            r#"{{ "Class": "{class}", "Field Name": "{name}", "{fields}": "1", "Num Elements": "1",
                "Element Size (Bytes)": "2", "Base FIELD_ID (Hex)": "{id}", "Host VMM Rd Mask for a Debug TD ": "-1",
                "Guest Rd Mask": "{guest}", "Guest Wr Mask": "{guest}" }}"#
        )
    };
    let rows = [
        row("TD VMCS", "Guest ES selector", "0x0024000100000800", "0"),
        row(
            "VMCS of L2 VM 1",
            "Guest ES selector",
            "0x2424000100000800",
            "-1",
        ),
        row(
            "VMCS of L2 VM 2",
            "Guest ES selector",
            "0x2C24000100000800",
            "-1",
        ),
        row("TD Management", "VCPU_STATE", "0xA020000000000000", "0"),
    ];
    format!(
        r#"{{ "Header": {{ "Info": "TDX VCPU-Scope Metadata" }}, "Fields": [ {} ] }}"#,
        rows.join(", ")
    )
}

#[test]
fn the_vmcs_in_both_shapes_of_the_published_json() {
    for fields in ["Num Fields", "Max Num Fields"] {
        let text = vcpu_scope(fields);
        let contents = read("td_vcpu_metadata.json", &text).expect("tables");
        assert_eq!(contents.left_out, 1, "the VMCS of the second L2 VM");
        let [tdvps, td_vmcs, l2_vmcs] = contents.tables.as_slice() else {
            panic!("three tables: {contents:?}");
        };
        assert_eq!(tdvps.table, Table::Tdvps);
        assert_eq!(values(tdvps)[0].0, "VCPU_STATE");
        let es = |record: &Imported| {
            let [(name, values)] = values(record).try_into().expect("one row");
            assert_eq!(name, "Guest ES selector");
            values
        };
        assert_eq!(td_vmcs.table, Table::TdVmcs);
        let common = ["id: 0x0024000100000800", "dbg_rd: 0xffff"];
        assert_eq!(es(td_vmcs), common);
        assert_eq!(l2_vmcs.table, Table::TdL2Vmcs);
        let masks = ["l1_vmm_rd: 0xffff", "l1_vmm_wr: 0xffff"];
        assert_eq!(es(l2_vmcs), [common, masks].concat());
    }
}

const STATE_ROWS: &str = r#"[
  { "name": "RUNNABLE", "value": 2, "flags": { "any_initialized": 1, "import_in_order": 0 }, "servtd_bind_allowed": true }
]"#;

const SEPT_STATE_ROWS: &str = r#"{
  "l1": [ { "name": "FREE", "encoding": "0xe", "also_with_d_bit": "0xf",
            "flags": { "public_state": 0, "any_leaf": 0, "free_or_removed": 1, "index": 0 } } ],
  "l2": [ { "name": "L2_FREE", "encoding": "0x0", "flags": { "public_state": 64, "index": 0 } } ]
}"#;

#[test]
fn states_with_their_flags() {
    let op_states = only(read("op_states.json", STATE_ROWS).expect("a table"));
    assert_eq!(op_states.table, Table::OpStates);
    let text = |flags: &str| {
        format!(
            "modules: [\"2.0.18\"]\nstates:\n  - {{ name: RUNNABLE, value: 2, flags: {flags}, doc: By hand. }}\n"
        )
    };
    // Flags of which the source knows nothing stay, and so does what is written by hand.
    for (before, after) in [
        (
            "[any_initialized, export_in_progress, servtd_bind_allowed]",
            None,
        ),
        (
            "[import_in_order, export_in_progress, any_initialized]",
            Some("[export_in_progress, any_initialized, servtd_bind_allowed]"),
        ),
        ("[]", Some("[any_initialized, servtd_bind_allowed]")),
    ] {
        let mut file = File::parse(&text(before), "states").expect("a table");
        let changes = merge(&mut file, "2.0.18", &op_states);
        assert_eq!(changes.len(), usize::from(after.is_some()), "{changes:?}");
        assert_eq!(file.text(), text(after.unwrap_or(before)));
    }

    let contents = read("sept_states.json", SEPT_STATE_ROWS).expect("tables");
    let text = "modules: [\"2.0.18\"]\nl1:\n  - { name: FREE, encoding: 0xe, public: 0, index: 0, flags: [any_leaf] }\n\
                l2:\n  - { name: L2_FREE, encoding: 0x0, public: 64, index: 0, flags: [] }\n";
    let mut all = text.to_owned();
    let mut changes = Vec::new();
    for table in &contents.tables {
        let mut file = File::parse(&all, table.table.file().1).expect("a table");
        changes.extend(merge(&mut file, "2.0.18", table));
        all = file.text();
    }
    assert_eq!(changes.len(), 2, "{changes:?}");
    let free =
        "{ name: FREE, encoding: 0xe, also: 0xf, public: 0, index: 0, flags: [free_or_removed] }";
    assert_eq!(
        all,
        text.replace(
            "{ name: FREE, encoding: 0xe, public: 0, index: 0, flags: [any_leaf] }",
            free
        )
    );

    for broken in [
        STATE_ROWS.replace("\"any_initialized\": 1", "\"any_initialized\": 2"),
        STATE_ROWS.replace("\"value\": 2", "\"value\": \"two\""),
        SEPT_STATE_ROWS.replace("\"0xe\"", "14"),
        SEPT_STATE_ROWS.replace("\"l2\"", "\"l3\""),
    ] {
        let error = read("states.json", &broken).expect_err("broken");
        assert!(matches!(error, ReadError::Row { .. }), "{error:?}");
    }
}

#[test]
fn both_shapes_of_msrs() {
    let generated = only(read("msr_config_lookup.c", MSRS).expect("a table"));
    let rows = only(read("msr_virtualization.json", MSR_ROW).expect("a table"));
    assert_eq!(generated.records.len(), 3);
    assert_eq!(rows.records[0], generated.records[0]);
    let expected = [
        "start: 0x10",
        "end: 0x10",
        "read: FIXED_0 FATAL_ERROR",
        "write: FIXED_1 VE",
    ];
    assert_eq!(values(&rows)[0].1, expected);
    assert!(read("x.json", &MSR_ROW.replace("MSR_ACTION_VE", "VE")).is_err());
}

#[test]
fn rows_that_share_a_name_are_told_apart_by_their_number() {
    let table = "\
kind: msrs
modules: [\"1.5.01\"]
msrs:
  - { name: IA32_A, start: 0x10, end: 0x10, read: FIXED_0 FATAL_ERROR, write: FIXED_1 VE }
  - { name: Reserved, start: 0x800, end: 0x801, read: FIXED_1 GP, write: FIXED_1 GP }
  - { name: Reserved, start: 0x810, end: 0x811, read: FIXED_1 GP, write: FIXED_1 GP }
";
    let imported = only(read("msr_config_lookup.c", MSRS).expect("a table"));
    let mut file = File::parse(table, "msrs").expect("a table");
    assert_eq!(merge(&mut file, "1.5.01", &imported), []);
    assert_eq!(file.text(), table);
    let changed = MSRS.replace(
        "0x811,\n  .rd_bit_meaning = MSR_BITMAP_FIXED_1",
        "0x811,\n  .rd_bit_meaning = MSR_BITMAP_FIXED_0",
    );
    let imported = only(read("msr_config_lookup.c", &changed).expect("a table"));
    let changes = merge(&mut file, "1.5.01", &imported);
    assert_eq!(changes.len(), 1, "{changes:?}");
    let expected = table.replace("0x811, read: FIXED_1 GP", "0x811, read: FIXED_0 GP");
    assert_eq!(file.text(), expected);
}

#[test]
fn what_is_no_table_is_refused() {
    for text in [
        "",
        "{",
        "[]",
        "{}",
        "[1]",
        "int x;",
        r#"{"Fields": []}"#,
        "[{\"name\": 3}]",
    ] {
        assert!(read("x.json", text).is_err(), "{text}");
    }
    let bad = LOOKUP.replace("0x0004", "0x0004 * unknown");
    assert!(matches!(
        read("x.c", &bad),
        Err(ReadError::Row { row, .. }) if row == "NUM_TDCX"
    ));
}

const TABLE: &str = "\
# Written by hand.
kind: statuses
modules: [\"1.5.01\", \"2.0.18\"]
statuses:
  - { name: SUCCESS, value: 0x0000000000000000, doc: \"Done, well.\" }
  # A remark.
  - { name: BUSY, value: 0x8000000000000000, modules: [\"2.0.18\"], remedy: [a, b] }
  - { name: OURS, value: 0xc000000000000000 }
";

fn statuses(pairs: &[(&str, u64)]) -> Imported {
    let record = |(name, value): &(&str, u64)| Record {
        name: (*name).to_owned(),
        values: vec![("value", Value::wide(*value))],
    };
    Imported {
        table: Table::Statuses,
        records: pairs.iter().map(record).collect(),
    }
}

fn merged(module: &str, pairs: &[(&str, u64)]) -> (String, Vec<Change>) {
    let mut file = File::parse(TABLE, "statuses").expect("a table");
    let changes = merge(&mut file, module, &statuses(pairs));
    (file.text(), changes)
}

const BUSY: (&str, u64) = ("BUSY", 1 << 63);
const OURS: (&str, u64) = ("OURS", 3 << 62);

#[test]
fn nothing_changes_if_nothing_differs() {
    let (text, changes) = merged("2.0.18", &[("SUCCESS", 0), BUSY, OURS]);
    assert_eq!((text.as_str(), changes), (TABLE, Vec::new()));
    // A name written by hand stays.
    let (text, changes) = merged("2.0.18", &[("SUCCESS", 0), BUSY, ("THEIRS", OURS.1)]);
    assert_eq!(text, TABLE);
    assert!(matches!(&changes[..], [Change { kind: Kind::Named { ours }, .. }] if ours == "OURS"));
}

#[test]
fn a_changed_row_leaves_those_of_other_modules_alone() {
    let (text, changes) = merged("2.0.18", &[("SUCCESS", 1 << 32), BUSY, OURS]);
    assert!(text.contains(
        "  - { name: SUCCESS, value: 0x0000000000000000, modules: [\"1.5.01\"], doc: \"Done, well.\" }\n  \
           - { name: SUCCESS, value: 0x0000000100000000, modules: [\"2.0.18\"], doc: \"Done, well.\" }\n"
    ), "{text}");
    assert!(matches!(changes[0].kind, Kind::Renumbered { .. }));
    assert_eq!(changes.len(), 1);
}

#[test]
fn rows_come_and_go() {
    let (text, changes) = merged("1.5.01", &[("SUCCESS", 0), BUSY, ("NEW", 5 << 32)]);
    let kinds: Vec<_> = changes.iter().map(|it| (&*it.name, &it.kind)).collect();
    assert_eq!(
        kinds,
        [
            ("BUSY", &Kind::Added),
            ("NEW", &Kind::Added),
            ("OURS", &Kind::Removed)
        ]
    );
    let rows = "\
  - { name: SUCCESS, value: 0x0000000000000000, doc: \"Done, well.\" }
  # A remark.
  - { name: BUSY, value: 0x8000000000000000, remedy: [a, b] }
  - { name: NEW, value: 0x0000000500000000, modules: [\"1.5.01\"] }
  - { name: OURS, value: 0xc000000000000000, modules: [\"2.0.18\"] }
";
    assert!(text.ends_with(rows), "{text}");
}

#[test]
fn a_module_that_is_new_to_the_table() {
    let (text, _) = merged("1.5.34", &[("SUCCESS", 0), BUSY]);
    let expected = "\
modules: [\"1.5.01\", \"1.5.34\", \"2.0.18\"]
statuses:
  - { name: SUCCESS, value: 0x0000000000000000, doc: \"Done, well.\" }
  # A remark.
  - { name: BUSY, value: 0x8000000000000000, modules: [\"1.5.34\", \"2.0.18\"], remedy: [a, b] }
  - { name: OURS, value: 0xc000000000000000, modules: [\"1.5.01\", \"2.0.18\"] }
";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn a_row_over_several_lines_is_not_guessed_at() {
    let text = "statuses:\n  - name: SUCCESS\n    value: 0\n";
    assert_eq!(
        File::parse(text, "statuses"),
        Err("line 2: not a row on one line".to_owned())
    );
    assert!(File::parse("x: 1\n", "statuses").is_err());
}

const OP_STATES: &str = "\
states:
  - { name: UNINITIALIZED, value: 0, flags: [] }
  - { name: INITIALIZED, value: 1, flags: [] }
  - { name: RUNNABLE, value: 2, flags: [] }
  - { name: START_EXPORT, value: 3, modules: [\"2.0.18\"], flags: [] }
";

const LEAF: &str = "\
name: TDH.MEM.TRACK
number: 38
op_states:
  - { modules: [\"1.5.01\", \"2.0.18\"], states: [INITIALIZED, RUNNABLE] }
sept_states:
  - { modules: [\"1.5.01\"], states: [FREE] }
";

fn sources() -> Sources {
    let mut sources = Sources::default();
    sources.add("tables/op_states.yaml", OP_STATES);
    sources.add("leaves/tdh/TDH.MEM.TRACK.yaml", LEAF);
    sources.add(
        "leaves/tdh/TDH.MNG.INIT.yaml",
        "name: TDH.MNG.INIT\nnumber: 21\nyields: x\n",
    );
    sources.add("leaves/tdg/TDG.X.yaml", "name: TDG.X\nnumber: 38\n");
    sources
}

fn states(module: &str, rows: &str) -> (Vec<(String, String)>, Vec<Change>) {
    let text = format!("const bool_t seamcall_state_lookup[A][B] = {{\n{rows}}};\n");
    let contents = read("op_state_lookup.c", &text).expect("a table");
    let [allowed] = &contents.allowed[..] else {
        panic!("{contents:?}");
    };
    merge_states(&sources(), &HashMap::new(), module, allowed).expect("well-formed leaves")
}

#[test]
fn the_same_states_change_nothing() {
    assert_eq!(
        states("1.5.01", "    [38] = {0, 1, 1, 0 },\n"),
        (vec![], vec![])
    );
}

#[test]
fn other_states_of_one_module() {
    let (files, changes) = states(
        "2.0.18",
        "    [21] = {1, 0, 0, 0 },\n    [38] = {0, 0, 1, 1 },\n    [99] = {1, 1, 1, 1 }\n",
    );
    let texts: Vec<&str> = files.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "name: TDH.MEM.TRACK\nnumber: 38\nop_states:\n  \
             - { modules: [\"1.5.01\"], states: [INITIALIZED, RUNNABLE] }\n  \
             - { modules: [\"2.0.18\"], states: [RUNNABLE, START_EXPORT] }\nsept_states:\n  \
             - { modules: [\"1.5.01\"], states: [FREE] }\n",
            "name: TDH.MNG.INIT\nnumber: 21\nop_states:\n  \
             - { modules: [\"2.0.18\"], states: [UNINITIALIZED] }\nyields: x\n",
        ]
    );
    assert_eq!(changes.len(), 3);
    assert_eq!(changes[2].kind, Kind::Missing);
}

#[test]
fn a_leaf_that_is_no_longer_gated() {
    let (files, changes) = states("2.0.18", "    [21] = {1, 0, 0, 0 }\n");
    assert_eq!(files[0].1, LEAF.replace(", \"2.0.18\"", ""));
    assert_eq!(changes.len(), 2);
}

#[test]
fn states_of_leaves_as_json() {
    let rows = r#"[{ "name": "TDH.MEM.TRACK", "number": 38, "op_states": ["INITIALIZED", "RUNNABLE"], "sept_states": null }]"#;
    let contents = read("seamcall_leaves.json", rows).expect("a table");
    let (files, changes) =
        merge_states(&sources(), &HashMap::new(), "1.5.01", &contents.allowed[0])
            .expect("well-formed leaves");
    assert_eq!((files, changes), (vec![], vec![]));
}
