//! The `tdx` command.

fn main() {}
