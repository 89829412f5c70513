//! What container runtimes leave on disk. Files are other people's: bounded, parsed leniently, never trusted
//! beyond naming things. A file per runtime; `oci` and `kubernetes` are what several of them share.

mod containerd;
mod crun;
mod docker;
mod files;
mod kubernetes;
mod lxc;
mod nspawn;
mod oci;
mod runc;
mod seccomp;
mod storage;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use self::files::Files;
pub(super) use self::kubernetes::{SANDBOX_NAME, digest as image_digest, image_id};
pub use self::seccomp::{DeclaredCalls, Filter as SeccompFilter};
use super::{Roots, RuntimeFacts};
use crate::model::Declared;

/// Everything that the disk says about a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeDetails {
    pub facts: RuntimeFacts,
    /// The declaration, where one was found.
    pub declared: Option<Declared>,
    /// Files that are there and could not be read or understood, with the reason: for a person.
    pub problems: Vec<String>,
}

/// Facts of the container with this id or name: what the pipeline asks for, so no file that users can write, and of
/// the configurations only the annotations.
pub fn facts(roots: &Roots, id: &str) -> Option<RuntimeFacts> {
    Some(find(&mut Files::default(), roots, id)?.facts)
}

/// Facts, the image's digest, and the declaration.
pub fn details(roots: &Roots, id: &str) -> Option<RuntimeDetails> {
    let mut files = Files::default();
    let mut found = find(&mut files, roots, id)?;
    let declared = match &found.config {
        Some(Config::Oci(config)) => oci::declared(&mut files, config),
        Some(Config::Elsewhere(path)) => {
            files.problems.push(format!("{}: not below a directory that is configured", path.display()));
            None
        }
        None => lxc::declared(&mut files, &roots.lib, id),
    };
    if let (None, Some(image)) = (&found.facts.image_digest, found.facts.image_id.clone()) {
        found.facts.image_digest = match found.facts.runtime.as_deref() {
            Some("docker") => docker::digest(&mut files, &roots.docker, &image),
            Some("podman" | "cri-o") => storage::digest(&mut files, &roots.lib, &image),
            _ => None,
        };
    }
    Some(RuntimeDetails { facts: found.facts, declared, problems: files.problems })
}

/// What the container's declared seccomp filter makes of system calls. `None` if there is no declaration to be read.
pub fn declared_calls(roots: &Roots, id: &str) -> Option<DeclaredCalls> {
    let mut files = Files::default();
    let Some(Config::Oci(config)) = find(&mut files, roots, id)?.config else { return None };
    oci::declared_calls(&mut files, &config)
}

/// Facts, and the config.json that the container was made from.
struct Found {
    facts: RuntimeFacts,
    config: Option<Config>,
}

enum Config {
    Oci(PathBuf),
    /// Where the runtime has it is not where we can see it.
    Elsewhere(PathBuf),
}

/// Asks every runtime: who gives names first, then those who only run what another has named.
fn find(files: &mut Files, roots: &Roots, id: &str) -> Option<Found> {
    // Ids become path components: nothing but what runtimes allow in them.
    let plain = !id.is_empty()
        && id.len() <= 255
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.+".contains(&b))
        && !id.starts_with('.');
    if !plain {
        return None;
    }
    let mut found: Option<Found> = None;
    let mut add = |facts: RuntimeFacts, config: Option<Config>| match &mut found {
        Some(found) => {
            complete(&mut found.facts, facts);
            found.config = found.config.take().or(config);
        }
        None => found = Some(Found { facts, config }),
    };
    if let Some(facts) = docker::facts(files, &roots.docker, id) {
        add(facts, None);
    }
    if let Some((facts, config)) = containerd::facts(files, &roots.run, id) {
        add(facts, Some(Config::Oci(config)));
    }
    if let Some((facts, config)) = storage::facts(files, &roots.lib, &roots.run, id) {
        add(facts, Some(Config::Oci(config)));
    }
    if let Some((facts, config)) = runc::facts(files, &roots.run, id) {
        add(facts, config.map(|config| moved(roots, config)));
    }
    if let Some((facts, config)) = crun::facts(files, &roots.run, id) {
        add(facts, config.map(|config| moved(roots, config)));
    }
    if let Some(facts) = nspawn::facts(files, &roots.run, id) {
        add(facts, None);
    }
    if let Some(facts) = lxc::facts(&roots.lib, id) {
        add(facts, None);
    }
    found
}

/// Takes from `other` what `facts` lacks.
pub(super) fn complete(facts: &mut RuntimeFacts, other: RuntimeFacts) {
    let RuntimeFacts {
        runtime,
        id,
        name,
        image,
        init_pid,
        pod_namespace,
        pod_name,
        pod_uid,
        pod_container,
        pod_sandbox,
        pod_sandbox_id,
        image_id,
        image_digest,
        created_unix_ns,
    } = other;
    fn fill<T>(place: &mut Option<T>, value: Option<T>) {
        if place.is_none() {
            *place = value;
        }
    }
    fill(&mut facts.runtime, runtime);
    fill(&mut facts.id, id);
    fill(&mut facts.name, name);
    fill(&mut facts.image, image);
    fill(&mut facts.init_pid, init_pid);
    fill(&mut facts.pod_namespace, pod_namespace);
    fill(&mut facts.pod_name, pod_name);
    fill(&mut facts.pod_uid, pod_uid);
    fill(&mut facts.pod_container, pod_container);
    fill(&mut facts.pod_sandbox_id, pod_sandbox_id);
    fill(&mut facts.image_id, image_id);
    fill(&mut facts.image_digest, image_digest);
    fill(&mut facts.created_unix_ns, created_unix_ns);
    facts.pod_sandbox |= pod_sandbox;
}

/// Where a path that a runtime wrote down is for us: below the same directory that may be mounted elsewhere. One that is
/// below neither can be read only where nothing is moved.
fn moved(roots: &Roots, path: PathBuf) -> Config {
    let usual = [("/run", &roots.run), ("/var/run", &roots.run), ("/var/lib", &roots.lib)];
    for (usual, root) in usual {
        if let Ok(rest) = path.strip_prefix(usual) {
            return Config::Oci(root.join(rest));
        }
    }
    if roots.run == Path::new("/run") { Config::Oci(path) } else { Config::Elsewhere(path) }
}
