//! Runs one target, or each in turn, on damaged seeds for some seconds, and tells what makes it panic.

use core::time::Duration;
use std::env;
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::Instant;
use std::time::SystemTime;

use tdx_fuzz::TARGETS;
use tdx_fuzz::mutate::Random;
use tdx_fuzz::mutate::damaged;

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let wanted = arguments.next();
    let seconds = arguments
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(60);
    let start = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let start = start.map_or(1, |time| time.as_nanos() as u64);
    let mut found = 0_u32;
    for target in TARGETS {
        if wanted
            .as_deref()
            .is_some_and(|name| name != "all" && name != target.name)
        {
            continue;
        }
        let seeds = target.seeds();
        let mut random = Random::new(start);
        let (begin, mut executions, mut panics) = (Instant::now(), 0_u64, 0_u32);
        while begin.elapsed() < Duration::from_secs(seconds) && panics < 3 {
            let input = damaged(&seeds, &mut random);
            executions += 1;
            if catch_unwind(|| (target.run)(&input)).is_err() {
                panics += 1;
                println!(
                    "{}: panics on {:?}",
                    target.name,
                    String::from_utf8_lossy(&input)
                );
            }
        }
        found += panics;
        println!("{}: {executions} executions, {panics} panics", target.name);
    }
    if found == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
