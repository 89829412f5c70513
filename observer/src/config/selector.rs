//! Which containers a part of the configuration is about.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use wildmatch::WildMatch;

use crate::model::Container;

/// All that it names must fit. Names are the runtime's word: whoever may start containers may choose them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, extend("minProperties" = 1))]
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

/// Text in which `*` stands for any characters, also none, and `?` for one.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(with = "String", inline)]
pub struct Pattern(WildMatch);

// What the library compares is text.
impl Eq for Pattern {}

impl Pattern {
    pub fn matches(&self, text: &str) -> bool {
        self.0.matches(text)
    }
}

impl Serialize for Pattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Pattern(WildMatch::new(&text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{limits::testing::container, model::Pod};

    #[test]
    fn all_that_is_named_must_fit() {
        let container =
            Container { name: Some("web-1".into()), image: Some("redis:7".into()), ..container() };
        let in_pod = Container {
            pod: Some(Pod { namespace: "shop".into(), name: "web-7f".into(), ..Pod::default() }),
            ..container.clone()
        };
        let pattern = |text: &str| Some(Pattern(WildMatch::new(text)));
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
