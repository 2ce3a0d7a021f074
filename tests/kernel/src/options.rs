//! Options that the runner writes into the image: words in a sector of their own.

use core::ptr;

const BYTES: usize = 512;

#[unsafe(link_section = ".options")]
#[used]
static OPTIONS: [u8; BYTES] = [b' '; BYTES];

/// Whether there is any option.
pub(crate) fn any() -> bool {
    bytes().iter().any(|byte| !byte.is_ascii_whitespace())
}

/// The first of `words` that is among the options.
pub(crate) fn first_of<'w>(words: &[&'w str]) -> Option<&'w str> {
    let bytes = bytes();
    let is_given = |word: &str| {
        bytes
            .split(u8::is_ascii_whitespace)
            .any(|found| found == word.as_bytes())
    };
    words.iter().copied().find(|word| is_given(word))
}

fn bytes() -> [u8; BYTES] {
    // SAFETY: the static is initialised; the read is volatile because the runner may have changed the bytes on disk.
    unsafe { ptr::read_volatile(&raw const OPTIONS) }
}
