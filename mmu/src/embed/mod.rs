//! What the embedding kernel or VMM provides: small traits, one concern each.

mod flush;
mod memory;
mod time;

pub use self::flush::Flush;
pub use self::memory::Frames;
pub use self::memory::Tables;
pub use self::time::Grace;
pub use self::time::Relax;
