//! When a container's use of its resources is worth an alert: for all containers, and for some.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::{
    selector::Selector,
    values::{self, Percent, Switch},
};

/// `limits` of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Read the containers' cgroups at all.
    pub enabled: bool,
    /// How often all of them are read.
    #[serde(deserialize_with = "values::period_seconds")]
    #[schemars(range(min = values::PERIOD_SECONDS.min, max = values::PERIOD_SECONDS.max))]
    pub poll_seconds: u64,
    /// A condition must be gone for so long before it is told to have ended.
    #[serde(deserialize_with = "values::duration_seconds")]
    #[schemars(range(min = values::DURATION_SECONDS.min, max = values::DURATION_SECONDS.max))]
    pub resolve_seconds: u64,
    /// Tell when somebody changes a limit of a running container.
    pub changes: bool,
    /// When a container's memory is worth an alert.
    pub memory: MemoryThresholds,
    /// When a container's want of CPU is worth an alert.
    pub cpu: CpuThresholds,
    /// When a container's number of tasks is worth an alert.
    pub pids: PidsThresholds,
    /// Other thresholds for some containers. All that fit hold, later ones over earlier ones.
    pub overrides: Vec<Override>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            enabled: true,
            poll_seconds: 5,
            resolve_seconds: 15,
            changes: true,
            memory: MemoryThresholds::default(),
            cpu: CpuThresholds::default(),
            pids: PidsThresholds::default(),
            overrides: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryThresholds {
    /// Tell when the limit is met and the kernel has to reclaim.
    pub at_limit: bool,
    /// Tell when the working set has been above this share of the limit for `near_seconds`.
    pub near_percent: Switch<Percent>,
    /// For how long the working set must have been there.
    #[serde(deserialize_with = "values::duration_seconds")]
    #[schemars(range(min = values::DURATION_SECONDS.min, max = values::DURATION_SECONDS.max))]
    pub near_seconds: u64,
}

impl Default for MemoryThresholds {
    fn default() -> Self {
        MemoryThresholds { at_limit: true, near_percent: Switch::On(Percent(90)), near_seconds: 30 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CpuThresholds {
    /// Tell when the quota ran out in more than this share of the periods for `throttled_seconds`.
    pub throttled_percent: Switch<Percent>,
    /// For how long the quota must have run out so often.
    #[serde(deserialize_with = "values::duration_seconds")]
    #[schemars(range(min = values::DURATION_SECONDS.min, max = values::DURATION_SECONDS.max))]
    pub throttled_seconds: u64,
}

impl Default for CpuThresholds {
    fn default() -> Self {
        CpuThresholds { throttled_percent: Switch::On(Percent(50)), throttled_seconds: 30 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PidsThresholds {
    /// Tell when forks are refused for want of pids.
    pub at_limit: bool,
    /// Tell when a container gains more tasks a second than this, from one reading to the next.
    pub growth_per_second: Switch<values::PerSecond>,
}

impl Default for PidsThresholds {
    fn default() -> Self {
        PidsThresholds { at_limit: true, growth_per_second: Switch::On(values::PerSecond(200)) }
    }
}

/// Thresholds for some containers; what is absent stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, extend("minProperties" = 2))]
pub struct Override {
    /// Which these are.
    pub containers: Selector,
    /// Instead of `limits.changes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<bool>,
    /// Instead of what `limits.memory` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryOverride>,
    /// Instead of what `limits.cpu` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuOverride>,
    /// Instead of what `limits.pids` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<PidsOverride>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryOverride {
    /// Instead of `limits.memory.at_limit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_limit: Option<bool>,
    /// Instead of `limits.memory.near_percent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near_percent: Option<Switch<Percent>>,
    /// Instead of `limits.memory.near_seconds`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values::some_seconds")]
    #[schemars(range(min = values::DURATION_SECONDS.min, max = values::DURATION_SECONDS.max))]
    pub near_seconds: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CpuOverride {
    /// Instead of `limits.cpu.throttled_percent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_percent: Option<Switch<Percent>>,
    /// Instead of `limits.cpu.throttled_seconds`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values::some_seconds")]
    #[schemars(range(min = values::DURATION_SECONDS.min, max = values::DURATION_SECONDS.max))]
    pub throttled_seconds: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PidsOverride {
    /// Instead of `limits.pids.at_limit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_limit: Option<bool>,
    /// Instead of `limits.pids.growth_per_second`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth_per_second: Option<Switch<values::PerSecond>>,
}

impl<'de> Deserialize<'de> for Override {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            containers: Selector,
            changes: Option<bool>,
            memory: Option<MemoryOverride>,
            cpu: Option<CpuOverride>,
            pids: Option<PidsOverride>,
        }
        let Raw { containers, changes, memory, cpu, pids } = Raw::deserialize(deserializer)?;
        if changes.is_none() && memory.is_none() && cpu.is_none() && pids.is_none() {
            return Err(D::Error::custom(
                "an override that changes nothing, expected changes, memory, cpu or pids",
            ));
        }
        Ok(Override { containers, changes, memory, cpu, pids })
    }
}

/// What holds for one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds {
    pub resolve_seconds: u64,
    pub changes: bool,
    pub memory: MemoryThresholds,
    pub cpu: CpuThresholds,
    pub pids: PidsThresholds,
}

impl Limits {
    pub fn of(&self, container: &crate::model::Container) -> Thresholds {
        let mut found = Thresholds {
            resolve_seconds: self.resolve_seconds,
            changes: self.changes,
            memory: self.memory.clone(),
            cpu: self.cpu.clone(),
            pids: self.pids.clone(),
        };
        for other in self.overrides.iter().filter(|other| other.containers.selects(container)) {
            set(&mut found.changes, other.changes);
            if let Some(memory) = &other.memory {
                set(&mut found.memory.at_limit, memory.at_limit);
                set(&mut found.memory.near_percent, memory.near_percent);
                set(&mut found.memory.near_seconds, memory.near_seconds);
            }
            if let Some(cpu) = &other.cpu {
                set(&mut found.cpu.throttled_percent, cpu.throttled_percent);
                set(&mut found.cpu.throttled_seconds, cpu.throttled_seconds);
            }
            if let Some(pids) = &other.pids {
                set(&mut found.pids.at_limit, pids.at_limit);
                set(&mut found.pids.growth_per_second, pids.growth_per_second);
            }
        }
        found
    }
}

impl Limits {
    /// The lowest share of the memory limit at which anything is to be told; 100 if nothing is.
    pub fn lowest_near_percent(&self) -> u64 {
        let others = self.overrides.iter().filter_map(|other| other.memory.as_ref()?.near_percent);
        let all = std::iter::once(self.memory.near_percent).chain(others);
        all.filter_map(Switch::on).map(|percent| percent.0).min().unwrap_or(100)
    }
}

fn set<T>(value: &mut T, other: Option<T>) {
    if let Some(other) = other {
        *value = other;
    }
}
