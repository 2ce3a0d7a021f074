//! Who accesses metadata, and which bits that lets through.

use tdx_abi::field::FieldRow;
use tdx_abi::field::MigType;

/// An access to metadata, with what decides its masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// By the host VMM; `debug` is ATTRIBUTES.DEBUG of the TD.
    HostRead {
        /// ATTRIBUTES.DEBUG.
        debug: bool,
    },
    /// As [`Access::HostRead`], but writing.
    HostWrite {
        /// ATTRIBUTES.DEBUG.
        debug: bool,
    },
    /// By the TD itself.
    GuestRead,
    /// By the TD itself, writing.
    GuestWrite,
    /// By a service TD of the given type.
    ServiceTdRead {
        /// SERVTD_TYPE.
        kind: u16,
    },
    /// By a service TD of the given type, writing.
    ServiceTdWrite {
        /// SERVTD_TYPE.
        kind: u16,
    },
    /// Export of state that no longer changes.
    ExportImmutable,
    /// Export of state that changes until the TD is paused.
    ExportMutable,
    /// Import of what [`Access::ExportImmutable`] exported.
    ImportImmutable,
    /// Import of what [`Access::ExportMutable`] exported.
    ImportMutable,
}

/// The bits that an access may see and change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Masks {
    /// Bits that are returned.
    pub(crate) read: u64,
    /// Bits that may change; 0 for a read.
    pub(crate) write: u64,
}

impl Access {
    /// Whether this is a write.
    pub(crate) const fn is_write(self) -> bool {
        match self {
            Self::HostWrite { .. }
            | Self::GuestWrite
            | Self::ServiceTdWrite { .. }
            | Self::ImportImmutable
            | Self::ImportMutable => true,
            Self::HostRead { .. }
            | Self::GuestRead
            | Self::ServiceTdRead { .. }
            | Self::ExportImmutable
            | Self::ExportMutable => false,
        }
    }

    /// Whether the host VMM accesses.
    pub(crate) const fn is_host(self) -> bool {
        matches!(self, Self::HostRead { .. } | Self::HostWrite { .. })
    }

    /// The masks of `row` for this access.
    pub(crate) fn masks(self, row: &FieldRow) -> Masks {
        let read_only = |read| Masks { read, write: 0 };
        let when = |condition, mask| if condition { mask } else { 0 };
        match self {
            Self::HostRead { debug: true } => read_only(row.dbg_rd_mask),
            Self::HostRead { debug: false } => read_only(row.prod_rd_mask),
            Self::HostWrite { debug: true } => Masks {
                read: row.dbg_rd_mask,
                write: row.dbg_wr_mask,
            },
            Self::HostWrite { debug: false } => Masks {
                read: row.prod_rd_mask,
                write: row.prod_wr_mask,
            },
            Self::GuestRead => read_only(row.guest_rd_mask),
            Self::GuestWrite => Masks {
                read: row.guest_rd_mask,
                write: row.guest_wr_mask,
            },
            Self::ServiceTdRead { .. } => read_only(row.migtd_rd_mask),
            Self::ServiceTdWrite { .. } => Masks {
                read: row.migtd_rd_mask,
                write: row.migtd_wr_mask,
            },
            Self::ExportImmutable => read_only(when(
                row.mig_export == MigType::Mb || initialized_then_checked(row.mig_import),
                row.export_mask,
            )),
            Self::ExportMutable => read_only(when(row.mig_export == MigType::Me, row.export_mask)),
            Self::ImportImmutable => Masks {
                read: u64::MAX,
                write: when(imported_once(row.mig_import), row.import_mask),
            },
            Self::ImportMutable => Masks {
                read: u64::MAX,
                write: when(imported_at_the_end(row.mig_import), row.import_mask),
            },
        }
    }
}

const fn initialized_then_checked(import: MigType) -> bool {
    matches!(import, MigType::Ie | MigType::Ies | MigType::Iesme)
}

const fn imported_once(import: MigType) -> bool {
    matches!(
        import,
        MigType::Mb | MigType::Cb | MigType::Mbo | MigType::Cbo | MigType::Ibs
    )
}

const fn imported_at_the_end(import: MigType) -> bool {
    matches!(import, MigType::Me | MigType::Meo) || initialized_then_checked(import)
}
