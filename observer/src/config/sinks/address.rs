//! Where a syslog receiver is.

use std::{fmt, path::PathBuf};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, Unexpected},
};

/// `udp://HOST:PORT`, `tcp://HOST:PORT`, `tls://HOST:PORT`, `unix:///PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogAddress {
    Udp(HostPort),
    Tcp(HostPort),
    Tls(HostPort),
    Unix(PathBuf),
}

/// A name or address, without brackets, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl SyslogAddress {
    fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix://") {
            let path = PathBuf::from(path);
            return path.is_absolute().then_some(SyslogAddress::Unix(path));
        }
        let (scheme, rest) = text.split_once("://")?;
        let (host, port) = rest.rsplit_once(':')?;
        let digits = port.bytes().all(|it| it.is_ascii_digit()) && port.len() <= 5;
        let port = port.parse().ok().filter(|port| digits && *port != 0)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => {
                let inner = inner.strip_suffix(']')?;
                inner.parse::<std::net::Ipv6Addr>().ok()?;
                inner
            }
            None => {
                let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
                (!host.is_empty() && host.chars().all(harmless)).then_some(host)?
            }
        };
        let place = HostPort { host: host.to_owned(), port };
        match scheme {
            "udp" => Some(SyslogAddress::Udp(place)),
            "tcp" => Some(SyslogAddress::Tcp(place)),
            "tls" => Some(SyslogAddress::Tls(place)),
            _ => None,
        }
    }
}

impl fmt::Display for SyslogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyslogAddress::Udp(place) => write!(f, "udp://{place}"),
            SyslogAddress::Tcp(place) => write!(f, "tcp://{place}"),
            SyslogAddress::Tls(place) => write!(f, "tls://{place}"),
            SyslogAddress::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl Serialize for SyslogAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SyslogAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let expected = "udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or unix:///PATH";
        SyslogAddress::parse(&text).ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &expected))
    }
}
