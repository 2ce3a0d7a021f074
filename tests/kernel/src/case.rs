//! The cases, in the order in which they run.

mod conversion;
mod device;
mod large;
mod observation;
mod ordinary;
mod private;
mod running;
mod seeded;
mod shared;

use crate::check;
use crate::check_eq;
use crate::frames;
use crate::log;
use crate::module;
use crate::options;
use crate::report;
use crate::session::Session;
use crate::td::Platform;

/// Runs everything on a module that is up.
pub(crate) fn run_all(platform: &Platform) {
    let frames_before = frames::used_frames();
    ordinary::run();
    check_eq!(
        "the ordinary guest gives every frame back",
        frames::used_frames(),
        frames_before
    );
    report::group("building a TD");
    let mut session = match Session::new(platform) {
        Ok(session) => session,
        Err(step) => return report::check("a TD is built", false, format_args!("{step}")),
    };
    if options::any() {
        private::one_page(&mut session);
    } else {
        private::run(&mut session);
        shared::run(&mut session);
        conversion::run(&mut session);
        large::run(&mut session);
        device::run(&mut session);
        observation::run(&mut session);
        running::run(&mut session);
    }
    check_eq!(
        "no exit was an EPT misconfiguration",
        session.counts.misconfigurations,
        0
    );
    check_eq!("no violation was spurious", session.counts.spurious, 0);
    let differences = private::differences(&session);
    check_eq!("mirror and Secure-EPT are equal", differences, 0);
    seeded::run(&mut session);
    report::group("tear-down");
    check_eq!(
        "the TD is torn down",
        session.guest.tear_down(platform),
        Ok(())
    );
    check_eq!(
        "every frame and page came back",
        frames::used_frames(),
        frames_before
    );
    check_eq!(
        "the PAMT holds free and reserved pages only",
        used_pages(),
        Some(0)
    );
    check!(
        "all KeyIDs of TDs are free",
        platform.hkids.available() == platform.free_key_ids
    );
}

/// Pages in use by the PAMT's account.
fn used_pages() -> Option<u64> {
    let mut used = 0;
    module::platform()?.for_each_used_page(|hpa, level, page_type, owner| {
        log!("{hpa:?} {level:?} is {page_type:?} of {owner:?}");
        used += 1;
    });
    Some(used)
}
