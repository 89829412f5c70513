//! `observer caps`

use std::{
    fmt::Write as _,
    io::{self, Write},
    process::ExitCode,
};

use serde::Serialize;

use super::{Global, UsageError};
use crate::{
    model::{CAPABILITIES, CapSet, Capability, KNOWN_UP_TO, Severity},
    render::{Cell, Column, Surface, Table},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A hexadecimal mask (00000000a80425fb, 0x3000), names (NET_ADMIN, cap_chown) or ALL; commas may join them
    #[arg(value_name = "MASK|NAME")]
    words: Vec<String>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args, _global: &Global) -> anyhow::Result<ExitCode> {
    let asked = Asked::of(&args.words)?;
    let stdout = io::stdout();
    let surface = Surface::of(&stdout);
    let mut out = stdout.lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &Report::of(asked.set()))?;
        writeln!(out)?;
    } else {
        let text = match asked {
            Asked::List => list(surface),
            Asked::Decode(set) => decoded(set, surface),
            Asked::Encode(set) => format!("{set}\n"),
        };
        out.write_all(text.as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What the words of the command line come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// Nothing was named: all capabilities there are.
    List,
    /// There was a mask among the words: what is in it?
    Decode(CapSet),
    /// Names only: what is their mask?
    Encode(CapSet),
}

impl Asked {
    fn of(words: &[String]) -> Result<Asked, UsageError> {
        let mut set = CapSet::EMPTY;
        let mut masks = false;
        for (i, argument) in words.iter().enumerate() {
            // An argument without any word in it is a mistake of a script, and no wish for a list.
            let mut parts = argument.split(|c: char| c == ',' || c.is_whitespace()).filter(|w| !w.is_empty());
            let first = parts.next().unwrap_or_default();
            for word in std::iter::once(first).chain(parts) {
                let meant: CapSet =
                    word.parse().map_err(|error| UsageError(format!("argument {}: {error}", i + 1)))?;
                set = set | meant;
                masks |= CapSet::from_mask(word).is_ok();
            }
        }
        Ok(match (words.is_empty(), masks) {
            (true, _) => Asked::List,
            (false, true) => Asked::Decode(set),
            (false, false) => Asked::Encode(set),
        })
    }

    fn set(self) -> CapSet {
        match self {
            Asked::List => CapSet::ALL,
            Asked::Decode(set) | Asked::Encode(set) => set,
        }
    }
}

const NUMBER: Column = Column::right("NR");
const NAME: Column = Column::left("NAME");
const ALLOWS: Column = Column::left("ALLOWS TO").wrap();

/// Every capability, and whether docker gives it.
fn list(surface: Surface) -> String {
    let mut table = Table::new([NUMBER, NAME, Column::left("DOCKER"), ALLOWS]);
    for it in &CAPABILITIES {
        table.row([number(it.number), it.name.into(), default_or(it, ""), it.allows.into()]);
    }
    table.render(surface)
}

/// What is in a set, and a comparison with docker's default below.
fn decoded(set: CapSet, surface: Surface) -> String {
    let mut text = match set.len() {
        0 => format!("{set}: no capability\n"),
        1 => format!("{set}: 1 capability\n\n"),
        n => format!("{set}: {n} capabilities\n\n"),
    };
    let mut table = Table::new([NUMBER, NAME, Column::left("DOCKER"), ALLOWS]);
    for it in set.iter() {
        table.row([number(it.number), it.name.into(), default_or(it, "beyond"), it.allows.into()]);
    }
    for bit in set.unknown_bits() {
        let unknown = format!("bit {bit}: no capability of kernels up to {KNOWN_UP_TO}");
        table.row([
            number(bit),
            "".into(),
            Cell::severity("beyond", Severity::Notice),
            Cell::severity(unknown, Severity::Warning),
        ]);
    }
    if !table.is_empty() {
        text.push_str(&table.render(surface));
    }
    text.push('\n');
    text.push_str(&comparison(set));
    text
}

fn number(number: u8) -> Cell {
    number.to_string().into()
}

fn default_or(capability: &Capability, otherwise: &str) -> Cell {
    if CapSet::DOCKER_DEFAULT.contains(capability.number) {
        "default".into()
    } else {
        Cell::severity(otherwise, Severity::Notice)
    }
}

/// How a set differs from docker's default, in one line or two.
fn comparison(set: CapSet) -> String {
    let (beyond, missing) = (set.beyond_default(), set.missing_from_default());
    if beyond.is_empty() && missing.is_empty() {
        return "This is docker's default exactly.\n".into();
    }
    let mut text = String::new();
    for (what, difference) in [("Beyond", beyond), ("Missing from", missing)] {
        let names = match difference {
            none if none.is_empty() => "nothing".into(),
            CapSet::DOCKER_DEFAULT => "all of it".into(),
            some => some.names().join(", "),
        };
        let _ = writeln!(text, "{what} docker's default: {names}");
    }
    text
}

/// The same as JSON. Names have their `CAP_`, as in the kernel's header.
#[derive(Serialize)]
struct Report {
    mask: CapSet,
    capabilities: Vec<Decoded>,
    /// Numbers of bits for which no capability is known.
    unknown_bits: Vec<u8>,
    beyond_docker_default: Vec<&'static str>,
    missing_from_docker_default: Vec<&'static str>,
}

#[derive(Serialize)]
struct Decoded {
    number: u8,
    name: &'static str,
    docker_default: bool,
    allows: &'static str,
}

impl Report {
    fn of(set: CapSet) -> Report {
        let names = |set: CapSet| set.iter().map(|it| it.name).collect();
        let decoded = |it: &Capability| Decoded {
            number: it.number,
            name: it.name,
            docker_default: CapSet::DOCKER_DEFAULT.contains(it.number),
            allows: it.allows,
        };
        Report {
            mask: set,
            capabilities: set.iter().map(decoded).collect(),
            unknown_bits: set.unknown_bits().collect(),
            beyond_docker_default: names(set.beyond_default()),
            missing_from_docker_default: names(set.missing_from_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> Result<Asked, UsageError> {
        Asked::of(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn masks_are_decoded_and_names_encoded() {
        let net_admin_and_chown = CapSet(0x1001);
        for (words, expected) in [
            (&[][..], Asked::List),
            (&["00000000a80425fb"], Asked::Decode(CapSet::DOCKER_DEFAULT)),
            (&["NET_ADMIN,chown"], Asked::Encode(net_admin_and_chown)),
            (&["cap_net_admin", "CAP_CHOWN", "chown"], Asked::Encode(net_admin_and_chown)),
            (&[" NET_ADMIN, CHOWN,"], Asked::Encode(net_admin_and_chown)),
            (&["0x1000", "CHOWN"], Asked::Decode(net_admin_and_chown)),
            (&["ALL"], Asked::Encode(CapSet::ALL)),
            (&["FED"], Asked::Decode(CapSet(0xfed))),
            (&["0"], Asked::Decode(CapSet::EMPTY)),
        ] {
            assert_eq!(asked(words).expect("good words"), expected, "{words:?}");
        }
        for words in [&[""][..], &[","], &["chown", ""], &["chown", "NET_ADMN"], &["11112222333344445"]] {
            assert!(asked(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn a_set_is_explained_line_by_line() {
        assert_eq!(
            decoded(CapSet(1 << 63 | 1 << 21 | 1), Surface::PLAIN),
            "8000000000200001: 3 capabilities\n\
             \n\
             NR  NAME           DOCKER   ALLOWS TO\n\
             \u{20}0  CAP_CHOWN      default  give any file to any user or group\n\
             21  CAP_SYS_ADMIN  beyond   most of what root may: mount, join and make namespaces, quotas, swap, \
             BPF, and much more\n\
             63  -              beyond   bit 63: no capability of kernels up to Linux 6.18\n\
             \n\
             Beyond docker's default: SYS_ADMIN, bit 63\n\
             Missing from docker's default: DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, \
             NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP\n"
        );
        assert_eq!(
            decoded(CapSet::EMPTY, Surface::PLAIN),
            "0000000000000000: no capability\n\n\
             Beyond docker's default: nothing\nMissing from docker's default: all of it\n"
        );
        let default = decoded(CapSet::DOCKER_DEFAULT, Surface::PLAIN);
        assert!(default.ends_with("\n\nThis is docker's default exactly.\n") && !default.contains("beyond"));
        assert_eq!(list(Surface::PLAIN).lines().count(), 1 + CAPABILITIES.len());
    }

    #[test]
    fn json_says_the_same() {
        let report = serde_json::to_value(Report::of(CapSet(1 << 63 | 1 << 21 | 1))).expect("JSON");
        assert_eq!(report["mask"], "8000000000200001");
        assert_eq!(report["unknown_bits"], serde_json::json!([63]));
        assert_eq!(report["beyond_docker_default"], serde_json::json!(["CAP_SYS_ADMIN"]));
        assert_eq!(report["missing_from_docker_default"].as_array().map(Vec::len), Some(13));
        assert_eq!(
            report["capabilities"][0],
            serde_json::json!({
                "number": 0, "name": "CAP_CHOWN", "docker_default": true,
                "allows": "give any file to any user or group",
            })
        );
    }
}
