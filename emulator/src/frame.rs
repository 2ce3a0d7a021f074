//! One page of emulated physical memory, and typed access to what lies in it.

use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

/// Bytes of a [`Frame`].
pub const FRAME_BYTES: usize = 4096;

/// A 4 KiB page of physical memory as 512 atomic quadwords, little-endian.
///
/// Narrower accesses are made of operations on the quadword around them, so that all accesses to one
/// page may run concurrently: reads and writes that cross a quadword are not atomic, all others are.
#[repr(C, align(4096))]
pub struct Frame([AtomicU64; 512]);

impl Frame {
    /// A page of zeros.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 512])
    }

    /// All quadwords, in address order.
    pub const fn qwords(&self) -> &[AtomicU64; 512] {
        &self.0
    }

    /// The quadword at byte `offset`, whose lower three bits and bits above 11 are ignored.
    #[inline]
    pub fn qword(&self, offset: usize) -> &AtomicU64 {
        &self.0[(offset >> 3) & 511]
    }

    /// Reads a `W` at byte `offset`.
    #[inline]
    pub fn load<W: Word>(&self, offset: usize) -> W {
        let shift = (offset & 7) * 8;
        if shift + W::BITS <= 64 {
            return W::from_u64(self.qword(offset).load(Ordering::Acquire) >> shift);
        }
        let low = self.qword(offset).load(Ordering::Acquire) >> shift;
        let high = self.qword(offset + 8).load(Ordering::Acquire) << (64 - shift);
        W::from_u64(low | high)
    }

    /// Writes `value` at byte `offset`.
    #[inline]
    pub fn store<W: Word>(&self, offset: usize, value: W) {
        let shift = (offset & 7) * 8;
        if W::BITS == 64 && shift == 0 {
            self.qword(offset)
                .store(value.into_u64(), Ordering::Release);
        } else if shift + W::BITS <= 64 {
            replace(
                self.qword(offset),
                mask(W::BITS) << shift,
                value.into_u64() << shift,
            );
        } else {
            let value = value.into_u64();
            let low = 64 - shift;
            replace(self.qword(offset), mask(low) << shift, value << shift);
            replace(self.qword(offset + 8), mask(W::BITS - low), value >> low);
        }
    }

    /// Replaces the `W` at byte `offset` by `next` of it, atomically, and returns the old value.
    ///
    /// The `W` must not cross a quadword; if it does, the bits beyond are not touched.
    #[inline]
    pub fn update<W: Word>(&self, offset: usize, mut next: impl FnMut(W) -> W) -> W {
        let shift = (offset & 7) * 8;
        let field = mask(W::BITS) << shift;
        let cell = self.qword(offset);
        let mut old = cell.load(Ordering::Relaxed);
        loop {
            let value = next(W::from_u64(old >> shift)).into_u64();
            let new = (old & !field) | ((value << shift) & field);
            match cell.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return W::from_u64(old >> shift),
                Err(seen) => old = seen,
            }
        }
    }

    /// Copies bytes from `offset` on into `to`, as far as both reach.
    pub fn read(&self, offset: usize, to: &mut [u8]) {
        for (position, byte) in (offset..FRAME_BYTES).zip(to) {
            *byte = self.load(position);
        }
    }

    /// Copies `from` to `offset` on, as far as the page reaches.
    pub fn write(&self, offset: usize, from: &[u8]) {
        let mut position = offset;
        let mut rest = from;
        while position < FRAME_BYTES && !rest.is_empty() {
            match rest.split_first_chunk::<8>() {
                Some((chunk, tail)) if position & 7 == 0 => {
                    self.store(position, u64::from_le_bytes(*chunk));
                    position += 8;
                    rest = tail;
                }
                _ => {
                    self.store(position, rest[0]);
                    position += 1;
                    rest = &rest[1..];
                }
            }
        }
    }

    /// Fills the page with `value` in every quadword.
    pub fn fill(&self, value: u64) {
        for qword in &self.0 {
            qword.store(value, Ordering::Relaxed);
        }
        core::sync::atomic::fence(Ordering::Release);
    }

    /// Copies all of `from`, quadword by quadword.
    pub fn copy_from(&self, from: &Self) {
        for (to, from) in self.0.iter().zip(&from.0) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        core::sync::atomic::fence(Ordering::Release);
    }
}

impl Default for Frame {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").finish_non_exhaustive()
    }
}

#[inline]
const fn mask(bits: usize) -> u64 {
    if bits >= 64 {
        u64::MAX
    } else {
        (1 << bits) - 1
    }
}

#[inline]
fn replace(cell: &AtomicU64, field: u64, value: u64) {
    let mut old = cell.load(Ordering::Relaxed);
    while let Err(seen) = cell.compare_exchange_weak(
        old,
        (old & !field) | (value & field),
        Ordering::AcqRel,
        Ordering::Relaxed,
    ) {
        old = seen;
    }
}

/// An unsigned integer that a [`Frame`] can hold.
pub trait Word: Copy + Eq {
    /// Its width.
    const BITS: usize;
    /// The lower bits of `value`.
    fn from_u64(value: u64) -> Self;
    /// The value, zero-extended.
    fn into_u64(self) -> u64;
}

macro_rules! word {
    ($($type:ty),*) => {$(
        impl Word for $type {
            const BITS: usize = <$type>::BITS as usize;
            #[inline]
            fn from_u64(value: u64) -> Self {
                value as Self
            }
            #[inline]
            fn into_u64(self) -> u64 {
                self.into()
            }
        }
    )*};
}
word!(u8, u16, u32, u64);

/// A byte that is 0 or not.
impl Word for bool {
    const BITS: usize = 8;
    #[inline]
    fn from_u64(value: u64) -> Self {
        value & 0xff != 0
    }
    fn into_u64(self) -> u64 {
        self.into()
    }
}

/// Where a field of type `W` lies in a structure of one or several pages.
pub(crate) struct Field<W> {
    offset: u32,
    width: PhantomData<W>,
}

impl<W> Field<W> {
    /// A field at byte `offset` from the structure's start.
    pub(crate) const fn at(offset: u32) -> Self {
        Self {
            offset,
            width: PhantomData,
        }
    }

    /// Byte offset from the structure's start.
    pub(crate) const fn offset(self) -> usize {
        self.offset as usize
    }
}

impl<W: Word> Field<W> {
    /// Field number `index` of an array of which this is number 0.
    pub(crate) const fn nth(self, index: usize) -> Self {
        Self::at(self.offset + (index * W::BITS / 8) as u32)
    }
}

impl<W> Clone for Field<W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for Field<W> {}
