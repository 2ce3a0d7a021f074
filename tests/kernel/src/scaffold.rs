//! TEMPORARY: a small EPT builder until tdx-mmu is there.
use core::sync::atomic::Ordering;

use crate::frames;
use crate::physical;
use crate::tables;

pub(crate) fn table() -> u64 {
    let frame = frames::allocate_frame().unwrap_or(0);
    if let Some(words) = physical::frame(frame) {
        words.iter().for_each(|word| word.store(tables::SUPPRESS_VE, Ordering::SeqCst));
    }
    frame
}

pub(crate) fn map(root: u64, gpa: u64, hpa: u64, level: u32, bits: u64) {
    let mut at = root;
    for l in (level + 1..=3).rev() {
        let entry = &physical::frame(at).map(|f| &f[(gpa >> (12 + 9 * l) & 511) as usize]);
        let Some(entry) = entry else { return };
        if entry.load(Ordering::SeqCst) & 7 == 0 {
            entry.store(table() | 7, Ordering::SeqCst);
        }
        at = entry.load(Ordering::SeqCst) & tables::ADDRESS;
    }
    if let Some(frame) = physical::frame(at) {
        let leaf = if level > 0 { tables::LEAF } else { 0 };
        frame[(gpa >> (12 + 9 * level) & 511) as usize].store(hpa | leaf | bits, Ordering::SeqCst);
    }
}
