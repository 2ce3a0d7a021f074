//! On which LP a vCPU is.

use super::Error;
use super::Td;
use super::leaves;
use super::teardown::not_here;
use crate::embed::Embedder;
use crate::platform::LpId;

impl<E: Embedder> Td<E> {
    /// Gets `vcpu` ready to be entered on `lp`: where [`last_lp`](crate::embed::Vcpus::last_lp) says
    /// another LP, TDH.VP.FLUSH is executed there, because the module lets a vCPU run only on the LP that it is
    /// associated with.
    ///
    /// The vCPU must not be inside. TDH.VP.INIT, VP.RD and VP.WR associate a vCPU too.
    pub fn associate(&self, vcpu: usize, lp: LpId) -> Result<(), Error> {
        let tdvpr = self.tdvpr(vcpu).ok_or(Error::NoSuchVcpu(vcpu))?;
        let embedder = self.embedder();
        match embedder.last_lp(vcpu).filter(|last| *last != lp) {
            None => Ok(()),
            Some(last) => embedder
                .on_lp(last, |lp| not_here(leaves::vp_flush(lp, embedder, tdvpr)))
                // An LP that went offline has flushed everything.
                .unwrap_or(Ok(())),
        }
    }
}
