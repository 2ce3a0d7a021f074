//! Modules whose source is public, released modules, and the features that they report.

use core::fmt;

tdx_codegen_macros::modules!();
tdx_codegen_macros::features!();

/// A set of modules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Modules(u32);

impl Modules {
    /// The set with bit `n` standing for the module of number `n`.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Whether `module` is in the set.
    pub const fn contains(self, module: Module) -> bool {
        self.0 & 1 << module as u32 != 0
    }

    /// Whether no module is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A released module, as Intel's list has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Release {
    /// Version, such as `1.5.05`.
    pub version: &'static str,
    /// TDX_FEATURES0.
    pub features0: u64,
    /// The oldest module that can be updated to this one while TDs stay alive.
    pub min_update_from: Option<&'static str>,
    /// Oldest P-SEAMLDR of each line that can load it.
    pub min_seamldr: &'static [&'static str],
}

impl Release {
    /// What the module supports.
    pub const fn features(&self) -> Features {
        Features(self.features0)
    }
}

/// TDX_FEATURES0: what a module supports, read by `TDH.SYS.RD`.
///
/// Gate a leaf on these bits, never on a version: 1.5 and 2.0 are developed side by side.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Features(u64);

impl Features {
    /// No feature.
    pub const EMPTY: Self = Self(0);

    /// The features with these bits, unknown ones included.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// TDX_FEATURES0.
    pub const fn into_bits(self) -> u64 {
        self.0
    }

    /// Whether every feature of `other` is there.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Features in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Names of the features; of a contested bit the first.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        (0..64)
            .filter(move |bit| self.0 & 1 << bit != 0)
            .filter_map(|bit| {
                FEATURES
                    .iter()
                    .find(|(known, _)| *known == bit)
                    .map(|(_, name)| *name)
            })
    }
}

impl Features {
    /// Evidence that the feature of this bit of TDX_FEATURES0 is there.
    ///
    /// # Errors
    ///
    /// It is not; the error names it.
    pub const fn has<const BIT: u32>(self) -> Result<Has<BIT>, MissingFeature> {
        if self.0 >> BIT & 1 != 0 {
            Ok(Has(()))
        } else {
            Err(MissingFeature { bit: BIT })
        }
    }
}

/// Evidence that the module has the feature of this bit of TDX_FEATURES0.
///
/// A leaf that not every module has takes it as an input, so that a module which lacks the leaf is never called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Has<const BIT: u32>(());

/// A feature that a leaf needs and the module lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingFeature {
    bit: u32,
}

impl MissingFeature {
    /// Its bit in TDX_FEATURES0.
    pub const fn bit(self) -> u32 {
        self.bit
    }

    /// Its name; of a contested bit the first.
    pub fn name(self) -> Option<&'static str> {
        FEATURES
            .iter()
            .find(|(bit, _)| *bit == self.bit)
            .map(|(_, name)| *name)
    }
}

impl fmt::Display for MissingFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(
                f,
                "the module lacks {name} (bit {} of TDX_FEATURES0)",
                self.bit
            ),
            None => write!(f, "the module lacks bit {} of TDX_FEATURES0", self.bit),
        }
    }
}

impl core::error::Error for MissingFeature {}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Features({:#x}: ", self.0)?;
        f.debug_set().entries(self.names()).finish()?;
        f.write_str(")")
    }
}
