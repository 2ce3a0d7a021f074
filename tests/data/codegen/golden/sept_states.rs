/// State of an entry of the L1 Secure-EPT.
///
/// Exhaustive: the states are those of Intel's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SeptState {
    /// FREE.
    Free = 0,
    /// BLOCKED.
    Blocked = 1,
}
impl SeptState {
    /// All states in the order of Intel's table.
    pub const ALL: [Self; 2usize] = [Self::Free, Self::Blocked];
    /// Intel's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "FREE",
            Self::Blocked => "BLOCKED",
        }
    }
}
impl SeptState {
    /// The state's bits as Intel's table packs them: `state_encoding` of an entry.
    pub const fn encoding(self) -> u8 {
        const ENCODINGS: [u8; 2usize] = [0xe, 0x68];
        ENCODINGS[self as usize]
    }
    /// The number that leaves return for the state.
    pub const fn public_state(self) -> u8 {
        const PUBLIC: [u8; 2usize] = [0, 1];
        PUBLIC[self as usize]
    }
    /// The state with this encoding in any module.
    ///
    /// Where the export mode decides (0x66), the state under write blocking.
    pub const fn from_encoding(encoding: u8) -> Option<Self> {
        let mut i = 0;
        while i < Self::ROWS.len() {
            let row = &Self::ROWS[i];
            if row.encoding == encoding
                || matches!(row.also, Some(also) if also == encoding)
            {
                return Some(row.state);
            }
            i += 1;
        }
        None
    }
    /// The state with this encoding in `module`.
    ///
    /// Where the export mode decides (0x66), the state under write blocking.
    pub const fn decode(encoding: u8, module: Module) -> Option<Self> {
        let mut i = 0;
        while i < Self::ROWS.len() {
            let row = &Self::ROWS[i];
            let matches = row.encoding == encoding
                || matches!(row.also, Some(also) if also == encoding);
            if matches && row.modules.contains(module) {
                return Some(row.state);
            }
            i += 1;
        }
        None
    }
    /// Intel's rows: a state has several where modules differ.
    pub const ROWS: &'static [StateRow<Self>] = &[
        StateRow {
            state: Self::Free,
            modules: Modules::from_bits(1),
            encoding: 0xe,
            also: Some(0xf),
            index: Some(0),
            table_index: None,
        },
        StateRow {
            state: Self::Blocked,
            modules: Modules::from_bits(1),
            encoding: 0x68,
            also: None,
            index: Some(5),
            table_index: None,
        },
    ];
    /// The state whose table index is `number`, if there is one.
    pub const fn new(number: u8) -> Option<Self> {
        match Self::ALL.len() > number as usize {
            true => Some(Self::ALL[number as usize]),
            false => None,
        }
    }
    /// Blocked.
    pub const fn any_blocked(self) -> bool {
        matches!(self, Self::Blocked)
    }
}
const _: [SeptState; 2usize] = [SeptState::Free, SeptState::Blocked];
/// State of an entry of an L2 Secure-EPT.
///
/// Exhaustive: the states are those of Intel's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum L2SeptState {
    /// L2_FREE.
    L2Free = 0,
}
impl L2SeptState {
    /// All states in the order of Intel's table.
    pub const ALL: [Self; 1usize] = [Self::L2Free];
    /// Intel's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::L2Free => "L2_FREE",
        }
    }
}
impl L2SeptState {
    /// The state's bits as Intel's table packs them: `state_encoding` of an entry.
    pub const fn encoding(self) -> u8 {
        const ENCODINGS: [u8; 1usize] = [0];
        ENCODINGS[self as usize]
    }
    /// The number that leaves return for the state.
    pub const fn public_state(self) -> u8 {
        const PUBLIC: [u8; 1usize] = [0];
        PUBLIC[self as usize]
    }
    /// The state with this encoding in any module.
    ///
    /// Where the export mode decides (0x66), the state under write blocking.
    pub const fn from_encoding(encoding: u8) -> Option<Self> {
        let mut i = 0;
        while i < Self::ROWS.len() {
            let row = &Self::ROWS[i];
            if row.encoding == encoding
                || matches!(row.also, Some(also) if also == encoding)
            {
                return Some(row.state);
            }
            i += 1;
        }
        None
    }
    /// The state with this encoding in `module`.
    ///
    /// Where the export mode decides (0x66), the state under write blocking.
    pub const fn decode(encoding: u8, module: Module) -> Option<Self> {
        let mut i = 0;
        while i < Self::ROWS.len() {
            let row = &Self::ROWS[i];
            let matches = row.encoding == encoding
                || matches!(row.also, Some(also) if also == encoding);
            if matches && row.modules.contains(module) {
                return Some(row.state);
            }
            i += 1;
        }
        None
    }
    /// Intel's rows: a state has several where modules differ.
    pub const ROWS: &'static [StateRow<Self>] = &[
        StateRow {
            state: Self::L2Free,
            modules: Modules::from_bits(1),
            encoding: 0,
            also: None,
            index: None,
            table_index: None,
        },
    ];
    /// The state whose table index is `number`, if there is one.
    pub const fn new(number: u8) -> Option<Self> {
        match Self::ALL.len() > number as usize {
            true => Some(Self::ALL[number as usize]),
            false => None,
        }
    }
    /// Blocked.
    pub const fn any_blocked(self) -> bool {
        false
    }
}
const _: [L2SeptState; 1usize] = [L2SeptState::L2Free];
