//! What the demo says. Written for a reader who has never heard of a namespace.

use serde_json::Value;
use std::fmt::Write;

pub const OPENING: &str = "\
A container breaks out, and observer notices
============================================
";

pub const THE_CONTAINER: &str = "   \
   It is a container as one meets them: somebody gave it CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_SYS_CHROOT,
   and the sight of the host's processes (`hostPID`), because something \"did not work otherwise\".
";

/// The types of namespace: what a process gets from each, and what it means to have the host's.
const NAMESPACES: [(&str, &str, &str); 8] = [
    ("mnt", "which files it sees", "reads and writes the host's files, /etc/shadow and all keys among them"),
    (
        "net",
        "network interfaces and ports",
        "listens and connects as the host, past the container's network policy",
    ),
    ("pid", "which processes it sees", "sees and signals the host's processes"),
    ("user", "what its user ids are worth", "has its privileges on the host, not only in the container"),
    ("ipc", "shared memory, message queues", "reaches the shared memory of the host's programs"),
    ("uts", "the host name", "can rename the host"),
    ("cgroup", "which cgroups it sees", "sees the host's whole cgroup tree"),
    ("time", "the clocks since boot", "sees the host's clocks"),
];

/// The story behind a `namespace.escape` alert. Says only what the alert holds.
pub fn explain(alert: &Value) -> String {
    [what_it_says(alert).as_str(), &which_process(alert), &how_it_was_seen(alert), &what_to_do(alert)]
        .join("\n")
}

fn what_it_says(alert: &Value) -> String {
    let namespaces = &alert["namespaces"];
    let listed = |list: &str, kind: &str| {
        namespaces[list].as_array().is_some_and(|kinds| kinds.iter().any(|it| it == kind))
    };
    let mut table = String::new();
    let mut consequences = String::new();
    for (kind, decides, consequence) in NAMESPACES.iter().filter(|(kind, ..)| listed("changed", kind)) {
        let inode =
            |tuple: &str| namespaces[tuple][kind].as_u64().map_or("?".to_owned(), |inode| inode.to_string());
        let host = listed("host", kind);
        let whose = if host { "the host's" } else { "another container's, or new" };
        let (expected, actual) = (inode("expected"), inode("actual"));
        let _ = writeln!(table, "    {kind:<9}  {decides:<29}  {expected:>13}  {actual:>13}  {whose}");
        if host {
            let _ = writeln!(consequences, "    - {consequence}");
        }
    }
    let container = container(alert);
    let mut text = format!(
        "\
What the alert says
-------------------
A container is not a box. It is a few ordinary processes to which the kernel shows their own version of
some parts of the system: their own files, their own network, their own host name. Each such version is
called a namespace, and each namespace has a number. Two processes see the same files if, and only if, their
mnt namespaces have the same number. (`ls -l /proc/PID/ns` shows the numbers of any process.)

Observer knows which namespaces {container} was given, and holds every process that began
in the container against them. One no longer fits:

    namespace  what it decides                expected here       has now  which is
{table}"
    );
    if !consequences.is_empty() {
        let _ = write!(
            text,
            "\nSo a process that belongs in the container now\n\n{consequences}\nIt has escaped.\n"
        );
    }
    text
}

fn which_process(alert: &Value) -> String {
    let process = &alert["process"];
    let mut text = "\
Which process it is
-------------------
"
    .to_owned();
    let mut row = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = writeln!(text, "    {name:<13}{value}");
        }
    };
    let words = |value: &Value| {
        let words: Vec<&str> = value.as_array()?.iter().filter_map(Value::as_str).collect();
        (!words.is_empty()).then(|| words.join(" "))
    };
    row("container", Some(container(alert)));
    row("process id", process["pid"].as_u64().map(|pid| format!("{pid} (as the host counts)")));
    row("program", process["exe"].as_str().or(process["comm"].as_str()).map(str::to_owned));
    row("command", words(&process["args"]));
    row("user id", process["uid"].as_u64().map(|uid| uid.to_string()));
    row("MITRE ATT&CK", words(&alert["mitre"]).map(|it| it.replace("T1611", "T1611, Escape to Host")));
    text
}

fn how_it_was_seen(alert: &Value) -> String {
    let door = match alert["evidence"]["door"].as_str() {
        Some("setns") => {
            "\
The process called setns, which moves the caller into a namespace that exists already; nsenter makes one
such call for each namespace. Observer gathered them, for some milliseconds, into one alert."
        }
        Some("unseen") => {
            "\
No call that observer watches explains how the process got there; it saw the result when the process next
started, replaced or ended a program, or in its regular round through all processes."
        }
        _ => "Observer saw it in the kernel, as the process's namespaces changed.",
    };
    format!(
        "\
How observer saw it
-------------------
{door}

It did not go by the name `nsenter`, which anybody can change, and not by the call alone: it compared the
numbers. A process that gets out by a way nobody thought of, a kernel bug for instance, ends up with the
same wrong numbers, and in the same alert. And a process keeps the mark of the container in which it began,
wherever it goes; that is why observer still knows whose process this is.
"
    )
}

fn what_to_do(alert: &Value) -> String {
    let pid = alert["process"]["pid"].as_u64().map_or("PID".to_owned(), |pid| pid.to_string());
    format!(
        "\
What to do about such an alert
------------------------------
 1. Ask whether it was you. An administrator debugging a node does exactly this, on purpose, from a
    privileged pod. If nobody you can ask did it, take it as an attack.
 2. Stop the process (`kill -9 {pid}`), then its container. What it has already started on the host counts
    too: its children keep the container's mark, and observer goes on telling what they do as the
    container's.
 3. Treat the host as read: whatever keys and tokens it holds may be known.
 4. Shut the door. This container could get out because of what it was allowed. Without CAP_SYS_ADMIN, or
    without `hostPID`, the command in step 4 above fails. In Kubernetes: `hostPID: false` and
    `securityContext: {{privileged: false, capabilities: {{drop: [ALL]}}}}`.

"
    )
}

fn container(alert: &Value) -> String {
    let container = &alert["container"];
    let name = container["name"].as_str().or(container["id"].as_str());
    name.map_or("the container".to_owned(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::explain;
    use serde_json::json;

    #[test]
    fn shows_each_changed_namespace_and_whose_it_is_now() {
        let text = explain(&json!({
            "container": {"id": "c1", "name": "web"},
            "process": {"pid": 42, "args": ["nsenter", "-m"]},
            "namespaces": {
                "expected": {"mnt": 11, "net": 12, "uts": 13}, "actual": {"mnt": 21, "net": 22, "uts": 13},
                "changed": ["mnt", "net"], "host": ["mnt"]
            },
            "evidence": {"door": "setns"}
        }));
        let row =
            |kind: &str| text.lines().find(|line| line.trim_start().starts_with(kind)).map(str::to_owned);
        let words = |line: String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(row("mnt  ").map(words).as_deref(), Some("mnt which files it sees 11 21 the host's"));
        assert!(row("net  ").is_some_and(|row| row.ends_with("another container's, or new")), "{text}");
        assert_eq!(row("uts  "), None, "it did not change");
        assert!(text.contains("kill -9 42"));
    }

    #[test]
    fn does_without_what_is_absent_and_keeps_to_the_width_of_a_page() {
        let text = explain(&json!({}));
        assert!(!text.contains("null") && text.contains("the container"), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 110, "{line}");
        }
    }
}
