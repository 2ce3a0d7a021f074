//! Leaves on lists of pages: claim the entries, one call, publish what became of each.

use core::sync::atomic::Ordering;

use tdx_abi::PrivateGpa;
use tdx_abi::format::GpaListEntry;
use tdx_abi::format::GpaListOperation;
use tdx_abi::format::GpaListStatus;

use super::super::Error;
use super::super::Td;
use super::Stream;
use super::leaves::LEVEL;
use super::leaves::Listed;
use crate::GpaRange;
use crate::Word;
use crate::embed::Embedder;
use crate::mirror::Kind;
use crate::mirror::MirrorEntry;
use crate::mirror::Position;
use crate::mirror::SharedSection;

/// What a leaf does with the pages of a list.
pub(super) struct Operation<W, N> {
    /// What the entries of the list ask for.
    pub(super) ask: GpaListOperation,
    /// Whether a page is to be in the list.
    pub(super) wanted: W,
    /// What the mirror says of a page once the leaf has succeeded with it.
    pub(super) next: N,
}

/// What became of one list.
#[derive(Debug)]
pub(super) struct Done {
    /// Entries in the list.
    pub(super) entries: u16,
    /// Entries that the leaf has processed.
    pub(super) processed: u16,
    /// Entries that the leaf has carried out.
    pub(super) changed: u16,
    /// Whether a page was left out because somebody else was changing it.
    pub(super) busy: bool,
    /// Why the leaf failed.
    pub(super) result: Result<(), Error>,
}

impl<E: Embedder> Td<E> {
    /// Puts the next wanted pages of `range` from `address` on into a list, at most as many as the stream has pages,
    /// and calls `leaf` with their number if there are any. `address` is where to go on.
    pub(super) fn on_list(
        &self,
        stream: &Stream<'_, E>,
        range: GpaRange,
        address: &mut u64,
        operation: Operation<impl FnMut(&Position) -> bool, impl Fn(MirrorEntry) -> MirrorEntry>,
        leaf: impl FnOnce(u16) -> Listed,
    ) -> Done {
        let Operation {
            ask,
            mut wanted,
            next,
        } = operation;
        let mut section = self.mirror.section(&self.embedder);
        let mut done = Done {
            entries: 0,
            processed: 0,
            changed: 0,
            busy: false,
            result: Ok(()),
        };
        while usize::from(done.entries) < stream.capacity() {
            let Some(at) = section.next(*address, range.end()) else {
                *address = range.end();
                break;
            };
            *address = at.end();
            if at.entry.kind() == Kind::Frozen {
                done.busy = true;
            } else if at.level == LEVEL && wanted(&at) {
                if section.claim(at) {
                    let entry = GpaListEntry::new().with_operation(ask).with_gpa(at.gpa);
                    put(stream, done.entries, entry.into_bits(), at.entry);
                    done.entries += 1;
                } else {
                    done.busy = true;
                }
            }
        }
        if done.entries > 0 {
            let listed = leaf(done.entries);
            done.processed = listed.processed;
            done.result = listed.result;
            for index in 0..done.entries {
                let (entry, old) = get(stream, index);
                let carried_out = index < listed.processed && succeeded(stream, index);
                let now = if carried_out { next(old) } else { old };
                section.publish(entry.gpa(), now);
                done.changed += u16::from(carried_out);
            }
        }
        done
    }
}

/// Puts an entry into the list, and notes what the mirror said of it.
pub(super) fn put<E: Embedder>(stream: &Stream<'_, E>, index: u16, entry: u64, old: MirrorEntry) {
    let index = usize::from(index);
    stream.gpas()[index].store(entry, Ordering::Relaxed);
    stream.asked()[index].store(entry, Ordering::Relaxed);
    stream.old()[index].store(old.bits(), Ordering::Relaxed);
}

/// An entry as it was put into the list, and what the mirror said of it.
pub(super) fn get<E: Embedder>(stream: &Stream<'_, E>, index: u16) -> (GpaListEntry, MirrorEntry) {
    let index = usize::from(index);
    (
        GpaListEntry::from_bits(stream.asked()[index].load(Ordering::Relaxed)),
        MirrorEntry::from_bits(stream.old()[index].load(Ordering::Relaxed)),
    )
}

/// Whether the module says of an entry that it has processed that it was carried out.
pub(super) fn succeeded<E: Embedder>(stream: &Stream<'_, E>, index: u16) -> bool {
    let entry = stream.gpas()[usize::from(index)].load(Ordering::Relaxed);
    GpaListEntry::from_bits(entry).status() == GpaListStatus::SUCCESS
}

/// Claims the 4 KiB entry at `gpa`, whatever it says; `Ok(None)` if somebody else has it.
pub(super) fn claim_any<E: Embedder>(
    section: &mut SharedSection<'_, E>,
    gpa: PrivateGpa,
) -> Result<Option<MirrorEntry>, Position> {
    let at = section.look(gpa, LEVEL);
    match at.entry.kind() {
        Kind::Frozen => Ok(None),
        Kind::Poisoned(_) => Err(at),
        _ if at.level != LEVEL => Err(at),
        _ => Ok(section.claim(at).then_some(at.entry)),
    }
}
