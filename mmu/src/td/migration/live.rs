//! Exporting a TD that runs.

use tdx_abi::OpState;
use tdx_abi::format::GpaListOperation;
use tdx_abi::status::Status;
use tdx_abi::status::StatusCode;
use tdx_abi::tdh;

use super::super::Error;
use super::super::Td;
use super::super::call::Persist;
use super::Paused;
use super::Sink;
use super::Stream;
use super::bundle::Content;
use super::lists::Operation;
use super::session::Session;
use super::session::WriteBlocked;
use super::session::is_left;
use super::session::is_write_blocked;
use super::session::write_blocked;
use crate::GpaRange;
use crate::Word;
use crate::embed::Embedder;
use crate::mirror::ExportState;
use crate::mirror::Kind;
use crate::mirror::Position;

/// An export session of a TD that runs.
///
/// In each round pages are blocked for writing ([`Live::block_writes`]), tracked together
/// ([`WriteBlocked::track`]) and exported ([`Exportable::export`](super::Exportable::export)). A write of the guest to such a
/// page faults once; [`Td::fault`] lets it write again, and the page is exported again in a later round.
#[derive(Debug)]
#[must_use = "the TD stays in its export session until it is aborted"]
pub struct Live<'t, E: Embedder>(Session<'t, E>);

impl<E: Embedder> Td<E> {
    /// Begins to export the TD (TDH.EXPORT.STATE.IMMUTABLE), on forward stream 0.
    ///
    /// The TD has the attribute MIGRATABLE, a migration TD is bound to it ([`Td::bind_service`]) and has set the
    /// keys, and two streams at least have been created ([`Td::add_stream`]).
    pub fn export(
        &self,
        stream: &mut Stream<'_, E>,
        sink: &mut impl Sink<E>,
    ) -> Result<Live<'_, E>, Error> {
        stream.use_pool();
        let pages = {
            let _section = self.mirror.exclusive(&self.embedder);
            let pages = self.memory().export_state_immutable(stream)?;
            self.set_op_state(OpState::LiveExport);
            pages
        };
        let live = Live(Session {
            td: self,
            used: Word::new(0),
            lost: Word::new(0),
        });
        match live.0.send(sink, stream, pages, Content::State) {
            Ok(()) => Ok(live),
            Err(error) => match live.abort(stream) {
                Ok(()) => Err(error),
                Err((_, error)) => Err(error),
            },
        }
    }
}

impl<'t, E: Embedder> Live<'t, E> {
    /// Begins a round: blocks the pages of `ranges` for writing that the destination does not have as they are now
    /// (TDH.EXPORT.BLOCKW), and ends the migration epoch before, if anything was exported in it.
    ///
    /// Large leaves are split first, with one TRACK for all of them.
    pub fn block_writes<'l>(
        &'l mut self,
        ranges: &[GpaRange],
        stream: &mut Stream<'_, E>,
        sink: &mut impl Sink<E>,
    ) -> Result<WriteBlocked<'l, 't, E>, Error> {
        let session = &self.0;
        session.fresh_epoch(stream, sink)?;
        for range in ranges {
            session.td.split_all(*range)?;
        }
        let mut tracking = false;
        for &range in ranges {
            let mut address = range.start();
            while address < range.end() {
                let operation = Operation {
                    ask: GpaListOperation::MIGRATE,
                    wanted: |at: &Position| {
                        tracking |= is_write_blocked(&at.entry.kind());
                        matches!(
                            at.entry.kind(),
                            Kind::Leaf(_) | Kind::ExportLeaf(_, ExportState::Dirty)
                        )
                    },
                    next: write_blocked,
                };
                let done = session
                    .td
                    .on_list(stream, range, &mut address, operation, |entries| {
                        session.td.memory().export_blockw(stream, entries)
                    });
                tracking |= done.changed > 0;
                done.result?;
            }
        }
        Ok(WriteBlocked { session, tracking })
    }

    /// Cancels what has been exported of `ranges` (TDH.EXPORT.MEM, CANCEL), so that these pages can be unmapped,
    /// converted or moved; returns how many pages. Until then such operations end in [`Error::Exported`].
    pub fn cancel(
        &mut self,
        ranges: &[GpaRange],
        stream: &mut Stream<'_, E>,
        sink: &mut impl Sink<E>,
    ) -> Result<u64, Error> {
        self.0.cancel(ranges, stream, sink)
    }

    /// Pages of `range` that the destination does not have as they are now.
    pub fn remaining(&self, range: GpaRange) -> u64 {
        self.0.td.count(range, is_left)
    }

    /// Pauses the TD (TDH.EXPORT.PAUSE): the guest's downtime begins.
    ///
    /// vCPUs that are inside are kicked; the embedder does not enter them any more.
    pub fn pause(self) -> Result<Paused<'t, E>, (Self, Error)> {
        let td = self.0.td;
        let paused = {
            let _section = td.mirror.exclusive(&td.embedder);
            let paused = td.memory().export_pause(KickAll(td));
            if paused.is_ok() {
                td.set_op_state(OpState::PausedExport);
            }
            paused
        };
        match paused {
            Ok(()) => Ok(Paused(self.0)),
            Err(error) => Err((self, error)),
        }
    }

    /// Ends the session; the TD runs on as if nothing had been. To be repeated if it fails.
    pub fn abort(self, stream: &mut Stream<'_, E>) -> Result<(), (Self, Error)> {
        self.0.abort(stream, false).map_err(|error| (self, error))
    }
}

/// EXPORT.PAUSE takes the TDR exclusively, which every vCPU inside holds shared.
struct KickAll<'t, E: Embedder>(&'t Td<E>);

impl<E: Embedder> Persist<tdh::export::Pause> for KickAll<'_, E> {
    fn busy(&mut self, status: Status) {
        if status.code() == StatusCode::OPERAND_BUSY {
            self.0.kick_up_to(self.0.epoch.now());
        }
    }
}
