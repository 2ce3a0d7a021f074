//! Every operation, every call position, every kind of failure.
