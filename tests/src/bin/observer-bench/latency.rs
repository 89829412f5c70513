//! How long from the event that decides to the alert's line on the agent's standard output.
//!
//! The agent folds what repeats by (rule, container, program, subject), so each attack is made by a program of its own
//! name: hard links to this one. The line is stamped by a thread that waits for it with real-time priority.
//!
//! Which event decides, and when it was:
//! - joins: the exec after them, stamped by the attacker right before its execve (so the exec itself is counted in);
//!   but joins are put together for 10 ms at most, so where the attacker was kept from the CPU for longer, those 10 ms
//!   after the first join;
//! - a move between cgroups: the alert's own time, which the kernel side took. It must lie between the attacker's two
//!   stamps around its write; where it does not, the first of these counts. Not that stamp for all: the write itself
//!   waits for a grace period of the kernel, 10 ms and more, before anything is moved.

use crate::figure::Figure;
use crate::{Result, machine, stats, this_program};
use observer_live::agent::Agent;
use observer_live::alert::{Alert, rfc3339};
use observer_live::cgroup::{self, Cgroup};
use observer_live::host::Guard;
use observer_live::lab::Lab;
use observer_live::metrics::Metrics;
use observer_live::runc::Container;
use observer_live::spec::Spec;
use observer_live::{host, scratch};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// For how long the agent puts joins together.
const WINDOW: Duration = Duration::from_millis(10);

/// An alert that has not come by then does not come.
const LIMIT: Duration = Duration::from_secs(5);

/// How many attackers of different names there are, of each kind.
const MOST: usize = 200;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    Join,
    Move,
}

impl Attack {
    const ALL: [Attack; 2] = [Attack::Join, Attack::Move];

    fn what(self) -> &'static str {
        match self {
            Attack::Join => "exec after joins",
            Attack::Move => "cgroup move",
        }
    }

    pub fn key(self) -> &'static str {
        match self {
            Attack::Join => "join",
            Attack::Move => "move",
        }
    }

    fn rule(self) -> &'static str {
        match self {
            Attack::Join => "namespace.escape",
            Attack::Move => "cgroup.escape",
        }
    }

    fn link(self, n: usize) -> String {
        format!("{}{n}", self.key())
    }
}

/// So many attacks are one line for the container's shell.
const PART: usize = 25;

/// A container from which there are ways out, and where they lead. For one series of attacks: of one container the
/// agent tells 256 different alerts apart and folds the rest.
pub struct Scene {
    pub attack: Attack,
    container: Container,
    target: Guard,
    _outside: Cgroup,
}

impl Scene {
    fn new(lab: &Lab, attack: Attack) -> Result<Self> {
        let links = links()?;
        let hierarchy = if cgroup::mount_point("").is_some() { "" } else { "pids" };
        let outside = Cgroup::make(hierarchy, &format!("{}/outside{}", cgroup::home(), scratch::unique()));
        let spec = Spec::privileged("attacker")
            // To be as quick as the machine allows, also where a flood is.
            .caps(&["CAP_SYS_NICE"])
            .bind(links, "/scratch", false)
            .bind(&outside.dir, "/cg/out", true);
        Ok(Self { attack, container: lab.container(spec), target: host::target(), _outside: outside })
    }

    /// One for each kind of attack.
    pub fn all(lab: &Lab) -> Result<Vec<Self>> {
        Attack::ALL.into_iter().map(|attack| Self::new(lab, attack)).collect()
    }

    /// Attacks `count` times, or for as long as `limit`, and gives each attack's latency.
    pub fn attack(&self, agent: &Agent, count: usize, pause_ms: u32, limit: Duration) -> Result<Latencies> {
        let attack = self.attack;
        let deed = match attack {
            Attack::Join => format!("join {}", self.target.pid()),
            Attack::Move => "move /cg/out/cgroup.procs".to_owned(),
        };
        let begin = Instant::now();
        let before = histogram(&agent.metrics());
        let mut deeds: Vec<Deed> = Vec::new();
        let mut said = String::new();
        // In parts, so that neither a slow machine nor an impatient user is kept waiting.
        for part in (0..count.min(MOST)).step_by(PART) {
            machine::go_on()?;
            if begin.elapsed() > limit {
                break;
            }
            let last = (part + PART).min(count.min(MOST)) - 1;
            // The attacker is not what is measured: it gets the CPU when it wants it.
            self.container.shell().start(&format!(
                "/scratch/program inside urgent sh -c 'for i in $(seq {part} {last}); do \
                 /scratch/{}$i inside {deed} {pause_ms} || exit 1; done'",
                attack.key()
            ));
            said = self.container.shell().wait(Duration::from_secs(60)).ok();
            deeds.extend(said.lines().filter_map(Deed::parse));
        }
        if deeds.is_empty() {
            return Err(format!("the attacker says: {said}").into());
        }
        let latencies = self.collect(agent, &deeds)?;
        let after = histogram(&agent.metrics());
        let histogram = after.iter().zip(&before).map(|(after, before)| (after.0, after.1 - before.1));
        Ok(Latencies { histogram: histogram.collect(), ..latencies })
    }

    fn collect(&self, agent: &Agent, deeds: &[Deed]) -> Result<Latencies> {
        let attack = self.attack;
        let deadline = Instant::now() + LIMIT;
        loop {
            let alerts = agent.alerts_of(&self.container.id);
            let mut by_pid: HashMap<u32, Vec<&Alert>> = HashMap::new();
            for alert in alerts.iter().filter(|alert| alert.rule() == attack.rule()) {
                by_pid.entry(alert.pid().unwrap_or_default()).or_default().push(alert);
            }
            let mut latencies = Latencies::default();
            for deed in deeds {
                let alerts = by_pid.get(&deed.pid).into_iter().flatten();
                match alerts.copied().find(|alert| deed.fits(attack, alert)) {
                    Some(alert) => latencies.add(attack, deed, alert),
                    None => latencies.untold.push(deed.pid),
                }
            }
            if latencies.untold.is_empty() || Instant::now() >= deadline {
                for deed in deeds.iter().filter(|deed| latencies.untold.contains(&deed.pid)).take(5) {
                    let about = by_pid.get(&deed.pid).into_iter().flatten();
                    let told: Vec<String> = about.map(|alert| alert.summary()).collect();
                    eprintln!("    {} of pid {} was not told; told was {told:?}", deed.name, deed.pid);
                }
                return Ok(latencies);
            }
            machine::sleep(Duration::from_millis(100))?;
        }
    }
}

/// The attackers' programs, in a directory to be bound into containers.
fn links() -> Result<PathBuf> {
    let dir = scratch::subdir("links");
    let program = dir.join("program");
    fs::copy(this_program(), &program)?;
    for attack in Attack::ALL {
        for n in 0..MOST {
            fs::hard_link(&program, dir.join(attack.link(n)))?;
        }
    }
    Ok(dir)
}

/// What an attacker says it did; see `inside`.
struct Deed {
    name: String,
    pid: u32,
    begin: SystemTime,
    end: SystemTime,
}

impl Deed {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (name, pid) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
        let mut time = || Some(UNIX_EPOCH + Duration::from_nanos(words.next()?.parse().ok()?));
        Some(Self { name, pid, begin: time()?, end: time()? })
    }

    /// Whether this is the alert about the deed: all of it, where the agent has told parts of it before.
    fn fits(&self, attack: Attack, alert: &Alert) -> bool {
        let whole = attack == Attack::Move || alert.changed().len() == 4;
        whole && alert.text("/process/exe").ends_with(&self.name[self.name.rfind('/').unwrap_or(0)..])
    }
}

/// Of one series of attacks.
#[derive(Debug, Default)]
pub struct Latencies {
    ms: Vec<f64>,
    /// The attackers' pids.
    untold: Vec<u32>,
    /// Joins that were told before the exec, because 10 ms had passed.
    by_window: usize,
    /// Alerts whose own time is not within the attacker's stamps.
    outside_stamps: usize,
    /// The agent's own, by bucket.
    histogram: Vec<(f64, f64)>,
}

impl Latencies {
    fn add(&mut self, attack: Attack, deed: &Deed, alert: &Alert) {
        let told = rfc3339(alert.text("/time")).unwrap_or(UNIX_EPOCH);
        // Two ways of reading one clock: the agent's offset between kernel and wall time is up to a second old.
        let slack = Duration::from_micros(200);
        let within = told + slack >= deed.begin && told <= deed.end + slack;
        self.outside_stamps += usize::from(!within);
        let decided = match attack {
            Attack::Join => {
                let closed = deed.begin.max(told) + WINDOW;
                self.by_window += usize::from(closed < deed.end);
                closed.min(deed.end)
            }
            Attack::Move if within => told,
            Attack::Move => deed.begin,
        };
        let latency = alert.received_at.duration_since(decided).unwrap_or_default();
        self.ms.push(latency.as_secs_f64() * 1e3);
    }

    /// With what never came as late as could be.
    fn all(&self) -> Vec<f64> {
        let never = std::iter::repeat_n(LIMIT.as_secs_f64() * 1e3, self.untold.len());
        self.ms.iter().copied().chain(never).collect()
    }

    pub fn p99(&self) -> f64 {
        stats::percentile(&self.all(), 0.99)
    }

    pub fn json(&self) -> Value {
        let all = self.all();
        json!({
            "count": all.len(), "p50_ms": stats::median(&all), "p90_ms": stats::percentile(&all, 0.9),
            "p99_ms": self.p99(), "max_ms": stats::max(&all), "missing": self.untold.len(),
            "closed_by_window": self.by_window, "outside_stamps": self.outside_stamps,
            "agent_p50_ms": stats::quantile(&self.histogram, 0.5) * 1e3,
            "agent_p99_ms": stats::quantile(&self.histogram, 0.99) * 1e3,
        })
    }

    /// `place` says where, "" where there is only one.
    pub fn note(&self, attack: Attack, place: &str) -> String {
        let all = self.all();
        let mut note = format!(
            "{}{place}: {} times, p50 {:.2}, p90 {:.2}, p99 {:.2}, max {:.2} ms; by the agent's histogram p50 {:.2}, p99 {:.2}",
            attack.what(),
            all.len(),
            stats::median(&all),
            stats::percentile(&all, 0.9),
            self.p99(),
            stats::max(&all),
            stats::quantile(&self.histogram, 0.5) * 1e3,
            stats::quantile(&self.histogram, 0.99) * 1e3,
        );
        for (count, what) in [
            (self.untold.len(), "never told"),
            (self.by_window, "told after 10 ms and before the exec"),
            (self.outside_stamps, "with a time outside the attacker's stamps"),
        ] {
            if count > 0 {
                note.push_str(&format!("; {count} {what}"));
            }
        }
        note
    }
}

/// (upper bound in seconds, observations up to it), ascending.
fn histogram(metrics: &Metrics) -> Vec<(f64, f64)> {
    let buckets = metrics.family("observer_pipeline_latency_seconds_bucket");
    let mut buckets: Vec<(f64, f64)> = buckets
        .into_iter()
        .filter_map(|(label, count)| {
            let bound = label.strip_prefix("le=")?;
            Some((if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? }, count))
        })
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    buckets
}

pub fn lab() -> Result<Lab> {
    let program = this_program();
    Lab::enter(program.to_str().ok_or("a path in UTF-8")?).ok_or_else(|| "root is needed".into())
}

pub fn idle() -> Result<Vec<Figure>> {
    let lab = lab()?;
    machine::wait_for_other_agents()?;
    let scenes = Scene::all(&lab)?;
    let agent = machine::start_agent();
    machine::sleep(Duration::from_millis(500))?;
    let mut series = Vec::new();
    for scene in &scenes {
        series.push(scene.attack(&agent, MOST, 10, Duration::from_secs(40))?);
    }
    agent.stop();
    let worst = stats::max(&series.iter().map(Latencies::p99).collect::<Vec<_>>());
    let mut figure = Figure::new("latency_idle", worst, "ms, p99").bound(5.0);
    let mut detail = json!({});
    for (scene, latencies) in scenes.iter().zip(&series) {
        figure.notes.push(latencies.note(scene.attack, ""));
        detail[scene.attack.key()] = latencies.json();
    }
    Ok(vec![figure.detail(detail)])
}
