//! Damage to seeds, without a fuzzer's guidance.

/// A generator of numbers that look random; the same seed gives the same numbers (xorshift64).
pub struct Random(u64);

impl Random {
    /// A generator that starts at `seed`, which is made odd.
    pub const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next number below `limit`, or 0.
    pub const fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        if limit == 0 {
            0
        } else {
            (self.0 % limit as u64) as usize
        }
    }
}

/// Pieces that formats make something of.
const PIECES: [&[u8]; 16] = [
    b"0x",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\"",
    b"\n",
    b"#",
    b"-1",
    b"18446744073709551615",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\xc3",
    b"&a *a",
];

/// A copy of one of `seeds` with up to eight changes.
pub fn damaged(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds
        .get(random.below(seeds.len()))
        .cloned()
        .unwrap_or_default();
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len());
        match random.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = random.below(256) as u8,
            2 if !bytes.is_empty() => {
                let end = (at + 1 + random.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            3 => {
                let piece = PIECES[random.below(PIECES.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            4 => bytes.truncate(at),
            5 => {
                // A run from another seed.
                let other = seeds
                    .get(random.below(seeds.len()))
                    .map_or(&[][..], Vec::as_slice);
                let from = random.below(other.len());
                let to = (from + random.below(64)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let end = (at + random.below(64)).min(bytes.len());
                let run = bytes[at.min(end)..end].to_vec();
                bytes.splice(at..at, run);
            }
        }
    }
    bytes
}
