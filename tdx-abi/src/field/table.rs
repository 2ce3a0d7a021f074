//! The tables of fields: who may read and write which bits, and what migrates.

use super::FieldId;
use crate::module::Module;

tdx_codegen_macros::fields!(area = tables);

/// What the addresses in a field are, and to which VMs it applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct FieldAttributes(u8);

impl FieldAttributes {
    /// Whether the field holds a host-physical address.
    pub const fn hpa(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether the field holds a guest-physical address.
    pub const fn gpa(self) -> bool {
        self.0 & 2 != 0
    }

    /// Whether the address is private.
    pub const fn private(self) -> bool {
        self.0 & 4 != 0
    }

    /// Whether the address is shared.
    pub const fn shared(self) -> bool {
        self.0 & 8 != 0
    }

    /// Whether the field applies to the L1 VM.
    pub const fn vm_app_l1(self) -> bool {
        self.0 & 16 != 0
    }

    /// Whether the field applies to L2 VMs.
    pub const fn vm_app_l2(self) -> bool {
        self.0 & 32 != 0
    }
}

/// A metadata field.
///
/// A mask has a bit set where the role may read or write that bit of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldRow {
    /// Intel's name.
    pub name: &'static str,
    /// Id of the first element.
    pub id: FieldId,
    /// Fields of the array, at most.
    pub num_of_fields: u16,
    /// Elements of a field.
    pub num_of_elem: u16,
    /// Byte offset in the control structure; 0 where the table has none.
    pub offset: u32,
    /// What the host may read of a production TD (of the module, for global fields).
    pub prod_rd_mask: u64,
    /// What the host may write of a production TD.
    pub prod_wr_mask: u64,
    /// What the host may read of a debug TD.
    pub dbg_rd_mask: u64,
    /// What the host may write of a debug TD.
    pub dbg_wr_mask: u64,
    /// What the guest may read; of L2 VMCS fields, the L1 VMM.
    pub guest_rd_mask: u64,
    /// What the guest may write; of L2 VMCS fields, the L1 VMM.
    pub guest_wr_mask: u64,
    /// What the migration TD may read.
    pub migtd_rd_mask: u64,
    /// What the migration TD may write.
    pub migtd_wr_mask: u64,
    /// What is exported.
    pub export_mask: u64,
    /// What is imported.
    pub import_mask: u64,
    /// Part in export.
    pub mig_export: MigType,
    /// Part in import.
    pub mig_import: MigType,
    /// What the addresses in the field are.
    pub attributes: FieldAttributes,
    /// Whether reading has side conditions.
    pub special_rd: bool,
    /// Whether writing has side conditions.
    pub special_wr: bool,
}

/// Who may read, write and migrate a field: what many rows have in common.
struct Access {
    masks: [u64; 10],
    export: MigType,
    import: MigType,
    /// [`FieldAttributes`], and in bits 6 and 7 whether reading and writing have side conditions.
    flags: u8,
}

impl FieldRow {
    const fn new(
        name: &'static str,
        id: u64,
        num_of_fields: u16,
        num_of_elem: u16,
        offset: u32,
        access: &Access,
    ) -> Self {
        let masks = access.masks;
        Self {
            name,
            id: FieldId(id),
            num_of_fields,
            num_of_elem,
            offset,
            prod_rd_mask: masks[0],
            prod_wr_mask: masks[1],
            dbg_rd_mask: masks[2],
            dbg_wr_mask: masks[3],
            guest_rd_mask: masks[4],
            guest_wr_mask: masks[5],
            migtd_rd_mask: masks[6],
            migtd_wr_mask: masks[7],
            export_mask: masks[8],
            import_mask: masks[9],
            mig_export: access.export,
            mig_import: access.import,
            attributes: FieldAttributes(access.flags & 0x3f),
            special_rd: access.flags & 0x40 != 0,
            special_wr: access.flags & 0x80 != 0,
        }
    }
}

/// Rows of a control structure, for every module.
#[derive(Debug)]
pub struct FieldTable {
    /// Every row, in Intel's order; rows of one name differ in the modules that they hold for.
    rows: &'static [FieldRow],
    /// Indices in `rows` by module.
    order: [&'static [u16]; Module::COUNT],
}

impl FieldTable {
    /// The fields that `module` has, in Intel's order. Empty where the module's table is not public.
    pub const fn of(&'static self, module: Module) -> Fields {
        Fields {
            rows: self.rows,
            order: self.order[module as usize],
        }
    }
}

/// The fields of a control structure in one module, in Intel's order.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    rows: &'static [FieldRow],
    order: &'static [u16],
}

impl Fields {
    /// Number of fields.
    pub const fn len(self) -> usize {
        self.order.len()
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.order.is_empty()
    }

    /// The field in this place of the table.
    pub const fn get(self, index: usize) -> Option<&'static FieldRow> {
        if index < self.order.len() {
            Some(&self.rows[self.order[index] as usize])
        } else {
            None
        }
    }

    /// All fields.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = &'static FieldRow> + ExactSizeIterator {
        self.order
            .iter()
            .map(move |index| &self.rows[*index as usize])
    }

    /// Place of the field whose first element has this id, bit 63 not regarded.
    pub const fn position(self, id: FieldId) -> Option<usize> {
        let mut i = 0;
        while i < self.order.len() {
            if self.rows[self.order[i] as usize].id.is_same(id) {
                return Some(i);
            }
            i += 1;
        }
        None
    }

    /// The field whose first element has this id, bit 63 not regarded.
    pub const fn row(self, id: FieldId) -> Option<&'static FieldRow> {
        match self.position(id) {
            Some(index) => self.get(index),
            None => None,
        }
    }
}
