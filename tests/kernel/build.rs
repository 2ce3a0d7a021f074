//! Links the kernel as a raw disk image: boot sector first, then the kernel as it lies in memory.

use std::env;
use std::path::PathBuf;

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let script = here.join("link.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    println!("cargo::rerun-if-env-changed=GUEST_IMAGE");
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,-n",
        "-Wl,--build-id=none",
        "-Wl,--oformat=binary",
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", script.display());
    match env::var("GUEST_IMAGE") {
        Ok(image) => println!("cargo::rerun-if-changed={image}"),
        Err(_) => println!(
            "cargo::error=GUEST_IMAGE is not set: build with ./run, which builds the guest first"
        ),
    }
}
