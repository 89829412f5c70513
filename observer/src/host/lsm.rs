//! Linux security modules: which are active, and what they say of a process.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::model::Label;

/// Longer than any real label. The kernel writes it in one go, so a longer one costs no more reads.
const MAX_ATTRIBUTE: u64 = 16 << 10;
/// Of /sys/kernel/security/lsm: a dozen short names.
const MAX_LIST: u64 = 4 << 10;

/// Those that are active, in their order: `lockdown,capability,landlock,yama,apparmor,bpf`. `None` where that cannot be
/// read, as in a pod that has no securityfs.
pub fn active() -> Option<Vec<String>> {
    let text = bounded(Path::new("/sys/kernel/security/lsm"), MAX_LIST).ok()?;
    let text = String::from_utf8_lossy(&text);
    Some(text.trim().split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// Whether AppArmor labels processes here, asked of our own: where it is compiled in and not active, its file is there and
/// reading it is an error.
pub fn has_apparmor(proc: &Path) -> bool {
    apparmor_text(&proc.join("self")).is_some()
}

/// Whether SELinux labels processes here: then the shared file has its context, which is not AppArmor's label and has at least
/// user, role and type.
pub fn has_selinux(proc: &Path) -> bool {
    let own = proc.join("self");
    let text = bounded(&own.join("attr/current"), MAX_ATTRIBUTE).unwrap_or_default();
    let is_context = context(&text).is_some_and(|it| it.matches(':').count() >= 2);
    is_context && apparmor_text(&own).is_none_or(|label| label != text)
}

/// AppArmor's label of a process, by its directory in /proc.
pub fn apparmor_label(process: &Path) -> Option<Label> {
    Label::parse(&apparmor_text(process)?)
}

/// AppArmor's own file (since 5.8), which also answers where another module is stacked before it and has the shared one
/// (apparmor_getprocattr, security/apparmor/lsm.c).
fn apparmor_text(process: &Path) -> Option<Vec<u8>> {
    bounded(&process.join("attr/apparmor/current"), MAX_ATTRIBUTE).ok().filter(|text| !text.is_empty())
}

/// The context of SELinux, if that is the module that has the shared file.
pub fn selinux_context(process: &Path) -> Option<String> {
    context(&bounded(&process.join("attr/current"), MAX_ATTRIBUTE).ok()?)
}

/// `system_u:system_r:container_t:s0:c1,c2`, which ends with a NUL.
fn context(text: &[u8]) -> Option<String> {
    let end = text.iter().position(|byte| matches!(byte, 0 | b'\n')).unwrap_or(text.len());
    let text = String::from_utf8_lossy(text.get(..end).unwrap_or_default()).into_owned();
    (!text.is_empty()).then_some(text)
}

fn bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_through_its_directory() {
        let proc = std::env::temp_dir().join(format!("observer-lsm-{}", std::process::id()));
        let attributes = proc.join("self/attr/apparmor");
        std::fs::create_dir_all(&attributes).unwrap();
        assert!(!has_apparmor(&proc) && !has_selinux(&proc));
        assert_eq!(apparmor_label(&proc.join("self")), None);
        std::fs::write(attributes.join("current"), "docker-default (enforce)\n").unwrap();
        std::fs::write(proc.join("self/attr/current"), b"system_u:system_r:container_t:s0:c1,c2\0").unwrap();
        assert!(has_apparmor(&proc) && has_selinux(&proc));
        assert_eq!(apparmor_label(&proc.join("self")).unwrap().to_string(), "docker-default (enforce)");
        assert_eq!(
            selinux_context(&proc.join("self")).as_deref(),
            Some("system_u:system_r:container_t:s0:c1,c2")
        );
        for (apparmor, shared) in
            [(":a:b:c (enforce)\n", ":a:b:c (enforce)\n"), ("p (enforce)\n", "kernel\n")]
        {
            std::fs::write(attributes.join("current"), apparmor).unwrap();
            std::fs::write(proc.join("self/attr/current"), shared).unwrap();
            assert!(!has_selinux(&proc), "{shared}");
        }
        // What was cut off has no mode any more: not known, rather than not confined.
        std::fs::write(attributes.join("current"), format!("{} (enforce)\n", "x".repeat(100_000))).unwrap();
        let label = apparmor_label(&proc.join("self")).unwrap();
        assert!(label.mode.is_none() && label.profile.len() <= crate::model::MAX_LABEL, "{label}");
        assert_eq!(label.refuses_nothing(), None);
        std::fs::remove_dir_all(proc).unwrap();
    }

    #[test]
    fn a_context_ends_with_a_nul() {
        assert_eq!(context(b"a:b:c\0"), Some("a:b:c".into()));
        assert_eq!(context(b"a:b:c\n"), Some("a:b:c".into()));
        assert_eq!(context(b"\xff:b"), Some("\u{fffd}:b".into()));
        assert_eq!((context(b"\0"), context(b"")), (None, None));
    }
}
