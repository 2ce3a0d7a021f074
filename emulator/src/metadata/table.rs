//! The field tables, in the order in which identifiers are enumerated.

use tdx_abi::field;
use tdx_abi::field::FieldId;
use tdx_abi::field::FieldRow;
use tdx_abi::field::Fields;
use tdx_abi::field::MAX_L2_VMS;

use crate::abi::Module;
use crate::metadata::ContextCode;
use crate::metadata::fields;
use crate::metadata::id::Id;

/// One table of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// Module-wide fields.
    Global,
    /// TDR and TDCS.
    TdrTdcs,
    /// TDVPS.
    Tdvps,
    /// VMCS of the L1 VM; comes before [`Table::Tdvps`] in the vCPU context.
    TdVmcs,
    /// VMCS of an L2 VM; its rows stand in for the L2_VMCS rows of [`Table::Tdvps`].
    L2Vmcs,
}

impl Table {
    /// The table in which a field of `context` with this identifier is looked up.
    pub(crate) const fn of(context: ContextCode, id: Id) -> Self {
        match context {
            ContextCode::System => Self::Global,
            ContextCode::Td => Self::TdrTdcs,
            ContextCode::Vcpu if id.is_none() || id.class_code() == VMCS => Self::TdVmcs,
            ContextCode::Vcpu if l2_vmcs_vm(id).is_some() => Self::L2Vmcs,
            ContextCode::Vcpu => Self::Tdvps,
        }
    }

    /// All rows of `module`.
    pub(crate) const fn fields(self, module: Module) -> Fields {
        let table = match self {
            Self::Global => &field::GLOBAL,
            Self::TdrTdcs => &field::TDR_TDCS,
            Self::Tdvps => &field::TDVPS,
            Self::TdVmcs => &field::TD_VMCS,
            Self::L2Vmcs => &field::TD_L2_VMCS,
        };
        table.of(module)
    }

    /// The number of rows that exist in a TD with `l2_vms` L2 VMs: rows of further L2 VMs end the tables.
    pub(crate) fn len(self, module: Module, l2_vms: u16) -> usize {
        let fields = self.fields(module);
        let vm: fn(Id) -> Option<u16> = match self {
            Self::TdrTdcs => l2_td_vm,
            Self::Tdvps => l2_vcpu_vm,
            Self::Global | Self::TdVmcs | Self::L2Vmcs => return fields.len(),
        };
        let unused = |row: &&FieldRow| vm(Id::of(row.id)).is_some_and(|vm| vm > l2_vms);
        fields.len() - fields.iter().rev().take_while(unused).count()
    }

    /// The row that holds the element `id`, if there is one.
    pub(crate) fn find(self, module: Module, l2_vms: u16, id: Id) -> Option<usize> {
        let class = if matches!(self, Self::L2Vmcs) {
            VMCS
        } else {
            id.class_code()
        };
        let cpuid = matches!(self, Self::TdrTdcs) && class == CPUID_VALUES;
        let code = if cpuid {
            id.cpuid().element()
        } else {
            id.field_code()
        };
        let holds = |row: &FieldRow| {
            let row_id = Id::of(row.id);
            let elements = u32::from(row.num_of_elem) * u32::from(row.num_of_fields);
            let first = row_id.field_code();
            row_id.class_code() == class
                && code >= first
                && code - first < elements * row_id.stride()
        };
        let fields = self.fields(module);
        fields.iter().take(self.len(module, l2_vms)).position(holds)
    }
}

/// Offset in TDCS of a field that newer modules have and 1.5.01 has not; for constants alone, where a field that
/// `module` does not have does not compile.
pub(crate) const fn added_to_tdcs(module: Module, id: FieldId) -> u32 {
    match field::TDR_TDCS.of(module).row(id) {
        Some(row) => row.offset,
        None => panic!("the module has no such field"),
    }
}

/// Class of the fields of the TD VMCS, and of the table of L2 VMCS fields.
pub(crate) const VMCS: u8 = fields::td_vmcs::VPID.class_code();
/// Class of the virtual CPUID values of a TD.
pub(crate) const CPUID_VALUES: u8 = fields::tdr_tdcs::CPUID_VALUES.class_code();

const L2_VMCS: [u8; MAX_L2_VMS as usize] = [
    fields::tdvps::L2_VMCS_1.class_code(),
    fields::tdvps::L2_VMCS_2.class_code(),
    fields::tdvps::L2_VMCS_3.class_code(),
];

const L2_MSR_BITMAPS: [u8; MAX_L2_VMS as usize] = [
    fields::tdvps::L2_MSR_BITMAPS_1.class_code(),
    fields::tdvps::L2_MSR_BITMAPS_2.class_code(),
    fields::tdvps::L2_MSR_BITMAPS_3.class_code(),
];

const L2_SHADOW_MSR_BITMAPS: [u8; MAX_L2_VMS as usize] = [
    fields::tdvps::L2_SHADOW_MSR_BITMAPS_1.class_code(),
    fields::tdvps::L2_SHADOW_MSR_BITMAPS_2.class_code(),
    fields::tdvps::L2_SHADOW_MSR_BITMAPS_3.class_code(),
];

const L2_SEPT_ROOT: [u8; MAX_L2_VMS as usize] = [
    fields::tdr_tdcs::L2_SEPT_ROOT_1.class_code(),
    fields::tdr_tdcs::L2_SEPT_ROOT_2.class_code(),
    fields::tdr_tdcs::L2_SEPT_ROOT_3.class_code(),
];

/// The L2 VM (1..=3) of whose VMCS `id` is a field.
pub(crate) const fn l2_vmcs_vm(id: Id) -> Option<u16> {
    vm_of_class(L2_VMCS, id.class_code())
}

/// The L2 VM of whose MSR exit bitmaps `id` is an element.
pub(crate) const fn l2_msr_bitmaps_vm(id: Id) -> Option<u16> {
    vm_of_class(L2_MSR_BITMAPS, id.class_code())
}

/// The L2 VM (1..=3) to which a field of the vCPU context belongs.
pub(crate) fn l2_vcpu_vm(id: Id) -> Option<u16> {
    l2_vmcs_vm(id)
        .or(l2_msr_bitmaps_vm(id))
        .or(vm_of_class(L2_SHADOW_MSR_BITMAPS, id.class_code()))
}

/// Offset in TDVPS of the MSR exit bitmaps as the L1 VMM asked for them for L2 VM `vm`.
pub(crate) fn l2_shadow_msr_bitmaps(module: Module, vm: u16) -> u32 {
    let of_vm =
        |row: &&FieldRow| vm_of_class(L2_SHADOW_MSR_BITMAPS, row.id.class_code()) == Some(vm);
    Table::Tdvps
        .fields(module)
        .iter()
        .find(of_vm)
        .map_or(0, |row| row.offset)
}

fn l2_td_vm(id: Id) -> Option<u16> {
    vm_of_class(L2_SEPT_ROOT, id.class_code())
}

const fn vm_of_class(classes: [u8; MAX_L2_VMS as usize], class: u8) -> Option<u16> {
    let mut index = 0;
    while index < classes.len() {
        if classes[index] == class {
            return Some(index as u16 + 1);
        }
        index += 1;
    }
    None
}
