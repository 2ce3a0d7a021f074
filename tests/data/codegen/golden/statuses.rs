impl StatusCode {
    /// SUCCESS.
    pub const SUCCESS: Self = Self(0);
    /// OPERAND_BUSY.
    pub const OPERAND_BUSY: Self = Self(0x8000020000000000);
}
impl StatusCode {
    /// How to make a call that returned `value` again.
    #[inline]
    const fn retry_of(value: u64) -> Option<Retry> {
        match value {
            0x8000020000000000 => Some(Retry::Busy),
            _ => None,
        }
    }
}
/// Every code with a name, by ascending value.
pub static STATUS_CODES: &[StatusRow] = &[
    StatusRow::new("SUCCESS", 0, 1, None, Low::None),
    StatusRow::new(
        "OPERAND_BUSY",
        0x8000020000000000,
        1,
        Some(Retry::Busy),
        Low::Operand,
    ),
];
/// Every code with a name, by ascending value.
pub static SEAMLDR_STATUSES: &[StatusRow] = &[];
/// Every code with a name, by ascending value.
pub static LINUX_STATUSES: &[StatusRow] = &[];
