/// Up to five of `names` that are like `wanted`, the closest first; punctuation and case do not count.
pub(crate) fn closest<'n>(wanted: &str, names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let wanted = plain(wanted);
    let mut scored: Vec<(f64, &str)> = names
        .map(|name| {
            let plain = plain(name);
            let contained = wanted.len() >= 3 && plain.contains(&wanted);
            (
                strsim::jaro_winkler(&wanted, &plain) + if contained { 0.5 } else { 0.0 },
                name,
            )
        })
        .filter(|(score, _)| *score > 0.8)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.dedup_by_key(|(_, name)| *name);
    scored.truncate(5);
    scored.into_iter().map(|(_, name)| name).collect()
}

/// `name` without punctuation, in upper case.
pub(crate) fn plain(name: &str) -> String {
    name.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_uppercase())
        .collect()
}
