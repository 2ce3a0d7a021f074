/// Kind of an entry.
///
/// Open: numbers without a name are kept.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Kind(u8);
impl Kind {
    /// A table.
    pub const TABLE: Self = Self(0x1);
    /// PAGE.
    pub const PAGE: Self = Self(0x3);
    /// The value with this number.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
    /// The number.
    pub const fn into_bits(self) -> u8 {
        self.0
    }
    /// The name, if the number has one.
    pub const fn name(self) -> Option<&'static str> {
        match self.0 {
            0x1 => Some("TABLE"),
            0x3 => Some("PAGE"),
            _ => None,
        }
    }
}
impl ::core::fmt::Debug for Kind {
    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => ::core::write!(f, ::core::concat!("Kind", "({:#x})"), self.0),
        }
    }
}
/// An entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
#[repr(transparent)]
pub struct Entry(u16);
impl Entry {
    /// The value whose fields are all 0.
    pub const fn new() -> Self {
        Self(0x0)
    }
    /// The value with these bits, reserved ones included.
    #[inline]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }
    /// The bits, as they were given.
    #[inline]
    pub const fn into_bits(self) -> u16 {
        self.0
    }
    /// Bits that have no freedom.
    pub const RESERVED: u16 = 0xf00;
    /// Whether every reserved bit is as it must be.
    pub const fn is_reserved_valid(self) -> bool {
        self.into_bits() & Self::RESERVED == 0x0
    }
    /// Bits 15:12.
    #[inline]
    pub const fn kind(self) -> u8 {
        (self.0 >> 12) as u8
    }
    /// With [`kind`](Self::kind) replaced; bits that do not fit are cut off.
    #[inline]
    pub const fn with_kind(self, value: u8) -> Self {
        Self(self.0 & !0xf000 | (((value as u16) & 0xf) << 12))
    }
    /// Bits 7:0.
    #[inline]
    pub const fn count(self) -> u8 {
        self.0 as u8
    }
    /// With [`count`](Self::count) replaced; bits that do not fit are cut off.
    #[inline]
    pub const fn with_count(self, value: u8) -> Self {
        Self(self.0 & !0xff | (value as u16))
    }
}
impl Default for Entry {
    fn default() -> Self {
        Self::new()
    }
}
impl ::core::fmt::Debug for Entry {
    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
        f.debug_struct("Entry")
            .field("kind", &self.kind())
            .field("count", &self.count())
            .finish()
    }
}
/// Flags and a byte.
#[bitfield_struct::bitfield(u16)]
#[derive(PartialEq, Eq, Hash)]
pub struct Flags {
    /// Bit 0.
    pub read: bool,
    /// Bit 1.
    pub write: bool,
    #[bits(6)]
    __: u8,
    /// Bits 15:8.
    pub count: u8,
}
impl Flags {
    /// Bits that have no freedom.
    pub const RESERVED: u16 = 0xfc;
    /// Whether every reserved bit is as it must be.
    pub const fn is_reserved_valid(self) -> bool {
        self.into_bits() & Self::RESERVED == 0x0
    }
}
/// An entry with a split field.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
#[repr(transparent)]
pub struct Split(u64);
impl Split {
    /// The value whose fields are all 0.
    pub const fn new() -> Self {
        Self(0x7000000000000000)
    }
    /// The value with these bits, reserved ones included.
    #[inline]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
    /// The bits, as they were given.
    #[inline]
    pub const fn into_bits(self) -> u64 {
        self.0
    }
    /// Bits that have no freedom.
    pub const RESERVED: u64 = 0x7000000000000000;
    /// Whether every reserved bit is as it must be.
    pub const fn is_reserved_valid(self) -> bool {
        self.into_bits() & Self::RESERVED == 0x7000000000000000
    }
    /// Bit 63: Whether anything else counts.
    #[inline]
    pub const fn valid(self) -> bool {
        self.0 & 0x8000000000000000 != 0
    }
    /// With [`valid`](Self::valid) replaced; bits that do not fit are cut off.
    #[inline]
    pub const fn with_valid(self, value: bool) -> Self {
        Self(self.0 & !0x8000000000000000 | ((value as u64) << 63))
    }
    /// Bits 59:56.
    #[inline]
    pub const fn kind(self) -> Kind {
        Kind::from_bits(((self.0 >> 56) & 0xf) as u8)
    }
    /// With [`kind`](Self::kind) replaced; bits that do not fit are cut off.
    #[inline]
    pub const fn with_kind(self, value: Kind) -> Self {
        Self(self.0 & !0xf00000000000000 | (((value.into_bits() as u64) & 0xf) << 56))
    }
    /// Bits 55:52 and 11:8.
    #[inline]
    pub const fn number(self) -> u8 {
        ((((self.0 >> 52) & 0xf) << 4) | ((self.0 >> 8) & 0xf)) as u8
    }
    /// With [`number`](Self::number) replaced; bits that do not fit are cut off.
    #[inline]
    pub const fn with_number(self, value: u8) -> Self {
        let raw = value as u64;
        Self(self.0 & !0xf0000000000f00 | ((raw >> 4) << 52) | ((raw & 0xf) << 8))
    }
    /// Bits 51:12.
    #[inline]
    pub const fn hpa(self) -> crate::Hpa {
        crate::Hpa::new(((self.0 >> 12) & 0xffffffffff) << 12)
    }
    /// With [`hpa`](Self::hpa) replaced; bits that do not fit are cut off.
    #[inline]
    pub const fn with_hpa(self, value: crate::Hpa) -> Self {
        Self(self.0 & !0xffffffffff000 | (((value.bits() >> 12) & 0xffffffffff) << 12))
    }
    /// Bits 2:0.
    #[inline]
    pub const fn level(self) -> Option<crate::Level> {
        crate::Level::new((self.0 & 0x7) as u8)
    }
    /// With [`level`](Self::level) replaced; bits that do not fit are cut off.
    #[inline]
    pub const fn with_level(self, value: crate::Level) -> Self {
        Self(self.0 & !0x7 | ((value as u64) & 0x7))
    }
    /// Bits 7:6 and 56:53 and 9.
    #[inline]
    pub const fn state(self) -> Option<crate::SeptState> {
        crate::SeptState::from_encoding(
            ((((self.0 >> 6) & 0x3) << 5) | (((self.0 >> 53) & 0xf) << 1)
                | ((self.0 >> 9) & 0x1)) as u8,
        )
    }
}
impl Default for Split {
    fn default() -> Self {
        Self::new()
    }
}
impl ::core::fmt::Debug for Split {
    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
        f.debug_struct("Split")
            .field("valid", &self.valid())
            .field("kind", &self.kind())
            .field("number", &self.number())
            .field("hpa", &self.hpa())
            .field("level", &self.level())
            .field("state", &self.state())
            .finish()
    }
}
/// Parameters.
#[derive(Clone, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Parameters([u8; 64]);
impl Parameters {
    /// Bytes.
    pub const SIZE: usize = 64;
    /// The structure whose fields are all 0.
    #[must_use]
    pub const fn new() -> Self {
        let bytes = [0; 64];
        Self(bytes)
    }
    /// The structure with these bytes, reserved ones included.
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }
    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
    /// The bytes, to be written.
    pub const fn as_bytes_mut(&mut self) -> &mut [u8; 64] {
        &mut self.0
    }
    /// Whether every reserved byte is as it must be.
    pub const fn is_reserved_valid(&self) -> bool {
        crate::bytes::all_are(&self.0, &[(2, 6, 0)])
    }
    /// Byte at which [`flags`](Self::flags) begins.
    pub const OFFSET_FLAGS: usize = 0;
    /// Byte 0 on.
    pub const fn flags(&self) -> Flags {
        Flags::from_bits(crate::bytes::u16_at(&self.0, 0))
    }
    /// Replaces [`flags`](Self::flags).
    pub const fn set_flags(&mut self, value: Flags) {
        crate::bytes::put_u16(&mut self.0, 0, value.into_bits());
    }
    /// Byte at which [`owner`](Self::owner) begins.
    pub const OFFSET_OWNER: usize = 8;
    /// Byte 8 on.
    pub const fn owner(&self) -> &[u8; 24] {
        crate::bytes::chunk(&self.0, 8)
    }
    /// Replaces [`owner`](Self::owner).
    pub const fn set_owner(&mut self, value: &[u8; 24]) {
        crate::bytes::put(&mut self.0, 8, value);
    }
    /// Byte at which [`entries`](Self::entries) begins.
    pub const OFFSET_ENTRIES: usize = 32;
    /// Elements of [`entries`](Self::entries).
    pub const COUNT_ENTRIES: usize = 4;
    /// Byte 32 on.
    ///
    /// `None` from the end of the array on.
    pub const fn entries(&self, index: usize) -> Option<Split> {
        if index >= 4 {
            return None;
        }
        Some(Split::from_bits(crate::bytes::u64_at(&self.0, 32 + index * 8)))
    }
    /// Replaces [`entries`](Self::entries).
    ///
    /// `None`, and nothing changed, from the end of the array on.
    pub const fn set_entries(&mut self, index: usize, value: Split) -> Option<()> {
        if index >= 4 {
            return None;
        }
        crate::bytes::put_u64(&mut self.0, 32 + index * 8, value.into_bits());
        Some(())
    }
}
impl Default for Parameters {
    fn default() -> Self {
        Self::new()
    }
}
impl ::core::fmt::Debug for Parameters {
    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
        f.debug_struct("Parameters")
            .field("flags", &self.flags())
            .field("owner", &self.owner())
            .finish()
    }
}
