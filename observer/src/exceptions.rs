//! Alerts that an operator has decided not to want: each exception has a reason and an end, and what it hides is counted.
//!
//! Never by `comm`, which processes choose; an executable's path counts only together with the image that it is from. What
//! the agent says of itself is never hidden.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use jiff::{Timestamp, civil::Date, tz::Offset};
use wildmatch::WildMatch;

use crate::{
    config::ExceptionConfig,
    model::Alert,
    telemetry::{Metrics, log},
};

/// Rules that speak of the agent.
const OWN_RULES: &str = "agent.";

/// Those that apply; a clone is the same ones.
#[derive(Clone)]
pub struct Exceptions {
    list: Arc<Mutex<Arc<[Exception]>>>,
    metrics: Metrics,
}

struct Exception {
    name: String,
    /// The last day.
    expires: Date,
    rules: Vec<WildMatch>,
    images: Vec<WildMatch>,
    image_digests: Vec<String>,
    containers: Vec<WildMatch>,
    namespaces: Vec<WildMatch>,
    executables: Vec<String>,
    /// Its end was told.
    told: AtomicBool,
}

impl Exceptions {
    pub fn new(list: &[ExceptionConfig], metrics: &Metrics) -> Self {
        let exceptions = Exceptions { list: Arc::new(Mutex::new(Arc::from([]))), metrics: metrics.clone() };
        exceptions.reload(list);
        exceptions
    }

    /// From now on these, and no others.
    pub fn reload(&self, list: &[ExceptionConfig]) {
        let new: Arc<[Exception]> = list.iter().map(Exception::new).collect();
        let today = today();
        for exception in new.iter() {
            self.metrics.exception(&exception.name, 0);
            exception.is_over(today);
        }
        let old = std::mem::replace(&mut *self.list.lock().unwrap_or_else(PoisonError::into_inner), new);
        for gone in old.iter().filter(|old| !list.iter().any(|it| it.name == old.name)) {
            self.metrics.forget_exception(&gone.name);
        }
    }

    /// Whether one of them hides this alert; then it is counted.
    pub fn hide(&self, alert: &Alert) -> bool {
        let list = Arc::clone(&self.list.lock().unwrap_or_else(PoisonError::into_inner));
        if list.is_empty() {
            return false;
        }
        let today = today();
        let hiding = list.iter().find(|it| it.fits(alert) && !it.is_over(today));
        if let Some(exception) = hiding {
            self.metrics.exception(&exception.name, 1);
        }
        hiding.is_some()
    }
}

fn today() -> Date {
    Offset::UTC.to_datetime(Timestamp::now()).date()
}

impl Exception {
    fn new(config: &ExceptionConfig) -> Self {
        let patterns = |list: &[String]| list.iter().map(|it| WildMatch::new(it)).collect();
        Exception {
            name: config.name.clone(),
            expires: config.expires,
            rules: patterns(&config.rules),
            images: patterns(&config.images),
            image_digests: config.image_digests.clone(),
            containers: patterns(&config.containers),
            namespaces: patterns(&config.namespaces),
            executables: config.executables.clone(),
            told: AtomicBool::new(false),
        }
    }

    fn is_over(&self, today: Date) -> bool {
        let over = today > self.expires;
        if over && !self.told.swap(true, Ordering::Relaxed) {
            log::warn!(
                "an exception has expired; what it hid is told again",
                exception = self.name,
                expired = self.expires
            );
        }
        over
    }

    fn fits(&self, alert: &Alert) -> bool {
        let container = alert.container.as_ref();
        let pod = container.and_then(|it| it.pod.as_ref());
        let one_of = |patterns: &[WildMatch], text: Option<&str>| {
            patterns.is_empty() || text.is_some_and(|text| patterns.iter().any(|it| it.matches(text)))
        };
        let same = |list: &[String], text: Option<&str>| {
            list.is_empty() || text.is_some_and(|text| list.iter().any(|it| it == text))
        };
        !alert.rule.starts_with(OWN_RULES)
            && one_of(&self.rules, Some(&alert.rule))
            && one_of(&self.images, container.and_then(|it| it.image.as_deref()))
            && one_of(&self.containers, container.and_then(|it| it.name.as_deref()))
            && one_of(&self.namespaces, pod.map(|it| it.namespace.as_str()))
            && same(&self.image_digests, container.and_then(|it| it.image_digest.as_deref()))
            && same(&self.executables, alert.process.as_ref().and_then(|it| it.exe.as_deref()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{config::Config, delivery::full_alert};

    fn config(text: &str) -> Vec<ExceptionConfig> {
        let text = format!("exceptions:\n  - {{name: e, reason: r, {text}}}");
        Config::parse(Path::new("t"), &text).expect(&text).exceptions
    }

    #[test]
    fn everything_that_is_named_must_fit() {
        // namespace.escape by /usr/bin/nsenter in "web", image registry.example/web:1.2@..., namespace "shop".
        let digest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        let other = format!("sha256:{}", "b".repeat(64));
        let mut alert = full_alert();
        alert.container.as_mut().expect("a container").image_digest = Some(digest.to_owned());
        let own = Alert { rule: "agent.events_lost".into(), ..alert.clone() };
        let host = Alert { container: None, ..alert.clone() };
        for (text, expected) in [
            ("rules: [namespace.escape]".to_owned(), true),
            ("rules: [root.*]".to_owned(), false),
            ("images: [\"registry.example/web:*\"]".to_owned(), true),
            ("images: [web]".to_owned(), false),
            ("containers: [w*]".to_owned(), true),
            ("containers: [nsenter]".to_owned(), false),
            ("namespaces: [shop, test]".to_owned(), true),
            ("namespaces: [shop], rules: [root.escape]".to_owned(), false),
            (format!("image_digests: [\"{digest}\"]"), true),
            (format!("image_digests: [\"{other}\"]"), false),
            (format!("image_digests: [\"{digest}\"], executables: [/usr/bin/nsenter]"), true),
            (format!("image_digests: [\"{other}\"], executables: [/usr/bin/nsenter]"), false),
            (format!("image_digests: [\"{digest}\"], executables: [/usr/bin/other]"), false),
        ] {
            let metrics = Metrics::new();
            let exceptions = Exceptions::new(&config(&format!("expires: 9999-12-31, {text}")), &metrics);
            assert_eq!(exceptions.hide(&alert), expected, "{text}");
            assert!(!exceptions.hide(&own), "{text}");
            assert_eq!(exceptions.hide(&host), expected && text == "rules: [namespace.escape]", "{text}");
        }
        let any = Exceptions::new(&config("expires: 9999-12-31, rules: [\"*\"]"), &Metrics::new());
        assert!(any.hide(&alert) && !any.hide(&own));
    }

    #[test]
    fn they_are_counted_end_and_can_be_changed() {
        let metrics = Metrics::new();
        let exceptions = Exceptions::new(&config("expires: 9999-12-31, rules: [\"*\"]"), &metrics);
        let alert = full_alert();
        assert!(exceptions.hide(&alert) && exceptions.hide(&alert));
        assert!(metrics.expose(false).contains("observer_exceptions_total{exception=\"e\"} 2\n"));
        exceptions.reload(&config("expires: 2020-01-01, rules: [\"*\"]"));
        assert!(!exceptions.hide(&alert), "it has expired");
        assert!(metrics.expose(false).contains("observer_exceptions_total{exception=\"e\"} 2\n"));
        exceptions.reload(&[]);
        assert!(!exceptions.hide(&alert));
        assert!(!metrics.expose(false).contains("exception=\"e\""));
        let today = today();
        let last = Exception::new(&ExceptionConfig {
            expires: today,
            ..config("expires: 2020-01-01, rules: [\"*\"]").remove(0)
        });
        assert!(!last.is_over(today) && last.is_over(today.tomorrow().expect("a day")));
    }
}
