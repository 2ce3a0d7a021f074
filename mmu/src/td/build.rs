//! Building the initial memory: measured pages, unmeasured large pages, the end of the build.

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::OpState;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;

use super::Error;
use super::Pairs;
use super::Propagate;
use super::Td;
use super::invalidate::stopped;
use crate::deposit::Deposit;
use crate::embed::Embedder;
use crate::mirror::MirrorEntry;
use crate::mirror::Stop;

/// A page that was not taken, and why.
#[derive(Debug)]
pub struct Rejected {
    /// The page as it was given, if the module did not keep it.
    pub page: Option<Page>,
    /// What went wrong.
    pub error: Error,
}

/// Bytes that one TDH.MR.EXTEND measures.
pub const EXTEND_BYTES: u64 = 256;

impl<E: Embedder> Td<E> {
    /// Adds the 4 KiB `page` at `gpa` with the content of the host's page at `source` (TDH.MEM.PAGE.ADD).
    ///
    /// Legal before [`Td::finalize`]. Not measured by itself but for its address: see [`Td::extend`].
    pub fn add_page(&self, gpa: PrivateGpa, page: Page, source: Hpa) -> Result<(), Rejected> {
        if page.level() != Level::Pt {
            return Err(Rejected {
                page: Some(page),
                error: Error::BadAddress(gpa.bits()),
            });
        }
        let mut deposit = Deposit::new(&self.embedder);
        // PAGE.ADD takes the TDR exclusively, so nothing else of this TD may run.
        let add = Propagate {
            source: Some(source),
            ..self.external()
        };
        loop {
            let mut section = self.mirror.exclusive(&self.embedder);
            let leaf = MirrorEntry::leaf(page.hpa()).accepted();
            let stop = match section.map_leaf(&add, gpa, leaf, Level::Pt, &mut deposit) {
                Ok(()) => {
                    let _ = page.into_hpa();
                    drop(section);
                    self.notice(gpa);
                    return Ok(());
                }
                Err(stop) => stop,
            };
            drop(section);
            if let Err(error) = self.prepare_again(stop, &mut deposit, &add.pairs) {
                return Err(Rejected {
                    page: Some(page),
                    error,
                });
            }
        }
    }

    /// Measures [`EXTEND_BYTES`] of an added page at `gpa` (TDH.MR.EXTEND).
    pub fn extend(&self, gpa: PrivateGpa) -> Result<(), Error> {
        let _section = self.mirror.exclusive(&self.embedder);
        self.memory().mr_extend(gpa)
    }

    /// Measures the whole 4 KiB page at `gpa`.
    pub fn extend_page(&self, gpa: PrivateGpa) -> Result<(), Error> {
        let _section = self.mirror.exclusive(&self.embedder);
        for offset in (0..Level::Pt.size()).step_by(256) {
            self.memory()
                .mr_extend(PrivateGpa::new(gpa.bits() + offset))?;
        }
        Ok(())
    }

    /// Ends the build (TDH.MR.FINALIZE): the TD may run, and memory is tracked from now on.
    pub fn finalize(&self) -> Result<(), Error> {
        let _section = self.mirror.exclusive(&self.embedder);
        self.memory().mr_finalize()?;
        self.set_op_state(OpState::Runnable);
        Ok(())
    }

    /// Maps `page` at `gpa` without waiting for a fault (TDH.MEM.PAGE.AUG), 4 KiB or 2 MiB, before or
    /// after [`Td::finalize`]. The guest accepts it before use.
    pub fn map_private(&self, gpa: PrivateGpa, page: Page) -> Result<(), Rejected> {
        if page.level() > Self::LARGEST_PRIVATE || !gpa.is_aligned(page.level()) {
            return Err(Rejected {
                page: Some(page),
                error: Error::BadAddress(gpa.bits()),
            });
        }
        let mut deposit = Deposit::new(&self.embedder);
        let external = self.external();
        loop {
            let mut section = self.mirror.section(&self.embedder);
            let stop = match section.map(&external, gpa, page.hpa(), page.level(), &mut deposit) {
                Ok(()) => {
                    let _ = page.into_hpa();
                    drop(section);
                    self.notice_all(core::iter::once(gpa));
                    return Ok(());
                }
                Err(stop) => stop,
            };
            drop(section);
            if let Err(error) = self.prepare_again(stop, &mut deposit, &external.pairs) {
                return Err(Rejected {
                    page: Some(page),
                    error,
                });
            }
        }
    }

    /// Gets ready to try again after `stop`, outside of the section; what cannot be tried again is the error.
    pub(super) fn prepare_again<D: crate::deposit::Deposited>(
        &self,
        stop: Stop<Error>,
        deposit: &mut Deposit<'_, E, D>,
        pairs: &Pairs<'_, E>,
    ) -> Result<(), Error> {
        match stop {
            stop if pairs.answer(&stop)? => Ok(()),
            Stop::Retry => {
                self.embedder.pause();
                Ok(())
            }
            Stop::NeedTables => Ok(deposit.top_up(crate::deposit::DEPTH)?),
            stop => Err(stopped(stop)),
        }
    }
}

impl Rejected {
    pub(super) const fn none(error: Error) -> Self {
        Self { page: None, error }
    }
}
