//! Bytes in constant functions, without panics: what lies outside is not touched and reads as 0.

/// The `N` bytes from `at` on.
pub const fn chunk<const N: usize>(bytes: &[u8], at: usize) -> &[u8; N] {
    if let Some((_, rest)) = bytes.split_at_checked(at)
        && let Some(chunk) = rest.first_chunk::<N>()
    {
        return chunk;
    }
    const { &[0; N] }
}

/// Copies `value` to `at`.
pub const fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    let mut i = 0;
    while i < value.len() && at + i < bytes.len() {
        bytes[at + i] = value[i];
        i += 1;
    }
}

macro_rules! words {
    ($($word:ident $at:ident $put:ident)*) => {
        $(/// The little-endian word from `at` on.
        pub const fn $at(bytes: &[u8], at: usize) -> $word {
            $word::from_le_bytes(*chunk(bytes, at))
        }

        /// Stores `value` as a little-endian word from `at` on.
        pub const fn $put(bytes: &mut [u8], at: usize, value: $word) {
            put(bytes, at, &value.to_le_bytes());
        })*
    };
}

words! {
    u8 u8_at put_u8
    u16 u16_at put_u16
    u32 u32_at put_u32
    u64 u64_at put_u64
}
