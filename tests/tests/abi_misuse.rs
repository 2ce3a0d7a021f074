//! Misuses that must not compile, with what the compiler says; blessed with `TRYBUILD=overwrite` on the toolchain that
//! `rust-toolchain` or CI names, without the component `rust-src`.

#[test]
fn misuse_does_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
}
