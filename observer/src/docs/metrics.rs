//! docs/metrics.md, from the table of families.

use std::fmt::Write as _;

use super::cell;
use crate::telemetry::metrics::families;

pub fn document() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         Served on `/metrics`, by default at 127.0.0.1:9736. This page is made by `observer docs metrics`.\n\n\
         Label values come from closed lists: nothing that a container does can make series. Those of `observer_container_*` go with \
         their container, of at most `metrics.max_containers`: its full id, its name (in a pod, that of the pod's \
         specification; without any, the short form of its id), and its pod and the pod's namespace, which are empty where there is none.\n\n\
         | metric | type | labels | |\n|---|---|---|---|\n",
    );
    for family in families() {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            family.name,
            family.kind,
            labels.join(", "),
            cell(family.help)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_as_many_cells_as_the_head() {
        let text = document();
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), families().count() + 2);
        assert!(rows.iter().all(|row| row.replace("\\|", "").matches('|').count() == 5), "{text}");
    }
}
