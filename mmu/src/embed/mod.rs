//! What the embedding kernel or VMM provides: small traits, one concern each.

mod backing;
mod flush;
mod memory;
mod time;
mod vcpus;

pub use self::backing::Backing;
pub use self::backing::SharedBacking;
pub use self::flush::Flush;
pub use self::memory::Frames;
pub use self::memory::Tables;
pub use self::time::Grace;
pub use self::time::Relax;
pub use self::vcpus::Clean;
pub use self::vcpus::Vcpus;
use crate::platform::Executor;

/// All that a [`crate::Td`] asks of its embedder; implemented for whatever implements the parts.
pub trait Embedder:
    Tables + Frames + Grace + Relax + Flush + Vcpus + Clean + Backing + Executor
{
}

impl<T: Tables + Frames + Grace + Relax + Flush + Vcpus + Clean + Backing + Executor> Embedder
    for T
{
}
