//! The subcommands of `tdx`, one module each.
