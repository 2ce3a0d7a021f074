pub mod generic {
    //! The generic types of which all words, enums and structures are instances.
    //!
    //! What these have in common is compiled once, and works for any of them.
    use core::fmt;
    use core::hash::Hash;
    use core::hash::Hasher;
    use core::marker::PhantomData;
    /// How the bits of a word are laid out in the integer `B`.
    pub trait WordLayout<B>: Sized {
        /// Name of the word, bits that have no freedom, and those of them that are 1.
        const LAYOUT: (&'static str, B, B);
        /// Adds the fields by name and value.
        fn fields(word: Word<Self, B>, to: &mut fmt::DebugStruct<'_, '_>);
    }
    /// A transparent word: it keeps every bit that it is given.
    #[must_use]
    #[repr(transparent)]
    pub struct Word<L, B = u64>(B, PhantomData<L>);
    impl<L, B: Copy> Word<L, B> {
        /// The value with these bits, reserved ones included.
        #[inline]
        pub const fn from_bits(bits: B) -> Self {
            Self(bits, PhantomData)
        }
        /// The bits, as they were given.
        #[inline]
        pub const fn into_bits(self) -> B {
            self.0
        }
    }
    macro_rules! words {
        ($($bits:ty)*) => {
            $(impl < L : WordLayout <$bits >> Word < L, $bits > { #[doc =
            " Bits that have no freedom."] pub const RESERVED : $bits = L::LAYOUT.1;
            #[doc = " The value whose fields are all 0."] pub const fn new() -> Self {
            Self(L::LAYOUT.2, PhantomData) } #[doc =
            " Whether every reserved bit is as it must be."] pub const fn
            is_reserved_valid(self) -> bool { self.0 & L::LAYOUT.1 == L::LAYOUT.2 } }
            impl < L > Word < L, $bits > { #[doc =
            " The bits of `mask` that stand from bit `low` on."] #[inline(always)] pub
            const fn piece(self, low : u32, mask : $bits) -> $bits { self.0 >> low & mask
            } #[doc = " With `piece` replaced."] #[inline(always)] pub const fn
            with_piece(self, low : u32, mask : $bits, value : $bits) -> Self { Self(self
            .0 & ! (mask << low) | (value & mask) << low, PhantomData) } #[doc =
            " Whether bit `low` is 1."] #[inline(always)] pub const fn bit(self, low :
            u32) -> bool { self.0 >> low & 1 != 0 } #[doc = " With `bit` replaced."]
            #[inline(always)] pub const fn with_bit(self, low : u32, value : bool) ->
            Self { self.with_piece(low, 1, value as $bits) } })*
        };
    }
    words! {
        u8 u16 u32 u64
    }
    impl<L, B: Copy> Clone for Word<L, B> {
        fn clone(&self) -> Self {
            *self
        }
    }
    impl<L, B: Copy> Copy for Word<L, B> {}
    impl<L, B: PartialEq> PartialEq for Word<L, B> {
        fn eq(&self, other: &Self) -> bool {
            self.0 == other.0
        }
    }
    impl<L, B: Eq> Eq for Word<L, B> {}
    impl<L, B: Hash> Hash for Word<L, B> {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }
    impl<L: WordLayout<B>, B> Default for Word<L, B> {
        fn default() -> Self {
            Self(L::LAYOUT.2, PhantomData)
        }
    }
    impl<L: WordLayout<B>, B: Copy> fmt::Debug for Word<L, B> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let mut to = f.debug_struct(L::LAYOUT.0);
            L::fields(*self, &mut to);
            to.finish()
        }
    }
    /// Which numbers of an enum have names.
    pub trait Names<B: 'static> {
        /// Name of the enum, and numbers with their names.
        const NAMES: (&'static str, &'static [(B, &'static str)]);
    }
    /// An open enum: numbers without a name are kept.
    ///
    /// Only what derives its equality can stand in a pattern, and deriving asks it of `K` too: so that is a `PhantomData`, which can
    /// do all that is derived here whatever it is of.
    #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    #[repr(transparent)]
    pub struct Number<K, B>(B, PhantomData<K>);
    impl<N, B: Copy> Number<PhantomData<N>, B> {
        /// The value with this number.
        pub const fn from_bits(bits: B) -> Self {
            Self(bits, PhantomData)
        }
        /// The number.
        pub const fn into_bits(self) -> B {
            self.0
        }
    }
    macro_rules! numbers {
        ($($bits:ty)*) => {
            $(impl < N : Names <$bits >> Number < PhantomData < N >, $bits > { #[doc =
            " The name, if the number has one."] pub const fn name(self) -> Option
            <&'static str > { let mut names = N::NAMES.1; while let [(number, name), rest
            @ ..] = names { if * number == self.0 { return Some(name); } names = rest; }
            None } } impl < N : Names <$bits >> fmt::Debug for Number < PhantomData < N
            >, $bits > { fn fmt(& self, f : & mut fmt::Formatter <'_ >) -> fmt::Result {
            match self.name() { Some(name) => f.write_str(name), None => write!(f,
            "{}({:#x})", N::NAMES.0, self.0), } } })*
        };
    }
    numbers! {
        u8 u16 u32 u64
    }
    /// How the bytes of a structure are laid out; implemented by types without bytes that are aligned as the structure must be.
    pub trait StructureLayout<const SIZE: usize>: Sized {
        /// Name of the structure, and reserved ranges: first byte, number of bytes, value of each.
        const LAYOUT: (&'static str, &'static [(usize, usize, u8)]);
        /// Adds the fields that are no arrays by name and value.
        fn fields(_: &Structure<Self, SIZE>, _: &mut fmt::DebugStruct<'_, '_>) {}
    }
    /// A structure in memory: aligned bytes, so that any content can be held and nothing is lost.
    #[repr(C)]
    pub struct Structure<L, const SIZE: usize> {
        layout: [L; 0],
        bytes: [u8; SIZE],
    }
    impl<L: StructureLayout<SIZE>, const SIZE: usize> Structure<L, SIZE> {
        /// Bytes.
        pub const SIZE: usize = SIZE;
        /// The structure whose fields are all 0.
        #[must_use]
        pub const fn new() -> Self {
            let mut bytes = [0; SIZE];
            let mut reserved = L::LAYOUT.1;
            while let [(at, size, byte), rest @ ..] = reserved {
                fill(&mut bytes, *at, *size, *byte);
                reserved = rest;
            }
            Self::from_bytes(bytes)
        }
        /// The structure with these bytes, reserved ones included.
        pub const fn from_bytes(bytes: [u8; SIZE]) -> Self {
            Self { layout: [], bytes }
        }
        /// The bytes.
        pub const fn as_bytes(&self) -> &[u8; SIZE] {
            &self.bytes
        }
        /// The bytes, to be written.
        pub const fn as_bytes_mut(&mut self) -> &mut [u8; SIZE] {
            &mut self.bytes
        }
        /// Whether every reserved byte is as it must be.
        pub const fn is_reserved_valid(&self) -> bool {
            all_are(&self.bytes, L::LAYOUT.1)
        }
    }
    impl<L: StructureLayout<SIZE>, const SIZE: usize> Clone for Structure<L, SIZE> {
        fn clone(&self) -> Self {
            Self::from_bytes(self.bytes)
        }
    }
    impl<L: StructureLayout<SIZE>, const SIZE: usize> PartialEq for Structure<L, SIZE> {
        fn eq(&self, other: &Self) -> bool {
            self.bytes == other.bytes
        }
    }
    impl<L: StructureLayout<SIZE>, const SIZE: usize> Eq for Structure<L, SIZE> {}
    impl<L: StructureLayout<SIZE>, const SIZE: usize> Default for Structure<L, SIZE> {
        fn default() -> Self {
            Self::new()
        }
    }
    impl<L: StructureLayout<SIZE>, const SIZE: usize> fmt::Debug for Structure<L, SIZE> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let mut to = f.debug_struct(L::LAYOUT.0);
            L::fields(self, &mut to);
            to.finish()
        }
    }
    /// Sets `size` bytes from `at` on to `byte`.
    const fn fill(bytes: &mut [u8], at: usize, size: usize, byte: u8) {
        let mut i = 0;
        while i < size && at + i < bytes.len() {
            bytes[at + i] = byte;
            i += 1;
        }
    }
    /// Whether in each range (first byte, number of bytes, value) all bytes have the value.
    const fn all_are(bytes: &[u8], ranges: &[(usize, usize, u8)]) -> bool {
        let mut r = 0;
        while r < ranges.len() {
            let (at, size, value) = ranges[r];
            let mut i = 0;
            while i < size && at + i < bytes.len() {
                if bytes[at + i] != value {
                    return false;
                }
                i += 1;
            }
            r += 1;
        }
        true
    }
}
/// What the generic types of words, enums and structures are instances of.
pub mod layout {
    /// Layout of `Kind`.
    pub struct Kind {}
    /// Layout of `Entry`.
    pub struct Entry {}
    /// Layout of `Flags`.
    pub struct Flags {}
    /// Layout of `Split`.
    pub struct Split {}
    #[repr(align(64))]
    /// Layout of `Parameters`.
    pub struct Parameters {}
}
/// Kind of an entry.
///
/// Open: numbers without a name are kept.
pub type Kind = generic::Number<::core::marker::PhantomData<layout::Kind>, u8>;
impl Kind {
    /// A table.
    pub const TABLE: Self = Self::from_bits(1);
    /// PAGE.
    pub const PAGE: Self = Self::from_bits(3);
}
impl generic::Names<u8> for layout::Kind {
    const NAMES: (&'static str, &'static [(u8, &'static str)]) = (
        "Kind",
        &[(1, "TABLE"), (3, "PAGE")],
    );
}
/// An entry.
pub type Entry = generic::Word<layout::Entry, u16>;
impl Entry {
    /// Bits 15:12.
    #[inline]
    pub const fn kind(self) -> u8 {
        self.piece(12, 0xf) as u8
    }
    /// With `kind` replaced; bits that do not fit are cut off.
    #[inline]
    pub const fn with_kind(self, value: u8) -> Self {
        self.with_piece(12, 0xf, value as u16)
    }
    /// Bits 7:0.
    #[inline]
    pub const fn count(self) -> u8 {
        self.piece(0, 0xff) as u8
    }
    /// With `count` replaced; bits that do not fit are cut off.
    #[inline]
    pub const fn with_count(self, value: u8) -> Self {
        self.with_piece(0, 0xff, value as u16)
    }
}
impl generic::WordLayout<u16> for layout::Entry {
    const LAYOUT: (&'static str, u16, u16) = ("Entry", 0xf00, 0);
    fn fields(word: Entry, to: &mut ::core::fmt::DebugStruct<'_, '_>) {
        to.field("kind", &word.kind()).field("count", &word.count());
    }
}
/// Flags and a byte.
pub type Flags = generic::Word<layout::Flags, u16>;
impl Flags {
    /// Bits 15:8.
    #[inline]
    pub const fn count(self) -> u8 {
        self.piece(8, 0xff) as u8
    }
    /// With `count` replaced; bits that do not fit are cut off.
    #[inline]
    pub const fn with_count(self, value: u8) -> Self {
        self.with_piece(8, 0xff, value as u16)
    }
    /// Bit 1.
    #[inline]
    pub const fn write(self) -> bool {
        self.bit(1)
    }
    /// With `write` replaced; bits that do not fit are cut off.
    #[inline]
    pub const fn with_write(self, value: bool) -> Self {
        self.with_bit(1, value)
    }
    /// Bit 0.
    #[inline]
    pub const fn read(self) -> bool {
        self.bit(0)
    }
    /// With `read` replaced; bits that do not fit are cut off.
    #[inline]
    pub const fn with_read(self, value: bool) -> Self {
        self.with_bit(0, value)
    }
}
impl generic::WordLayout<u16> for layout::Flags {
    const LAYOUT: (&'static str, u16, u16) = ("Flags", 0xfc, 0);
    fn fields(word: Flags, to: &mut ::core::fmt::DebugStruct<'_, '_>) {
        to.field("count", &word.count())
            .field("write", &word.write())
            .field("read", &word.read());
    }
}
/// An entry with a split field.
pub type Split = generic::Word<layout::Split, u64>;
impl Split {
    /// Bit 63: Whether anything else counts.
    #[inline]
    pub const fn valid(self) -> bool {
        self.bit(63)
    }
    /// With `valid` replaced; bits that do not fit are cut off.
    #[inline]
    pub const fn with_valid(self, value: bool) -> Self {
        self.with_bit(63, value)
    }
    /// Bits 59:56.
    #[inline]
    pub const fn kind(self) -> Kind {
        Kind::from_bits(self.piece(56, 0xf) as u8)
    }
    /// With `kind` replaced; bits that do not fit are cut off.
    #[inline]
    pub const fn with_kind(self, value: Kind) -> Self {
        self.with_piece(56, 0xf, value.into_bits() as u64)
    }
    /// Bits 55:52 and 11:8.
    #[inline]
    pub const fn number(self) -> u8 {
        ((self.piece(52, 0xf) << 4) | self.piece(8, 0xf)) as u8
    }
    /// With `number` replaced; bits that do not fit are cut off.
    #[inline]
    pub const fn with_number(self, value: u8) -> Self {
        let raw = value as u64;
        self.with_piece(52, 0xf, raw >> 4).with_piece(8, 0xf, raw)
    }
    /// Bits 51:12.
    #[inline]
    pub const fn hpa(self) -> crate::Hpa {
        crate::Hpa::new(self.piece(12, 0xffffffffff) << 12)
    }
    /// With `hpa` replaced; bits that do not fit are cut off.
    #[inline]
    pub const fn with_hpa(self, value: crate::Hpa) -> Self {
        self.with_piece(12, 0xffffffffff, value.bits() >> 12)
    }
    /// Bits 2:0.
    #[inline]
    pub const fn level(self) -> Option<crate::Level> {
        crate::Level::new(self.piece(0, 7) as u8)
    }
    /// With `level` replaced; bits that do not fit are cut off.
    #[inline]
    pub const fn with_level(self, value: crate::Level) -> Self {
        self.with_piece(0, 7, value as u64)
    }
    /// Bits 7:6 and 56:53 and 9.
    #[inline]
    pub const fn state(self) -> Option<crate::SeptState> {
        crate::SeptState::from_encoding(
            ((self.piece(6, 3) << 5) | (self.piece(53, 0xf) << 1) | self.piece(9, 1))
                as u8,
        )
    }
}
impl generic::WordLayout<u64> for layout::Split {
    const LAYOUT: (&'static str, u64, u64) = (
        "Split",
        0x7000000000000000,
        0x7000000000000000,
    );
    fn fields(word: Split, to: &mut ::core::fmt::DebugStruct<'_, '_>) {
        to.field("valid", &word.valid())
            .field("kind", &word.kind())
            .field("number", &word.number())
            .field("hpa", &word.hpa())
            .field("level", &word.level())
            .field("state", &word.state());
    }
}
/// Parameters.
pub type Parameters = generic::Structure<layout::Parameters, 64>;
impl Parameters {
    /// Byte 0 on.
    pub fn flags(&self) -> Flags {
        Flags::from_bits(crate::bytes::u16_at(self.as_bytes(), 0))
    }
    /// Replaces `flags`.
    pub fn set_flags(&mut self, value: Flags) {
        crate::bytes::put_u16(self.as_bytes_mut(), 0, value.into_bits());
    }
    /// Byte 8 on.
    pub fn owner(&self) -> &[u8; 24] {
        crate::bytes::chunk(self.as_bytes(), 8)
    }
    /// Replaces `owner`.
    pub fn set_owner(&mut self, value: &[u8; 24]) {
        crate::bytes::put(self.as_bytes_mut(), 8, value);
    }
    /// Elements of `entries`.
    pub const COUNT_ENTRIES: usize = 4;
    /// Byte 32 on.
    ///
    /// `None` from the end of the array on.
    pub fn entries(&self, index: usize) -> Option<Split> {
        if index >= 4 {
            return None;
        }
        Some(Split::from_bits(crate::bytes::u64_at(self.as_bytes(), 32 + index * 8)))
    }
    /// Replaces `entries`.
    ///
    /// `None`, and nothing changed, from the end of the array on.
    pub fn set_entries(&mut self, index: usize, value: Split) -> Option<()> {
        if index >= 4 {
            return None;
        }
        crate::bytes::put_u64(self.as_bytes_mut(), 32 + index * 8, value.into_bits());
        Some(())
    }
}
impl generic::StructureLayout<64> for layout::Parameters {
    const LAYOUT: (&'static str, &'static [(usize, usize, u8)]) = (
        "Parameters",
        &[(2, 6, 0)],
    );
    fn fields(structure: &Parameters, to: &mut ::core::fmt::DebugStruct<'_, '_>) {
        to.field("flags", &structure.flags()).field("owner", &structure.owner());
    }
}
impl Parameters {
    /// Byte at which [`flags`](Self::flags) begins.
    pub const OFFSET_FLAGS: usize = 0;
    /// Byte at which [`owner`](Self::owner) begins.
    pub const OFFSET_OWNER: usize = 8;
    /// Byte at which [`entries`](Self::entries) begins.
    pub const OFFSET_ENTRIES: usize = 32;
}
