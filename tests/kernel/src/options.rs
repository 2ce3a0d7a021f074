//! Options that the runner writes into the image: words in a sector of their own.

use core::ptr;

const BYTES: usize = 512;

#[unsafe(link_section = ".options")]
#[used]
static OPTIONS: [u8; BYTES] = [b' '; BYTES];

/// Whether `word` is among the options.
pub(crate) fn contains(word: &str) -> bool {
    // SAFETY: the static is initialised; the read is volatile because the runner may have changed the bytes on disk.
    let bytes = unsafe { ptr::read_volatile(&raw const OPTIONS) };
    bytes.split(|byte| byte.is_ascii_whitespace()).any(|found| found == word.as_bytes())
}
