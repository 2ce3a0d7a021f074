//! The migration stream context (MIGSC): what one stream carries from bundle to bundle.

use super::gcm::Gcm;
use super::gcm::GcmState;
use super::gcm::Key;
use super::gcm::Mac;
use super::gcm::StreamIv;
use super::mbmd::MBMD_BYTES;
use super::mbmd::Mbmd;

/// Words of a MIGSC page that are used.
pub(crate) const CONTEXT_WORDS: usize = 48;

/// What an interrupted leaf leaves for its resumption, and its sticky error.
///
/// Some of it is also read without an interruption: the page count of EXPORT.MEM, the sticky error of
/// the imports. Source: `migsc_t` of module 1.5.01, `src/common/helpers/migration.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interrupted {
    /// Whether there is something to resume.
    pub valid: bool,
    /// RAX of the interrupted SEAMCALL: leaf and version.
    pub function: u64,
    /// Whether the module's own metadata is through already.
    pub sys_migrated: bool,
    /// Pages processed, lists included.
    pub num_processed: u32,
    /// R9 of a state leaf.
    pub page_list_info: u64,
    /// The next metadata field.
    pub field_id: u64,
    /// RCX of a vCPU state leaf.
    pub tdvpr: u64,
    /// RCX of a memory leaf with the next entry in it.
    pub gpa_list_info: u64,
    /// R9 of a memory leaf.
    pub buffer_list: u64,
    /// R11 and R12 of a memory leaf.
    pub mac_lists: [u64; 2],
    /// R13 of IMPORT.MEM.
    pub new_page_list: u64,
    /// The first error found in decrypted metadata; reported only once the MAC is known to be right.
    pub status: u64,
    /// RCX and RDX that belong to `status`.
    pub extended_error: [u64; 2],
}

/// A migration stream context.
///
/// Held in its MIGSC page under the TD's KeyID; guarded by the lock bit of its TDCS link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamContext {
    /// Counts every IV of this session that has been used or announced.
    pub iv_counter: u64,
    /// Number of the next bundle to export.
    pub next_mb_counter: u32,
    /// Number that the next bundle to import must have.
    pub expected_mb_counter: u32,
    /// State of an interrupted leaf.
    pub interrupted: Interrupted,
    /// The metadata of the bundle being processed.
    pub mbmd: Mbmd,
    key: Key,
    gcm: GcmState,
}

impl StreamContext {
    /// Begins a session under `key`: all counters 0, nothing to resume.
    pub(crate) fn initialize(&mut self, key: &Key) {
        self.iv_counter = 0;
        self.next_mb_counter = 0;
        self.expected_mb_counter = 0;
        self.interrupted.valid = false;
        self.key = *key;
    }

    /// Starts authenticating with the IV of `counter` and `stream`, `aad` first.
    pub(crate) fn start(&mut self, counter: u64, stream: u16, aad: &[u8]) {
        self.gcm = Gcm::start(&self.key, StreamIv { counter, stream }, aad).state();
    }

    /// Encrypts a piece of the text in place.
    pub(crate) fn encrypt(&mut self, text: &mut [u8]) {
        let mut gcm = Gcm::resume(&self.key, self.gcm);
        gcm.encrypt(text);
        self.gcm = gcm.state();
    }

    /// Decrypts a piece of the text in place; not authentic before the MAC has been compared.
    pub(crate) fn decrypt(&mut self, text: &mut [u8]) {
        let mut gcm = Gcm::resume(&self.key, self.gcm);
        gcm.decrypt(text);
        self.gcm = gcm.state();
    }

    /// The tag of everything since [`StreamContext::start`].
    pub(crate) fn mac(&self) -> Mac {
        Gcm::resume(&self.key, self.gcm).mac()
    }

    /// Reads a context from the words of its page.
    pub(crate) fn load(words: &[u64; CONTEXT_WORDS]) -> Self {
        let mut context = Self::default();
        let mut next = words.iter();
        context.visit(&mut |word| *word = next.next().copied().unwrap_or(0));
        context
    }

    /// The words of its page.
    pub(crate) fn store(&self) -> [u64; CONTEXT_WORDS] {
        let mut words = [0; CONTEXT_WORDS];
        let mut next = words.iter_mut();
        self.clone().visit(&mut |word| {
            if let Some(slot) = next.next() {
                *slot = *word;
            }
        });
        words
    }

    /// Shows every word to `word`, in the order in which they rest in the page.
    fn visit(&mut self, word: &mut impl FnMut(&mut u64)) {
        word(&mut self.iv_counter);
        half(&mut self.next_mb_counter, word);
        half(&mut self.expected_mb_counter, word);
        let interrupted = &mut self.interrupted;
        flag(&mut interrupted.valid, word);
        flag(&mut interrupted.sys_migrated, word);
        half(&mut interrupted.num_processed, word);
        word(&mut interrupted.function);
        word(&mut interrupted.page_list_info);
        word(&mut interrupted.field_id);
        word(&mut interrupted.tdvpr);
        word(&mut interrupted.gpa_list_info);
        word(&mut interrupted.buffer_list);
        interrupted.mac_lists.iter_mut().for_each(&mut *word);
        word(&mut interrupted.new_page_list);
        word(&mut interrupted.status);
        interrupted.extended_error.iter_mut().for_each(&mut *word);
        let mut mbmd = self.mbmd.to_bytes();
        bytes(&mut mbmd, word);
        self.mbmd = Mbmd::from_bytes(&mbmd);
        bytes(&mut self.key, word);
        let mut iv = [0; 16];
        iv[..12].copy_from_slice(&self.gcm.iv);
        bytes(&mut iv, word);
        self.gcm.iv.copy_from_slice(&iv[..12]);
        half(&mut self.gcm.next_block, word);
        bytes(&mut self.gcm.hash, word);
        word(&mut self.gcm.aad_bytes);
        word(&mut self.gcm.text_bytes);
    }
}

const _: () = assert!(18 + MBMD_BYTES / 8 + 4 + 2 + 1 + 2 + 2 <= CONTEXT_WORDS);

fn half(value: &mut u32, word: &mut impl FnMut(&mut u64)) {
    let mut whole = u64::from(*value);
    word(&mut whole);
    *value = whole as u32;
}

fn flag(value: &mut bool, word: &mut impl FnMut(&mut u64)) {
    let mut whole = u64::from(*value);
    word(&mut whole);
    *value = whole != 0;
}

fn bytes(value: &mut [u8], word: &mut impl FnMut(&mut u64)) {
    for piece in value.chunks_exact_mut(8) {
        let mut whole = u64::from_le_bytes(core::array::from_fn(|index| piece[index]));
        word(&mut whole);
        piece.copy_from_slice(&whole.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdx_abi::format::MbType;

    #[test]
    fn survives_its_page() {
        let mut context = StreamContext::default();
        context.initialize(&core::array::from_fn(|i| i as u8 + 1));
        context.iv_counter = 7;
        context.next_mb_counter = 8;
        context.expected_mb_counter = 9;
        context.mbmd = Mbmd {
            mac: [5; 16],
            ..Mbmd::new(MbType::MEM, 1, 2, 3, 4)
        };
        context.interrupted = Interrupted {
            valid: true,
            function: 1,
            sys_migrated: true,
            num_processed: 2,
            page_list_info: 3,
            field_id: 4,
            tdvpr: 5,
            gpa_list_info: 6,
            buffer_list: 7,
            mac_lists: [8, 9],
            new_page_list: 10,
            status: 11,
            extended_error: [12, 13],
        };
        context.start(7, 1, &[1; 32]);
        context.encrypt(&mut [3; 64]);
        let back = StreamContext::load(&context.store());
        assert_eq!(back, context);
        assert_eq!(back.mac(), context.mac());
    }
}
