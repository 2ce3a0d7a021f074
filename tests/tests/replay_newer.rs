//! The recordings of 1.5.01 replayed on newer modules: every call whose answer differs, differs by a rule of their source.

use std::path::Path;

use tdx_abi::Registers;
use tdx_abi::field;
use tdx_abi::field::FieldId;
use tdx_abi::field::FieldRow;
use tdx_abi::field::tdr_tdcs;
use tdx_abi::field::tdvps;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::leaf::TdcallLeaf;
use tdx_abi::operand::OperandId;
use tdx_abi::status::Status;
use tdx_abi::status::StatusCode;
use tdx_cli::replay::Difference;
use tdx_cli::replay::Mismatch;
use tdx_cli::replay::Outcome;
use tdx_cli::replay::replay_on;
use tdx_emulator::Module;

/// TDCX pages that a TD of 2.0.18 has more; they count as pages of the TD, too.
const EXTRA_PAGES: u64 = 3;
/// Context codes of a field identifier.
const TD: u64 = 1;
const VCPU: u64 = 2;

/// A difference that the newer source asks for.
struct Rule {
    /// What differs, and the file of the newer module that says so.
    name: &'static str,
    holds: fn(&Call<'_>) -> bool,
    /// How many calls of all recordings differ by it, on 1.5.34 and on 2.0.18.
    calls: [u64; 2],
}

/// A call that came out otherwise than recorded.
struct Call<'a> {
    module: Module,
    name: &'a str,
    sequence: &'a str,
    before: &'a Registers,
    recorded: &'a Registers,
    actual: &'a Registers,
}

impl Call<'_> {
    fn codes(&self) -> [StatusCode; 2] {
        [self.recorded, self.actual].map(|registers| Status::from_rax(registers.rax).code())
    }

    fn is_host(&self, leaf: SeamcallLeaf) -> bool {
        self.name.starts_with("TDH.") && self.before.rax as u16 == leaf.number()
    }

    /// Whether the leaf carries out a list of operations on pages.
    fn is_on_gpa_list(&self) -> bool {
        let leaves = [
            SeamcallLeaf::TDH_EXPORT_BLOCKW,
            SeamcallLeaf::TDH_EXPORT_RESTORE,
            SeamcallLeaf::TDH_EXPORT_MEM,
            SeamcallLeaf::TDH_IMPORT_MEM,
        ];
        leaves.iter().any(|leaf| self.is_host(*leaf))
    }

    fn version(&self) -> u64 {
        self.before.rax >> 16 & 0xff
    }

    /// Whether nothing differs but the registers that `without` gives a value of its own.
    fn is_only(&self, without: impl Fn(&mut Registers)) -> bool {
        let [mut recorded, mut actual] = [*self.recorded, *self.actual];
        without(&mut recorded);
        without(&mut actual);
        recorded == actual
    }

    /// Whether the leaf reads or writes a metadata field.
    fn is_metadata(&self) -> bool {
        let leaf = self.name.rsplit_once('.');
        leaf.is_some_and(|(of, what)| {
            matches!(what, "RD" | "WR") && !matches!(of, "TDH.MEM" | "TDH.MEM.SEPT")
        })
    }

    /// Whether the tables of the two modules differ in the field that the leaf is told to access.
    fn differs_in_field(&self) -> bool {
        let of_td = [".MNG.", ".VM.", ".SERVTD."]
            .iter()
            .any(|part| self.name.contains(part));
        self.differs_in(if of_td { TD } else { VCPU }, self.before.rdx)
    }

    /// Whether they differ in the field with this identifier.
    fn differs_in_next(&self, id: u64) -> bool {
        id != u64::MAX && self.differs_in(id >> 52 & 7, id)
    }

    fn differs_in(&self, context: u64, id: u64) -> bool {
        let id = FieldId::from_bits(id);
        let described = |row: &FieldRow| {
            (
                (row.id.into_bits(), row.num_of_fields, row.num_of_elem),
                [row.prod_rd_mask, row.prod_wr_mask],
                [row.dbg_rd_mask, row.dbg_wr_mask],
                [row.guest_rd_mask, row.guest_wr_mask],
                [row.migtd_rd_mask, row.migtd_wr_mask],
            )
        };
        let [old, new] =
            [Module::V1_5_01, self.module].map(|module| row(module, context, id).map(described));
        old != new
    }
}

/// The row that holds the element `id` in the tables of a module for this context.
fn row(module: Module, context: u64, id: FieldId) -> Option<&'static FieldRow> {
    let l2_vmcs = [tdvps::L2_VMCS_1, tdvps::L2_VMCS_2, tdvps::L2_VMCS_3]
        .iter()
        .any(|vmcs| vmcs.class_code() == id.class_code());
    let (table, class) = if context == TD {
        (&field::TDR_TDCS, id.class_code())
    } else if l2_vmcs {
        (&field::TD_L2_VMCS, 0)
    } else if id.class_code() == 0 {
        (&field::TD_VMCS, 0)
    } else {
        (&field::TDVPS, id.class_code())
    };
    table.of(module).iter().find(|row| {
        let stride = 1 + u32::from(row.id.into_bits() >> 50 & 1 != 0);
        let codes = u32::from(row.num_of_fields) * u32::from(row.num_of_elem) * stride;
        row.id.class_code() == class
            && id.field_code() >= row.id.field_code()
            && id.field_code() - row.id.field_code() < codes
    })
}

fn invalid(operand: OperandId) -> u64 {
    Status::with_operand(StatusCode::OPERAND_INVALID, operand).rax()
}

const RULES: &[Rule] = &[
    Rule {
        name: "OP_STATE_INCORRECT and VCPU_STATE_INCORRECT tell the state (helpers.c)",
        holds: |call| {
            let [recorded, actual] = call.codes();
            let states = [
                StatusCode::OP_STATE_INCORRECT,
                StatusCode::VCPU_STATE_INCORRECT,
            ];
            recorded == actual
                && states.contains(&actual)
                && call.recorded.rax as u32 == 0
                && call.is_only(|registers| registers.rax = 0)
        },
        calls: [1687, 1687],
    },
    Rule {
        name: "RANGE.UNBLOCK names RCX where TLB tracking is not done (tdh_mem_range_unblock.c)",
        holds: |call| {
            let status =
                |operand| Status::with_operand(StatusCode::TLB_TRACKING_NOT_DONE, operand).rax();
            call.is_host(SeamcallLeaf::TDH_MEM_RANGE_UNBLOCK)
                && call.recorded.rax == status(OperandId::SEPT_TREE)
                && call.actual.rax == status(OperandId::RCX)
                && call.is_only(|registers| registers.rax = 0)
        },
        calls: [151, 151],
    },
    Rule {
        name: "RAX does not count the entries of a GPA list that failed (tdh_export_blockw.c, tdh_export_restore.c, tdh_export_mem.c, tdh_import_mem.c)",
        holds: |call| {
            call.is_on_gpa_list()
                && call.recorded.rax != 0
                && call.codes() == [StatusCode::SUCCESS; 2]
                && call.actual.rax == 0
                && call.is_only(|registers| registers.rax = 0)
        },
        calls: [9, 9],
    },
    Rule {
        name: "leaves that take a GPA list have a version 1, and each version but 0 counts those entries in R8 (same files)",
        holds: |call| {
            call.is_on_gpa_list()
                && call.version() > 0
                && call.recorded.rax == invalid(OperandId::RAX)
                && call.actual.r8 == 0
                && (call.version() == 1 || call.actual.rax == call.recorded.rax)
        },
        calls: [16, 16],
    },
    Rule {
        name: "a TD has three TDCX pages more (td_control_structures.h)",
        holds: |call| {
            const CLASS_AND_CODE: u64 = 0x3f << 56 | 0xff_ffff;
            let counts = [tdr_tdcs::NUM_TDCX, tdr_tdcs::CHLDCNT];
            call.is_metadata()
                && counts
                    .iter()
                    .any(|id| (id.into_bits() ^ call.before.rdx) & CLASS_AND_CODE == 0)
                && call.actual.r8 == call.recorded.r8 + EXTRA_PAGES
                && call.is_only(|registers| registers.r8 = 0)
        },
        calls: [0, 810],
    },
    Rule {
        name: "MAX_VCPUS has a limit (global_constants.h), and the TD that was refused is not initialised",
        holds: |call| {
            call.sequence.starts_with("td_params/maxvcpus_")
                && (call.actual.rax == invalid(OperandId::MAX_VCPUS)
                    || call.codes()[1] == StatusCode::OP_STATE_INCORRECT)
        },
        calls: [10, 10],
    },
    Rule {
        name: "a field is new, gone, or has other masks (tdr_tdcs_fields_lookup.c, tdvps_fields_lookup.c, td_vmcs_fields_lookup.c)",
        holds: |call| call.is_metadata() && call.differs_in_field(),
        calls: [263, 334],
    },
    Rule {
        name: "the next field that can be accessed is a new one, or the recorded one cannot be accessed any more (same files)",
        holds: |call| {
            let next = [call.recorded.rdx, call.actual.rdx];
            let keeps_rdx_of_a_read = matches!(call.name, "TDH.VP.ENTER" | "EXIT");
            (call.is_metadata() || keeps_rdx_of_a_read)
                && call.is_only(|registers| registers.rdx = 0)
                && (call.differs_in_next(next[0]) || call.differs_in_next(next[1]))
        },
        calls: [143, 143],
    },
    Rule {
        name: "bit 16 of R8 of SYS.CONFIG asks for Dynamic PAMT (tdh_sys_config.c)",
        holds: |call| {
            call.is_host(SeamcallLeaf::TDH_SYS_CONFIG)
                && call.before.r8 >> 16 == 1
                && call.recorded.rax == invalid(OperandId::R8)
                && call.actual.rax == 0
        },
        calls: [1, 1],
    },
    Rule {
        name: "VP.INIT has a version 1 (tdx_vmm_dispatcher.c)",
        holds: |call| {
            call.is_host(SeamcallLeaf::TDH_VP_INIT)
                && call.version() == 1
                && call.recorded.rax == invalid(OperandId::RAX)
                && call.is_only(|registers| registers.rax = 0)
        },
        calls: [1, 1],
    },
    Rule {
        name: "VEINFO.GET clears its outputs before it looks at its version (tdg_vp_veinfo_get.c)",
        holds: |call| {
            let outputs = |registers: &Registers| {
                [
                    registers.rcx,
                    registers.rdx,
                    registers.r8,
                    registers.r9,
                    registers.r10,
                ]
            };
            call.before.rax as u16 == TdcallLeaf::TDG_VP_VEINFO_GET.number()
                && call.version() > 0
                && call.recorded.rax == invalid(OperandId::RAX)
                && call.actual.rax == call.recorded.rax
                && outputs(call.actual) == [0; 5]
        },
        calls: [3, 3],
    },
    Rule {
        name: "a service TD may not be migratable, which SERVTD.BIND asks before the target's state (tdh_servtd_bind.c)",
        holds: |call| {
            call.is_host(SeamcallLeaf::TDH_SERVTD_BIND)
                && call.codes()[1] == StatusCode::SERVTD_CANNOT_BE_MIGRATABLE
                && call.is_only(|registers| registers.rax = 0)
        },
        calls: [1, 1],
    },
    Rule {
        name: "VEINFO.GET has a version 1 (tdg_vp_veinfo_get.c)",
        holds: |call| {
            call.before.rax as u16 == TdcallLeaf::TDG_VP_VEINFO_GET.number()
                && call.version() == 1
                && call.recorded.rax == invalid(OperandId::RAX)
                && call.codes()[1] == StatusCode::NO_VALID_VE_INFO
        },
        calls: [1, 1],
    },
    Rule {
        name: "MONITOR and MWAIT are undefined and no reason for #VE (tdx_td_dispatcher.c)",
        holds: |call| {
            const MWAIT: u64 = 36;
            const MONITOR: u64 = 39;
            call.before.rax == u64::from(TdcallLeaf::TDG_VP_VEINFO_GET.number())
                && matches!(call.recorded.rcx, MWAIT | MONITOR)
                && call.codes()[1] == StatusCode::NO_VALID_VE_INFO
        },
        calls: [4, 4],
    },
    Rule {
        name: "state takes more pages of a list (tdr_tdcs_fields_lookup.c, tdvps_fields_lookup.c)",
        holds: |call| {
            (call.is_host(SeamcallLeaf::TDH_EXPORT_STATE_IMMUTABLE)
                || call.is_host(SeamcallLeaf::TDH_EXPORT_STATE_VP))
                && call.actual.rdx > call.recorded.rdx
                && call.is_only(|registers| registers.rdx = 0)
        },
        calls: [3, 3],
    },
];

/// Replays everything and counts which rule explains how many calls.
fn explain(module: Module) -> (u64, Vec<u64>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/vectors");
    let mut counts = vec![0; RULES.len()];
    let mut calls = 0;
    let mut checks = Vec::new();
    let mut without_rule = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the recordings are there") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "gz") {
            continue;
        }
        let Outcome {
            calls: of_file,
            mismatches,
            ..
        } = replay_on(module, &path, None, usize::MAX).expect("readable");
        calls += of_file;
        for mismatch in mismatches {
            match &mismatch.difference {
                Difference::Text { .. } => checks.push(mismatch.sequence),
                Difference::Registers { .. } => match rule_of(module, &mismatch) {
                    Some(number) => counts[number] += 1,
                    None => without_rule.push(mismatch),
                },
            }
        }
    }
    for (rule, count) in RULES.iter().zip(&counts) {
        println!("{count:5} {}", rule.name);
    }
    assert!(without_rule.is_empty(), "{without_rule:#x?}");
    // PROMOTE locks the tree exclusively, so the entry's lock stays free (tdh_mem_page_promote.c).
    assert_eq!(checks, [PROMOTE_OF_A_LOCKED_ENTRY]);
    (calls, counts)
}

/// The sequence in which PROMOTE leaves its mark in the entry on 1.5.01.
const PROMOTE_OF_A_LOCKED_ENTRY: &str = "MEM_PAGE_PROMOTE/sept_lock_ex";

fn rule_of(module: Module, mismatch: &Mismatch) -> Option<usize> {
    let Difference::Registers {
        recorded, actual, ..
    } = &mismatch.difference
    else {
        return None;
    };
    let call = Call {
        module,
        name: &mismatch.name,
        sequence: &mismatch.sequence,
        before: &mismatch.before,
        recorded,
        actual,
    };
    RULES.iter().position(|rule| (rule.holds)(&call))
}

#[test]
fn every_difference_of_1_5_34_has_a_rule() {
    let expected: Vec<u64> = RULES.iter().map(|rule| rule.calls[0]).collect();
    assert_eq!(explain(Module::V1_5_34), (105_974, expected));
}

#[test]
fn every_difference_of_2_0_18_has_a_rule() {
    let expected: Vec<u64> = RULES.iter().map(|rule| rule.calls[1]).collect();
    assert_eq!(explain(Module::V2_0_18), (105_974, expected));
}

#[test]
fn every_rule_is_needed() {
    for rule in RULES {
        assert_ne!(rule.calls, [0, 0], "{}", rule.name);
    }
}
