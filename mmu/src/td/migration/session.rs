//! What the phases of an export have in common: bundles, epochs, lists, the way from one state of a page to another.

use core::sync::atomic::Ordering;

use tdx_abi::OpState;
use tdx_abi::format::GpaListOperation;

use super::super::Error;
use super::super::Td;
use super::Bundle;
use super::Sink;
use super::Stream;
use super::bundle::Content;
use super::bundle::Unsent;
use super::lists::Operation;
use crate::GpaRange;
use crate::Word;
use crate::embed::Embedder;
use crate::mirror::ExportState;
use crate::mirror::Kind;
use crate::mirror::MirrorEntry;
use crate::mirror::Position;

/// What all phases of an export session have in common.
#[derive(Debug)]
pub(super) struct Session<'t, E: Embedder> {
    pub(super) td: &'t Td<E>,
    /// 1 once a page has been exported or cancelled in this migration epoch.
    pub(super) used: E::Word,
    /// 1 once the destination cannot go on.
    pub(super) lost: E::Word,
}

/// Pages that are blocked for writing.
///
/// The only way to export them while the TD runs is [`WriteBlocked::track`].
#[derive(Debug)]
#[must_use = "pages that are blocked for writing fault until they are exported"]
pub struct WriteBlocked<'l, 't, E: Embedder> {
    pub(super) session: &'l Session<'t, E>,
    pub(super) tracking: bool,
}

/// A round in which pages can be exported, each once.
#[derive(Debug)]
pub struct Exportable<'l, 't, E: Embedder> {
    pub(super) session: &'l Session<'t, E>,
    pub(super) wanted: fn(&Kind) -> bool,
}

/// What one call has exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Pages sent.
    pub pages: u64,
    /// Pages that the module refused to export now; a later round has them.
    pub refused: u64,
    /// Bundles made.
    pub bundles: u64,
}

/// How often pages are tried that the module refuses or somebody else is changing.
pub(super) const ATTEMPTS: u32 = 1 << 12;

/// Pages that the destination has been sent, in whatever version.
pub(super) fn is_exported(kind: &Kind) -> bool {
    matches!(kind, Kind::ExportLeaf(_, state) if state.is_exported())
}

/// Pages that EXPORT.MEM takes from a TD that runs.
pub(super) fn is_write_blocked(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::ExportLeaf(
            _,
            ExportState::WriteBlocked | ExportState::DirtyWriteBlocked
        )
    )
}

/// Pages that the destination does not have as they are now.
pub(super) fn is_behind(kind: &Kind) -> bool {
    match kind {
        Kind::Leaf(_) => true,
        Kind::ExportLeaf(_, state) => *state != ExportState::Exported,
        _ => false,
    }
}

/// Pages that have to be exported before nothing is left: those, and what an unmapping that failed has left blocked.
pub(super) fn is_left(kind: &Kind) -> bool {
    is_behind(kind) || matches!(kind, Kind::BlockedLeaf(_))
}

/// Pages that the destination does not have at all.
pub(super) fn is_new(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Leaf(_) | Kind::ExportLeaf(_, ExportState::WriteBlocked)
    )
}

/// The page without what an export has done to it.
pub(super) fn ordinary(entry: MirrorEntry) -> MirrorEntry {
    MirrorEntry::leaf(entry.address())
}

pub(super) fn exported(entry: MirrorEntry) -> MirrorEntry {
    MirrorEntry::exporting(entry.address(), ExportState::Exported)
}

pub(super) fn write_blocked(entry: MirrorEntry) -> MirrorEntry {
    let state = match entry.kind() {
        Kind::ExportLeaf(..) => ExportState::DirtyWriteBlocked,
        _ => ExportState::WriteBlocked,
    };
    MirrorEntry::exporting(entry.address(), state)
}

impl<E: Embedder> Session<'_, E> {
    pub(super) fn is_set(word: &E::Word) -> bool {
        word.load(Ordering::SeqCst) != 0
    }

    pub(super) fn set(word: &E::Word, value: bool) {
        word.store(value.into(), Ordering::SeqCst);
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if Self::is_set(&self.lost) {
            Err(Error::BundleLost)
        } else {
            Ok(())
        }
    }

    pub(super) fn send(
        &self,
        sink: &mut impl Sink<E>,
        stream: &Stream<'_, E>,
        slots: u64,
        content: Content,
    ) -> Result<(), Error> {
        let slots = u16::try_from(slots).map_err(|_| Error::BadBundle)?;
        let bundle = Bundle::new(stream, slots, content);
        sink.send(&bundle).map_err(|Unsent| {
            Self::set(&self.lost, true);
            Error::BundleLost
        })
    }

    /// Ends the migration epoch if a page has been exported or cancelled in it.
    pub(super) fn fresh_epoch(
        &self,
        stream: &Stream<'_, E>,
        sink: &mut impl Sink<E>,
    ) -> Result<(), Error> {
        self.check()?;
        if Self::is_set(&self.used) {
            self.td.memory().export_track(stream, false)?;
            Self::set(&self.used, false);
            self.send(sink, stream, 0, Content::Nothing)?;
        }
        Ok(())
    }

    /// One EXPORT.MEM after the other on the pages of `range` that `wanted` names.
    pub(super) fn memory(
        &self,
        range: GpaRange,
        stream: &Stream<'_, E>,
        sink: &mut impl Sink<E>,
        ask: GpaListOperation,
        wanted: impl Fn(&Kind) -> bool,
        next: fn(MirrorEntry) -> MirrorEntry,
    ) -> Result<(Exported, bool), Error> {
        let mut total = Exported::default();
        let mut busy = false;
        let mut address = range.start();
        while address < range.end() {
            self.check()?;
            stream.use_pool();
            let operation = Operation {
                ask,
                wanted: |at: &Position| wanted(&at.entry.kind()),
                next,
            };
            let done = self
                .td
                .on_list(stream, range, &mut address, operation, |entries| {
                    self.td.memory().export_mem(stream, entries)
                });
            busy |= done.busy;
            if done.entries == 0 {
                break;
            }
            if done.processed > 0 {
                Self::set(&self.used, true);
            }
            if let Err(error) = done.result {
                // What was exported in part cannot be sent.
                if done.processed > 0 {
                    Self::set(&self.lost, true);
                }
                return Err(error);
            }
            total.pages += u64::from(done.changed);
            total.refused += u64::from(done.entries - done.changed);
            total.bundles += 1;
            self.send(sink, stream, done.entries.into(), Content::Memory)?;
        }
        Ok((total, busy))
    }

    /// Cancels what has been exported of `ranges`, so that it can be unmapped.
    pub(super) fn cancel(
        &self,
        ranges: &[GpaRange],
        stream: &Stream<'_, E>,
        sink: &mut impl Sink<E>,
    ) -> Result<u64, Error> {
        let mut cancelled = 0;
        for &range in ranges {
            let mut attempts = 0;
            while let Some(at) = self.td.find(range, is_exported) {
                if attempts == ATTEMPTS {
                    return Err(Error::Exported(at));
                }
                attempts += 1;
                // A page cannot be imported and cancelled in the same epoch.
                self.fresh_epoch(stream, sink)?;
                let cancel = GpaListOperation::CANCEL;
                let (done, busy) =
                    self.memory(range, stream, sink, cancel, is_exported, ordinary)?;
                cancelled += done.pages;
                if busy || done.refused > 0 {
                    self.td.embedder.pause();
                }
            }
        }
        Ok(cancelled)
    }

    pub(super) fn abort(&self, stream: &mut Stream<'_, E>, token: bool) -> Result<(), Error> {
        if self.td.exporting() {
            let _section = self.td.mirror.exclusive(&self.td.embedder);
            self.td.memory().export_abort(token.then_some(&*stream))?;
            self.td.set_op_state(OpState::Runnable);
        }
        self.td.restore_exported(stream)
    }
}

impl<'l, 't, E: Embedder> WriteBlocked<'l, 't, E> {
    /// One TRACK for all, and a kick if a vCPU has been inside since before.
    pub fn track(self) -> Result<Exportable<'l, 't, E>, Error> {
        if self.tracking {
            self.session.td.track()?;
        }
        Ok(Exportable {
            session: self.session,
            wanted: is_write_blocked,
        })
    }
}

impl<E: Embedder> Exportable<'_, '_, E> {
    /// Exports the pages of `range` on `stream` (TDH.EXPORT.MEM), as many at once as the stream has pages.
    ///
    /// Threads may do this at once, each with a stream and a range of its own.
    pub fn export(
        &self,
        range: GpaRange,
        stream: &mut Stream<'_, E>,
        sink: &mut impl Sink<E>,
    ) -> Result<Exported, Error> {
        let migrate = GpaListOperation::MIGRATE;
        let mut total = Exported::default();
        for _ in 0..ATTEMPTS {
            let (now, busy) =
                self.session
                    .memory(range, stream, sink, migrate, self.wanted, exported)?;
            total.pages += now.pages;
            total.refused += now.refused;
            total.bundles += now.bundles;
            if !busy {
                break;
            }
            // Somebody was changing a page.
            self.session.td.embedder.pause();
        }
        Ok(total)
    }
}
