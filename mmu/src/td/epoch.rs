//! Which vCPUs may still use translations from before a TRACK.

use core::sync::atomic::Ordering;

use crate::Word;
use crate::embed::Relax;

const FIRST: u64 = 1;

/// The host's count of TDH.MEM.TRACK calls, and the lock around such a call.
#[derive(Debug)]
pub(crate) struct Epoch<W> {
    count: W,
    lock: W,
}

impl<W: Word> Epoch<W> {
    pub(crate) fn new() -> Self {
        Self {
            count: W::new(FIRST),
            lock: W::new(0),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// The epoch for an invalidation that was blocked before the call, and waits for what is done with
    /// [`Epoch::advance`].
    ///
    /// Waits for a TRACK that is under way: the module may have counted it before the block, although it is not
    /// counted here yet, and then it says nothing about the block.
    pub(crate) fn settled(&self, relax: &impl Relax) -> u64 {
        while self.lock.load(Ordering::SeqCst) != 0 {
            relax.pause();
        }
        self.now()
    }

    /// Runs `track` unless somebody else has begun and finished one since [`Epoch::settled`] returned `seen`.
    ///
    /// So several invalidations that wait at the same time share one call.
    pub(crate) fn advance<E>(
        &self,
        relax: &impl Relax,
        seen: u64,
        track: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        while self.lock.replace(0, 1).is_err() {
            relax.pause();
        }
        let result = if self.now() == seen {
            track().map(|()| self.count.add(1)).map(|_| ())
        } else {
            Ok(())
        };
        self.lock.store(0, Ordering::Release);
        result
    }
}

/// A vCPU that is inside the TD, or about to be; ends when dropped.
#[derive(Debug)]
#[must_use = "the vCPU counts as outside once this is dropped"]
pub struct Entered<'t, W: Word> {
    slot: &'t W,
}

impl<'t, W: Word> Entered<'t, W> {
    /// Notes in `slot` that the vCPU enters.
    ///
    /// The epoch is noted before TDH.VP.ENTER samples the module's. If a TRACK comes between, the note
    /// is too old, which costs a kick and is safe; a note that is read as "outside" after a TRACK is of
    /// a vCPU that will enter in the new epoch.
    pub(crate) fn note(slot: &'t W, epoch: &Epoch<W>) -> Self {
        slot.store(epoch.now(), Ordering::SeqCst);
        Self { slot }
    }
}

impl<W: Word> Drop for Entered<'_, W> {
    fn drop(&mut self) {
        self.slot.store(0, Ordering::SeqCst);
    }
}

/// The vCPUs that have been inside the TD since before a TRACK.
#[derive(Clone, Copy, Debug)]
pub struct Laggards<'t, W> {
    slots: &'t [W],
    last: u64,
}

impl<'t, W: Word> Laggards<'t, W> {
    pub(crate) const fn new(slots: &'t [W], last: u64) -> Self {
        Self { slots, last }
    }

    /// Whether vCPU number `vcpu` still is where it was.
    pub fn contains(&self, vcpu: usize) -> bool {
        self.slots
            .get(vcpu)
            .is_some_and(|slot| (FIRST..=self.last).contains(&slot.load(Ordering::SeqCst)))
    }

    /// Their numbers, at this moment.
    pub fn iter(&self) -> impl Iterator<Item = usize> + use<'t, W> {
        let this = Self {
            slots: self.slots,
            last: self.last,
        };
        (0..this.slots.len()).filter(move |&vcpu| this.contains(vcpu))
    }

    /// Whether all have left.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}
