// What the guest and its host say to each other in TDG.VP.VMCALL; compiled into both.
//
// R10 = 0 is Intel's GHCI: MapGPA and the MMIO request are used as it defines them. Any other R10 is between this guest
// and this host: the guest asks for its next operation, or reports an exception that it does not expect.

/// R10 of a call that only this guest and this host understand.
pub(crate) const VENDOR: u64 = 0x6261_7265;

/// R11: the guest asks for an operation. R12 and R13 are the results of the last one, R14 counts #VEs since then.
pub(crate) const NEXT: u64 = 0;
/// R11: the guest stopped. R12 is the vector, R13 RIP, R14 the error code, R15 an address (CR2) or a status.
pub(crate) const FATAL: u64 = 1;

/// GHCI, R11: MapGPA. R12 is the first address, with the SHARED bit that is wanted, R13 the length in bytes.
pub(crate) const MAP_GPA: u64 = 0x10001;
/// GHCI, R11: an MMIO access. R12 is the size in bytes, R13 is 1 for a write, R14 the address, R15 the data.
pub(crate) const MMIO: u64 = 48;

/// R11 of the answer to [`NEXT`]: what to do. Operands follow in R12, R13, R14.
pub(crate) mod operation {
    /// Reads the word at R12. Result: the word.
    pub(crate) const READ: u64 = 1;
    /// Writes R13 to the word at R12.
    pub(crate) const WRITE: u64 = 2;
    /// Fills R13 bytes from R12 on with `pattern(R14, index)`.
    pub(crate) const FILL: u64 = 3;
    /// Compares R13 bytes from R12 on with `pattern(seed, index)` plus an addend; seed in R14[31:0], addend in R14[63:32].
    /// Results: number of differing words, address of the first.
    pub(crate) const VERIFY: u64 = 4;
    /// Calls the function at R12. Result: what it returns in EAX.
    pub(crate) const EXECUTE: u64 = 5;
    /// Accepts R13 bytes from R12 on, in pages of level R14. Results: status of the last call, number of pages accepted.
    pub(crate) const ACCEPT: u64 = 6;
    /// Asks the host to convert R13 bytes from R12 on, SHARED bit as wanted. Results: R10 of the last
    /// answer, number of calls.
    pub(crate) const CONVERT: u64 = 7;
    /// Counts the primes below R13 with a sieve of one byte a number at R12. Result: how many there are.
    pub(crate) const PRIMES: u64 = 8;
    /// Adds 1 to every word of R13 bytes from R12 on, R14 times over.
    pub(crate) const INCREMENT: u64 = 9;
    /// Sets whether the guest's #VE handler accepts private pages (R12 = 1) or reports the #VE as fatal (R12 = 0).
    pub(crate) const LAZY_ACCEPT: u64 = 10;
    /// Copies R14 bytes from R12 to R13.
    pub(crate) const COPY: u64 = 11;
}

/// Word `index` of the pattern with this seed.
pub(crate) const fn pattern(seed: u64, index: u64) -> u64 {
    let mixed =
        (seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 29
}
