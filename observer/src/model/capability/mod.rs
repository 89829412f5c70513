//! Sets of capabilities, as /proc/PID/status shows them (capabilities(7)).

mod table;

use std::{
    borrow::Cow,
    fmt::{self, Display},
    ops::{BitAnd, BitOr, Not},
    str::FromStr,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use table::CAPABILITIES;

/// A capability of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its bit in a set.
    pub number: u8,
    /// As in the kernel's header, `CAP_NET_ADMIN`.
    pub name: &'static str,
    /// What it allows, in a few words that fit after "may".
    pub allows: &'static str,
}

impl Capability {
    /// By name, in upper or lower case, with or without `CAP_`.
    pub fn by_name(name: &str) -> Option<&'static Capability> {
        let short = without_prefix(name);
        CAPABILITIES.iter().find(|it| it.short().eq_ignore_ascii_case(short))
    }

    /// The name without `CAP_`, as docker and Kubernetes write it.
    pub fn short(&self) -> &'static str {
        without_prefix(self.name)
    }

    /// The capability of this number alone.
    pub fn set(&self) -> CapSet {
        CapSet::of(&[self.number])
    }
}

/// The name of the capability of this number; the number of one that is newer than the table.
pub fn capability_label(number: u32) -> String {
    let known = CAPABILITIES.iter().find(|capability| u32::from(capability.number) == number);
    known.map_or_else(|| number.to_string(), |capability| capability.name.to_owned())
}

fn without_prefix(name: &str) -> &str {
    match name.split_at_checked(PREFIX.len()) {
        Some((prefix, short)) if prefix.eq_ignore_ascii_case(PREFIX) => short,
        _ => name,
    }
}

const PREFIX: &str = "CAP_";

/// The newest kernel that was seen to have the capabilities of [`CAPABILITIES`] and no others
/// (/proc/sys/kernel/cap_last_cap).
pub const KNOWN_UP_TO: &str = "Linux 6.18";

/// What stands for every capability in the configuration of a runtime.
const ALL: &str = "ALL";

/// A set of capabilities: bit N stands for the capability of number N. Bits without a known capability are kept.
///
/// In JSON it is the 16 hexadecimal digits of /proc/PID/status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CapSet(pub u64);

impl CapSet {
    pub const EMPTY: CapSet = CapSet(0);

    /// Every capability known here.
    pub const ALL: CapSet = CapSet((1 << CAPABILITIES.len()) - 1);

    /// What docker and containerd's CRI give a container that asks for nothing
    /// (moby: daemon/pkg/oci/caps/defaults.go; containerd: pkg/oci/spec.go).
    pub const DOCKER_DEFAULT: CapSet = CapSet(0xa804_25fb);

    /// Those of these numbers; what a set has no room for is left out.
    pub const fn of(numbers: &[u8]) -> CapSet {
        let mut bits = 0;
        let mut i = 0;
        while i < numbers.len() {
            if numbers[i] < u64::BITS as u8 {
                bits |= 1 << numbers[i];
            }
            i += 1;
        }
        CapSet(bits)
    }

    pub fn contains(self, number: u8) -> bool {
        !(self & CapSet::of(&[number])).is_empty()
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many, unknown ones included.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The known capabilities in it, by number.
    pub fn iter(self) -> impl Iterator<Item = &'static Capability> {
        CAPABILITIES.iter().filter(move |it| self.contains(it.number))
    }

    /// The bits that stand for no known capability, in ascending order.
    pub fn unknown_bits(self) -> impl Iterator<Item = u8> {
        let unknown = self.without(CapSet::ALL);
        (0..u64::BITS as u8).filter(move |bit| unknown.contains(*bit))
    }

    /// Names as docker writes them (`NET_ADMIN`), and `bit 63` for what has no name.
    pub fn names(self) -> Vec<Cow<'static, str>> {
        let known = self.iter().map(|it| Cow::Borrowed(it.short()));
        known.chain(self.unknown_bits().map(|bit| Cow::Owned(format!("bit {bit}")))).collect()
    }

    /// What is here and not in the other.
    pub fn without(self, other: CapSet) -> CapSet {
        self & !other
    }

    /// What is here and not among docker's default.
    pub fn beyond_default(self) -> CapSet {
        self.without(CapSet::DOCKER_DEFAULT)
    }

    /// What is among docker's default and not here.
    pub fn missing_from_default(self) -> CapSet {
        CapSet::DOCKER_DEFAULT.without(self)
    }

    /// From at most 64 bits in hexadecimal digits, with or without `0x`.
    pub fn from_mask(text: &str) -> Result<CapSet, CapError> {
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
        // `from_str_radix` would take a sign as well.
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(CapError::unknown(text));
        }
        u64::from_str_radix(digits, 16).map(CapSet).map_err(|_| CapError::TooLong { word: bounded(text) })
    }
}

impl BitOr for CapSet {
    type Output = CapSet;

    fn bitor(self, other: CapSet) -> CapSet {
        CapSet(self.0 | other.0)
    }
}

impl BitAnd for CapSet {
    type Output = CapSet;

    fn bitand(self, other: CapSet) -> CapSet {
        CapSet(self.0 & other.0)
    }
}

impl Not for CapSet {
    type Output = CapSet;

    fn not(self) -> CapSet {
        CapSet(!self.0)
    }
}

/// The 16 digits of /proc/PID/status.
impl Display for CapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A name, `ALL`, or a mask. No name consists of hexadecimal digits only, so that no word is both.
impl FromStr for CapSet {
    type Err = CapError;

    fn from_str(word: &str) -> Result<CapSet, CapError> {
        if word.eq_ignore_ascii_case(ALL) || word.eq_ignore_ascii_case("CAP_ALL") {
            return Ok(CapSet::ALL);
        }
        Capability::by_name(word).map_or_else(|| CapSet::from_mask(word), |it| Ok(it.set()))
    }
}

/// Why a word is no set of capabilities.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapError {
    #[error(
        "`{word}` is neither a capability{} nor a mask of up to 16 hexadecimal digits",
        nearest.map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
    )]
    Unknown {
        word: String,
        /// The known name that looks most like it.
        nearest: Option<&'static str>,
    },
    #[error("`{word}` is no mask of capabilities: expected up to 16 hexadecimal digits (64 bits)")]
    TooLong { word: String },
}

impl CapError {
    fn unknown(word: &str) -> CapError {
        let word = bounded(word);
        let short = without_prefix(&word).to_ascii_uppercase();
        let likeness = |name: &'static str| (strsim::jaro_winkler(&short, name), name);
        let nearest = CAPABILITIES
            .iter()
            .map(|it| likeness(it.short()))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(likeness, _)| *likeness > ALIKE)
            .map(|(_, name)| name);
        CapError::Unknown { word, nearest }
    }
}

/// Names less alike than this are no help (Jaro-Winkler similarity, 0 to 1).
const ALIKE: f64 = 0.8;

/// A word as an error quotes it: no longer than any name of a capability could be.
fn bounded(word: &str) -> String {
    const LONGEST: usize = 40;
    let mut chars = word.chars();
    let mut text: String = chars.by_ref().take(LONGEST).collect();
    if chars.next().is_some() {
        text.push('…');
    }
    text
}

impl Serialize for CapSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CapSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<CapSet, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        CapSet::from_mask(&text).map_err(de::Error::custom)
    }
}

impl JsonSchema for CapSet {
    fn schema_name() -> Cow<'static, str> {
        "CapSet".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A set of capabilities as in /proc/PID/status: bit N stands for number N.",
            "type": "string",
            "pattern": "^[0-9a-f]{16}$",
        })
    }
}

#[cfg(test)]
mod tests;
