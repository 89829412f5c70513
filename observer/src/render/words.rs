//! Numbers and sets as people say them.

pub use crate::model::bytes;
use crate::{
    inventory::ContainerView,
    model::{CapSet, PodRef},
};

/// `45s`, `12m`, `3h`, `8d`.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// CPU time: `0.35s`, `12.4s`, `3m12s`, `5h07m`.
pub fn cpu_time(us: u64) -> String {
    let seconds = us / 1_000_000;
    match seconds {
        0..10 => format!("{:.2}s", us as f64 / 1e6),
        10..60 => format!("{:.1}s", us as f64 / 1e6),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `docker's default`, `all 41`, `none`, `default + SYS_ADMIN, SYS_PTRACE`, `3 of default`, `3 of default + NET_ADMIN`.
pub fn capabilities(set: CapSet) -> String {
    let beyond = set.beyond_default();
    if set.is_empty() {
        return "none".to_owned();
    }
    if CapSet::ALL.without(set).is_empty() {
        return format!("all {}", set.len());
    }
    let of_default = set.without(beyond).len();
    let base = match of_default {
        0 => String::new(),
        all if all == CapSet::DOCKER_DEFAULT.len() => "default".to_owned(),
        some => format!("{some} of default"),
    };
    let extra = match beyond.len() {
        0 => String::new(),
        1..=3 => beyond.names().join(", "),
        many => format!("{many} more"),
    };
    match (base.is_empty(), extra.is_empty()) {
        (false, false) => format!("{base} + {extra}"),
        (true, _) => extra,
        (_, true) => base,
    }
}

/// `off`, `strict`, `filter`, `filter (2)`.
pub fn seccomp(mode: Option<u32>, filters: Option<u32>) -> String {
    match (mode, filters) {
        (None, _) => "unknown".to_owned(),
        (Some(0), _) => "off".to_owned(),
        (Some(1), _) => "strict".to_owned(),
        (Some(2), Some(filters)) if filters > 1 => format!("filter ({filters})"),
        (Some(2), _) => "filter".to_owned(),
        (Some(other), _) => format!("mode {other}"),
    }
}

/// `pid 7`, `pids 7, 8 and 9 more`
pub fn pids(pids: &[u32]) -> String {
    const MOST: usize = 8;
    let shown: Vec<String> = pids.iter().take(MOST).map(u32::to_string).collect();
    let name = if pids.len() == 1 { "pid" } else { "pids" };
    let more = match pids.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{name} {}{more}", shown.join(", "))
}

/// An id as docker cuts it; `ns-4026532001` and names that are ids say nothing when cut.
pub fn short_id(id: &str) -> &str {
    let is_digits = id.len() >= 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if is_digits { id.get(..super::SHORT_ID).unwrap_or(id) } else { id }
}

/// `default/web-7d9/nginx`
pub fn pod(pod: &PodRef) -> String {
    let parts = [&pod.namespace, &pod.name, &pod.container];
    parts.iter().filter(|part| !part.is_empty()).map(|part| part.as_str()).collect::<Vec<_>>().join("/")
}

/// What a person calls it: its name, else its short id.
pub fn called(container: &ContainerView) -> &str {
    container.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(short_id(&container.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        assert_eq!([59, 60, 7200, 172_800].map(age), ["59s", "1m", "2h", "2d"]);
        let cpu = [350_000, 12_400_000, 192_000_000, 18_420_000_000].map(cpu_time);
        assert_eq!(cpu, ["0.35s", "12.4s", "3m12s", "5h07m"]);
    }

    #[test]
    fn sets_are_told_by_their_difference_to_the_default() {
        let default = CapSet::DOCKER_DEFAULT;
        let cases = [
            (CapSet(0), "none"),
            (CapSet::ALL, "all 41"),
            (default, "default"),
            (default | CapSet::of(&[21]), "default + SYS_ADMIN"),
            (CapSet::of(&[0, 21]), "1 of default + SYS_ADMIN"),
            (CapSet::of(&[21]), "SYS_ADMIN"),
            (CapSet::of(&[0]), "1 of default"),
            (default | CapSet::of(&[12, 16, 19, 21]), "default + 4 more"),
        ];
        for (set, expected) in cases {
            assert_eq!(capabilities(set), expected);
        }
    }
}
