//! The capabilities that Linux knows, by number, with what each allows in a newcomer's words.
//!
//! Numbers and meaning follow include/uapi/linux/capability.h and capabilities(7).

use super::Capability;

const fn capability(number: u8, name: &'static str, allows: &'static str) -> Capability {
    Capability { number, name, allows }
}

/// In the order of their numbers, without a gap.
pub const CAPABILITIES: [Capability; 41] = [
    capability(0, "CAP_CHOWN", "give any file to any user or group"),
    capability(1, "CAP_DAC_OVERRIDE", "read, write and execute any file, whatever its permission bits say"),
    capability(
        2,
        "CAP_DAC_READ_SEARCH",
        "read any file, search any directory, and open files by handle, even outside the own root directory",
    ),
    capability(
        3,
        "CAP_FOWNER",
        "do to any file what only its owner may: chmod, set its times, delete it from /tmp",
    ),
    capability(4, "CAP_FSETID", "keep the set-user-ID and set-group-ID bits of files that are changed"),
    capability(5, "CAP_KILL", "send signals to processes of any user"),
    capability(6, "CAP_SETGID", "become any group, and choose the supplementary groups"),
    capability(7, "CAP_SETUID", "become any user, root included"),
    capability(
        8,
        "CAP_SETPCAP",
        "take capabilities out of the bounding set, make them inheritable, and set the secure bits",
    ),
    capability(9, "CAP_LINUX_IMMUTABLE", "set and clear the immutable and append-only flags (chattr +i, +a)"),
    capability(10, "CAP_NET_BIND_SERVICE", "listen on ports below 1024"),
    capability(11, "CAP_NET_BROADCAST", "nothing: meant for broadcasts and multicast, and never checked"),
    capability(
        12,
        "CAP_NET_ADMIN",
        "configure the network: interfaces, addresses, routes, firewall, promiscuous mode",
    ),
    capability(
        13,
        "CAP_NET_RAW",
        "make packets by hand, with raw and packet sockets (some pings; ARP spoofing as well)",
    ),
    capability(14, "CAP_IPC_LOCK", "keep memory from being swapped out, beyond the limit for that"),
    capability(
        15,
        "CAP_IPC_OWNER",
        "use any System V shared memory, semaphore and message queue, whoever owns it",
    ),
    capability(16, "CAP_SYS_MODULE", "load kernel modules, that is, run any code in the kernel"),
    capability(17, "CAP_SYS_RAWIO", "reach the hardware directly: I/O ports, /dev/mem, raw disk commands"),
    capability(
        18,
        "CAP_SYS_CHROOT",
        "change the root directory (chroot), and join a mount namespace that one may enter",
    ),
    capability(
        19,
        "CAP_SYS_PTRACE",
        "look into and control every process that it can see: trace it, read and write its memory",
    ),
    capability(20, "CAP_SYS_PACCT", "turn process accounting on and off (acct)"),
    capability(
        21,
        "CAP_SYS_ADMIN",
        "most of what root may: mount, join and make namespaces, quotas, swap, BPF, and much more",
    ),
    capability(22, "CAP_SYS_BOOT", "reboot the machine, and load another kernel (kexec)"),
    capability(
        23,
        "CAP_SYS_NICE",
        "raise priorities, use real-time scheduling, and choose the CPUs of any process",
    ),
    capability(24, "CAP_SYS_RESOURCE", "exceed disk quotas and other limits, and raise hard resource limits"),
    capability(25, "CAP_SYS_TIME", "set the system's clock and the hardware clock"),
    capability(26, "CAP_SYS_TTY_CONFIG", "configure terminals, and cut off who uses one (vhangup)"),
    capability(27, "CAP_MKNOD", "make device files (which of them open is for the cgroup's device rules)"),
    capability(28, "CAP_LEASE", "take leases on any file: be told before others open it, and make them wait"),
    capability(29, "CAP_AUDIT_WRITE", "write records into the kernel's audit log"),
    capability(30, "CAP_AUDIT_CONTROL", "turn auditing on and off, and change its rules"),
    capability(31, "CAP_SETFCAP", "give capabilities to files, and map root into a new user namespace"),
    capability(32, "CAP_MAC_OVERRIDE", "pass over mandatory access control (Smack)"),
    capability(
        33,
        "CAP_MAC_ADMIN",
        "change the policy of mandatory access control (AppArmor, SELinux, Smack)",
    ),
    capability(34, "CAP_SYSLOG", "read and clear the kernel's log, and see addresses in the kernel"),
    capability(35, "CAP_WAKE_ALARM", "set alarms that wake the machine from sleep"),
    capability(36, "CAP_BLOCK_SUSPEND", "keep the machine from going to sleep"),
    capability(37, "CAP_AUDIT_READ", "read the audit log as it is written"),
    capability(
        38,
        "CAP_PERFMON",
        "measure and trace the kernel and every process (perf, tracing BPF programs)",
    ),
    capability(39, "CAP_BPF", "load BPF programs; together with CAP_PERFMON, read the kernel's memory"),
    capability(
        40,
        "CAP_CHECKPOINT_RESTORE",
        "save and restore processes: choose process ids, open what others have mapped",
    ),
];
