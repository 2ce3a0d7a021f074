use core::sync::atomic::Ordering;

use super::MirrorEntry;
use crate::Word;
use crate::gate::Exclusive;
use crate::gate::Shared;

/// How a section makes sure that an entry is its own while the backend changes it.
pub trait Mode<W> {
    /// Makes `entry` the section's own if it holds `old`; otherwise the value seen is the error.
    fn claim(entry: &W, old: u64) -> Result<(), u64>;

    /// As [`Mode::claim`], where the section has just read `old` from `entry`.
    fn claim_seen(entry: &W, old: u64) -> Result<(), u64>;
}

impl<W: Word> Mode<W> for Shared<'_, W> {
    #[inline(always)]
    fn claim(entry: &W, old: u64) -> Result<(), u64> {
        entry.replace(old, MirrorEntry::FROZEN.bits())
    }

    #[inline(always)]
    fn claim_seen(entry: &W, old: u64) -> Result<(), u64> {
        Self::claim(entry, old)
    }
}

impl<W: Word> Mode<W> for Exclusive<'_, W> {
    #[inline(always)]
    fn claim(entry: &W, old: u64) -> Result<(), u64> {
        match entry.load(Ordering::Relaxed) {
            seen if seen == old => Ok(()),
            seen => Err(seen),
        }
    }

    #[inline(always)]
    fn claim_seen(_: &W, _: u64) -> Result<(), u64> {
        Ok(())
    }
}
