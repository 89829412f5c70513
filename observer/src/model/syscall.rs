//! System calls by number and name: those of the 64-bit table of x86-64, the only architecture that the audit of calls knows.

use std::borrow::Cow;

use observer_common::CallSet;
use syscalls::x86_64::Sysno;

/// Its name in the table.
pub fn name(nr: u32) -> Option<&'static str> {
    Sysno::new(nr as usize).map(|call| call.name())
}

/// Its name; the number of one that is newer than the table, or in no table.
pub fn label(nr: u32) -> Cow<'static, str> {
    match name(nr) {
        Some(name) => name.into(),
        None if nr == observer_common::OTHER_CALLS => "other".into(),
        None => nr.to_string().into(),
    }
}

pub fn number(name: &str) -> Option<u32> {
    name.parse::<Sysno>().ok().map(|call| call.id() as u32)
}

/// The names that are known here; profiles also have other architectures' names in them.
pub fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> CallSet {
    let mut set = CallSet::NONE;
    names.into_iter().filter_map(number).for_each(|nr| set.insert(nr));
    set
}

/// Sorted names.
pub fn names(set: &CallSet) -> Vec<Cow<'static, str>> {
    let mut names: Vec<_> = set.iter().map(label).collect();
    names.sort();
    names
}

/// What the profiles that docker and containerd have by default may refuse: everything that is not allowed whatever the
/// arguments are and whatever capabilities the container has. What a kernel does not have is among it, too.
pub fn refused_by_default() -> CallSet {
    set(DENIABLE.split_whitespace())
}

/// Calls whose beginnings are seen from the start: those that the profiles above let pass with some arguments, and those with
/// which attacks begin, for containers of which no declaration is found. Few: at its end the agent waits for each, some 20 ms.
pub fn armed_from_the_start() -> CallSet {
    set(FIRST.split_whitespace())
}

const FIRST: &str = "add_key bpf clone clone3 keyctl mount open_by_handle_at perf_event_open personality pivot_root ptrace \
    setns socket umount2 unshare userfaultfd";

const DENIABLE: &str = "acct add_key bpf cachestat chroot clock_settime clone clone3 delete_module fanotify_init \
    fchmodat2 file_getattr file_setattr finit_module fsconfig fsmount fsopen fspick futex_requeue futex_wait futex_wake \
    get_mempolicy getxattrat init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load \
    kexec_load keyctl listmount listxattrat lookup_dcookie lsm_get_self_attr lsm_list_modules lsm_set_self_attr \
    map_shadow_stack mbind migrate_pages mount mount_setattr move_mount move_pages mseal open_by_handle_at open_tree \
    open_tree_attr perf_event_open personality pidfd_getfd pivot_root process_madvise quotactl quotactl_fd reboot \
    removexattrat request_key set_mempolicy set_mempolicy_home_node setdomainname sethostname setns settimeofday \
    setxattrat socket statmount swapoff swapon sysfs syslog umount2 unshare userfaultfd ustat vhangup";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_names_and_names_numbers() {
        assert_eq!((name(0), name(272), name(511)), (Some("read"), Some("unshare"), None));
        assert_eq!((number("unshare"), number("getpid32"), number("")), (Some(272), None, None));
        assert_eq!(
            (label(39).as_ref(), label(500).as_ref(), label(u32::MAX).as_ref()),
            ("getpid", "500", "other")
        );
    }

    #[test]
    fn names_of_other_tables_are_left_out() {
        let some = set(["write", "socketcall", "read", "read"]);
        assert_eq!(names(&some), ["read", "write"]);
        assert_eq!(some.len(), 2);
        assert!(set([]).is_empty());
    }

    #[test]
    fn what_is_armed_first_has_names() {
        assert_eq!(armed_from_the_start().len(), FIRST.split_whitespace().count());
    }

    #[test]
    fn every_name_of_the_default_is_known() {
        let words: Vec<&str> = DENIABLE.split_whitespace().collect();
        assert!(words.is_sorted(), "{words:?}");
        let unknown: Vec<_> = words.iter().filter(|word| number(word).is_none()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert_eq!(refused_by_default().len(), words.len());
        assert!(!refused_by_default().contains(number("openat").unwrap()));
    }
}
