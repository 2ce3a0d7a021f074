//! Shared and exclusive sections of a mirrored tree.

use core::sync::atomic::Ordering;

use crate::Word;
use crate::embed::Relax;

const EXCLUSIVE: u64 = 1 << 63;

/// Many shared sections or one exclusive section; whoever waits for the exclusive one goes first.
///
/// Mirrors the TDX module's own lock of the Secure-EPT tree: what the module does under the shared
/// lock runs in a shared section, RANGE.BLOCK, RANGE.UNBLOCK and SEPT.REMOVE run in an exclusive
/// one, so that no caller meets TDX_OPERAND_BUSY because of another caller of this crate.
#[derive(Debug)]
pub(crate) struct Gate<W>(W);

impl<W: Word> Gate<W> {
    pub(crate) fn new() -> Self {
        Self(W::new(0))
    }

    pub(crate) fn shared<'g, R: Relax>(&'g self, relax: &R) -> Shared<'g, W> {
        while self.0.add(1) & EXCLUSIVE != 0 {
            self.0.sub(1);
            while self.0.load(Ordering::Relaxed) & EXCLUSIVE != 0 {
                relax.pause();
            }
        }
        Shared(&self.0)
    }

    pub(crate) fn exclusive<'g, R: Relax>(&'g self, relax: &R) -> Exclusive<'g, W> {
        loop {
            let seen = self.0.load(Ordering::Relaxed);
            if seen & EXCLUSIVE == 0 && self.0.replace(seen, seen | EXCLUSIVE).is_ok() {
                break;
            }
            relax.pause();
        }
        while self.0.load(Ordering::Acquire) != EXCLUSIVE {
            relax.pause();
        }
        Exclusive(&self.0)
    }
}

/// A shared section; ends when dropped.
#[derive(Debug)]
pub struct Shared<'g, W: Word>(&'g W);

impl<W: Word> Drop for Shared<'_, W> {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

/// The exclusive section; ends when dropped.
#[derive(Debug)]
pub struct Exclusive<'g, W: Word>(&'g W);

impl<W: Word> Drop for Exclusive<'_, W> {
    fn drop(&mut self) {
        self.0.sub(EXCLUSIVE);
    }
}
