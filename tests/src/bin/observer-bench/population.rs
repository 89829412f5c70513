//! A node full of containers, without a runtime: each is a cgroup in every hierarchy, named like docker's, and
//! processes in namespaces of their own that only sleep. What a runtime would add are its own processes, which are
//! the host's.

use crate::{Result, machine, this_program};
use observer_live::cgroup::{self, Cgroup};
use observer_live::host;
use std::io::{PipeReader, PipeWriter};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The containers' first processes and their cgroups; all ended when dropped.
pub struct Population {
    /// What the first processes wait for the end of: with this process it ends, too, in whatever way.
    life: Option<PipeWriter>,
    first: Vec<u32>,
    /// Parents first.
    cgroups: Vec<Cgroup>,
}

/// The writes to `cgroup.procs` wait for grace periods of the kernel, which many can share.
const AT_ONCE: usize = 16;

impl Population {
    pub fn start(containers: usize, processes: usize) -> Result<Self> {
        let (lives, life) = std::io::pipe()?;
        let mut population = Self { life: Some(life), first: Vec::new(), cgroups: Vec::new() };
        let mut files = Vec::new();
        let parent = format!("{}/docker", cgroup::home());
        let hierarchies = cgroup::hierarchies();
        // Joined controllers are mounted as one and named as one.
        for (name, _) in &hierarchies {
            population.cgroups.push(Cgroup::make(name, &parent));
        }
        for n in 0..containers {
            machine::go_on()?;
            let mut of_one = Vec::new();
            for (name, _) in &hierarchies {
                let made = Cgroup::make(name, &format!("{parent}/{n:064x}"));
                of_one.push(made.dir.join("cgroup.procs").to_string_lossy().into_owned());
                population.cgroups.push(made);
            }
            files.push(of_one);
        }
        let (next, first) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || -> std::result::Result<(), String> {
            while let Some(of_one) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                machine::go_on().map_err(|error| error.to_string())?;
                let pid = container(&lives, processes, of_one).map_err(|error| error.to_string())?;
                first.lock().expect("the first processes").push(pid);
            }
            Ok(())
        };
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a thread that starts containers"))
                .collect()
        });
        population.first = first.into_inner().expect("the first processes");
        outcomes.into_iter().collect::<std::result::Result<Vec<_>, String>>()?;
        Ok(population)
    }
}

/// Starts one; its first process's pid.
fn container(lives: &PipeReader, processes: usize, files: &[String]) -> Result<u32> {
    let output = Command::new(this_program())
        .args(["inside", "container", &processes.to_string()])
        .args(files)
        .stdin(Stdio::from(lives.try_clone()?))
        .output()?;
    let words = String::from_utf8_lossy(&output.stdout);
    let pid = words.trim().parse();
    pid.map_err(|_| format!("no container: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}

impl Drop for Population {
    fn drop(&mut self) {
        self.life = None;
        for pid in &self.first {
            // Where the harness has made this process the reaper of orphans; else pid 1 does it.
            host::reap(*pid);
        }
        while self.cgroups.pop().is_some() {}
    }
}
