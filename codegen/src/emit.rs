//! A checked model written out.

pub mod rust;
