//! Which containers a part of the configuration is about.

use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::model::Container;

/// All that it names must fit. Names are the runtime's word: whoever may start containers may choose them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Selector {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Pattern>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Pattern>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Pattern>,
    /// Of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Pattern>,
    /// The pod's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pattern>,
}

impl Selector {
    pub fn selects(&self, container: &Container) -> bool {
        let pod = container.pod.as_ref();
        let fits = |pattern: &Option<Pattern>, text: Option<&str>| {
            pattern.as_ref().is_none_or(|pattern| text.is_some_and(|text| pattern.matches(text)))
        };
        fits(&self.name, container.name.as_deref())
            && fits(&self.image, container.image.as_deref())
            && fits(&self.runtime, Some(container.runtime.name()))
            && fits(&self.namespace, pod.map(|pod| pod.namespace.as_str()))
            && fits(&self.pod, pod.map(|pod| pod.name.as_str()))
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            name: Option<Pattern>,
            image: Option<Pattern>,
            runtime: Option<Pattern>,
            namespace: Option<Pattern>,
            pod: Option<Pattern>,
        }
        let Raw { name, image, runtime, namespace, pod } = Raw::deserialize(deserializer)?;
        let selector = Selector { name, image, runtime, namespace, pod };
        if selector == Selector::default() {
            // It would mean every container, which is what the values outside of it are for.
            return Err(D::Error::custom(
                "it selects nothing, expected name, image, runtime, namespace or pod",
            ));
        }
        Ok(selector)
    }
}

/// Text in which `*` stands for any characters, also none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pattern(String);

impl Pattern {
    /// In time proportional to the product of the lengths at worst: names are bounded.
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        // Where to go on when what came after the last star does not fit.
        let mut star: Option<(usize, usize)> = None;
        while t < text.len() {
            if pattern.get(p) == Some(&b'*') {
                star = Some((p, t));
                p += 1;
            } else if pattern.get(p) == Some(&text[t]) {
                (p, t) = (p + 1, t + 1);
            } else if let Some((at, from)) = star {
                star = Some((at, from + 1));
                (p, t) = (at + 1, from + 1);
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{ContainerKey, Metadata, Pod, Runtime};

    pub fn container(name: &str, runtime: Runtime) -> Container {
        Container {
            key: ContainerKey(1),
            id: "ab".into(),
            name: Some(name.into()),
            image: Some("redis:7".into()),
            image_digest: None,
            runtime,
            pod: None,
            metadata: Metadata::Known,
            cgroups: Vec::new(),
            slots: Vec::new(),
            baseline: None,
            baseline_ns: 0,
            baseline_of_init: false,
            host_root: false,
            made: Default::default(),
            processes: 1,
            created_ns: 0,
            late: false,
        }
    }

    #[test]
    fn a_star_stands_for_anything() {
        let matches = |pattern: &str, text: &str| Pattern(pattern.to_owned()).matches(text);
        for (pattern, text) in [
            ("web", "web"),
            ("*", ""),
            ("*", "anything"),
            ("web-*", "web-"),
            ("web-*", "web-1"),
            ("*/redis:*", "registry.example/library/redis:7"),
            ("a*b*c", "a-b-b-c"),
            ("**a", "aaa"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("web", "web1"), ("", "a"), ("web-*", "we"), ("a*b*c", "a-c-b"), ("*a", "ab"), ("a?", "ab")]
        {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        // What a star could cost: many of them against a text that fits until its last character.
        assert!(!matches(&"a*".repeat(50).repeat(2), &format!("{}b", "a".repeat(90))));
    }

    #[test]
    fn all_that_is_named_must_fit() {
        let container = container("web-1", Runtime::Docker);
        let in_pod = Container {
            pod: Some(Pod { namespace: "shop".into(), name: "web-7f".into(), ..Pod::default() }),
            ..container.clone()
        };
        let pattern = |text: &str| Some(Pattern(text.to_owned()));
        let named = Selector { name: pattern("web-*"), ..Selector::default() };
        let shop = Selector { namespace: pattern("shop"), ..named.clone() };
        assert!(named.selects(&container) && named.selects(&in_pod));
        assert!(!shop.selects(&container) && shop.selects(&in_pod));
        let other = Selector { image: pattern("nginx*"), ..shop };
        assert!(!other.selects(&in_pod));
        let lxc = Selector { runtime: pattern("lxc"), ..Selector::default() };
        assert!(!lxc.selects(&container));
    }
}
