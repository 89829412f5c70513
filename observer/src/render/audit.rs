//! `observer audit`: findings by container, each with its reason and what to do.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    PATH, Untrusted, cut_ids,
    table::{Cell, Column, Surface, Table},
    words,
};
use crate::{inventory::ContainerView, posture::Verdict};

/// What was found of each container, then of the host, then what to do about it: each advice once.
pub fn audit(of: &[(&ContainerView, &Verdict)], host: &Verdict, surface: Surface) -> String {
    let strong = surface.colours.strong();
    let mut text = String::new();
    let mut advice = BTreeMap::new();
    for (container, verdict) in of {
        let called = match &container.pod {
            Some(pod) => words::pod(pod),
            None => words::called(container).to_owned(),
        };
        let _ = write!(text, "{strong}{}{strong:#}", Untrusted(&called, PATH));
        let short = words::short_id(&container.id);
        if short != called {
            let _ = write!(text, " ({})", Untrusted(short, PATH));
        }
        let _ = writeln!(text, "  {}", container.runtime);
        verdict_lines(verdict, surface, &mut text);
        advice.extend(verdict.findings.iter().map(|finding| (finding.rule, finding.advice)));
        text.push('\n');
    }
    if of.is_empty() {
        text.push_str("no containers on this host\n\n");
    }
    if !host.findings.is_empty() || !host.unknown.is_empty() {
        let _ = writeln!(text, "{strong}the host{strong:#}");
        verdict_lines(host, surface, &mut text);
        advice.extend(host.findings.iter().map(|finding| (finding.rule, finding.advice)));
        text.push('\n');
    }
    if !advice.is_empty() {
        let _ = writeln!(text, "{strong}What to do{strong:#}");
        let mut table = Table::new([Column::left("RULE"), Column::left("ADVICE").wrap()]);
        for (rule, advice) in advice {
            table.row([short(rule).into(), Cell::faint(advice)]);
        }
        indented(&table, surface, &mut text);
    }
    text
}

fn verdict_lines(verdict: &Verdict, surface: Surface, text: &mut String) {
    let mut table =
        Table::new([Column::left("SEVERITY"), Column::left("RULE"), Column::left("REASON").wrap()]);
    for finding in &verdict.findings {
        table.row([
            Cell::severity(finding.severity.name(), finding.severity),
            short(finding.rule).into(),
            cut_ids(&finding.reason).into(),
        ]);
    }
    for unknown in &verdict.unknown {
        table.row([Cell::faint("not known"), short(unknown.rule).into(), Cell::faint(&unknown.what)]);
    }
    if table.is_empty() {
        text.push_str("  nothing speaks against it\n");
    } else {
        indented(&table, surface, text);
    }
}

fn indented<const N: usize>(table: &Table<N>, surface: Surface, text: &mut String) {
    let narrower = Surface { width: surface.width.map(|width| width.saturating_sub(2)), ..surface };
    for line in table.render(narrower).lines() {
        let _ = writeln!(text, "  {line}");
    }
}

fn short(rule: &str) -> &str {
    rule.strip_prefix("posture.").unwrap_or(rule)
}
