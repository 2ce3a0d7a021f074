/// Values that a module's code fixes.
static FIXED: &[(Module, FieldId, u64)] = &[];
/// Part of a field in the migration of a TD.
///
/// Exhaustive: the classes are those of Intel's tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MigType {
    /// `MIG_NONE` of Intel's tables: the field is not migrated.
    #[default]
    None,
    /// `MIG_MB` of Intel's tables.
    Mb,
}
impl MigType {
    /// Intel's name without `MIG_`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Mb => "MB",
        }
    }
}
/// Fields of TDR_TDCS.
pub static TDR_TDCS: FieldTable = {
    const A: &[Access] = &[
        Access {
            masks: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            export: MigType::None,
            import: MigType::None,
            flags: 0x81,
        },
        Access {
            masks: [0xffffffff, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            export: MigType::Mb,
            import: MigType::None,
            flags: 0,
        },
    ];
    FieldTable {
        rows: &[
            FieldRow::new("NUM_TDCX", 0x8010000200000002, 1, 1, 4, &A[1]),
            FieldRow::new("Guest CR0", 0x8010000200000005, 2, 1, 0, &A[0]),
        ],
        order: [&[0, 1]],
    }
};
