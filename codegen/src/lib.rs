//! From YAML to a checked model of the TDX ABI, and from the model to Rust, C, JSON and documentation.
#![forbid(unsafe_code)]
