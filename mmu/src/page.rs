use tdx_abi::Hpa;
use tdx_abi::Level;

/// A naturally aligned run of host memory that its holder owns, of a size known at run time.
///
/// Not `Copy` and not `Clone`, as [`tdx_abi::Page`] of one 4 KiB page.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a page that is dropped is leaked"]
pub struct AnyPage {
    hpa: Hpa,
    level: Level,
}

impl AnyPage {
    /// Takes ownership of the memory at `hpa`, of the size that an entry of `level` covers.
    ///
    /// The caller states that nobody else holds it. `None` if `hpa` is not aligned to it.
    #[inline(always)]
    pub const fn assume_owned(hpa: Hpa, level: Level) -> Option<Self> {
        if hpa.is_aligned(level) {
            Some(Self { hpa, level })
        } else {
            None
        }
    }

    /// Where the memory is.
    pub const fn hpa(&self) -> Hpa {
        self.hpa
    }

    /// Its size, as the level of an entry that maps it.
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Gives up ownership in favour of a bare address.
    pub const fn into_hpa(self) -> Hpa {
        self.hpa
    }
}
