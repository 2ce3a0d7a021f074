use tdx_abi::Gpa;
use tdx_abi::Level;
use tdx_abi::format::AcceptInfo;
use tdx_abi::format::EptViolationQualification;
use tdx_abi::format::ExtendedExitQualification;
use tdx_abi::format::ExtendedExitQualificationType;

use crate::shared::Permissions;

/// What the guest was doing when it faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessKind {
    /// A read.
    Read,
    /// A write.
    Write,
    /// An instruction fetch.
    Fetch,
    /// TDG.MEM.PAGE.ACCEPT of a page of this level (extended exit qualification, type ACCEPT).
    Accept(Level),
    /// TDG.MEM.PAGE.ATTR.WR of a page of this level, where the TD itself has no such page or not as it has to be
    /// (type ATTR_WR).
    SetAttributes(Level),
    /// TDG.MEM.PAGE.ATTR.WR that gives this L2 VM an alias, where the L2 VM has no table for it (type GPA_DETAILS).
    Alias {
        /// Number of the L2 VM, 1 or more.
        vm: u8,
    },
}

impl AccessKind {
    pub(super) const fn permissions(self) -> Permissions {
        Permissions {
            read: matches!(self, Self::Read),
            write: matches!(self, Self::Write),
            execute: matches!(self, Self::Fetch),
        }
    }

    /// The level of the page that the guest asks for, if it does.
    pub(super) const fn level(self) -> Option<Level> {
        match self {
            Self::Accept(level) | Self::SetAttributes(level) => Some(level),
            _ => None,
        }
    }
}

/// An access that ended in an EPT violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The guest-physical address, SHARED bit included.
    pub gpa: Gpa,
    /// What was done.
    pub kind: AccessKind,
}

impl Access {
    /// The access that an EPT-violation exit of TDH.VP.ENTER reports: exit qualification (RCX),
    /// extended exit qualification (RDX) and GPA (R8).
    pub const fn from_exit(qualification: u64, extended: u64, gpa: Gpa) -> Self {
        let qualification = EptViolationQualification::from_bits(qualification);
        let extended = ExtendedExitQualification::from_bits(extended);
        let info = AcceptInfo::from_bits(extended.info());
        let kind = match (extended.r#type(), info.requested_level()) {
            (ExtendedExitQualificationType::ACCEPT, Some(level)) => AccessKind::Accept(level),
            (ExtendedExitQualificationType::ATTR_WR, Some(level)) => {
                AccessKind::SetAttributes(level)
            }
            (ExtendedExitQualificationType::GPA_DETAILS, _) if info.vm() != 0 => {
                AccessKind::Alias { vm: info.vm() }
            }
            _ if qualification.write() => AccessKind::Write,
            _ if qualification.fetch() && !qualification.read() => AccessKind::Fetch,
            _ => AccessKind::Read,
        };
        Self { gpa, kind }
    }
}

/// What came of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The page is mapped now, by an entry of this level: enter the guest again.
    Mapped(Level),
    /// It was mapped already: enter the guest again.
    Spurious(Level),
    /// A large leaf was split so that the guest can accept or alias a smaller page: enter the guest again.
    Split,
    /// The L2 VM has the tables now that an alias needs: enter the guest again.
    Linked,
    /// The page was blocked for writing by an export and is no more; it will be exported again. Enter the
    /// guest again.
    WriteAllowed,
    /// The TD is being imported and this page has not arrived: ask the source for it, and enter the guest
    /// again once it has been imported.
    Awaited {
        /// The address without SHARED bit.
        gpa: u64,
    },
    /// The guest used the page as private or shared contrary to its attributes, as KVM reports by
    /// KVM_EXIT_MEMORY_FAULT: the VMM decides (and converts, if that is what the guest asks for).
    MemoryFault {
        /// The address without SHARED bit.
        gpa: u64,
        /// Whether the guest's access was private.
        private: bool,
    },
    /// There is no memory behind the address.
    NoMemory {
        /// The address without SHARED bit.
        gpa: u64,
        /// Whether the guest's access was private.
        private: bool,
    },
    /// The page is there, but not for this kind of access.
    Denied {
        /// The address without SHARED bit.
        gpa: u64,
    },
    /// The guest wants to accept or alias a page of a larger level than it is mapped at: it will be told
    /// TDX_PAGE_SIZE_MISMATCH and has to accept smaller pages.
    SizeMismatch {
        /// The level that is mapped.
        mapped: Level,
    },
    /// Emulated MMIO: the guest will get a #VE.
    Mmio,
    /// The entry stays blocked or frozen: an invalidation is under way or has failed. Serve what waits
    /// for this thread, then resolve the same access again.
    Retry,
}
