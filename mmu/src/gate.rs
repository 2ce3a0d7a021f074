//! Shared and exclusive sections of a mirrored tree.

use core::sync::atomic::Ordering;

use crate::Word;
use crate::embed::Relax;

const EXCLUSIVE: u64 = 1 << 63;

/// Counters of shared sections, so that CPUs that begin and end them at once write different cache lines.
const STRIPES: usize = 8;

/// A word that has its cache line, and the one that the CPU prefetches with it, for itself.
#[derive(Debug)]
#[repr(align(128))]
struct Stripe<W>(W);

/// Many shared sections or one exclusive section; whoever waits for the exclusive one goes first.
///
/// Mirrors the TDX module's own lock of the Secure-EPT tree: what the module does under the shared
/// lock runs in a shared section, RANGE.BLOCK, RANGE.UNBLOCK and SEPT.REMOVE run in an exclusive
/// one, so that no caller meets TDX_OPERAND_BUSY because of another caller of this crate.
///
/// A shared section counts itself in one stripe; the exclusive one closes and waits for all of them, which costs
/// it eight locked instructions where it makes SEAMCALLs anyway.
#[derive(Debug)]
pub(crate) struct Gate<W>([Stripe<W>; STRIPES]);

impl<W: Word> Gate<W> {
    pub(crate) fn new() -> Self {
        Self(core::array::from_fn(|_| Stripe(W::new(0))))
    }

    #[inline]
    pub(crate) fn shared<'g, R: Relax>(&'g self, relax: &R) -> Shared<'g, W> {
        let Stripe(count) = &self.0[relax.stripe() % STRIPES];
        while count.add(1) & EXCLUSIVE != 0 {
            count.sub(1);
            while count.load(Ordering::Relaxed) & EXCLUSIVE != 0 {
                relax.pause();
            }
        }
        Shared(count)
    }

    pub(crate) fn exclusive<'g, R: Relax>(&'g self, relax: &R) -> Exclusive<'g, W> {
        while !self.close() {
            relax.pause();
        }
        self.alone(relax)
    }

    /// The exclusive section, unless somebody else has it; waits for shared ones.
    pub(crate) fn try_exclusive<'g, R: Relax>(&'g self, relax: &R) -> Option<Exclusive<'g, W>> {
        self.close().then(|| self.alone(relax))
    }

    /// Closes the first stripe; whoever does may close the others. May fail for no reason.
    fn close(&self) -> bool {
        let [Stripe(first), ..] = &self.0;
        let seen = first.load(Ordering::Relaxed);
        seen & EXCLUSIVE == 0 && first.replace(seen, seen | EXCLUSIVE).is_ok()
    }

    /// Closes the other stripes, and waits until nobody is inside.
    fn alone<'g, R: Relax>(&'g self, relax: &R) -> Exclusive<'g, W> {
        let [_, others @ ..] = &self.0;
        for Stripe(count) in others {
            count.add(EXCLUSIVE);
        }
        for Stripe(count) in &self.0 {
            while count.load(Ordering::Acquire) != EXCLUSIVE {
                relax.pause();
            }
        }
        Exclusive(self)
    }
}

/// A shared section; ends when dropped.
#[derive(Debug)]
pub struct Shared<'g, W: Word>(&'g W);

impl<W: Word> Drop for Shared<'_, W> {
    #[inline]
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

/// The exclusive section; ends when dropped.
#[derive(Debug)]
pub struct Exclusive<'g, W: Word>(&'g Gate<W>);

impl<W: Word> Drop for Exclusive<'_, W> {
    fn drop(&mut self) {
        // The first stripe last: the others have to be open before somebody else closes them.
        for Stripe(count) in self.0.0.iter().rev() {
            count.sub(EXCLUSIVE);
        }
    }
}
