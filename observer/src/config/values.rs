//! Values that must be more than their type says. Each says what it expects where it is read, so that the error has
//! the value's own line.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Unexpected, Visitor},
};

use crate::kernel::PRETEND_PREFIXES;

/// The smallest ring: one page.
const MIN_RING_BYTES: u32 = 4096;
/// `sun_path` of unix(7), less the byte that ends it.
const MAX_SOCKET_PATH_BYTES: usize = 107;

pub fn node<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    match name {
        Some(name) if name.trim().is_empty() => {
            Err(D::Error::invalid_value(Unexpected::Str(&name), &"a name"))
        }
        name => Ok(name),
    }
}

pub fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    const EXPECTED: &str = "an IP address and a port, such as \"127.0.0.1:9736\", or off";
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    if text == "off" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &EXPECTED))
}

pub fn absolute_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    // Relative to what? An agent has no directory that its user would think of.
    let text = String::deserialize(deserializer)?;
    if Path::new(&text).is_absolute() {
        Ok(text.into())
    } else {
        Err(D::Error::invalid_value(Unexpected::Str(&text), &"an absolute path"))
    }
}

/// A path in a list or a map, where each has a line of its own.
#[derive(Clone)]
pub struct AbsolutePath(pub PathBuf);

impl<'de> Deserialize<'de> for AbsolutePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        absolute_path(deserializer).map(AbsolutePath)
    }
}

pub fn optional_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    Ok(Option::<AbsolutePath>::deserialize(deserializer)?.map(|path| path.0))
}

/// Words with `*` and `?`. An empty one would fit nothing, which nobody means.
pub fn patterns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Pattern(String);
    impl<'de> Deserialize<'de> for Pattern {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            if !text.is_empty() && text.len() <= 512 {
                Ok(Pattern(text))
            } else {
                Err(D::Error::invalid_value(Unexpected::Str(&text), &"a word of at most 512 bytes"))
            }
        }
    }
    Ok(Vec::<Pattern>::deserialize(deserializer)?.into_iter().map(|it| it.0).collect())
}

pub fn timeout_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_u64(Number {
        expected: "a number of seconds, from 1 to 300",
        check: |value| (1..=300).contains(&value).then_some(value),
    })
}

pub fn batch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    deserializer.deserialize_u64(Number {
        expected: "a number of alerts, from 1 to 1000",
        check: |value| u32::try_from(value).ok().filter(|it| (1..=1000).contains(it)),
    })
}

pub fn keep<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    deserializer.deserialize_u64(Number {
        expected: "a number of files, from 1 to 1000",
        check: |value| u32::try_from(value).ok().filter(|it| (1..=1000).contains(it)),
    })
}

pub fn store_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_u64(Number {
        expected: "a number of bytes, from 8388608 to 1099511627776",
        check: |value| (8 << 20..=1 << 40).contains(&value).then_some(value),
    })
}

/// Paths, or `unix://` and a path, as the kubelet and crictl have it.
pub fn sockets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<PathBuf>>, D::Error> {
    // Each by itself, so that an error has the line of the one that is wrong.
    struct Socket(PathBuf);
    impl<'de> Deserialize<'de> for Socket {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            let path = Path::new(text.strip_prefix("unix://").unwrap_or(&text));
            if path.is_absolute() && path.as_os_str().len() <= MAX_SOCKET_PATH_BYTES {
                Ok(Socket(path.to_owned()))
            } else {
                let expected = "a socket's absolute path of at most 107 bytes";
                Err(D::Error::invalid_value(Unexpected::Str(&text), &expected))
            }
        }
    }
    let sockets = Option::<Vec<Socket>>::deserialize(deserializer)?;
    Ok(sockets.map(|sockets| sockets.into_iter().map(|socket| socket.0).collect()))
}

pub fn ring_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    deserializer.deserialize_u64(Number {
        expected: "a number of bytes that is a power of two, from 4096 to 1073741824",
        check: |value| {
            u32::try_from(value)
                .ok()
                .filter(|it| it.is_power_of_two() && (MIN_RING_BYTES..=1 << 30).contains(it))
        },
    })
}

pub fn sweep_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_u64(Number {
        expected: "a number of seconds, from 1 to 3600",
        check: |value| (1..=3600).contains(&value).then_some(value),
    })
}

pub fn max_containers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    deserializer.deserialize_u64(Number {
        expected: "a number of containers, from 0 to 65536",
        check: |value| usize::try_from(value).ok().filter(|it| *it <= 65536),
    })
}

pub fn poll_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    sweep_seconds(deserializer)
}

/// For how long something must last: a day at most, and none is at once.
pub fn duration_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_u64(Number {
        expected: "a number of seconds, from 0 to 86400",
        check: |value| (value <= 86_400).then_some(value),
    })
}

pub fn some_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    duration_seconds(deserializer).map(Some)
}

/// A threshold that can be switched off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Switch<T> {
    #[default]
    Off,
    On(T),
}

impl<T: Copy> Switch<T> {
    pub fn on(self) -> Option<T> {
        match self {
            Switch::Off => None,
            Switch::On(value) => Some(value),
        }
    }
}

/// The numbers that a switched threshold may have, and how they are called.
pub trait Threshold: Copy {
    const EXPECTED: &'static str;
    fn of(value: u64) -> Option<Self>;
    fn value(self) -> u64;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub u64);

impl Threshold for Percent {
    const EXPECTED: &'static str = "a whole number of percent from 1 to 100, or off";

    fn of(value: u64) -> Option<Self> {
        (1..=100).contains(&value).then_some(Percent(value))
    }

    fn value(self) -> u64 {
        self.0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerSecond(pub u64);

impl Threshold for PerSecond {
    const EXPECTED: &'static str = "a number from 1 to 1000000, or off";

    fn of(value: u64) -> Option<Self> {
        (1..=1_000_000).contains(&value).then_some(PerSecond(value))
    }

    fn value(self) -> u64 {
        self.0
    }
}

/// A week at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub u64);

impl Threshold for Seconds {
    const EXPECTED: &'static str = "a number of seconds from 1 to 604800, or off";

    fn of(value: u64) -> Option<Self> {
        (1..=604_800).contains(&value).then_some(Seconds(value))
    }

    fn value(self) -> u64 {
        self.0
    }
}

impl<T: Threshold> serde::Serialize for Switch<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Switch::Off => serializer.serialize_str("off"),
            Switch::On(threshold) => serializer.serialize_u64(threshold.value()),
        }
    }
}

impl<'de, T: Threshold> Deserialize<'de> for Switch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of<T>(std::marker::PhantomData<T>);
        impl<T: Threshold> Visitor<'_> for Of<T> {
            type Value = Switch<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
                T::of(value)
                    .map(Switch::On)
                    .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(value), &self))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
                u64::try_from(value)
                    .map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))
                    .and_then(|value| self.visit_u64(value))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                match text {
                    "off" => Ok(Switch::Off),
                    other => Err(E::invalid_value(Unexpected::Str(other), &self)),
                }
            }

            // YAML 1.1 readers take a bare `off` for one.
            fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
                if value { Err(E::invalid_value(Unexpected::Bool(value), &self)) } else { Ok(Switch::Off) }
            }
        }
        deserializer.deserialize_any(Of(std::marker::PhantomData))
    }
}

pub fn pretended<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let words = Vec::<String>::deserialize(deserializer)?;
    let known = |word: &&String| PRETEND_PREFIXES.iter().any(|prefix| word.starts_with(prefix));
    match words.iter().find(|word| !known(word)) {
        None => Ok(words),
        Some(word) => {
            let expected = format!("a word that begins with {}", PRETEND_PREFIXES.join(", "));
            Err(D::Error::invalid_value(Unexpected::Str(word), &expected.as_str()))
        }
    }
}

struct Number<T> {
    expected: &'static str,
    check: fn(u64) -> Option<T>,
}

impl<T> Visitor<'_> for Number<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        (self.check)(value).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(value), &self))
    }
}
