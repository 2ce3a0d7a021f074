//! What a TD needs before it can migrate: a migration TD and streams.

use tdx_abi::Tdr;
use tdx_abi::format::ServtdAttributes;
use tdx_abi::format::ServtdBindingHandle;
use tdx_abi::format::ServtdType;

use super::super::Error;
use super::super::Td;
use super::super::ledger::Ledger;
use super::super::ledger::MAX_STREAMS;
use crate::embed::Embedder;

/// What the host gives to a service TD so that it can reach the TD that it serves (TDG.SERVTD.RD and WR).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The handle.
    pub handle: ServtdBindingHandle,
    /// UUID of the TD that is served.
    pub target_uuid: [u64; 4],
}

impl<E: Embedder> Td<E> {
    /// Binds the service TD with this TDR to the TD (TDH.SERVTD.BIND, slot 0).
    ///
    /// The first binding comes before [`Td::finalize`], or before the import; the service TD has been finalized.
    pub fn bind_service(
        &self,
        service: Tdr,
        kind: ServtdType,
        attributes: ServtdAttributes,
    ) -> Result<Binding, Error> {
        self.memory()
            .servtd_bind(service, kind, attributes)
            .map(|(handle, target_uuid)| Binding {
                handle,
                target_uuid,
            })
    }

    /// Creates one more migration stream (TDH.MIG.STREAM.CREATE). The first is the backward stream, the others are the
    /// forward streams 0, 1 and so on; two are needed at least.
    ///
    /// Not legal during a session. The stream's page comes back when the TD is torn down.
    pub fn add_stream(&self) -> Result<(), Error> {
        let free = (0..MAX_STREAMS)
            .map(Ledger::stream)
            .find(|number| self.ledger.page(&self.embedder, *number).is_none())
            .ok_or(Error::OutOfPages)?;
        let memory = self.memory();
        self.give_control_page(free, |page| memory.mig_stream_create(page))
            .map(drop)
    }
}
