//! `tdx measure` against MRTDs on which seven independent calculators agree.
#![expect(
    clippy::unwrap_used,
    reason = "a test binary: it has std, and a panic is how it fails"
)]

mod command;

use command::complaint;
use command::file;
use command::json;
use command::repository;
use tdx_cli::input;

fn facts() -> serde_json::Value {
    let facts = std::fs::read(repository("tests/data/firmware/ovmf-bookworm.json")).unwrap();
    serde_json::from_slice::<serde_json::Value>(&facts).unwrap()[0].clone()
}

fn firmware() -> Vec<u8> {
    input::read(&repository("tests/data/firmware/OVMF.fd.gz"), 1 << 24).unwrap()
}

#[test]
fn mrtd_of_ovmf_in_both_orders() {
    let facts = facts();
    let plain = file("OVMF.fd", &firmware());
    for order in ["page", "section"] {
        let path = plain.to_str().unwrap();
        let measured = json(["measure", path, "--order", order, "--json"]);
        assert_eq!(measured["mrtd"], facts[format!("mrtd_{order}_order")]);
        assert_eq!(measured["order"], order);
        assert_eq!(measured["page_add"], facts["page_add"]);
        assert_eq!(measured["mr_extend"], facts["mr_extend"]);
    }
}

#[test]
fn compressed_firmware_and_the_default_order() {
    let path = repository("tests/data/firmware/OVMF.fd.gz");
    let measured = json(["measure", path.to_str().unwrap(), "--json"]);
    assert_eq!(measured["mrtd"], facts()["mrtd_page_order"]);
    let shown = command::tdx(["measure", path.to_str().unwrap()]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains(facts()["mrtd_page_order"].as_str().unwrap()));
    assert!(
        !shown.contains('\x1b'),
        "no colours where there is no terminal"
    );
}

#[test]
fn bad_firmware_is_one_line() {
    let firmware = firmware();
    let path = |name, content: &[u8]| file(name, content).to_str().unwrap().to_owned();
    let missing = complaint(["measure", "/nowhere/OVMF.fd"]);
    assert_eq!(
        missing,
        "tdx: cannot read /nowhere/OVMF.fd: No such file or directory (os error 2)"
    );
    let folder = repository("cli").to_str().unwrap().to_owned();
    assert!(complaint(["measure".to_owned(), folder]).contains("is a directory"));
    for (name, content, what) in [
        ("empty", &b""[..], "no TDX metadata found"),
        ("garbage", &[0x5a; 100_000], "no TDX metadata found"),
        (
            "truncated",
            &firmware[..firmware.len() / 2],
            "no TDX metadata found",
        ),
        (
            "tail",
            &firmware[firmware.len() - 0x1000..],
            "outside the image",
        ),
        ("broken.gz", &[0x1f, 0x8b, 8, 0, 1, 2, 3], "cannot read"),
    ] {
        let line = complaint(["measure".to_owned(), path(name, content)]);
        assert!(line.contains(what), "{name}: {line}");
    }
    let packed = std::fs::read(repository("tests/data/firmware/OVMF.fd.gz")).unwrap();
    let line = complaint([
        "measure".to_owned(),
        path("half.gz", &packed[..packed.len() / 2]),
    ]);
    assert!(line.contains("cannot read"), "{line}");
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut bomb, &vec![0; 65 << 20]).unwrap();
    let line = complaint([
        "measure".to_owned(),
        path("bomb.gz", &bomb.finish().unwrap()),
    ]);
    assert!(line.contains("is larger than 67108864 bytes"), "{line}");
}
