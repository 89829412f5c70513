//! Containers' resources, again and again, with rates between one time and the next.

use std::{collections::HashMap, time::Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Parts, Rates, Reader, Reading};
use crate::{
    host::Hierarchy,
    model::{
        Clock,
        resources::{Resources, Unread},
    },
};

/// Name and version of what [`Sample`] is written as.
pub const SCHEMA: &str = "observer.top/1";

/// A container to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub id: String,
    pub name: Option<String>,
    pub runtime: String,
    /// (hierarchy, path), as in /proc/PID/cgroup.
    pub cgroups: Vec<(u32, String)>,
}

/// One look at all containers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    pub schema: String,
    /// RFC 3339.
    pub time: String,
    pub containers: Vec<Sampled>,
    /// What could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<Unread>,
}

/// A container, read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sampled {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub runtime: String,
    pub resources: Resources,
    /// Since the sample before; empty in a container's first.
    pub rates: Rates,
}

/// Reads, and remembers what it read last.
#[derive(Debug)]
pub struct Sampler {
    reader: Reader,
    /// By container id.
    last: HashMap<String, Reading>,
}

/// Files that stay open from one sample to the next: half of the limit of 1,024 that a login shell has.
const KEEP_OPEN: usize = 512;

impl Sampler {
    pub fn new(hierarchies: &[Hierarchy]) -> Self {
        Sampler { reader: Reader::new(hierarchies).keep_open(KEEP_OPEN), last: HashMap::new() }
    }

    /// Reads these containers. Those that were not there the last time have no rates yet.
    pub fn sample(&mut self, rows: Vec<Row>) -> Sample {
        self.reader.new_round();
        let mut containers = Vec::with_capacity(rows.len());
        let mut unread = Vec::new();
        let mut readings = HashMap::with_capacity(rows.len());
        for row in rows {
            let at = Instant::now();
            let (resources, failed) = self.reader.read(&row.cgroups, Parts::USAGE);
            unread.extend(failed);
            let reading = Reading { at, resources };
            let before = self.last.get(&row.id);
            let rates = before.map(|before| Rates::between(before, &reading)).unwrap_or_default();
            containers.push(Sampled {
                id: row.id.clone(),
                name: row.name,
                runtime: row.runtime,
                resources: reading.resources.clone(),
                rates,
            });
            readings.insert(row.id, reading);
        }
        self.last = readings;
        let time = Clock::now().rfc3339(Clock::boot_ns());
        Sample { schema: SCHEMA.to_owned(), time, containers, unread }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn rates_are_by_container_and_begin_with_the_second_sample() {
        let root = std::env::temp_dir().join(format!("observer-sampler-{}", std::process::id()));
        let write = |name: &str, usage_us: u64| {
            fs::create_dir_all(root.join(name)).expect("make a cgroup");
            let stat = format!("usage_usec {usage_us}\nuser_usec 0\nsystem_usec 0\n");
            fs::write(root.join(name).join("cpu.stat"), stat).expect("write cpu.stat");
        };
        let row = |name: &str| Row {
            id: name.to_owned(),
            name: None,
            runtime: "runc".to_owned(),
            cgroups: vec![(0, format!("/{name}"))],
        };
        let hierarchy = Hierarchy { id: 0, controllers: Vec::new(), mount: root.clone() };
        let mut sampler = Sampler::new(&[hierarchy]);
        let (mut a, mut b) = (row("a"), row("b"));
        write("a", 1_000_000);
        write("b", 1_000_000);
        let first = sampler.sample(vec![a.clone(), b.clone()]);
        assert!(first.containers.iter().all(|it| it.rates == Rates::default()), "{first:?}");
        assert_eq!(first.containers.len(), 2);

        // Another order, and a counter that began anew.
        write("a", 5);
        write("b", 61_000_000);
        let second = sampler.sample(vec![b.clone(), a.clone()]);
        let cpu = |sample: &Sample, id: &str| {
            sample.containers.iter().find(|it| it.id == id).expect("the container").rates.cpu_percent
        };
        assert_eq!(cpu(&second, "a"), None);
        assert!(cpu(&second, "b").is_some_and(|percent| percent > 100.0), "{second:?}");

        // Gone for a sample, a container is new.
        sampler.sample(vec![b.clone()]);
        let third = sampler.sample(vec![a.clone(), b.clone()]);
        assert_eq!(cpu(&third, "a"), None);
        assert_eq!(cpu(&third, "b"), Some(0.0));

        // Under another id, the same cgroup is another container.
        b.id = "c".to_owned();
        a.cgroups.clear();
        let fourth = sampler.sample(vec![a, b]);
        assert_eq!((cpu(&fourth, "c"), cpu(&fourth, "a")), (None, None));
        fs::remove_dir_all(root).expect("remove");
    }
}
