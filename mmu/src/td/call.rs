//! Making SEAMCALLs: retrying what is retryable, typing what is not.

use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::status::Retry;
use tdx_abi::status::Status;

use super::Error;
use crate::embed::Relax;
use crate::platform::Executor;

/// A leaf by name and number.
#[derive(Clone, Copy)]
pub(crate) struct LeafId(pub &'static str, pub u64);

/// How a call behaves while it does not complete.
pub(crate) trait Persist {
    /// Called before a busy call is repeated.
    fn busy(&mut self, status: Status) {
        let _ = status;
    }

    /// The registers that carry on with a call that was interrupted half-way.
    fn resume(&self, answer: Registers) -> Registers {
        answer
    }
}

/// Just repeats.
pub(crate) struct Plain;

impl Persist for Plain {}

/// Issues a leaf on this LP until it is neither busy nor interrupted.
///
/// Returns the registers of success (with or without information).
pub(crate) fn call<E: Executor + Relax>(
    embedder: &E,
    leaf: LeafId,
    inputs: Registers,
) -> Result<Registers, Error> {
    embedder.on_this_lp(|_, lp| call_on(lp, embedder, leaf, inputs, Plain))
}

/// As [`call`], on a given LP. Interrupted leaves are repeated as often as it takes; they make progress
/// or wait for an interrupt that the pause lets in.
pub(crate) fn call_on<E: Relax>(
    lp: &impl Seamcall,
    embedder: &E,
    leaf: LeafId,
    inputs: Registers,
    mut persist: impl Persist,
) -> Result<Registers, Error> {
    let LeafId(name, number) = leaf;
    let mut attempts = 0;
    let mut registers = Registers {
        rax: number,
        ..inputs
    };
    loop {
        let mut answer = registers;
        lp.seamcall(&mut answer)
            .map_err(|trap| Error::Trap { leaf: name, trap })?;
        let status = Status::from_rax(answer.rax);
        match status.retry() {
            None if !status.is_error() => return Ok(answer),
            None => {
                return Err(Error::Seamcall {
                    leaf: name,
                    status,
                    details: [answer.rcx, answer.rdx],
                });
            }
            Some(Retry::Resumable) => {
                registers = Registers {
                    rax: number,
                    ..persist.resume(answer)
                }
            }
            Some(Retry::Restartable) => {}
            Some(Retry::Busy) if attempts >= embedder.patience() => {
                return Err(Error::Busy { leaf: name, status });
            }
            Some(Retry::Busy) => {
                attempts += 1;
                persist.busy(status);
            }
        }
        embedder.pause();
    }
}
