//! crun: ROOT/ID/status (crun: src/libcrun/status.c).

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::files::{Files, pid_at, text_at, unix_ns};
use crate::host::RuntimeFacts;

/// Facts, and the bundle's config.json where the status names one.
pub fn facts(files: &mut Files, run: &Path, id: &str) -> Option<(RuntimeFacts, Option<PathBuf>)> {
    let status: Value = files.json(&run.join("crun").join(id).join("status"))?;
    let facts = RuntimeFacts {
        runtime: Some("crun".into()),
        id: Some(id.to_owned()),
        init_pid: pid_at(&status, "/pid"),
        created_unix_ns: text_at(&status, "/created").as_deref().and_then(unix_ns),
        ..RuntimeFacts::default()
    };
    Some((facts, text_at(&status, "/bundle").map(|bundle| Path::new(&bundle).join("config.json"))))
}
