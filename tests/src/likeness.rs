//! What makes two runs of a listing verb alike: everything but what no two runs have in common (pids, inodes, ids, times,
//! use), and but for the other containers of the machine. Limits, masks, modes, names and structure stay as they are.

use regex::{Captures, Regex};
use std::sync::LazyLock;

/// What is replaced, in this order: the general things first, then lines as the verbs write them.
const RULES: &[(&str, &str)] = &[
    // Ids of containers, layers and files: whole, or as docker cuts them. Capability masks have 16 digits.
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"\b[0-9a-f]{12}\b", "ID"),
    // Inodes of namespaces: the kernel counts up from 4026531840, and has its first ones below.
    (r"\b40265[0-9]{5}\b", "INODE"),
    (r"\b\d{4}-\d\d-\d\dT[\d:.]+Z \(\d+[smhd] ago\)", "TIME (AGE ago)"),
    // tree, and the processes of inspect: the pid, and every pid inside but the first's, which is always 1.
    (r"^( *(?:[├└]─ )?)\d+ \(1\)( +uid)", "${1}PID (1)$2"),
    (r"^( *(?:[│ ] +)*(?:[├└]─ )?)\d+ \(\d+\)( +uid)", "${1}PID (N)$2"),
    (r"^( *(?:└─ )?)\d+( containerd-shim)", "${1}PID$2"),
    // ps: PID, AGE, CPU and what it uses of its memory; the number of processes and the limit stay.
    (r"^ID (\S+ \S+ \S+) \d+ \d+[smhd] (\d+) [\d.]+s \S+ / ", "ID $1 PID AGE $2 CPU USE / "),
    // top: CPU, use of memory and its share of the limit, io, pressure.
    (
        r"^(\S+ ID \S+) [\d.]+ (\S+) \S+ / (\S+) (\S+) (\d+ / \S+) \S+ / \S+ (\S+) \S+$",
        "$1 CPU $2 USE / $3 $4 $5 IO $6 PRESSURE",
    ),
    (r"(CPU - USE / \S+) [\d.]+ ", "$1 SHARE "),
    // ns: how many processes the host has, and who else has the host's namespace.
    (r"^(\S+ INODE host host).*$", "$1"),
    // inspect: where the machine keeps docker's files, its cgroups' ids, its CPUs, and what is used.
    (r"\S+\[/var/lib/docker/(\S+)\] \S+", "DISK[/var/lib/docker/$1] TYPE"),
    (r"^( +\S+) \d+ (/sys/fs/cgroup/)", "$1 ID $2"),
    (r"and \d+ that every container has", "and N that every container has"),
    (r"\d+ lower layers", "N lower layers"),
    (r"[\d.]+s used, no quota \(\d+ CPUs\)", "TIME used, no quota (N CPUs)"),
    (r"\S+ \(\d+ bytes\) used, at most \S+ so far", "USE used, at most PEAK so far"),
    (r"^(  io +)\S+ read, \S+ written", "$1 N read, N written"),
    (r"^(  cpuset +)CPUs \S+$", "$1 CPUs N"),
];

static COMPILED: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    RULES.iter().map(|(pattern, with)| (Regex::new(pattern).expect("a rule"), *with)).collect()
});

/// The lines of an output without what no two runs have in common. Columns of tables are one blank apart; indentation
/// stays.
pub fn normal(text: &str) -> Vec<String> {
    text.trim_end().lines().map(normal_line).collect()
}

fn normal_line(line: &str) -> String {
    let words = line.trim_start_matches([' ', '│']);
    let mut line = line.strip_suffix(words).unwrap_or_default().to_owned();
    line.push_str(&words.split_whitespace().collect::<Vec<_>>().join(" "));
    for (rule, with) in COMPILED.iter() {
        line = rule.replace_all(&line, *with).into_owned();
    }
    line
}

/// A table, as `ps` and `top` write it, without the rows of other containers: the first line, and those that have one of
/// these ids.
pub fn only(table: &str, ids: &[&str]) -> String {
    lines_where(table, |line| ids.iter().any(|id| line.contains(&id[..12])))
}

/// What `ns` says of namespaces that containers of these names are in, and of the host's.
pub fn only_named(table: &str, names: &[&str]) -> String {
    lines_where(table, |line| {
        let member =
            |name: &&str| line.contains(&format!("  {name} (")) || line.contains(&format!(", {name} ("));
        line.split_whitespace().nth(3) == Some("host") || names.iter().any(member)
    })
}

fn lines_where(table: &str, wanted: impl Fn(&str) -> bool) -> String {
    let kept = table.lines().enumerate().filter(|(at, line)| *at == 0 || wanted(line));
    kept.map(|(_, line)| format!("{line}\n")).collect()
}

/// A tree from its container's shim down: what is above it is this machine's and the tests' own.
pub fn below_shim(tree: &str) -> String {
    let mut above = 0;
    let mut kept = String::new();
    for line in tree.lines() {
        let host = line.ends_with("  [host]");
        if host && !line.contains(" containerd-shim ") {
            above += 1;
            continue;
        }
        // Each step down is three columns.
        let from = if line.starts_with([' ', '└']) || host { 3 * above } else { 0 };
        kept.extend(line.chars().skip(from));
        kept.push('\n');
    }
    kept
}

/// The text with another path. The cells of tables keep their width, so that what stands right of them stays in line.
pub fn with_path(text: &str, from: &str, to: &str) -> String {
    let cell = Regex::new(&format!(r"{}(\S*)(  )?", regex::escape(from))).expect("a path in a pattern");
    let shorter = from.len().saturating_sub(to.len());
    let replaced = cell.replace_all(text, |found: &Captures<'_>| {
        let padding = found.get(2).map_or(String::new(), |_| " ".repeat(shorter + 2));
        format!("{to}{}{padding}", &found[1])
    });
    replaced.into_owned()
}

/// Tables without the room that rows which are gone, or longer paths, have left: between columns there are two blanks.
pub fn narrow(text: &str) -> String {
    let lines: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
    let mut narrowed = String::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let end = if is_heading(line) {
            let indent = indent(line);
            let rows = lines.iter().skip(at + 1);
            at + 1 + rows.take_while(|row| !row.is_empty() && self::indent(row) == indent).count()
        } else {
            at + 1
        };
        write_narrow(lines.get(at..end).unwrap_or_default(), &mut narrowed);
        at = end;
    }
    narrowed
}

/// `TYPE  INODE  MEMBERS (PROCESSES)`: no small letter, and at least two columns.
fn is_heading(line: &[char]) -> bool {
    let text: String = line.iter().collect();
    text.trim_start().contains("  ")
        && text.contains(|c: char| c.is_ascii_uppercase())
        && !text.contains(|c: char| c.is_lowercase())
}

fn indent(line: &[char]) -> usize {
    line.iter().take_while(|c| **c == ' ').count()
}

fn write_narrow(lines: &[Vec<char>], out: &mut String) {
    let first = lines.first().map_or(0, |line| indent(line));
    let width = lines.iter().map(Vec::len).max().unwrap_or_default();
    let blank = |column: usize| lines.iter().all(|line| line.get(column).is_none_or(|c| *c == ' '));
    // The third and further of several blank columns go, but not in a text that stands alone, nor the indentation.
    let goes = |column: usize| {
        lines.len() > 1 && column >= first + 2 && blank(column) && blank(column - 1) && blank(column - 2)
    };
    let kept: Vec<usize> = (0..width).filter(|column| !goes(*column)).collect();
    for line in lines {
        let narrow: String = kept.iter().filter_map(|column| line.get(*column)).collect();
        out.push_str(narrow.trim_end());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_not_compared() {
        let cases = [
            (
                "58d21927f55b  web   demo:1  docker   23379   0s      1  0.02s  320KiB / 7.629MiB  filter   default       -",
                "ID web demo:1 docker PID AGE 1 CPU USE / 7.629MiB filter default -",
            ),
            (
                "   └─ 23313 (1)  uid 0  sh  /bin/busybox  sh -c 'sleep 1000'",
                "   └─ PID (1) uid 0 sh /bin/busybox sh -c 'sleep 1000'",
            ),
            ("   │  ├─ 23339 (7)  uid 0  sleep", "   │  ├─ PID (N) uid 0 sleep"),
            ("└─ 23293 containerd-shim  [host]", "└─ PID containerd-shim [host]"),
            (
                "net   4026532181   host  2 containers  db (3), web (1)",
                "net INODE host 2 containers db (3), web (1)",
            ),
            ("net   4026531833   host  host + 1 container  host (25), x (3)", "net INODE host host"),
            (
                "web  58d21927f55b  docker  0.00  -  320KiB / 7.629MiB  4.10  1 / -  0B / 0B  0  0.2/0.0/0.0",
                "web ID docker CPU - USE / 7.629MiB SHARE 1 / - IO 0 PRESSURE",
            ),
            (
                "db  58d21927f55b  docker  0.00  -  320KiB / -  -  3 / -  0B / 0B  0  -",
                "db ID docker CPU - USE / - - 3 / - IO 0 PRESSURE",
            ),
            (
                "  memory         320KiB (327680 bytes) used, at most 3.645MiB so far, limit 7.629MiB (7999488 bytes)",
                "  memory USE used, at most PEAK so far, limit 7.629MiB (7999488 bytes)",
            ),
            ("  started        2026-11-24T19:13:30.405Z (2s ago)", "  started TIME (AGE ago)"),
            (
                "  memory         422595  /sys/fs/cgroup/memory/docker/58d21927f55b822ab611410fcaceb62c01332401765acb837e79caa27803ab50",
                "  memory ID /sys/fs/cgroup/memory/docker/ID",
            ),
            (
                "  effective    00000000a80425fb  default                  what the kernel checks",
                "  effective 00000000a80425fb default what the kernel checks",
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(normal(line), [expected]);
        }
    }

    #[test]
    fn what_must_not_differ_is_compared() {
        let cases = [
            ("limit 7.629MiB (7999488 bytes)", "limit 7.629MiB (8000000 bytes)"),
            ("  effective    00000000a80425fb  default", "  effective    00000000a80425ff  default"),
            ("  net     4026532181  shared with db  x", "  net     4026532181  its own  x"),
            (
                "net   4026532181   host  2 containers  db (3), web (1)",
                "net   4026532181   host  2 containers  db (3), web (2)",
            ),
            (
                "58d21927f55b  web  i  docker  2  0s  1  0.02s  3KiB / 8MiB  filter",
                "58d21927f55b  web  i  docker  2  0s  1  0.02s  3KiB / 8MiB  off",
            ),
            (
                "58d21927f55b  web  i  docker  2  0s  1  0.02s  3KiB / 8MiB  filter",
                "58d21927f55b  web  i  docker  2  0s  1  0.02s  3KiB / 9MiB  filter",
            ),
            ("  notice    root_user  x", "  warning   root_user  x"),
            ("  seccomp        mode 2, filter: 1 filter", "  seccomp        mode 2, filter: 2 filters"),
            ("   └─ 3 (1)  uid 0  sh", "      └─ 3 (1)  uid 0  sh"),
        ];
        for (one, other) in cases {
            assert_ne!(normal(one), normal(other));
        }
    }

    #[test]
    fn the_machine_is_left_out() {
        let tree = "db (x)\n1 init  [host]\n└─ 2 sh  [host]\n   └─ 3 containerd-shim  [host]\n      └─ 4 (1)  uid 0\n         └─ 5 (7)  uid 0\n";
        assert_eq!(
            below_shim(tree),
            "db (x)\n3 containerd-shim  [host]\n└─ 4 (1)  uid 0\n   └─ 5 (7)  uid 0\n"
        );
        let table = "ID            NAME      N\n0123456789ab  short     1\nba9876543210  very-long 2\n";
        let ours = only(table, &["0123456789abcdef"]);
        assert_eq!(narrow(&ours), "ID            NAME   N\n0123456789ab  short  1\n");
        let map = "\
T    INODE  OWNER  SHARED        MEMBERS
net      1  host   host          host (9)
net      2  host   2 containers  db (3), web (1)
net      3  host   private       other-web (1)
";
        assert_eq!(only_named(map, &["db", "web"]).lines().count(), 3);
    }

    #[test]
    fn a_shorter_path_leaves_no_hole() {
        let page = "  x              upperdir=/tmp/y-1/data/a\n  AT     FROM              TYPE\n  /etc/  d[/tmp/y-1/data/b]  ext4\n  /run/  d[/tmp/y-1/data/c]  ext4\n";
        let page = page.replace("FROM              TYPE", "FROM                TYPE");
        let expected = "  x              upperdir=/v/a\n  AT     FROM     TYPE\n  /etc/  d[/v/b]  ext4\n  /run/  d[/v/c]  ext4\n";
        assert_eq!(narrow(&with_path(&page, "/tmp/y-1/data", "/v")), expected);
    }
}
