//! One row of the table.

use serde_json::{Value, json};

#[derive(Debug)]
pub struct Figure {
    pub name: &'static str,
    pub value: f64,
    pub unit: &'static str,
    /// At most this.
    pub bound: Option<f64>,
    /// Better this.
    pub aim: Option<f64>,
    /// What the value was made of, for machines.
    pub detail: Value,
    /// The same for people, one line each.
    pub notes: Vec<String>,
    /// Which share of the CPUs others kept busy before it was measured.
    pub busy_before: f64,
    /// It could not be measured.
    pub failure: Option<String>,
}

impl Figure {
    pub fn new(name: &'static str, value: f64, unit: &'static str) -> Self {
        Self {
            name,
            value,
            unit,
            bound: None,
            aim: None,
            detail: Value::Null,
            notes: Vec::new(),
            busy_before: 0.0,
            failure: None,
        }
    }

    pub fn failed(name: &'static str, why: String) -> Self {
        Self { failure: Some(why), ..Self::new(name, f64::NAN, "") }
    }

    pub fn bound(mut self, bound: f64) -> Self {
        self.bound = Some(bound);
        self
    }

    pub fn aim(mut self, aim: f64) -> Self {
        self.aim = Some(aim);
        self
    }

    pub fn detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }

    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    pub fn missed(&self) -> bool {
        // Written so that "not a number" is a miss.
        self.failure.is_some() || self.bound.is_some_and(|bound| !matches!(self.value, v if v <= bound))
    }

    fn verdict(&self) -> &'static str {
        match () {
            () if self.failure.is_some() => "failed",
            () if self.missed() => "MISS",
            () if self.bound.is_none() => "",
            () if self.aim.is_some_and(|aim| self.value > aim) => "pass, aim missed",
            () => "pass",
        }
    }

    pub fn json(&self) -> Value {
        let mut row = json!({"name": self.name, "verdict": self.verdict(), "busy_before": self.busy_before});
        match &self.failure {
            Some(why) => row["failure"] = json!(why),
            None => {
                row["value"] = json!(self.value);
                row["unit"] = json!(self.unit);
            }
        }
        for (key, limit) in [("bound", self.bound), ("aim", self.aim)] {
            if let Some(limit) = limit {
                row[key] = json!(limit);
            }
        }
        if !self.detail.is_null() {
            row["detail"] = self.detail.clone();
        }
        row
    }

    fn cells(&self) -> [String; 5] {
        let limit = |limit: Option<f64>| limit.map_or_else(String::new, |it| format!("{it}"));
        let value =
            if self.failure.is_some() { "-".to_owned() } else { format!("{:.3} {}", self.value, self.unit) };
        [
            self.name.to_owned(),
            value.trim_end().to_owned(),
            limit(self.bound),
            limit(self.aim),
            self.verdict().to_owned(),
        ]
    }
}

/// The table, and below it what each value was made of.
pub fn table(figures: &[Figure]) -> String {
    let head = ["figure", "value", "bound", "aim", ""].map(str::to_owned);
    let rows: Vec<[String; 5]> =
        std::iter::once(head).chain(figures.iter().map(|figure| figure.cells())).collect();
    let mut text = columns(&rows);
    for figure in figures {
        let busy = (figure.busy_before > 0.1)
            .then(|| format!("others kept {:.0} % of the CPUs busy just before", figure.busy_before * 100.0));
        let notes = figure.failure.iter().chain(&figure.notes).chain(&busy);
        for (n, note) in notes.enumerate() {
            let name = if n == 0 { figure.name } else { "" };
            text.push_str(&format!("{}{name:14} {note}\n", if n == 0 { "\n" } else { "" }));
        }
    }
    text
}

/// Rows under each other, each column as wide as its widest cell.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_decides_and_the_aim_is_told() {
        let verdict = |value| Figure::new("f", value, "").bound(2.0).aim(1.0).verdict();
        assert_eq!(
            [verdict(1.0), verdict(1.5), verdict(2.5), verdict(f64::NAN)],
            ["pass", "pass, aim missed", "MISS", "MISS"]
        );
        assert_eq!(Figure::new("f", 9.0, "").verdict(), "");
        assert_eq!(Figure::failed("f", "why".into()).verdict(), "failed");
    }
}
