//! The configuration while the agent runs: read again when it changes, and when SIGHUP says so. A bad one changes nothing.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    config::{Config, DEFAULT_PATH},
    telemetry::{Metrics, log, metrics::ReloadResult},
};

/// The parts that take effect at once.
pub const RELOADED: &[&str] = &["sinks", "exceptions"];

/// What a file looked like: a ConfigMap's file is replaced with its directory, others are written or renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified_ns: i128,
}

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let found = fs::metadata(path).ok()?;
        Some(Stamp {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified_ns: i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec()),
        })
    }
}

/// Where the configuration comes from, and what of it is in use.
pub struct Reloader {
    named: Option<PathBuf>,
    /// With what it was started.
    current: Config,
    stamp: Option<Stamp>,
    metrics: Metrics,
    /// What was already said to need a restart.
    told: Vec<String>,
}

impl Reloader {
    /// `named` is the file that the user has named, if any.
    pub fn new(named: Option<&Path>, current: &Config, metrics: &Metrics) -> Self {
        let mut reloader = Reloader {
            named: named.map(Path::to_owned),
            current: current.clone(),
            stamp: None,
            metrics: metrics.clone(),
            told: Vec::new(),
        };
        reloader.stamp = Stamp::of(reloader.path());
        reloader
    }

    fn path(&self) -> &Path {
        self.named.as_deref().unwrap_or(Path::new(DEFAULT_PATH))
    }

    /// The file is not what it was when it was last read.
    pub fn has_changed(&self) -> bool {
        // A file that is gone for a moment is being replaced.
        Stamp::of(self.path()).is_some_and(|stamp| Some(stamp) != self.stamp)
    }

    /// Reads it again. Gives the configuration to use if it can be used and differs in what takes effect at once.
    pub fn read(&mut self) -> Option<&Config> {
        self.stamp = Stamp::of(self.path());
        let new = match Config::load(self.named.as_deref()) {
            Ok(new) => new,
            Err(error) => {
                self.metrics.config_reload(ReloadResult::Refused);
                log::error!("the configuration cannot be used; the old one stays in use", error);
                return None;
            }
        };
        self.metrics.config_reload(ReloadResult::Taken);
        let needs_restart = differences(&self.current, &new);
        if !needs_restart.is_empty() && needs_restart != self.told {
            log::warn!("changes in the configuration need a restart", keys = needs_restart.join(", "));
        }
        self.told = needs_restart;
        let same = new.sinks == self.current.sinks && new.exceptions == self.current.exceptions;
        (self.current.sinks, self.current.exceptions) = (new.sinks, new.exceptions);
        log::info!("the configuration was read again", changed = !same);
        (!same).then_some(&self.current)
    }
}

/// The keys that differ and take effect only at a start, such as `http.listen`.
fn differences(old: &Config, new: &Config) -> Vec<String> {
    let (Ok(old), Ok(new)) = (serde_json::to_value(old), serde_json::to_value(new)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return found };
    for (key, value) in new.iter().filter(|(key, _)| !RELOADED.contains(&key.as_str())) {
        match (value.as_object(), old.get(key).and_then(|it| it.as_object())) {
            (Some(new), Some(old)) => {
                let differing = new.iter().filter(|(name, value)| old.get(*name) != Some(*value));
                found.extend(differing.map(|(name, _)| format!("{key}.{name}")));
            }
            _ if old.get(key) != Some(value) => found.push(key.clone()),
            _ => {}
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_file_changes_nothing_and_a_good_one_what_can_be_changed() {
        let path = std::env::temp_dir().join(format!("observer-reload-{}.yaml", std::process::id()));
        let write = |text: &str| fs::write(&path, text).expect("written");
        write("node: a\n");
        let metrics = Metrics::new();
        let config = Config::load(Some(&path)).expect("valid");
        let mut reloader = Reloader::new(Some(&path), &config, &metrics);
        assert!(!reloader.has_changed());
        write("node: a\nsinks:\n  - {type: file, name: f, path: relative}\n");
        assert!(reloader.has_changed());
        assert!(reloader.read().is_none() && !reloader.has_changed());
        write("node: b\nhttp: {listen: off}\nsinks:\n  - {type: file, name: f, path: /f}\n");
        let taken = reloader.read().expect("taken");
        assert_eq!((taken.sinks.len(), taken.node.as_deref()), (1, Some("a")));
        assert_eq!(reloader.told, ["http.listen", "node"]);
        assert!(reloader.read().is_none(), "nothing is new");
        fs::remove_file(&path).expect("removed");
        assert!(!reloader.has_changed());
        assert!(reloader.read().is_none());
        let text = metrics.expose(false);
        for series in ["{result=\"refused\"} 2\n", "{result=\"taken\"} 2\n"] {
            assert!(text.contains(&format!("observer_config_reloads_total{series}")), "{text}");
        }
    }

    #[test]
    fn what_is_reloaded_is_a_part_of_the_configuration() {
        let all = serde_json::to_value(Config::default()).expect("plain values");
        assert!(RELOADED.iter().all(|key| all.get(key).is_some()));
    }
}
