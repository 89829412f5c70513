//! The path of a root directory, and whose word it is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a path is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PathSource {
    /// The kernel's own record, after the call. In front of a path that could not be followed up to the root of its mount
    /// namespace stands `...`.
    Kernel,
    /// The caller's memory: what it gave to the call, unless another thread rewrote it meanwhile.
    Caller,
}

/// A path to show. The names in it are a container's to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootPath {
    pub text: String,
    pub source: PathSource,
}

impl RootPath {
    /// From the names on the way up from a directory, its own first, each with its NUL.
    pub fn from_names(names: &[u8], whole: bool) -> Self {
        let names = names.strip_suffix(b"\0").unwrap_or(names);
        let mut path = if whole { Vec::new() } else { b"...".to_vec() };
        for name in names.rsplit(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        RootPath { text: String::from_utf8_lossy(&path).into_owned(), source: PathSource::Kernel }
    }

    /// What a caller gave; none if that could not be read or is empty.
    pub fn given(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        (!text.is_empty()).then_some(RootPath { text, source: PathSource::Caller })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_a_path_from_the_top() {
        for (names, whole, path) in [
            (&b""[..], true, "/"),
            (b"host\0", true, "/host"),
            (b"c\0b\0a\0", true, "/a/b/c"),
            (b"c\0b\0", false, ".../b/c"),
            (b"", false, "..."),
            // A name may look like a cut one, or like a path that goes up; it is one name all the same.
            (b"...\0..a\0", true, "/..a/..."),
            (b"a\xff\x1b\0", true, "/a\u{fffd}\u{1b}"),
            // Nothing that a kernel writes, and no panic.
            (b"\0\0", true, "/"),
            (b"a\0\0b", true, "/b/a"),
        ] {
            let made = RootPath::from_names(names, whole);
            assert_eq!((made.text.as_str(), made.source), (path, PathSource::Kernel), "{names:?}");
        }
    }

    #[test]
    fn what_was_given_is_the_callers_word() {
        assert_eq!(RootPath::given(b""), None);
        let given = RootPath::given(b"../x").unwrap();
        assert_eq!((given.text.as_str(), given.source), ("../x", PathSource::Caller));
    }
}
