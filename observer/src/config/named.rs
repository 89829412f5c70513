//! Lists of things with names of their own.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, SeqAccess, Unexpected, Visitor},
};

/// Names are labels of metrics and keys of the store.
pub const MAX_NAME_BYTES: usize = 63;
/// What metrics call the agent's own ways of alerts; no name of the configuration is to be taken for one of them.
pub const RESERVED: [&str; 3] = ["stdout", "socket", "store"];

/// Reads a list of at most `limit` things with different names.
pub fn named_once<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
    limit: usize,
    what: &'static str,
    name: fn(&T) -> &str,
) -> Result<Vec<T>, D::Error> {
    struct List<T> {
        limit: usize,
        what: &'static str,
        name: fn(&T) -> &str,
    }
    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut list: Vec<T> = Vec::new();
            while let Some(item) = seq.next_element_seed(Once { list: &list, of: &self })? {
                list.push(item);
            }
            Ok(list)
        }
    }
    /// Checked where the item is read, so that an error has its line.
    struct Once<'a, T> {
        list: &'a [T],
        of: &'a List<T>,
    }
    impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Once<'_, T> {
        type Value = T;

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
            let item = T::deserialize(deserializer)?;
            let List { limit, what, name } = self.of;
            if self.list.len() == *limit {
                return Err(D::Error::custom(format!("one {what} too many, expected at most {limit}")));
            }
            if self.list.iter().any(|it| name(it) == name(&item)) {
                let name = name(&item);
                return Err(D::Error::custom(format!(
                    "a second {what} with the name `{name}`, expected different names"
                )));
            }
            Ok(item)
        }
    }
    deserializer.deserialize_seq(List { limit, what, name })
}

pub fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let harmless = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if !text.is_empty()
        && text.len() <= MAX_NAME_BYTES
        && text.chars().all(harmless)
        && !RESERVED.contains(&&*text)
    {
        Ok(text)
    } else {
        let [first, second, third] = RESERVED;
        let others = format!("{first}, {second} and {third}");
        let expected =
            format!("a name of at most {MAX_NAME_BYTES} of a-z, 0-9, - and _, other than {others}");
        Err(D::Error::invalid_value(Unexpected::Str(&text), &&*expected))
    }
}
