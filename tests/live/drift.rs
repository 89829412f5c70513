//! A task's pointer to its namespaces is overwritten by no system call at all, as an exploit of the kernel does it.

use crate::{FOUR, assert_escape, lab};
use observer_live::agent::Agent;
use observer_live::alert::Alert;
use observer_live::kernel_memory::Kernel;
use observer_live::runc::Container;
use observer_live::spec::Spec;
use observer_live::{host, wait};
use std::io;
use std::time::{Duration, Instant};

/// Two sweeps of all tasks, 5 s apart, see a change that nothing else shows; emulation takes its time besides.
const FOUND_WITHIN: Duration = Duration::from_secs(30);

/// A namespace of nobody's that we know: a warning, and what it changed. Given back, nothing more.
#[test]
fn a_pointer_to_unknown_namespaces_is_drift() {
    let Some(lab) = lab() else { return };
    let Some(kernel) = Kernel::open() else { return };
    let agent = lab.agent();
    let container = lab.container(Spec::new("drift"));
    let victim = sleeper(&container);
    let stranger = Stranger::in_namespaces_of(container.pid);
    agent.settle();
    let lent = kernel.lend_namespaces(stranger.pid, victim);
    assert_eq!(host::namespace(victim, "uts"), host::namespace(stranger.pid, "uts"));
    let alert = first_alert(&agent, &container);
    assert_eq!((alert.rule(), alert.severity()), ("namespace.drift", "warning"), "{}", alert.line);
    assert_eq!(alert.changed(), ["uts"], "{}", alert.line);
    assert_eq!(alert.host(), [""; 0], "{}", alert.line);
    let uts = |which| alert.tuple(which).get("uts").copied();
    assert_eq!(uts("expected"), host::namespace(container.pid, "uts"), "{}", alert.line);
    assert_eq!(uts("actual"), host::namespace(stranger.pid, "uts"), "{}", alert.line);
    assert_unseen(&alert, victim);
    drop(lent);
    settle(&agent);
    agent.assert_only(&[("namespace.drift", "warning", &container.id)]);
    agent.finish();
}

/// The host's: critical, whatever door it was.
#[test]
fn a_pointer_to_the_hosts_namespaces_is_an_escape() {
    let Some(lab) = lab() else { return };
    let Some(kernel) = Kernel::open() else { return };
    let agent = lab.agent();
    let container = lab.container(Spec::new("rewritten"));
    let victim = sleeper(&container);
    agent.settle();
    let lent = kernel.lend_namespaces(1, victim);
    assert_eq!(host::namespace(victim, "mnt"), host::namespace(1, "mnt"));
    let alert = first_alert(&agent, &container);
    assert_eq!(alert.rule(), "namespace.escape", "{}", alert.line);
    // All that the pointer leads to; a task's own pid namespace and user namespace are elsewhere.
    assert_escape(&alert, container.pid, 1, &["ipc", "mnt", "net", "pid_for_children", "uts"]);
    assert_unseen(&alert, victim);
    drop(lent);
    settle(&agent);
    agent.assert_only(&[("namespace.escape", "critical", &container.id)]);
    agent.finish();
}

/// A task that goes on to start a program is found at its fork, without a sweep. The container shares the host's pid
/// namespace: with that of its own, the host's would have its shell take itself for its own child.
#[test]
fn a_rewritten_task_is_found_when_it_forks() {
    let Some(lab) = lab() else { return };
    let Some(kernel) = Kernel::open() else { return };
    let agent = lab.agent();
    let container = lab.container(Spec::new("forks").host_pid());
    agent.settle();
    let lent = kernel.lend_namespaces(1, container.pid);
    container.sh("true; sh -c true").ok();
    agent.settle();
    // Its children are where it is, and that is no other change.
    agent.assert_only(&[("namespace.escape", "critical", &container.id)]);
    let alert = first_alert(&agent, &container);
    assert_unseen(&alert, container.pid);
    drop(lent);
    assert_escape(&alert, container.pid, 1, &FOUR);
    settle(&agent);
    agent.assert_only(&[("namespace.escape", "critical", &container.id)]);
    agent.finish();
}

/// A word of a process's credentials is overwritten, too: it is permitted what its container was never given. Its next child
/// shows it, and what that child executes is its container's again.
#[test]
fn rewritten_credentials_are_capabilities_out_of_nowhere() {
    const SYS_ADMIN: u64 = 1 << 21;
    let Some(lab) = lab() else { return };
    let Some(kernel) = Kernel::open() else { return };
    let agent = lab.agent();
    let container = lab.container(Spec::new("gained"));
    container.sh("true; sh -c true").ok();
    agent.settle();
    agent.assert_nothing();
    let lent = kernel.lend_capabilities(container.pid, SYS_ADMIN);
    container.sh("true; sh -c true").ok();
    let alert = first_alert(&agent, &container);
    assert_eq!((alert.rule(), alert.severity()), ("capability.gained", "critical"), "{}", alert.line);
    assert_eq!(alert.pid(), Some(container.pid), "{}", alert.line);
    assert_eq!(alert.text("/evidence/capabilities/against"), "held", "{}", alert.line);
    assert_eq!(alert.json["evidence"]["capabilities"]["gained"], serde_json::json!(["CAP_SYS_ADMIN"]));
    drop(lent);
    container.sh("true; sh -c true").ok();
    settle(&agent);
    agent.assert_only(&[("capability.gained", "critical", &container.id)]);
    agent.finish();
}

/// The first alert about a container, and how long it took.
fn first_alert(agent: &Agent, container: &Container) -> Alert {
    let started = Instant::now();
    let alert = agent.try_wait_for(FOUND_WITHIN, |alert| alert.container() == Some(&container.id));
    let alert = alert.expect("a rewritten task went unseen");
    println!("found after {:.1} s: {}", (alert.received - started).as_secs_f64(), alert.summary());
    alert
}

/// Lives through two sweeps: a difference counts when the second finds it still.
fn settle(agent: &Agent) {
    agent.settle_through_sweep();
    agent.settle_through_sweep();
}

/// The task that was rewritten, found while it lives on, and no call that explains it.
fn assert_unseen(alert: &Alert, victim: u32) {
    assert_eq!(alert.text("/evidence/door"), "unseen", "{}", alert.line);
    assert_eq!(alert.pid(), Some(victim), "{}", alert.line);
    assert_eq!(alert.text("/attribution"), "exact", "{}", alert.line);
    assert!(host::alive(victim), "the process was to be alive still: {}", alert.line);
}

/// A process of the container that neither forks, executes nor ends.
fn sleeper(container: &Container) -> u32 {
    container.sh("sleep 1000 &").ok();
    let asleep = wait::until(Duration::from_secs(10), || {
        let is_sleep =
            |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c == "sleep\n");
        host::descendants(container.pid).into_iter().find(is_sleep)
    });
    asleep.expect("the container's sleeping process")
}

/// A process of the host's in a container's namespaces, except for one that it has made itself. So its namespaces are
/// the container's and one that is neither the host's nor any container's. It executes nothing there: that would be
/// `namespace.entered`.
struct Stranger {
    pid: u32,
}

impl Stranger {
    fn in_namespaces_of(init: u32) -> Self {
        // SAFETY: plain integers.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, init, 0) } as i32;
        assert!(pidfd >= 0, "pidfd_open: {}", io::Error::last_os_error());
        // SAFETY: the child of a process with threads may only call what is async-signal-safe; these are bare calls.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "fork: {}", io::Error::last_os_error());
        if child == 0 {
            // SAFETY: plain integers; never returns.
            unsafe { live_in(pidfd) }
        }
        // SAFETY: our own descriptor, used no more.
        unsafe { libc::close(pidfd) };
        let stranger = Self { pid: child as u32 };
        let uts = |pid| host::namespace(pid, "uts");
        let others = [uts(init), uts(std::process::id())];
        let moved = wait::until_true(Duration::from_secs(10), || {
            uts(stranger.pid).is_some() && !others.contains(&uts(stranger.pid))
        });
        assert!(moved, "the stranger is in no namespace of its own");
        stranger
    }
}

/// The stranger's life.
unsafe fn live_in(pidfd: i32) -> ! {
    let those =
        libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWNET | libc::CLONE_NEWPID;
    // SAFETY: plain integers.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::setns(pidfd, those) != 0 || libc::unshare(libc::CLONE_NEWUTS) != 0 {
            libc::_exit(1);
        }
        loop {
            libc::pause();
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        host::signal(self.pid, libc::SIGKILL);
        host::reap(self.pid);
    }
}
