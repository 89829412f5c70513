//! What AppArmor calls a label: the profiles that confine a process, and their mode.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Kept of a label. The kernel lets a profile's name be as long as it likes, and a stack holds several.
pub const MAX_LABEL: usize = 1024;
/// Profiles of a stack that are looked at. The kernel makes stacks of a few.
const MAX_STACK: usize = 32;

/// `docker-default (enforce)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Label {
    /// One profile, or a stack of them: `a//&b`.
    pub profile: String,
    /// `enforce`, `complain`, `kill`, `unconfined`, `mixed` ...; absent for `unconfined`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<String>,
}

/// What a label does to its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confinement {
    Enforced,
    /// Complain mode: refuses nothing, and says what it would have refused.
    Logged,
    None,
    /// A mode that this version has not heard of, or none where there should be one.
    NotKnown,
}

/// How the label of a process stands to that of its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The same profile, one below it (`profile//child`), or a stack that still has it.
    Kept,
    /// The same profile, which does not enforce any more.
    Weakened,
    /// Another profile.
    Left,
    /// No profile.
    Unconfined,
}

/// A profile of a stack: its policy namespace and its name.
type Part<'a> = (&'a str, &'a str);

impl Label {
    /// What attr/current says: `docker-default (enforce)\n`, `unconfined\n`. A profile's name may hold spaces and brackets, and
    /// anything else that is not a NUL.
    pub fn parse(text: &[u8]) -> Option<Label> {
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        let text = text.get(..end).unwrap_or_default();
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let text = String::from_utf8_lossy(text);
        if text.is_empty() {
            return None;
        }
        let with_mode = text.strip_suffix(')').and_then(|rest| rest.rsplit_once(" ("));
        let (profile, mode) = match with_mode {
            Some((profile, mode)) if is_mode(mode) => (profile, Some(mode.to_owned())),
            _ => (&*text, None),
        };
        Some(Label { profile: cut(profile), mode })
    }

    /// security/apparmor/label.c: aa_label_snxprint, and the names of modes in security/apparmor/policy.c. A profile can
    /// carry the flag `unconfined` under any name.
    pub fn confinement(&self) -> Confinement {
        match (self.profile.as_str(), self.mode.as_deref()) {
            (_, Some("unconfined")) | ("unconfined", None) => Confinement::None,
            (_, Some("complain")) => Confinement::Logged,
            // `mixed`: several profiles, of which at least one enforces.
            (_, Some("enforce" | "kill" | "mixed" | "user")) => Confinement::Enforced,
            _ => Confinement::NotKnown,
        }
    }

    /// Whether a process with this label may do what it likes, as far as AppArmor is concerned.
    pub fn refuses_nothing(&self) -> Option<bool> {
        match self.confinement() {
            Confinement::Enforced => Some(false),
            Confinement::Logged | Confinement::None => Some(true),
            Confinement::NotKnown => None,
        }
    }

    /// How a process with this label stands to a container whose first process has that one. A container that is not confined
    /// has nothing to lose.
    pub fn against(&self, container: &Label) -> Standing {
        if container.confinement() == Confinement::None || self == container {
            return Standing::Kept;
        }
        if self.confinement() == Confinement::None {
            return Standing::Unconfined;
        }
        let (own, theirs) = (self.parts(), container.parts());
        let is_kept = |(namespace, name): &Part<'_>| {
            own.iter().any(|(own_namespace, own_name)| {
                own_namespace == namespace
                    && own_name
                        .strip_prefix(name)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with("//"))
            })
        };
        if !theirs.iter().all(is_kept) {
            return Standing::Left;
        }
        let enforced = container.confinement() == Confinement::Enforced;
        if enforced && self.refuses_nothing() == Some(true) { Standing::Weakened } else { Standing::Kept }
    }

    /// The profiles of a stack. A namespace stands before the first profile of it only (aa_profile_snxprint), as `:ns:profile`
    /// or `:ns://profile`.
    fn parts(&self) -> Vec<Part<'_>> {
        let mut namespace = "";
        self.profile
            .split("//&")
            .take(MAX_STACK)
            .map(|part| {
                let Some((named, name)) = part.strip_prefix(':').and_then(|rest| rest.split_once(':')) else {
                    return (namespace, part);
                };
                namespace = named;
                (namespace, name.strip_prefix("//").unwrap_or(name))
            })
            .collect()
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.mode {
            Some(mode) => write!(f, "{} ({mode})", self.profile),
            None => f.write_str(&self.profile),
        }
    }
}

/// The kernel's names of modes are short words, also those that are to come.
fn is_mode(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

/// At most [`MAX_LABEL`] bytes. Two that differ only behind that must not be taken for the same: a hash of what is cut off stays.
fn cut(profile: &str) -> String {
    if profile.len() <= MAX_LABEL {
        return profile.to_owned();
    }
    const ROOM: usize = 24;
    let at = (0..=MAX_LABEL - ROOM).rev().find(|at| profile.is_char_boundary(*at)).unwrap_or(0);
    let (kept, rest) = profile.split_at(at);
    format!("{kept}...#{:016x}", super::fnv1a(&[rest.as_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(text: &str) -> Label {
        Label::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text:?} is no label"))
    }

    #[test]
    fn labels_have_a_profile_and_maybe_a_mode() {
        for (text, profile, mode) in [
            (&b"docker-default (enforce)\n"[..], "docker-default", Some("enforce")),
            (b"docker-default (enforce)\0", "docker-default", Some("enforce")),
            (b"unconfined\n", "unconfined", None),
            (b"a (b) c (complain)\n", "a (b) c", Some("complain")),
            (b"a//&b (mixed)", "a//&b", Some("mixed")),
            (b":ns://p//hat (kill)\n", ":ns://p//hat", Some("kill")),
            (b"x (prompt-me)\n", "x", Some("prompt-me")),
            // No mode of the kernel's: part of the name.
            (b"my app (v 2)\n", "my app (v 2)", None),
            (b"my app (Beta)\n", "my app (Beta)", None),
            (b"()\n", "()", None),
            (b"two\nlines (enforce)\n", "two\nlines", Some("enforce")),
            (b"\xff\xfe (enforce)\n", "\u{fffd}\u{fffd}", Some("enforce")),
            (b"cut\0off (enforce)\n", "cut", None),
            (b" \n", " ", None),
        ] {
            let got = Label::parse(text).unwrap_or_else(|| panic!("{text:?}"));
            assert_eq!((got.profile.as_str(), got.mode.as_deref()), (profile, mode), "{text:?}");
        }
        for nothing in [&b""[..], b"\n", b"\0", b"\0\0docker-default (enforce)"] {
            assert_eq!(Label::parse(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn a_long_label_is_cut_and_stays_itself() {
        let long = |last: char| format!("{}{last} (enforce)\n", "\u{e4}".repeat(50_000));
        let (one, other) = (label(&long('a')), label(&long('b')));
        assert!(one.profile.len() <= MAX_LABEL && other.profile.len() <= MAX_LABEL, "{}", one.profile.len());
        assert_eq!(one.mode.as_deref(), Some("enforce"));
        assert_ne!(one, other);
        assert_eq!(one, label(&long('a')));
        let exact = "x".repeat(MAX_LABEL);
        assert_eq!(label(&exact).profile, exact);
        let stack = label(&format!("{} (mixed)", vec!["a"; 100_000].join("//&")));
        assert!(stack.parts().len() <= MAX_STACK);
    }

    #[test]
    fn the_mode_tells_what_it_does() {
        for (text, confinement, refuses_nothing) in [
            ("docker-default (enforce)", Confinement::Enforced, Some(false)),
            ("docker-default (kill)", Confinement::Enforced, Some(false)),
            ("a//&b (mixed)", Confinement::Enforced, Some(false)),
            // A profile may be called so and enforce.
            ("unconfined (enforce)", Confinement::Enforced, Some(false)),
            ("docker-default (complain)", Confinement::Logged, Some(true)),
            ("unconfined", Confinement::None, Some(true)),
            ("my app (unconfined)", Confinement::None, Some(true)),
            ("docker-default", Confinement::NotKnown, None),
            ("docker-default (prompt-me)", Confinement::NotKnown, None),
        ] {
            let label = label(text);
            assert_eq!(
                (label.confinement(), label.refuses_nothing()),
                (confinement, refuses_nothing),
                "{text}"
            );
            assert_eq!(label.to_string(), text);
        }
    }

    #[test]
    fn a_label_is_held_against_its_containers() {
        use Standing::{Kept, Left, Unconfined, Weakened};
        for (container, process, standing) in [
            ("p (enforce)", "p (enforce)", Kept),
            ("p (enforce)", "p//child (enforce)", Kept),
            ("p (enforce)", "p//child//grandchild (enforce)", Kept),
            ("p (enforce)", "p//&q (enforce)", Kept),
            ("p (enforce)", "q//&p (mixed)", Kept),
            ("p (enforce)", "p//hat//&q (enforce)", Kept),
            ("p (enforce)", "p (kill)", Kept),
            // A mode that is not known is none that was lost.
            ("p (enforce)", "p (new-mode)", Kept),
            ("p (enforce)", "unconfined", Unconfined),
            ("p (enforce)", "other (unconfined)", Unconfined),
            ("p (enforce)", "p (unconfined)", Unconfined),
            ("p (enforce)", "q (enforce)", Left),
            ("p (enforce)", "p2 (enforce)", Left),
            ("p (enforce)", "p/child (enforce)", Left),
            ("p (enforce)", "q//p (enforce)", Left),
            ("p (enforce)", "q//&r (enforce)", Left),
            ("p (enforce)", "unconfined (enforce)", Left),
            ("p//child (enforce)", "p (enforce)", Left),
            ("p (enforce)", "p (complain)", Weakened),
            ("p (enforce)", "p//null-/bin/sh (complain)", Weakened),
            // Of a stack, all parts.
            ("a//&b (enforce)", "b//&a (enforce)", Kept),
            ("a//&b (enforce)", "a//&b//&c (enforce)", Kept),
            ("a//&b (enforce)", "a (enforce)", Left),
            // In a policy namespace of a container's own, anybody may call a profile anything.
            ("p (enforce)", ":ns:p (enforce)", Left),
            ("p (enforce)", ":ns:x//&p (enforce)", Left),
            ("p (enforce)", "p//&:ns:unconfined (mixed)", Kept),
            ("p//&:ns:a (enforce)", "p//&:ns:b (enforce)", Left),
            ("p//&:ns:a (enforce)", "p//&:ns://a (enforce)", Kept),
            // Nothing to lose.
            ("unconfined", "q (enforce)", Kept),
            ("x (unconfined)", "unconfined", Kept),
            ("p (complain)", "p (enforce)", Kept),
            ("p (complain)", "unconfined", Unconfined),
        ] {
            assert_eq!(label(process).against(&label(container)), standing, "{process} in {container}");
        }
    }
}
