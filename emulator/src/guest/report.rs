//! TDG.MR.RTMR.EXTEND and TDG.MR.REPORT

use sha2::Digest;
use sha2::Sha256;
use sha2::Sha384;
use tdx_abi::format::ReportMac;
use tdx_abi::format::ReportTeeType;
use tdx_abi::format::ReportType;
use tdx_abi::format::TdReport;
use tdx_abi::format::TeeTcbInfo;

use super::Failure;
use super::Outcome;
use super::memory::Use;
use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::exit::Guest;
use crate::exit::Stop;
use crate::exit::gpr;
use crate::lock::Mode;
use crate::lock::SharexHp;
use crate::lock::Side;
use crate::servtd::tdinfo;
use crate::structures::Structure;
use crate::structures::tdcs;

/// Bytes of a SHA-384 digest.
const DIGEST_BYTES: usize = 48;
/// Number of runtime measurement registers.
const RTMRS: u64 = 4;
/// Alignment of the data that extends one.
const EXTENSION_ALIGNMENT: u64 = 64;
/// Bytes that the guest puts into a report, and their alignment.
const REPORT_DATA_BYTES: usize = 64;
/// Bytes of a report, and its alignment.
const REPORT_BYTES: usize = size_of::<TdReport>();
/// The only subtype of a report.
const SUBTYPE: u64 = 0;
/// Bytes of TEE_TCB_INFO that TEE_TCB_INFO_HASH covers.
const HASHED_TCB_BYTES: usize = 239;

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

    /// TDG.MR.REPORT: writes a report of the TD's measurements, with 64 bytes of the guest's, into its memory.
    ///
    /// The MAC is made with a key of the emulated platform: no CPU takes it for its own. The TDX module is
    /// reported with SVN and measurement 0.
    pub(super) fn mr_report(&self) -> Outcome {
        let invalid =
            |operand| Failure::from(Status::with_operand(StatusCode::OPERAND_INVALID, operand));
        let (report_gpa, data_gpa) = (self.register(gpr::RCX), self.register(gpr::RDX));
        if report_gpa % REPORT_BYTES as u64 != 0 {
            return Err(invalid(OperandId::RCX));
        }
        if data_gpa % REPORT_DATA_BYTES as u64 != 0 {
            return Err(invalid(OperandId::RDX));
        }
        let hpa = self
            .translate(data_gpa, Use::Read, false)
            .map_err(|failure| failure.with_operand(OperandId::RDX))?;
        if self.register(gpr::R8) != SUBTYPE {
            return Err(invalid(OperandId::R8));
        }
        let (info, hash) = tdinfo::reported(self.tdcs)
            .map_err(|code| Status::with_operand(code, OperandId::RTMR))?;
        if self.interrupt_pending() {
            return Err(Stop::Reexecute.into());
        }
        let mut data = [0; REPORT_DATA_BYTES];
        self.core.memory().read(hpa, &mut data);

        let mut kind = ReportType::from_bytes([0; size_of::<ReportType>()]);
        kind.set_tee_type(ReportTeeType::TDX);
        kind.set_version(u8::from(self.tdcs.get(tdcs::SERVTD_NUM) > 0));
        let tcb = tee_tcb_info();
        let mut mac = ReportMac::from_bytes([0; size_of::<ReportMac>()]);
        mac.set_report_type(&kind);
        mac.set_tee_tcb_info_hash(&Sha384::digest(&tcb.as_bytes()[..HASHED_TCB_BYTES]).into());
        mac.set_tee_info_hash(&hash);
        mac.set_report_data(&data);
        let authenticated = &mac.as_bytes()[..ReportMac::OFFSET_MAC];
        let code = authenticate(self.core, authenticated);
        mac.set_mac(&code);
        let mut report = TdReport::from_bytes([0; REPORT_BYTES]);
        report.set_report_mac(&mac);
        report.set_tee_tcb_info(&tcb);
        report.set_td_info(&info);

        let hpa = self
            .translate(report_gpa, Use::Write, false)
            .map_err(|failure| failure.with_operand(OperandId::RCX))?;
        self.core.memory().write(hpa, report.as_bytes());
        Ok(())
    }
}

/// TEE_TCB_INFO of a module that has no signer.
fn tee_tcb_info() -> TeeTcbInfo {
    let mut info = TeeTcbInfo::from_bytes([0; size_of::<TeeTcbInfo>()]);
    // One bit for each valid 8 bytes: VALID itself, TEE_TCB_SVN and MRSEAM.
    info.set_valid((1 << (TeeTcbInfo::OFFSET_MRSIGNERSEAM / 8)) - 1);
    info
}

/// HMAC-SHA-256 under a key that the platform's seed determines.
fn authenticate(core: &Core, text: &[u8]) -> [u8; 32] {
    const BLOCK_BYTES: usize = 64;
    let mut key = [0; BLOCK_BYTES];
    key[..8].copy_from_slice(&core.config.seed.to_le_bytes());
    let inner = Sha256::new()
        .chain_update(key.map(|byte| byte ^ 0x36))
        .chain_update(text)
        .finalize();
    Sha256::new()
        .chain_update(key.map(|byte| byte ^ 0x5c))
        .chain_update(inner)
        .finalize()
        .into()
}
