//! AppArmor's records in the kernel's audit log, as text: `audit(1700000000.123:45): apparmor="DENIED" operation="open" ...`.
//!
//! The kernel writes them in `audit_pre` (security/apparmor/audit.c), `common_lsm_audit` (security/lsm_audit.c) and a function for
//! each class. What others choose (names of files, programs, profiles) is in quotes, or in hexadecimal digits without quotes if it
//! holds a quote, a space, or anything beyond printable ASCII (`audit_log_untrustedstring`, kernel/audit.c): so no name can make up
//! a field. Still the first of two fields of one name is the one that counts, and everything has a bound.

use crate::model::{AppArmorRecord, AppArmorVerdict, Capability, Clock, MAX_LABEL, capability_label};

/// The kernel's own bound is half of that (`MAX_AUDIT_MESSAGE_LENGTH`).
const MAX_RECORD: usize = 16 << 10;
/// Fields of a record; real ones have some twenty.
const MAX_FIELDS: usize = 64;
/// Bytes that are kept of a name or a label.
const MAX_TEXT: usize = MAX_LABEL;
/// Bytes that are kept of a word of the kernel's own.
const MAX_WORD: usize = 64;

/// What is not such a record, although it should be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("a record of {0} bytes")]
    TooLong(usize),
    #[error("no time at the beginning")]
    Time,
    #[error("a quote that does not end")]
    Quote,
    #[error("text that is neither quoted nor hexadecimal")]
    Text,
    #[error("more fields than any real record has")]
    Fields,
    #[error("no {0}")]
    Missing(&'static str),
}

/// What a record says. `None` if it is another module's, or says something else than that an access was or would have been denied.
pub fn parse(record: &[u8], clock: &Clock) -> Result<Option<AppArmorRecord>, Malformed> {
    if record.len() > MAX_RECORD {
        return Err(Malformed::TooLong(record.len()));
    }
    let (unix_ms, rest) = time(record).ok_or(Malformed::Time)?;
    let fields = Fields::parse(rest)?;
    let verdict = match fields.word("apparmor") {
        Some("DENIED") => AppArmorVerdict::Denied,
        Some("KILLED") => AppArmorVerdict::Killed,
        Some("ALLOWED") => AppArmorVerdict::Allowed,
        _ => return Ok(None),
    };
    let word = |key| fields.word(key).map(|word| cut(word.to_owned(), MAX_WORD));
    let pid = fields.word("pid").and_then(|pid| pid.parse().ok()).filter(|pid| *pid > 0);
    let profile = match fields.text("profile")? {
        None => fields.text("label")?,
        profile => profile,
    };
    // Policy of another than the first namespace, as a label has it.
    let profile = match (profile, fields.text("namespace")?) {
        (Some(profile), Some(namespace)) => Some(format!(":{namespace}:{profile}")),
        (profile, _) => profile,
    };
    let name = fields.text("name")?.or_else(|| {
        let words = ["family", "sock_type", "signal", "rlimit"].into_iter().filter_map(word);
        Some(words.collect::<Vec<_>>().join(" ")).filter(|words| !words.is_empty())
    });
    Ok(Some(AppArmorRecord {
        time_ns: clock.kernel_ns(unix_ms.saturating_mul(1_000_000)),
        count: 1,
        pid: pid.ok_or(Malformed::Missing("pid"))?,
        comm: fields.text("comm")?.unwrap_or_default(),
        verdict,
        operation: word("operation").ok_or(Malformed::Missing("operation"))?,
        class: word("class"),
        profile: cut(profile.ok_or(Malformed::Missing("profile"))?, MAX_TEXT),
        name,
        // Accesses to files have masks, some of the others only words.
        requested: word("requested_mask").or_else(|| word("requested")),
        denied: word("denied_mask").or_else(|| word("denied")),
        capability: capability(&fields),
        peer: fields.text("peer")?,
    }))
}

/// Milliseconds of Unix time, and what comes after `audit(1700000000.123:45): `.
fn time(record: &[u8]) -> Option<(i64, &[u8])> {
    let rest = record.strip_prefix(b"audit(")?;
    let end = rest.iter().position(|byte| *byte == b')')?;
    let stamp = std::str::from_utf8(rest.get(..end)?).ok()?;
    let (time, serial) = stamp.split_once(':')?;
    let (seconds, milliseconds) = time.split_once('.')?;
    let number = |text: &str, most: usize| -> Option<i64> {
        let digits = (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits)
    };
    number(serial, 20)?;
    let milliseconds = number(milliseconds, 3).filter(|_| milliseconds.len() == 3)?;
    let rest = rest.get(end + 1..)?.strip_prefix(b":")?;
    Some((number(seconds, 12)? * 1000 + milliseconds, rest))
}

/// By its number; by its name where that is newer than what is known here.
fn capability(fields: &Fields<'_>) -> Option<String> {
    let name = fields.word("capname")?;
    let number = fields.word("capability").and_then(|number| number.parse().ok());
    Some(match (number.map(capability_label), Capability::by_name(name)) {
        (Some(label), _) if label.starts_with("CAP_") => label,
        (_, Some(known)) => known.name.to_owned(),
        _ => format!("CAP_{}", cut(name.to_ascii_uppercase(), MAX_WORD)),
    })
}

/// A value, with what it was in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    Quoted(&'a [u8]),
    Bare(&'a [u8]),
}

#[derive(Debug)]
struct Fields<'a>(Vec<(&'a [u8], Value<'a>)>);

impl<'a> Fields<'a> {
    fn parse(mut rest: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Vec::new();
        loop {
            let blank = rest.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == 0).count();
            rest = rest.get(blank..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(Fields(fields));
            }
            if fields.len() == MAX_FIELDS {
                return Err(Malformed::Fields);
            }
            let is_end = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0;
            let word = rest.iter().position(is_end).unwrap_or(rest.len());
            let Some(key) = rest.get(..word).and_then(|word| word.iter().position(|byte| *byte == b'='))
            else {
                // A word by itself says nothing to us.
                rest = rest.get(word..).unwrap_or_default();
                continue;
            };
            let (name, value) =
                (rest.get(..key).unwrap_or_default(), rest.get(key + 1..).unwrap_or_default());
            rest = if let Some(quoted) = value.strip_prefix(b"\"") {
                let end = quoted.iter().position(|byte| *byte == b'"').ok_or(Malformed::Quote)?;
                fields.push((name, Value::Quoted(quoted.get(..end).unwrap_or_default())));
                quoted.get(end + 1..).unwrap_or_default()
            } else {
                let end = value.iter().position(is_end).unwrap_or(value.len());
                fields.push((name, Value::Bare(value.get(..end).unwrap_or_default())));
                value.get(end..).unwrap_or_default()
            };
        }
    }

    fn get(&self, key: &str) -> Option<Value<'a>> {
        self.0.iter().find(|(name, _)| *name == key.as_bytes()).map(|(_, value)| *value)
    }

    /// A word or a number of the kernel's own.
    fn word(&self, key: &str) -> Option<&'a str> {
        let (Value::Quoted(bytes) | Value::Bare(bytes)) = self.get(key)?;
        std::str::from_utf8(bytes).ok().filter(|word| !word.is_empty())
    }

    /// What somebody else has chosen.
    fn text(&self, key: &str) -> Result<Option<String>, Malformed> {
        let bytes = match self.get(key) {
            None => return Ok(None),
            Some(Value::Quoted(bytes)) => bytes.to_vec(),
            Some(Value::Bare(digits)) => hexadecimal(digits).ok_or(Malformed::Text)?,
        };
        // An abstract socket's name begins with one.
        let text = String::from_utf8_lossy(&bytes).replace('\0', "@");
        Ok(Some(cut(text, MAX_TEXT)))
    }
}

fn hexadecimal(digits: &[u8]) -> Option<Vec<u8>> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    let byte = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(value(*high)? << 4 | value(*low)?).ok(),
        _ => None,
    };
    digits.chunks(2).map(byte).collect()
}

/// At most so many bytes, ending in three dots where there were more.
fn cut(mut text: String, most: usize) -> String {
    const MORE: &str = "...";
    if text.len() > most {
        let mut end = most - MORE.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(MORE);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: Clock = Clock { offset_ns: 1_700_000_000_000_000_000 };

    fn parsed(text: &str) -> AppArmorRecord {
        let record = format!("audit(1700000012.345:678): {text}");
        parse(record.as_bytes(), &CLOCK).expect(text).expect(text)
    }

    fn record(operation: &str) -> AppArmorRecord {
        AppArmorRecord {
            time_ns: 12_345_000_000,
            count: 1,
            pid: 100,
            comm: "cat".into(),
            operation: operation.into(),
            profile: "p".into(),
            ..AppArmorRecord::default()
        }
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn records_of_each_class_are_read() {
        let cases = [
            (
                // 6.1 and later.
                "apparmor=\"DENIED\" operation=\"open\" class=\"file\" profile=\"p\" name=\"/etc/shadow\" pid=100 comm=\"cat\" \
                 requested_mask=\"r\" denied_mask=\"r\" fsuid=0 ouid=0",
                AppArmorRecord {
                    class: some("file"),
                    name: some("/etc/shadow"),
                    requested: some("r"),
                    denied: some("r"),
                    ..record("open")
                },
                "/etc/shadow",
            ),
            (
                // 5.10 has no class; a profile in complain mode; a stack.
                "apparmor=\"ALLOWED\" operation=\"exec\" info=\"no new privs\" error=-1 label=\"p//&q\" name=\"/bin/x\" pid=100 \
                 comm=\"cat\" requested_mask=\"x\" denied_mask=\"x\" fsuid=0 ouid=0 target=\"r\"",
                AppArmorRecord {
                    verdict: AppArmorVerdict::Allowed,
                    profile: "p//&q".into(),
                    name: some("/bin/x"),
                    requested: some("x"),
                    denied: some("x"),
                    ..record("exec")
                },
                "/bin/x",
            ),
            (
                "apparmor=\"DENIED\" operation=\"capable\" class=\"cap\" profile=\"p\" pid=100 comm=\"cat\" capability=21  \
                 capname=\"sys_admin\"",
                AppArmorRecord { class: some("cap"), capability: some("CAP_SYS_ADMIN"), ..record("capable") },
                "CAP_SYS_ADMIN",
            ),
            (
                "apparmor=\"DENIED\" operation=\"capable\" profile=\"p\" pid=100 comm=\"cat\" capability=63  capname=\"new_one\"",
                AppArmorRecord { capability: some("CAP_NEW_ONE"), ..record("capable") },
                "CAP_NEW_ONE",
            ),
            (
                "apparmor=\"DENIED\" operation=\"create\" class=\"net\" profile=\"p\" pid=100 comm=\"cat\" family=\"inet\" \
                 sock_type=\"dgram\" protocol=17 requested_mask=\"create\" denied_mask=\"create\"",
                AppArmorRecord {
                    class: some("net"),
                    name: some("inet dgram"),
                    requested: some("create"),
                    denied: some("create"),
                    ..record("create")
                },
                "inet dgram",
            ),
            (
                "apparmor=\"KILLED\" operation=\"signal\" class=\"signal\" profile=\"p\" pid=100 comm=\"cat\" \
                 requested_mask=\"send\" denied_mask=\"send\" signal=term peer=\"unconfined\"",
                AppArmorRecord {
                    verdict: AppArmorVerdict::Killed,
                    class: some("signal"),
                    name: some("term"),
                    requested: some("send"),
                    denied: some("send"),
                    peer: some("unconfined"),
                    ..record("signal")
                },
                "term unconfined",
            ),
            (
                "apparmor=\"DENIED\" operation=\"userns_create\" class=\"namespace\" info=\"Userns create restricted - failed to \
                 find unprivileged_userns profile\" error=-13 namespace=\"lxd\" profile=\"p\" pid=100 comm=\"cat\" \
                 requested=\"userns_create\" denied=\"userns_create\" target=\"unprivileged_userns\"\0",
                AppArmorRecord {
                    class: some("namespace"),
                    profile: ":lxd:p".into(),
                    requested: some("userns_create"),
                    denied: some("userns_create"),
                    ..record("userns_create")
                },
                "",
            ),
        ];
        for (text, expected, what) in cases {
            assert_eq!(parsed(text), expected, "{text}");
            assert_eq!(expected.what(), what);
        }
    }

    /// `x" pid=1` as a file's and a program's name: nothing of it is a field.
    #[test]
    fn names_cannot_make_up_fields() {
        let record = parsed(
            "apparmor=\"DENIED\" operation=\"open\" profile=\"p\" name=2F7822207069643D31 pid=100 comm=\"cat\"",
        );
        assert_eq!((record.pid, record.name.as_deref()), (100, Some("/x\" pid=1")));
        let record = parsed(
            "apparmor=\"DENIED\" operation=\"open\" profile=70207E name=2F78222070 pid=100 comm=782220706964 pid=1 \
             apparmor=\"ALLOWED\"",
        );
        assert_eq!((record.pid, record.verdict), (100, AppArmorVerdict::Denied));
        assert_eq!((record.name.as_deref(), record.comm.as_str()), (Some("/x\" p"), "x\" pid"));
        assert_eq!(record.profile, "p ~");
        let record =
            parsed("apparmor=\"DENIED\" operation=\"open\" profile=\"p\" name=00FF pid=100 comm=\"cat\"");
        assert_eq!(record.name.as_deref(), Some("@\u{fffd}"));
    }

    #[test]
    fn what_is_not_apparmors_denial_is_none() {
        for text in [
            "avc:  denied  { read } for  pid=100 comm=\"cat\" name=\"x\" dev=\"sda1\" ino=1 scontext=a tcontext=b tclass=file",
            "apparmor=\"STATUS\" operation=\"profile_load\" profile=\"unconfined\" name=\"p\" pid=1 comm=\"apparmor_parser\"",
            "apparmor=\"AUDIT\" operation=\"open\" profile=\"p\" name=\"/x\" pid=100 comm=\"cat\"",
            "",
        ] {
            let record = format!("audit(1700000012.345:678): {text}");
            assert_eq!(parse(record.as_bytes(), &CLOCK), Ok(None), "{text}");
        }
    }

    #[test]
    fn what_is_malformed_is_said() {
        let cases: [(&str, Malformed); 12] = [
            ("", Malformed::Time),
            ("audit(1700000012.345:678) apparmor=\"DENIED\"", Malformed::Time),
            ("audit(1700000012.34:678): ", Malformed::Time),
            ("audit(-170000012.345:678): ", Malformed::Time),
            ("audit(9999999999999.345:678): ", Malformed::Time),
            ("audit(1700000012.345): ", Malformed::Time),
            ("audit(1.345:6): apparmor=\"DENIED\" operation=\"open", Malformed::Quote),
            (
                "audit(1.345:6): apparmor=\"DENIED\" operation=\"open\" profile=\"p\" pid=1 comm=xyz",
                Malformed::Text,
            ),
            (
                "audit(1.345:6): apparmor=\"DENIED\" operation=\"open\" profile=\"p\" pid=1 comm=7",
                Malformed::Text,
            ),
            (
                "audit(1.345:6): apparmor=\"DENIED\" operation=\"open\" profile=\"p\" pid=-1",
                Malformed::Missing("pid"),
            ),
            ("audit(1.345:6): apparmor=\"DENIED\" profile=\"p\" pid=1", Malformed::Missing("operation")),
            ("audit(1.345:6): apparmor=\"DENIED\" operation=\"open\" pid=1", Malformed::Missing("profile")),
        ];
        for (record, error) in cases {
            assert_eq!(parse(record.as_bytes(), &CLOCK), Err(error), "{record}");
        }
        let many = format!("audit(1.345:6):{}", " a=1".repeat(MAX_FIELDS + 1));
        assert_eq!(parse(many.as_bytes(), &CLOCK), Err(Malformed::Fields));
        let long = format!("audit(1.345:6): a=\"{}\"", "x".repeat(MAX_RECORD));
        assert!(matches!(parse(long.as_bytes(), &CLOCK), Err(Malformed::TooLong(_))));
    }

    #[test]
    fn long_texts_are_cut_where_a_character_ends() {
        let name = "2F".to_owned() + &"C3A4".repeat(2000);
        let record = parsed(&format!(
            "apparmor=\"DENIED\" operation=\"{}\" profile=\"p\" name={name} pid=100 comm=\"cat\"",
            "o".repeat(100)
        ));
        let name = record.name.expect("a name");
        assert!(name.len() <= MAX_TEXT && name.starts_with("/ää") && name.ends_with("ä..."), "{name}");
        assert_eq!(record.operation.len(), MAX_WORD);
    }

    /// Whatever the bytes: no panic, and nothing beyond the bounds.
    #[test]
    fn any_bytes_are_taken() {
        let seed = "audit(1700000012.345:678): apparmor=\"DENIED\" operation=\"open\" class=\"file\" profile=\"p\" name=2F78 \
                    pid=100 comm=\"cat\" requested_mask=\"r\" denied_mask=\"r\" capability=21 capname=\"sys_admin\" peer=\"q\"";
        let mut random = fastrand::Rng::with_seed(6);
        let (mut read, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let mut bytes = seed.as_bytes().to_vec();
            for _ in 0..random.usize(0..8) {
                let at = random.usize(0..bytes.len().max(1));
                match random.u8(0..4) {
                    _ if bytes.len() < 2 => {}
                    0 => bytes[at] = random.u8(..),
                    1 => drop(bytes.remove(at)),
                    2 => bytes.insert(at, b"\"= \0\n:().0"[random.usize(0..10)]),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            match parse(&bytes, &CLOCK) {
                Ok(Some(record)) => {
                    read += 1;
                    assert!(record.pid > 0 && record.operation.len() <= MAX_WORD);
                    let texts = [Some(record.profile), Some(record.comm), record.name, record.peer];
                    assert!(texts.iter().flatten().all(|text| text.len() <= MAX_TEXT));
                }
                Ok(None) => {}
                Err(_) => refused += 1,
            }
        }
        assert!(read > 1000 && refused > 1000, "{read} read, {refused} refused");
    }
}
