//! `observer tree`: processes by container, below the host's processes that hold them.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
};

use super::{COMM, PATH, Untrusted, command, table::Surface, words};
use crate::inventory::{ContainerView, Look, ProcessView};

/// The trees of these containers.
pub fn tree(look: &Look, containers: &[&ContainerView], surface: Surface) -> String {
    let by_pid: HashMap<u32, &ProcessView> = look.processes.iter().map(|p| (p.pid, p)).collect();
    let mut text = String::new();
    for container in containers {
        if !text.is_empty() {
            text.push('\n');
        }
        Drawing { look, container, by_pid: &by_pid, surface, text: &mut text }.draw();
    }
    if text.is_empty() {
        text.push_str("no containers on this host\n");
    }
    text
}

/// The processes of one container only.
pub fn branches_of(look: &Look, container: &ContainerView, surface: Surface) -> String {
    let mut text = String::new();
    Drawing { look, container, by_pid: &HashMap::new(), surface, text: &mut text }.body(false);
    text
}

struct Drawing<'a> {
    look: &'a Look,
    container: &'a ContainerView,
    by_pid: &'a HashMap<u32, &'a ProcessView>,
    surface: Surface,
    text: &'a mut String,
}

impl<'a> Drawing<'a> {
    fn draw(&mut self) {
        let strong = self.surface.colours.strong();
        let container = self.container;
        let called = match &container.pod {
            Some(pod) => words::pod(pod),
            None => words::called(container).to_owned(),
        };
        let _ = write!(self.text, "{strong}{}{strong:#}", Untrusted(&called, PATH));
        let short = words::short_id(&container.id);
        if short != called {
            let _ = write!(self.text, " ({})", Untrusted(short, PATH));
        }
        let _ = write!(self.text, "  {}", container.runtime);
        if let Some(image) = &container.image {
            let _ = write!(self.text, "  {}", Untrusted(image, PATH));
        }
        let _ = writeln!(self.text, "  {}", count(container.processes, "process", "processes"));
        self.body(true);
    }

    fn body(&mut self, with_host: bool) {
        let faint = self.surface.colours.faint();
        let members: Vec<&ProcessView> = self.look.members(&self.container.id).collect();
        let own: HashSet<u32> = members.iter().map(|p| p.pid).collect();
        let mut children: HashMap<u32, Vec<&ProcessView>> = HashMap::new();
        let mut roots: Vec<&ProcessView> = Vec::new();
        for process in &members {
            if own.contains(&process.ppid) && process.ppid != process.pid {
                children.entry(process.ppid).or_default().push(process);
            } else {
                roots.push(process);
            }
        }
        // Those that hang below the same process of the host are shown below it together.
        let mut drawn: HashSet<u32> = HashSet::new();
        for root in roots.clone() {
            if !drawn.insert(root.ppid) {
                continue;
            }
            let mut depth = 0;
            let ancestors = if with_host { self.ancestors(root) } else { Vec::new() };
            for ancestor in ancestors {
                let line = format!("{}{}", indent(depth), self.host_line(ancestor));
                let _ = writeln!(self.text, "{faint}{line}{faint:#}");
                depth += 1;
            }
            let together: Vec<&ProcessView> =
                roots.iter().filter(|other| other.ppid == root.ppid).copied().collect();
            let prefix = if depth == 0 { String::new() } else { "   ".repeat(depth - 1) };
            self.branches(&together, &children, &prefix, depth == 0);
        }
    }

    /// The processes of the host above, the uppermost first; pid 1 and what hangs below it directly say enough.
    fn ancestors(&self, root: &ProcessView) -> Vec<&'a ProcessView> {
        const DEEPEST: usize = 16;
        let mut chain = Vec::new();
        let mut pid = root.ppid;
        while let Some(process) = self.by_pid.get(&pid).filter(|_| chain.len() < DEEPEST) {
            chain.push(*process);
            if pid == process.ppid {
                break;
            }
            pid = process.ppid;
        }
        chain.reverse();
        chain
    }

    fn host_line(&self, process: &ProcessView) -> String {
        // Another container's process above: a container in a container.
        let of = process.container.as_deref().and_then(|id| self.look.container(id));
        let place = of.map_or("host".to_owned(), |c| Untrusted(words::called(c), PATH).to_string());
        format!("{} {}  [{place}]", process.pid, Untrusted(&process.comm, COMM))
    }

    /// Draws iteratively: a container decides how deep its tree is.
    fn branches(
        &mut self,
        roots: &[&ProcessView],
        children: &HashMap<u32, Vec<&ProcessView>>,
        prefix: &str,
        top: bool,
    ) {
        const DEEPEST: usize = 48;
        struct Item<'a> {
            process: &'a ProcessView,
            prefix: String,
            last: bool,
            depth: usize,
        }
        let mut stack: Vec<Item<'_>> = Vec::new();
        let last = roots.len().saturating_sub(1);
        for (at, process) in roots.iter().enumerate().rev() {
            stack.push(Item { process, prefix: prefix.to_owned(), last: at == last, depth: 0 });
        }
        while let Some(item) = stack.pop() {
            let joint = if top && item.depth == 0 {
                ""
            } else if item.last {
                "└─ "
            } else {
                "├─ "
            };
            let _ = writeln!(self.text, "{}{joint}{}", item.prefix, self.own_line(item.process));
            let below = children.get(&item.process.pid).map(Vec::as_slice).unwrap_or_default();
            let further = if top && item.depth == 0 {
                ""
            } else if item.last {
                "   "
            } else {
                "│  "
            };
            // A chain that is deeper than a screen is wide goes on without being indented further.
            let prefix = if item.depth < DEEPEST { format!("{}{further}", item.prefix) } else { item.prefix };
            let last = below.len().saturating_sub(1);
            for (at, process) in below.iter().enumerate().rev() {
                stack.push(Item { process, prefix: prefix.clone(), last: at == last, depth: item.depth + 1 });
            }
        }
    }

    /// `1234 (1) root /usr/bin/postgres -D /data`
    fn own_line(&self, process: &ProcessView) -> String {
        let strong = self.surface.colours.strong();
        let mut line = format!("{strong}{}{strong:#}", process.pid);
        // The host's own number comes first in NSpid; what follows is what the container sees.
        match process.ns_pids.as_slice() {
            [] | [_] => {}
            [_, inner @ ..] => {
                let inner: Vec<String> = inner.iter().map(u32::to_string).collect();
                let _ = write!(line, " ({})", inner.join("/"));
            }
        }
        let _ = write!(line, "  uid {}  {}", process.uid, Untrusted(&process.comm, COMM));
        if let Some(label) = other_label(self.container, process) {
            let _ = write!(line, "  {strong}[{}]{strong:#}", Untrusted(&label, PATH));
        }
        if let Some(exe) = &process.exe {
            let _ = write!(line, "  {}", Untrusted(exe, PATH));
        }
        if !process.args.is_empty() {
            let faint = self.surface.colours.faint();
            let _ = write!(line, "  {faint}{}{faint:#}", command(&process.args));
        }
        line
    }
}

/// The label of a process that does not have the one of its container's first process; SELinux's context where that is the
/// module.
pub(super) fn other_label(container: &ContainerView, process: &ProcessView) -> Option<String> {
    let (first, own) = (container.security.as_ref()?, process.security.as_ref()?);
    let apparmor = own.apparmor.as_ref().filter(|label| first.apparmor.as_ref() != Some(label));
    let selinux = || own.selinux.as_ref().filter(|context| first.selinux.as_ref() != Some(context));
    apparmor.map(ToString::to_string).or_else(|| selinux().cloned())
}

fn indent(depth: usize) -> String {
    if depth == 0 { String::new() } else { format!("{}└─ ", "   ".repeat(depth - 1)) }
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        inventory::testing::{DB, look, security},
        model::Label,
    };

    /// How `db`'s second process is shown, if it has this label.
    fn shown(label: &[u8], selinux: Option<&str>) -> String {
        let mut look = look();
        for process in look.processes.iter_mut().filter(|process| process.container.is_some()) {
            process.security = Some(security());
        }
        let second = look.processes.iter_mut().find(|process| process.pid == 101).expect("a process");
        second.security.as_mut().expect("its security").apparmor = Label::parse(label);
        second.security.as_mut().expect("its security").selinux = selinux.map(str::to_owned);
        let text = tree(&look, &[look.container(DB).expect("db")], Surface::PLAIN);
        text.lines().filter(|line| line.contains("101 (1)")).collect()
    }

    #[test]
    fn a_label_is_shown_where_it_is_another_than_the_first_ones() {
        let same = shown(b"docker-default (enforce)\n", None);
        assert!(same.contains("sleep") && !same.contains('['), "{same}");
        assert!(shown(b"unconfined\n", None).contains("[unconfined]"));
        assert!(shown(b"", Some("a:b:c:s0")).contains("[a:b:c:s0]"));
        // Who loads the profile, or has it loaded, names it.
        let hostile = shown(b"\x1b[2J\nx (enforce)\n", None);
        assert!(!hostile.contains('\x1b') && hostile.contains("x (enforce)]"), "{hostile}");
    }
}
