//! `observer ns`: who shares which namespace.

use super::{
    table::{Cell, Column, Surface, Table},
    words,
};
use crate::{
    inventory::{Look, Namespace},
    model::Severity,
};

/// The map: namespaces that containers are in first by type, those that they share standing out.
pub fn ns(look: &Look, namespaces: &[Namespace], surface: Surface) -> String {
    let mut table = Table::new([
        Column::left("TYPE"),
        Column::right("INODE"),
        Column::right("OWNER"),
        Column::left("SHARED"),
        Column::left("MEMBERS (PROCESSES)").wrap(),
    ]);
    for namespace in namespaces {
        let owner = match namespace.owner {
            None => String::new(),
            Some(owner) if look.host.namespaces.get("user") == Some(&owner) => "host".to_owned(),
            Some(owner) => owner.to_string(),
        };
        table.row([
            Cell::strong(&namespace.r#type),
            namespace.inode.to_string().into(),
            Cell::faint(owner),
            shared(namespace),
            members(look, namespace).into(),
        ]);
    }
    if table.is_empty() { "no namespaces\n".to_owned() } else { table.render(surface) }
}

fn shared(namespace: &Namespace) -> Cell {
    match (namespace.host, namespace.members.len()) {
        (true, 0) => Cell::faint("host"),
        (true, many) => {
            let text = format!("host + {many} container{}", if many == 1 { "" } else { "s" });
            // Containers have these of the host's as a rule.
            if ["cgroup", "time", "user"].contains(&namespace.r#type.as_str()) {
                Cell::faint(text)
            } else {
                Cell::severity(text, Severity::Warning)
            }
        }
        (false, 0) => Cell::faint("no container"),
        (false, 1) if namespace.host_processes > 0 => Cell::severity("visited", Severity::Notice),
        (false, 1) => Cell::faint("private"),
        (false, many) => Cell::severity(format!("{many} containers"), Severity::Notice),
    }
}

fn members(look: &Look, namespace: &Namespace) -> String {
    let mut parts: Vec<String> = namespace
        .members
        .iter()
        .map(|share| {
            let called = look.container(&share.container).map_or(share.container.as_str(), words::called);
            format!("{called} ({})", share.processes)
        })
        .collect();
    if namespace.host_processes > 0 {
        let who = if namespace.host { "host" } else { "outside containers" };
        parts.insert(0, format!("{who} ({})", namespace.host_processes));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{sharing, testing};

    #[test]
    fn who_shares_is_seen_at_a_glance() {
        let look = testing::look();
        let all: Vec<_> =
            sharing(&look).into_iter().filter(|n| ["net", "mnt"].contains(&n.r#type.as_str())).collect();
        let text = ns(&look, &all, Surface::PLAIN);
        let expected = "\
TYPE  INODE  OWNER  SHARED        MEMBERS (PROCESSES)
mnt       1      -  host          host (1)
mnt      11      -  private       db (2)
mnt      21      -  private       web (1)
net       2      -  host          host (1)
net      12      -  2 containers  db (2), web (1)
";
        assert_eq!(text, expected);
    }
}
