//! Tokens that C and Rust have in common.

/// A token and the line it starts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::spec) struct Token<'t> {
    pub(in crate::spec) line: usize,
    pub(in crate::spec) kind: Kind<'t>,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::spec) enum Kind<'t> {
    /// A name or keyword.
    Word(&'t str),
    /// A whole number with its suffix removed.
    Number(u64),
    /// `<<`, `>>` or a single character.
    Sign(&'t str),
    /// `#define` with the name directly after it, and whether the name is followed by `(`.
    Define(&'t str, bool),
    /// The end of a line that starts a `#define`.
    EndOfDefine,
}

/// The tokens of `text`, without comments and strings. Numbers that do not fit in 64 bits are left out.
pub(in crate::spec) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut scanner = Scanner {
        text,
        at: 0,
        line: 1,
        in_define: false,
        tokens: Vec::new(),
    };
    while scanner.at < text.len() {
        scanner.step();
    }
    if scanner.in_define {
        scanner.push(Kind::EndOfDefine);
    }
    scanner.tokens
}

struct Scanner<'t> {
    text: &'t str,
    at: usize,
    line: usize,
    in_define: bool,
    tokens: Vec<Token<'t>>,
}

impl<'t> Scanner<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn push(&mut self, kind: Kind<'t>) {
        self.tokens.push(Token {
            line: self.line,
            kind,
        });
    }

    /// Goes `bytes` on and counts the lines.
    fn skip(&mut self, bytes: usize) {
        let skipped = self.rest().get(..bytes).unwrap_or_else(|| self.rest());
        self.line += skipped.matches('\n').count();
        self.at += skipped.len();
    }

    fn step(&mut self) {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return;
        };
        if first == '\n' {
            if self.in_define {
                self.push(Kind::EndOfDefine);
                self.in_define = false;
            }
            self.skip(1);
        } else if rest.starts_with("\\\n") {
            self.skip(2);
        } else if rest.starts_with("\\\r\n") {
            self.skip(3);
        } else if rest.starts_with("//") {
            self.skip(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.skip(rest.find("*/").map_or(rest.len(), |end| end + 2));
        } else if first == '"' {
            self.string(rest);
        } else if first == '\'' {
            self.character(rest);
        } else if first == '#' {
            self.directive(rest);
        } else if first.is_ascii_digit() {
            let length = span(rest, |c| c.is_ascii_alphanumeric() || c == '_');
            if let Some(number) = number(rest.get(..length).unwrap_or_default()) {
                self.push(Kind::Number(number));
            }
            self.skip(length);
        } else if is_word(first) {
            let length = span(rest, |c| is_word(c) || c.is_ascii_digit());
            self.push(Kind::Word(rest.get(..length).unwrap_or_default()));
            self.skip(length);
        } else if rest.starts_with("<<") || rest.starts_with(">>") {
            self.push(Kind::Sign(rest.get(..2).unwrap_or_default()));
            self.skip(2);
        } else {
            if !first.is_whitespace() {
                self.push(Kind::Sign(rest.get(..first.len_utf8()).unwrap_or_default()));
            }
            self.skip(first.len_utf8());
        }
    }

    /// A string: nothing in it is a token.
    fn string(&mut self, rest: &str) {
        let mut escaped = true;
        let end = rest.char_indices().find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            // The opening quote counts as escaped.
            escaped = *c == '\\' && !escaped;
            ends
        });
        self.skip(end.map_or(rest.len(), |(at, _)| at + 1));
    }

    /// A character or a lifetime.
    fn character(&mut self, rest: &str) {
        let mut after = rest.chars().skip(1);
        let length = match (after.next(), after.next()) {
            (Some('\\'), Some(_)) => rest
                .get(3..)
                .and_then(|rest| rest.find('\''))
                .map_or(1, |at| at + 4),
            (Some(c), Some('\'')) => c.len_utf8() + 2,
            _ => 1,
        };
        self.skip(length);
    }

    /// A C directive or a Rust attribute.
    fn directive(&mut self, rest: &'t str) {
        let body = rest.get(1..).unwrap_or_default();
        let word = body.trim_start_matches([' ', '\t']);
        let blanks = 1 + body.len() - word.len();
        let Some(after) = word.strip_prefix("define") else {
            let is_attribute = body.starts_with(['[', '!']);
            // Of other directives nothing is of interest; an attribute is read as tokens.
            self.skip(if is_attribute {
                1
            } else {
                rest.find('\n').unwrap_or(rest.len())
            });
            if is_attribute {
                self.push(Kind::Sign("#"));
            }
            return;
        };
        let name = after.trim_start_matches([' ', '\t']);
        let length = span(name, |c| is_word(c) || c.is_ascii_digit());
        let (name, rest) = name.split_at(length);
        self.push(Kind::Define(name, rest.starts_with('(')));
        self.in_define = true;
        self.skip(blanks + word.len() - rest.len());
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn span(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

/// The value of a literal of C or Rust.
fn number(literal: &str) -> Option<u64> {
    let plain: String = literal.chars().filter(|c| *c != '_').collect();
    let lower = plain.to_ascii_lowercase();
    let (digits, radix) = if let Some(digits) = lower.strip_prefix("0x") {
        (digits, 16)
    } else if let Some(digits) = lower.strip_prefix("0b") {
        (digits, 2)
    } else {
        (lower.as_str(), 10)
    };
    let length = span(digits, |c| c.is_digit(radix));
    let (digits, suffix) = digits.split_at(length);
    let known = suffix
        .trim_start_matches(['u', 'l', 'i'])
        .chars()
        .all(|c| c.is_ascii_digit())
        || matches!(suffix, "usize" | "isize");
    known
        .then(|| u64::from_str_radix(digits, radix).ok())
        .flatten()
}
