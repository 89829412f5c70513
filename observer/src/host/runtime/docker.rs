//! docker: DATA-ROOT/containers/ID/config.v2.json (moby: container/container.go), and the digests of images in
//! DATA-ROOT/image/DRIVER/repositories.json (moby: reference/store.go).

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use serde_json::Value;

use super::{
    files::{Files, bounded, pid_at, text_at, unix_ns},
    kubernetes,
};
use crate::host::RuntimeFacts;

pub fn facts(files: &mut Files, root: &Path, id: &str) -> Option<RuntimeFacts> {
    let config: Value = files.json(&root.join("containers").join(id).join("config.v2.json"))?;
    let label = |name: &str| bounded(config.pointer("/Config/Labels")?.get(name)?.as_str()?);
    let name = text_at(&config, "/Name").map(|name| name.trim_start_matches('/').to_owned());
    let image = text_at(&config, "/Config/Image");
    let mut facts = kubernetes::of_docker(name.as_deref().unwrap_or_default(), label);
    facts.runtime = Some("docker".into());
    facts.id = text_at(&config, "/ID");
    facts.name = name.filter(|name| !name.is_empty());
    facts.init_pid = pid_at(&config, "/State/Pid");
    facts.created_unix_ns = text_at(&config, "/Created").as_deref().and_then(unix_ns);
    facts.image_id = text_at(&config, "/Image").as_deref().and_then(kubernetes::image_id);
    // Written where images are kept by containerd (moby 25 and later).
    facts.image_digest = text_at(&config, "/ImageManifest/digest").as_deref().and_then(kubernetes::digest);
    facts.image = image;
    Some(facts)
}

/// The digest under which the image was pulled, by its id; images that were built or imported have none.
pub fn digest(files: &mut Files, root: &Path, image_id: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Store {
        #[serde(rename = "Repositories", default)]
        repositories: BTreeMap<String, BTreeMap<String, String>>,
    }
    for driver in files.entries(&root.join("image")) {
        let Some(store) = files.json::<Store>(&driver.join("repositories.json")) else { continue };
        let digests = store.repositories.values().flatten().filter(|(_, id)| *id == image_id);
        if let Some(found) = digests.filter_map(|(name, _)| kubernetes::digest(name)).next() {
            return Some(found);
        }
    }
    None
}
