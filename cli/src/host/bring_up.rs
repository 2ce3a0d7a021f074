//! Bringing the platform up.

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_mmu::platform::Hkid;
use tdx_mmu::platform::HkidPool;
use tdx_mmu::platform::MemoryRange;
use tdx_mmu::platform::bring_up::BringUpError;
use tdx_mmu::platform::bring_up::SystemInfo;
use tdx_mmu::platform::bring_up::bring_up;
use tdx_mmu::platform::layout::PamtMemory;
use tdx_mmu::platform::layout::Tdmr;

use super::Host;
use super::frames::FramePool;
use super::frames::Use;

/// A module that takes TDs.
#[derive(Debug)]
pub struct Up {
    /// What the module said.
    pub info: SystemInfo,
    /// Its TDMRs.
    pub tdmrs: Vec<Tdmr>,
    /// The KeyIDs for TDs.
    pub hkids: HkidPool,
    /// The module's own KeyID.
    pub global_hkid: Hkid,
}

impl Host {
    /// Brings the module up, with all of the host's memory for TDs.
    pub fn bring_up(&self) -> Result<Up, BringUpError> {
        let config = self.platform().config();
        let first = u32::from(config.first_private_key_id);
        let hkids = HkidPool::new(first, (1 << config.key_id_bits) - first)?;
        let global_hkid = hkids.allocate().ok_or(BringUpError::NoHkid)?;
        let memory = self.memory();
        let mut tdmrs = vec![Tdmr::default(); 64];
        let mut pamt_memory = FromPool(self.frames());
        let mode = self.module.pamt_mode();
        let (info, used) = bring_up(
            &self,
            &memory,
            &mut pamt_memory,
            mode,
            &global_hkid,
            &mut tdmrs,
        )?;
        let used = used.len();
        tdmrs.truncate(used);
        Ok(Up {
            info,
            tdmrs,
            hkids,
            global_hkid,
        })
    }
}

struct FromPool<'f>(&'f FramePool);

impl PamtMemory for FromPool<'_> {
    fn allocate(&mut self, size: u64, _tdmr: MemoryRange) -> Option<Hpa> {
        self.0.take_run(size)
    }

    fn free(&mut self, range: MemoryRange) {
        for page in (range.start().bits()..range.end().bits()).step_by(4096) {
            self.0.free(Hpa::new(page), Level::Pt, Use::Pamt);
        }
    }
}
