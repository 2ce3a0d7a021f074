use crate::Hpa;
use crate::Level;
use crate::format::ReturnedPage;
use crate::level::Fixed;
use crate::level::LevelType;

/// A naturally aligned page of host memory that its holder owns.
///
/// Not `Copy` and not `Clone`: a page given to the TDX module is gone until a leaf gives it back. `L` is its size, as the
/// level of an entry that maps it: a type where the size is known when compiling ([`Pt`](crate::level::Pt) ..), else
/// [`Level`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a page that is dropped is leaked"]
pub struct Page<L = Level> {
    hpa: Hpa,
    level: L,
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

    /// Its size, as the level of an entry that maps it.
    pub const fn level(&self) -> Level {
        self.level
    }

    /// The same page with its size in the type; the page itself if it has another size.
    pub fn fixed<L: Fixed>(self) -> Result<Page<L>, Self> {
        if self.level == L::LEVEL {
            Ok(Page {
                hpa: self.hpa,
                level: L::VALUE,
            })
        } else {
            Err(self)
        }
    }
}

impl<L: Fixed> Page<L> {
    /// Takes ownership of the page at `hpa`.
    ///
    /// The caller states that nobody else holds this page. `None` if `hpa` is not aligned to its size.
    pub const fn owned(hpa: Hpa) -> Option<Self> {
        if hpa.is_aligned(L::LEVEL) {
            Some(Self {
                hpa,
                level: L::VALUE,
            })
        } else {
            None
        }
    }

    /// The same page with its size as a value.
    pub const fn any(self) -> Page {
        Page {
            hpa: self.hpa,
            level: L::LEVEL,
        }
    }
}

impl<L: Copy> Page<L> {
    /// Where the page is.
    pub const fn hpa(&self) -> Hpa {
        self.hpa
    }

    /// Gives up ownership in favour of a bare address.
    pub const fn into_hpa(self) -> Hpa {
        self.hpa
    }
}

impl<L: LevelType> Page<L> {
    /// A page that the module has given back. With Dynamic PAMT bits above the address say more, which is no part of it.
    #[inline(always)]
    pub(crate) fn returned(address: u64, level: L) -> Self {
        Self {
            hpa: ReturnedPage::from_bits(address)
                .hpa()
                .align_down(level.level()),
            level,
        }
    }
}

impl<L: Fixed> From<Page<L>> for Page {
    fn from(page: Page<L>) -> Self {
        page.any()
    }
}
