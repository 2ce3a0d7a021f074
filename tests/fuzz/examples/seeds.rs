//! Writes the seeds of every target to FOLDER/TARGET, where a fuzzer guided by coverage looks for them.

use core::error::Error;
use std::env;
use std::fs;
use std::path::PathBuf;

use tdx_fuzz::TARGETS;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args().nth(1).ok_or("usage: seeds FOLDER")?;
    for target in TARGETS {
        let folder = PathBuf::from(&folder).join(target.name);
        fs::create_dir_all(&folder)?;
        for (index, seed) in target.seeds().iter().enumerate() {
            fs::write(folder.join(format!("seed-{index}")), seed)?;
        }
    }
    Ok(())
}
