//! What goes wrong in a command.

use core::error::Error as _;
use std::io;

use tdx_mmu::platform::bring_up::BringUpError;

use crate::host::td::MakeError;
use crate::input::InputError;
use crate::replay::FormatError;
use crate::run::DriveError;
use crate::tdvf::TdvfError;
use crate::trace::TraceError;

/// Why a command failed; shown as one line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A file is no guest trace.
    #[error("{path}: not a usable guest trace")]
    Trace {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: TraceError,
    },
    /// A file is no TDVF image.
    #[error("{path}: not a usable TDVF image")]
    Firmware {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: TdvfError,
    },
    /// A file is no recording of calls.
    #[error("{path}: not a usable recording")]
    Recording {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
    /// The platform does not come up.
    #[error("the module does not come up")]
    BringUp(#[from] BringUpError),
    /// A TD cannot be made or unmade.
    #[error(transparent)]
    Td(#[from] MakeError),
    /// The host cannot go on.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// The result cannot be written.
    #[error("cannot write the result")]
    Output(#[from] io::Error),
    /// The command ran to its end, and what it checked does not hold.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// The error and its causes on one line.
    pub fn one_line(&self) -> String {
        let mut line = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            line.push_str(": ");
            line.push_str(&cause.to_string());
            source = cause.source();
        }
        line.replace(['\n', '\r'], " ")
    }

    /// Whether the reader of our output went away.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}
