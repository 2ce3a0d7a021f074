//! One line of a trace.

use super::Access;
use super::Event;

/// Granularity of every address and length.
pub(super) const PAGE: u64 = 4096;
/// Addresses stay below the lowest SHARED bit.
const MAX_GPA: u64 = 1 << 47;
/// vCPU numbers stay below what any module takes.
const MAX_VCPU: u32 = 4096;

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The line is too long for any event.
    #[error("too long")]
    TooLong,
    /// The line is not UTF-8.
    #[error("not text")]
    NotText,
    /// The first word names no event.
    #[error("unknown event {0:?}, expected T, C, D, M or #")]
    UnknownEvent(String),
    /// A word is missing at the end.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// There are more words than the event has.
    #[error("unexpected {0:?} at the end")]
    Surplus(String),
    /// A word is not what it should be.
    #[error("{what} is {found:?}, expected {expected}")]
    Bad {
        /// Which word.
        what: &'static str,
        /// What stands there.
        found: String,
        /// What could stand there.
        expected: &'static str,
    },
    /// A range is empty, unaligned, or ends too high.
    #[error("{gpa:#x} + {len:#x} is not a range of 4 KiB pages below {end:#x}")]
    Range {
        /// First byte.
        gpa: u64,
        /// Size in bytes.
        len: u64,
        /// First address behind the guest's memory.
        end: u64,
    },
}

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'t> {
    Nothing,
    Header {
        name: Option<String>,
        ram: Option<u64>,
    },
    Marker(&'t str),
    Event(Event),
}

/// Parses a line; `ram` is the size of the guest's memory if it is known already.
pub(super) fn parse(text: &str, ram: Option<u64>) -> Result<Line<'_>, LineError> {
    let mut words = Words(text.split_ascii_whitespace());
    let end = ram.unwrap_or(MAX_GPA);
    let event = match words.0.next() {
        None => return Ok(Line::Nothing),
        Some("#") => return header(text),
        Some(word) if word.starts_with('#') => return Ok(Line::Nothing),
        Some("M") => return Ok(Line::Marker(marker(text))),
        Some("T") => touch(&mut words, end)?,
        Some("C") => {
            let (gpa, len) = range(&mut words, end)?;
            Event::Convert { gpa, len }
        }
        Some("D") => {
            let (gpa, len) = range(&mut words, end)?;
            Event::Discard { gpa, len }
        }
        Some(word) => return Err(LineError::UnknownEvent(shortened(word))),
    };
    match words.0.next() {
        None => Ok(Line::Event(event)),
        Some(word) => Err(LineError::Surplus(shortened(word))),
    }
}

/// `# gpatrace v1 name=.. ram=0x..`; other comments say nothing.
fn header(text: &str) -> Result<Line<'_>, LineError> {
    let mut words = text.split_ascii_whitespace().skip(1);
    if words.next() != Some("gpatrace") {
        return Ok(Line::Nothing);
    }
    let bad = |what, found: &str, expected| LineError::Bad {
        what,
        found: shortened(found),
        expected,
    };
    match words.next() {
        Some("v1") => {}
        version => return Err(bad("version", version.unwrap_or(""), "v1")),
    }
    let (mut name, mut ram) = (None, None);
    for word in words {
        if let Some(value) = word.strip_prefix("name=") {
            name = Some(value.to_owned());
        } else if let Some(value) = word.strip_prefix("ram=") {
            let size = value
                .strip_prefix("0x")
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .filter(|size| *size > 0 && size.is_multiple_of(PAGE) && *size <= MAX_GPA);
            ram = Some(
                size.ok_or_else(|| bad("ram", value, "0x and a hexadecimal multiple of 4096"))?,
            );
        }
    }
    Ok(Line::Header { name, ram })
}

/// The text behind the time.
fn marker(text: &str) -> &str {
    let rest = text.trim_start().trim_start_matches('M').trim_start();
    rest.split_once(' ').map_or("", |(_time, text)| text)
}

fn touch(words: &mut Words<'_>, end: u64) -> Result<Event, LineError> {
    words.number("time", 10)?;
    let gpa = words.number("address", 16)?;
    check_range(gpa, PAGE, end)?;
    let access = match words.next("access")? {
        "r" => Access::Read,
        "w" => Access::Write,
        "x" => Access::Execute,
        found => return Err(bad("access", found, "r, w or x")),
    };
    let shared = match words.next("p or s")? {
        "p" => false,
        "s" => true,
        found => return Err(bad("kind", found, "p or s")),
    };
    let word = words.next("vCPU")?;
    let vcpu = word
        .strip_prefix('v')
        .and_then(|digits| digits.parse().ok())
        .filter(|number| *number < MAX_VCPU)
        .ok_or_else(|| bad("vCPU", word, "v and a number below 4096"))?;
    let word = words.next("accesses seen")?;
    let fits = |(found, letter)| found == letter || found == b'-';
    if word.len() != 3 || !word.bytes().zip(*b"rwx").all(fits) {
        return Err(bad(
            "accesses seen",
            word,
            "rwx with - for what was not seen",
        ));
    }
    Ok(Event::Touch {
        gpa,
        access,
        shared,
        vcpu,
    })
}

fn range(words: &mut Words<'_>, end: u64) -> Result<(u64, u64), LineError> {
    words.number("time", 10)?;
    let gpa = words.number("address", 16)?;
    let len = words.number("length", 16)?;
    check_range(gpa, len, end)?;
    Ok((gpa, len))
}

fn check_range(gpa: u64, len: u64, end: u64) -> Result<(), LineError> {
    let fits = gpa.checked_add(len).is_some_and(|stop| stop <= end);
    if len == 0 || !gpa.is_multiple_of(PAGE) || !len.is_multiple_of(PAGE) || !fits {
        return Err(LineError::Range { gpa, len, end });
    }
    Ok(())
}

struct Words<'t>(core::str::SplitAsciiWhitespace<'t>);

impl<'t> Words<'t> {
    fn next(&mut self, what: &'static str) -> Result<&'t str, LineError> {
        self.0.next().ok_or(LineError::Missing(what))
    }

    fn number(&mut self, what: &'static str, radix: u32) -> Result<u64, LineError> {
        let word = self.next(what)?;
        let expected = if radix == 16 {
            "hexadecimal digits"
        } else {
            "decimal digits"
        };
        u64::from_str_radix(word, radix).map_err(|_| bad(what, word, expected))
    }
}

fn bad(what: &'static str, found: &str, expected: &'static str) -> LineError {
    LineError::Bad {
        what,
        found: shortened(found),
        expected,
    }
}

/// At most 40 characters of a word, for messages.
fn shortened(word: &str) -> String {
    word.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Event {
        match parse(text, Some(0x4000_0000)).unwrap() {
            Line::Event(event) => event,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn events() {
        let touch = Event::Touch {
            gpa: 0x80_b000,
            access: Access::Write,
            shared: false,
            vcpu: 1,
        };
        assert_eq!(event("T 43 80b000 w p v1 rw-"), touch);
        let convert = Event::Convert {
            gpa: 0x37f6_d000,
            len: 0x400_0000,
        };
        assert_eq!(event("C 15485 37f6d000 4000000"), convert);
        assert_eq!(
            event("D 1 0 1000"),
            Event::Discard {
                gpa: 0,
                len: 0x1000
            }
        );
        assert_eq!(
            parse("M 7 PHASE end of it", None),
            Ok(Line::Marker("PHASE end of it"))
        );
        assert_eq!(parse("", None), Ok(Line::Nothing));
        assert_eq!(parse("# a comment", None), Ok(Line::Nothing));
        let header = Line::Header {
            name: Some("x".into()),
            ram: Some(0x1000),
        };
        assert_eq!(
            parse("# gpatrace v1 name=x ram=0x1000 page=4096 (QEMU)", None),
            Ok(header)
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            ("X 1", "unknown event \"X\", expected T, C, D, M or #"),
            ("T", "time is missing"),
            ("T x 0 w p v0 rwx", "time is \"x\", expected decimal digits"),
            (
                "T 1 zz w p v0 rwx",
                "address is \"zz\", expected hexadecimal digits",
            ),
            (
                "T 1 1 w p v0 rwx",
                "0x1 + 0x1000 is not a range of 4 KiB pages below 0x40000000",
            ),
            (
                "T 1 40000000 w p v0 rwx",
                "0x40000000 + 0x1000 is not a range of 4 KiB pages below 0x40000000",
            ),
            ("T 1 0 q p v0 rwx", "access is \"q\", expected r, w or x"),
            ("T 1 0 w q v0 rwx", "kind is \"q\", expected p or s"),
            (
                "T 1 0 w p 0 rwx",
                "vCPU is \"0\", expected v and a number below 4096",
            ),
            (
                "T 1 0 w p v4096 rwx",
                "vCPU is \"v4096\", expected v and a number below 4096",
            ),
            (
                "T 1 0 w p v0 wrx",
                "accesses seen is \"wrx\", expected rwx with - for what was not seen",
            ),
            ("T 1 0 w p v0", "accesses seen is missing"),
            ("T 1 0 w p v0 rwx more", "unexpected \"more\" at the end"),
            ("C 1 0", "length is missing"),
            (
                "D 1 0 0",
                "0x0 + 0x0 is not a range of 4 KiB pages below 0x40000000",
            ),
            (
                "C 1 fffffffffffff000 2000",
                "0xfffffffffffff000 + 0x2000 is not a range of 4 KiB pages below 0x40000000",
            ),
            ("# gpatrace v2", "version is \"v2\", expected v1"),
            (
                "# gpatrace v1 ram=1",
                "ram is \"1\", expected 0x and a hexadecimal multiple of 4096",
            ),
        ] {
            assert_eq!(
                parse(text, Some(0x4000_0000)).unwrap_err().to_string(),
                message,
                "{text}"
            );
        }
    }
}
