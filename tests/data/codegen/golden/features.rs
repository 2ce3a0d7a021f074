impl Features {
    /** Wide entries.

Bit 4.*/
    pub const WIDE: Self = Self(1 << 4);
}
/// Bit number and name of every known feature; a contested bit stands several times.
pub static FEATURES: &[(u32, &str)] = &[(4, "WIDE")];
