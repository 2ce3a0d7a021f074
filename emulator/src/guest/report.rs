//! TDG.MR.RTMR.EXTEND and TDG.MR.REPORT

use sha2::Digest;
use sha2::Sha384;

use super::Failure;
use super::Outcome;
use super::memory::Use;
use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::exit::Guest;
use crate::exit::gpr;
use crate::lock::Mode;
use crate::lock::SharexHp;
use crate::lock::Side;
use crate::structures::Structure;
use crate::structures::tdcs;

/// Bytes of a SHA-384 digest.
const DIGEST_BYTES: usize = 48;
/// Number of runtime measurement registers.
const RTMRS: u64 = 4;
/// Alignment of the data that extends one.
const EXTENSION_ALIGNMENT: u64 = 64;

impl Guest<'_> {
    /// TDG.MR.RTMR.EXTEND: RTMR becomes the hash of its value followed by 48 bytes of the guest's memory.
    pub(super) fn rtmr_extend(&self) -> Outcome {
        let invalid =
            |operand| Failure::from(Status::with_operand(StatusCode::OPERAND_INVALID, operand));
        let (gpa, index) = (self.register(gpr::RCX), self.register(gpr::RDX));
        if gpa % EXTENSION_ALIGNMENT != 0 {
            return Err(invalid(OperandId::RCX));
        }
        let hpa = self
            .translate(gpa, Use::Read, true)
            .map_err(|failure| match failure {
                Failure::Status(_) => invalid(OperandId::RCX),
                stop => stop,
            })?;
        let mut extension = [0; DIGEST_BYTES];
        self.core.memory().read(hpa, &mut extension);
        if index >= RTMRS {
            return Err(invalid(OperandId::RDX));
        }
        let _lock = SharexHp::acquire(
            self.tdcs.lock_word(tdcs::RTMR_LOCK),
            Mode::Exclusive,
            Side::Guest,
        )
        .map_err(|code| Status::with_operand(code, OperandId::RTMR))?;
        let offset = tdcs::RTMR.offset() + index as usize * DIGEST_BYTES;
        let digest = Sha384::new()
            .chain_update(self.tdcs.bytes(offset, DIGEST_BYTES))
            .chain_update(extension);
        self.tdcs.set_bytes(offset, &digest.finalize());
        self.tdcs.set(tdcs::LAST_TEEINFO_HASH_VALID, false);
        Ok(())
    }
}
