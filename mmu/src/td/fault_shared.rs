//! EPT violations with SHARED = 1.

use tdx_abi::Gpa;
use tdx_abi::Level;
use tdx_abi::SharedGpa;

use super::AccessKind;
use super::Error;
use super::Resolution;
use super::Td;
use crate::attributes::Visibility;
use crate::deposit::DEPTH;
use crate::deposit::Deposit;
use crate::deposit::Table;
use crate::embed::Embedder;
use crate::embed::SharedBacking;
use crate::shared::EptKind;
use crate::shared::EptPosition;
use crate::shared::EptStop;
use crate::shared::Permissions;

impl<E: Embedder> Td<E> {
    pub(super) fn fault_shared(
        &self,
        gpa: SharedGpa,
        kind: AccessKind,
    ) -> Result<Resolution, Error> {
        let address = self.config.shared_bit.join(gpa);
        let wanted = kind.permissions();
        let mut deposit = Deposit::new(&self.embedder);
        loop {
            let sequence = self.sequence();
            let (visibility, uniform) = self.visibility.look(&self.embedder, gpa.bits());
            if visibility == Visibility::Private {
                return Ok(Resolution::MemoryFault {
                    gpa: gpa.bits(),
                    private: false,
                });
            }
            let at = self.ept.look(&self.embedder, address);
            let done = match at.entry.kind() {
                EptKind::Frozen | EptKind::Table(_) => None,
                EptKind::VirtualizationException => Some(Resolution::Mmio),
                EptKind::Leaf { right, granted, .. } => {
                    self.use_leaf(gpa, at, right, granted, wanted)
                }
                EptKind::Empty => {
                    let backing = self.embedder.shared_page(gpa);
                    self.map_shared(address, at, backing, uniform, sequence, &mut deposit)?
                }
            };
            match done {
                Some(resolution) => return Ok(resolution),
                None => self.embedder.pause(),
            }
        }
    }

    /// An access to a page that is mapped; `None` if it has changed meanwhile.
    fn use_leaf(
        &self,
        gpa: SharedGpa,
        at: EptPosition,
        right: Permissions,
        granted: Permissions,
        wanted: Permissions,
    ) -> Option<Resolution> {
        if granted.contains(wanted) {
            return Some(Resolution::Spurious(at.level));
        }
        if !right.contains(wanted) {
            return Some(Resolution::Denied { gpa: gpa.bits() });
        }
        // Dirty before writable: whoever collects in between sees the page as dirty rather than not at all.
        if wanted.write {
            self.embedder.mark_dirty(gpa.align_down(at.level), at.level);
        }
        let granted = self.ept.section(&self.embedder).grant(at, wanted);
        granted.ok().map(|_| Resolution::Mapped(at.level))
    }

    /// Maps what backs `address`; `None` asks to start over.
    fn map_shared(
        &self,
        address: Gpa,
        at: EptPosition,
        backing: SharedBacking,
        uniform: Level,
        sequence: u64,
        deposit: &mut Deposit<'_, E, Table>,
    ) -> Result<Option<Resolution>, Error> {
        let gpa = address.bits() & !self.config.shared_bit.mask();
        loop {
            // Conversions pass the mirror's exclusive section before they zap the shared tree.
            let section = self.mirror.hold(&self.embedder);
            if self.sequence() != sequence {
                return Ok(None);
            }
            let mut shared = self.ept.section(&self.embedder);
            let (done, resolution) = match backing {
                SharedBacking::None => {
                    return Ok(Some(Resolution::NoMemory {
                        gpa,
                        private: false,
                    }));
                }
                SharedBacking::Mmio => (
                    shared.map_virtualization_exception(
                        address.align_down(Level::Pt),
                        Level::Pt,
                        deposit,
                    ),
                    Resolution::Mmio,
                ),
                SharedBacking::Memory {
                    hpa,
                    level: run,
                    attributes,
                } => {
                    let level = run.min(uniform).min(at.level).min(Level::Pdpt);
                    // The run is aligned to its own size, so the part of it that is wanted is as well.
                    let offset = address.bits() & (run.size() - 1) & !(level.size() - 1);
                    let hpa = hpa
                        .checked_add(offset)
                        .ok_or(Error::BadAddress(hpa.bits()))?;
                    (
                        shared.map(address.align_down(level), hpa, level, attributes, deposit),
                        Resolution::Mapped(level),
                    )
                }
            };
            drop((shared, section));
            match done {
                Ok(()) => {
                    if let (SharedBacking::Memory { level: run, .. }, Resolution::Mapped(level)) =
                        (backing, resolution)
                    {
                        self.notice_shared(address, level, run);
                    }
                    return Ok(Some(resolution));
                }
                Err(EptStop::NeedTables) => deposit.top_up(DEPTH)?,
                Err(EptStop::Retry | EptStop::Found(_)) => return Ok(None),
            }
        }
    }
}
