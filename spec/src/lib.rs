//! The Intel TDX ABI as YAML.
#![forbid(unsafe_code)]
