//! AES-256-GCM as a computation that can be put aside between two SEAMCALLs.
//!
//! The module keeps its cipher context in the MIGSC page, so that an interrupted export or import
//! goes on where it stopped. Here the whole state is [`GcmState`], plain words that rest in the same page.

use aes::Aes256;
use aes::Block;
use aes::cipher::BlockCipherEncrypt;
use aes::cipher::KeyInit;
use ghash::GHash;
use ghash::universal_hash::UniversalHash;

/// Bytes of an AES block, of a GHASH block and of a full tag.
const BLOCK_BYTES: usize = 16;

/// The bytes of a message authentication code as migration bundles carry it.
pub(crate) type Mac = [u8; BLOCK_BYTES];

/// A 256-bit migration key.
pub(crate) type Key = [u8; 32];

/// The 96-bit initialisation vector of a migration stream: IV counter, then stream index, then zero.
///
/// Source: `migs_iv_t` of module 1.5.01, `src/common/crypto/aes_gcm.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamIv {
    /// Counts every IV that the stream has used; never repeats under one key.
    pub counter: u64,
    /// The index of the forward stream; 0 for the backward stream.
    pub stream: u16,
}

impl StreamIv {
    fn bytes(self) -> [u8; 12] {
        let mut iv = [0; 12];
        iv[..8].copy_from_slice(&self.counter.to_le_bytes());
        iv[8..10].copy_from_slice(&self.stream.to_le_bytes());
        iv
    }
}

/// All that a [`Gcm`] needs beside its key to go on later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GcmState {
    /// The initialisation vector.
    pub iv: [u8; 12],
    /// The number of the next counter block; block 1 masks the tag.
    pub next_block: u32,
    /// The GHASH accumulator.
    pub hash: Mac,
    /// Bytes of additional authenticated data so far.
    pub aad_bytes: u64,
    /// Bytes of text so far.
    pub text_bytes: u64,
}

/// One AES-256-GCM computation: additional data first, then text, then the tag.
pub(crate) struct Gcm {
    cipher: Aes256,
    hash_key: ghash::Key,
    state: GcmState,
}

impl Gcm {
    /// Starts under `key` with `iv` and takes `aad` as the whole additional authenticated data.
    pub(crate) fn start(key: &Key, iv: StreamIv, aad: &[u8]) -> Self {
        let state = GcmState {
            iv: iv.bytes(),
            next_block: 2,
            ..GcmState::default()
        };
        let mut gcm = Self::resume(key, state);
        gcm.absorb(aad);
        gcm.state.aad_bytes = aad.len() as u64;
        gcm
    }

    /// Goes on from a state that [`Gcm::state`] gave under the same `key`.
    pub(crate) fn resume(key: &Key, state: GcmState) -> Self {
        let cipher = Aes256::new(key.into());
        let mut hash_key = Block::default();
        cipher.encrypt_block(&mut hash_key);
        Self {
            cipher,
            hash_key,
            state,
        }
    }

    /// What to keep in order to go on later.
    pub(crate) const fn state(&self) -> GcmState {
        self.state
    }

    /// Encrypts `text` in place. Only the last piece of a message may end within a block.
    pub(crate) fn encrypt(&mut self, text: &mut [u8]) {
        self.apply_key_stream(text);
        self.absorb(text);
        self.state.text_bytes += text.len() as u64;
    }

    /// Decrypts `text` in place. Only the last piece of a message may end within a block.
    ///
    /// The plaintext is not authentic before [`Gcm::mac`] has been compared.
    pub(crate) fn decrypt(&mut self, text: &mut [u8]) {
        self.absorb(text);
        self.apply_key_stream(text);
        self.state.text_bytes += text.len() as u64;
    }

    /// The tag over everything so far.
    pub(crate) fn mac(mut self) -> Mac {
        let mut lengths = [0; BLOCK_BYTES];
        lengths[..8].copy_from_slice(&(self.state.aad_bytes * 8).to_be_bytes());
        lengths[8..].copy_from_slice(&(self.state.text_bytes * 8).to_be_bytes());
        self.absorb(&lengths);
        let mut mask = self.counter_block(1);
        self.cipher.encrypt_block(&mut mask);
        let mut mac = self.state.hash;
        mac.iter_mut()
            .zip(mask)
            .for_each(|(byte, mask)| *byte ^= mask);
        mac
    }

    fn counter_block(&self, number: u32) -> Block {
        let mut block = Block::default();
        block[..12].copy_from_slice(&self.state.iv);
        block[12..].copy_from_slice(&number.to_be_bytes());
        block
    }

    fn apply_key_stream(&mut self, text: &mut [u8]) {
        for piece in text.chunks_mut(8 * BLOCK_BYTES) {
            let mut key_stream = [Block::default(); 8];
            let used = piece.len().div_ceil(BLOCK_BYTES);
            for block in &mut key_stream[..used] {
                *block = self.counter_block(self.state.next_block);
                self.state.next_block = self.state.next_block.wrapping_add(1);
            }
            self.cipher.encrypt_blocks(&mut key_stream[..used]);
            let bytes = key_stream.iter().flatten();
            piece
                .iter_mut()
                .zip(bytes)
                .for_each(|(byte, mask)| *byte ^= mask);
        }
    }

    /// Hashes `data`, the last block padded with zeros.
    ///
    /// GHASH is linear: beginning with accumulator `y` is the same as beginning with 0 and adding `y`
    /// to the first block, which is how the accumulator of [`GcmState`] is taken up again.
    fn absorb(&mut self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let mut hash = GHash::new(&self.hash_key);
        let first_bytes = data.len().min(BLOCK_BYTES);
        let mut first = self.state.hash;
        first
            .iter_mut()
            .zip(data)
            .for_each(|(byte, new)| *byte ^= new);
        hash.update(&[first.into()]);
        hash.update_padded(&data[first_bytes..]);
        self.state.hash = hash.finalize().into();
    }
}

/// Whether two codes are equal, without a secret-dependent branch.
pub(crate) fn same_mac(left: &Mac, right: &Mac) -> bool {
    left.iter()
        .zip(right)
        .fold(0, |difference, (l, r)| difference | (l ^ r))
        == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use aes_gcm::Aes256Gcm;
    use aes_gcm::aead::AeadInOut;
    use aes_gcm::aead::inout::InOutBuf;

    fn reference(key: &Key, iv: StreamIv, aad: &[u8], text: &mut [u8]) -> Mac {
        use aes_gcm::KeyInit;
        let cipher = Aes256Gcm::new(key.into());
        cipher
            .encrypt_inout_detached(&iv.bytes().into(), aad, InOutBuf::from(text))
            .unwrap()
            .into()
    }

    #[test]
    fn nist_vector_with_256_bit_key() {
        // Test case 15 of the GCM specification (McGrew and Viega), IV cafebabefacedbaddecaf888.
        let key = [
            0xfe, 0xff, 0xe9, 0x92, 0x86, 0x65, 0x73, 0x1c, 0x6d, 0x6a, 0x8f, 0x94, 0x67, 0x30,
            0x83, 0x08, 0xfe, 0xff, 0xe9, 0x92, 0x86, 0x65, 0x73, 0x1c, 0x6d, 0x6a, 0x8f, 0x94,
            0x67, 0x30, 0x83, 0x08,
        ];
        let iv = [
            0xca, 0xfe, 0xba, 0xbe, 0xfa, 0xce, 0xdb, 0xad, 0xde, 0xca, 0xf8, 0x88,
        ];
        let mut text = [
            0xd9, 0x31, 0x32, 0x25, 0xf8, 0x84, 0x06, 0xe5, 0xa5, 0x59, 0x09, 0xc5, 0xaf, 0xf5,
            0x26, 0x9a, 0x86, 0xa7, 0xa9, 0x53, 0x15, 0x34, 0xf7, 0xda, 0x2e, 0x4c, 0x30, 0x3d,
            0x8a, 0x31, 0x8a, 0x72, 0x1c, 0x3c, 0x0c, 0x95, 0x95, 0x68, 0x09, 0x53, 0x2f, 0xcf,
            0x0e, 0x24, 0x49, 0xa6, 0xb5, 0x25, 0xb1, 0x6a, 0xed, 0xf5, 0xaa, 0x0d, 0xe6, 0x57,
            0xba, 0x63, 0x7b, 0x39, 0x1a, 0xaf, 0xd2, 0x55,
        ];
        let mut gcm = Gcm::resume(
            &key,
            GcmState {
                iv,
                next_block: 2,
                ..GcmState::default()
            },
        );
        gcm.encrypt(&mut text);
        assert_eq!(text[..4], [0x52, 0x2d, 0xc1, 0xf0]);
        assert_eq!(
            gcm.mac(),
            [
                0xb0, 0x94, 0xda, 0xc5, 0xd9, 0x34, 0x71, 0xbd, 0xec, 0x1a, 0x50, 0x22, 0x70, 0xe3,
                0xcc, 0x6c
            ]
        );
    }

    #[test]
    fn pieces_put_aside_equal_one_message() {
        let key: Key = core::array::from_fn(|i| (i * 7) as u8);
        let iv = StreamIv {
            counter: 0x0102_0304_0506_0708,
            stream: 3,
        };
        for aad_bytes in [8, 16, 32, 33] {
            let aad: [u8; 33] = core::array::from_fn(|i| i as u8);
            let aad = &aad[..aad_bytes];
            let mut expected: [u8; 3 * 4096] = core::array::from_fn(|i| (i ^ (i >> 5)) as u8);
            let mut pages = expected;
            let expected_mac = reference(&key, iv, aad, &mut expected);

            let mut gcm = Gcm::start(&key, iv, aad);
            for page in pages.chunks_mut(4096) {
                gcm.encrypt(page);
                gcm = Gcm::resume(&key, gcm.state());
            }
            assert_eq!(pages, expected);
            assert_eq!(gcm.mac(), expected_mac);

            let mut gcm = Gcm::start(&key, iv, aad);
            for page in expected.chunks_mut(4096) {
                gcm.decrypt(page);
                gcm = Gcm::resume(&key, gcm.state());
            }
            assert_eq!(gcm.mac(), expected_mac);
        }
    }

    #[test]
    fn additional_data_alone() {
        let key = [9; 32];
        let iv = StreamIv {
            counter: 1,
            stream: 0,
        };
        assert_eq!(
            Gcm::start(&key, iv, &[1; 32]).mac(),
            reference(&key, iv, &[1; 32], &mut [])
        );
    }
}
