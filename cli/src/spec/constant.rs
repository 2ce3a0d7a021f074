//! Named numbers in C headers and Rust sources.

use std::collections::HashMap;

use super::token::Kind;
use super::token::Token;
use super::token::tokens;

/// A name with a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::spec) struct Constant {
    /// Line of the name.
    pub(in crate::spec) line: usize,
    /// The name.
    pub(in crate::spec) name: String,
    /// The enum that it is a member of.
    pub(in crate::spec) container: Option<String>,
    /// The number.
    pub(in crate::spec) value: u64,
}

/// Every name in `text` that is given a number: macros, members of enums (but not those that only
/// count on), `const` items. What is no constant expression of known names is left out.
pub(in crate::spec) fn constants(text: &str) -> Vec<Constant> {
    let tokens = tokens(text);
    let mut reader = Reader {
        tokens: &tokens,
        at: 0,
        known: HashMap::new(),
        found: Vec::new(),
        depth: 0,
    };
    while let Some(token) = reader.next() {
        match &token.kind {
            Kind::Define(name, is_function) => reader.define(token.line, name, *is_function),
            Kind::Word("enum") => reader.enumeration(),
            Kind::Word("const") => reader.constant(),
            _ => {}
        }
    }
    reader.found
}

/// The value of a constant expression of numbers alone.
pub(in crate::spec) fn evaluate(text: &str) -> Option<u64> {
    let tokens = tokens(text);
    let mut reader = Reader {
        tokens: &tokens,
        at: 0,
        known: HashMap::new(),
        found: Vec::new(),
        depth: 0,
    };
    let value = reader.expression()?;
    reader.peek().is_none().then_some(value)
}

/// Functions whose value is their argument.
const WRAPPERS: [&str; 6] = ["UL", "ULL", "_UL", "_ULL", "_AC", "U64_C"];
/// Functions whose value is the bit with the number of their argument.
const BIT: [&str; 4] = ["BIT", "BIT_ULL", "_BITUL", "_BITULL"];
/// Levels of parentheses and signs in an expression, at most.
const DEPTH: usize = 64;
/// Words in parentheses that are types.
const TYPES: [&str; 10] = [
    "u8", "u16", "u32", "u64", "uint32_t", "uint64_t", "__u32", "__u64", "unsigned", "long",
];

struct Reader<'t> {
    tokens: &'t [Token<'t>],
    at: usize,
    known: HashMap<String, u64>,
    found: Vec<Constant>,
    depth: usize,
}

impl<'t> Reader<'t> {
    fn peek(&self) -> Option<&'t Kind<'t>> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    fn next(&mut self) -> Option<&'t Token<'t>> {
        let token = self.tokens.get(self.at)?;
        self.at += 1;
        Some(token)
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = self.peek() == Some(&Kind::Sign(sign));
        if found {
            self.at += 1;
        }
        found
    }

    fn skip_past(&mut self, kind: &Kind<'_>) {
        while let Some(token) = self.next() {
            if token.kind == *kind {
                break;
            }
        }
    }

    fn add(&mut self, line: usize, name: &str, container: Option<&str>, value: u64) {
        self.known.insert(name.to_owned(), value);
        self.found.push(Constant {
            line,
            name: name.to_owned(),
            container: container.map(str::to_owned),
            value,
        });
    }

    fn define(&mut self, line: usize, name: &str, is_function: bool) {
        if !is_function
            && let Some(value) = self.expression()
            && self.peek() == Some(&Kind::EndOfDefine)
        {
            self.add(line, name, None, value);
        }
        self.skip_past(&Kind::EndOfDefine);
    }

    /// After `const`: `NAME: Type = value;` or, in a set of flags, `NAME = value;`.
    fn constant(&mut self) {
        let Some(Token {
            line,
            kind: Kind::Word(name),
        }) = self.next()
        else {
            return;
        };
        let start = self.at;
        if self.take(":") {
            while !matches!(
                self.peek(),
                None | Some(Kind::Sign("=" | ";" | "{" | ")" | ","))
            ) {
                self.at += 1;
            }
        }
        if self.take("=")
            && let Some(value) = self.expression()
            && self.peek() == Some(&Kind::Sign(";"))
        {
            self.add(*line, name, None, value);
        } else {
            self.at = start;
        }
    }

    /// After `enum`: the members, unless one of them carries data.
    fn enumeration(&mut self) {
        let start = self.at;
        let name = match self.peek() {
            Some(Kind::Word(name)) => {
                self.at += 1;
                Some(*name)
            }
            _ => None,
        };
        if self.take(":") {
            self.at += 1;
        }
        if !self.take("{") {
            self.at = start;
            return;
        }
        let mut members = Vec::new();
        let mut value = Some(0);
        loop {
            while self.take("#") {
                self.brackets();
            }
            let Some(Token {
                line,
                kind: Kind::Word(member),
            }) = self.next()
            else {
                break;
            };
            let is_given = self.take("=");
            if is_given {
                value = self.expression();
                while !matches!(self.peek(), None | Some(Kind::Sign("," | "}"))) {
                    self.at += 1;
                    value = None;
                }
            }
            if let Some(value) = value {
                if is_given {
                    members.push((*line, *member, value));
                }
                self.known.insert((*member).to_owned(), value);
            }
            value = value.map(|value: u64| value.wrapping_add(1));
            match self.next().map(|token| &token.kind) {
                Some(Kind::Sign(",")) => {}
                Some(Kind::Sign("}")) => break,
                _ => {
                    self.at = start;
                    return;
                }
            }
        }
        for (line, member, value) in members {
            self.add(line, member, name, value);
        }
    }

    /// Skips `[` to the matching `]`.
    fn brackets(&mut self) {
        let mut depth = 0_usize;
        while let Some(token) = self.next() {
            match token.kind {
                Kind::Sign("[") => depth += 1,
                Kind::Sign("]") => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }

    fn expression(&mut self) -> Option<u64> {
        self.binary(0)
    }

    /// A chain of binary operators of at least this precedence.
    fn binary(&mut self, least: u8) -> Option<u64> {
        let mut left = self.primary()?;
        while let Some(Kind::Sign(sign)) = self.peek() {
            let precedence = match *sign {
                "|" => 1,
                "^" => 2,
                "&" => 3,
                "<<" | ">>" => 4,
                "+" | "-" => 5,
                "*" | "/" => 6,
                _ => break,
            };
            if precedence <= least {
                break;
            }
            self.at += 1;
            let right = self.binary(precedence)?;
            let shift = u32::try_from(right).ok();
            left = match *sign {
                "|" => left | right,
                "^" => left ^ right,
                "&" => left & right,
                "<<" => left.checked_shl(shift?)?,
                ">>" => left.checked_shr(shift?)?,
                "+" => left.checked_add(right)?,
                "-" => left.checked_sub(right)?,
                "*" => left.checked_mul(right)?,
                _ => left.checked_div(right)?,
            };
        }
        while self.peek() == Some(&Kind::Word("as")) {
            self.at += 2;
        }
        Some(left)
    }

    fn primary(&mut self) -> Option<u64> {
        if self.depth == DEPTH || self.peek() == Some(&Kind::EndOfDefine) {
            return None;
        }
        self.depth += 1;
        let value = self.operand();
        self.depth -= 1;
        value
    }

    fn operand(&mut self) -> Option<u64> {
        match &self.next()?.kind {
            Kind::Number(value) => Some(*value),
            Kind::Sign("~" | "!") => Some(!self.primary()?),
            Kind::Sign("-") => Some(self.primary()?.wrapping_neg()),
            Kind::Sign("(") => {
                if matches!(self.peek(), Some(Kind::Word(word)) if TYPES.contains(word)) {
                    self.skip_past(&Kind::Sign(")"));
                    return self.primary();
                }
                let value = self.expression()?;
                self.take(")").then_some(value)
            }
            Kind::Word(word) => {
                let mut word = *word;
                // A path: its last part counts.
                while self.take(":") {
                    if let Some(Kind::Word(last)) = self.peek() {
                        word = last;
                        self.at += 1;
                    }
                }
                if self.take("(") {
                    self.call(word)
                } else {
                    self.known.get(word).copied()
                }
            }
            _ => None,
        }
    }

    /// After `word(`: a bit, or a type that holds one number.
    fn call(&mut self, word: &str) -> Option<u64> {
        let value = self.expression()?;
        if WRAPPERS.contains(&word) && self.take(",") {
            self.at += 1;
        }
        if !self.take(")") {
            return None;
        }
        if BIT.contains(&word) {
            return 1_u64.checked_shl(u32::try_from(value).ok()?);
        }
        let is_type = word.starts_with(|c: char| c.is_ascii_uppercase());
        (is_type || WRAPPERS.contains(&word) || word == "from_bits").then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::constants;

    fn pairs(text: &str) -> Vec<(String, u64)> {
        let found = constants(text).into_iter();
        found
            .map(|constant| (constant.name, constant.value))
            .collect()
    }

    fn expected(pairs: &[(&str, u64)]) -> Vec<(String, u64)> {
        let owned = pairs.iter();
        owned
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect()
    }

    #[test]
    fn reads_macros() {
        let text = "#include <x.h>\n#ifndef A\n#define A\n#define B 0x10ULL /* 16 */\n#define C(x) 3\n# define D (B | \\\n BIT_ULL(63)) // 63\n#define E unknown\n#define F \"F 1\"\n#define G (u64)_AC(7, ULL)";
        let found = pairs(text);
        assert_eq!(found, expected(&[("B", 16), ("D", 1 << 63 | 16), ("G", 7)]));
    }

    #[test]
    fn reads_enums() {
        let text = "enum { A, B = 4, C, D = C };\n/// Doc, with = and {\npub enum E: u64 { #[doc = \"x\"] X = 0x8000_0000, Y, }\npub enum Data { One(u8), Two }";
        let found = constants(text);
        let containers: Vec<_> = found.iter().map(|it| it.container.as_deref()).collect();
        assert_eq!(
            pairs(text),
            expected(&[("B", 4), ("D", 5), ("X", 0x8000_0000)])
        );
        assert_eq!(containers, [None, None, Some("E")]);
    }

    #[test]
    fn reads_rust_constants() {
        let text = "pub const A: u64 = 1 << 63;\nconst B: Code = Code(0x9110000300000016);\nconst fn f(x: *const u8) -> u8 { 3 }\nconst C = 1 << 2;\nconst D: [u8; 2] = [1, 2];\nconst E: u64 = A | 3u64;\nlet c = 'x'; let s = \"const X: u8 = 1;\";";
        assert_eq!(
            pairs(text),
            expected(&[
                ("A", 1 << 63),
                ("B", 0x9110_0003_0000_0016),
                ("C", 4),
                ("E", 1 << 63 | 3)
            ])
        );
    }

    #[test]
    fn ends_on_any_text() {
        for text in [
            "#define",
            "enum {",
            "enum E { A =",
            "const A: u64 =",
            "\"",
            "'",
            "/*",
            "#define A (",
            "const",
        ] {
            assert_eq!(pairs(text), []);
        }
        let deep = format!("#define A {}", "(".repeat(1 << 20));
        assert_eq!(pairs(&deep), []);
    }
}
