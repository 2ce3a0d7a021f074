//! The wire between the two platforms: what is sent arrives at once.

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_mmu::platform::LpId;
use tdx_mmu::td::Error as TdError;
use tdx_mmu::td::migration::Arrival;
use tdx_mmu::td::migration::Bundle;
use tdx_mmu::td::migration::Import;
use tdx_mmu::td::migration::MAX_PAGES;
use tdx_mmu::td::migration::MBMD_WORDS;
use tdx_mmu::td::migration::Received;
use tdx_mmu::td::migration::Sink;
use tdx_mmu::td::migration::Stream;
use tdx_mmu::td::migration::Unsent;

use crate::error::Error;
use crate::host::Host;
use crate::host::td::HostTd;

/// The destination, as the source reaches it.
pub(super) struct Link<'t, 'h> {
    from: &'h Host,
    to: &'t HostTd<'h>,
    stream: Stream<'t, &'h Host>,
    import: Option<Import<'t, &'h Host>>,
    bundles: u64,
    failed: Option<TdError>,
}

impl<'t, 'h> Link<'t, 'h> {
    pub(super) fn new(from: &HostTd<'h>, to: &'t HostTd<'h>) -> Result<Self, TdError> {
        Ok(Self {
            from: from.embedder(),
            to,
            stream: to.stream(0, MAX_PAGES)?,
            import: None,
            bundles: 0,
            failed: None,
        })
    }

    /// Bundles sent.
    pub(super) const fn bundles(&self) -> u64 {
        self.bundles
    }

    /// Why the source could not go on: often because the destination could not.
    pub(super) fn explain(&mut self, error: TdError) -> Error {
        match self.failed.take() {
            Some(source) => super::failed("the destination cannot import")(source),
            None => super::failed("the source cannot export")(error),
        }
    }

    /// Ends the import; the TD runs at the destination.
    pub(super) fn end(mut self) -> Result<(), Error> {
        let failed = super::failed("cannot end the import");
        let import = self.import.take();
        import
            .ok_or(TdError::BadBundle)
            .and_then(|import| import.end().map_err(|(_, error)| error))
            .map_err(failed)
    }

    fn receive(&mut self, bundle: &Bundle<'_, '_, &'h Host>) -> Result<(), TdError> {
        let to = *self.to.embedder();
        let arrival = Arriving {
            bundle,
            from: self.from,
            to,
        };
        let Some(import) = &self.import else {
            self.import = Some(self.to.import(&mut self.stream, &arrival)?);
            return Ok(());
        };
        if let Received::Vcpu(vcpu) = import.receive(&mut self.stream, &arrival)? {
            // Importing its state has associated it with the LP where that was done.
            to.note_lp(vcpu, LpId(0));
        }
        Ok(())
    }
}

impl<'h> Sink<&'h Host> for Link<'_, 'h> {
    fn send(&mut self, bundle: &Bundle<'_, '_, &'h Host>) -> Result<(), Unsent> {
        self.bundles += 1;
        self.receive(bundle).map_err(|error| {
            self.failed = Some(error);
            Unsent
        })
    }
}

/// A bundle that is still in the source's buffers.
struct Arriving<'b, 's, 'e, 'h> {
    bundle: &'b Bundle<'s, 'e, &'h Host>,
    from: &'h Host,
    to: &'h Host,
}

impl Arrival for Arriving<'_, '_, '_, '_> {
    fn mbmd(&self) -> [u64; MBMD_WORDS] {
        self.bundle.mbmd()
    }

    fn len(&self) -> usize {
        self.bundle.len()
    }

    fn entry(&self, index: usize) -> u64 {
        self.bundle
            .entry(index)
            .map_or(0, |entry| entry.into_bits())
    }

    fn mac(&self, index: usize) -> [u64; 2] {
        self.bundle.mac(index).unwrap_or_default()
    }

    fn load(&self, index: usize, to: Hpa) {
        let Some(page) = self.bundle.page(index) else {
            return;
        };
        let mut bytes = [0; Level::Pt.size() as usize];
        // What the host cannot read the destination's module will not accept.
        if self
            .from
            .platform()
            .host_memory()
            .read(page, &mut bytes)
            .is_ok()
        {
            self.to.platform().host_memory().write(to, &bytes);
        }
    }
}
