//! The end of a TD: the KeyID first, then every page, each by one RECLAIM.

use core::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_abi::status::StatusCode;

use super::Error;
use super::Td;
use super::create::stage;
use super::invalidate::stopped;
use super::leaves;
use super::ledger::Ledger;
use crate::GpaRange;
use crate::Word;
use crate::embed::Embedder;
use crate::embed::Relax;
use crate::embed::Tables;
use crate::mirror::External;
use crate::mirror::Kind;
use crate::mirror::MirrorEntry;
use crate::mirror::Position;
use crate::mirror::SetError;
use crate::mirror::Stop;
use crate::mirror::external_page;
use crate::platform::Executor;
use crate::platform::Hkid;
use crate::shared::EptStop;
use crate::shared::Gather;

/// A TD without its KeyID: nothing can run or be mapped any more, and every page is reclaimed by one
/// SEAMCALL, without blocking, tracking or kicks.
#[derive(Debug)]
#[must_use = "the TD's pages are not given back yet"]
pub struct Teardown<E: Embedder> {
    td: Td<E>,
}

/// How far reclaiming has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Leaves reclaimed by this call.
    pub leaves: u64,
    /// Where to go on; `None` if the range is done.
    pub next: Option<u64>,
}

/// What is left of a TD.
#[derive(Debug)]
pub struct Torn<E> {
    /// The embedder.
    pub embedder: E,
    /// The KeyID, free for another TD.
    pub hkid: Hkid,
}

impl<E: Embedder> Td<E> {
    /// Releases the TD's KeyID: VP.FLUSH, VPFLUSHDONE, PHYMEM.CACHE.WB on each package, KEY.FREEID.
    ///
    /// No vCPU may be inside. On failure the TD comes back and this can be repeated.
    #[expect(clippy::result_large_err, reason = "the error gives the TD back")]
    pub fn teardown(self) -> Result<Teardown<E>, (Self, Error)> {
        match self.release_key() {
            Ok(()) => Ok(Teardown { td: self }),
            Err(error) => Err((self, error)),
        }
    }

    fn release_key(&self) -> Result<(), Error> {
        if self.stage.load(Ordering::Acquire) == stage::BLANK {
            return Ok(());
        }
        for vcpu in 0..self.vcpus() {
            if let (Some(tdvpr), Some(lp)) = (self.tdvpr(vcpu), self.embedder.last_lp(vcpu)) {
                self.embedder
                    .on_lp(lp, |lp| {
                        not_here(leaves::vp_flush(lp, &self.embedder, tdvpr))
                    })
                    .unwrap_or(Ok(()))?;
            }
        }
        let memory = self.memory();
        match memory.mng_vpflushdone() {
            Err(error) if is(&error, StatusCode::FLUSHVP_NOT_DONE) => {
                self.flush_everywhere()?;
                memory.mng_vpflushdone()
            }
            // Done by an attempt before that failed later.
            Err(error) if is(&error, StatusCode::LIFECYCLE_STATE_INCORRECT) => Ok(()),
            done => done,
        }?;
        self.embedder
            .on_each_package(|_, lp| leaves::phymem_cache_wb(lp, &self.embedder))?;
        memory.mng_key_freeid()
    }

    /// Flushes every vCPU from whichever LP has it.
    fn flush_everywhere(&self) -> Result<(), Error> {
        self.embedder.on_each_lp(|_, lp| {
            (0..self.vcpus())
                .filter_map(|vcpu| self.tdvpr(vcpu))
                .try_for_each(|tdvpr| not_here(leaves::vp_flush(lp, &self.embedder, tdvpr)))
        })
    }
}

fn is(error: &Error, code: StatusCode) -> bool {
    error.status().is_some_and(|status| status.code() == code)
}

/// A vCPU that is not on this LP needs no flush here; one that lacks pages was never on any.
pub(super) fn not_here(flushed: Result<(), Error>) -> Result<(), Error> {
    match flushed {
        Err(error)
            if is(&error, StatusCode::VCPU_NOT_ASSOCIATED)
                || is(&error, StatusCode::VCPU_ASSOCIATED)
                || is(&error, StatusCode::TDCX_NUM_INCORRECT) =>
        {
            Ok(())
        }
        flushed => flushed,
    }
}

/// The Secure-EPT of a TD that has lost its key: pages only leave it.
struct Reclaim<'e, E>(&'e E);

impl<E: Executor + Relax + Tables> External for Reclaim<'_, E> {
    type Error = Error;

    fn set(
        &self,
        gpa: PrivateGpa,
        level: Level,
        old: MirrorEntry,
        new: MirrorEntry,
    ) -> Result<(), SetError<Error>> {
        let page = match (old.kind(), new.kind()) {
            (
                Kind::Leaf(page) | Kind::BlockedLeaf(page) | Kind::ExportLeaf(page, _),
                Kind::Empty,
            ) => page,
            (Kind::Table(table) | Kind::BlockedTable(table), Kind::Empty) => {
                external_page(self.0, table)
            }
            _ => {
                return Err(SetError::Unchanged(Error::Unexpected(Position {
                    gpa,
                    level,
                    entry: old,
                })));
            }
        };
        leaves::phymem_page_reclaim(self.0, page).map_err(SetError::Unchanged)
    }
}

impl<E: Embedder> Teardown<E> {
    /// The range of all private memory.
    pub fn everything(&self) -> GpaRange {
        let end = self
            .td
            .mirror
            .tree()
            .end()
            .min(self.td.config.shared_bit.mask());
        GpaRange::up_to(end)
    }

    /// Reclaims the leaves of `range`, and gives the pages back.
    ///
    /// Disjoint ranges may be reclaimed on several threads at once. `go_on` is asked before each leaf with
    /// the number done; when it says no, the progress tells where to continue.
    pub fn reclaim(
        &self,
        range: GpaRange,
        mut go_on: impl FnMut(u64) -> bool,
    ) -> Result<Progress, Error> {
        let td = &self.td;
        let external = Reclaim(&td.embedder);
        let mut address = range.start();
        let mut leaves = 0;
        loop {
            let mut section = td.mirror.section(&td.embedder);
            let Some(at) = section.next(address, range.end()) else {
                return Ok(Progress { leaves, next: None });
            };
            if !go_on(leaves) {
                return Ok(Progress {
                    leaves,
                    next: Some(at.gpa.bits()),
                });
            }
            let removed = section.remove(&external, at.gpa, at.level);
            drop(section);
            match removed {
                Ok(page) => {
                    let dismissed = td.dismiss(page.hpa(), page.level());
                    td.embedder.scrub(&page);
                    td.embedder.take_back(at.gpa, page);
                    leaves += 1;
                    address = at.end();
                    dismissed?;
                }
                Err(Stop::Retry) => td.embedder.pause(),
                // The children of a table that was left blocked.
                Err(Stop::Found(at)) if matches!(at.entry.kind(), Kind::BlockedTable(_)) => {
                    td.mirror.exclusive(&td.embedder).open(at.gpa, at.level);
                }
                Err(stop) => return Err(stopped(stop)),
            }
        }
    }

    /// Reclaims what is left: leaves, Secure-EPT pages, control pages, the TDR; frees the host's tables.
    ///
    /// On failure it comes back and can be repeated.
    #[expect(clippy::result_large_err, reason = "the error gives the TD back")]
    pub fn finish(self) -> Result<Torn<E>, (Self, Error)> {
        match self.reclaim_all() {
            Ok(()) => {
                let Td { embedder, hkid, .. } = self.td;
                Ok(Torn { embedder, hkid })
            }
            Err(error) => Err((self, error)),
        }
    }

    fn reclaim_all(&self) -> Result<(), Error> {
        let td = &self.td;
        self.reclaim(self.everything(), |_| true)?;
        self.reclaim_tables()?;
        self.reclaim_control_pages()?;
        self.drop_shared()?;
        for table in [
            td.mirror.tree().root(),
            td.ept.tree().root(),
            td.visibility.root(),
            td.ledger.tree().tree().root(),
        ] {
            if let Some(page) = Page::assume_owned(table, Level::Pt) {
                td.embedder.free_table(page);
            }
        }
        Ok(())
    }

    /// Reclaims the Secure-EPT pages, the lowest first, and before each those of L2 VMs beside it.
    fn reclaim_tables(&self) -> Result<(), Error> {
        let td = &self.td;
        let external = Reclaim(&td.embedder);
        let top = td.mirror.tree().top();
        for level in Level::ALL
            .into_iter()
            .filter(|level| (Level::Pd..=top).contains(level))
        {
            let mut address = 0;
            while address < self.everything().end() {
                let at = td
                    .mirror
                    .exclusive(&td.embedder)
                    .look(PrivateGpa::new(address), level);
                address = at.end();
                let table = match at.entry.kind() {
                    Kind::Table(table) | Kind::BlockedTable(table) if at.level == level => table,
                    _ => continue,
                };
                td.reclaim_l2(at, table)?;
                let unlinked = td
                    .mirror
                    .exclusive(&td.embedder)
                    .unlink(&external, at.gpa, level);
                let pair = unlinked.map_err(stopped)?;
                td.embedder.retire(pair.table);
                let dismissed = td.dismiss(pair.external.hpa(), Level::Pt);
                td.scrub_and_free(pair.external);
                dismissed?;
            }
        }
        Ok(())
    }

    /// Reclaims the control pages, the TDR last.
    fn reclaim_control_pages(&self) -> Result<(), Error> {
        let td = &self.td;
        let ledger = td.ledger.tree();
        let stage = td.stage.load(Ordering::Acquire);
        loop {
            let found = ledger
                .section(&td.embedder)
                .next(0, Ledger::TOP.size() << 9);
            let Some(at) = found else { break };
            if !at.entry.is_leaf() {
                break;
            }
            leaves::phymem_page_reclaim(&td.embedder, at.entry.address())?;
            td.ledger
                .forget(&td.embedder, at.gpa.bits() >> Level::Pt.shift());
            self.free_control_page(at.entry.address())?;
        }
        if stage == stage::CREATED {
            leaves::phymem_page_reclaim(&td.embedder, td.tdr)?;
            td.stage.store(stage::RECLAIMED, Ordering::Release);
        }
        let dismissed = match stage {
            stage::GONE => return Ok(()),
            stage::BLANK => Ok(()),
            _ => {
                // RECLAIM reads and writes TDRs with the module's own key.
                td.write_back(td.tdr, Level::Pt, td.config.global_hkid)?;
                td.dismiss(td.tdr, Level::Pt)
            }
        };
        td.stage.store(stage::GONE, Ordering::Release);
        if let Some(tdr) = Page::assume_owned(td.tdr, Level::Pt) {
            td.scrub_and_free(tdr);
        }
        dismissed
    }

    fn free_control_page(&self, page: Hpa) -> Result<(), Error> {
        let dismissed = self.td.dismiss(page, Level::Pt);
        if let Some(page) = Page::assume_owned(page, Level::Pt) {
            self.td.scrub_and_free(page);
        }
        dismissed
    }

    /// Drops the shared mappings, the map of attributes and the ledger.
    fn drop_shared(&self) -> Result<(), Error> {
        let td = &self.td;
        let mut gather = Gather::new();
        for tree in [td.ept, td.ledger.tree()] {
            let end = tree.tree().end();
            loop {
                match tree.section(&td.embedder).zap(0, end, &mut gather) {
                    Ok(()) => break,
                    Err(EptStop::Retry) => td.embedder.pause(),
                    Err(EptStop::Found(_) | EptStop::NeedTables) => {
                        return Err(Error::BadAddress(end));
                    }
                }
            }
        }
        let _ = gather.flush(&td.embedder);
        td.visibility.clear(&td.embedder).retire(&td.embedder);
        Ok(())
    }
}
