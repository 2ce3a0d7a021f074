//! The protocols under a model checker: every run takes another interleaving of the atomic operations.
//!
//! What is modelled: the frozen-entry protocol and the linking and freeing of mirrored tables (`mirror`);
//! linking, splitting, promotion and freeing of the shared EPT's tables, and its gather against CPUs that keep
//! translations (`shared`); look-ups by a cursor that holds tables which others take away (`walk`); the visibility map
//! (`visibility`); block, track, kick and remove of private memory against vCPUs that enter and leave, and the ledger of
//! control pages (`td`); the tables of L2 VMs beside those that are blocked and removed (`l2`).
//!
//! Each model is run a second time with a mistake put in ([`memory::Seeded`]), and has to fail then.
#![expect(
    clippy::std_instead_of_alloc,
    clippy::std_instead_of_core,
    clippy::unwrap_used,
    reason = "a test binary: it has std, and a panic is how it fails"
)]

mod l2;
mod memory;
mod mirror;
mod module;
mod shared;
mod td;
mod visibility;
mod walk;
