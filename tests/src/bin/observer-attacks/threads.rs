//! What a thread that is not the leader can do.

use crate::sys::{self, Errno, check};
use std::time::Duration;

/// Joins in a second thread. The leader stays where it was; only this thread has left.
pub(crate) fn setns_thread(source: &str, types: &str, seconds: u64) -> Result<String, Errno> {
    let files = sys::open_namespaces(source, types)?;
    let thread = std::thread::spawn(move || {
        // A mount namespace is only joined by a task that shares its root and cwd with nobody.
        // SAFETY: plain integers; it concerns this thread alone.
        check(unsafe { libc::unshare(libc::CLONE_FS) }.into(), "unshare")?;
        for (file, flag) in &files {
            sys::setns(file, *flag)?;
        }
        // SAFETY: no arguments.
        let tid = unsafe { libc::gettid() };
        println!("ok tid={tid}");
        std::thread::sleep(Duration::from_secs(seconds));
        Ok(())
    });
    match thread.join() {
        Ok(Ok(())) => std::process::exit(0),
        Ok(Err(errno)) => Err(errno),
        Err(_) => Err(Errno { code: 252, at: "thread" }),
    }
}

/// The exec of a thread that is not the leader kills the leader and takes over its id.
pub(crate) fn thread_exec(cmd: &[&str]) -> Result<String, Errno> {
    let cmd: Vec<String> = cmd.iter().map(|arg| (*arg).to_owned()).collect();
    let thread =
        std::thread::spawn(move || sys::become_cmd(&cmd.iter().map(String::as_str).collect::<Vec<_>>()));
    thread.join().unwrap_or(Err(Errno { code: 252, at: "thread" }))
}

pub(crate) fn many_threads(n: u64, seconds: u64) -> Result<String, Errno> {
    let threads: Vec<_> = (0..n)
        .map(|_| std::thread::spawn(move || std::thread::sleep(Duration::from_secs(seconds))))
        .collect();
    for thread in threads {
        let _ = thread.join();
    }
    Ok(String::new())
}

/// N threads; each joins once FILE holds more bytes than threads that have gone before it, and tells its id.
/// So a test can move the process to another cgroup between one thread's join and the next one's.
pub(crate) fn threads_setns(n: u64, file: &str, source: &str, types: &str) -> Result<String, Errno> {
    let threads: Vec<_> = (0..n)
        .map(|turn| {
            let (file, source, types) = (file.to_owned(), source.to_owned(), types.to_owned());
            std::thread::spawn(move || {
                let files = sys::open_namespaces(&source, &types)?;
                while std::fs::metadata(&file).map_or(0, |meta| meta.len()) <= turn {
                    std::thread::sleep(Duration::from_millis(2));
                }
                for (file, flag) in &files {
                    sys::setns(file, *flag)?;
                }
                // SAFETY: no arguments.
                println!("tid={}", unsafe { libc::gettid() });
                // The thread stays while FILE does, so that what it is can still be looked at from outside.
                for _ in 0..250 {
                    if !std::path::Path::new(&file).exists() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap_or(Err(Errno { code: 252, at: "thread" }))?;
    }
    std::thread::sleep(Duration::from_millis(50));
    Ok(String::new())
}
