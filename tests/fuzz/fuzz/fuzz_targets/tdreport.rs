#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(target) = tdx_fuzz::target("tdreport") {
        (target.run)(bytes);
    }
});
