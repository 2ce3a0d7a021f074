//! Migration bundle metadata: the 48 bytes that head every migration bundle.

use tdx_abi::format::MbType;
use tdx_abi::format::MbmdHeader;
use tdx_abi::format::MbmdMem;
use tdx_abi::format::MigEpoch;

use super::gcm::Mac;

/// Bytes of an MBMD, the tag included.
pub(crate) const MBMD_BYTES: usize = MbmdMem::SIZE;
/// Bytes of an MBMD that its tag covers.
const COVERED_BYTES: usize = MbmdMem::OFFSET_MAC;
/// Where what the bundle's kind adds begins.
const SPECIFIC: usize = MbmdMem::OFFSET_NUM_GPAS;
/// The byte of the header that must be 0.
const RESERVED: usize = MbmdHeader::OFFSET_MB_TYPE + 1;
/// The alignment that the host must give an MBMD buffer.
pub(crate) const MBMD_ALIGN: u64 = 128;
/// The migration epoch of the out-of-order phase.
pub(crate) const OUT_OF_ORDER: u32 = MigEpoch::OUT_OF_ORDER.into_bits();

/// Migration bundle metadata, as six little-endian words.
///
/// Source: `mbmd_t` of module 1.5.01, `src/common/helpers/migration.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mbmd {
    /// `size`, bytes of the whole structure.
    pub size: u16,
    /// Version of the migration protocol.
    pub mig_version: u16,
    /// Index of the stream; outside the tag.
    pub stream: u16,
    /// Number of the bundle's kind.
    pub bundle_type: MbType,
    /// Must be 0.
    pub reserved: u8,
    /// Number of the bundle in its stream and epoch.
    pub mb_counter: u32,
    /// Migration epoch, or [`OUT_OF_ORDER`].
    pub mig_epoch: u32,
    /// IV counter of the bundle's first IV; outside the tag.
    pub iv_counter: u64,
    /// What the bundle's kind adds.
    pub specific: u64,
    /// The tag.
    pub mac: Mac,
}

impl Mbmd {
    /// An MBMD of this kind as it enters the tag: stream and IV counter 0.
    pub(crate) fn new(
        kind: MbType,
        mig_version: u16,
        mb_counter: u32,
        mig_epoch: u32,
        specific: u64,
    ) -> Self {
        Self {
            size: MBMD_BYTES as u16,
            mig_version,
            bundle_type: kind,
            mb_counter,
            mig_epoch,
            specific,
            ..Self::default()
        }
    }

    /// Takes an MBMD from memory; every value is possible.
    pub(crate) fn from_bytes(bytes: &[u8; MBMD_BYTES]) -> Self {
        let header = MbmdHeader::from_bytes(core::array::from_fn(|index| bytes[index]));
        Self {
            size: header.size(),
            mig_version: header.mig_version(),
            stream: header.migs_index(),
            bundle_type: header.mb_type(),
            reserved: bytes[RESERVED],
            mb_counter: header.mb_counter(),
            mig_epoch: header.mig_epoch().into_bits(),
            iv_counter: header.iv_counter(),
            specific: specific_of(bytes),
            mac: core::array::from_fn(|index| bytes[COVERED_BYTES + index]),
        }
    }

    /// The MBMD as it stands in memory.
    pub(crate) fn to_bytes(self) -> [u8; MBMD_BYTES] {
        let mut header = MbmdHeader::new();
        header.set_size(self.size);
        header.set_mig_version(self.mig_version);
        header.set_migs_index(self.stream);
        header.set_mb_type(self.bundle_type);
        header.set_mb_counter(self.mb_counter);
        header.set_mig_epoch(MigEpoch::from_bits(self.mig_epoch));
        header.set_iv_counter(self.iv_counter);
        let mut bytes = [0; MBMD_BYTES];
        bytes[..MbmdHeader::SIZE].copy_from_slice(header.as_bytes());
        bytes[RESERVED] = self.reserved;
        bytes[SPECIFIC..COVERED_BYTES].copy_from_slice(&self.specific.to_le_bytes());
        bytes[COVERED_BYTES..].copy_from_slice(&self.mac);
        bytes
    }

    /// The bytes that the tag covers: stream and IV counter count as 0.
    pub(crate) fn covered(&self) -> [u8; COVERED_BYTES] {
        let mut covered = [0; COVERED_BYTES];
        covered.copy_from_slice(
            &Self {
                stream: 0,
                iv_counter: 0,
                ..*self
            }
            .to_bytes()[..COVERED_BYTES],
        );
        covered
    }

    /// Whether size, kind and reserved byte are those of a bundle of `kind` of protocol `mig_version`.
    pub(crate) fn is(&self, kind: MbType, mig_version: u16) -> bool {
        usize::from(self.size) == MBMD_BYTES
            && self.bundle_type == kind
            && self.reserved == 0
            && self.mig_version == mig_version
    }
}

/// What the bundle's kind adds, of an MBMD in memory.
pub(crate) fn specific_of(bytes: &[u8; MBMD_BYTES]) -> u64 {
    u64::from_le_bytes(core::array::from_fn(|index| bytes[SPECIFIC + index]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_headers_take_apart_and_join_again() {
        // First 32 bytes that the module wrote for EXPORT.MEM of seven pages on stream 0 (tag not recorded).
        let mut bytes = [0; MBMD_BYTES];
        bytes[..32].copy_from_slice(&[
            0x30, 0, 0, 0, 0, 0, 0x10, 0, 0x01, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0,
            0x07, 0, 0, 0, 0, 0, 0, 0,
        ]);
        let mbmd = Mbmd::from_bytes(&bytes);
        assert!(mbmd.is(MbType::MEM, 0));
        assert_eq!(
            (
                mbmd.mb_counter,
                mbmd.mig_epoch,
                mbmd.iv_counter,
                mbmd.specific
            ),
            (1, 0, 2, 7)
        );
        assert_eq!(mbmd.to_bytes(), bytes);
        assert_eq!(
            Mbmd {
                iv_counter: 2,
                ..Mbmd::new(MbType::MEM, 0, 1, 0, 7)
            },
            mbmd
        );
        assert_eq!(mbmd.covered()[16..24], [0; 8]);
    }
}
