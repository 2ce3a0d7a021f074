//! TDINFO: what a TD is measured as, and its hash.

use tdx_abi::format::ServtdAttributes;
use tdx_abi::format::TdAttributes;
use tdx_abi::format::TdInfo;
use tdx_abi::format::Xfam;

use crate::abi::StatusCode;
use crate::frame::Field;
use crate::lock::Mode;
use crate::lock::SharexHp;
use crate::lock::Side;
use crate::measurement::sha384;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::tdcs;

/// A SHA-384 measurement.
pub(crate) type Measurement = [u8; MEASUREMENT_BYTES];

/// Its size.
pub(crate) const MEASUREMENT_BYTES: usize = 48;
/// RTMRs of a TD.
const RTMRS: usize = 4;

/// The hash of a TD's TDINFO in which what `ignored` names is 0.
///
/// Locks the RTMRs shared; the error is that of the lock.
pub(crate) fn hash(
    tdcs: Tdcs<'_>,
    ignored: ServtdAttributes,
    side: Side,
) -> Result<Measurement, StatusCode> {
    let _rtmrs = SharexHp::acquire(tdcs.lock_word(tdcs::RTMR_LOCK), Mode::Shared, side)?;
    Ok(locked_hash(tdcs, ignored))
}

/// TDINFO in full, as the guest reports it, with its hash. The error is that of the RTMRs' lock.
pub(crate) fn reported(tdcs: Tdcs<'_>) -> Result<(TdInfo, Measurement), StatusCode> {
    let rtmrs = tdcs.lock_word(tdcs::RTMR_LOCK);
    let _rtmrs = SharexHp::acquire(rtmrs, Mode::Shared, Side::Guest)?;
    let all = ServtdAttributes::from_bits(0);
    Ok((tdinfo(tdcs, all), locked_hash(tdcs, all)))
}

fn locked_hash(tdcs: Tdcs<'_>, ignored: ServtdAttributes) -> Measurement {
    let complete = !ignores_anything(ignored);
    if complete && tdcs.get(tdcs::LAST_TEEINFO_HASH_VALID) {
        let mut last = [0; MEASUREMENT_BYTES];
        last.copy_from_slice(&tdcs.bytes(tdcs::LAST_TEEINFO_HASH.offset(), MEASUREMENT_BYTES));
        return last;
    }
    let hash = sha384(tdinfo(tdcs, ignored).as_bytes());
    if complete {
        tdcs.set_bytes(tdcs::LAST_TEEINFO_HASH.offset(), &hash);
        tdcs.set(tdcs::LAST_TEEINFO_HASH_VALID, true);
    }
    hash
}

const fn ignores_anything(ignored: ServtdAttributes) -> bool {
    ignored.ignore_attributes()
        || ignored.ignore_xfam()
        || ignored.ignore_mrtd()
        || ignored.ignore_mrconfigid()
        || ignored.ignore_mrowner()
        || ignored.ignore_mrownerconfig()
        || ignored.ignore_rtmr() != 0
        || ignored.ignore_servtd_hash()
}

/// TDINFO with 0 for what `ignored` names. The RTMRs are locked.
fn tdinfo(tdcs: Tdcs<'_>, ignored: ServtdAttributes) -> TdInfo {
    let mut info = TdInfo::new();
    if !ignored.ignore_attributes() {
        info.set_attributes(TdAttributes::from_bits(tdcs.get(tdcs::ATTRIBUTES)));
    }
    if !ignored.ignore_xfam() {
        info.set_xfam(Xfam::from_bits(tdcs.get(tdcs::XFAM)));
    }
    let mut copy = |ignore: bool, from: Field<u64>, to: usize| {
        if !ignore {
            let measurement = tdcs.bytes(from.offset(), MEASUREMENT_BYTES);
            info.as_bytes_mut()[to..to + MEASUREMENT_BYTES].copy_from_slice(&measurement);
        }
    };
    copy(ignored.ignore_mrtd(), tdcs::MRTD, TdInfo::OFFSET_MRTD);
    copy(
        ignored.ignore_mrconfigid(),
        tdcs::MRCONFIGID,
        TdInfo::OFFSET_MRCONFIGID,
    );
    copy(
        ignored.ignore_mrowner(),
        tdcs::MROWNER,
        TdInfo::OFFSET_MROWNER,
    );
    copy(
        ignored.ignore_mrownerconfig(),
        tdcs::MROWNERCONFIG,
        TdInfo::OFFSET_MROWNERCONFIG,
    );
    for rtmr in 0..RTMRS {
        let ignore = ignored.ignore_rtmr() >> rtmr & 1 != 0;
        let from = tdcs::RTMR.nth(rtmr * MEASUREMENT_BYTES / 8);
        copy(
            ignore,
            from,
            TdInfo::OFFSET_RTMR0 + rtmr * MEASUREMENT_BYTES,
        );
    }
    copy(
        ignored.ignore_servtd_hash(),
        tdcs::SERVTD_HASH,
        TdInfo::OFFSET_SERVTD_HASH,
    );
    info
}
