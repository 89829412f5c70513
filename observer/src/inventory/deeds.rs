//! What one container may do and what it was seen to do, side by side: granted, used, denied, unused.

use observer_common::CallSet;
use serde::Serialize;

use crate::model::{
    CapSet, Capability, CheckedCapability, DeniedAccess, How, Observed, RefusedCall, syscall,
};

/// As far as the agent keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Deeds {
    /// For how long system calls were observed.
    pub seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<CapabilityDeeds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syscalls: Option<CallDeeds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<AppArmorDeeds>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AppArmorDeeds {
    /// For how long denials were read.
    pub seconds: u64,
    /// What was denied, and what would have been.
    pub denied: Vec<DeniedAccess>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CapabilityDeeds {
    /// Whether a use is told from a check that did not mean one. If not, `used` and `denied` are what was checked.
    pub exact: bool,
    /// For how long checks were counted.
    pub seconds: u64,
    /// What its first process holds; absent where that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted: Option<CapSet>,
    pub used: CapSet,
    pub denied: CapSet,
    /// Granted and not used.
    pub unused: CapSet,
    /// How checks ended, and whose the first was.
    pub checks: Vec<CheckedCapability>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CallDeeds {
    /// How many its declared filter lets pass whatever the arguments; absent where no declaration was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted: Option<usize>,
    pub used: Vec<String>,
    /// Empty where refusals are not counted.
    pub refused: Vec<RefusedCall>,
    pub refusals_counted: bool,
    /// Granted and not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unused: Option<usize>,
}

impl Deeds {
    /// `None` if nothing of the container is kept.
    pub fn of(
        observed: &Observed,
        id: &str,
        allowed: Option<&CallSet>,
        held: Option<CapSet>,
    ) -> Option<Deeds> {
        let container = observed.containers.iter().find(|container| container.id == id)?;
        let named = |pick: fn(&(u64, u64)) -> bool| {
            let checked = container.capabilities.iter().filter(|it| pick(&(it.granted, it.denied)));
            let known = checked.filter_map(|it| Capability::by_name(&it.capability));
            known.fold(CapSet::EMPTY, |set, capability| set | capability.set())
        };
        let capabilities = observed.capabilities.then(|| {
            let (used, denied) = (named(|(granted, _)| *granted > 0), named(|(_, denied)| *denied > 0));
            let unused = held.map_or(CapSet::EMPTY, |held| held.without(used));
            CapabilityDeeds {
                exact: observed.capabilities_classified,
                seconds: container.capabilities_seconds,
                granted: held,
                used,
                denied,
                unused,
                checks: container.capabilities.clone(),
            }
        });
        let syscalls = observed.syscalls.then(|| {
            let known = allowed.map(|allowed| allowed.iter().filter(|nr| syscall::name(*nr).is_some()));
            let granted = known.map(|known| known.collect::<Vec<u32>>());
            let used =
                |nr: &&u32| container.syscalls.binary_search(&syscall::label(**nr).into_owned()).is_ok();
            CallDeeds {
                unused: granted.as_ref().map(|granted| granted.iter().filter(|nr| !used(nr)).count()),
                granted: granted.map(|granted| granted.len()),
                used: container.syscalls.clone(),
                refused: container.refused.clone(),
                refusals_counted: observed.seccomp,
            }
        });
        let apparmor = observed.apparmor.then(|| AppArmorDeeds {
            seconds: container.apparmor_seconds,
            denied: container.apparmor.clone(),
        });
        Some(Deeds { seconds: container.seconds, capabilities, syscalls, apparmor })
    }
}

impl CallDeeds {
    /// Calls that were refused, however; not those of which that is not known.
    pub fn denied(&self) -> usize {
        self.refused.iter().filter(|refused| refused.how != How::Unclassified).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ObservedContainer;

    fn observed() -> Observed {
        let checked = |name: &str, granted, denied| CheckedCapability {
            capability: name.into(),
            granted,
            denied,
            ..CheckedCapability::default()
        };
        let refused =
            |syscall: &str, how| RefusedCall { syscall: syscall.into(), how, ..RefusedCall::default() };
        Observed {
            syscalls: true,
            seccomp: true,
            capabilities: true,
            capabilities_classified: true,
            apparmor: true,
            containers: vec![ObservedContainer {
                id: "web".into(),
                seconds: 60,
                capabilities_seconds: 50,
                syscalls: vec!["close".into(), "read".into()],
                refused: vec![refused("mount", How::Denied), refused("openat", How::Unclassified)],
                capabilities: vec![
                    checked("CAP_CHOWN", 2, 0),
                    checked("CAP_SYS_ADMIN", 0, 1),
                    checked("63", 1, 1),
                ],
                apparmor_seconds: 40,
                apparmor: vec![DeniedAccess { what: "/etc/shadow".into(), ..DeniedAccess::default() }],
                ..ObservedContainer::default()
            }],
        }
    }

    #[test]
    fn granted_less_used_is_unused() {
        let allowed = syscall::set(["read", "write", "close", "openat"]);
        let deeds = Deeds::of(&observed(), "web", Some(&allowed), Some(CapSet::of(&[0, 1]))).unwrap();
        let capabilities = deeds.capabilities.unwrap();
        assert_eq!((capabilities.used, capabilities.denied), (CapSet::of(&[0]), CapSet::of(&[21])));
        assert_eq!(capabilities.unused, CapSet::of(&[1]));
        assert_eq!((capabilities.seconds, capabilities.checks.len()), (50, 3));
        let calls = deeds.syscalls.unwrap();
        assert_eq!((calls.granted, calls.unused, calls.denied()), (Some(4), Some(2), 1));
        let apparmor = deeds.apparmor.unwrap();
        assert_eq!((apparmor.seconds, apparmor.denied.len()), (40, 1));
    }

    #[test]
    fn what_is_not_known_is_not_claimed() {
        assert_eq!(Deeds::of(&observed(), "db", None, None), None);
        let none = Observed { syscalls: false, capabilities: false, apparmor: false, ..observed() };
        let deeds = Deeds::of(&none, "web", None, None).unwrap();
        assert_eq!((deeds.capabilities, deeds.syscalls, deeds.apparmor), (None, None, None));
        let calls = Deeds::of(&observed(), "web", None, None).unwrap().syscalls.unwrap();
        assert_eq!((calls.granted, calls.unused), (None, None));
        // All, as where there is no filter, are those that have names.
        let all = Deeds::of(&observed(), "web", Some(&CallSet::ALL), None).unwrap().syscalls.unwrap();
        assert!((350..512).contains(&all.granted.unwrap()));
    }
}
