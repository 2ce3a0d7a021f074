//! Walking from one field to the next, in the order in which the module enumerates them.

use crate::abi::Module;
use crate::cpuid;
use crate::metadata::Access;
use crate::metadata::ContextCode;
use crate::metadata::id::CpuidCode;
use crate::metadata::id::Id;
use crate::metadata::table;
use crate::metadata::table::Table;
use tdx_abi::field::FieldRow;

/// How far one step goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// To the next element, of the same field where it has one.
    Element,
    /// To the first element of the next field.
    Field,
}

/// A place in the enumeration of the fields of one context.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    table: Table,
    index: usize,
    id: Id,
    module: Module,
    l2_vms: u16,
}

impl Cursor {
    /// At the element `id` of `context`, in a TD with `l2_vms` L2 VMs; before the first element if
    /// `id` is [`Id::NONE`]. `None` if no field has this identifier.
    pub(crate) fn at(context: ContextCode, id: Id, module: Module, l2_vms: u16) -> Option<Self> {
        let table = Table::of(context, id);
        let index = if id.is_none() {
            0
        } else {
            table.find(module, l2_vms, id)?
        };
        Some(Self {
            table,
            index,
            id,
            module,
            l2_vms,
        })
    }

    /// At the field that begins with the element `id`, as the field's row writes it: of `id` itself only class and field
    /// code count. `None` if no field begins there with elements of that size.
    ///
    /// Source: `md_check_field_and_get_entry` in `metadata_generic.c` of the module 1.5.01.
    pub(crate) fn at_field(
        context: ContextCode,
        id: Id,
        module: Module,
        l2_vms: u16,
    ) -> Option<Self> {
        let cursor = Self::at(context, id, module, l2_vms)?;
        if id.is_none() {
            return Some(cursor);
        }
        let first = Id::new(cursor.row()?.id.into_bits());
        let elements = first.stride() * u32::from(cursor.row()?.num_of_elem);
        let distance = id.field_code().checked_sub(first.field_code())?;
        let begins = distance.is_multiple_of(elements)
            && id.element_size_code() == first.element_size_code();
        begins.then_some(Self {
            id: first.with_field_code(id.field_code()),
            ..cursor
        })
    }

    /// The identifier here; [`Id::NONE`] past the end.
    pub(crate) const fn id(&self) -> Id {
        self.id
    }

    /// The row that describes the field here.
    pub(crate) fn row(&self) -> Option<&'static FieldRow> {
        self.table.fields(self.module).get(self.index)
    }

    /// Goes on to the next element or field that `access` may read, or write if it is a write.
    pub(crate) fn advance_accessible(&mut self, step: Step, access: Access) {
        loop {
            self.advance(step);
            if self.id.is_none() {
                return;
            }
            let Some(row) = self.row() else {
                self.id = Id::NONE;
                return;
            };
            let masks = access.masks(row);
            if (if access.is_write() {
                masks.write
            } else {
                masks.read
            }) != 0
            {
                return;
            }
        }
    }

    /// Goes on to the next element or field, accessible or not.
    pub(crate) fn advance(&mut self, step: Step) {
        if self.id.is_none() {
            self.index = 0;
            let Some(row) = self.row() else { return };
            self.enter(Id::new(row.id.into_bits()));
            return;
        }
        if self.is_cpuid() {
            if let Some(next) = next_cpuid(self.id, step) {
                self.id = next;
                return;
            }
        } else if let Some(next) = self.next_in_row(step) {
            self.id = next;
            return;
        }
        self.enter_next_row();
    }

    fn is_cpuid(&self) -> bool {
        self.table == Table::TdrTdcs && self.id.class_code() == table::CPUID_VALUES
    }

    fn next_in_row(&self, step: Step) -> Option<Id> {
        let row = self.row()?;
        let first = Id::of(row.id);
        let (unit, count) = match step {
            Step::Element => (
                first.stride(),
                u32::from(row.num_of_fields) * u32::from(row.num_of_elem),
            ),
            Step::Field => (
                first.stride() * u32::from(row.num_of_elem),
                u32::from(row.num_of_fields),
            ),
        };
        let number = (self.id.field_code() - first.field_code()) / unit;
        (number + 1 < count).then(|| self.id.with_field_code(self.id.field_code() + unit))
    }

    fn enter_next_row(&mut self) {
        let left = self.id;
        let after = self.index + 1;
        if after < self.table.len(self.module, self.l2_vms) {
            self.index = after;
        } else {
            // The VMCS tables are followed by, or embedded in, the table of TDVPS.
            self.index = match self.table {
                Table::TdVmcs => 0,
                Table::L2Vmcs => {
                    let row = Table::Tdvps.find(self.module, self.l2_vms, left.with_field_code(0));
                    row.map_or(usize::MAX, |row| row + 1)
                }
                Table::Global | Table::TdrTdcs | Table::Tdvps => usize::MAX,
            };
            self.table = Table::Tdvps;
        }
        let beyond = self.index >= self.table.len(self.module, self.l2_vms);
        let Some(row) = self.row().filter(|_| !beyond) else {
            self.id = Id::NONE;
            return;
        };
        let id = Id::new(row.id.into_bits());
        if self.table == Table::L2Vmcs {
            self.id = id.with_class_code(left.class_code());
        } else {
            self.enter(id);
        }
    }

    /// Takes `id`, the first of a row, and steps down where the row stands for a table of its own.
    fn enter(&mut self, id: Id) {
        self.id = id;
        if self.is_cpuid() {
            if let Some(first) = cpuid::LOOKUP.first() {
                self.id = id.with_field_code(
                    CpuidCode::new(first.leaf, first.subleaf_or_ones(), id.cpuid().element())
                        .bits(),
                );
            }
        } else if self.table == Table::Tdvps && table::l2_vmcs_vm(id).is_some() {
            self.table = Table::L2Vmcs;
            self.index = 0;
            if let Some(row) = self.row() {
                self.id = Id::new(row.id.into_bits()).with_class_code(id.class_code());
            }
        }
    }
}

/// The element of the next CPUID leaf, or the second one of this leaf.
fn next_cpuid(id: Id, step: Step) -> Option<Id> {
    let code = id.cpuid();
    if step == Step::Element && code.element() == 0 {
        return Some(id.with_field_code(id.field_code() + 1));
    }
    let next = cpuid::LOOKUP.get(cpuid_index(code)? + 1)?;
    Some(id.with_field_code(CpuidCode::new(next.leaf, next.subleaf_or_ones(), 0).bits()))
}

/// Index in the module's CPUID table of the leaf and sub-leaf that `code` names.
pub(crate) fn cpuid_index(code: CpuidCode) -> Option<usize> {
    cpuid_leaf_index(code.leaf(), code.subleaf())
}

/// Index in the module's CPUID table of a leaf and sub-leaf.
pub(crate) fn cpuid_leaf_index(leaf: u32, subleaf: u32) -> Option<usize> {
    cpuid::LOOKUP
        .iter()
        .position(|entry| entry.leaf == leaf && entry.subleaf.is_none_or(|known| known == subleaf))
}
