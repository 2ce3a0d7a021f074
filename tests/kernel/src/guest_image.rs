//! The guest's first pages.

/// The flat image, as it lies from [`BASE`] on.
pub(crate) static IMAGE: &[u8] = include_bytes!(env!("GUEST_IMAGE"));

/// Guest-physical address of the image; its first page is the guest's top page table.
pub(crate) const BASE: u64 = 0x10_0000;

/// First instruction: behind three page tables.
pub(crate) const ENTRY: u64 = BASE + 0x3000;

/// Number of 4 KiB pages of the image.
pub(crate) const fn pages() -> u64 {
    (IMAGE.len() as u64).div_ceil(4096)
}

/// The 64-bit words of page `index`, zero behind the end of the image.
pub(crate) fn page(index: u64) -> [u64; 512] {
    let start = index as usize * 4096;
    let mut words = [0; 512];
    for (word, bytes) in words
        .iter_mut()
        .zip(IMAGE.get(start..).unwrap_or_default().chunks(8))
    {
        let mut eight = [0; 8];
        eight[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_le_bytes(eight);
    }
    words
}
