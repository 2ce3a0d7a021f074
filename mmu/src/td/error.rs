use tdx_abi::Hpa;
use tdx_abi::Trap;
use tdx_abi::status::Status;

use crate::mirror::Position;

/// Why an operation on a TD did not complete.
///
/// Whatever the reason, mirror and Secure-EPT are equal afterwards except at poisoned entries, no page
/// is lost, and the operation can be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A SEAMCALL failed.
    Seamcall {
        /// Intel's name of the leaf.
        leaf: &'static str,
        /// What the module answered.
        status: Status,
        /// RCX and RDX of the answer: for many failures the Secure-EPT entry and its level and state.
        details: [u64; 2],
    },
    /// A SEAMCALL stayed busy for as long as [`crate::embed::Relax::patience`] says.
    ///
    /// If it was an entry that was busy, it has host priority now: repeat the operation.
    Busy {
        /// Intel's name of the leaf.
        leaf: &'static str,
        /// What the module answered last.
        status: Status,
    },
    /// SEAMCALL itself trapped; the module was not reached.
    Trap {
        /// Intel's name of the leaf.
        leaf: &'static str,
        /// The trap.
        trap: Trap,
    },
    /// The module returned another page than the mirror has. The entry is poisoned.
    WrongPage {
        /// Intel's name of the leaf.
        leaf: &'static str,
        /// The page that the mirror has.
        expected: Hpa,
        /// The page that came back.
        returned: Hpa,
    },
    /// A page of 4 KiB needs a PAMT page pair that the operation does not hold. Internal: operations bring one.
    NoPamtPair,
    /// A table of an L2 VM needs a page that the operation does not hold. Internal: operations bring one.
    NoL2Page,
    /// The TD has no L2 VM of this number.
    NoSuchL2Vm(u8),
    /// The embedder keeps no words for the tables of L2 VMs ([`crate::embed::Tables::l2_links`]).
    NoL2Links,
    /// An allocator of the embedder is empty.
    OutOfPages,
    /// The entry is poisoned by an earlier failure.
    Poisoned(Position),
    /// The mirror has something else at this place than the operation can start from.
    Unexpected(Position),
    /// The page has been exported: cancel that first ([`crate::td::migration::Live::cancel`]).
    Exported(Position),
    /// A bundle was made in part, or made and not sent, so that the destination cannot go on: abort the session.
    BundleLost,
    /// The bundle is not what the operation takes, or does not fit into the stream's buffers.
    BadBundle,
    /// There is no vCPU of this number.
    NoSuchVcpu(usize),
    /// The address is not aligned as the operation needs it, or lies beyond the TD's address width.
    BadAddress(u64),
}

impl Error {
    /// The module's status, if it answered.
    pub const fn status(&self) -> Option<Status> {
        match self {
            Self::Seamcall { status, .. } | Self::Busy { status, .. } => Some(*status),
            _ => None,
        }
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Seamcall {
                leaf,
                status,
                details: [rcx, rdx],
            } => {
                write!(f, "{leaf} failed: {status} (RCX {rcx:#x}, RDX {rdx:#x})")
            }
            Self::Busy { leaf, status } => write!(f, "{leaf} stayed busy: {status}"),
            Self::Trap { leaf, trap } => write!(f, "{leaf} did not reach the TDX module: {trap:?}"),
            Self::WrongPage {
                leaf,
                expected,
                returned,
            } => {
                write!(
                    f,
                    "{leaf} returned page {returned:#x} instead of {expected:#x}"
                )
            }
            Self::NoPamtPair => f.write_str("no PAMT page pair for the range"),
            Self::NoL2Page => f.write_str("no page for the table of an L2 VM"),
            Self::NoSuchL2Vm(vm) => write!(f, "no L2 VM {vm}"),
            Self::NoL2Links => f.write_str("no words for the tables of L2 VMs"),
            Self::OutOfPages => f.write_str("no page left"),
            Self::Poisoned(at) => write!(f, "entry of {:?} at {:#x} is poisoned", at.level, at.gpa),
            Self::Unexpected(at) => write!(
                f,
                "unexpected {:?} of {:?} at {:#x}",
                at.entry, at.level, at.gpa
            ),
            Self::Exported(at) => write!(f, "page at {:#x} has been exported", at.gpa),
            Self::BundleLost => {
                f.write_str("a migration bundle is lost; the session must be aborted")
            }
            Self::BadBundle => f.write_str("not a migration bundle that fits here"),
            Self::NoSuchVcpu(vcpu) => write!(f, "no vCPU {vcpu}"),
            Self::BadAddress(address) => {
                write!(f, "address {address:#x} is not aligned or too large")
            }
        }
    }
}

impl core::error::Error for Error {}

impl From<crate::deposit::OutOfPages> for Error {
    fn from(_: crate::deposit::OutOfPages) -> Self {
        Self::OutOfPages
    }
}
