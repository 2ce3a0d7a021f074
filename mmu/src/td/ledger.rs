//! The control pages that the module holds for a TD, by number.

use tdx_abi::Gpa;
use tdx_abi::Hpa;
use tdx_abi::Level;

use super::Error;
use crate::deposit::Deposit;
use crate::embed::Frames;
use crate::embed::Grace;
use crate::embed::Tables;
use crate::shared::Attributes;
use crate::shared::Ept;
use crate::shared::EptKind;
use crate::shared::Permissions;

/// Most control pages of one vCPU, TDVPR included.
pub(super) const PAGES_PER_VCPU: u64 = 64;

/// Most migration streams of a TD.
pub(super) const MAX_STREAMS: u64 = 512;

/// A tree that leads from a number to a page, built as the trees that lead from address to page.
#[derive(Debug)]
pub(super) struct Ledger(Ept);

impl Ledger {
    pub(super) const TOP: Level = Level::Pdpt;

    pub(super) fn new<E: Tables>(embedder: &E, root: Hpa) -> Self {
        Self(Ept::new(embedder, root, Self::TOP))
    }

    /// Number of the TDCX page `index`.
    pub(super) const fn tdcx(index: u64) -> u64 {
        index
    }

    /// Number of page `index` of `vcpu`; 0 is the TDVPR.
    pub(super) const fn vcpu_page(vcpu: usize, index: u64) -> u64 {
        (vcpu as u64 + 1) * PAGES_PER_VCPU + index
    }

    /// Number of the page of migration stream `index`, the backward one being 0.
    pub(super) const fn stream(index: u64) -> u64 {
        (Self::TOP.size() << 9 >> Level::Pt.shift()) - MAX_STREAMS + index
    }

    /// Notes a page before it is given to the module, so that it cannot get lost.
    pub(super) fn note<E: Tables + Grace + Frames>(
        &self,
        embedder: &E,
        number: u64,
        page: Hpa,
    ) -> Result<(), Error> {
        let mut deposit = Deposit::new(embedder);
        deposit.top_up(2)?;
        let at = Gpa::new(number << Level::Pt.shift());
        self.0
            .section(embedder)
            .map(
                at,
                page,
                Level::Pt,
                Attributes::new(Permissions::READ),
                &mut deposit,
            )
            .map_err(|_| Error::OutOfPages)
    }

    /// Takes the note back: the module refused the page.
    pub(super) fn forget<E: Tables + Grace>(&self, embedder: &E, number: u64) {
        self.0
            .section(embedder)
            .forget(Gpa::new(number << Level::Pt.shift()), Level::Pt);
    }

    pub(super) fn page<E: Tables + Grace>(&self, embedder: &E, number: u64) -> Option<Hpa> {
        match self
            .0
            .look(embedder, Gpa::new(number << Level::Pt.shift()))
            .entry
            .kind()
        {
            EptKind::Leaf { hpa, .. } => Some(hpa),
            _ => None,
        }
    }

    pub(super) const fn tree(&self) -> Ept {
        self.0
    }
}
