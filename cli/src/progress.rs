//! Progress bars, on a terminal only.

use indicatif::ProgressBar;
use indicatif::ProgressStyle;

/// A bar for `total` steps, on standard error; nothing is shown if that is no terminal.
pub fn bar(total: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(total).with_message(what);
    let style = "{msg:>20} [{bar:40}] {human_pos}/{human_len} {elapsed}";
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}
