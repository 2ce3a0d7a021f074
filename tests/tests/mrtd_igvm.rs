//! MRTD of a firmware image as the crate `igvm` computes it: a second opinion beside the recorded facts.

use std::path::PathBuf;

use igvm::IgvmDirectiveHeader;
use igvm::measurement::generate_tdx_measurement;
use igvm_defs::IgvmPageDataFlags;
use igvm_defs::IgvmPageDataType;
use tdx_cli::tdvf::Tdvf;

const COMPATIBILITY: u32 = 1;

/// The image's pages as IGVM directives, in page order.
fn directives(tdvf: &Tdvf) -> Vec<IgvmDirectiveHeader> {
    let mut directives = Vec::new();
    for section in tdvf.sections().iter().filter(|section| section.is_added()) {
        for offset in (0..section.size).step_by(4096) {
            directives.push(IgvmDirectiveHeader::PageData {
                gpa: section.gpa + offset,
                compatibility_mask: COMPATIBILITY,
                flags: IgvmPageDataFlags::new().with_unmeasured(!section.is_measured),
                data_type: IgvmPageDataType::NORMAL,
                data: tdvf.page(section, offset).to_vec(),
            });
        }
    }
    directives
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn igvm_agrees_with_the_recorded_mrtd_of_ovmf() {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/firmware");
    let image = tdx_cli::input::read(&data.join("OVMF.fd.gz"), 1 << 24).unwrap();
    let facts = std::fs::read(data.join("ovmf-bookworm.json")).unwrap();
    let facts: serde_json::Value = serde_json::from_slice(&facts).unwrap();
    let directives = directives(&Tdvf::parse(image).unwrap());
    let mrtd = generate_tdx_measurement(&directives, COMPATIBILITY).unwrap();
    assert_eq!(facts[0]["mrtd_page_order"], hex(&mrtd));
}
