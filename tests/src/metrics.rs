//! Prometheus' text format, as far as reading samples goes.

use std::collections::BTreeMap;

/// Samples by name and labels; the labels sorted by name.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    samples: BTreeMap<(String, Vec<(String, String)>), f64>,
}

impl Metrics {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut samples = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) = sample(line).ok_or_else(|| format!("no sample: {line:?}"))?;
            if samples.insert(key, value).is_some() {
                return Err(format!("a series twice: {line:?}"));
            }
        }
        Ok(Self { samples })
    }

    /// One sample with exactly these labels.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut labels: Vec<_> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        labels.sort();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    /// The sum over all samples of a family that carry at least these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |have: &[(String, String)]| {
            labels.iter().all(|(key, value)| have.iter().any(|(k, v)| k == key && v == value))
        };
        self.samples.iter().filter(|((n, have), _)| n == name && fits(have)).map(|(_, value)| value).sum()
    }

    /// All samples of a family, as (labels, value), for messages.
    pub fn family(&self, name: &str) -> Vec<(String, f64)> {
        let of_name = self.samples.iter().filter(|((n, _), _)| n == name);
        let label = |labels: &[(String, String)]| {
            labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
        };
        of_name.map(|((_, labels), value)| (label(labels), *value)).collect()
    }
}

type Key = (String, Vec<(String, String)>);

fn sample(line: &str) -> Option<(Key, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            rest = rest.trim_start_matches([',', ' ']);
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (key, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((key.to_owned(), value));
            rest = after;
        }
        labels.sort();
    }
    let value = match rest.split_whitespace().next()? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().ok()?,
    };
    Some(((name.to_owned(), labels), value))
}

/// A label's value up to its closing quote, with \\, \" and \n undone.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_samples() {
        let text = "# HELP a b\n# TYPE a counter\na_total{kind=\"exec\",x=\"q\\\"}\\\\,\\n\"} 3\na_total{kind=\"fork\"} 4\nb 1.5e3 17\n";
        let metrics = Metrics::parse(text).expect("samples");
        assert_eq!(metrics.get("a_total", &[("x", "q\"}\\,\n"), ("kind", "exec")]), Some(3.0));
        assert_eq!(metrics.sum("a_total", &[]), 7.0);
        assert_eq!(metrics.sum("a_total", &[("kind", "fork")]), 4.0);
        assert_eq!(metrics.get("b", &[]), Some(1500.0));
        assert!(Metrics::parse("a 1\na 2\n").is_err());
    }
}
