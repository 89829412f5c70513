//! Which container a person means.

use super::{ContainerView, Look, ProcessView};

/// What was found.
#[derive(Debug)]
pub enum Found<'a> {
    Container(&'a ContainerView),
    Process(&'a ProcessView),
}

/// Why nothing was.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FindError {
    #[error("no container has the name {0:?} or an id that begins so, and no process has that pid")]
    Nothing(String),
    #[error("{what:?} is the beginning of several containers' ids: {ids}", ids = .ids.join(", "))]
    Several { what: String, ids: Vec<String> },
}

/// By name, full id, beginning of the id, or pid; in this order, so that a container called `7` can be had.
pub fn find<'a>(look: &'a Look, what: &str) -> Result<Found<'a>, FindError> {
    if what.is_empty() {
        return Err(FindError::Nothing(String::new()));
    }
    let named = |container: &&ContainerView| container.name.as_deref() == Some(what) || container.id == what;
    if let Some(container) = look.containers.iter().find(named) {
        return Ok(Found::Container(container));
    }
    let pod = |container: &&ContainerView| {
        container.pod.as_ref().is_some_and(|pod| {
            what == format!("{}/{}", pod.namespace, pod.name)
                || what == format!("{}/{}/{}", pod.namespace, pod.name, pod.container)
        })
    };
    let by_pod: Vec<&ContainerView> = look.containers.iter().filter(pod).collect();
    let by_pid = what.parse::<u32>().ok().and_then(|pid| look.processes.iter().find(|p| p.pid == pid));
    let begins: Vec<&ContainerView> = if by_pod.is_empty() {
        look.containers.iter().filter(|container| container.id.starts_with(what)).collect()
    } else {
        by_pod
    };
    match (begins.as_slice(), by_pid) {
        // A number of few digits is far more often a pid than the beginning of an id.
        (_, Some(process)) => Ok(Found::Process(process)),
        ([container], None) => Ok(Found::Container(container)),
        ([], None) => Err(FindError::Nothing(what.to_owned())),
        (several, None) => Err(FindError::Several {
            what: what.to_owned(),
            ids: several.iter().map(|container| container.id.clone()).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};

    #[test]
    fn names_ids_beginnings_and_pids_are_told_apart() {
        let look = testing::look();
        let id = |what: &str| match find(&look, what) {
            Ok(Found::Container(container)) => Ok(container.id.clone()),
            Ok(Found::Process(process)) => Ok(format!("pid {}", process.pid)),
            Err(error) => Err(error),
        };
        assert_eq!(id("db").unwrap(), testing::DB);
        assert_eq!(id(testing::WEB).unwrap(), testing::WEB);
        assert_eq!(id(&testing::WEB[..5]).unwrap(), testing::WEB);
        assert_eq!(id("200").unwrap(), "pid 200");
        assert!(matches!(id("a"), Err(FindError::Several { ids, .. }) if ids.len() == 2));
        assert_eq!(id("nobody").unwrap_err(), FindError::Nothing("nobody".to_owned()));
        assert!(id("").is_err());
    }
}
