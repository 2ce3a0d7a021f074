//! On which LP a vCPU is.

use tdx_abi::Hpa;
use tdx_abi::Tdvpr;
use tdx_abi::field::td_vmcs;
use tdx_abi::format::Eptp;
use tdx_abi::tdh;

use super::Error;
use super::Td;
use super::call::Plain;
use super::call::call_on;
use super::leaves;
use super::teardown::not_here;
use crate::embed::Embedder;
use crate::platform::LpId;

/// Bits of the field Shared EPTP that the host writes; the others follow the TD's own EPTP.
const ADDRESS: u64 = Eptp::from_bits(0).with_root(Hpa::new(u64::MAX)).into_bits();

impl<E: Embedder> Td<E> {
    /// Tells the module where `vcpu` finds the shared EPT: TDH.VP.WR of the field Shared EPTP.
    ///
    /// Before it, every access with SHARED = 1 is an EPT violation that no mapping ends.
    pub fn show_shared(&self, vcpu: usize) -> Result<(), Error> {
        let tdvpr = self.tdvpr(vcpu).ok_or(Error::NoSuchVcpu(vcpu))?;
        let embedder = self.embedder();
        let write = || tdh::vp::Wr {
            tdvpr: Tdvpr::assume(tdvpr),
            field: td_vmcs::SHARED_EPTP,
            value: self.shared().tree().root().bits(),
            mask: ADDRESS,
        };
        embedder
            .on_this_lp(|_, lp| call_on(lp, embedder, write(), Plain))
            .map(drop)
    }

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
