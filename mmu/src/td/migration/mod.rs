//! Live migration of a TD from one platform to another.
//!
//! The source exports *bundles*, the destination imports them; what is in a bundle, encrypted and authenticated, only
//! the two modules know. How bundles travel is the embedder's: it takes them from a [`Sink`] and gives them as an
//! [`Arrival`].
//!
//! ```text
//! source                                              destination
//! Td::bind_service, Td::add_stream (2 or more)        Td::create_for_import, bind_service, add_stream
//!              the migration TDs exchange keys
//! Td::export                  -- immutable state -->  Td::import
//! Live: block_writes, track, export  -- memory -->    Import::receive
//!       (rounds: Live::precopy)      -- epochs -->
//! Live::pause                                                                         downtime begins
//! Paused: round, export       -- last memory -->
//!         export_td, export_vcpu     -- state -->
//!         hand_over           -- start token -->      Import::commit or end           downtime ends
//! HandedOver: round, export   -- rest, any order -->  Import::receive
//! ```
//!
//! Until the start token has been made, the source can abort at every point and its TD runs on; afterwards only with
//! the abort token that the destination makes before it commits.
//!
//! The mirror knows of each page what the Secure-EPT knows: whether it is blocked for writing, exported, dirty
//! ([`ExportState`](crate::mirror::ExportState)). While an export is under way faults map 4 KiB pages only, nothing is
//! promoted, and an exported page is unmapped, converted or moved only after [`Live::cancel`].
//!
//! # What may fail
//!
//! A leaf that is busy is repeated, an interrupted one goes on where it stopped. A leaf on a list of pages that fails
//! half-way has changed the entries before the one where it stopped: RCX and the statuses in the list tell, and mirror
//! and Secure-EPT stay equal. A bundle that was made in part cannot be sent: [`Error::BundleLost`] from then on, and the
//! session has to be aborted.

mod bind;
mod bundle;
mod import;
mod import_memory;
mod leaves;
mod lists;
mod live;
mod paused;
mod precopy;
mod restore;
mod session;
mod stream;
mod survey;

use tdx_abi::Level;
use tdx_abi::OpState;
use tdx_abi::PrivateGpa;

pub use self::bind::Binding;
pub use self::bundle::Arrival;
pub use self::bundle::Bundle;
pub use self::bundle::Sink;
pub use self::bundle::Unsent;
pub use self::import::Import;
pub use self::import::Received;
pub use self::live::Live;
pub use self::paused::HandedOver;
pub use self::paused::Paused;
pub use self::precopy::Precopy;
pub use self::precopy::Round;
pub use self::session::Exportable;
pub use self::session::Exported;
pub use self::session::WriteBlocked;
pub use self::stream::MAX_PAGES;
pub use self::stream::MBMD_WORDS;
pub use self::stream::MIN_PAGES;
pub use self::stream::Stream;
use super::Error;
use super::Td;
use super::invalidate::stopped;
use crate::embed::Embedder;
use crate::mirror::Stop;

impl<E: Embedder> Td<E> {
    /// Whether an export session is under way.
    pub(super) fn exporting(&self) -> bool {
        self.op_state().export_in_progress()
    }

    /// Whether memory that is not mapped may still be imported.
    pub(super) fn awaits_import(&self) -> bool {
        self.op_state() == OpState::LiveImport
    }

    /// The largest private leaf that may be mapped now: what migrates are 4 KiB pages.
    pub(super) fn largest_private(&self) -> Level {
        if self.exporting() || self.awaits_import() {
            Level::Pt
        } else {
            Self::LARGEST_PRIVATE
        }
    }

    /// Lets the guest write to a page again that an export has blocked for writing; false asks to look again.
    pub(super) fn allow_writes(&self, gpa: PrivateGpa) -> Result<bool, Error> {
        let gpa = gpa.align_down(Level::Pt);
        let mut section = self.mirror.section(&self.embedder);
        match section.allow_writes(&self.external(), gpa) {
            Ok(()) => Ok(true),
            Err(Stop::Retry) => Ok(false),
            Err(stop) => Err(stopped(stop)),
        }
    }
}
