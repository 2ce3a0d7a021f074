//! Names and texts in C's form.

/// Longest line of a comment, in characters.
const WIDTH: usize = 110;

/// `SeptEntry` as `tdx_sept_entry`, `EptLeaf1G` as `tdx_ept_leaf_1g`, `TdxFeatures0` as `tdx_features0`.
pub(super) fn snake(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (i, c) in letters.iter().enumerate() {
        let before = i.checked_sub(1).map(|i| letters[i]);
        let after = letters.get(i + 1);
        let lower_after = after.is_some_and(char::is_ascii_lowercase);
        let begins = match before {
            None => false,
            Some(before) if c.is_ascii_uppercase() => {
                before.is_ascii_lowercase() || lower_after && !before.is_ascii_uppercase()
            }
            Some(before) => {
                c.is_ascii_digit()
                    && before.is_ascii_lowercase()
                    && after.is_some_and(char::is_ascii_uppercase)
            }
        };
        if begins {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    if out.starts_with("tdx_") {
        out
    } else {
        format!("tdx_{out}")
    }
}

/// The name of a member; keywords of C and C++ get a `_`.
pub(super) fn member(name: &str) -> String {
    const KEYWORDS: [&str; 20] = [
        "auto", "bool", "break", "case", "class", "const", "default", "delete", "export", "import",
        "new", "operator", "private", "public", "register", "signed", "static", "this", "union",
        "unsigned",
    ];
    if KEYWORDS.contains(&name) {
        format!("{name}_")
    } else {
        name.to_owned()
    }
}

/// A text in lines that fit a comment.
pub(super) fn wrapped(text: &str) -> Vec<String> {
    let text = text.replace("*/", "* /").replace("/*", "/ *");
    crate::emit::wrapped(&text, WIDTH, |_| false)
}

/// The smallest unsigned integer with at least this many bits.
pub(super) const fn carrier(bits: u32) -> &'static str {
    match bits {
        0..=8 => "uint8_t",
        9..=16 => "uint16_t",
        17..=32 => "uint32_t",
        _ => "uint64_t",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_names() {
        for (name, words) in [
            ("SeptEntry", "tdx_sept_entry"),
            ("EptLeaf1G", "tdx_ept_leaf_1g"),
            ("L2SeptEntry", "tdx_l2_sept_entry"),
            ("TdxFeatures0", "tdx_features0"),
            ("TdInfoV2", "tdx_td_info_v2"),
            ("Sha384Digest", "tdx_sha384_digest"),
        ] {
            assert_eq!(snake(name), words);
        }
        assert_eq!(
            crate::emit::constant_name("TDH.MEM.PAGE.ADD"),
            "TDH_MEM_PAGE_ADD"
        );
        assert_eq!(member("export"), "export_");
    }

    #[test]
    fn a_comment_ends_where_it_should() {
        assert_eq!(wrapped("a */ b"), ["a * / b"]);
    }
}
