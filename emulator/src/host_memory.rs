//! Memory as the host sees it, under KeyID 0.

use tdx_abi::Hpa;

use crate::core::Core;
use crate::keys::LineFault;
use crate::keys::lines;

/// Memory as the host sees it: plaintext of its own lines only.
///
/// Writing is never refused, as on the hardware; it poisons what belongs to a TD, whose next access is then a
/// machine check. Memory that the embedder supplied has no tags: there everything can be read.
#[derive(Clone, Copy)]
pub struct HostMemory<'p> {
    core: &'p Core,
}

impl<'p> HostMemory<'p> {
    pub(crate) const fn new(core: &'p Core) -> Self {
        Self { core }
    }

    /// Reads from `hpa` on. On an error nothing has been read.
    pub fn read(&self, hpa: Hpa, to: &mut [u8]) -> Result<(), LineFault> {
        let hpa = hpa.bits();
        if let Some(keys) = &self.core.keys {
            for line in lines(hpa, to.len() as u64) {
                keys.host_read(line)?;
            }
        }
        self.core.memory().read(hpa, to);
        Ok(())
    }

    /// Writes from `hpa` on by ordinary stores, which read the rest of a line first.
    pub fn write(&self, hpa: Hpa, from: &[u8]) {
        if let Some(keys) = &self.core.keys {
            for line in lines(hpa.bits(), from.len() as u64) {
                keys.host_write(line, false);
            }
        }
        self.core.memory().write(hpa.bits(), from);
    }

    /// Writes the page of zeros at `hpa` by MOVDIR64B: whole lines, without reading them.
    pub fn scrub(&self, hpa: Hpa) {
        let page = hpa.bits() >> 12;
        if let Some(keys) = &self.core.keys {
            keys.host_scrub(page);
        }
        self.core.memory().fill(page, 0);
    }
}
