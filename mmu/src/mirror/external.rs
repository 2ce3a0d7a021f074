use tdx_abi::Level;
use tdx_abi::PrivateGpa;

use super::MirrorEntry;

/// What stands behind the mirror: the Secure-EPT.
pub trait External {
    /// Why a change was refused.
    type Error;

    /// Changes the entry of `level` at `gpa` from `old` to `new`, by one call of the backend.
    ///
    /// The mirror shows the entry as frozen meanwhile (or is held exclusively), and takes over `new`
    /// on success.
    fn set(
        &self,
        gpa: PrivateGpa,
        level: Level,
        old: MirrorEntry,
        new: MirrorEntry,
    ) -> Result<(), SetError<Self::Error>>;
}

/// Why [`External::set`] failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetError<E> {
    /// The entry is what it was.
    Unchanged(E),
    /// What the entry is now is not known; the mirror poisons it.
    Unknown(E),
}

impl<E> SetError<E> {
    /// The reason.
    pub fn into_inner(self) -> E {
        match self {
            Self::Unchanged(error) | Self::Unknown(error) => error,
        }
    }
}

/// No Secure-EPT at all: every change succeeds. For measurements and models.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoExternal;

impl External for NoExternal {
    type Error = core::convert::Infallible;

    #[inline(always)]
    fn set(
        &self,
        _: PrivateGpa,
        _: Level,
        _: MirrorEntry,
        _: MirrorEntry,
    ) -> Result<(), SetError<Self::Error>> {
        Ok(())
    }
}
