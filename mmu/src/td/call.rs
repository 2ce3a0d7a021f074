//! Making SEAMCALLs: retrying what is retryable, typing what is not.

use tdx_abi::CallError;
use tdx_abi::HostLeaf;
use tdx_abi::Refused;
use tdx_abi::Retry;
use tdx_abi::Seamcall;
use tdx_abi::Status;

use super::Error;
use crate::embed::Relax;
use crate::platform::Executor;

/// How a call behaves while it does not complete.
pub(crate) trait Persist<L> {
    /// Called before a busy call is repeated.
    fn busy(&mut self, status: Status) {
        let _ = status;
    }

    /// The call that carries on with one that was interrupted half-way.
    fn resume(&self, refused: Refused<L>) -> L {
        refused.leaf
    }
}

/// Just repeats.
pub(crate) struct Plain;

impl<L> Persist<L> for Plain {}

/// Issues a leaf on this LP until it is neither busy nor interrupted.
#[inline]
pub(crate) fn call<L: HostLeaf>(
    embedder: &(impl Executor + Relax),
    leaf: L,
) -> Result<L::Output, Error> {
    call_with(embedder, leaf, Plain)
}

/// As [`call`], with its own way of going on.
#[inline]
pub(crate) fn call_with<L: HostLeaf>(
    embedder: &(impl Executor + Relax),
    leaf: L,
    persist: impl Persist<L>,
) -> Result<L::Output, Error> {
    embedder.on_this_lp(|_, lp| call_on(lp, embedder, leaf, persist))
}

/// As [`call_with`], on a given LP. Interrupted leaves are repeated as often as it takes; they make progress
/// or wait for an interrupt that the pause lets in.
#[inline]
pub(crate) fn call_on<L: HostLeaf>(
    lp: &impl Seamcall,
    embedder: &impl Relax,
    leaf: L,
    persist: impl Persist<L>,
) -> Result<L::Output, Error> {
    match leaf.call(lp) {
        Ok(success) => Ok(success.output),
        Err(refused) => call_again(lp, embedder, refused, persist),
    }
}

#[cold]
fn call_again<L: HostLeaf>(
    lp: &impl Seamcall,
    embedder: &impl Relax,
    mut refused: Refused<L>,
    mut persist: impl Persist<L>,
) -> Result<L::Output, Error> {
    let mut attempts = 0;
    loop {
        let leaf = match refused.error {
            CallError::Trap(trap) => {
                return Err(Error::Trap {
                    leaf: L::NAME,
                    trap,
                });
            }
            CallError::Failed(failure) => {
                let details = [failure.rcx, failure.rdx];
                return Err(Error::Seamcall {
                    leaf: L::NAME,
                    status: failure.status,
                    details,
                });
            }
            CallError::Retry(Retry::Busy, failure) if attempts >= embedder.patience() => {
                return Err(Error::Busy {
                    leaf: L::NAME,
                    status: failure.status,
                });
            }
            CallError::Retry(Retry::Busy, failure) => {
                attempts += 1;
                persist.busy(failure.status);
                refused.leaf
            }
            CallError::Retry(Retry::Restartable, _) => refused.leaf,
            CallError::Retry(Retry::Resumable, _) => persist.resume(refused),
        };
        embedder.pause();
        refused = match leaf.call(lp) {
            Ok(success) => return Ok(success.output),
            Err(refused) => refused,
        };
    }
}
