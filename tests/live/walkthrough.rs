//! README.md's walk-through and its pictures: made by real runs, and checked by them.
//!
//! With `OBSERVER_LIVE_BLESS=1` both are written anew. What is pasted is what the verbs said, but for four things: docker
//! has its data in its usual place there, not in the tests' scratch directory; other containers of the machine are left
//! out; and so is what is above a container's shim in its tree, and what goes to standard error.

use crate::lab;
use observer_live::agent::{self, Agent, Config};
use observer_live::docker::{self, Container, Docker};
use observer_live::lab::{Lab, skipped};
use observer_live::pty::Terminal;
use observer_live::screen::{self, Screen};
use observer_live::{cgroup, host, likeness, pace, readme, rootfs, wait};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// As a reader would call an image of busybox and little else.
const IMAGE: &str = "demo:1";
/// The terminal of the pictures.
const ROWS: u16 = 14;
const COLUMNS: u16 = 170;

/// The two containers of the walk-through.
struct Walk<'a> {
    docker: &'a Docker,
    config: Config,
    db: Container<'a>,
    web: Container<'a>,
}

impl<'a> Walk<'a> {
    /// `db`, and `web` in its net namespace, whose memory is limited while it runs to a number of bytes that is not one of
    /// whole pages.
    fn start(docker: &'a Docker) -> Self {
        rootfs::run(&mut docker.command(&["tag", docker::IMAGE, IMAGE]));
        let db = docker.start_plain(
            &["--name", "db", "--network", "none"],
            &[IMAGE, "sh", "-c", "sleep 1000 & sleep 2000 & wait"],
        );
        let web = docker.start_plain(
            &[
                "--name",
                "web",
                "--network",
                "container:db",
                "--memory",
                "32m",
                "--env",
                "TOKEN=a-secret-value",
            ],
            &[IMAGE, "sleep", "3000"],
        );
        rootfs::run(&mut docker.command(&["update", "--memory=8000000", "--memory-swap=8000000", "web"]));
        let up = wait::until_true(Duration::from_secs(5), || host::descendants(db.pid).len() == 2);
        assert!(up, "db has not started its two children");
        let text = format!("node: demo\nhost:\n  docker: \"{}\"\n", docker.data().display());
        Self { docker, config: Config::new(&text), db, web }
    }

    fn observer(&self, words: &str) -> Command {
        let mut command = agent::observer(&["--config", self.config.arg()]);
        command.args(words.split(' ').skip(1)).stdin(Stdio::null());
        command
    }

    /// What a verb says, as the README shows it.
    fn says(&self, words: &str) -> String {
        let ids = [self.db.id.as_str(), self.web.id.as_str()];
        let verb = words.split(' ').nth(1);
        // Its advices are long. What a terminal was given is as wide as it should be.
        if verb == Some("audit") {
            return format!("$ {words}\n{}", self.on_terminal(words));
        }
        let text = self.in_pipe(words);
        let text = match verb {
            Some("ps" | "top") => likeness::only(&text, &ids),
            Some("ns") => likeness::only_named(&text, &["db", "web"]),
            Some("tree") => likeness::below_shim(&text),
            _ => text,
        };
        let data = self.docker.data();
        let text = likeness::with_path(&text, data.to_str().expect("a path"), "/var/lib/docker");
        format!("$ {words}\n{}", likeness::narrow(&text))
    }

    fn in_pipe(&self, words: &str) -> String {
        let output = self.observer(words).output().expect("run the verb");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        said
    }

    /// On a terminal of 110 columns, where long texts are wrapped.
    fn on_terminal(&self, words: &str) -> String {
        const WIDTH: u16 = 110;
        let mut command = self.observer(words);
        let mut terminal =
            Terminal::spawn_session(command.stderr(Stdio::null()).env("TERM", "xterm-256color"), 100, WIDTH);
        let status =
            wait::until(Duration::from_secs(10), || terminal.guard.child().try_wait().ok().flatten());
        assert!(status.is_some_and(|status| status.success()), "{words}: {status:?}");
        // The reader of the terminal may be a little behind.
        std::thread::sleep(Duration::from_millis(200));
        let lines = Screen::of(&terminal.bytes(), 100, WIDTH).lines();
        assert!(!lines.is_empty(), "{words} says nothing on a terminal");
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// In the order of the story.
const RUNS: [&str; 6] = [
    "observer ps",
    "observer tree db",
    "observer ns --type net",
    "observer inspect web",
    "observer top --once",
    "observer audit web",
];

/// What the README shows is what the verbs say: the same words in the same places, all but pids and the like.
#[test]
fn the_readme_shows_what_the_verbs_say() {
    let Some(lab) = lab() else { return };
    let Some(docker) = docker::get(&lab.attacks) else { return };
    if !same_kind_of_host() {
        return;
    }
    let walk = Walk::start(docker);
    if readme::blessing() {
        // An age says more to a reader than none.
        std::thread::sleep(Duration::from_secs(65));
    }
    let path = readme::file("README.md");
    let mut document = fs::read_to_string(&path).expect("README.md");
    let mut stale = Vec::new();
    for words in RUNS {
        let said = walk.says(words);
        if readme::blessing() {
            document = readme::with_block(&document, words, &said)
                .unwrap_or_else(|| panic!("README.md has no place for {words:?}"));
            continue;
        }
        let shown =
            readme::block(&document, words).unwrap_or_else(|| panic!("README.md does not show {words:?}"));
        if let Some(difference) = readme::difference(&likeness::normal(&shown), &likeness::normal(&said)) {
            stale.push(format!("{words}: - README.md, + this run; {difference}"));
        }
    }
    if readme::blessing() {
        fs::write(&path, document).expect("write README.md");
    }
    assert!(
        stale.is_empty(),
        "README.md's walk-through is not what the verbs say. If it should be: {}=1 and this test write it anew.\n{}",
        readme::BLESS,
        stale.join("\n")
    );
}

/// Standalone and through the agent, the story is the same.
#[test]
fn the_agent_tells_the_same_story() {
    let Some(lab) = lab() else { return };
    let Some(docker) = docker::get(&lab.attacks) else { return };
    let walk = Walk::start(docker);
    let alone: Vec<_> = RUNS.map(|words| likeness::normal(&walk.says(words))).into();
    let agent = lab.only_agent(walk.config.clone());
    for (words, alone) in RUNS.into_iter().zip(alone) {
        let with = likeness::normal(&walk.says(words));
        assert_eq!(readme::difference(&alone, &with), None, "{words}: - standalone, + through the agent");
    }
    agent.finish();
}

/// The walk-through names what only some hosts have: each hierarchy of v1, and that there is no AppArmor.
fn same_kind_of_host() -> bool {
    if !cgroup::needs_v1() {
        return false;
    }
    if Path::new("/sys/kernel/security/apparmor").exists() || Path::new("/sys/module/apparmor").exists() {
        skipped("the walk-through was made on a host without AppArmor: /sys/module/apparmor is there");
        return false;
    }
    true
}

/// The pictures, and what each has to say.
const PICTURES: [(&str, &[&str]); 3] = [
    (
        "ps",
        &[
            "$ observer ps",
            "CONTAINER ID",
            "db",
            "web",
            "batch",
            "debug",
            "/ 7.629MiB",
            "default + SYS_PTRACE, SYS_ADMIN",
            "capabilities, host_namespace",
        ],
    ),
    ("top", &["observer top", "db", "web", "batch", "THROT %", "/ 7.629MiB", "q quit"]),
    ("tail", &["CRITICAL", "namespace.escape", "debug", "nsenter", "(host)", "evidence", "setns"]),
];

fn picture(name: &str) -> std::path::PathBuf {
    readme::file(&format!("docs/screens/{name}.svg"))
}

/// They are SVGs, say what they are there for, and nothing of the machine that they were made on.
#[test]
fn the_screens_in_the_readme_are_sound() {
    let document = match fs::read_to_string(readme::file("README.md")) {
        Ok(document) => document,
        // In a virtual machine only the tests are there, without the repository.
        Err(error) if pace::emulated() => {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "README.md: {error}");
            return skipped("the repository is not in this machine (ENOENT)");
        }
        Err(error) => panic!("README.md: {error}"),
    };
    let temp = std::env::temp_dir();
    for (name, expected) in PICTURES {
        let svg = fs::read_to_string(picture(name)).unwrap_or_else(|error| panic!("{name}.svg: {error}"));
        let words = screen::words(&svg).unwrap_or_else(|error| panic!("{name}.svg is no SVG: {error}"));
        let text = words.join("\n");
        for part in expected {
            assert!(text.contains(part), "{name}.svg does not say {part:?}:\n{text}");
        }
        assert!(
            !text.contains(temp.to_str().expect("a path")),
            "{name}.svg names a scratch directory:\n{text}"
        );
        assert!(
            document.contains(&format!("(docs/screens/{name}.svg)")),
            "README.md does not show {name}.svg"
        );
    }
}

/// Makes the pictures, each of a real terminal; only where that is asked for. Otherwise that the same could be made is
/// checked: the same words are on the screens.
#[test]
fn the_pictures_can_be_taken() {
    let Some(lab) = lab() else { return };
    let Some(docker) = docker::get(&lab.attacks) else { return };

    let walk = Walk::start(docker);
    let _batch = docker.start_plain(
        &["--name", "batch", "--network", "none", "--cpus", "0.5", "--memory", "64m", "--pids-limit", "20"],
        &[IMAGE, "sh", "-c", "while :; do :; done"],
    );
    let debug =
        docker.start(&["--name", "debug", "--pid=host", "--cap-add=SYS_ADMIN", "--cap-add=SYS_PTRACE"]);
    let target = host::target();
    for (name, screen) in
        [("ps", ps(&walk)), ("top", top(&walk)), ("tail", tail(&lab, &walk, &debug, target.pid()))]
    {
        let (title, screen) = screen;
        let svg = screen.svg(title);
        let text = screen::words(&svg).expect("an SVG").join("\n");
        let expected = PICTURES.iter().find(|(picture, _)| *picture == name).expect("a picture").1;
        for part in expected {
            assert!(text.contains(part), "the screen of {name} does not show {part:?}:\n{text}");
        }
        if readme::blessing() {
            fs::create_dir_all(picture(name).parent().expect("a directory")).expect("make docs/screens");
            fs::write(picture(name), svg).expect("write the picture");
        }
    }
}

fn terminal(command: &mut Command) -> Terminal {
    command.stderr(Stdio::null()).env("TERM", "xterm-256color");
    Terminal::spawn_session(command, ROWS, COLUMNS)
}

fn shown(terminal: &Terminal) -> Screen {
    Screen::of(&terminal.bytes(), ROWS, COLUMNS)
}

fn ps(walk: &Walk<'_>) -> (&'static str, Screen) {
    let mut terminal = terminal(&mut walk.observer("observer ps"));
    let status = wait::until(Duration::from_secs(10), || terminal.guard.child().try_wait().ok().flatten());
    assert!(status.is_some_and(|status| status.success()), "observer ps: {status:?}");
    std::thread::sleep(Duration::from_millis(200));
    let ours = own_ids(walk);
    let screen = shown(&terminal).where_lines(|line, at| {
        // A line that goes on in the next begins with blanks.
        at == 0 || line.starts_with(' ') || ours.iter().any(|id| line.starts_with(&id[..12]))
    });
    ("observer ps", screen)
}

fn own_ids(walk: &Walk<'_>) -> Vec<String> {
    let list = rootfs::run(&mut walk.docker.command(&["ps", "-q", "--no-trunc"]));
    list.lines().map(str::to_owned).collect()
}

/// After some seconds, so that there are rates and pressure. Other containers of the machine are filtered out by its own
/// means: the names have a letter in common.
fn top(walk: &Walk<'_>) -> (&'static str, Screen) {
    let mut terminal = terminal(&mut walk.observer("observer top"));
    std::thread::sleep(Duration::from_secs(2));
    terminal.type_in("/b\r");
    std::thread::sleep(Duration::from_secs(6));
    ("observer top", shown(&terminal))
}

/// An alert as it comes: nsenter out of a container that sees the host's processes.
fn tail(lab: &Lab, walk: &Walk<'_>, debug: &Container<'_>, target: u32) -> (&'static str, Screen) {
    let agent: Agent = lab.only_agent(walk.config.clone());
    let terminal = terminal(&mut walk.observer("observer tail --container debug"));
    // A tail has no way to say that it is connected; the agent's socket is up already, and this is much longer than it takes.
    std::thread::sleep(Duration::from_secs(1));
    debug.sh(&format!("nsenter -t {target} -m -n -u -i true")).ok();
    agent.wait_for("namespace.escape", &debug.id);
    let seen = || shown(&terminal).lines().iter().any(|line| line.contains("evidence"));
    assert!(wait::until_true(Duration::from_secs(5), seen), "tail shows {:?}", shown(&terminal).lines());
    agent.finish();
    ("observer tail --container debug", shown(&terminal))
}
