//! MRTD: SHA-384 over the build of a TD, in blocks of 128 bytes.

use sha2::Digest;
use sha2::Sha384;
use sha2::digest::generic_array::GenericArray;
use sha2::digest::generic_array::typenum::U128;

use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::tdcs;

const BLOCK: usize = 128;
const STATE_WORDS: usize = 8;

/// Initial state of SHA-384 (FIPS 180-4, 5.3.4).
const INITIAL: [u64; STATE_WORDS] = [
    0xcbbb_9d5d_c105_9ed8,
    0x629a_292a_367c_d507,
    0x9159_015a_3070_dd17,
    0x152f_ecd8_f70e_5939,
    0x6733_2667_ffc0_0b31,
    0x8eb4_4a87_6858_1511,
    0xdb0c_2e0d_64f9_8fa7,
    0x47b5_481d_befa_4fa4,
];

/// Begins a measurement.
pub(crate) fn begin(tdcs: Tdcs<'_>) {
    save(tdcs, &INITIAL, 0);
}

/// Adds the block that names a leaf and a guest-physical address: the name at 0, the address at 16.
pub(crate) fn extend(tdcs: Tdcs<'_>, leaf: &[u8], gpa: u64) {
    let mut block = [0; BLOCK];
    for (to, from) in block.iter_mut().zip(leaf) {
        *to = *from;
    }
    block[16..24].copy_from_slice(&gpa.to_le_bytes());
    add(tdcs, &block);
}

/// Adds bytes, a multiple of 128.
pub(crate) fn add(tdcs: Tdcs<'_>, bytes: &[u8]) {
    let (mut state, blocks) = load(tdcs);
    let mut count = blocks;
    for block in bytes.chunks_exact(BLOCK) {
        compress(&mut state, block);
        count += 1;
    }
    save(tdcs, &state, count);
}

/// Ends the measurement: the digest as it lies in memory.
pub(crate) fn finish(tdcs: Tdcs<'_>) -> [u8; 48] {
    let (mut state, blocks) = load(tdcs);
    let mut last = [0; BLOCK];
    last[0] = 0x80;
    last[BLOCK - 16..].copy_from_slice(&(u128::from(blocks) * BLOCK as u128 * 8).to_be_bytes());
    compress(&mut state, &last);
    let mut digest = [0; 48];
    for (to, word) in digest.chunks_exact_mut(8).zip(state) {
        to.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

/// SHA-384 of `bytes`.
pub(crate) fn sha384(bytes: &[u8]) -> [u8; 48] {
    Sha384::digest(bytes).into()
}

fn compress(state: &mut [u64; STATE_WORDS], block: &[u8]) {
    let block: GenericArray<u8, U128> = GenericArray::clone_from_slice(block);
    sha2::compress512(state, &[block]);
}

fn load(tdcs: Tdcs<'_>) -> ([u64; STATE_WORDS], u64) {
    let state = core::array::from_fn(|word| tdcs.get(tdcs::TD_SHA_CTX.nth(word)));
    (state, tdcs.get(tdcs::TD_SHA_CTX.nth(STATE_WORDS)))
}

fn save(tdcs: Tdcs<'_>, state: &[u64; STATE_WORDS], blocks: u64) {
    for (word, value) in state.iter().enumerate() {
        tdcs.set(tdcs::TD_SHA_CTX.nth(word), *value);
    }
    tdcs.set(tdcs::TD_SHA_CTX.nth(STATE_WORDS), blocks);
}
