//! What the macros hand to the compiler, counted: its time grows with this, and a count is the same on a busy machine.
//!
//! `tests/compile-cost` measures the time itself.

use std::path::Path;

use proc_macro2::TokenStream;
use proc_macro2::TokenTree;
use tdx_codegen::area::CORE;
use tdx_codegen::emit::rust::Options;
use tdx_codegen::emit::rust::SECTIONS;

/// Tokens that an edit may add up to before somebody has to look at the time again: about an eighth above what they are.
const LIMITS: [(Option<&str>, usize); 2] = [(Some(CORE), 118_000), (None, 330_000)];

fn tokens(stream: TokenStream) -> usize {
    stream
        .into_iter()
        .map(|tree| match tree {
            TokenTree::Group(group) => 2 + tokens(group.stream()),
            _ => 1,
        })
        .sum()
}

#[test]
fn the_compiler_is_not_given_more_than_it_can_take_in_a_second() {
    let spec = tdx_codegen::read(Path::new(tdx_spec::DIRECTORY))
        .expect("no mistakes")
        .spec;
    for (area, limit) in LIMITS {
        let options = Options {
            root: quote::quote!(crate),
            bitfield: None,
            linted: false,
            area: area.map(str::to_owned),
            part: None,
        };
        // Handlers are of no area: they are compiled with everything.
        let sections = SECTIONS
            .iter()
            .filter(|section| area.is_none() || section.name != "handlers");
        let counts: Vec<(&str, usize)> = sections
            .map(|section| (section.name, tokens((section.emit)(&spec, &options))))
            .collect();
        let all: usize = counts.iter().map(|(_, count)| count).sum();
        let name = area.unwrap_or("everything");
        assert!(
            all > limit / 2 && all < limit,
            "{name}: {all} tokens: {counts:?}"
        );
    }
}
