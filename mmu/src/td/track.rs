//! TDH.MEM.TRACK and kicks: making sure that no vCPU uses a translation from before.

use core::cell::Cell;

use tdx_abi::status::Status;
use tdx_abi::status::StatusCode;

use super::Error;
use super::Laggards;
use super::Td;
use super::call::Persist;
use crate::embed::Embedder;

impl<E: Embedder> Td<E> {
    /// Whether what was mapped has to be blocked and tracked before it is removed or reshaped.
    pub(super) fn tracking_required(&self) -> bool {
        self.op_state().tlb_tracking_required()
    }

    /// Ends the use of every translation that was blocked before the call.
    ///
    /// One TRACK, shared with whoever waits for one at the same time; then a kick for the vCPUs that
    /// have been inside since before it, if there are any.
    pub(super) fn track(&self) -> Result<(), Error> {
        let seen = self.epoch.settled(&self.embedder);
        self.epoch.advance(&self.embedder, seen, || {
            self.memory().track(KickOldest { td: self, seen })
        })?;
        self.kick_up_to(seen);
        Ok(())
    }

    /// Tracks a leaf that was found blocked and refused by `error`, if somebody has blocked it anew since the operation's
    /// own block, which was number `blocked` of the TD's invalidations: then make the call again. Otherwise `error` stands.
    ///
    /// To be called outside of sections.
    pub(super) fn track_again(&self, error: Error, blocked: &Cell<u64>) -> Result<(), Error> {
        let untracked = error
            .status()
            .is_some_and(|status| status.code() == StatusCode::TLB_TRACKING_NOT_DONE);
        let last = self.sequence();
        if !untracked || blocked.replace(last) == last {
            return Err(error);
        }
        self.track()
    }

    /// Kicks the vCPUs that entered in epoch `last` or before.
    pub(super) fn kick_up_to(&self, last: u64) {
        let laggards = Laggards::new(self.embedder.epochs(), last);
        if !laggards.is_empty() {
            self.embedder.kick(laggards);
        }
    }
}

/// The module refuses to track while a vCPU of the epoch before is still inside.
struct KickOldest<'t, E: Embedder> {
    td: &'t Td<E>,
    seen: u64,
}

impl<L, E: Embedder> Persist<L> for KickOldest<'_, E> {
    fn busy(&mut self, status: Status) {
        if status.code() == StatusCode::PREVIOUS_TLB_EPOCH_BUSY {
            self.td.kick_up_to(self.seen - 1);
        }
    }
}
