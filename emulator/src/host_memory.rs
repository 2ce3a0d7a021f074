//! Memory as the host sees it, under KeyID 0.

use tdx_abi::Hpa;

use crate::core::Core;
use crate::frame::FRAME_BYTES;
use crate::keys::LINE;
use crate::keys::LineFault;

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
            for (line, _) in lines(hpa, to.len() as u64) {
                keys.host_read(line)?;
            }
        }
        self.core.memory().read(hpa, to);
        Ok(())
    }

    /// Writes from `hpa` on by ordinary stores, which read the rest of a line first.
    pub fn write(&self, hpa: Hpa, from: &[u8]) {
        self.tag(hpa.bits(), from.len() as u64, false);
        self.core.memory().write(hpa.bits(), from);
    }

    /// Writes the page of zeros at `hpa` by MOVDIR64B: whole lines, without reading them.
    pub fn scrub(&self, hpa: Hpa) {
        let page = hpa.bits() & !(FRAME_BYTES as u64 - 1);
        self.tag(page, FRAME_BYTES as u64, true);
        self.core.memory().fill(page >> 12, 0);
    }

    fn tag(&self, hpa: u64, count: u64, direct: bool) {
        if let Some(keys) = &self.core.keys {
            for (line, whole) in lines(hpa, count) {
                keys.host_write(line, direct && whole);
            }
        }
    }
}

/// The lines of a range: an address in each, and whether all of it is in the range.
fn lines(hpa: u64, count: u64) -> impl Iterator<Item = (u64, bool)> {
    let end = hpa + count;
    let first = hpa & !(LINE - 1);
    (first..end)
        .step_by(LINE as usize)
        .map(move |line| (line.max(hpa), line >= hpa && line + LINE <= end))
}
