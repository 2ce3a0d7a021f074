//! What L2 VMs add to the configuration of a TD.

use tdx_abi::Level;
use tdx_abi::field::FieldId;
use tdx_abi::field::global;
use tdx_abi::tdh;

use super::super::Error;
use super::super::TdConfig;
use super::super::call::call;
use crate::embed::Relax;
use crate::l2::MAX_L2_VMS;
use crate::platform::Executor;
use crate::platform::bring_up::BringUpError;

impl TdConfig {
    /// The configuration of a TD that has `l2_vms` L2 VMs, at most [`MAX_L2_VMS`], where `self` is that of one without:
    /// with the control pages that they need, as two TDH.SYS.RD say.
    pub fn with_l2_vms(
        self,
        embedder: &(impl Executor + Relax),
        l2_vms: u8,
    ) -> Result<Self, BringUpError> {
        if usize::from(l2_vms) > MAX_L2_VMS {
            return Err(BringUpError::Call(Error::NoSuchL2Vm(l2_vms)));
        }
        let grown = |pages: u8, name, field: FieldId| {
            let value = call(embedder, tdh::sys::Rd { field })?.value;
            let each = u8::try_from(value >> Level::Pt.shift()).ok();
            each.filter(|_| value.is_multiple_of(Level::Pt.size()))
                .and_then(|each| pages.checked_add(each.checked_mul(l2_vms)?))
                .ok_or(BringUpError::Field { name, value })
        };
        let (tdcx, tdvpx) = (self.tdcx_pages, self.tdvpx_pages);
        Ok(Self {
            tdcx_pages: grown(tdcx, "TDCS_SIZE_PER_L2_VM", global::TDCS_SIZE_PER_L2_VM)?,
            tdvpx_pages: grown(tdvpx, "TDVPS_SIZE_PER_L2_VM", global::TDVPS_SIZE_PER_L2_VM)?,
            l2_vms,
            ..self
        })
    }
}
