//! `observer inspect`: everything about one container on one page, in the order in which a teacher would take it.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    COMM, PATH, Untrusted, cut_ids,
    table::{Cell, Column, Surface, Table},
    tree, words,
};
use crate::{
    inventory::{ContainerView, Look, Mount, Namespace, ProcessView, Security},
    model::{CapSet, NsType, resources::Resources},
};

/// What is shown beside the look.
#[derive(Debug)]
pub struct Page<'a> {
    pub look: &'a Look,
    pub container: &'a ContainerView,
    pub sharing: &'a [Namespace],
    /// Names of the first process's environment variables; `None` if they cannot be read.
    pub environment: Option<&'a [String]>,
}

/// The page.
pub fn inspect(page: &Page<'_>, surface: Surface) -> String {
    let mut writer = Writer { page, surface, text: String::new() };
    writer.heading();
    writer.processes();
    writer.namespaces();
    writer.root_and_mounts();
    writer.cgroups();
    writer.resources();
    writer.confinement();
    writer.capabilities();
    writer.environment();
    writer.text
}

struct Writer<'a> {
    page: &'a Page<'a>,
    surface: Surface,
    text: String,
}

/// Names of the sets in the order of /proc/PID/status, and what each is for.
const SETS: [(&str, &str); 5] = [
    ("effective", "what the kernel checks"),
    ("permitted", "what it may make effective"),
    ("inheritable", "what an exec may pass on"),
    ("bounding", "what it can never get beyond"),
    ("ambient", "what an exec without privileges keeps"),
];

impl Writer<'_> {
    fn section(&mut self, title: &str, about: &str) {
        let (strong, faint) = (self.surface.colours.strong(), self.surface.colours.faint());
        let _ = writeln!(self.text, "\n{strong}{title}{strong:#}  {faint}{about}{faint:#}");
    }

    fn line(&mut self, name: &str, value: &str) {
        // Names are ours; values are escaped by whoever made them.
        let _ = writeln!(self.text, "  {name:<14} {value}");
    }

    fn untrusted(&mut self, name: &str, value: &str) {
        let value = Untrusted(value, PATH * 4).to_string();
        self.line(name, &value);
    }

    fn table<const N: usize>(&mut self, table: &Table<N>) {
        let narrower =
            Surface { width: self.surface.width.map(|width| width.saturating_sub(2)), ..self.surface };
        for line in table.render(narrower).lines() {
            let _ = writeln!(self.text, "  {line}");
        }
    }

    fn heading(&mut self) {
        let container = self.page.container;
        let strong = self.surface.colours.strong();
        let called = match &container.pod {
            Some(pod) => words::pod(pod),
            None => words::called(container).to_owned(),
        };
        let _ = writeln!(self.text, "{strong}{}{strong:#}", Untrusted(&called, PATH));
        self.untrusted("id", &container.id);
        self.line("runtime", &container.runtime);
        if let Some(image) = &container.image {
            self.untrusted("image", image);
        }
        if let Some(pod) = &container.pod {
            self.untrusted("pod", &format!("{} in {} (uid {})", pod.name, pod.namespace, pod.uid));
        }
        if let (Some(started), Some(age)) = (&container.started, container.age_seconds) {
            self.line("started", &format!("{} ({} ago)", super::short_time(started), words::age(age)));
        }
    }

    fn processes(&mut self) {
        let pids: Vec<&ProcessView> = self.page.look.members(&self.page.container.id).collect();
        let threads: Vec<u32> = pids.iter().filter_map(|p| p.security.as_ref()?.threads).collect();
        let about = match (pids.len(), threads.iter().sum::<u32>()) {
            (0, _) => "none is left".to_owned(),
            (1, threads) if threads <= 1 => {
                "a container is first of all a process of this host: pid, (pid inside)".to_owned()
            }
            (processes, threads) => format!(
                "a container is first of all processes of this host, here {processes} with {threads} threads: pid, (pid inside)"
            ),
        };
        self.section("Processes", &about);
        let drawn = tree::branches_of(self.page.look, self.page.container, self.surface);
        for line in drawn.lines() {
            let _ = writeln!(self.text, "  {line}");
        }
    }

    fn namespaces(&mut self) {
        self.section("Namespaces", "what of the system its processes see; those not its own are shared");
        let (look, container) = (self.page.look, self.page.container);
        let mut table = Table::new([
            Column::left("TYPE"),
            Column::right("INODE"),
            Column::left("WHOSE").wrap(),
            Column::left("ISOLATES").wrap(),
        ]);
        for ns in NsType::all().filter(|ns| ns.kind() == *ns) {
            let Some(inode) = container.namespaces.get(ns.name()).copied() else { continue };
            let known = self.page.sharing.iter().find(|it| it.r#type == ns.name() && it.inode == inode);
            let others: Vec<&str> = known
                .into_iter()
                .flat_map(|it| &it.members)
                .filter(|share| share.container != container.id)
                .map(|share| look.container(&share.container).map_or(share.container.as_str(), words::called))
                .collect();
            let visitors = known.map_or(0, |it| it.host_processes);
            let whose = if look.host.namespaces.get(ns.name()) == Some(&inode) {
                Cell::strong("the host's")
            } else if !others.is_empty() {
                Cell::strong(format!("shared with {}", others.join(", ")))
            } else if visitors > 0 {
                Cell::strong(format!("its own, and {visitors} processes outside containers"))
            } else {
                Cell::from("its own")
            };
            table.row([ns.name().into(), inode.to_string().into(), whose, Cell::faint(isolates(ns.name()))]);
        }
        if table.is_empty() {
            self.line("", "not known yet");
        }
        self.table(&table);
    }

    fn root_and_mounts(&mut self) {
        self.section("Root and mounts", "the file system its processes see");
        let container = self.page.container;
        let Some(mounts) = &container.mounts else {
            self.line("", "cannot be read");
            return;
        };
        match mounts.iter().rev().find(|mount| mount.point == "/") {
            Some(root) => {
                let writable = if root.writable { "writable" } else { "read-only" };
                let kind = format!("{} from {}, {writable}", root.filesystem, root.source);
                self.untrusted("root", &kind);
                for layer in ["upperdir=", "lowerdir=", "workdir="] {
                    if let Some(value) = option(&root.super_options, layer) {
                        // Lower layers can be dozens: the count says it.
                        let parts: Vec<&str> = value.split(':').collect();
                        match (layer, parts.len()) {
                            ("workdir=", _) => {}
                            ("lowerdir=", many) if many > 1 => {
                                self.untrusted("", &format!("{many} lower layers"));
                            }
                            _ => self.untrusted("", &format!("{layer}{value}")),
                        }
                    }
                }
                if root.root != "/" {
                    self.untrusted("", &format!("its directory there: {}", root.root));
                }
            }
            None => self.line("root", "not in the mount table"),
        }
        let known: Vec<&Mount> = mounts.iter().filter(|mount| worth_knowing(mount)).collect();
        // What came along below another (`-v /:/host`) adds nothing.
        let is_below = |mount: &Mount| {
            known
                .iter()
                .any(|above| mount.point.strip_prefix(&above.point).is_some_and(|rest| rest.starts_with('/')))
        };
        let shown: Vec<&Mount> = known.iter().copied().filter(|mount| !is_below(mount)).collect();
        let along = mounts.iter().filter(|mount| mount.point != "/" && is_below(mount)).count();
        let mut table = Table::new([
            Column::left("MOUNTED AT").cut(),
            Column::left("FROM").cut(),
            Column::left("TYPE"),
            Column::left("ACCESS"),
        ]);
        for mount in &shown {
            let from = if mount.root == "/" {
                mount.source.clone()
            } else {
                format!("{}[{}]", mount.source, mount.root)
            };
            let access = if mount.writable { Cell::strong("read, write") } else { "read".into() };
            table.row([
                cut_ids(&mount.point).into(),
                cut_ids(&from).into(),
                (&mount.filesystem).into(),
                access,
            ]);
        }
        if !table.is_empty() {
            self.table(&table);
        }
        if along > 0 {
            self.line("", &format!("and {along} below them"));
        }
        let rest = mounts.len().saturating_sub(shown.len() + along + 1);
        if rest > 0 {
            self.line(
                "",
                &format!("and {rest} that every container has (proc, sysfs, devices, tmpfs, cgroup)"),
            );
        }
    }

    fn cgroups(&mut self) {
        self.section("Cgroups", "the groups by which the kernel counts and limits what its processes use");
        let mut table =
            Table::new([Column::left("HIERARCHY"), Column::right("ID"), Column::left("DIRECTORY").wrap()]);
        for cgroup in &self.page.container.cgroups {
            let controllers = cgroup.controllers.join(",");
            table.row([controllers.into(), cgroup.id.to_string().into(), (&cgroup.directory).into()]);
        }
        if table.is_empty() {
            self.line("", "none of its own: it is a container by its namespaces only");
            return;
        }
        self.table(&table);
    }

    fn resources(&mut self) {
        self.section("Limits and use", "what its cgroups let it have, and what it has");
        match &self.page.container.resources {
            Some(resources) => {
                for (name, value) in resource_lines(resources, self.page.look) {
                    self.untrusted(name, &value);
                }
            }
            None => self.line("", "it has no cgroup of its own that could be read"),
        }
    }

    fn confinement(&mut self) {
        self.section("Confinement", "what else the kernel keeps its first process from");
        let Some(security) = &self.page.container.security else {
            self.line("", "cannot be read");
            return;
        };
        self.line("seccomp", &seccomp(security));
        let no_new_privs = match security.no_new_privs {
            Some(true) => "on: an exec (of a setuid program, say) never gives more privileges",
            Some(false) => "off: setuid programs work",
            None => "unknown",
        };
        self.line("no_new_privs", no_new_privs);
        let apparmor = match &security.apparmor {
            Some(label) => label.to_string(),
            None if self.page.look.host.apparmor => "no label can be read".to_owned(),
            None => "not active on this host".to_owned(),
        };
        self.untrusted("AppArmor", &apparmor);
        for (label, pids) in self.other_labels() {
            self.untrusted("", &format!("but {label}: {}", words::pids(&pids)));
        }
        if let Some(context) = &security.selinux {
            self.untrusted("SELinux", context);
        }
        if let Some([real, effective, ..]) = security.uids {
            let user = match (effective, security.root_is_uid) {
                (0, _) => "uid 0: root on the host".to_owned(),
                (uid, Some(root)) if uid == root => {
                    format!("uid {uid} on the host, root in its user namespace")
                }
                (uid, _) => format!("uid {uid}"),
            };
            let user = if real == effective { user } else { format!("{user} (real uid {real})") };
            self.line("user", &user);
        }
    }

    /// Labels that are not the first process's, and who has them.
    fn other_labels(&self) -> BTreeMap<String, Vec<u32>> {
        let container = self.page.container;
        let mut others: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for process in self.page.look.members(&container.id) {
            if let Some(label) = tree::other_label(container, process) {
                others.entry(label).or_default().push(process.pid);
            }
        }
        others
    }

    fn capabilities(&mut self) {
        self.section("Capabilities", "the parts of root's power that its first process has");
        let Some(sets) = self.page.container.security.as_ref().and_then(|it| it.capabilities) else {
            self.line("", "cannot be read");
            return;
        };
        let values = [sets.effective, sets.permitted, sets.inheritable, sets.bounding, sets.ambient];
        for ((name, about), set) in SETS.iter().zip(values) {
            let faint = self.surface.colours.faint();
            let _ = writeln!(
                self.text,
                "  {name:<12} {:016x}  {:<24} {faint}{about}{faint:#}",
                set.0,
                words::capabilities(set)
            );
        }
        let widest = sets.permitted | sets.bounding;
        self.names("beyond docker's default", widest.beyond_default());
        self.names("missing from it", widest.missing_from_default());
    }

    fn names(&mut self, title: &str, set: CapSet) {
        if set.is_empty() {
            return;
        }
        let strong = self.surface.colours.strong();
        let _ = writeln!(self.text, "  {strong}{title}{strong:#}");
        if set.len() > 12 {
            let _ = writeln!(self.text, "    {}", set.names().join(", "));
            return;
        }
        for capability in set.iter() {
            let _ = writeln!(self.text, "    {:<18} may {}", capability.short(), capability.allows);
        }
        for bit in set.unknown_bits() {
            let _ = writeln!(self.text, "    bit {bit:<14} unknown to this version");
        }
    }

    fn environment(&mut self) {
        self.section("Environment", "names of its first process's variables; values are never read out");
        match self.page.environment {
            Some([]) => self.line("", "none"),
            Some(names) => {
                const MOST: usize = 100;
                let shown: Vec<String> =
                    names.iter().take(MOST).map(|name| Untrusted(name, PATH).to_string()).collect();
                let more = names.len().saturating_sub(MOST);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                let room = self.surface.width.unwrap_or(100).saturating_sub(2);
                let mut line = String::new();
                for name in &shown {
                    if !line.is_empty() && line.chars().count() + 1 + name.chars().count() > room {
                        let _ = writeln!(self.text, "  {line}");
                        line.clear();
                    }
                    if !line.is_empty() {
                        line.push(' ');
                    }
                    line.push_str(name);
                }
                let _ = writeln!(self.text, "  {line}{more}");
            }
            None => self.line("", "cannot be read"),
        }
    }
}

/// For a process that is in no container: what there is to say.
pub fn process(look: &Look, process: &ProcessView, surface: Surface) -> String {
    let (strong, faint) = (surface.colours.strong(), surface.colours.faint());
    let mut text = String::new();
    let _ = writeln!(text, "{strong}{}{strong:#} (pid {})", Untrusted(&process.comm, COMM), process.pid);
    let _ = writeln!(text, "  in no container: a process of the host");
    if let Some(exe) = &process.exe {
        let _ = writeln!(text, "  executable     {}", Untrusted(exe, PATH));
    }
    let _ = writeln!(text, "  uid, gid       {}, {}", process.uid, process.gid);
    let _ = writeln!(text, "  started        {}", super::short_time(&process.started));
    let _ = writeln!(text, "\n{strong}Namespaces{strong:#}");
    for (name, inode) in &process.namespaces {
        let host = look.host.namespaces.get(name) == Some(inode);
        let whose = if host { "the host's" } else { "another" };
        let _ = writeln!(text, "  {name:<18} {inode}  {whose}");
    }
    let _ = writeln!(text, "\n{strong}Cgroups{strong:#}  {faint}hierarchy and path{faint:#}");
    for (hierarchy, path) in &process.cgroups {
        let _ = writeln!(text, "  {hierarchy:>3}  {}", Untrusted(path, PATH));
    }
    text
}

fn isolates(ns: &str) -> &'static str {
    match ns {
        "cgroup" => "which cgroups it sees as the root",
        "ipc" => "shared memory, semaphores and message queues",
        "mnt" => "mounts: its file system",
        "net" => "interfaces, addresses, ports, routes, firewall",
        "pid" => "processes that it sees, and their numbers",
        "time" => "offsets of the monotonic clocks",
        "user" => "user ids, and over what its capabilities count",
        "uts" => "host name",
        _ => "",
    }
}

fn seccomp(security: &Security) -> String {
    match (security.seccomp_mode, security.seccomp_filters) {
        (Some(0), _) => "mode 0, disabled: it may try every system call".to_owned(),
        (Some(1), _) => "mode 1, strict: read, write, exit and sigreturn only".to_owned(),
        (Some(2), Some(1)) => "mode 2, filter: 1 filter looks at each system call".to_owned(),
        (Some(2), Some(filters)) => format!("mode 2, filter: {filters} filters look at each system call"),
        (Some(2), None) => "mode 2, filter".to_owned(),
        (Some(mode), _) => format!("mode {mode}, unknown"),
        (None, _) => "unknown".to_owned(),
    }
}

fn option<'a>(options: &'a str, name: &str) -> Option<&'a str> {
    options.split(',').find_map(|option| option.strip_prefix(name))
}

/// Not those that every container has.
fn worth_knowing(mount: &Mount) -> bool {
    const USUAL: [&str; 9] =
        ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "devtmpfs", "securityfs"];
    if mount.point == "/" {
        return false;
    }
    // A tmpfs that shows a part of one of the host's (a socket in /run) is a bind mount.
    let bound = mount.root != "/" && !mount.point.starts_with("/proc/") && !mount.point.starts_with("/sys/");
    let whole_proc = mount.filesystem == "proc" && mount.root != "/";
    let devices = mount.point.starts_with("/dev/")
        && ["tmpfs", "devpts", "devtmpfs"].contains(&mount.filesystem.as_str());
    !USUAL.contains(&mount.filesystem.as_str()) || (bound && !whole_proc && !devices)
}

/// What it uses of what it may, a line for each.
fn resource_lines(resources: &Resources, look: &Look) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(cpu) = &resources.cpu {
        let mut parts = Vec::new();
        if let Some(used) = cpu.usage_us {
            parts.push(format!("{} used", words::cpu_time(used)));
        }
        parts.push(match (cpu.quota_us, cpu.period_us) {
            (Some(quota), Some(period)) if period > 0 => {
                let cpus = quota as f64 / period as f64;
                format!("quota {quota} us of each {period} us ({cpus:.2} CPUs)")
            }
            _ => format!("no quota ({} CPUs)", look.host.cpus),
        });
        if let Some(shares) = cpu.shares {
            parts.push(format!("shares {shares}{}", if shares == 1024 { " (default)" } else { "" }));
        }
        if let Some(weight) = cpu.weight {
            parts.push(format!("weight {weight}{}", if weight == 100 { " (default)" } else { "" }));
        }
        if let (Some(throttled), Some(periods)) = (cpu.nr_throttled, cpu.nr_periods.filter(|n| *n > 0)) {
            parts.push(format!("throttled in {throttled} of {periods} periods"));
        }
        lines.push(("cpu", parts.join(", ")));
    }
    if let Some(memory) = &resources.memory {
        let mut parts = Vec::new();
        if let Some(used) = memory.usage_bytes {
            parts.push(format!("{} ({used} bytes) used", words::bytes(used)));
        }
        if let Some(peak) = memory.peak_bytes {
            parts.push(format!("at most {} so far", words::bytes(peak)));
        }
        parts.push(match (memory.limit_bytes, &memory.effective_limit) {
            (Some(limit), _) => format!("limit {} ({limit} bytes)", words::bytes(limit)),
            (None, Some(limit)) => {
                format!("limit {} ({} bytes), set at {}", words::bytes(limit.bytes), limit.bytes, limit.path)
            }
            (None, None) => "no limit".to_owned(),
        });
        if let (Some(own), Some(effective)) = (memory.limit_bytes, &memory.effective_limit)
            && effective.bytes < own
        {
            parts.push(format!("{} bites first, set at {}", words::bytes(effective.bytes), effective.path));
        }
        if let Some(kills) = memory.events.as_ref().and_then(|it| it.oom_kill).filter(|n| *n > 0) {
            parts.push(format!("{kills} processes killed for want of memory"));
        }
        lines.push(("memory", parts.join(", ")));
        if let Some(swap) = memory.swap_usage_bytes {
            let limit = memory
                .swap_limit_bytes
                .map_or("no limit".to_owned(), |it| format!("limit {}", words::bytes(it)));
            lines.push(("swap", format!("{} used, {limit}", words::bytes(swap))));
        }
    }
    if let Some(pids) = &resources.pids {
        let used = pids.current.map_or("?".to_owned(), |it| it.to_string());
        let limit = match (pids.max, &pids.effective_max) {
            (Some(max), _) => format!("limit {max}"),
            (None, Some(max)) => format!("limit {}, set at {}", max.max, max.path),
            (None, None) => "no limit".to_owned(),
        };
        let refused =
            pids.events_max.filter(|n| *n > 0).map(|n| format!(", {n} forks refused")).unwrap_or_default();
        let tasks = if pids.current == Some(1) { "task" } else { "tasks" };
        lines.push(("pids", format!("{used} {tasks}, {limit}{refused}")));
    }
    if let Some(io) = &resources.io {
        let read = io.read_bytes.map_or("?".to_owned(), words::bytes);
        let written = io.written_bytes.map_or("?".to_owned(), words::bytes);
        let limited = match io.limits.len() {
            0 => "no limits".to_owned(),
            1 => "limits for 1 device".to_owned(),
            many => format!("limits for {many} devices"),
        };
        lines.push(("io", format!("{read} read, {written} written, {limited}")));
    }
    if let Some(cpuset) = &resources.cpuset
        && let Some(cpus) = cpuset.cpus.as_ref().or(cpuset.effective_cpus.as_ref())
    {
        lines.push(("cpuset", format!("CPUs {cpus}")));
    }
    for hugetlb in &resources.hugetlb {
        let used = hugetlb.usage_bytes.unwrap_or(0);
        if used > 0 || hugetlb.limit_bytes.is_some() {
            let limit =
                hugetlb.limit_bytes.map_or("no limit".to_owned(), |it| format!("limit {}", words::bytes(it)));
            let size = words::bytes(hugetlb.page_size_bytes);
            lines.push(("hugetlb", format!("{} of {size} pages, {limit}", words::bytes(used))));
        }
    }
    lines
}
