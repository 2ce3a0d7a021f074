use super::EptEntry;
use super::EptPosition;
use super::EptSection;
use super::Gather;
use crate::Word;
use crate::embed::Grace;
use crate::embed::Tables;

use tdx_abi::Level;

impl<E: Tables + Grace> EptSection<'_, E> {
    /// Replaces every leaf that begins in [`from`, `end`) by what `change` makes of it.
    ///
    /// `change` may run again for an entry that somebody else changed meanwhile; it returns the entry
    /// unchanged to leave it alone.
    pub fn update(
        &mut self,
        from: u64,
        end: u64,
        gather: &mut Gather,
        mut change: impl FnMut(EptPosition) -> EptEntry,
    ) {
        let mut address = from;
        while let Some(at) = self.next(address, end) {
            address = at.end();
            if !at.entry.is_leaf() {
                continue;
            }
            let slot = self.cursor.seek(at.gpa.bits(), at.level);
            let mut seen = EptPosition::new(at.gpa.bits(), slot.level, slot.value);
            while seen.level == at.level && seen.entry.is_leaf() {
                let new = change(seen);
                if new == seen.entry {
                    break;
                }
                match slot.entry.replace(seen.entry.bits(), new.bits()) {
                    Ok(()) => {
                        gather.stale(1);
                        break;
                    }
                    Err(now) => seen.entry = EptEntry::from_bits(now),
                }
            }
        }
    }

    /// Begins dirty logging: withholds writes from all leaves of the range.
    ///
    /// A later write faults; [`EptSection::grant`] lets it through and says that the page is dirty now.
    pub fn catch_writes(&mut self, from: u64, end: u64, gather: &mut Gather) {
        self.update(from, end, gather, |at| at.entry.without_write());
    }

    /// Begins an ageing round: withholds all access, and reports each leaf with whether it was in use.
    pub fn age(
        &mut self,
        from: u64,
        end: u64,
        gather: &mut Gather,
        mut report: impl FnMut(EptPosition, bool),
    ) {
        self.update(from, end, gather, |at| {
            let aged = at.entry.without_access();
            report(at, aged != at.entry || at.entry.accessed());
            aged.clean()
        });
    }

    /// Collects and clears the hardware's accessed and dirty bits, for a guest under an EPTP that has
    /// them enabled. Never for a TD, whose EPTP has them off.
    pub fn collect_accessed_dirty(
        &mut self,
        from: u64,
        end: u64,
        gather: &mut Gather,
        mut report: impl FnMut(EptPosition),
    ) {
        self.update(from, end, gather, |at| {
            report(at);
            at.entry.clean()
        });
    }

    /// Gives the leaf of `level` at `at` the access that was withheld, as far as the page has it by right.
    ///
    /// Returns the entry before; whoever has to log dirty pages sees there that writes were withheld.
    pub fn grant(
        &mut self,
        at: EptPosition,
        wanted: super::Permissions,
    ) -> Result<EptEntry, super::EptStop> {
        let slot = self.cursor.seek(at.gpa.bits(), at.level);
        let seen = EptPosition::new(at.gpa.bits(), slot.level, slot.value);
        if seen.level != at.level || !seen.entry.is_leaf() {
            return Err(self.found(seen));
        }
        self.exchange(slot.entry, seen, seen.entry.granting(wanted))?;
        Ok(seen.entry)
    }

    /// Sets the access that the guest has by right to every leaf of the range.
    pub fn protect(
        &mut self,
        from: u64,
        end: u64,
        permissions: super::Permissions,
        gather: &mut Gather,
    ) {
        self.update(from, end, gather, |at| at.entry.with_right(permissions));
    }

    /// Level of the entry that a walk to `address` ends at.
    pub fn level_at(&mut self, address: u64) -> Level {
        self.cursor.seek(address, Level::Pt).level
    }
}
