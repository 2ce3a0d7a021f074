//! The rounds before a TD is paused.

use super::super::Error;
use super::Exported;
use super::Live;
use super::Sink;
use super::Stream;
use crate::GpaRange;
use crate::embed::Embedder;

/// When to stop copying while the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precopy {
    /// Most rounds; at least one is made.
    pub rounds: u32,
    /// Pages left at which the TD can be paused: what is exported during the downtime.
    pub threshold: u64,
}

/// A round that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// Its number, from 1 on.
    pub number: u32,
    /// What was exported.
    pub exported: Exported,
    /// Pages that the destination does not have as they are now.
    pub remaining: u64,
}

impl<E: Embedder> Live<'_, E> {
    /// Exports `range` in rounds while the guest runs, until few enough pages are left or enough rounds made.
    ///
    /// `each` sees every round, and ends this early by returning false. Returns the last round.
    pub fn precopy(
        &mut self,
        range: GpaRange,
        stream: &mut Stream<'_, E>,
        sink: &mut impl Sink<E>,
        policy: Precopy,
        mut each: impl FnMut(Round) -> bool,
    ) -> Result<Round, Error> {
        let mut number = 1;
        loop {
            let exported = self
                .block_writes(&[range], stream, sink)?
                .track()?
                .export(range, stream, sink)?;
            let round = Round {
                number,
                exported,
                remaining: self.remaining(range),
            };
            let go_on = each(round);
            if !go_on || number >= policy.rounds || round.remaining <= policy.threshold {
                return Ok(round);
            }
            number += 1;
        }
    }
}
