//! Exporting a TD that is paused, and what follows out of order.

use tdx_abi::OpState;
use tdx_abi::status::StatusCode;

use super::super::Error;
use super::super::leaves;
use super::super::teardown::not_here;
use super::Arrival;
use super::Bundle;
use super::Sink;
use super::Stream;
use super::bundle::Content;
use super::bundle::Unsent;
use super::session::Exportable;
use super::session::Session;
use super::session::is_behind;
use super::session::is_left;
use super::session::is_new;
use super::stream::MBMD_WORDS;
use crate::GpaRange;
use crate::embed::Embedder;

/// An export session of a TD that has been paused: no vCPU can be entered.
#[derive(Debug)]
#[must_use = "the TD stays paused until the session is aborted"]
pub struct Paused<'t, E: Embedder>(pub(super) Session<'t, E>);

/// An export session whose destination may run the TD; here it runs again only with the destination's abort token.
#[derive(Debug)]
pub struct HandedOver<'t, E: Embedder> {
    session: Session<'t, E>,
    token: [u64; MBMD_WORDS],
}

impl<'t, E: Embedder> Paused<'t, E> {
    /// Begins a round: everything that the destination does not have as it is now can be exported, without blocking.
    pub fn round<'l>(
        &'l mut self,
        stream: &mut Stream<'_, E>,
        sink: &mut impl Sink<E>,
    ) -> Result<Exportable<'l, 't, E>, Error> {
        self.0.fresh_epoch(stream, sink)?;
        // The module exports no large pages. Nobody runs, so this needs no tracking.
        self.0
            .td
            .split_all(GpaRange::up_to(self.0.td.mirror.tree().end()))?;
        Ok(Exportable {
            session: &self.0,
            wanted: is_behind,
        })
    }

    /// As [`Live::cancel`](super::Live::cancel).
    pub fn cancel(
        &mut self,
        ranges: &[GpaRange],
        stream: &mut Stream<'_, E>,
        sink: &mut impl Sink<E>,
    ) -> Result<u64, Error> {
        self.0.cancel(ranges, stream, sink)
    }

    /// As [`Live::remaining`](super::Live::remaining).
    pub fn remaining(&self, range: GpaRange) -> u64 {
        self.0.td.count(range, is_left)
    }

    /// Exports the TD's own mutable state (TDH.EXPORT.STATE.TD), on stream 0.
    pub fn export_td(
        &mut self,
        stream: &mut Stream<'_, E>,
        sink: &mut impl Sink<E>,
    ) -> Result<(), Error> {
        self.0.check()?;
        stream.use_pool();
        let pages = self.0.td.memory().export_state_td(stream)?;
        self.0.send(sink, stream, pages, Content::State)
    }

    /// Exports the state of `vcpu` (TDH.EXPORT.STATE.VP), after [`Paused::export_td`]. Associates it with this LP.
    pub fn export_vcpu(
        &mut self,
        vcpu: usize,
        stream: &mut Stream<'_, E>,
        sink: &mut impl Sink<E>,
    ) -> Result<(), Error> {
        let td = self.0.td;
        self.0.check()?;
        let tdvpr = td.tdvpr(vcpu).ok_or(Error::NoSuchVcpu(vcpu))?;
        stream.use_pool();
        let pages = match td.memory().export_state_vp(tdvpr, stream) {
            Err(error) if is_elsewhere(&error) => {
                td.embedder
                    .on_each_lp(|_, lp| not_here(leaves::vp_flush(lp, &td.embedder, tdvpr)))?;
                td.memory().export_state_vp(tdvpr, stream)
            }
            exported => exported,
        }?;
        self.0.send(sink, stream, pages, Content::State)
    }

    /// Makes the start token (TDH.EXPORT.TRACK), with which the destination may run the TD: from now on this platform
    /// may not. No exported page may be dirty; what has not been exported ([`Paused::remaining`]) has to follow out of
    /// order, or is lost.
    pub fn hand_over(self, stream: &mut Stream<'_, E>) -> Result<HandedOver<'t, E>, (Self, Error)> {
        let td = self.0.td;
        let made = self.0.check().and_then(|()| {
            let _section = td.mirror.exclusive(&td.embedder);
            td.memory().export_track(stream, true)?;
            td.set_op_state(OpState::PostExport);
            Ok(())
        });
        match made {
            Ok(()) => Ok(HandedOver {
                session: self.0,
                token: stream.mbmd_words(),
            }),
            Err(error) => Err((self, error)),
        }
    }

    /// As [`Live::abort`](super::Live::abort).
    pub fn abort(self, stream: &mut Stream<'_, E>) -> Result<(), (Self, Error)> {
        self.0.abort(stream, false).map_err(|error| (self, error))
    }
}

fn is_elsewhere(error: &Error) -> bool {
    error
        .status()
        .is_some_and(|status| status.code() == StatusCode::VCPU_ASSOCIATED)
}

impl<'t, E: Embedder> HandedOver<'t, E> {
    /// Sends the start token, on stream 0; again if it did not arrive.
    pub fn send_token(
        &self,
        stream: &mut Stream<'_, E>,
        sink: &mut impl Sink<E>,
    ) -> Result<(), Error> {
        stream.set_mbmd(&self.token);
        sink.send(&Bundle::new(stream, 0, Content::Nothing))
            .map_err(|Unsent| Error::BundleLost)
    }

    /// Begins the out-of-order phase: pages that the destination does not have can still be exported, in any order.
    pub fn round<'l>(&'l mut self) -> Result<Exportable<'l, 't, E>, Error> {
        self.session.check()?;
        Ok(Exportable {
            session: &self.session,
            wanted: is_new,
        })
    }

    /// Pages of `range` that the destination has not been sent.
    pub fn remaining(&self, range: GpaRange) -> u64 {
        self.session.td.count(range, is_new)
    }

    /// Ends the session with the abort token that the destination has made ([`Import::abort`](super::Import::abort));
    /// the TD runs on here.
    pub fn abort(
        self,
        stream: &mut Stream<'_, E>,
        token: &impl Arrival,
    ) -> Result<(), (Self, Error)> {
        stream.set_mbmd(&token.mbmd());
        self.session
            .abort(stream, true)
            .map_err(|error| (self, error))
    }
}
