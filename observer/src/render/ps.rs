//! `observer ps`: a line for each container.

use super::{
    table::{Cell, Column, Surface, Table},
    words,
};
use crate::{
    inventory::{ContainerView, Look},
    model::Severity,
};

/// A finding of `audit`, by its rule.
pub type Risk<'a> = (&'a str, Severity);

/// The table, and what could not be read.
pub fn ps(look: &Look, risks_of: &[Vec<Risk<'_>>], surface: Surface) -> String {
    let mut table = Table::new([
        Column::left("CONTAINER ID").cut(),
        Column::left("NAME").cut(),
        Column::left("IMAGE").cut(),
        Column::left("RUNTIME"),
        Column::right("PID"),
        Column::right("AGE"),
        Column::right("PROCS"),
        Column::right("CPU"),
        Column::right("MEMORY / LIMIT"),
        Column::left("SECCOMP"),
        Column::left("CAPABILITIES").cut(),
        Column::left("RISKS").wrap(),
    ]);
    for (at, container) in look.containers.iter().enumerate() {
        let security = container.security.as_ref();
        let seccomp = security.map(|it| words::seccomp(it.seccomp_mode, it.seccomp_filters));
        let capabilities =
            security.and_then(|it| it.capabilities).map(|it| words::capabilities(it.permitted));
        table.row([
            Cell::faint(words::short_id(&container.id)),
            Cell::strong(name(container)),
            container.image.as_deref().unwrap_or_default().into(),
            (&container.runtime).into(),
            container.pid.map(|pid| pid.to_string()).unwrap_or_default().into(),
            container.age_seconds.map(words::age).unwrap_or_default().into(),
            container.processes.to_string().into(),
            cpu(container).into(),
            memory(container).into(),
            seccomp.unwrap_or_default().into(),
            capabilities.unwrap_or_default().into(),
            risks(risks_of.get(at)),
        ]);
    }
    if table.is_empty() {
        return "no containers on this host\n".to_owned();
    }
    table.render(surface)
}

/// A pod's container is known by its pod.
fn name(container: &ContainerView) -> String {
    match &container.pod {
        Some(pod) => words::pod(pod),
        None => container.name.clone().unwrap_or_default(),
    }
}

fn cpu(container: &ContainerView) -> String {
    let used = container.resources.as_ref().and_then(|it| it.cpu.as_ref()?.usage_us);
    used.map(words::cpu_time).unwrap_or_default()
}

fn memory(container: &ContainerView) -> String {
    let Some(memory) = container.resources.as_ref().and_then(|it| it.memory.as_ref()) else {
        return String::new();
    };
    let used = memory.working_set_bytes.or(memory.usage_bytes).map_or("?".to_owned(), words::bytes);
    let limit = memory.effective_limit.as_ref().map(|limit| limit.bytes).or(memory.limit_bytes);
    format!("{used} / {}", limit.map_or("-".to_owned(), words::bytes))
}

/// What `audit` would warn of, in a few words; the worst gives the colour.
fn risks(risks: Option<&Vec<Risk<'_>>>) -> Cell {
    let serious: Vec<&Risk<'_>> =
        risks.into_iter().flatten().filter(|(_, severity)| *severity >= Severity::Warning).collect();
    let Some(worst) = serious.iter().map(|(_, severity)| *severity).max() else { return Cell::from("") };
    let mut names: Vec<&str> = Vec::new();
    for (rule, _) in &serious {
        let name = rule.strip_prefix("posture.").unwrap_or(rule);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Cell::severity(names.join(", "), worst)
}
