//! After an abort: pages without what the export has done to them.

use tdx_abi::format::GpaListOperation;

use super::super::Error;
use super::super::Td;
use super::super::invalidate::stopped;
use super::Stream;
use super::lists::Operation;
use super::session::ATTEMPTS;
use super::session::is_exported;
use super::session::ordinary;
use crate::GpaRange;
use crate::embed::Embedder;
use crate::mirror::ExportState;
use crate::mirror::Kind;
use crate::mirror::Position;
use crate::mirror::Stop;

impl<E: Embedder> Td<E> {
    /// Makes ordinary pages of those that an aborted export has touched (TDH.EXPORT.RESTORE and UNBLOCKW).
    ///
    /// Part of every abort; to be repeated if that failed, because a TD with such pages cannot be exported again.
    pub fn restore_exported(&self, stream: &mut Stream<'_, E>) -> Result<(), Error> {
        let all = GpaRange::up_to(self.mirror.tree().end());
        let mut left = None;
        for _ in 0..ATTEMPTS {
            let mut address = all.start();
            let mut busy = false;
            while address < all.end() {
                let operation = Operation {
                    ask: GpaListOperation::MIGRATE,
                    wanted: |at: &Position| {
                        let wanted = is_exported(&at.entry.kind());
                        if wanted {
                            left = Some(*at);
                        }
                        wanted
                    },
                    next: ordinary,
                };
                let done = self.on_list(stream, all, &mut address, operation, |entries| {
                    self.memory().export_restore(stream, entries)
                });
                done.result?;
                busy |= done.busy || done.changed < done.entries;
            }
            busy |= self.allow_all_writes(all)?;
            if !busy {
                return Ok(());
            }
            self.embedder.pause();
        }
        Err(left.map_or(Error::BundleLost, Error::Exported))
    }

    /// Lets the guest write to all pages again that are blocked for writing and not exported.
    fn allow_all_writes(&self, range: GpaRange) -> Result<bool, Error> {
        let external = self.external();
        let mut address = range.start();
        let mut busy = false;
        let mut section = self.mirror.section(&self.embedder);
        while let Some(at) = section.next(address, range.end()) {
            address = at.end();
            match at.entry.kind() {
                Kind::Frozen => busy = true,
                Kind::ExportLeaf(_, ExportState::WriteBlocked) => {
                    match section.allow_writes(&external, at.gpa) {
                        Ok(()) => {}
                        Err(Stop::Retry) => busy = true,
                        Err(stop) => return Err(stopped(stop)),
                    }
                }
                _ => {}
            }
        }
        Ok(busy)
    }
}
