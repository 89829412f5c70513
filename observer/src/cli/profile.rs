//! `observer profile`

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use observer_common::CallSet;
use serde::Serialize;

use super::{Global, agent, look};
use crate::{
    host::SeccompFilter,
    inventory::{self, Found, Wanted},
    model::{CapSet, Capability, Observed, ObservedContainer, syscall},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// A seccomp profile in OCI's format, with the calls that the container was seen to make
    ///
    /// docker takes it with --security-opt seccomp=FILE, Kubernetes from a node's directory of profiles (Localhost). What a
    /// runtime needs to start a container, and calls that never return, are in it as well. Without a container, it is made of
    /// the profiles to merge alone, and no agent is asked.
    Seccomp(SeccompArgs),
    /// The least set of capabilities, as docker, Kubernetes and OCI want it written
    Caps(CapsArgs),
}

#[derive(Debug, clap::Args)]
struct SeccompArgs {
    /// Its name, its id or the beginning of it, NAMESPACE/POD, or the pid of one of its processes
    #[arg(value_name = "CONTAINER|PID", required_unless_present = "merge")]
    container: Option<String>,
    /// Let pass what these profiles let pass, too: of other runs
    #[arg(long, value_name = "FILE", num_args = 1..)]
    merge: Vec<PathBuf>,
    /// Tell instead what it lets pass and docker's default profile, or the one in FILE, does not, and the other way round
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    diff: Option<Option<PathBuf>>,
}

#[derive(Debug, clap::Args)]
struct CapsArgs {
    /// Its name, its id or the beginning of it, NAMESPACE/POD, or the pid of one of its processes
    #[arg(value_name = "CONTAINER|PID")]
    container: String,
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let text = match &args.what {
        What::Seccomp(args) => seccomp(args, global)?,
        What::Caps(args) => caps(args, global)?,
    };
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// What the agent knows, and of this container.
fn observed(container: &str, global: &Global) -> anyhow::Result<(Observed, ObservedContainer)> {
    let options = look::Options { json: false, no_agent: false, no_color: false };
    let look = look::look(&options, global, Wanted::default())?;
    let id = match inventory::find(&look, container)? {
        Found::Container(container) => container.id.clone(),
        Found::Process(process) => process
            .container
            .clone()
            .with_context(|| format!("process {} is in no container", process.pid))?,
    };
    let mut observed = look::observed(&options, global)?
        .context("no agent runs here, and only one that does knows what containers do")?;
    look::add_present_calls(&mut observed, global, &look, &id)?;
    let of = observed.containers.iter().find(|of| of.id == id).cloned().unwrap_or_default();
    Ok((observed, of))
}

fn seccomp(args: &SeccompArgs, global: &Global) -> anyhow::Result<String> {
    // First, so that a mistake is told before anybody is asked.
    let mut calls = CallSet::NONE;
    for path in &args.merge {
        let filter = read(path)?;
        let (refused, allowed) = (filter.refused(), filter.allowed());
        let sometimes = CallSet(std::array::from_fn(|word| !refused.0[word] & !allowed.0[word]));
        if !sometimes.is_empty() {
            let path = path.display();
            let names = named(sometimes).join(", ");
            agent::say(&format!("{path} lets these pass with some arguments only; left out: {names}"));
        }
        add(&mut calls, &allowed);
    }
    let other = match args.diff.as_ref() {
        None => None,
        Some(Some(path)) => Some((read(path)?.allowed(), path.display().to_string())),
        Some(None) => {
            let refused = syscall::refused_by_default();
            Some((CallSet(refused.0.map(|word| !word)), "docker's default".to_owned()))
        }
    };
    if let Some(container) = &args.container {
        add(&mut calls, &used(container, global)?);
    }
    match other {
        Some((other, called)) => Ok(diff(&calls, &other, &called)),
        None => Ok(Profile::of(&calls).text()?),
    }
}

/// What the container called, and what its runtime needs to start it.
fn used(container: &str, global: &Global) -> anyhow::Result<CallSet> {
    let (observed, container) = observed(container, global)?;
    if !observed.syscalls {
        bail!(
            "the agent does not keep system calls: set audit.syscalls or audit.seccomp in its configuration"
        );
    }
    if container.syscalls.is_empty() {
        bail!("the agent has seen no system call of this container");
    }
    let mut calls = syscall::set(container.syscalls.iter().map(String::as_str));
    add(&mut calls, &syscall::set(ALWAYS.split_whitespace()));
    agent::say(&format!("observed for {} s: {} calls", container.seconds, container.syscalls.len()));
    let refused: Vec<&str> = container.refused.iter().map(|refused| refused.syscall.as_str()).collect();
    if !refused.is_empty() {
        agent::say(&format!("refused by its present filter: {}", refused.join(", ")));
    }
    Ok(calls)
}

/// A file beyond this is a mistake: docker's default profile has 12 KiB.
const MAX_PROFILE_BYTES: u64 = 1 << 20;

fn read(path: &Path) -> anyhow::Result<SeccompFilter> {
    let mut text = Vec::new();
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    file.take(MAX_PROFILE_BYTES + 1).read_to_end(&mut text).with_context(|| path.display().to_string())?;
    if text.len() as u64 > MAX_PROFILE_BYTES {
        bail!(
            "{} is too large for a seccomp profile, expected at most {MAX_PROFILE_BYTES} bytes",
            path.display()
        );
    }
    serde_json::from_slice(&text).with_context(|| {
        format!("{}: expected a seccomp profile in OCI's format, with defaultAction", path.display())
    })
}

/// What the one lets pass and the other does not, both ways.
fn diff(calls: &CallSet, other: &CallSet, called: &str) -> String {
    let less =
        |one: &CallSet, other: &CallSet| CallSet(std::array::from_fn(|word| one.0[word] & !other.0[word]));
    let (more, fewer) = (named(less(calls, other)), named(less(other, calls)));
    format!(
        "{} calls beyond {called}:\n{}{} calls of {called} that it does without:\n{}",
        more.len(),
        lines('+', &more),
        fewer.len(),
        lines('-', &fewer)
    )
}

/// Sorted.
fn named(set: CallSet) -> Vec<&'static str> {
    let mut names: Vec<_> = set.iter().filter_map(syscall::name).collect();
    names.sort_unstable();
    names
}

fn lines(sign: char, names: &[&str]) -> String {
    names.iter().map(|name| format!("{sign} {name}\n")).collect()
}

/// Calls that never come to an end that could be seen, and what runc (1.0 to 1.3) calls between the installation of the filter
/// and the program's execve: its own steps (standard_init_linux.go, setns_init_linux.go, init_linux.go), and what Go's
/// runtime does at any time.
const ALWAYS: &str = "exit exit_group restart_syscall rt_sigreturn \
    capget capset chdir close close_range execve execveat faccessat2 fchdir fchown fcntl fstat fstatfs getcwd \
    getdents64 getegid geteuid getgid getgroups getpid getppid gettid getuid newfstatat openat openat2 prctl prlimit64 read \
    readlinkat setgid setgroups setresgid setresuid setuid stat statfs statx umask write \
    arch_prctl brk clone clone3 epoll_create1 epoll_ctl epoll_pwait eventfd2 futex getrandom madvise mmap mprotect munmap \
    nanosleep pipe2 rseq rt_sigaction rt_sigprocmask sched_getaffinity sched_yield set_robust_list set_tid_address \
    sigaltstack tgkill";

fn add(to: &mut CallSet, other: &CallSet) {
    to.0.iter_mut().zip(other.0).for_each(|(word, more)| *word |= more);
}

/// runtime-spec, config-linux.md.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: &'static str,
    default_errno_ret: u32,
    architectures: [&'static str; 1],
    syscalls: [Rule; 1],
}

#[derive(Serialize)]
struct Rule {
    names: Vec<&'static str>,
    action: &'static str,
}

impl Profile {
    fn of(calls: &CallSet) -> Profile {
        Profile {
            default_action: "SCMP_ACT_ERRNO",
            default_errno_ret: libc::EPERM as u32,
            architectures: ["SCMP_ARCH_X86_64"],
            syscalls: [Rule { names: named(*calls), action: "SCMP_ACT_ALLOW" }],
        }
    }

    fn text(&self) -> serde_json::Result<String> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }
}

fn caps(args: &CapsArgs, global: &Global) -> anyhow::Result<String> {
    let (observed, container) = observed(&args.container, global)?;
    if !observed.capabilities {
        bail!("the agent does not count checks of capabilities: set audit.capabilities in its configuration");
    }
    if !observed.capabilities_classified {
        bail!(
            "this kernel does not tell which checks of capabilities meant a use (programs on functions are refused)"
        );
    }
    let used = container.capabilities.iter().filter(|checked| checked.granted > 0);
    let used = used.filter_map(|checked| Capability::by_name(&checked.capability));
    Ok(written(used.fold(CapSet::EMPTY, |set, capability| set | capability.set())))
}

/// As each of the three wants it.
fn written(set: CapSet) -> String {
    let short: Vec<&str> = set.iter().map(Capability::short).collect();
    let long: Vec<&str> = set.iter().map(|capability| capability.name).collect();
    let added: String = short.iter().map(|name| format!(" --cap-add {name}")).collect();
    let list = serde_json::json!(long);
    let add = if short.is_empty() { String::new() } else { format!("\n    add: [{}]", short.join(", ")) };
    format!(
        "# docker\n--cap-drop ALL{added}\n\n# Kubernetes\nsecurityContext:\n  capabilities:\n    drop: [ALL]{add}\n\n\
         # OCI\n\"capabilities\": {{\"bounding\": {list}, \"effective\": {list}, \"permitted\": {list}}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_as_it_was_written() {
        let calls = syscall::set(["read", "write", "exit_group"]);
        let text = Profile::of(&calls).text().expect("JSON");
        assert!(text.contains("\"defaultErrnoRet\": 1") && text.contains("SCMP_ARCH_X86_64"), "{text}");
        let filter: SeccompFilter = serde_json::from_str(&text).expect("a profile");
        assert_eq!(filter.allowed(), calls);
    }

    #[test]
    fn what_a_runtime_needs_has_names() {
        let unknown: Vec<_> =
            ALWAYS.split_whitespace().filter(|name| syscall::number(name).is_none()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn differences_go_both_ways() {
        let calls = syscall::set(["read", "mount"]);
        let text = diff(&calls, &syscall::set(["read", "write", "fork"]), "it");
        assert_eq!(
            text,
            "1 calls beyond it:\n+ mount\n2 calls of it that it does without:\n- fork\n- write\n"
        );
        assert_eq!(diff(&calls, &calls, "it"), "0 calls beyond it:\n0 calls of it that it does without:\n");
    }

    #[test]
    fn capabilities_are_written_for_each() {
        let text = written(CapSet::of(&[0, 10]));
        assert!(text.contains("--cap-drop ALL --cap-add CHOWN --cap-add NET_BIND_SERVICE\n"), "{text}");
        assert!(text.contains("    drop: [ALL]\n    add: [CHOWN, NET_BIND_SERVICE]\n"), "{text}");
        assert!(text.contains("\"bounding\": [\"CAP_CHOWN\",\"CAP_NET_BIND_SERVICE\"]"), "{text}");
        assert!(!written(CapSet::EMPTY).contains("add"));
    }
}
