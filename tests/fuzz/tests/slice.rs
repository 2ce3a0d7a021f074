//! A short slice of the fuzzing, on stable Rust: the seeds, and damaged copies of them.

use core::time::Duration;
use std::time::Instant;

use tdx_fuzz::TARGETS;
use tdx_fuzz::mutate::Random;
use tdx_fuzz::mutate::damaged;

/// Damaged inputs for each target, at most.
const INPUTS: u64 = 400;
/// No target takes longer than this for all of them; at least [`LEAST`] are run however slow the machine is.
const TIME: Duration = Duration::from_secs(10);
/// Damaged inputs for each target, at least.
const LEAST: u64 = 30;

#[test]
fn nothing_panics_on_damaged_input() {
    for target in TARGETS {
        let seeds = target.seeds();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        seeds.iter().for_each(|seed| (target.run)(seed));
        (target.run)(&[]);
        let start = Instant::now();
        for number in 0..INPUTS {
            if number >= LEAST && start.elapsed() > TIME {
                break;
            }
            (target.run)(&damaged(&seeds, &mut Random::new(number << 1)));
        }
    }
}
