//! The same under a flood of forks, execs and unshares on both cores, on the host and inside another container; and
//! what is lost in it.

use crate::figure::Figure;
use crate::latency::{self, Attack, Latencies, Scene};
use crate::{Result, machine, stats};
use observer_live::agent::Agent;
use observer_live::host::Guard;
use observer_live::lab::Lab;
use observer_live::metrics::Metrics;
use observer_live::rootfs::{self, UTIL_LINUX};
use observer_live::runc::Container;
use observer_live::spec::Spec;
use observer_live::{host, scratch, wait};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

// As in the live tests (tests/live/flood.rs). stress-ng's exec stressor refuses to run as root, so it is nobody's.
const FORK_UNSHARE: [&str; 4] = ["--fork", "2", "--unshare", "2"];
const EXEC: [&str; 2] = ["--exec", "2"];
const AS_NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];
/// It is ended before; this is for a bench that is killed.
const TIMEOUT: &str = "100";

const ATTACKS: usize = 150;
/// For one series, if the machine is too slow for all of it.
const SERIES: Duration = Duration::from_secs(25);
/// The losses are counted over so long at least.
const AT_LEAST: Duration = Duration::from_secs(10);

/// A flood; over when dropped.
pub enum Flood {
    Host([Guard; 2]),
    Container { _inside: Box<Container> },
}

impl Flood {
    pub fn on_host() -> Result<Self> {
        let temp = scratch::subdir("stress");
        // Its scratch directory must be nobody's too.
        rootfs::run(Command::new("chmod").arg("1777").arg(&temp));
        let mut root = Command::new("stress-ng");
        root.args(FORK_UNSHARE);
        let mut nobody = Command::new("setpriv");
        nobody.args(AS_NOBODY).arg("stress-ng").args(EXEC);
        let start = |command: &mut Command| {
            command.args(["--timeout", TIMEOUT, "--quiet", "--temp-path"]).arg(&temp).current_dir(&temp);
            Guard::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
        };
        Ok(Flood::Host([start(&mut root)?, start(&mut nobody)?]))
    }

    fn in_container(lab: &Lab) -> Self {
        let container = lab.container(Spec::new("flood").caps(&["CAP_SYS_ADMIN"]));
        let common = format!("--timeout {TIMEOUT} --quiet --temp-path /tmp");
        container.shell().start(&format!(
            "cd /tmp; stress-ng {} {common} & {UTIL_LINUX}/setpriv {} stress-ng {} {common} & wait",
            FORK_UNSHARE.join(" "),
            AS_NOBODY.join(" "),
            EXEC.join(" ")
        ));
        Flood::Container { _inside: Box::new(container) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        // A killed stress-ng would leave its workers to themselves for a moment; asked to end, it ends them. A
        // container's end is the end of all in it.
        if let Flood::Host(guards) = self {
            for guard in guards.iter() {
                host::signal(guard.pid(), libc::SIGTERM);
            }
            for guard in guards {
                wait::until_true(Duration::from_secs(5), || !matches!(guard.child().try_wait(), Ok(None)));
            }
        }
    }
}

/// What one flood showed.
struct Seen {
    place: &'static str,
    series: Vec<(Attack, Latencies)>,
    seconds: f64,
    events: f64,
    lost: f64,
    lost_by: Vec<(String, f64)>,
    cpu_seconds: f64,
    ring_used: f64,
}

impl Seen {
    fn p99(&self) -> f64 {
        stats::max(&self.series.iter().map(|(_, latencies)| latencies.p99()).collect::<Vec<_>>())
    }

    fn json(&self) -> Value {
        let mut all = json!({
            "seconds": self.seconds, "events_per_second": self.events / self.seconds,
            "cpu_seconds_per_second": self.cpu_seconds / self.seconds, "lost": self.lost,
            "lost_by": self.lost_by.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "events_ring_most_used_bytes": self.ring_used,
        });
        for (attack, latencies) in &self.series {
            all[attack.key()] = latencies.json();
        }
        all
    }

    fn note(&self) -> String {
        let lost: Vec<String> =
            self.lost_by.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        format!(
            "flood {}: {:.0} events/s for {:.0} s, {} lost{}{}{}; the agent used {:.2} CPU s/s, of the events ring at most {:.0} KiB",
            self.place,
            self.events / self.seconds,
            self.seconds,
            self.lost,
            if lost.is_empty() { "" } else { " (" },
            lost.join(", "),
            if lost.is_empty() { "" } else { ")" },
            self.cpu_seconds / self.seconds,
            self.ring_used / 1024.0
        )
    }
}

/// The most of the events ring that one reading found, in what is left of at least `AT_LEAST` since `begin`.
fn watch_ring(agent: &Agent, begin: Instant) -> Result<f64> {
    let mut most = 0.0;
    loop {
        let used = agent.metrics().sum("observer_ring_used_bytes", &[("ring", "events")]);
        most = f64::max(most, used);
        if begin.elapsed() >= AT_LEAST {
            return Ok(most);
        }
        machine::sleep(Duration::from_millis(500))?;
    }
}

fn flooded(lab: &Lab, place: &'static str, start: impl FnOnce() -> Result<Flood>) -> Result<Seen> {
    machine::go_on()?;
    let scenes = Scene::all(lab)?;
    let agent = machine::start_agent();
    let at_start = agent.metrics();
    let flood = start()?;
    // Until it is in full flow.
    machine::sleep(Duration::from_millis(1500))?;
    let (begin, before) = (Instant::now(), agent.metrics());
    let mut series = Vec::new();
    for scene in &scenes {
        series.push((scene.attack, scene.attack(&agent, ATTACKS, 5, SERIES)?));
    }
    let ring_used = watch_ring(&agent, begin)?;
    let (after, seconds) = (agent.metrics(), begin.elapsed().as_secs_f64());
    drop(flood);
    agent.settle();
    let at_end = agent.metrics();
    agent.stop();
    let grown = |name: &str, from: &Metrics, to: &Metrics| to.sum(name, &[]) - from.sum(name, &[]);
    let lost_by = at_end.family("observer_events_lost_total").into_iter().filter(|(_, count)| *count > 0.0);
    Ok(Seen {
        place,
        series,
        seconds,
        events: grown("observer_events_total", &before, &after),
        lost: grown("observer_events_lost_total", &at_start, &at_end),
        lost_by: lost_by.collect(),
        cpu_seconds: grown("process_cpu_seconds_total", &before, &after),
        ring_used,
    })
}

pub fn measure() -> Result<Vec<Figure>> {
    let lab = latency::lab()?;
    machine::wait_for_other_agents()?;
    let floods = [
        flooded(&lab, "on the host", Flood::on_host)?,
        flooded(&lab, "in another container", || Ok(Flood::in_container(&lab)))?,
    ];
    let worst = stats::max(&floods.each_ref().map(Seen::p99));
    let mut latency = Figure::new("latency_flood", worst, "ms, p99").bound(20.0);
    for flood in &floods {
        let place = format!(", flood {}", flood.place);
        latency.notes.extend(flood.series.iter().map(|(attack, it)| it.note(*attack, &place)));
    }
    let lost = floods.iter().map(|flood| flood.lost).sum();
    let mut loss = Figure::new("flood_loss", lost, "events").bound(0.0);
    loss.notes.extend(floods.iter().map(Seen::note));
    let detail = json!({"host": floods[0].json(), "container": floods[1].json()});
    Ok(vec![latency.detail(detail.clone()), loss.detail(detail)])
}
