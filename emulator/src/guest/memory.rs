//! Memory operands of guest leaves.

use super::Failure;
use tdx_abi::format::VeCategory;

use crate::abi::Status;
use crate::abi::StatusCode;
use crate::exit::Guest;
use crate::exit::Stop;
use crate::exit::ept_violation::ept_violation_exit;
use crate::exit::ept_violation::misconfiguration_exit;
use crate::exit::reason;
use crate::structures::Structure;
use crate::structures::tdcs;
use crate::structures::vmcs::encoding;
use crate::translate;
use crate::translate::Translation;

/// How a leaf uses an operand in memory, as permissions of an EPT entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Use {
    /// It reads.
    Read = 1,
    /// It reads and writes.
    Write = 3,
}

/// EPTP bits that a shared EPTP takes from the TD's own: memory type, walk length, A/D, shadow stack.
const EPTP_CONTROLS: u64 = 0xff;
/// Bits of an exit qualification: what was tried, and what was allowed.
const ALLOWED_SHIFT: u32 = 3;

impl Guest<'_> {
    /// Translates the guest-physical address of an operand; what stands in the way becomes #VE or a TD exit.
    ///
    /// A malformed address is OPERAND_INVALID, without an operand id.
    pub(super) fn translate(&self, gpa: u64, how: Use, private_only: bool) -> Result<u64, Failure> {
        let wide = self.tdcs.get(tdcs::GPAW);
        if !self.core.is_valid_gpa(gpa, wide, private_only) {
            return Err(Status::of(StatusCode::OPERAND_INVALID).into());
        }
        let access = how as u64;
        let shared = self.core.is_shared(gpa, wide);
        let walk = if shared {
            let controls = self.tdcs.get(tdcs::EPTP) & EPTP_CONTROLS;
            let eptp = self.vmcs.read(encoding::SHARED_EPTP) & !EPTP_CONTROLS | controls;
            translate::shared(self.core, eptp, gpa, access)
        } else {
            translate::private(self.core, self.tdcs, gpa, access)
        };
        let qualification = access & !walk.permissions | walk.permissions << ALLOWED_SHIFT;
        let violation = u64::from(reason::EPT_VIOLATION);
        Err(match walk.outcome {
            Translation::Mapped(hpa) => return Ok(hpa),
            _ if !shared => self
                .private_access_refused(gpa, walk.entry, qualification)
                .into(),
            Translation::Misconfigured => {
                misconfiguration_exit(gpa, reason::EPT_MISCONFIGURATION.into()).into()
            }
            Translation::Violation => ept_violation_exit(gpa, violation, qualification, 0).into(),
            Translation::Convertible => {
                self.inject_ve(Some(VeCategory::ARCH), violation, qualification, gpa, 0);
                Stop::Injected.into()
            }
        })
    }
}
