impl OperandId {
    /// RAX.
    pub const RAX: Self = Self(0);
    /// A list of GPAs.
    pub const GPA_LIST: Self = Self(0x61);
}
/// Every id with a name, by ascending value.
pub static OPERAND_IDS: &[(u32, &str)] = &[(0, "RAX"), (0x61, "GPA_LIST")];
