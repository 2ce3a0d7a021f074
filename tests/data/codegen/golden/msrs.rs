/// How MSRs behave in a TD, by ascending number.
pub static MSRS: &[MsrRow] = &[
    MsrRow {
        name: "IA32_TSC",
        start: 0x10,
        end: 0x10,
        modules: Modules::from_bits(1),
        read: "FIXED",
        write: "FIXED VE",
    },
];
