//! Changing many entries by one call of the backend.

use core::sync::atomic::Ordering;

use tdx_abi::Level;
use tdx_abi::PrivateGpa;

use super::External;
use super::Kind;
use super::MirrorEntry;
use super::Mode;
use super::Position;
use super::Section;
use super::Stop;
use super::change::change;
use super::change::found;
use crate::Word;
use crate::embed::Grace;
use crate::embed::Tables;

impl<'s, E: Tables + Grace, M: Mode<E::Word>> Section<'s, E, M> {
    /// Makes the entry at `at` this section's own if it still says what `at` says.
    ///
    /// Others see it as frozen until [`Section::publish`], which has to follow before the section ends.
    pub(crate) fn claim(&mut self, at: Position) -> bool {
        let slot = self.cursor.seek(at.gpa.bits(), at.level);
        slot.level == at.level && M::claim(slot.entry, at.entry.bits()).is_ok()
    }

    /// Ends the claim of the 4 KiB entry at `gpa`; it says `entry` now.
    pub(crate) fn publish(&mut self, gpa: PrivateGpa, entry: MirrorEntry) {
        let slot = self.cursor.seek(gpa.bits(), Level::Pt);
        slot.entry.store(entry.bits(), Ordering::Release);
    }

    /// Lets the guest write to the 4 KiB page at `gpa` again, which an export has blocked for writing.
    ///
    /// Nothing happens if it is not blocked for writing.
    pub(crate) fn allow_writes<X: External>(
        &mut self,
        external: &X,
        gpa: PrivateGpa,
    ) -> Result<(), Stop<X::Error>> {
        let slot = self.cursor.seek(gpa.bits(), Level::Pt);
        let at = Position::new(gpa.bits(), slot.level, slot.value);
        match at.entry.kind() {
            Kind::ExportLeaf(page, state) if state.is_write_blocked() => {
                let new = if state.is_exported() {
                    MirrorEntry::exporting(page, super::ExportState::Dirty)
                } else {
                    MirrorEntry::leaf(page)
                };
                change::<M, _, _>(external, slot.entry, at, new)
            }
            Kind::Frozen => Err(found(at)),
            _ => Ok(()),
        }
    }
}
