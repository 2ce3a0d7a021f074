//! Migration bundle metadata: the 48 bytes that head every migration bundle.

use super::gcm::Mac;

/// Bytes of an MBMD, the tag included.
pub const MBMD_BYTES: usize = 48;
/// Bytes of an MBMD that its tag covers.
const COVERED_BYTES: usize = 32;
/// The alignment that the host must give an MBMD buffer.
pub const MBMD_ALIGN: u64 = 128;
/// The migration epoch of the out-of-order phase.
pub const OUT_OF_ORDER: u32 = u32::MAX;

/// The kinds of migration bundles, with Intel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BundleType {
    /// TD-scope state that never changes after the TD's build, and the module's own.
    ImmutableTdState = 0,
    /// TD-scope state at the time of the pause.
    MutableTdState = 1,
    /// State of one vCPU.
    MutableVcpuState = 2,
    /// Memory pages.
    Memory = 16,
    /// The end of a migration epoch.
    EpochToken = 32,
    /// The destination's statement that it will not run the TD.
    AbortToken = 33,
}

/// Migration bundle metadata, as six little-endian words.
///
/// Source: `mbmd_t` of module 1.5.01, `src/common/helpers/migration.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mbmd {
    /// `size`, bytes of the whole structure.
    pub size: u16,
    /// Version of the migration protocol.
    pub mig_version: u16,
    /// Index of the stream; outside the tag.
    pub stream: u16,
    /// Number of the bundle's kind.
    pub bundle_type: u8,
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
    pub fn new(
        kind: BundleType,
        mig_version: u16,
        mb_counter: u32,
        mig_epoch: u32,
        specific: u64,
    ) -> Self {
        Self {
            size: MBMD_BYTES as u16,
            mig_version,
            bundle_type: kind as u8,
            mb_counter,
            mig_epoch,
            specific,
            ..Self::default()
        }
    }

    /// Takes an MBMD from memory; every value is possible.
    pub fn from_bytes(bytes: &[u8; MBMD_BYTES]) -> Self {
        let word = |index: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[8 * index..8 * index + 8]);
            u64::from_le_bytes(word)
        };
        let mut mac = Mac::default();
        mac.copy_from_slice(&bytes[COVERED_BYTES..]);
        Self {
            size: word(0) as u16,
            mig_version: (word(0) >> 16) as u16,
            stream: (word(0) >> 32) as u16,
            bundle_type: (word(0) >> 48) as u8,
            reserved: (word(0) >> 56) as u8,
            mb_counter: word(1) as u32,
            mig_epoch: (word(1) >> 32) as u32,
            iv_counter: word(2),
            specific: word(3),
            mac,
        }
    }

    /// The MBMD as it stands in memory.
    pub fn to_bytes(&self) -> [u8; MBMD_BYTES] {
        let mut bytes = [0; MBMD_BYTES];
        bytes[0..2].copy_from_slice(&self.size.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.mig_version.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.stream.to_le_bytes());
        bytes[6] = self.bundle_type;
        bytes[7] = self.reserved;
        bytes[8..12].copy_from_slice(&self.mb_counter.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.mig_epoch.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.iv_counter.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.specific.to_le_bytes());
        bytes[COVERED_BYTES..].copy_from_slice(&self.mac);
        bytes
    }

    /// The bytes that the tag covers: stream and IV counter count as 0.
    pub fn covered(&self) -> [u8; COVERED_BYTES] {
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
    pub fn is(&self, kind: BundleType, mig_version: u16) -> bool {
        usize::from(self.size) == MBMD_BYTES
            && self.bundle_type == kind as u8
            && self.reserved == 0
            && self.mig_version == mig_version
    }
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
        assert!(mbmd.is(BundleType::Memory, 0));
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
                ..Mbmd::new(BundleType::Memory, 0, 1, 0, 7)
            },
            mbmd
        );
        assert_eq!(mbmd.covered()[16..24], [0; 8]);
    }
}
