//! Metadata: every field of TDR, TDCS, TDVPS and the VMCSes, by field identifier.
//!
//! One engine serves TDH.MNG.RD/WR, TDH.VP.RD/WR, TDH.SYS.RD, the TDG leaves, service TDs and
//! migration. What a field is, where it lies and who may see which bits comes from Intel's tables;
//! written here are only the lookup rules and the fields that need more than a masked copy.
//!
//! Source of the rules: `src/common/metadata_handlers` of the TDX module 1.5.01.

mod access;
mod cursor;
pub(crate) mod fields;
pub(crate) mod id;
mod structure;
mod system;
mod table;
mod td;
mod vcpu;
mod vcpu_write;

pub(crate) use access::Access;
pub(crate) use access::Masks;
pub(crate) use cursor::Cursor;
pub(crate) use cursor::Step;
pub(crate) use cursor::cpuid_index;
pub(crate) use cursor::cpuid_leaf_index;
pub(crate) use structure::Area;
pub(crate) use system::features0;
pub(crate) use system::limit;
pub(crate) use table::added_to_tdcs;
pub(crate) use td::hp_lock_timeout_ticks;
pub(crate) use td::locate as locate_in_td;
pub(crate) use vcpu::interrupt_is_pending;
pub(crate) use vcpu_write::is_guest_xcr0;

use crate::abi::Module;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::metadata::id::Id;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::Tdr;
use crate::structures::Tdvps;
use crate::structures::tdcs;
use tdx_abi::field::FieldRow;

/// Elements that a field has at most.
pub(crate) const MAX_ELEMENTS: usize = 16;

/// The scope of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ContextCode {
    /// The module and the platform.
    System = 0,
    /// One TD: TDR and TDCS.
    Td = 1,
    /// One vCPU: its VMCSes and TDVPS.
    Vcpu = 2,
}

/// The control structures and the module state that one access works on.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    /// The platform.
    pub(crate) core: &'a Core,
    /// TDR, for a TD or vCPU field.
    pub(crate) tdr: Option<Tdr<'a>>,
    /// TDCS, for a TD or vCPU field.
    pub(crate) tdcs: Option<Tdcs<'a>>,
    /// TDVPS, for a vCPU field.
    pub(crate) tdvps: Option<Tdvps<'a>>,
}

impl Context<'_> {
    /// The module whose tables are used.
    pub(crate) const fn module(&self) -> Module {
        self.core.rules().tables
    }

    /// Number of L2 VMs of the TD; 0 where no TD is looked at.
    fn l2_vms(&self) -> u16 {
        self.tdcs.map_or(0, |tdcs| tdcs.get(tdcs::NUM_L2_VMS))
    }

    /// The identifier of the element after `id` (the first one for [`Id::NONE`]) that `access` may
    /// use; [`Id::NONE`] if there is none.
    pub(crate) fn next_element(&self, context: ContextCode, id: Id, access: Access) -> Id {
        match Cursor::at(context, id, self.module(), self.l2_vms()) {
            None => Id::NONE,
            Some(mut cursor) => {
                cursor.advance_accessible(Step::Element, access);
                cursor.id()
            }
        }
    }

    /// A cursor at `id`.
    pub(crate) fn cursor(&self, context: ContextCode, id: Id) -> Option<Cursor> {
        Cursor::at(context, id, self.module(), self.l2_vms())
    }

    /// Reads the element `id`.
    pub(crate) fn read_element(
        &self,
        context: ContextCode,
        id: Id,
        access: Access,
    ) -> Result<u64, Status> {
        let row = self.row(context, id)?;
        match context {
            ContextCode::System => system::read_element(self, id, row, access),
            ContextCode::Td => td::read_element(self, id, row, access),
            ContextCode::Vcpu => vcpu::read_element(self, id, row, access),
        }
    }

    /// Writes the bits `mask` of the element `id`, and returns what it was before.
    pub(crate) fn write_element(
        &self,
        context: ContextCode,
        id: Id,
        access: Access,
        value: u64,
        mask: u64,
    ) -> Result<u64, Status> {
        let row = self.row(context, id)?;
        match context {
            ContextCode::System => Err(Status::of(StatusCode::METADATA_FIELD_NOT_WRITABLE)),
            ContextCode::Td => td::write_element(self, id, row, access, value, mask),
            ContextCode::Vcpu => vcpu_write::write_element(self, id, row, access, value, mask),
        }
    }

    /// Reads all elements of the field that starts at `id`, described by `row`.
    pub(crate) fn read_field(
        &self,
        context: ContextCode,
        id: Id,
        row: &'static FieldRow,
        access: Access,
        values: &mut [u64; MAX_ELEMENTS],
    ) -> Result<(), Status> {
        match context {
            ContextCode::System => system::read_field(self, id, row, access, values),
            ContextCode::Td => td::read_field(self, id, row, access, values),
            ContextCode::Vcpu if row.num_of_elem == 1 => {
                values[0] = vcpu::read_element(self, id, row, access)?;
                Ok(())
            }
            ContextCode::Vcpu => Err(Status::of(StatusCode::METADATA_FIELD_ID_INCORRECT)),
        }
    }

    fn row(&self, context: ContextCode, id: Id) -> Result<&'static FieldRow, Status> {
        let cursor = Cursor::at(context, id, self.module(), self.l2_vms());
        cursor
            .filter(|_| !id.is_none())
            .and_then(|cursor| cursor.row())
            .ok_or(Status::of(StatusCode::METADATA_FIELD_ID_INCORRECT))
    }
}

/// Whether the bits that a write selects but may not change keep their value.
const fn forbidden_bits_unchanged(old: u64, value: u64, requested: u64, writable: u64) -> bool {
    let forbidden = requested & !writable;
    old & forbidden == value & forbidden
}

/// A control structure that the caller must have given; without it no field is found.
fn given<T>(structure: Option<T>) -> Result<T, Status> {
    structure.ok_or(Status::of(StatusCode::METADATA_FIELD_ID_INCORRECT))
}
