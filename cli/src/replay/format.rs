//! The recordings' format: JSON lines, of which each is a header, the start of a sequence or a step.

use std::io::BufRead;

use serde_json::Map;
use serde_json::Value;
use tdx_abi::Level;
use tdx_abi::Registers;
use tdx_emulator::PlatformConfig;
use tdx_emulator::Range;
use tdx_emulator::TdLock;

/// What is wrong with a recording.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct FormatError {
    line: usize,
    what: String,
}

impl FormatError {
    pub(super) fn new(line: usize, what: impl Into<String>) -> Self {
        Self {
            line,
            what: what.into(),
        }
    }

    pub(super) fn unknown_setup(line: usize, name: &str) -> Self {
        Self::new(
            line,
            format!("no setup is named `{name}`; give the file with --setups"),
        )
    }
}

/// Names of the registers in the order of their poison.
pub(crate) const REGISTERS: [&str; 15] = [
    "rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];
/// What a register holds that a step does not give, with the register's position in the low half.
const POISON: u64 = 0xa5a5_a5a5_0000_0000;

/// The registers by position.
pub(crate) fn register(registers: &mut Registers, position: usize) -> &mut u64 {
    match position {
        0 => &mut registers.rax,
        1 => &mut registers.rcx,
        2 => &mut registers.rdx,
        3 => &mut registers.rbx,
        4 => &mut registers.rbp,
        5 => &mut registers.rsi,
        6 => &mut registers.rdi,
        7 => &mut registers.r8,
        8 => &mut registers.r9,
        9 => &mut registers.r10,
        10 => &mut registers.r11,
        11 => &mut registers.r12,
        12 => &mut registers.r13,
        13 => &mut registers.r14,
        _ => &mut registers.r15,
    }
}

/// A TDMR of the recorded platform.
#[derive(Clone, Debug)]
pub(crate) struct Tdmr {
    pub range: Range,
    pub reserved: Vec<Range>,
}

/// A file of recorded sequences.
#[derive(Debug)]
pub(crate) struct Recording {
    pub config: PlatformConfig,
    pub tdmrs: Vec<Tdmr>,
    pub global_key_id: u16,
    /// Whether sequences without a base start from a module that was only loaded.
    pub only_loaded: bool,
    pub sequences: Vec<Sequence>,
}

/// A sequence or a setup.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub line: usize,
    pub name: String,
    pub base: Option<String>,
    pub is_setup: bool,
    pub steps: Vec<Step>,
}

/// One line of a sequence.
#[derive(Debug)]
pub(crate) struct Step {
    pub line: usize,
    pub action: Action,
}

/// Where the LP is after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// With the caller; or with the other side where the call does not name one.
    Caller,
    /// In the TD.
    Td,
    /// In the VMM.
    Vmm,
    /// Before the same instruction of the TD again.
    Again,
    /// Nowhere: the LP was not in a TD, or the module shut down. Never recorded.
    Nowhere,
}

/// What a step does.
#[derive(Debug)]
pub(crate) enum Action {
    Seamcall(CallStep),
    Tdcall(CallStep),
    Exit(CallStep, ExitStep),
    Write {
        address: u64,
        bytes: Vec<u8>,
    },
    Pattern {
        address: u64,
        seed: u64,
    },
    Fill {
        address: u64,
        byte: u8,
        count: u64,
    },
    CheckMemory {
        address: u64,
        bytes: Vec<u8>,
    },
    Msr {
        number: u32,
        lp: usize,
        value: u64,
    },
    SetLock {
        lock: Lock,
        value: u16,
    },
    CheckLock {
        lock: Lock,
        value: u16,
    },
    ChangeEntry {
        entry: EntryPlace,
        set: u64,
        clear: u64,
    },
    CheckEntry {
        entry: EntryPlace,
        lock: bool,
        host_priority: bool,
    },
}

/// A call with the registers before and after it.
#[derive(Debug)]
pub(crate) struct CallStep {
    pub name: String,
    pub lp: usize,
    pub before: Registers,
    /// What is recorded of the registers afterwards; the others keep their value.
    pub after: Vec<(usize, u64)>,
    pub to: To,
}

/// A VM exit of the guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExitStep {
    pub reason: u32,
    pub qualification: u64,
    pub interruption_info: u32,
    pub gpa: u64,
    pub instruction_length: u32,
    pub keeps_rip: bool,
}

/// A lock word.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lock {
    Pamt { hpa: u64, level: Level },
    Td { tdr: u64, lock: TdLock },
    Kot,
    Global,
    WriteBack { package: usize },
}

/// A Secure-EPT entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryPlace {
    pub tdr: Option<u64>,
    pub gpa: u64,
    pub level: Level,
}

impl Recording {
    /// Reads a recording.
    pub(crate) fn read(reader: impl BufRead) -> Result<Self, FormatError> {
        let mut lines = (1..).zip(reader.lines());
        let (line, first) = lines
            .next()
            .ok_or_else(|| FormatError::new(1, "the file is empty"))?;
        let first = first.map_err(|error| FormatError::new(line, error.to_string()))?;
        let mut recording = Self::header(&Line::parse(line, &first)?)?;
        for (line, text) in lines {
            let text = text.map_err(|error| FormatError::new(line, error.to_string()))?;
            if !text.trim().is_empty() {
                recording.take(&Line::parse(line, &text)?)?;
            }
        }
        Ok(recording)
    }

    /// Whether a sequence refers to a setup that is not in this file.
    pub(crate) fn needs_setups(&self) -> bool {
        self.sequences
            .iter()
            .filter_map(|sequence| sequence.base.as_ref())
            .any(|base| {
                !self
                    .sequences
                    .iter()
                    .any(|other| other.is_setup && other.name == *base)
            })
    }

    fn header(line: &Line) -> Result<Self, FormatError> {
        let text = line.text("header").map_err(|_| {
            line.error("expected a header (`{\"header\":..,\"platform\":{..}}`) in the first line")
        })?;
        let platform = line.object("platform")?;
        let private = platform
            .pair("private_key_ids")
            .or_else(|_| platform.pair("private_hkids"))?;
        let lps = platform.number("lps")?;
        let packages = platform.number("pkgs")?;
        let max_pa = platform.number("maxpa")? as u32;
        let key_id_shift = platform.number("hkid_start_bit")? as u32;
        let cmrs = platform.ranges("cmrs")?;
        let seamrr = platform.pair("seamrr")?;
        let mut tdmrs = Vec::new();
        for tdmr in platform.list("tdmrs")? {
            let tdmr = platform.within(tdmr)?;
            tdmrs.push(Tdmr {
                range: Range {
                    base: tdmr.number("base")?,
                    size: tdmr.number("size")?,
                },
                reserved: tdmr.ranges("rsvd")?,
            });
        }
        let legal = (36..=52).contains(&max_pa)
            && key_id_shift < max_pa
            && max_pa - key_id_shift <= 11
            && (1..=8).contains(&packages)
            && (1..=256).contains(&lps)
            && lps % packages == 0;
        if !legal {
            return Err(line.error("the platform's numbers make no platform"));
        }
        Ok(Self {
            config: PlatformConfig {
                max_pa,
                key_id_bits: max_pa - key_id_shift,
                first_private_key_id: private.0 as u16,
                packages: packages as u32,
                lps_per_package: (lps / packages) as u32,
                cmrs,
                seamrr: Range {
                    base: seamrr.0,
                    size: seamrr.1,
                },
                ..PlatformConfig::default()
            },
            tdmrs,
            global_key_id: platform.number("global_hkid")? as u16,
            only_loaded: text.contains("just loaded"),
            sequences: Vec::new(),
        })
    }

    fn take(&mut self, line: &Line) -> Result<(), FormatError> {
        for (key, is_setup) in [("seq", false), ("setup", true)] {
            if line.has(key) {
                self.sequences.push(Sequence {
                    line: line.number,
                    name: line.text(key)?.to_owned(),
                    base: line
                        .has("base")
                        .then(|| line.text("base"))
                        .transpose()?
                        .map(str::to_owned),
                    is_setup,
                    steps: Vec::new(),
                });
                return Ok(());
            }
        }
        let step = Step {
            line: line.number,
            action: action(line)?,
        };
        match self.sequences.last_mut() {
            Some(sequence) => sequence.steps.push(step),
            None => return Err(line.error("a step before the first sequence")),
        }
        Ok(())
    }
}

fn action(line: &Line) -> Result<Action, FormatError> {
    if line.has("fn") {
        return call(line);
    }
    if line.has("mem") {
        return Ok(Action::Write {
            address: line.number("mem")?,
            bytes: line.bytes("hex")?,
        });
    }
    if line.has("memcheck") {
        let address = line.number("memcheck")?;
        return Ok(Action::CheckMemory {
            address,
            bytes: line.bytes("hex")?,
        });
    }
    if line.has("pattern") {
        let address = line.number("pattern")?;
        return Ok(Action::Pattern {
            address,
            seed: line.number("seed")?,
        });
    }
    if line.has("fill") {
        return Ok(Action::Fill {
            address: line.number("fill")?,
            byte: line.number("byte")? as u8,
            count: line.number("len")?,
        });
    }
    if line.has("msr") {
        return Ok(Action::Msr {
            number: line.number("msr")? as u32,
            lp: line.number("lp")? as usize,
            value: line.number("value")?,
        });
    }
    if line.has("lock") {
        let place = line.object("lock")?;
        return Ok(Action::SetLock {
            lock: lock(&place)?,
            value: place.number("value")? as u16,
        });
    }
    if line.has("lockcheck") {
        let place = line.object("lockcheck")?;
        return Ok(Action::CheckLock {
            lock: lock(&place)?,
            value: line.number("value")? as u16,
        });
    }
    if line.has("septe") {
        let place = line.object("septe")?;
        return Ok(Action::ChangeEntry {
            entry: entry(&place)?,
            set: place.bits("set")?,
            clear: place.bits("clear")?,
        });
    }
    if line.has("septecheck") {
        let place = line.object("septecheck")?;
        return Ok(Action::CheckEntry {
            entry: entry(&place)?,
            lock: place.number("lock")? != 0,
            host_priority: place.number("hp")? != 0,
        });
    }
    Err(line.error("neither a sequence nor a known step"))
}

fn call(line: &Line) -> Result<Action, FormatError> {
    let name = line.text("fn")?.to_owned();
    let inputs = line.object("in")?;
    let outputs = line.object("out")?;
    let mut before = Registers::default();
    let mut after = Vec::new();
    for (position, register_name) in REGISTERS.into_iter().enumerate() {
        let given = if inputs.has(register_name) {
            inputs.number(register_name)?
        } else {
            POISON | position as u64
        };
        *register(&mut before, position) = given;
        if outputs.has(register_name) {
            after.push((position, outputs.number(register_name)?));
        }
    }
    let to = match line.has("to").then(|| line.text("to")).transpose()? {
        Some("td") => To::Td,
        Some("vmm") => To::Vmm,
        Some(other) => return Err(line.error(format!("`to` is `td` or `vmm`, not `{other}`"))),
        None if line.has("rip") => To::Again,
        None => To::Caller,
    };
    let lp = line.number("lp")? as usize;
    let step = CallStep {
        name,
        lp,
        before,
        after,
        to,
    };
    Ok(if step.name == "EXIT" {
        let optional = |key| {
            if inputs.has(key) {
                inputs.number(key)
            } else {
                Ok(0)
            }
        };
        let exit = ExitStep {
            reason: inputs.number("reason")? as u32,
            qualification: optional("qual")?,
            interruption_info: optional("intr")? as u32,
            gpa: optional("gpa")?,
            instruction_length: optional("ilen")? as u32,
            keeps_rip: optional("norip")? != 0,
        };
        Action::Exit(step, exit)
    } else if step.name.starts_with("TDG.") {
        Action::Tdcall(step)
    } else {
        Action::Seamcall(step)
    })
}

fn lock(place: &Line) -> Result<Lock, FormatError> {
    let td = |lock| {
        Ok(Lock::Td {
            tdr: place.number("tdr")?,
            lock,
        })
    };
    match place.text("what")? {
        "pamt" => Ok(Lock::Pamt {
            hpa: place.number("pa")?,
            level: place.level()?,
        }),
        "op_state_lock" => td(TdLock::OpState),
        "sept_lock" => td(TdLock::SeptTree),
        "epoch_lock" => td(TdLock::Epoch),
        "rtmr_lock" => td(TdLock::Rtmr),
        "servtd_lock" => td(TdLock::ServiceTdBindings),
        "mig_lock" => td(TdLock::Migration),
        "kot" => Ok(Lock::Kot),
        "global" => Ok(Lock::Global),
        "wbt" => Ok(Lock::WriteBack {
            package: place.number("pkg")? as usize,
        }),
        other => Err(place.error(format!("no lock is called `{other}`"))),
    }
}

fn entry(place: &Line) -> Result<EntryPlace, FormatError> {
    Ok(EntryPlace {
        tdr: place.has("tdr").then(|| place.number("tdr")).transpose()?,
        gpa: place.number("gpa")?,
        level: place.level()?,
    })
}

/// A JSON object and the line it stands in.
struct Line {
    number: usize,
    object: Map<String, Value>,
}

impl Line {
    fn parse(number: usize, text: &str) -> Result<Self, FormatError> {
        match serde_json::from_str(text) {
            Ok(Value::Object(object)) => Ok(Self { number, object }),
            Ok(_) => Err(FormatError::new(number, "expected a JSON object")),
            Err(error) => Err(FormatError::new(number, error.to_string())),
        }
    }

    fn error(&self, what: impl Into<String>) -> FormatError {
        FormatError::new(self.number, what)
    }

    fn has(&self, key: &str) -> bool {
        self.object.contains_key(key)
    }

    fn value(&self, key: &str) -> Result<&Value, FormatError> {
        self.object
            .get(key)
            .ok_or_else(|| self.error(format!("`{key}` is missing")))
    }

    fn text(&self, key: &str) -> Result<&str, FormatError> {
        self.value(key)?
            .as_str()
            .ok_or_else(|| self.error(format!("`{key}` is not a string")))
    }

    fn number(&self, key: &str) -> Result<u64, FormatError> {
        let value = self.value(key)?;
        parse_number(value).ok_or_else(|| self.error(format!("`{key}` is not a number: {value}")))
    }

    fn list(&self, key: &str) -> Result<&[Value], FormatError> {
        let list = self.value(key)?.as_array();
        list.map(Vec::as_slice)
            .ok_or_else(|| self.error(format!("`{key}` is not a list")))
    }

    fn within(&self, value: &Value) -> Result<Self, FormatError> {
        let object = value
            .as_object()
            .ok_or_else(|| self.error("expected an object"))?;
        Ok(Self {
            number: self.number,
            object: object.clone(),
        })
    }

    fn object(&self, key: &str) -> Result<Self, FormatError> {
        self.within(self.value(key)?)
            .map_err(|_| self.error(format!("`{key}` is not an object")))
    }

    fn pair(&self, key: &str) -> Result<(u64, u64), FormatError> {
        self.pair_of(self.list(key)?)
    }

    fn pair_of(&self, list: &[Value]) -> Result<(u64, u64), FormatError> {
        match list {
            [first, second] => parse_number(first).zip(parse_number(second)),
            _ => None,
        }
        .ok_or_else(|| self.error("expected two numbers"))
    }

    fn ranges(&self, key: &str) -> Result<Vec<Range>, FormatError> {
        let list = self.list(key)?.iter();
        list.map(|value| {
            let (base, size) = self.pair_of(value.as_array().map_or(&[], Vec::as_slice))?;
            Ok(Range { base, size })
        })
        .collect()
    }

    fn bits(&self, key: &str) -> Result<u64, FormatError> {
        if !self.has(key) {
            return Ok(0);
        }
        self.list(key)?.iter().try_fold(0, |bits, value| {
            let bit = parse_number(value).filter(|&bit| bit < 64);
            Ok(bits | 1 << bit.ok_or_else(|| self.error(format!("`{key}` lists bits")))?)
        })
    }

    fn level(&self) -> Result<Level, FormatError> {
        u8::try_from(self.number("level")?)
            .ok()
            .and_then(Level::new)
            .ok_or_else(|| self.error("`level` is 0 to 4"))
    }

    fn bytes(&self, key: &str) -> Result<Vec<u8>, FormatError> {
        let text = self.text(key)?;
        let error = || self.error(format!("`{key}` is not a string of hexadecimal bytes"));
        if !text.len().is_multiple_of(2) || !text.is_ascii() {
            return Err(error());
        }
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| error()))
            .collect()
    }
}

/// A JSON number, or a string with a hexadecimal (`0x`) or decimal one.
fn parse_number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::Bool(bit) => Some((*bit).into()),
        Value::String(text) => match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        },
        _ => None,
    }
}
