//! Changes for people: on a terminal, and as text for a changelog.

use std::fmt::Write as _;
use std::io::Write;

use anstyle::AnsiColor;
use anstyle::Style;

use super::change::Change;
use super::change::Event;
use super::change::Level;
use crate::error::Error;
use crate::output::FAINT;
use crate::output::Output;
use crate::spec::facts::Kind;

/// Columns of a list of names.
const WIDTH: usize = 110;
/// From so many entities on with the same change, their names are a list.
const MANY: usize = 4;

/// Entities with the same change.
struct Group<'c> {
    first: &'c Change,
    /// What happened to each of them.
    what: String,
    members: Vec<&'c Change>,
}

fn groups(changes: &[Change], kind: Kind) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for change in changes.iter().filter(|change| change.kind == kind) {
        // Of what came, the number is told only where there are few.
        let what = match change.event {
            Event::Added => "added",
            Event::Removed => "removed",
            Event::Renamed | Event::Changed => &change.what,
        };
        let known = groups.iter_mut().find(|group| {
            group.what == what
                && (group.first.level, group.first.event) == (change.level, change.event)
                && group.first.modules == change.modules
        });
        match known {
            Some(group) => group.members.push(change),
            None => groups.push(Group {
                first: change,
                what: what.to_owned(),
                members: vec![change],
            }),
        }
    }
    groups.sort_by_key(|group| core::cmp::Reverse(group.first.level));
    groups
}

const fn style(level: Level) -> Style {
    match level {
        Level::Major => AnsiColor::Red.on_default().bold(),
        Level::Minor => AnsiColor::Yellow.on_default(),
        Level::Patch => FAINT,
    }
}

fn modules(change: &Change) -> String {
    if change.modules.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = change.modules.iter().map(String::as_str).collect();
    format!(" [{}]", names.join(" "))
}

/// Prints the changes by kind of entity, what breaks first.
pub(in crate::spec) fn print(changes: &[Change], output: &mut Output) -> Result<(), Error> {
    for (kind, _, heading) in Kind::ALL {
        let groups = groups(changes, kind);
        if groups.is_empty() {
            continue;
        }
        output.heading(heading)?;
        for group in groups {
            let Change { level, why, .. } = group.first;
            let (style, word) = (style(*level), level.word());
            let of = modules(group.first);
            if group.members.len() >= MANY {
                let count = group.members.len();
                writeln!(
                    output,
                    "  {style}{word}{style:#}  {count} {}{of}  {FAINT}{why}{FAINT:#}",
                    group.what
                )?;
                for line in lines(&group.members) {
                    writeln!(output, "         {line}")?;
                }
                continue;
            }
            for Change { entity, what, .. } in group.members {
                writeln!(
                    output,
                    "  {style}{word}{style:#}  {entity}  {what}{of}  {FAINT}{why}{FAINT:#}"
                )?;
            }
        }
    }
    Ok(())
}

/// The entities' names, as many to a line as fit.
fn lines(members: &[&Change]) -> Vec<String> {
    let mut lines = vec![String::new()];
    for (index, change) in members.iter().enumerate() {
        let comma = if index + 1 < members.len() { "," } else { "" };
        let is_full = |line: &String| line.len() + change.entity.len() + 2 > WIDTH;
        if lines
            .last()
            .is_none_or(|line| !line.is_empty() && is_full(line))
        {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&change.entity);
            line.push_str(comma);
        }
    }
    lines
}

/// Prints the section "ABI" of a changelog.
pub(super) fn changelog(changes: &[Change], output: &mut Output) -> Result<(), Error> {
    let level = changes.iter().map(|change| change.level).max();
    writeln!(output, "### ABI\n")?;
    let Some(level) = level else {
        return Ok(writeln!(output, "No change.")?);
    };
    writeln!(
        output,
        "Semantic versioning asks for a new {} version.",
        level.word()
    )?;
    for (kind, _, heading) in Kind::ALL {
        let groups = groups(changes, kind);
        if groups.is_empty() {
            continue;
        }
        writeln!(output, "\n{heading}:\n")?;
        for group in groups {
            let mut names = String::new();
            for (index, change) in group.members.iter().enumerate() {
                let comma = if index > 0 { ", " } else { "" };
                write!(names, "{comma}`{}`", change.entity).map_err(std::io::Error::other)?;
            }
            let what = match &group.members[..] {
                [only] => &only.what,
                _ => &group.what,
            };
            let of = modules(group.first);
            let Change { level, why, .. } = group.first;
            writeln!(output, "- {names}: {what}{of} ({}: {why})", level.word())?;
        }
    }
    Ok(())
}
