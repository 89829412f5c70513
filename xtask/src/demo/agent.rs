//! The agent under demonstration: started with a configuration of its own, watched through its HTTP address and
//! its standard output, as any supervisor would.

use super::wait_for;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    time::{Duration, Instant},
};

pub struct Agent {
    process: Child,
    http: SocketAddr,
    log: PathBuf,
    alerts: Receiver<String>,
}

impl Agent {
    pub fn start(program: &Path, scratch: &Path) -> Result<Self> {
        // A port that was free a moment ago, so that an agent already running on this machine is left in peace.
        let http = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = scratch.join("observer.yaml");
        let socket = scratch.join("observer.sock");
        fs::write(
            &config,
            format!("http:\n  listen: \"{http}\"\nsocket:\n  path: \"{}\"\n", socket.display()),
        )?;
        let log = scratch.join("observer.log");
        let mut process = Command::new(program)
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log)?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let (sender, alerts) = mpsc::channel();
        let stdout = BufReader::new(process.stdout.take().expect("it is piped"));
        // Ends with the agent, whose end closes the pipe.
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Ok(Self { process, http, log, alerts })
    }

    pub fn wait_until_ready(&mut self) -> Result<()> {
        let http = self.http;
        wait_for("observer to be ready", || {
            self.check_alive()?;
            Ok(is_ready(http).then_some(()))
        })
    }

    /// The alert as the agent wrote it.
    pub fn wait_for_alert(&mut self, rule: &str, container: &str) -> Result<String> {
        let mut others = Vec::new();
        let found = wait_for("the alert", || {
            self.check_alive()?;
            for line in self.alerts.try_iter() {
                let alert: Value =
                    serde_json::from_str(&line).with_context(|| format!("observer wrote no JSON: {line}"))?;
                // A failed attempt is the same rule, as a notice.
                if alert["rule"] == rule
                    && alert["container"]["id"] == container
                    && alert["severity"] != "notice"
                {
                    return Ok(Some(line));
                }
                others.push(alert["rule"].as_str().unwrap_or("no rule").to_owned());
            }
            Ok(None)
        });
        found.with_context(|| {
            let seen = if others.is_empty() { "none at all".to_owned() } else { others.join(", ") };
            format!("no {rule} alert for container {container} (alerts seen: {seen})")
        })
    }

    fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("observer ended by itself ({status}): {}", self.last_words());
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()
    }
}

impl Drop for Agent {
    /// Asks it to end, and insists after a while.
    fn drop(&mut self) {
        if !matches!(self.process.try_wait(), Ok(None)) {
            return;
        }
        if let Ok(pid) = libc::pid_t::try_from(self.process.id()) {
            // SAFETY: takes two numbers. The pid is that of a child which has not been waited for, so it cannot
            // have become another process's.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_ready(http: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&http, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        std::io::Result::Ok(status)
    };
    ask().is_ok_and(|status| status.starts_with(b"HTTP/1.") && status.ends_with(b" 200"))
}
