//! Traces and firmware images: real ones, and what damage does to them.
#![expect(
    clippy::unwrap_used,
    reason = "a test binary: it has std, and a panic is how it fails"
)]

use std::io::BufReader;
use std::io::Read;
use std::path::PathBuf;

use proptest::prelude::*;
use tdx_cli::input;
use tdx_cli::tdvf::Section;
use tdx_cli::tdvf::Tdvf;
use tdx_cli::tdvf::TdvfError;
use tdx_cli::trace::Event;
use tdx_cli::trace::Trace;
use tdx_cli::trace::TraceError;

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(path)
}

fn trace(path: &str) -> Trace {
    Trace::parse(input::open(&repository(path)).unwrap()).unwrap()
}

fn ovmf() -> Vec<u8> {
    input::read(&repository("tests/data/firmware/OVMF.fd.gz"), 1 << 24).unwrap()
}

/// Events, touches of shared pages, conversions and discards.
fn counts(trace: &Trace) -> [usize; 4] {
    let count =
        |wanted: fn(&Event) -> bool| trace.events.iter().filter(|event| wanted(event)).count();
    [
        trace.events.len(),
        count(|event| matches!(event, Event::Touch { shared: true, .. })),
        count(|event| matches!(event, Event::Convert { .. })),
        count(|event| matches!(event, Event::Discard { .. })),
    ]
}

#[test]
fn the_recorded_traces_have_the_events_that_the_recorder_counted() {
    let boot = trace("cli/data/boot-shell-1g.trace.gz");
    assert_eq!(counts(&boot), [50_715, 66, 1, 0]);
    assert_eq!(
        (boot.name.as_deref(), boot.ram, boot.vcpus()),
        (Some("boot-shell-1g"), 1 << 30, 2)
    );
    assert_eq!(boot.markers.last(), Some(&(50_715, "PHASE end".to_owned())));
    let balloon = trace("tests/data/traces/balloon-1g.trace.gz");
    assert_eq!(counts(&balloon), [434_315, 16_369, 1, 60_601]);
}

#[test]
fn a_damaged_trace_says_where() {
    let message = |bytes: &[u8]| Trace::parse(input::decompress(bytes).unwrap()).unwrap_err();
    let packed = std::fs::read(repository("cli/data/boot-shell-1g.trace.gz")).unwrap();
    let TraceError::Read { line, .. } = message(&packed[..packed.len() / 2]) else {
        panic!()
    };
    assert!(line > 1000);
    assert!(matches!(message(b""), TraceError::Empty));
    assert!(matches!(
        message(b"# gpatrace v1 ram=0x1000\n"),
        TraceError::Empty
    ));
    assert!(matches!(
        message(b"T 0 0 w p v0 rwx\n\xff\n"),
        TraceError::Line { line: 2, .. }
    ));
    let endless = BufReader::new(std::io::repeat(b'T').take(1 << 20));
    assert!(matches!(
        Trace::parse(endless),
        Err(TraceError::Line { line: 1, .. })
    ));
}

#[test]
fn a_trace_without_header_has_as_much_memory_as_it_touches() {
    let trace = Trace::parse(&b"T 0 0 w p v0 rwx\nC 1 600000 1000\n"[..]).unwrap();
    assert_eq!(trace.ram, 0x80_0000);
}

#[test]
fn the_sections_of_ovmf_are_those_of_the_facts() {
    let facts = std::fs::read(repository("tests/data/firmware/ovmf-bookworm.json")).unwrap();
    let facts: serde_json::Value = serde_json::from_slice(&facts).unwrap();
    let tdvf = Tdvf::parse(ovmf()).unwrap();
    let expected = facts[0]["sections"].as_array().unwrap();
    assert_eq!(tdvf.sections().len(), expected.len());
    for (section, expected) in tdvf.sections().iter().zip(expected) {
        let number = |key: &str| {
            u64::from_str_radix(expected[key].as_str().unwrap().trim_start_matches("0x"), 16)
                .unwrap()
        };
        let Section {
            kind,
            gpa,
            size,
            raw_offset,
            raw_size,
            is_measured,
            is_augmented,
        } = section;
        assert_eq!(kind.name(), expected["name"]);
        assert_eq!(*gpa, number("addr"));
        assert_eq!(*size, number("size"));
        assert_eq!(*raw_offset, number("raw_off"));
        assert_eq!(*raw_size, number("raw_size"));
        let attributes = u64::from(*is_measured) | u64::from(*is_augmented) << 1;
        assert_eq!(Some(attributes), expected["attr"].as_u64());
    }
    let pages: u64 = tdvf
        .sections()
        .iter()
        .filter(|s| s.is_added())
        .map(Section::pages)
        .sum();
    assert_eq!(Some(pages), facts[0]["page_add"].as_u64());
}

#[test]
fn pages_of_a_section_are_its_bytes() {
    let image = ovmf();
    let tdvf = Tdvf::parse(image.clone()).unwrap();
    let bfv = &tdvf.sections()[0];
    assert_eq!(tdvf.page(bfv, 0x1000), &image[0x2_1000..0x2_2000]);
    assert_eq!(tdvf.page(bfv, bfv.size), &[] as &[u8]);
    assert_eq!(
        tdvf.page(&tdvf.sections()[2], 0),
        &[] as &[u8],
        "no content: zero"
    );
}

/// Where OVMF has its descriptor.
const DESCRIPTOR: usize = 0x1f_f7c0;

#[test]
fn damage_to_the_metadata_is_named() {
    let damaged = |damage: &dyn Fn(&mut Vec<u8>)| {
        let mut image = ovmf();
        damage(&mut image);
        Tdvf::parse(image).unwrap_err().to_string()
    };
    let put = |offset: usize, value: u32| {
        damaged(&move |image| image[offset..offset + 4].copy_from_slice(&value.to_le_bytes()))
    };
    assert_eq!(
        damaged(&|image| image.clear()),
        "no TDX metadata found, neither through a GUIDed table nor an offset at the end of the 0 bytes"
    );
    assert!(damaged(&|image| image.truncate(0x10_0000)).starts_with("no TDX metadata found"));
    assert!(damaged(&|image| image[0x1f_ffd0..].fill(0)).starts_with("no TDX metadata found"));
    assert!(damaged(&|image| drop(image.drain(..0x1f_f7d0))).contains("is not within the image"));
    assert_eq!(
        put(DESCRIPTOR + 8, 2),
        "the descriptor has version 2, expected 1"
    );
    for count in [0, 7, u32::MAX] {
        assert!(
            put(DESCRIPTOR + 12, count).contains(&format!("has {count} sections in 208 bytes"))
        );
    }
    let section = |index: usize, field: usize| DESCRIPTOR + 16 + 32 * index + field;
    let first = Tdvf::parse({
        let mut image = ovmf();
        image[section(0, 24)] = 9;
        image
    });
    assert!(matches!(first, Err(TdvfError::Section { index: 0, .. })));
    for (index, field, value) in [
        (0, 0, u32::MAX),  // content far outside
        (0, 0, 0x2_0001),  // content ends one byte outside
        (1, 4, 0x2_0001),  // more content than memory
        (2, 8, 0x81_0001), // unaligned address
        (2, 12, u32::MAX), // address beyond any SHARED bit
        (3, 16, 0),        // no memory
        (3, 20, u32::MAX), // too much memory
        (4, 28, 4),        // unknown attribute
        (1, 28, 2),        // content in memory that is added later
    ] {
        let mut image = ovmf();
        let offset = section(index, field);
        image[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        let error = Tdvf::parse(image).unwrap_err();
        assert!(
            matches!(error, TdvfError::Section { index: found, .. } if found == index),
            "{error}"
        );
    }
    assert_eq!(
        put(section(3, 8), 0x81_0000),
        "sections 2 and 3 overlap in guest memory"
    );
    assert!(put(section(2, 16), 0x5000_0000).starts_with("the sections to add have"));
}

proptest! {
    #[test]
    fn no_image_makes_the_parser_panic(
        at in (0x1f_f000_usize..0x20_0000),
        junk in proptest::collection::vec(any::<u8>(), 0..200),
        cut in 0_usize..0x1000,
    ) {
        let mut image = ovmf();
        image.drain(..0x1f_0000);
        let at = (at - 0x1f_0000).min(image.len() - junk.len());
        image[at..at + junk.len()].copy_from_slice(&junk);
        image.truncate(image.len() - cut.min(junk.len()));
        if let Ok(tdvf) = Tdvf::parse(image) {
            for section in tdvf.sections() {
                let _ = tdvf.page(section, section.raw_size);
            }
        }
    }

    #[test]
    fn no_text_makes_the_trace_parser_panic(text in "([TCDM#] ?[0-9a-f]{0,17} [0-9a-frwxpsv -]{0,30}\n){0,9}") {
        let _ = Trace::parse(text.as_bytes());
    }

    #[test]
    fn no_bytes_make_the_trace_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(reader) = input::decompress(&bytes[..]) {
            let _ = Trace::parse(reader);
        }
    }
}
