//! What is kept of runs: the golden files of `observer check`, and the record that README's table of kernels is made of.
//!
//! Nothing else writes either of them, so that they cannot claim what was not run.

use super::{
    boot::{Counts, Outcome},
    kernels::KERNELS,
};
use crate::shell;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

/// The runs on record.
const RECORD: &str = "docs/kernels.json";

/// What `observer check` printed, without the kernel's exact version.
pub fn check_text(outcome: &Outcome) -> Result<String> {
    let text = fs::read_to_string(&outcome.files[0])?.replace('\r', "");
    let (first, rest) = text.split_once('\n').ok_or_else(|| anyhow!("`observer check` printed nothing"))?;
    let version =
        first.strip_prefix("kernel ").ok_or_else(|| anyhow!("`observer check` began with {first:?}"))?;
    Ok(format!("kernel {}\n{rest}", series(version)))
}

/// "6.12" of "6.12.117+deb13-cloud-amd64".
fn series(version: &str) -> String {
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

fn golden(name: &str) -> PathBuf {
    shell::workspace().join("tests/golden/check").join(format!("{name}.txt"))
}

/// Holds what `observer check` printed against the golden file, or makes it the golden file.
pub fn golden_check(name: &str, outcome: &Outcome, bless: bool) -> Result<()> {
    let text = check_text(outcome)?;
    let file = golden(name);
    if bless {
        fs::create_dir_all(file.parent().ok_or_else(|| anyhow!("no directory"))?)?;
        return Ok(fs::write(&file, text)?);
    }
    let kept =
        fs::read_to_string(&file).with_context(|| format!("{} (made with --bless)", file.display()))?;
    if kept == text {
        return Ok(());
    }
    let mut lines = kept.lines().zip(text.lines()).filter(|(kept, now)| kept != now);
    let (kept, now) = lines.next().unwrap_or(("its end", "more, or less"));
    bail!("`observer check` differs from {}: it has {kept:?}, now it is {now:?}", file.display());
}

/// Puts a whole run on record.
pub fn put(name: &str, series: &str, layout: &str, outcome: &Outcome) -> Result<()> {
    let report = fs::read_to_string(&outcome.files[1])?.replace('\r', "");
    let report: Value = serde_json::from_str(&report).context("`observer check --json`")?;
    let features: serde_json::Map<String, Value> = report["features"]
        .as_array()
        .ok_or_else(|| anyhow!("`observer check --json` has no features"))?
        .iter()
        .filter_map(|feature| Some((feature["name"].as_str()?.to_owned(), feature["tier"].clone())))
        .collect();
    let Counts { passed, failed, skipped } = outcome.counts().unwrap_or_default();
    let run = json!({
        "name": name,
        "series": series,
        "layout": layout,
        "kernel": report["kernel"],
        "features": features,
        "tests": {"passed": passed, "failed": failed, "skipped": skipped},
    });
    let mut runs = kept()?;
    match runs.iter_mut().find(|kept| kept["name"] == name) {
        Some(kept) => *kept = run,
        None => runs.push(run),
    }
    // By kernel, as the table has them.
    runs.sort_by_key(|run| {
        (KERNELS.iter().position(|it| run["series"] == it.series), run["layout"].to_string())
    });
    let text = serde_json::to_string_pretty(&runs)?;
    Ok(fs::write(shell::workspace().join(RECORD), format!("{text}\n"))?)
}

fn kept() -> Result<Vec<Value>> {
    let file = shell::workspace().join(RECORD);
    if !file.exists() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&fs::read_to_string(&file)?).with_context(|| RECORD.to_owned())
}

/// README's table: features by kernels, with the tier that serves each.
pub fn table() -> Result<String> {
    let runs = kept()?;
    let mut names: Vec<String> = Vec::new();
    for run in &runs {
        for name in run["features"].as_object().into_iter().flat_map(|features| features.keys()) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    let row = |first: &str, cell: &dyn Fn(&Value) -> String| {
        let cells: Vec<String> = runs.iter().map(cell).collect();
        format!("| {first} | {} |\n", cells.join(" | "))
    };
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let mut table = row("", &|run| match text(&run["layout"]).as_str() {
        "v2" => text(&run["series"]),
        layout => format!("{}, {layout}", text(&run["series"])),
    });
    table.push_str(&row("---", &|_| "---".into()));
    for name in &names {
        table.push_str(&row(&format!("`{name}`"), &|run| {
            // A run that is older than the feature says nothing of it.
            let tier = run["features"].get(name);
            tier.map_or("not run", |tier| tier.as_str().unwrap_or("no")).to_owned()
        }));
    }
    table.push_str(&row("live tests passed", &|run| match &run["tests"] {
        tests if tests["passed"] == 0 && tests["failed"] == 0 => "not run".into(),
        tests if tests["failed"] != 0 => format!("{} ({} failed)", tests["passed"], tests["failed"]),
        tests => tests["passed"].to_string(),
    }));
    table.push_str(&row("not possible there", &|run| run["tests"]["skipped"].to_string()));
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::series;

    #[test]
    fn a_series_is_two_numbers() {
        assert_eq!(series("6.12.117+deb13-cloud-amd64"), "6.12");
        assert_eq!(series("5.10.0-32-cloud-amd64"), "5.10");
    }
}
