//! The helper that runs in containers: attacks that say when they did it, and containers made by hand.
//!
//! Its lines are `NAME PID BEGIN END`: the file it was started as, the pid (the containers share the host's pid
//! namespace), and nanoseconds of CLOCK_REALTIME before and after the deed.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What an attack of `nsenter -m -n -u -i` joins, with the host's mount namespace last but one, as nsenter does.
const JOINED: [(&str, libc::c_int); 4] = [
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("net", libc::CLONE_NEWNET),
    ("mnt", libc::CLONE_NEWNS),
];

type Outcome = Result<(), Box<dyn std::error::Error>>;

pub fn main(args: &[String]) -> ExitCode {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        ["join", target, pause_ms] => join(target, pause_ms),
        ["move", file, pause_ms] => move_to(file, pause_ms),
        ["urgent", ref command @ ..] => urgent(command),
        ["container", processes, ref files @ ..] => container(processes, files),
        ["init", processes] => init(processes),
        _ => Err("unknown helper".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{args:?}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos())
}

fn report(begin: u128, end: u128) {
    let name = std::env::args().next().unwrap_or_default();
    let line = format!("{name} {} {begin} {end}\n", std::process::id());
    // One write, without a buffer that an exec would lose.
    // SAFETY: as many bytes as the line has.
    unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
}

/// Becomes the command, with the CPU whenever it wants it.
fn urgent(command: &[&str]) -> Outcome {
    // SAFETY: plain integers; 0 is this process. Refused, it only takes longer.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    let (program, args) = command.split_first().ok_or("no command")?;
    Err(Command::new(program).args(args).exec().into())
}

fn pause(milliseconds: &str) -> Outcome {
    std::thread::sleep(Duration::from_millis(milliseconds.parse()?));
    Ok(())
}

/// Joins four of the target's namespaces and becomes `true`. END is just before the exec.
fn join(target: &str, pause_ms: &str) -> Outcome {
    let mut files = Vec::new();
    for (kind, flag) in JOINED {
        files.push((File::open(format!("/proc/{target}/ns/{kind}"))?, flag));
    }
    let path = CString::new("/bin/true")?;
    let argv = [path.as_ptr(), std::ptr::null()];
    pause(pause_ms)?;
    let begin = now();
    for (file, flag) in &files {
        // SAFETY: plain integers; the descriptor is open.
        if unsafe { libc::setns(file.as_raw_fd(), *flag) } != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
    }
    report(begin, now());
    // SAFETY: a NUL-terminated string in a null-terminated array.
    unsafe { libc::execv(path.as_ptr(), argv.as_ptr()) };
    Err(std::io::Error::last_os_error().into())
}

/// Moves itself into another cgroup. BEGIN and END are around the write.
fn move_to(file: &str, pause_ms: &str) -> Outcome {
    let mut file = File::options().write(true).open(file)?;
    pause(pause_ms)?;
    let begin = now();
    file.write_all(b"0")?;
    report(begin, now());
    Ok(())
}

/// Does what a runtime does, as far as the agent can tell: enters cgroups, makes namespaces, starts a first process,
/// and leaves. Prints the first process's pid once all its processes run. Standard input is what they live by: they
/// end with it.
fn container(processes: &str, files: &[&str]) -> Outcome {
    for file in files {
        fs::write(file, "0").map_err(|error| format!("{file}: {error}"))?;
    }
    let all = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    // SAFETY: plain integers.
    if unsafe { libc::unshare(all) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    let (mut ready, tell) = std::io::pipe()?;
    let first = Command::new(std::env::current_exe()?)
        .args(["inside", "init", processes])
        .stdin(Stdio::inherit())
        .stdout(tell)
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let mut byte = [0];
    ready.read_exact(&mut byte).map_err(|_| "the first process has ended")?;
    println!("{}", first.id());
    Ok(())
}

/// The first process: starts the others, says so, waits for the end of standard input. The kernel ends the others
/// with it.
fn init(processes: &str) -> Outcome {
    let others = processes.parse::<usize>()?.saturating_sub(1);
    for _ in 0..others {
        // Not waited for: an init that ends takes all with it.
        Command::new("sleep")
            .arg("100000")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
    }
    // SAFETY: one byte; then the pipe is closed, for which the container's maker may wait.
    unsafe {
        libc::write(1, c"r".as_ptr().cast(), 1);
        libc::close(1);
    }
    let mut rest = [0; 16];
    while std::io::stdin().read(&mut rest)? > 0 {}
    Ok(())
}
