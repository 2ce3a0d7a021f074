//! From nothing to a TD that has its control structures.

use core::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::OpState;
use tdx_abi::Page;
use tdx_abi::SharedBit;

use super::Error;
use super::Td;
use super::candidates::Candidates;
use super::epoch::Epoch;
use super::leaves;
use super::ledger::Ledger;
use super::ledger::PAGES_PER_VCPU;
use super::merge::Merges;
use crate::Word;
use crate::attributes::VisibilityMap;
use crate::embed::Embedder;
use crate::embed::Frames;
use crate::gate::Gate;
use crate::mirror::Mirror;
use crate::platform::Hkid;
use crate::shared::Ept;

/// Fixed properties of a TD and its platform.
#[derive(Clone, Copy, Debug)]
pub struct TdConfig {
    /// Where the SHARED bit is: 47 or 51 by GPAW, or what an emulated platform has.
    pub shared_bit: SharedBit,
    /// Level of the Secure-EPT's root entries, as TD_PARAMS.EPTP_CONTROLS says.
    pub private_top: Level,
    /// Level of the shared EPT's root entries; the CPU walks both with the same number of levels.
    pub shared_top: Level,
    /// Lowest address bit that a KeyID takes.
    pub keyid_shift: u8,
    /// The module's own KeyID, with which TDRs are encrypted.
    pub global_hkid: u16,
    /// TDCX pages that a TD needs (metadata fields TDCS_BASE_SIZE and, for each L2 VM, TDCS_SIZE_PER_L2_VM, in pages).
    pub tdcx_pages: u8,
    /// TDVPX pages that a vCPU needs beside the TDVPR (TDVPS_BASE_SIZE and TDVPS_SIZE_PER_L2_VM).
    pub tdvpx_pages: u8,
    /// Number of L2 VMs, as TD_PARAMS.NUM_L2_VMS says; at most [`crate::l2::MAX_L2_VMS`], 0 unless the embedder has
    /// [`crate::embed::Tables::l2_links`]. See [`TdConfig::with_l2_vms`].
    pub l2_vms: u8,
}

impl TdConfig {
    /// `hpa` with the KeyID `hkid`, as TDH.PHYMEM.PAGE.WBINVD takes it.
    pub(super) const fn with_keyid(&self, hpa: Hpa, hkid: u16) -> Hpa {
        Hpa::new(hpa.bits() | (hkid as u64) << self.keyid_shift)
    }
}

/// How far a TD's control structures have come.
pub(super) mod stage {
    pub(crate) const BLANK: u64 = 0;
    pub(crate) const CREATED: u64 = 1;
    /// The TDR is the host's again, but not written back.
    pub(crate) const RECLAIMED: u64 = 2;
    /// The TDR is with the host's allocator.
    pub(crate) const GONE: u64 = 3;
}

impl<E: Embedder> Td<E> {
    /// Creates a TD: TDH.MNG.CREATE, KEY.CONFIG on each package, ADDCX, INIT with the TD_PARAMS at `parameters`, and for
    /// each L2 VM one WR, by which TDG.MEM.PAGE.ATTR.WR exits where it has no table.
    ///
    /// If that fails half-way, [`Td::teardown`] of what is returned gives everything back. `Err` only
    /// if not even the host's tables could be allocated.
    #[expect(
        clippy::type_complexity,
        reason = "what is taken comes back either way"
    )]
    pub fn create(
        embedder: E,
        config: TdConfig,
        hkid: Hkid,
        parameters: Hpa,
    ) -> Result<(Self, Result<(), Error>), (E, Hkid, Error)> {
        let td = Self::blank(embedder, config, hkid)?;
        let done = td.build_control_structures(Some(parameters));
        Ok((td, done))
    }

    /// As [`Td::create`], but for a TD that is to be imported: it gets its parameters, vCPUs and memory by
    /// [`Td::import`], and `config` has to be what the source's are.
    #[expect(
        clippy::type_complexity,
        reason = "what is taken comes back either way"
    )]
    pub fn create_for_import(
        embedder: E,
        config: TdConfig,
        hkid: Hkid,
    ) -> Result<(Self, Result<(), Error>), (E, Hkid, Error)> {
        let td = Self::blank(embedder, config, hkid)?;
        let done = td.build_control_structures(None);
        Ok((td, done))
    }

    fn blank(embedder: E, config: TdConfig, hkid: Hkid) -> Result<Self, (E, Hkid, Error)> {
        let Some(roots) = Roots::allocate(&embedder) else {
            return Err((embedder, hkid, Error::OutOfPages));
        };
        let Roots {
            mirror,
            shared,
            visibility,
            ledger,
            tdr,
        } = roots;
        let mirror = Mirror::new(
            &embedder,
            mirror.into_hpa(),
            Hpa::new(0),
            config.private_top,
        );
        let ept = Ept::new(&embedder, shared.into_hpa(), config.shared_top);
        let visibility = VisibilityMap::new(&embedder, visibility.into_hpa(), config.private_top);
        let ledger = Ledger::new(&embedder, ledger.into_hpa());
        Ok(Self {
            embedder,
            config,
            tdr: tdr.into_hpa(),
            hkid,
            ledger,
            mirror,
            ept,
            visibility,
            epoch: Epoch::new(),
            op_state: Word::new(OpState::Uninitialized as u64),
            sequence: Word::new(0),
            vcpus: Word::new(0),
            candidates: Candidates::new(),
            merges: Merges::new(),
            reshaping: Gate::new(),
            stage: Word::new(stage::BLANK),
        })
    }

    fn build_control_structures(&self, parameters: Option<Hpa>) -> Result<(), Error> {
        let memory = self.memory();
        self.admit(self.tdr)?;
        if let Err(error) = memory.mng_create(self.hkid.number()) {
            return Err(self.dismiss(self.tdr, Level::Pt).err().unwrap_or(error));
        }
        self.stage.store(stage::CREATED, Ordering::Release);
        self.embedder
            .on_each_package(|_, lp| memory.mng_key_config(lp))?;
        for index in 0..u64::from(self.config.tdcx_pages) {
            self.give_control_page(Ledger::tdcx(index), |page| memory.mng_addcx(page))?;
        }
        if let Some(parameters) = parameters {
            memory.mng_init(parameters)?;
            (1..=self.config.l2_vms).try_for_each(|vm| memory.mng_wr_vm_ctls(vm))?;
            self.set_op_state(OpState::Initialized);
        }
        Ok(())
    }

    /// Adds a vCPU: TDH.VP.CREATE, ADDCX, INIT with `rcx` as the guest's initial RCX. Returns its number.
    ///
    /// Legal before [`Td::finalize`]. A vCPU that could not be completed keeps its number.
    pub fn add_vcpu(&self, rcx: u64) -> Result<usize, Error> {
        let number = self.vcpus.add(1);
        let vcpu = usize::try_from(number).map_err(|_| Error::NoSuchVcpu(usize::MAX))?;
        let tdvpr = self.create_vcpu(vcpu)?;
        self.add_vcpu_pages(vcpu, tdvpr)?;
        leaves::vp_init(&self.embedder, tdvpr, rcx)?;
        Ok(vcpu)
    }

    /// TDH.VP.CREATE; returns the TDVPR.
    pub(super) fn create_vcpu(&self, vcpu: usize) -> Result<Hpa, Error> {
        let memory = self.memory();
        self.give_control_page(Ledger::vcpu_page(vcpu, 0), |page| memory.vp_create(page))
    }

    /// TDH.VP.ADDCX of the pages that are still missing.
    pub(super) fn add_vcpu_pages(&self, vcpu: usize, tdvpr: Hpa) -> Result<(), Error> {
        for index in 1..=u64::from(self.config.tdvpx_pages).min(PAGES_PER_VCPU - 1) {
            let number = Ledger::vcpu_page(vcpu, index);
            if self.ledger.page(&self.embedder, number).is_none() {
                self.give_control_page(number, |page| {
                    leaves::vp_addcx(&self.embedder, tdvpr, page)
                })?;
            }
        }
        Ok(())
    }

    /// Number of vCPUs added.
    pub fn vcpus(&self) -> usize {
        usize::try_from(self.vcpus.load(Ordering::Acquire)).unwrap_or(usize::MAX)
    }

    /// Address of the TDVPR of `vcpu`, the operand of TDH.VP.ENTER.
    pub fn tdvpr(&self, vcpu: usize) -> Option<Hpa> {
        self.ledger.page(&self.embedder, Ledger::vcpu_page(vcpu, 0))
    }

    /// Allocates a page for the module, gives it away with `give`, and keeps it on record.
    pub(super) fn give_control_page(
        &self,
        number: u64,
        give: impl FnOnce(Hpa) -> Result<(), Error>,
    ) -> Result<Hpa, Error> {
        let page = self
            .embedder
            .allocate_module_page()
            .ok_or(Error::OutOfPages)?;
        let hpa = page.hpa();
        if let Err(error) = self.ledger.note(&self.embedder, number, hpa) {
            self.embedder.free_module_page(page);
            return Err(error);
        }
        let given = self.admit(hpa).and_then(|()| {
            give(hpa).map_err(|error| self.dismiss(hpa, Level::Pt).err().unwrap_or(error))
        });
        match given {
            Ok(()) => Ok(page.into_hpa()),
            Err(error) => {
                self.ledger.forget(&self.embedder, number);
                self.embedder.free_module_page(page);
                Err(error)
            }
        }
    }
}

struct Roots {
    mirror: Page,
    shared: Page,
    visibility: Page,
    ledger: Page,
    tdr: Page,
}

impl Roots {
    /// Allocates all of them or none.
    fn allocate<F: Frames>(frames: &F) -> Option<Self> {
        let mut tables = [const { None }; 4];
        for place in &mut tables {
            *place = frames.allocate_table();
        }
        match (tables, frames.allocate_module_page()) {
            ([Some(mirror), Some(shared), Some(visibility), Some(ledger)], Some(tdr)) => {
                Some(Self {
                    mirror,
                    shared,
                    visibility,
                    ledger,
                    tdr,
                })
            }
            (tables, tdr) => {
                tables
                    .into_iter()
                    .flatten()
                    .for_each(|table| frames.free_table(table));
                tdr.into_iter().for_each(|tdr| frames.free_module_page(tdr));
                None
            }
        }
    }
}
