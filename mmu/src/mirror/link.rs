//! Mirrored tables as wholes, and the Secure-EPT pages that stand for them.

use core::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;

use super::Kind;
use super::MirrorEntry;
use super::MirrorFormat;
use super::Position;
use crate::Word;
use crate::deposit::Pair;
use crate::embed::Tables;
use crate::l2::Link;
use crate::tree::Tree;

/// Notes that the Secure-EPT page `external` stands for `table`, and as yet none of an L2 VM.
pub(super) fn remember<T: Tables>(tables: &T, table: Hpa, external: Hpa) {
    tables.link(table).store(external.bits(), Ordering::Relaxed);
    for link in tables.l2_links(table).into_iter().flatten() {
        link.store(Link::Absent.bits(), Ordering::Relaxed);
    }
}

/// The Secure-EPT page that stands for `table`.
pub(crate) fn external_page<T: Tables>(tables: &T, table: Hpa) -> Hpa {
    Hpa::new(tables.link(table).load(Ordering::Relaxed))
}

/// Prepares the pair's table for linking, with all entries empty.
pub(super) fn prepare_empty<T: Tables>(tables: &T, pair: &Pair) {
    Tree::<MirrorFormat>::clear(tables, pair.table.hpa());
    remember(tables, pair.table.hpa(), pair.external.hpa());
}

/// Prepares the pair's table for linking, with leaves of `level` over the memory from that of `first` on.
pub(super) fn prepare_leaves<T: Tables>(tables: &T, pair: &Pair, first: MirrorEntry, level: Level) {
    let first = first.bits();
    for (index, entry) in (0..).zip(tables.entries(pair.table.hpa())) {
        entry.store(first + index * level.size(), Ordering::Relaxed);
    }
    remember(tables, pair.table.hpa(), pair.external.hpa());
}

/// Takes a pair back whose table is about to leave the tree.
///
/// `None` if an address is not that of a 4 KiB page, which no table has.
pub(super) fn take_back<T: Tables>(tables: &T, table: Hpa) -> Option<Pair> {
    let external = Page::assume_owned(external_page(tables, table), Level::Pt)?;
    let table = Page::assume_owned(table, Level::Pt)?;
    Some(Pair { table, external })
}

/// What a table can become whose 512 leaves map contiguous memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uniform {
    /// The large leaf; marked as accepted if all 512 are.
    pub(crate) leaf: MirrorEntry,
    /// Whether only some of the 512 have that mark.
    pub(crate) is_mixed: bool,
}

/// The leaf that `table` can become, if its 512 entries of `level` are unblocked leaves over contiguous memory
/// aligned to their whole; otherwise the first entry that is not so.
pub(super) fn uniform<T: Tables>(
    tables: &T,
    table: Hpa,
    gpa: PrivateGpa,
    level: Level,
) -> Result<Uniform, Position> {
    let entries = tables.entries(table);
    // Nobody changes them now; whoever did has left a section since.
    let seen = |index: usize| MirrorEntry::from_bits(entries[index].load(Ordering::Relaxed));
    let here = |index: usize| {
        Position::new(
            gpa.bits() + index as u64 * level.size(),
            level,
            seen(index).bits(),
        )
    };
    let hpa = match seen(0).kind() {
        Kind::Leaf(hpa) if level.above().is_some_and(|above| hpa.is_aligned(above)) => hpa,
        _ => return Err(here(0)),
    };
    let first = MirrorEntry::leaf(hpa).bits();
    let mut accepted = 0;
    for index in 0..entries.len() {
        let entry = seen(index);
        if entry.unmarked().bits() != first + index as u64 * level.size() {
            return Err(here(index));
        }
        accepted += usize::from(entry.is_accepted());
    }
    let leaf = MirrorEntry::leaf(hpa);
    let all = accepted == entries.len();
    Ok(Uniform {
        leaf: if all { leaf.accepted() } else { leaf },
        is_mixed: !all && accepted > 0,
    })
}

/// Whether all entries of `table`, which have `level`, are empty; otherwise the first that is not.
pub(super) fn vacant<T: Tables>(
    tables: &T,
    table: Hpa,
    gpa: PrivateGpa,
    level: Level,
) -> Result<(), Position> {
    for (index, entry) in (0..).zip(tables.entries(table)) {
        let bits = entry.load(Ordering::Relaxed);
        if bits != MirrorEntry::EMPTY.bits() {
            return Err(Position::new(
                gpa.bits() + index * level.size(),
                level,
                bits,
            ));
        }
    }
    Ok(())
}
