//! Pages on their way back from the module to the host.

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;

use super::Error;
use super::Td;
use super::leaves;
use crate::deposit::Deposit;
use crate::deposit::Pair;
use crate::embed::Clean;
use crate::embed::Embedder;
use crate::embed::Relax;
use crate::platform::Executor;

impl<E: Embedder> Td<E> {
    /// Writes back and scrubs a page that the module has given back, and hands it to its owner.
    ///
    /// If writing back fails the embedder keeps the page in quarantine.
    pub(super) fn give_back(&self, gpa: PrivateGpa, page: Page) -> Result<(), Error> {
        let dismissed = self.dismiss(page.hpa(), page.level());
        let cleaned = self.clean_of_td(Some(gpa), page).map_err(|(page, error)| {
            self.embedder.quarantine(Some(gpa), page);
            error
        });
        cleaned.and(dismissed)
    }

    /// The same for a page that was part of the Secure-EPT.
    pub(super) fn give_back_external(&self, page: Page) -> Result<(), Error> {
        let dismissed = self.dismiss(page.hpa(), Level::Pt);
        let cleaned = self.clean_of_td(None, page).map_err(|(page, error)| {
            self.embedder.quarantine(None, page);
            error
        });
        cleaned.and(dismissed)
    }

    /// Writes back and scrubs a page from quarantine, and hands it to its owner: the backing if it backed
    /// `gpa`, the allocator if it was part of the Secure-EPT or held PAMT entries. On failure it comes back.
    pub fn clean(&self, gpa: Option<PrivateGpa>, page: Page) -> Result<(), (Page, Error)> {
        // It may have been one of a PAMT page pair, which the module writes with its own KeyID.
        if gpa.is_none()
            && let Err(error) = self.write_back(page.hpa(), Level::Pt, self.config.global_hkid)
        {
            return Err((page, error));
        }
        self.clean_of_td(gpa, page)
    }

    fn clean_of_td(&self, gpa: Option<PrivateGpa>, page: Page) -> Result<(), (Page, Error)> {
        if let Err(error) = self.write_back(page.hpa(), page.level(), self.hkid()) {
            return Err((page, error));
        }
        match gpa {
            Some(gpa) => {
                self.embedder.scrub(&page);
                self.embedder.take_back(gpa, page);
            }
            None => self.scrub_and_free(page),
        }
        Ok(())
    }

    /// Gives back what is left of a deposit after a refusal: the module may have begun to write to a page of it.
    pub(super) fn give_back_deposit(&self, mut deposit: Deposit<'_, E, Pair>) {
        while let Some(Pair { table, external }) = deposit.draw() {
            self.embedder.free_table(table);
            self.give_back_touched(external);
        }
    }

    /// Gives back a page for the Secure-EPT that the module has not taken, but may have begun to write to. If writing
    /// back fails the embedder keeps it in quarantine.
    pub(super) fn give_back_touched(&self, page: Page) {
        if let Err((page, _)) = self.clean_of_td(None, page) {
            self.embedder.quarantine(None, page);
        }
    }

    /// Scrubs a page of the module that needs no write-back any more, and frees it.
    pub(super) fn scrub_and_free(&self, page: Page) {
        self.embedder.scrub(&page);
        self.embedder.free_module_page(page);
    }

    /// TDH.PHYMEM.PAGE.WBINVD of each 4 KiB, where the platform needs it.
    pub(super) fn write_back(&self, hpa: Hpa, level: Level, hkid: u16) -> Result<(), Error> {
        write_back(&self.embedder, self.config.with_keyid(hpa, hkid), level)
    }
}

/// TDH.PHYMEM.PAGE.WBINVD of each 4 KiB of the page at `hpa`, whose high bits are the KeyID, where the platform needs it.
pub(super) fn write_back<E: Executor + Relax + Clean>(
    embedder: &E,
    hpa: Hpa,
    level: Level,
) -> Result<(), Error> {
    if !embedder.needs_write_back() {
        return Ok(());
    }
    (0..level.size())
        .step_by(Level::Pt.size() as usize)
        .try_for_each(|offset| leaves::phymem_page_wbinvd(embedder, Hpa::new(hpa.bits() + offset)))
}
