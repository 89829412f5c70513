use std::path::PathBuf;

use observer_common::{Host, NAMESPACES, Root};

use super::*;
use crate::{
    config::Limits as Settings,
    limits::{LimitAt, OomKill, OomScope},
    model::{
        ProcessKey, Runtime, Tuple,
        resources::{Cpu, Memory, MemoryAbove, MemoryEvents, MemoryLimit, Pids, PidsLimit, Resources},
    },
};

const MIB: u64 = 1 << 20;
const WEB: ContainerKey = ContainerKey(1);

fn world() -> World {
    let host = Host {
        inodes: [10; NAMESPACES],
        found: 1,
        told: 0,
        root: Root { mnt_ns: 10, dev: 1, mount_root_ino: 2, ino: 2 },
    };
    let mut world = World::new(host);
    let key = world.make_container("web-id", Runtime::Runc, 1, false);
    world.add_cgroup(key, 0, 77, "/pod/web");
    world.set_baseline(key, Tuple([20; NAMESPACES]), SECOND_NS);
    world
}

struct Bench {
    engine: Engine,
    world: World,
    now_ns: u64,
}

impl Bench {
    fn new(settings: &str) -> Self {
        let text = format!("limits: {settings}\n");
        let config = config::Config::parse(&PathBuf::from("x"), &text).expect("settings").limits;
        Bench { engine: Engine::new(config, &[]), world: world(), now_ns: 10 * SECOND_NS }
    }

    /// A look, five seconds after the last; what it found, in short.
    fn look(&mut self, resources: &Resources) -> Vec<String> {
        self.look_after(5 * SECOND_NS, resources)
    }

    fn look_after(&mut self, after_ns: u64, resources: &Resources) -> Vec<String> {
        self.now_ns += after_ns;
        self.round(resources, Vec::new(), true).iter().map(short).collect()
    }

    fn round(&mut self, resources: &Resources, writes: Vec<LimitWrite>, whole: bool) -> Vec<Finding> {
        let sample = Sample { container: WEB, time_ns: self.now_ns, whole, resources: resources.clone() };
        self.engine.round(Round { samples: vec![sample], writes }, &self.world)
    }

    fn tick(&mut self, after_ns: u64) -> Vec<String> {
        self.now_ns += after_ns;
        self.engine.tick(self.now_ns, &self.world).iter().map(short).collect()
    }

    fn pass(&mut self, fact: Fact) -> Vec<String> {
        let finding =
            Finding { time_ns: self.now_ns, subject: None, container: Some(WEB), fact, late: false };
        self.engine.pass(vec![finding], &self.world).iter().map(short).collect()
    }
}

fn short(finding: &Finding) -> String {
    match &finding.fact {
        Fact::Strain(strain) => {
            let at = strain.at.as_ref().and_then(|at| at.path.clone()).unwrap_or_default();
            match strain.ended {
                None => format!("{:?} {at}", strain.kind),
                Some(ended) => {
                    let gone = if ended.gone { " gone" } else { "" };
                    format!("{:?} ended after {}{gone}", strain.kind, ended.lasted_ns / SECOND_NS)
                }
            }
        }
        Fact::OomKill(kill) => format!("OomKill {:?}", kill.counted),
        other => format!("{other:?}"),
    }
}

/// `hits` of the own limit of 100 MiB.
fn memory(usage_mib: u64, hits: u64) -> Resources {
    Resources {
        memory: Some(Memory {
            usage_bytes: Some(usage_mib * MIB),
            working_set_bytes: Some(usage_mib * MIB / 2),
            limit_bytes: Some(100 * MIB),
            effective_limit: Some(MemoryLimit { bytes: 100 * MIB, path: "/pod/web".into(), hierarchy: 0 }),
            events: Some(MemoryEvents { max: Some(hits), ..MemoryEvents::default() }),
            ..Memory::default()
        }),
        ..Resources::default()
    }
}

#[test]
fn at_the_limit_from_the_first_hit_to_some_time_after_the_last() {
    let mut bench = Bench::new("{resolve_seconds: 10}");
    assert_eq!(bench.look(&memory(50, 0)), [""; 0]);
    // Full of page cache, and no one had to wait for it.
    assert_eq!(bench.look(&memory(99, 0)), [""; 0]);
    assert_eq!(bench.look(&memory(99, 7)), ["MemoryAtLimit /pod/web"]);
    assert_eq!(bench.look(&memory(100, 9)), [""; 0]);
    assert_eq!(bench.look(&memory(100, 9)), [""; 0]);
    assert_eq!(bench.look(&memory(100, 10)), [""; 0]);
    assert_eq!(bench.look(&memory(60, 10)), [""; 0]);
    assert_eq!(bench.look(&memory(60, 10)), [""; 0]);
    assert_eq!(bench.look(&memory(60, 10)), ["MemoryAtLimit ended after 20"]);
    assert_eq!(bench.look(&memory(60, 10)), [""; 0]);
}

#[test]
fn hits_below_the_container_or_long_ago_are_not_at_the_limit() {
    let mut bench = Bench::new("{}");
    // What stands there at the first look is history.
    assert_eq!(bench.look(&memory(100, 1000)), [""; 0]);
    // memory.events counts what cgroups below met, too: this one has room.
    assert_eq!(bench.look(&memory(50, 2000)), [""; 0]);
    // A container started anew begins at zero.
    assert_eq!(bench.look(&memory(100, 3)), [""; 0]);
    let mut off = Bench::new("{memory: {at_limit: false}}");
    off.look(&memory(99, 0));
    assert_eq!(off.look(&memory(99, 7)), [""; 0]);
}

#[test]
fn v1_counts_in_failcnt() {
    let v1 = |usage, failcnt| {
        let mut resources = memory(usage, 0);
        if let Some(memory) = &mut resources.memory {
            (memory.events, memory.failcnt) = (None, Some(failcnt));
        }
        resources
    };
    let mut bench = Bench::new("{}");
    bench.look(&v1(99, 5));
    assert_eq!(bench.look(&v1(99, 6)), ["MemoryAtLimit /pod/web"]);
}

#[test]
fn a_limit_above_is_met_by_who_uses_a_part_of_it() {
    let above = |own: u64, usage: u64, hits: u64| {
        let mut resources = memory(own, 0);
        if let Some(memory) = &mut resources.memory {
            memory.above = Some(MemoryAbove {
                usage_bytes: Some(usage * MIB),
                limit_bytes: 200 * MIB,
                hits: Some(hits),
                path: "/pod".into(),
                hierarchy: 0,
            });
        }
        resources
    };
    let mut bench = Bench::new("{}");
    bench.look(&above(60, 199, 1));
    assert_eq!(bench.look(&above(60, 199, 2)), ["MemoryAtLimit /pod"]);
    let mut idle = Bench::new("{}");
    idle.look(&above(5, 199, 1));
    assert_eq!(idle.look(&above(5, 199, 2)), [""; 0]);
}

#[test]
fn near_needs_time_and_is_said_of_the_working_set() {
    let mut bench = Bench::new("{resolve_seconds: 0, memory: {near_percent: 40, near_seconds: 10}}");
    assert_eq!(bench.look(&memory(50, 0)), [""; 0]);
    // Half of it is working set: 40 and more.
    assert_eq!(bench.look(&memory(90, 0)), [""; 0]);
    assert_eq!(bench.look(&memory(85, 0)), [""; 0]);
    assert_eq!(bench.look(&memory(80, 0)), ["MemoryNear /pod/web"]);
    assert_eq!(bench.look(&memory(79, 0)), ["MemoryNear ended after 15"]);
    // At half the limit there is nothing, however long.
    let mut half = Bench::new("{}");
    for _ in 0..100 {
        assert_eq!(half.look(&memory(100, 0)), [""; 0]);
    }
}

#[test]
fn no_memory_and_nobody_killed() {
    let with = |oom: u64, oom_kill: u64, under_oom: Option<bool>| {
        let mut resources = memory(50, 0);
        if let Some(memory) = &mut resources.memory {
            memory.events = Some(MemoryEvents {
                max: Some(0),
                oom: Some(oom),
                oom_kill: Some(oom_kill),
                ..MemoryEvents::default()
            });
            memory.under_oom = under_oom;
        }
        resources
    };
    let mut v2 = Bench::new("{}");
    v2.look(&with(1, 1, None));
    assert_eq!(v2.look(&with(2, 1, None)), ["MemoryFailing /pod/web"]);
    let mut killed = Bench::new("{}");
    killed.look(&with(1, 1, None));
    killed.pass(Fact::OomKill(kill()));
    assert_eq!(killed.look(&with(2, 2, None)), [""; 0]);
    let mut v1 = Bench::new("{}");
    v1.look(&with(0, 0, None));
    assert_eq!(v1.look(&with(0, 0, Some(true))), ["MemoryFailing /pod/web"]);
}

fn kill() -> OomKill {
    OomKill {
        scope: OomScope::Cgroup,
        at: None,
        usage_bytes: None,
        victim: None,
        others: Vec::new(),
        others_more: 0,
        counted: None,
    }
}

/// What the counter of kills says.
fn counted_kills(kills: u64) -> Resources {
    let mut resources = memory(50, 0);
    if let Some(memory) = &mut resources.memory {
        memory.events = Some(MemoryEvents { oom_kill: Some(kills), ..MemoryEvents::default() });
    }
    resources
}

#[test]
fn kills_that_no_event_told_are_told_at_the_second_look() {
    let mut bench = Bench::new("{}");
    assert_eq!(bench.look(&counted_kills(4)), [""; 0]);
    assert_eq!(bench.look(&counted_kills(6)), [""; 0]);
    // One of the two events was on its way.
    assert_eq!(bench.pass(Fact::OomKill(kill())), ["OomKill None"]);
    assert_eq!(bench.look(&counted_kills(6)), ["OomKill Some(1)"]);
    for _ in 0..3 {
        assert_eq!(bench.look(&counted_kills(6)), [""; 0]);
    }
    // An event whose count comes afterwards.
    bench.pass(Fact::OomKill(kill()));
    assert_eq!(bench.look(&counted_kills(7)), [""; 0]);
    assert_eq!(bench.look(&counted_kills(7)), [""; 0]);
    // Started anew.
    assert_eq!(bench.look(&counted_kills(0)), [""; 0]);
    assert_eq!(bench.look(&counted_kills(0)), [""; 0]);
}

/// The container is so young that its first look, from before the kill, comes to the engine after the kill's event.
#[test]
fn a_kill_right_after_the_first_look_is_told_once() {
    let mut bench = Bench::new("{}");
    let killed_ns = bench.now_ns;
    assert_eq!(bench.pass(Fact::OomKill(kill())), ["OomKill None"]);
    bench.now_ns = killed_ns - 1_000_000;
    assert_eq!(bench.look_after(0, &counted_kills(0)), [""; 0]);
    for _ in 0..3 {
        assert_eq!(bench.look(&counted_kills(1)), [""; 0]);
    }
    // One that no event told of is told as before.
    assert_eq!(bench.look(&counted_kills(2)), [""; 0]);
    assert_eq!(bench.look(&counted_kills(2)), ["OomKill Some(1)"]);
}

fn cpu(periods: u64, throttled: u64) -> Resources {
    Resources {
        cpu: Some(Cpu {
            quota_us: Some(10_000),
            period_us: Some(100_000),
            nr_periods: Some(periods),
            nr_throttled: Some(throttled),
            throttled_us: Some(0),
            ..Cpu::default()
        }),
        ..Resources::default()
    }
}

#[test]
fn throttled_in_most_periods_for_long_enough() {
    let mut bench = Bench::new("{resolve_seconds: 0, cpu: {throttled_percent: 60, throttled_seconds: 10}}");
    assert_eq!(bench.look(&cpu(0, 0)), [""; 0]);
    assert_eq!(bench.look(&cpu(50, 29)), [""; 0]);
    assert_eq!(bench.look(&cpu(100, 59)), [""; 0]);
    // Looked at twice within 100 ms, one period is all there is: that is no share.
    assert_eq!(bench.look_after(SECOND_NS / 10, &cpu(101, 59)), [""; 0]);
    assert_eq!(bench.look(&cpu(150, 109)), [""; 0]);
    assert_eq!(bench.look(&cpu(200, 159)), ["CpuThrottled "]);
    // Asleep, it has no periods.
    assert_eq!(bench.look(&cpu(200, 159)), ["CpuThrottled ended after 15"]);
    let mut off = Bench::new("{cpu: {throttled_percent: off, throttled_seconds: 0}}");
    off.look(&cpu(0, 0));
    assert_eq!(off.look(&cpu(50, 50)), [""; 0]);
}

fn pids(current: u64, refused: u64) -> Resources {
    Resources {
        pids: Some(Pids {
            current: Some(current),
            max: Some(50),
            effective_max: Some(PidsLimit { max: 50, path: "/pod/web".into(), hierarchy: 0 }),
            events_max: Some(refused),
            ..Pids::default()
        }),
        ..Resources::default()
    }
}

fn refused(count: u64) -> Fact {
    Fact::ForkRefused(RefusedFork {
        at: LimitAt { limit: 50, hierarchy: 0, path: Some("/pod/web".into()), own: true },
        current: 50,
        count,
    })
}

/// How often the fork was refused that a `PidsAtLimit` tells of.
fn refusals(findings: &[Finding]) -> Vec<Option<u64>> {
    let of = |finding: &Finding| match &finding.fact {
        Fact::Strain(strain) => strain.hits,
        _ => None,
    };
    findings.iter().map(of).collect()
}

#[test]
fn refused_forks_are_one_condition_until_none_comes_for_a_while() {
    let mut bench = Bench::new("{resolve_seconds: 10}");
    bench.look(&pids(3, 0));
    assert_eq!(bench.pass(refused(1)), ["PidsAtLimit /pod/web"]);
    bench.now_ns += SECOND_NS;
    assert_eq!(bench.pass(refused(5000)), [""; 0]);
    // The counter has all of these, and some that came after the last event.
    assert_eq!(bench.look_after(SECOND_NS, &pids(50, 5007)), [""; 0]);
    assert_eq!(bench.tick(9 * SECOND_NS), [""; 0]);
    bench.now_ns += 2 * SECOND_NS;
    let found = bench.engine.tick(bench.now_ns, &bench.world);
    assert_eq!(found.iter().map(short).collect::<Vec<_>>(), ["PidsAtLimit ended after 2"]);
    assert_eq!(refusals(&found), [Some(5007)]);
    assert_eq!(bench.tick(20 * SECOND_NS), [""; 0]);
    let mut off = Bench::new("{pids: {at_limit: false}}");
    assert_eq!(off.pass(refused(1)), [""; 0]);
    off.look(&pids(3, 0));
    assert_eq!(off.look(&pids(50, 9)), [""; 0]);
}

/// What the counter says afterwards of what events have told is no news, and no new condition.
#[test]
fn a_counter_that_comes_late_begins_nothing() {
    let mut bench = Bench::new("{poll_seconds: 5, resolve_seconds: 0}");
    bench.look(&pids(3, 0));
    bench.pass(refused(10));
    // A poll and a second, though it may end at once.
    assert_eq!(bench.tick(5 * SECOND_NS), [""; 0]);
    assert_eq!(bench.tick(SECOND_NS), ["PidsAtLimit ended after 0"]);
    assert_eq!(bench.look(&pids(3, 10)), [""; 0]);
    assert_eq!(bench.look(&pids(3, 10)), [""; 0]);
    // The counter first, and the event for the same refusals after it.
    assert_eq!(bench.look(&pids(50, 13)), ["PidsAtLimit /pod/web"]);
    assert_eq!(bench.pass(refused(3)), [""; 0]);
    bench.now_ns += 7 * SECOND_NS;
    let found = bench.engine.tick(bench.now_ns, &bench.world);
    assert_eq!(refusals(&found), [Some(3)]);
}

#[test]
fn refused_forks_are_seen_by_the_counter_alone() {
    let mut bench = Bench::new("{poll_seconds: 1, resolve_seconds: 1}");
    assert_eq!(bench.look(&pids(50, 3)), [""; 0]);
    assert_eq!(bench.look(&pids(50, 3)), [""; 0]);
    assert_eq!(bench.look(&pids(50, 4)), ["PidsAtLimit /pod/web"]);
    assert_eq!(bench.tick(SECOND_NS), [""; 0]);
    assert_eq!(bench.tick(SECOND_NS), ["PidsAtLimit ended after 0"]);
}

#[test]
fn growth_like_a_bombs() {
    let mut bench = Bench::new("{resolve_seconds: 0, pids: {growth_per_second: 100}}");
    bench.look(&pids(10, 0));
    assert_eq!(bench.look(&pids(400, 0)), [""; 0]);
    assert_eq!(bench.look(&pids(900, 0)), ["PidsGrowth "]);
    assert_eq!(bench.look(&pids(900, 0)), ["PidsGrowth ended after 5"]);
    assert_eq!(bench.look(&pids(10, 0)), [""; 0]);
}

#[test]
fn what_holds_when_the_container_goes_ends_with_it() {
    let mut bench = Bench::new("{}");
    bench.look(&memory(99, 0));
    assert_eq!(bench.look(&memory(99, 7)), ["MemoryAtLimit /pod/web"]);
    bench.world.containers.remove(&WEB);
    assert_eq!(bench.tick(SECOND_NS), ["MemoryAtLimit ended after 1 gone"]);
    assert!(bench.engine.states.is_empty());
    assert_eq!(bench.look(&memory(99, 9)), [""; 0]);
    assert!(bench.engine.states.is_empty());
}

#[test]
fn the_thresholds_of_some_containers() {
    let settings = "{overrides: [{containers: {runtime: runc}, memory: {at_limit: false}}]}";
    let mut bench = Bench::new(settings);
    bench.look(&memory(99, 0));
    assert_eq!(bench.look(&memory(99, 7)), [""; 0]);
}

/// The changes of findings and who made them, in short.
fn changed(findings: &[Finding]) -> Vec<String> {
    let of = |finding: &Finding| match &finding.fact {
        Fact::LimitsChanged(changed) => {
            let change = &changed.changes[0];
            let by = match &changed.writer {
                Some(writer) => format!("{} of {:?}", writer.pid, writer.container.map(|key| key.0)),
                None => "nobody".to_owned(),
            };
            Some(format!("{} -> {} by {by}", change.from, change.to))
        }
        _ => None,
    };
    findings.iter().filter_map(of).collect()
}

fn write(bench: &Bench, pid: Option<u32>, file: &str) -> LimitWrite {
    LimitWrite { time_ns: bench.now_ns, pid, hierarchy: 0, path: "/pod/web".into(), file: file.into() }
}

fn limit(bytes: u64) -> Resources {
    let mut resources = memory(10, 0);
    if let Some(memory) = &mut resources.memory {
        memory.limit_bytes = Some(bytes);
    }
    resources
}

#[test]
fn a_changed_limit_and_who_changed_it() {
    let mut bench = Bench::new("{}");
    bench.round(&limit(4096), Vec::new(), true);
    bench.now_ns += SECOND_NS;
    // The same value again, and another file.
    let writes = vec![write(&bench, Some(7), "memory.max")];
    assert_eq!(changed(&bench.round(&limit(4096), writes, true)), [""; 0]);
    let mut world = world();
    let process = crate::limits::testing::process(ProcessKey { pid: 9, start_ticks: 1 }, Some(WEB));
    world.insert_process(process);
    bench.world = world;
    let writes = vec![write(&bench, Some(8), "memory.high"), write(&bench, Some(9), "memory.max")];
    let found = bench.round(&limit(8192), writes, true);
    assert_eq!(changed(&found), ["4096 -> 8192 by 9 of Some(1)"]);
    assert!(found[0].subject.is_some());
    // A writer that has ended meanwhile.
    bench.world.remove_process(ProcessKey { pid: 9, start_ticks: 1 });
    let writes = vec![write(&bench, Some(9), "memory.max")];
    let found = bench.round(&limit(4096), writes, true);
    assert_eq!(changed(&found), ["8192 -> 4096 by 9 of Some(1)"]);
    // Nobody was seen: a minute later, the writes before are none of it.
    assert_eq!(bench.tick(60 * SECOND_NS), [""; 0]);
    assert_eq!(changed(&bench.round(&limit(0), Vec::new(), true)), ["4096 -> 0 by nobody"]);
}

#[test]
fn what_the_runtime_sets_before_the_first_program_is_no_change() {
    let mut bench = Bench::new("{}");
    bench.world = world();
    bench.now_ns = SECOND_NS / 2;
    // Read before the container's first program, though told afterwards.
    assert_eq!(changed(&bench.round(&limit(0), Vec::new(), true)), [""; 0]);
    bench.now_ns = 2 * SECOND_NS;
    assert_eq!(changed(&bench.round(&limit(4096), Vec::new(), true)), [""; 0]);
    bench.now_ns = 3 * SECOND_NS;
    assert_eq!(changed(&bench.round(&limit(8192), Vec::new(), true)).len(), 1);
    let mut off = Bench::new("{changes: false}");
    off.round(&limit(4096), Vec::new(), true);
    off.now_ns += SECOND_NS;
    assert_eq!(changed(&off.round(&limit(8192), Vec::new(), true)), [""; 0]);
}

#[test]
fn writes_that_explain_nothing_are_bounded() {
    let mut bench = Bench::new("{}");
    let writes = (0..1000).map(|_| write(&bench, Some(7), "memory.max")).collect();
    bench.round(&limit(4096), writes, true);
    assert_eq!(bench.engine.writes.len(), MOST_WRITES);
    bench.tick(WRITE_NS + SECOND_NS);
    assert!(bench.engine.writes.is_empty());
}

#[test]
fn the_defaults_are_the_files() {
    assert_eq!(Bench::new("{}").engine.config, Settings::default());
}
