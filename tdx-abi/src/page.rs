use crate::Hpa;
use crate::Level;

/// A naturally aligned page of host memory that its holder owns.
///
/// Not `Copy` and not `Clone`: a page given to the TDX module is gone until a leaf gives it back.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a page that is dropped is leaked"]
pub struct Page {
    hpa: Hpa,
    level: Level,
}

impl Page {
    /// Takes ownership of the page at `hpa`, of the size that an entry of `level` covers.
    ///
    /// The caller states that nobody else holds this page. `None` if `hpa` is not aligned to it.
    pub const fn assume_owned(hpa: Hpa, level: Level) -> Option<Self> {
        if hpa.is_aligned(level) {
            Some(Self { hpa, level })
        } else {
            None
        }
    }

    /// Where the page is.
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
