//! Namespace tuples.

use std::collections::BTreeMap;

use observer_common::{Inodes, NAMESPACE_NAMES, NAMESPACES, NS_PID_FOR_CHILDREN, NS_TIME_FOR_CHILDREN};

/// One of the ten names of /proc/PID/ns, by its index in alphabetical order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NsType(usize);

impl NsType {
    pub const CGROUP: NsType = NsType(observer_common::NS_CGROUP);
    pub const IPC: NsType = NsType(observer_common::NS_IPC);
    pub const MNT: NsType = NsType(observer_common::NS_MNT);
    pub const NET: NsType = NsType(observer_common::NS_NET);
    pub const PID: NsType = NsType(observer_common::NS_PID);
    pub const PID_FOR_CHILDREN: NsType = NsType(NS_PID_FOR_CHILDREN);
    pub const TIME: NsType = NsType(observer_common::NS_TIME);
    pub const USER: NsType = NsType(observer_common::NS_USER);
    pub const UTS: NsType = NsType(observer_common::NS_UTS);

    pub fn all() -> impl Iterator<Item = NsType> {
        (0..NAMESPACES).map(NsType)
    }

    pub fn index(self) -> usize {
        self.0
    }

    pub fn name(self) -> &'static str {
        NAMESPACE_NAMES[self.0]
    }

    pub fn by_name(name: &str) -> Option<NsType> {
        NAMESPACE_NAMES.iter().position(|n| *n == name).map(NsType)
    }

    /// The type of namespace: `pid_for_children` names a pid namespace.
    pub fn kind(self) -> NsType {
        match self.0 {
            NS_PID_FOR_CHILDREN => NsType(observer_common::NS_PID),
            NS_TIME_FOR_CHILDREN => NsType(observer_common::NS_TIME),
            other => NsType(other),
        }
    }
}

/// Inode numbers of a task's namespaces; 0 means unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct Tuple(pub Inodes);

impl Tuple {
    pub fn get(&self, ns: NsType) -> u32 {
        self.0[ns.0]
    }

    pub fn is_known(&self) -> bool {
        self.0.iter().any(|inode| *inode != 0)
    }

    pub fn iter(&self) -> impl Iterator<Item = (NsType, u32)> + '_ {
        self.0.iter().enumerate().map(|(i, inode)| (NsType(i), *inode))
    }

    /// The types in which two tuples differ; what either does not know is no difference.
    pub fn differences<'a>(&'a self, other: &'a Tuple) -> impl Iterator<Item = NsType> + 'a {
        NsType::all()
            .filter(|ns| self.get(*ns) != 0 && other.get(*ns) != 0 && self.get(*ns) != other.get(*ns))
    }

    /// The same without the types that `host` does not know: nothing can be held against them.
    pub fn as_far_as(mut self, host: &Tuple) -> Tuple {
        for (own, known) in self.0.iter_mut().zip(host.0) {
            if known == 0 {
                *own = 0;
            }
        }
        self
    }

    /// For output: names to inode numbers, unknown ones left out.
    pub fn to_set(&self) -> NamespaceSet {
        self.iter()
            .filter(|(_, inode)| *inode != 0)
            .map(|(ns, inode)| (ns.name().to_owned(), inode))
            .collect()
    }
}

/// A tuple as it is written in JSON, sorted by name.
pub type NamespaceSet = BTreeMap<String, u32>;
