//! Every number of tdx-abi against tables that were read from Intel's source independently.
#![expect(
    clippy::std_instead_of_alloc,
    reason = "a test binary: it has std, and a panic is how it fails"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use tdx_abi::Hpa;
use tdx_abi::L2SeptState;
use tdx_abi::Module;
use tdx_abi::OpState;
use tdx_abi::OperandId;
use tdx_abi::SeptState;
use tdx_abi::StatusCode;
use tdx_abi::field;
use tdx_abi::field::FieldId;
use tdx_abi::field::FieldRow;
use tdx_abi::field::FieldTable;
use tdx_abi::format::Eptp;
use tdx_abi::format::StatusBits;
use tdx_abi::leaf::LeafRow;
use tdx_abi::leaf::SEAMCALL_LEAVES;
use tdx_abi::leaf::TDCALL_LEAVES;
use tdx_abi::module::RELEASES;
use tdx_abi::msr::MSRS;
use tdx_abi::operand::OPERAND_IDS;
use tdx_abi::sept::StateRow;
use tdx_abi::status::SEAMLDR_STATUSES;
use tdx_abi::status::STATUS_CODES;
use tdx_abi::status::SeamldrStatus;

fn facts(path: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data/facts")
        .join(path);
    serde_json::from_str(&fs::read_to_string(path).expect("the file is there"))
        .expect("the file is JSON")
}

fn module_facts(module: Module, file: &str) -> Vec<Value> {
    match facts(&format!("tdx-module-{}/{file}.json", module.name())) {
        Value::Array(rows) => rows,
        _ => panic!("{file} is a list"),
    }
}

fn text(row: &Value, key: &str) -> String {
    row[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} of {row} is a text"))
        .to_owned()
}

/// A number, or a text with one in hexadecimal; absent is 0.
fn number(value: &Value) -> u64 {
    match value {
        Value::Null => 0,
        Value::Bool(flag) => u64::from(*flag),
        Value::Number(number) => number.as_u64().expect("not negative"),
        Value::String(text) => {
            u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("hexadecimal")
        }
        _ => panic!("{value} is a number"),
    }
}

#[test]
fn statuses() {
    for (module, count) in [
        (Module::V1_5_01, 165),
        (Module::V1_5_34, 202),
        (Module::V2_0_18, 289),
    ] {
        let rows = module_facts(module, "status_codes");
        assert_eq!(rows.len(), count);
        let wanted: BTreeSet<(String, u64)> = rows
            .iter()
            .map(|row| {
                (
                    text(row, "name").trim_start_matches("TDX_").to_owned(),
                    number(&row["value"]),
                )
            })
            .collect();
        let ours: BTreeSet<(String, u64)> = STATUS_CODES
            .iter()
            .filter(|row| row.is_in(module))
            .map(|row| (row.name.to_owned(), row.value))
            .collect();
        let differing: Vec<_> = ours.symmetric_difference(&wanted).collect();
        assert!(differing.is_empty(), "{}: {differing:x?}", module.name());
        for (name, value) in wanted {
            assert_eq!(StatusCode::new(value | 0x1234).name(), Some(name.as_str()));
            assert_eq!(StatusCode::new(value).is_error(), value >> 63 != 0);
        }
    }
}

/// What typed calls compare the number with is what the tables say, also of a code that a leaf has marked as fatal.
#[test]
fn retry_classes_are_those_of_the_tables() {
    let fatal = StatusBits::new().with_fatal(true).into_bits();
    let hint = StatusBits::new()
        .with_host_recoverability_hint(true)
        .into_bits();
    let mut classes = BTreeSet::new();
    for row in STATUS_CODES {
        for marks in [0, fatal, hint, fatal | hint] {
            let code = StatusCode::new(row.value | marks);
            let looked_up = code.row().and_then(|row| row.retry);
            assert_eq!(code.retry(), looked_up, "{} and {marks:#x}", row.name);
        }
        classes.extend(row.retry.map(|retry| format!("{retry:?}")));
    }
    assert_eq!(classes.len(), 3, "{classes:?}");
    for row in SEAMLDR_STATUSES {
        assert_eq!(
            SeamldrStatus::new(row.value).retry(),
            row.retry,
            "{}",
            row.name
        );
    }
    assert!(SEAMLDR_STATUSES.iter().any(|row| row.retry.is_some()));
}

#[test]
fn operands() {
    for (module, count) in [
        (Module::V1_5_01, 50),
        (Module::V1_5_34, 58),
        (Module::V2_0_18, 63),
    ] {
        let rows = module_facts(module, "operand_ids");
        assert_eq!(rows.len(), count);
        for row in rows {
            let id = OperandId::new(u32::try_from(number(&row["value"])).expect("32 bits"));
            assert_eq!(id.name(), Some(text(&row, "name").as_str()));
        }
    }
    assert_eq!(OPERAND_IDS.len(), 63);
}

#[test]
fn op_states() {
    for (module, count) in [
        (Module::V1_5_01, 11),
        (Module::V1_5_34, 13),
        (Module::V2_0_18, 13),
    ] {
        let rows = module_facts(module, "op_states");
        assert_eq!(rows.len(), count);
        for row in rows {
            let state = OpState::new(u32::try_from(number(&row["value"])).expect("32 bits"))
                .expect("a state");
            assert_eq!(state.name(), text(&row, "name"));
            assert_eq!(
                state.servtd_bind_allowed(),
                row["servtd_bind_allowed"].as_bool().expect("a flag")
            );
            for (flag, value) in row["flags"].as_object().expect("flags") {
                let ours = match flag.as_str() {
                    "tlb_tracking_required" => state.tlb_tracking_required(),
                    "any_initialized" => state.any_initialized(),
                    "any_finalized" => state.any_finalized(),
                    "export_in_order" => state.export_in_order(),
                    "export_in_progress" => state.export_in_progress(),
                    "import_in_order" => state.import_in_order(),
                    "import_out_of_order" => state.import_out_of_order(),
                    "import_in_progress" => state.import_in_progress(),
                    _ => panic!("unknown flag {flag}"),
                };
                assert_eq!(u64::from(ours), number(value), "{flag} of {}", state.name());
            }
        }
    }
    assert_eq!(OpState::ALL.len(), 13);
}

macro_rules! flags {
    ($state:ident, $flag:ident: $($name:ident)*) => {
        match $flag {
            $(stringify!($name) => u64::from($state.$name()),)*
            _ => panic!("unknown flag {}", $flag),
        }
    };
}

macro_rules! sept_states {
    ($module:ident, $rows:ident, $ty:ident) => {
        for row in $rows.as_array().expect("a list") {
            let state = $ty::ALL.into_iter().find(|state| state.name() == text(row, "name")).expect("a state");
            let encoding = u8::try_from(number(&row["encoding"])).expect("8 bits");
            assert_eq!(state.encoding(), encoding, "{}", state.name());
            // EXPORTED shares its encoding with EXPORTED_BLOCKEDW: the export mode decides.
            if state.name() != "EXPORTED" {
                assert_eq!($ty::decode(encoding, $module), Some(state));
            }
            let ours: &StateRow<$ty> = $ty::ROWS
                .iter()
                .find(|ours| ours.state == state && ours.modules.contains($module))
                .expect("a row for the module");
            let also = row.get("also_with_d_bit").map(|value| u8::try_from(number(value)).expect("8 bits"));
            assert_eq!(ours.also, also, "{}", state.name());
            for (flag, value) in row["flags"].as_object().expect("flags") {
                let flag = flag.as_str();
                let got = match flag {
                    "public_state" => u64::from(state.public_state()),
                    "index" => u64::from(ours.index.expect("an index")),
                    _ => flags!(state, flag:
                        live_export_allowed write_blocking_live_export_allowed paused_export_allowed
                        first_time_export_allowed re_export_allowed export_cancel_allowed first_time_import_allowed
                        re_import_allowed import_cancel_allowed mapped_or_pending any_exported any_exported_and_dirty
                        any_exported_and_non_dirty any_pending any_pending_incl_mmio any_pending_and_guest_acceptable
                        any_blocked any_blocked_excluding_mmio any_blockedw guest_fully_accessible_leaf
                        tlb_tracking_required guest_accessible_leaf any_leaf free_or_removed state_encoding_overlap
                        d_bit_is_a_state_bit),
                };
                assert_eq!(got, number(value), "{flag} of {} in {}", state.name(), $module.name());
            }
        }
    };
}

#[test]
fn sept_states() {
    for (module, l1_count, l2_count) in [
        (Module::V1_5_01, 16, 5),
        (Module::V1_5_34, 23, 5),
        (Module::V2_0_18, 26, 7),
    ] {
        let all = facts(&format!("tdx-module-{}/sept_states.json", module.name()));
        let (l1, l2) = (&all["l1"], &all["l2"]);
        assert_eq!(
            (l1.as_array().map(Vec::len), l2.as_array().map(Vec::len)),
            (Some(l1_count), Some(l2_count))
        );
        sept_states!(module, l1, SeptState);
        sept_states!(module, l2, L2SeptState);
        let in_module = SeptState::ROWS
            .iter()
            .filter(|row| row.modules.contains(module))
            .count();
        assert_eq!(in_module, l1_count);
    }
}

fn leaves(module: Module, file: &str, ours: &[LeafRow], dispatched: usize) {
    let rows = module_facts(module, file);
    for row in &rows {
        let name = text(row, "name");
        let leaf = ours
            .iter()
            .find(|leaf| leaf.name == name)
            .unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(u64::from(leaf.number), number(&row["number"]), "{name}");
        let states = |key: &str| {
            row[key].as_array().map(|list| {
                list.iter()
                    .filter_map(Value::as_str)
                    .collect::<BTreeSet<_>>()
            })
        };
        let op_states = leaf
            .op_states(module)
            .map(|set| set.iter().map(OpState::name).collect());
        assert_eq!(
            op_states,
            states("op_states"),
            "OP_STATEs of {name} in {}",
            module.name()
        );
        let sept_states = leaf
            .sept_states(module)
            .map(|set| set.iter().map(SeptState::name).collect());
        assert_eq!(
            sept_states,
            states("sept_states"),
            "entry states of {name} in {}",
            module.name()
        );
        if let Some(versions) = row["versions"].as_array() {
            let is_dispatched = row["dispatched"].as_bool().expect("a flag");
            assert_eq!(leaf.dispatched(module), is_dispatched, "{name}");
            for version in 0..8 {
                let accepted = is_dispatched
                    && versions
                        .iter()
                        .any(|known| number(known) == u64::from(version));
                assert_eq!(
                    leaf.accepts(module, version),
                    accepted,
                    "{name} version {version}"
                );
            }
        }
    }
    let ours = ours.iter().filter(|leaf| leaf.dispatched(module)).count();
    assert_eq!(ours, dispatched, "leaves that {} dispatches", module.name());
}

#[test]
fn seamcall_leaves() {
    let dispatched = |module| {
        let rows = module_facts(module, "seamcall_leaves");
        rows.iter()
            .filter(|row| row["dispatched"] != Value::Bool(false))
            .count()
    };
    for module in [Module::V1_5_34, Module::V2_0_18] {
        leaves(
            module,
            "seamcall_leaves",
            SEAMCALL_LEAVES,
            dispatched(module),
        );
    }
    // The table of 1.5.01 lists every number of its header; MEM.SEPT.WR is one that its dispatcher does not know.
    leaves(
        Module::V1_5_01,
        "seamcall_leaves",
        SEAMCALL_LEAVES,
        dispatched(Module::V1_5_01) - 1,
    );
}

#[test]
fn tdcall_leaves() {
    for module in Module::ALL {
        let rows = module_facts(module, "tdcall_leaves");
        let dispatched = rows
            .iter()
            .filter(|row| row["dispatched"] != Value::Bool(false))
            .count();
        leaves(module, "tdcall_leaves", TDCALL_LEAVES, dispatched);
    }
}

fn fields(module: Module, file: &str, table: &'static FieldTable) {
    let rows = module_facts(module, file);
    let ours = table.of(module);
    assert_eq!(ours.len(), rows.len(), "{file} of {}", module.name());
    for (index, (row, ours)) in rows.iter().zip(ours.iter()).enumerate() {
        field(row, ours);
        assert_eq!(
            table
                .of(module)
                .position(FieldId::from_bits(ours.id.into_bits() ^ 1 << 63)),
            Some(index)
        );
    }
}

fn field(row: &Value, ours: &FieldRow) {
    let name = text(row, "name");
    assert_eq!(ours.name, name);
    assert_eq!(ours.id.into_bits(), number(&row["field_id"]), "{name}");
    assert_eq!(
        u64::from(ours.num_of_fields),
        number(&row["num_of_fields"]),
        "{name}"
    );
    assert_eq!(
        u64::from(ours.num_of_elem),
        number(&row["num_of_elem"]),
        "{name}"
    );
    assert_eq!(u64::from(ours.offset), number(&row["offset"]), "{name}");
    let mask = |keys: &[&str]| {
        keys.iter()
            .map(|key| number(&row[*key]))
            .fold(0, |all, mask| all | mask)
    };
    let masks = [
        (ours.prod_rd_mask, mask(&["prod_rd_mask", "vmm_rd_mask"])),
        (ours.prod_wr_mask, mask(&["prod_wr_mask", "vmm_wr_mask"])),
        (ours.dbg_rd_mask, mask(&["dbg_rd_mask"])),
        (ours.dbg_wr_mask, mask(&["dbg_wr_mask"])),
        (
            ours.guest_rd_mask,
            mask(&["guest_rd_mask", "l1_vmm_rd_mask"]),
        ),
        (
            ours.guest_wr_mask,
            mask(&["guest_wr_mask", "l1_vmm_wr_mask"]),
        ),
        (ours.migtd_rd_mask, mask(&["migtd_rd_mask"])),
        (ours.migtd_wr_mask, mask(&["migtd_wr_mask"])),
        (ours.export_mask, mask(&["export_mask"])),
        (ours.import_mask, mask(&["import_mask"])),
    ];
    for (index, (ours, wanted)) in masks.into_iter().enumerate() {
        assert_eq!(ours, wanted, "mask {index} of {name}");
    }
    let class = |key: &str| row[key].as_str().unwrap_or("MIG_NONE").to_owned();
    assert_eq!(
        format!("MIG_{}", ours.mig_export.name()),
        class("mig_export"),
        "{name}"
    );
    assert_eq!(
        format!("MIG_{}", ours.mig_import.name()),
        class("mig_import"),
        "{name}"
    );
    assert_eq!(
        ours.special_rd,
        row["special_rd_handling"] == Value::Bool(true),
        "{name}"
    );
    assert_eq!(
        ours.special_wr,
        row["special_wr_handling"] == Value::Bool(true),
        "{name}"
    );
}

#[test]
fn metadata_fields() {
    for module in Module::ALL {
        fields(module, "metadata_global", &field::GLOBAL);
        fields(module, "metadata_tdr_tdcs", &field::TDR_TDCS);
        fields(module, "metadata_tdvps", &field::TDVPS);
        fields(module, "metadata_td_vmcs", &field::TD_VMCS);
        fields(module, "metadata_td_l2_vmcs", &field::TD_L2_VMCS);
    }
}

/// TDVPS has three fields for each L2 VM, of which the VMCS is one.
#[test]
fn most_l2_vms() {
    for module in Module::ALL {
        let rows = field::TDVPS.of(module);
        let vmcs = rows.iter().filter(|row| row.name.starts_with("L2_VMCS_"));
        assert_eq!(vmcs.count(), usize::from(field::MAX_L2_VMS), "{module:?}");
    }
}

/// Without the tables, the MMU takes what the host may write of the pointer to be the root.
#[test]
fn of_shared_eptp_the_host_writes_the_root() {
    let root = Eptp::from_bits(0).with_root(Hpa::new(u64::MAX)).into_bits();
    for module in Module::ALL {
        let row = field::TD_VMCS.of(module).row(field::td_vmcs::SHARED_EPTP);
        assert_eq!(row.map(|row| row.prod_wr_mask), Some(root), "{module:?}");
    }
}

#[test]
fn msrs() {
    for module in [Module::V1_5_01, Module::V1_5_34] {
        msrs_of(module);
    }
}

fn msrs_of(module: Module) {
    let rows = module_facts(module, "msr_virtualization");
    let ours: Vec<_> = MSRS
        .iter()
        .filter(|row| row.modules.contains(module))
        .collect();
    assert_eq!(ours.len(), rows.len());
    for (row, ours) in rows.iter().zip(ours) {
        assert_eq!(ours.name, text(row, "name"));
        assert_eq!(
            (u64::from(ours.start), u64::from(ours.end)),
            (number(&row["start"]), number(&row["end"]))
        );
        for (ours, key) in [(ours.read, "read"), (ours.write, "write")] {
            let bitmap = text(&row[key], "bitmap").replace("MSR_BITMAP_", "");
            let action = text(&row[key], "action").replace("MSR_ACTION_", "");
            assert_eq!(ours, format!("{bitmap} {action}"));
        }
    }
}

#[test]
fn releases() {
    let all = facts("module_releases.json");
    let rows = all["tdx_module_releases"].as_array().expect("a list");
    assert_eq!(RELEASES.len(), rows.len());
    for row in rows {
        let version = text(row, "version");
        let ours = RELEASES
            .iter()
            .find(|ours| ours.version == version)
            .unwrap_or_else(|| panic!("{version}"));
        assert_eq!(ours.features0, number(&row["tdx_feature0"]), "{version}");
        assert_eq!(
            ours.min_update_from,
            row["min_module_version_for_td_preserving"].as_str(),
            "{version}"
        );
    }
}
