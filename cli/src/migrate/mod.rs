//! `tdx migrate`: moves a TD from one emulated platform to another.

pub mod service_td;
