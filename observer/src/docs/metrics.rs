//! docs/metrics.md, from the table of families.

use std::fmt::Write as _;

use super::cell;
use crate::telemetry::metrics::FAMILIES;

pub fn document() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         Served on `/metrics`, by default at 127.0.0.1:9736. This page is made by `observer docs metrics`.\n\n\
         Label values come from closed lists: nothing that a container does can make series.\n\n\
         | metric | type | labels | |\n|---|---|---|---|\n",
    );
    for family in FAMILIES {
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
    #[test]
    fn every_row_has_as_many_cells_as_the_head() {
        let text = super::document();
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), crate::telemetry::metrics::FAMILIES.len() + 2);
        assert!(rows.iter().all(|row| row.replace("\\|", "").matches('|').count() == 5), "{text}");
    }
}
