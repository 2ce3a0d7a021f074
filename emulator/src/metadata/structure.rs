//! A control structure as bytes at Intel's offsets, for fields of any size.

use crate::frame::Field;
use crate::frame::Frame;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::Tdr;
use crate::structures::Tdvps;

/// The control structure in which a field lies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Area<'m> {
    /// TDR.
    Tdr(Tdr<'m>),
    /// TDCS.
    Tdcs(Tdcs<'m>),
    /// TDVPS.
    Tdvps(Tdvps<'m>),
}

/// A control structure whose offsets are the module's own.
#[derive(Clone, Copy)]
struct Own<S>(S);

impl<'m, S: Structure<'m>> Structure<'m> for Own<S> {
    fn page(self, page: usize) -> &'m Frame {
        self.0.page(page)
    }
}

impl Area<'_> {
    /// The `size` bytes (1, 2, 4 or 8) at `offset`, zero-extended.
    pub(crate) fn load(self, offset: u32, size: u32) -> u64 {
        match self {
            Self::Tdr(tdr) => load(Own(tdr), offset, size),
            Self::Tdcs(tdcs) => load(Own(tdcs), offset, size),
            Self::Tdvps(tdvps) => load(Own(tdvps), offset, size),
        }
    }

    /// Stores the low `size` bytes of `value` at `offset`.
    pub(crate) fn store(self, offset: u32, size: u32, value: u64) {
        match self {
            Self::Tdr(tdr) => store(Own(tdr), offset, size, value),
            Self::Tdcs(tdcs) => store(Own(tdcs), offset, size, value),
            Self::Tdvps(tdvps) => store(Own(tdvps), offset, size, value),
        }
    }

    /// Stores `new` if the `size` bytes at `offset` still are `old`, and says whether it did.
    pub(crate) fn compare_exchange(self, offset: u32, size: u32, old: u64, new: u64) -> bool {
        match self {
            Self::Tdr(tdr) => compare_exchange(Own(tdr), offset, size, old, new),
            Self::Tdcs(tdcs) => compare_exchange(Own(tdcs), offset, size, old, new),
            Self::Tdvps(tdvps) => compare_exchange(Own(tdvps), offset, size, old, new),
        }
    }
}

fn load<'m>(structure: impl Structure<'m>, offset: u32, size: u32) -> u64 {
    match size {
        1 => structure.get(Field::<u8>::at(offset)).into(),
        2 => structure.get(Field::<u16>::at(offset)).into(),
        4 => structure.get(Field::<u32>::at(offset)).into(),
        _ => structure.get(Field::<u64>::at(offset)),
    }
}

fn store<'m>(structure: impl Structure<'m>, offset: u32, size: u32, value: u64) {
    match size {
        1 => structure.set(Field::at(offset), value as u8),
        2 => structure.set(Field::at(offset), value as u16),
        4 => structure.set(Field::at(offset), value as u32),
        _ => structure.set(Field::at(offset), value),
    }
}

fn compare_exchange<'m>(
    structure: impl Structure<'m>,
    offset: u32,
    size: u32,
    old: u64,
    new: u64,
) -> bool {
    let swap = |now, old, new| if now == old { new } else { now };
    match size {
        1 => {
            structure.update(Field::<u8>::at(offset), |now| {
                swap(now.into(), old, new) as u8
            }) == old as u8
        }
        2 => {
            structure.update(Field::<u16>::at(offset), |now| {
                swap(now.into(), old, new) as u16
            }) == old as u16
        }
        4 => {
            structure.update(Field::<u32>::at(offset), |now| {
                swap(now.into(), old, new) as u32
            }) == old as u32
        }
        _ => structure.update(Field::<u64>::at(offset), |now| swap(now, old, new)) == old,
    }
}
