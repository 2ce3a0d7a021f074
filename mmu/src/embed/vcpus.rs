use tdx_abi::Page;
use tdx_abi::PrivateGpa;

use super::Tables;
use crate::platform::LpId;
use crate::td::Laggards;

/// The vCPUs of the TD, numbered from 0.
pub trait Vcpus: Tables {
    /// One word for every vCPU, 0 at first. [`crate::Td::enter`] notes there in which epoch it is inside.
    fn epochs(&self) -> &[Self::Word];

    /// Makes every vCPU of `laggards` leave the TD once (an IPI that causes a TD exit), and waits for it.
    ///
    /// They may be entered again at once.
    fn kick(&self, laggards: Laggards<'_, Self::Word>);

    /// The LP where `vcpu` was last entered or otherwise associated; `None` if nowhere.
    fn last_lp(&self, vcpu: usize) -> Option<LpId>;
}

/// What has to happen to a private page before the host may reuse it.
pub trait Clean {
    /// Whether lines with the TD's KeyID may linger in caches, so that TDH.PHYMEM.PAGE.WBINVD is needed.
    fn needs_write_back(&self) -> bool {
        true
    }

    /// Keeps a page that could not be written back: a TDH.PHYMEM.PAGE.WBINVD failed for good.
    ///
    /// It backed `gpa`, or was part of the Secure-EPT or of a PAMT page pair. It must not be reused before
    /// [`crate::Td::clean`] of it has succeeded, or [`crate::pamt::clean`] when the TD is gone.
    ///
    /// By default it is leaked, which is safe.
    fn quarantine(&self, gpa: Option<PrivateGpa>, page: Page) {
        let _ = (gpa, page.into_hpa());
    }

    /// Overwrites the page with MOVDIR64B through KeyID 0, so that no line keeps the TD's KeyID.
    fn scrub(&self, page: &Page);
}
