//! An escape in the middle of a flood of forks, execs and unshares on both cores; and that every event is either seen
//! or counted as lost.
//!
//! The independent count is bpftrace's, in the kernel, on sched_process_exec, _fork and _exit, taken with the
//! agent's own at two quiet moments around the flood (see `observer_live::counter`): the differences are exact, not
//! estimates. exec is compared strictly. The agent counts losses by reason and not by kind, so with losses the
//! comparison is one-sided per kind, and exact only over a load that makes nothing but the three counted kinds.
//! Without bpftrace there is still the kernel's own count of tasks made, which is more than the agent's forks.

use crate::{FOUR, assert_escape, lab};
use observer_live::agent::{Agent, Config};
use observer_live::counter::Counter;
use observer_live::host::Guard;
use observer_live::lab::left_out;
use observer_live::metrics::Metrics;
use observer_live::rootfs::{self, UTIL_LINUX};
use observer_live::runc::Container;
use observer_live::spec::Spec;
use observer_live::{host, pace, scratch, wait};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

const FORK_UNSHARE: [&str; 4] = ["--fork", "2", "--unshare", "2"];
const EXEC: [&str; 2] = ["--exec", "2"];

/// How long a flood lasts, which leaves time for an escape in its middle; and for what is expected of a flood where a busy host
/// makes no more than 300 processes a second.
fn seconds() -> String {
    pace::load(10).to_string()
}

/// How long it has run when the escape comes.
const LEAD: Duration = Duration::from_millis(1500);

type Pair = (BTreeMap<String, u64>, Metrics);

/// Both counts, or `None` (said so) on a machine that is never quiet for 300 ms.
fn pair(counter: &Counter, agent: &Agent) -> Option<Pair> {
    let pair = counter.quiet_pair(agent, Duration::from_secs(60));
    if pair.is_none() {
        left_out("the counts", "others keep the machine busy, no 300 ms without an event in 60 s");
    }
    pair
}

/// (independent, seen) of a kind, and what was lost of all kinds, between two pairs.
fn difference(kind: &str, before: &Pair, after: &Pair) -> (u64, u64, u64) {
    let delta =
        |name: &str, labels: &[(&str, &str)]| (after.1.sum(name, labels) - before.1.sum(name, labels)) as u64;
    let independent = after.0[kind] - before.0[kind];
    (independent, delta("observer_events_total", &[("kind", kind)]), delta("observer_events_lost_total", &[]))
}

fn compare(before: &Pair, after: &Pair) {
    for kind in ["exec", "fork", "exit"] {
        let (independent, seen, lost) = difference(kind, before, after);
        println!("{kind}: {independent} counted by bpftrace, {seen} seen, {lost} lost of all kinds");
        assert!(seen <= independent, "{kind}: more seen ({seen}) than there were ({independent})");
        assert!(
            seen + lost >= independent,
            "{kind}: {} neither seen nor counted lost",
            independent - seen - lost
        );
        if lost == 0 {
            assert_eq!(seen, independent, "{kind}");
        }
    }
    let (execs, forks) = (difference("exec", before, after).0, difference("fork", before, after).0);
    assert!(execs > 500 && forks > 2000, "that was no flood: {execs} execs, {forks} forks");
}

/// Runs the flood by `flood`, escapes from `container` in its middle, and expects the one escape; then the counts.
fn escape_under(agent: &Agent, container: &Container, escape: impl FnOnce(u32), end_of_flood: impl FnOnce()) {
    let target = host::target();
    let counter = Counter::start();
    let before = counter.as_ref().and_then(|counter| pair(counter, agent));
    agent.settle();
    let (made, seen) = (host::tasks_made(), agent.events("fork"));
    escape(target.pid());
    let first = agent.wait_for("namespace.escape", &container.id);
    pace::assert_within("the alert in the middle of the flood", first.latency(), Duration::from_secs(1));
    // nsenter may be kept from the CPU between two of its calls for longer than a set of joins is waited for; the
    // alert of the last set has all of them.
    let alert = agent.wait_for_matching("namespace.escape", &container.id, |a| a.changed() == FOUR);
    assert_escape(&alert, container.pid, target.pid(), &FOUR);
    end_of_flood();
    let seen = (agent.events("fork") - seen) as u64;
    // Threads and the kernel's own tasks count as well.
    let made = host::tasks_made() - made;
    println!("{made} tasks made, {seen} forks seen");
    assert!(seen <= made, "more forks seen ({seen}) than tasks were made ({made})");
    assert!(made > u64::from(pace::count(500)), "that was no flood: {made} tasks");
    if let (Some(counter), Some(before)) = (&counter, before)
        && let Some(after) = pair(counter, agent)
    {
        compare(&before, &after);
    }
}

fn nsenter(target: u32) -> String {
    format!("nsenter -t {target} -m -n -u -i sh -c true")
}

/// stress-ng's exec stressor refuses to run as root, so it is somebody else's.
const AS_NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

/// The flood on the host, which has run for a while when this returns.
fn host_flood(as_root: &[&str]) -> [Guard; 2] {
    let temp = scratch::subdir("stress");
    // Its scratch directory must be nobody's too.
    rootfs::run(Command::new("chmod").arg("1777").arg(&temp));
    let mut root = Command::new("stress-ng");
    root.args(as_root);
    let mut nobody = Command::new("setpriv");
    nobody.args(AS_NOBODY).arg("stress-ng").args(EXEC);
    let guards = [root, nobody].map(|mut command| {
        command.args(["--timeout", &seconds(), "--quiet", "--temp-path"]).arg(&temp).current_dir(&temp);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Guard::spawn(&mut command).expect("start stress-ng")
    });
    std::thread::sleep(LEAD);
    guards
}

/// Waits for its own end.
fn end_of(flood: [Guard; 2]) {
    for mut guard in flood {
        let ended = wait::until(Duration::from_secs(20), || guard.child().try_wait().ok().flatten());
        assert!(ended.is_some(), "stress-ng did not end by itself");
    }
}

/// The same as one line for a container's shell, which it keeps busy until its end.
fn flood_line(then: &str) -> String {
    let common = format!("--timeout {} --quiet --temp-path /tmp", seconds());
    format!(
        "cd /tmp; stress-ng {} {common} & {UTIL_LINUX}/setpriv {} stress-ng {} {common} & {then}wait",
        FORK_UNSHARE.join(" "),
        AS_NOBODY.join(" "),
        EXEC.join(" ")
    )
}

#[test]
fn an_escape_during_a_flood_on_the_host() {
    let Some(lab) = lab() else { return };
    let agent = lab.only_agent(Config::new(""));
    let container = lab.container(Spec::privileged("flood-host"));
    let flood = Cell::new(None);
    escape_under(
        &agent,
        &container,
        |target| {
            flood.set(Some(host_flood(&FORK_UNSHARE)));
            container.sh(&nsenter(target)).ok();
        },
        || end_of(flood.take().expect("the flood")),
    );
    agent.stop();
}

#[test]
fn an_escape_during_a_flood_in_another_container() {
    let Some(lab) = lab() else { return };
    let agent = lab.only_agent(Config::new(""));
    let container = lab.container(Spec::privileged("flood-victim"));
    let other = lab.container(Spec::new("flood-other").caps(&["CAP_SYS_ADMIN"]));
    escape_under(
        &agent,
        &container,
        |target| {
            other.shell().start(&flood_line(""));
            std::thread::sleep(LEAD);
            container.sh(&nsenter(target)).ok();
        },
        || drop(other.shell().wait(Duration::from_secs(60))),
    );
    let about_other = agent.alerts_of(&other.id);
    // Where runs of the kernel programs were skipped, what other namespaces a process made may be unknown.
    let whole = agent.lost() == 0.0;
    let escape = |alert: &observer_live::alert::Alert| {
        alert.rule() == "namespace.escape" && (whole || alert.severity() == "critical")
    };
    assert!(!about_other.iter().any(escape), "{about_other:#?}");
    agent.stop();
}

/// The container's own flood must not hide its own escape either.
#[test]
fn an_escape_during_a_flood_in_the_same_container() {
    let Some(lab) = lab() else { return };
    let agent = lab.only_agent(Config::new(""));
    let container = lab.container(Spec::privileged("flood-self"));
    escape_under(
        &agent,
        &container,
        |target| {
            container.shell().start(&flood_line(&format!(
                "sleep {}; {}; ",
                LEAD.as_secs_f64(),
                nsenter(target)
            )));
            std::thread::sleep(LEAD);
        },
        || drop(container.shell().wait(Duration::from_secs(60))),
    );
    agent.stop();
}

/// With an events ring far too small, losses are certain. They are told, in the metrics and by one or more
/// `agent.events_lost`; the escape comes through the other ring; and over a load of forks, execs and exits alone
/// what was seen and what was lost add up to exactly what bpftrace counted.
#[test]
fn every_loss_is_counted() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let agent = lab.only_agent(Config::rings(4096, 65536));
    let container = lab.container(Spec::privileged("flood-small"));
    let counter = Counter::start();
    agent.settle();
    let before = counter.as_ref().and_then(|counter| pair(counter, &agent));
    let flood = host_flood(&["--fork", "2"]);
    container.sh(&nsenter(target.pid())).ok();
    let alert = agent.wait_for_matching("namespace.escape", &container.id, |a| a.changed() == FOUR);
    assert_escape(&alert, container.pid, target.pid(), &FOUR);
    // A ring of one page loses something once its reader stands still: it does not hold what these do, whatever the flood
    // does meanwhile.
    host::signal(agent.pid(), libc::SIGSTOP);
    for _ in 0..50 {
        rootfs::run(&mut Command::new("true"));
    }
    host::signal(agent.pid(), libc::SIGCONT);
    end_of(flood);
    // The metrics follow once a second.
    let lost = wait::until_true(Duration::from_secs(5), || agent.lost() > 0.0);
    assert!(lost, "a ring of one page lost nothing");
    let told = agent.try_wait_for(Duration::from_secs(15), |alert| alert.rule() == "agent.events_lost");
    assert!(told.is_some(), "losses without an agent.events_lost");
    if let (Some(counter), Some(before)) = (&counter, before)
        && let Some(after) = pair(counter, &agent)
    {
        let kinds = ["exec", "fork", "exit"].map(|kind| difference(kind, &before, &after));
        let (independent, seen) = kinds.iter().fold((0, 0), |sum, kind| (sum.0 + kind.0, sum.1 + kind.1));
        let lost = kinds[0].2;
        assert_eq!(seen + lost, independent, "{seen} seen and {lost} lost are not {independent}");
    }
    agent.stop();
}
