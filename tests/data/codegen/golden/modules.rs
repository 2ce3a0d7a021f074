/// A TDX module whose source is public.
///
/// Exhaustive: a new manifest is a new variant, and whoever matches on it should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Module {
    /// TDX module 1.0.
    V1_0 = 0,
}
impl Module {
    /// Number of modules.
    pub const COUNT: usize = 1usize;
    /// All modules, oldest first.
    pub const ALL: [Self; 1usize] = [Self::V1_0];
    /// Intel's version, such as `1.5.01`.
    pub const fn name(self) -> &'static str {
        const NAMES: [&str; 1usize] = ["1.0"];
        NAMES[self as usize]
    }
    /// TDX_FEATURES0 of the released module, where Intel has published it.
    pub const fn features0(self) -> Option<u64> {
        const FEATURES0: [Option<u64>; 1usize] = [None];
        FEATURES0[self as usize]
    }
}
/// Released modules in Intel's order.
pub static RELEASES: &[Release] = &[
    Release {
        version: "1.0",
        features0: 0x10,
        min_update_from: None,
        min_seamldr: &["1.0"],
    },
];
