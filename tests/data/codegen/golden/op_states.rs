/// Value of the TDCS field OP_STATE, numbered as Intel numbers it.
///
/// Exhaustive: the states are those of Intel's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum OpState {
    /// BUILD.
    Build = 0,
    /// RUN.
    Run = 2,
}
impl OpState {
    /// All states in the order of Intel's table.
    pub const ALL: [Self; 2usize] = [Self::Build, Self::Run];
    /// Intel's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Build => "BUILD",
            Self::Run => "RUN",
        }
    }
}
impl OpState {
    /// The state with this number, if there is one.
    pub const fn new(number: u32) -> Option<Self> {
        let mut i = 0;
        while i < Self::ALL.len() {
            if Self::ALL[i] as u32 == number {
                return Some(Self::ALL[i]);
            }
            i += 1;
        }
        None
    }
    /// The TD runs.
    pub const fn tlb_tracking_required(self) -> bool {
        matches!(self, Self::Run)
    }
}
