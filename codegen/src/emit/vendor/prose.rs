//! Documentation in lines of readable length.

use syn::Attribute;
use syn::Expr;
use syn::Lit;
use syn::Meta;
use syn::parse_quote;
use syn::visit_mut::VisitMut;

use crate::emit::wrapped;

/// Longest line of documentation, in characters.
const WIDTH: usize = 110;

/// Replaces each doc text by one attribute a line.
pub(super) struct Lines;

impl VisitMut for Lines {
    fn visit_attributes_mut(&mut self, attributes: &mut Vec<Attribute>) {
        let mut list = Vec::with_capacity(attributes.len());
        for attribute in attributes.drain(..) {
            match doc_text(&attribute) {
                None => list.push(attribute),
                Some(text) => list.extend(lines(&text).iter().map(|line| {
                    let line: Attribute = parse_quote!(#[doc = #line]);
                    line
                })),
            }
        }
        *attributes = list;
    }
}

fn doc_text(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(meta) = &attribute.meta else {
        return None;
    };
    let Expr::Lit(literal) = &meta.value else {
        return None;
    };
    match &literal.lit {
        Lit::Str(text) if meta.path.is_ident("doc") => Some(text.value()),
        _ => None,
    }
}

/// `text` in lines, each with the space that follows `///`.
fn lines(text: &str) -> Vec<String> {
    let mut lines = wrapped(text, WIDTH - 1, is_marker);
    for line in lines.iter_mut().filter(|line| !line.is_empty()) {
        line.insert(0, ' ');
    }
    lines
}

/// `code` with an empty line between items.
pub(super) fn spaced(code: &str) -> String {
    const BEGINNINGS: [&str; 9] = [
        "///",
        "#[",
        "pub ",
        "impl",
        "fn ",
        "static ",
        "mod ",
        "macro_rules!",
        "const fn",
    ];
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let mut out = String::with_capacity(code.len() + code.len() / 32);
    let mut before = "";
    for line in code.lines() {
        let trimmed = line.trim_start();
        let above = before.trim_start();
        let ends = above == "}" || above.starts_with("use ");
        let ends = ends && indentation(before) == indentation(line);
        if ends && BEGINNINGS.iter().any(|start| trimmed.starts_with(start)) {
            out.push('\n');
        }
        out.push_str(line);
        out.push('\n');
        before = line;
    }
    out
}

/// Whether Markdown would see something else than a word where this begins a line.
fn is_marker(word: &str) -> bool {
    let number = word.trim_end_matches(['.', ')']);
    word.starts_with(['#', '>', '+', '-', '*', '=', '|', '~'])
        || word.len() > number.len() && number.chars().all(|c| c.is_ascii_digit())
}
