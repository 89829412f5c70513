//! Values that must be more than their type says. Each says what it expects where it is read, so that the error has
//! the value's own line.

use std::{
    fmt,
    marker::PhantomData,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Unexpected, Visitor},
};

use crate::kernel::PRETEND_PREFIXES;

/// `sun_path` of unix(7), less the byte that ends it.
pub const MAX_SOCKET_PATH_BYTES: usize = 107;
pub const MAX_PATTERN_BYTES: usize = 512;

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
    // YAML 1.1 writers, Helm among them, make `false` of a bare `off`.
    if matches!(&*text, "off" | "false") {
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
            if !text.is_empty() && text.len() <= MAX_PATTERN_BYTES {
                Ok(Pattern(text))
            } else {
                let expected = format!("a word of at most {MAX_PATTERN_BYTES} bytes");
                Err(D::Error::invalid_value(Unexpected::Str(&text), &&*expected))
            }
        }
    }
    Ok(Vec::<Pattern>::deserialize(deserializer)?.into_iter().map(|it| it.0).collect())
}

/// The whole numbers that a value may be, said once for its reader, its error and its schema.
pub struct Bounds {
    /// What is counted.
    what: &'static str,
    pub min: u64,
    pub max: u64,
}

pub const TIMEOUT_SECONDS: Bounds = Bounds { what: "seconds", min: 1, max: 300 };
pub const BATCH: Bounds = Bounds { what: "alerts", min: 1, max: 1000 };
pub const KEEP: Bounds = Bounds { what: "files", min: 1, max: 1000 };
pub const STORE_BYTES: Bounds = Bounds { what: "bytes", min: 8 << 20, max: 1 << 40 };
/// The smallest ring is one page.
pub const RING_BYTES: Bounds = Bounds { what: "bytes that is a power of two", min: 4096, max: 1 << 30 };
pub const PERIOD_SECONDS: Bounds = Bounds { what: "seconds", min: 1, max: 3600 };
/// For how long something must last: a day at most, and none is at once.
pub const DURATION_SECONDS: Bounds = Bounds { what: "seconds", min: 0, max: 86_400 };
pub const MAX_CONTAINERS: Bounds = Bounds { what: "containers", min: 0, max: 65_536 };

impl Bounds {
    fn read<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
        &'static self,
        deserializer: D,
    ) -> Result<T, D::Error> {
        self.read_if(deserializer, |_| true)
    }

    fn read_if<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
        &'static self,
        deserializer: D,
        also: fn(u64) -> bool,
    ) -> Result<T, D::Error> {
        deserializer.deserialize_u64(Number { bounds: self, also, of: PhantomData })
    }
}

struct Number<T> {
    bounds: &'static Bounds,
    /// What else must be true of it.
    also: fn(u64) -> bool,
    of: PhantomData<T>,
}

impl<T: TryFrom<u64>> Visitor<'_> for Number<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bounds { what, min, max } = self.bounds;
        write!(f, "a number of {what}, from {min} to {max}")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        let good = (self.bounds.min..=self.bounds.max).contains(&value) && (self.also)(value);
        let number = T::try_from(value).ok().filter(|_| good);
        number.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(value), &self))
    }
}

pub fn timeout_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    TIMEOUT_SECONDS.read(deserializer)
}

pub fn batch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    BATCH.read(deserializer)
}

pub fn keep<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    KEEP.read(deserializer)
}

pub fn store_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    STORE_BYTES.read(deserializer)
}

pub fn ring_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    RING_BYTES.read_if(deserializer, u64::is_power_of_two)
}

pub fn period_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    PERIOD_SECONDS.read(deserializer)
}

pub fn duration_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    DURATION_SECONDS.read(deserializer)
}

pub fn some_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    duration_seconds(deserializer).map(Some)
}

pub fn max_containers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    MAX_CONTAINERS.read(deserializer)
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
                let expected = format!("a socket's absolute path of at most {MAX_SOCKET_PATH_BYTES} bytes");
                Err(D::Error::invalid_value(Unexpected::Str(&text), &&*expected))
            }
        }
    }
    let sockets = Option::<Vec<Socket>>::deserialize(deserializer)?;
    Ok(sockets.map(|sockets| sockets.into_iter().map(|socket| socket.0).collect()))
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
    const MAX: u64;
    fn new(value: u64) -> Self;
    fn value(self) -> u64;
}

macro_rules! thresholds {
    ($($(#[$doc:meta])* $name:ident: up to $max:literal, $expected:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub u64);

        impl Threshold for $name {
            const EXPECTED: &'static str = $expected;
            const MAX: u64 = $max;

            fn new(value: u64) -> Self {
                $name(value)
            }

            fn value(self) -> u64 {
                self.0
            }
        }
    )*};
}

thresholds! {
    Percent: up to 100, "a whole number of percent from 1 to 100, or off";
    PerSecond: up to 1_000_000, "a number from 1 to 1000000, or off";
    /// A week at most.
    Seconds: up to 604_800, "a number of seconds from 1 to 604800, or off";
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
        struct Of<T>(PhantomData<T>);
        impl<T: Threshold> Visitor<'_> for Of<T> {
            type Value = Switch<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
                if (1..=T::MAX).contains(&value) {
                    Ok(Switch::On(T::new(value)))
                } else {
                    Err(E::invalid_value(Unexpected::Unsigned(value), &self))
                }
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
        deserializer.deserialize_any(Of(PhantomData))
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
