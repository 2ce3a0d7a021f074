//! The host's view of what the guest and it say to each other.

#![expect(dead_code, reason = "the guest uses the rest")]

include!("../guest/src/protocol.rs");
