use core::fmt;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

/// A private KeyID that its holder owns, until [`HkidPool::release`] takes it back.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a KeyID that is dropped is lost"]
pub struct Hkid(u16);

impl Hkid {
    /// The KeyID's number.
    pub const fn number(&self) -> u16 {
        self.0
    }
}

/// The private KeyIDs of a platform, given out one at a time.
///
/// Private KeyIDs are those from `first` on, `count` of them, as IA32_MKTME_KEYID_PARTITIONING tells. Room is
/// for `64 * WORDS`; KeyIDs beyond are not used.
#[derive(Debug)]
pub struct HkidPool<const WORDS: usize = 32> {
    first: u16,
    count: u16,
    taken: [AtomicU64; WORDS],
}

/// KeyIDs that do not fit 16 bits, or none at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HkidRangeError {
    /// First private KeyID as given.
    pub first: u32,
    /// Number of private KeyIDs as given.
    pub count: u32,
}

impl fmt::Display for HkidRangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} private KeyIDs from {} on: expected at least one, all between 1 and 65535",
            self.count, self.first
        )
    }
}

impl core::error::Error for HkidRangeError {}

impl<const WORDS: usize> HkidPool<WORDS> {
    /// The pool of `count` KeyIDs from `first` on, none of them taken.
    pub fn new(first: u32, count: u32) -> Result<Self, HkidRangeError> {
        let error = HkidRangeError { first, count };
        let end = first.checked_add(count).ok_or(error)?;
        if first == 0 || count == 0 || end > 1 << 16 {
            return Err(error);
        }
        let room = u32::try_from(64 * WORDS).unwrap_or(u32::MAX);
        Ok(Self {
            first: u16::try_from(first).map_err(|_| error)?,
            count: u16::try_from(count.min(room)).map_err(|_| error)?,
            taken: [const { AtomicU64::new(0) }; WORDS],
        })
    }

    /// Takes the lowest free KeyID.
    pub fn allocate(&self) -> Option<Hkid> {
        for index in 0..self.count {
            let (word, bit) = self.place(index);
            if word.load(Ordering::Relaxed) & bit == 0
                && word.fetch_or(bit, Ordering::AcqRel) & bit == 0
            {
                return Some(Hkid(self.first + index));
            }
        }
        None
    }

    /// Takes a KeyID back, which the module has freed (TDH.MNG.KEY.FREEID). One that this pool did
    /// not give out comes back as an error.
    pub fn release(&self, hkid: Hkid) -> Result<(), Hkid> {
        let Some(index) = hkid
            .0
            .checked_sub(self.first)
            .filter(|&index| index < self.count)
        else {
            return Err(hkid);
        };
        let (word, bit) = self.place(index);
        if word.fetch_and(!bit, Ordering::AcqRel) & bit == 0 {
            return Err(hkid);
        }
        Ok(())
    }

    /// KeyIDs that [`allocate`](Self::allocate) could still give out.
    pub fn available(&self) -> usize {
        let taken: u32 = self
            .taken
            .iter()
            .map(|word| word.load(Ordering::Relaxed).count_ones())
            .sum();
        usize::from(self.count).saturating_sub(taken as usize)
    }

    fn place(&self, index: u16) -> (&AtomicU64, u64) {
        (&self.taken[usize::from(index) / 64], 1 << (index % 64))
    }
}
