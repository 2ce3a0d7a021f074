//! The words that migration leaves exchange with the host.
//!
//! Layouts: Intel TDX module 1.5.01, `include/tdx_api_defs.h` and `src/common/helpers/migration.h`.

use crate::words::words;

words! {
    /// The GPA list of EXPORT.MEM, EXPORT.BLOCKW, EXPORT.RESTORE and IMPORT.MEM, in RCX.
    GpaListInfo {
        format, with_format: 2 .. 0;
        first_entry, with_first_entry: 11 .. 3;
        list_page, with_list_page: 51 .. 12;
        last_entry, with_last_entry: 63 .. 55;
    } reserved 0x0070_0000_0000_0000;

    /// One entry of a GPA list page.
    GpaListEntry {
        level, with_level: 1 .. 0;
        pending, with_pending: 2 .. 2;
        l2_map, with_l2_map: 9 .. 7;
        mig_type, with_mig_type: 11 .. 10;
        gpa_page, with_gpa_page: 51 .. 12;
        operation, with_operation: 53 .. 52;
        status, with_status: 60 .. 56;
    } reserved 0xe0c0_0000_0000_0078;

    /// The buffer for a migration bundle's metadata, in R8: address in bits 51:0, bytes above.
    HpaAndSize {
        hpa, with_hpa: 51 .. 0;
        size_bytes, with_size_bytes: 63 .. 52;
    } reserved 0;

    /// The list of metadata pages of the state leaves, in R9.
    PageListInfo {
        list_page, with_list_page: 51 .. 12;
        last_entry, with_last_entry: 63 .. 55;
    } reserved 0x0070_0000_0000_0fff;

    /// One entry of a migration buffer list or of a new page list.
    PageListEntry {
        page, with_page: 51 .. 12;
        invalid, with_invalid: 63 .. 63;
    } reserved 0;

    /// Migration stream index and command, in R10.
    StreamAndCommand {
        stream, with_stream: 15 .. 0;
        command, with_command: 63 .. 63;
    } reserved 0x7fff_ffff_ffff_0000;

    /// A forward or backward link of the TDCS to a migration stream context.
    StreamLink {
        locked, with_locked: 0 .. 0;
        initialized, with_initialized: 1 .. 1;
        context_page, with_context_page: 51 .. 12;
    } reserved 0xfff0_0000_0000_0ffc;

    /// BEPOCH of a page that was imported: when, instead of when it was blocked.
    ImportEpoch {
        mig_epoch, with_mig_epoch: 31 .. 0;
        export_count, with_export_count: 62 .. 32;
        mig_flag, with_mig_flag: 63 .. 63;
    } reserved 0;
}

/// What a GPA list entry asks for.
pub mod operation {
    /// Nothing; the entry is skipped.
    pub const NOP: u64 = 0;
    /// Export or import, on export also again.
    pub const MIGRATE: u64 = 1;
    /// Undo an export or import of this session.
    pub const CANCEL: u64 = 2;
    /// Export or import again a page that was written meanwhile.
    pub const REMIGRATE: u64 = 3;
}

/// What became of a GPA list entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are Intel's and say it")]
pub enum EntryStatus {
    Skipped = 1,
    SeptWalkFailed = 2,
    SeptEntryBusyHostPriority = 3,
    SeptEntryStateIncorrect = 4,
    TlbTrackingNotDone = 5,
    OpStateIncorrect = 6,
    MigratedInCurrentEpoch = 7,
    MigBufferNotAvailable = 8,
    NewPageNotAvailable = 9,
    InvalidPageMac = 10,
    DisallowedImportOverRemoved = 11,
    TdPageBusyHostPriority = 12,
    GpaListEntryInvalid = 15,
}

impl GpaListEntry {
    /// Whether no reserved bit is set and the level is 4 KiB.
    pub const fn is_valid(self) -> bool {
        self.reserved_is_zero() && self.level() == 0
    }

    /// Whether BLOCKW and RESTORE leave the entry alone: NOP or CANCEL.
    pub const fn is_nop_or_cancel(self) -> bool {
        self.operation() & 1 == 0
    }

    /// The entry as it is returned when it was not carried out.
    #[must_use]
    pub const fn failed(self, status: EntryStatus) -> Self {
        self.with_operation(operation::NOP)
            .with_status(status as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_list_info_and_entries_take_apart() {
        // RCX of the first EXPORT.BLOCKW recorded from the module: ten entries at 0x1a0130000.
        let info = GpaListInfo::from_bits(0x0480_0001_a013_0000);
        assert_eq!(
            (info.format(), info.first_entry(), info.last_entry()),
            (0, 0, 9)
        );
        assert_eq!(info.list_page() << 12, 0x1_a013_0000);
        assert_eq!(info.with_first_entry(10).into_bits(), 0x0480_0001_a013_0050);
        // An entry that came back as SEPT_ENTRY_STATE_INCORRECT.
        let entry = GpaListEntry::from_bits(0x0010_0000_0000_8000);
        assert_eq!(entry.operation(), operation::MIGRATE);
        assert_eq!(
            entry
                .failed(EntryStatus::SeptEntryStateIncorrect)
                .into_bits(),
            0x0400_0000_0000_8000
        );
    }
}
