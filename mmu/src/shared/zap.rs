use core::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;

use super::EptEntry;
use super::EptFormat;
use super::EptPosition;
use super::EptSection;
use super::EptStop;
use super::Gather;
use crate::Word;
use crate::embed::Grace;
use crate::embed::Tables;
use crate::range::block_at;
use crate::tree::Format;

impl<E: Tables + Grace> EptSection<'_, E> {
    /// Removes every mapping in [`from`, `end`), tables that lie in it whole included.
    ///
    /// A large leaf that sticks out of the range ends it with [`EptStop::Found`]: it has to be split
    /// first. What was done before stays done, and is in `gather`.
    pub fn zap(&mut self, from: u64, end: u64, gather: &mut Gather) -> Result<(), EptStop> {
        let top = self.cursor.tree().top();
        let mut address = from;
        while address < end {
            // The highest entry that begins here and does not reach over the end.
            let level = block_at(address, end, top);
            let slot = self.cursor.seek(address, level);
            let at = EptPosition::new(address, slot.level, slot.value);
            if at.entry.bits() == EptFormat::EMPTY {
                address = at.end();
            } else if at.entry == EptEntry::FROZEN {
                // A promotion is under way, or the cursor is in a table that has left the tree.
                return Err(self.found(at));
            } else if at.gpa.bits() < from || at.end() > end {
                return Err(self.found(at));
            } else {
                match self.exchange(slot.entry, at, EptEntry::EMPTY) {
                    Ok(()) => {
                        gather.stale(1);
                        if EptFormat::is_table(slot.value) && slot.level > Level::Pt {
                            detach(
                                self.cursor.tables(),
                                EptFormat::table(slot.value),
                                slot.level,
                                gather,
                            );
                            self.cursor.reset();
                        }
                        address = at.end();
                    }
                    Err(EptStop::Found(_)) => {}
                    Err(stop) => return Err(stop),
                }
            }
        }
        Ok(())
    }
}

/// Freezes the table behind an unlinked entry of `level`, and all tables below, for good.
///
/// An entry that is frozen already belongs to a promotion, which waits for nobody; it is waited for, or
/// the promotion would store into a table that is no longer part of the tree.
fn detach<T: Tables>(tables: &T, table: Hpa, level: Level, gather: &mut Gather) {
    let Some(below) = level.below() else { return };
    for entry in tables.entries(table) {
        if below == Level::Pt {
            // A leaf that somebody installs just before is overwritten, as if zapped a moment later.
            entry.store(EptFormat::FROZEN, Ordering::Release);
            continue;
        }
        let mut seen = entry.load(Ordering::Acquire);
        loop {
            if seen == EptFormat::FROZEN {
                core::hint::spin_loop();
                seen = entry.load(Ordering::Acquire);
                continue;
            }
            match entry.replace(seen, EptFormat::FROZEN) {
                Ok(()) => break,
                Err(now) => seen = now,
            }
        }
        if EptFormat::is_table(seen) {
            detach(tables, EptFormat::table(seen), below, gather);
        }
    }
    gather.unlinked(tables, table);
}
