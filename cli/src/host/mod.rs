//! A host made of an emulated platform: its frames, and what it builds TDs from.

pub mod frames;
pub mod image;
