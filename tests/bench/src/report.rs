//! What a benchmark found: tables for people, bars for machines.

use std::fmt;

use serde::Serialize;

/// Which way a limit bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Op {
    /// The value must be at least the limit.
    #[serde(rename = ">=")]
    AtLeast,
    /// The value must be at most the limit.
    #[serde(rename = "<=")]
    AtMost,
}

/// One limit, measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bar {
    /// What was measured: `link 64 B: frames a second, ratio to the bare loop`.
    pub name: String,
    /// What was found.
    pub value: f64,
    /// Which way the limit bounds.
    pub op: Op,
    /// The limit.
    pub limit: f64,
    /// Whether the value is on its right side.
    pub holds: bool,
}

impl Bar {
    /// Compares.
    pub fn new(name: impl Into<String>, value: f64, op: Op, limit: f64) -> Self {
        let holds = match op {
            Op::AtLeast => value >= limit,
            Op::AtMost => value <= limit,
        };
        Self {
            name: name.into(),
            value,
            op,
            limit,
            holds,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = match self.op {
            Op::AtLeast => ">=",
            Op::AtMost => "<=",
        };
        let verdict = if self.holds { "holds" } else { "FAILS" };
        write!(
            f,
            "{verdict}  {}: {:.3} {op} {}",
            self.name, self.value, self.limit
        )
    }
}

/// A table. The first column is aligned to the left, all others to the right.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// What it shows, with its conditions.
    pub title: String,
    /// Column names with their units.
    pub columns: Vec<String>,
    /// Each as long as `columns`.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        Self {
            title: title.into(),
            columns: columns.iter().map(ToString::to_string).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = || std::iter::once(&self.columns).chain(&self.rows);
        let width = |column: usize| {
            lines()
                .filter_map(|line| line.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        writeln!(f, "{}", self.title)?;
        for line in lines() {
            for (column, cell) in line.iter().enumerate() {
                let width = width(column);
                if column == 0 {
                    write!(f, "  {cell:<width$}")?;
                } else {
                    write!(f, "  {cell:>width$}")?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// What one or several benchmarks found.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Report {
    /// Which benchmarks.
    pub benches: Vec<String>,
    /// For people.
    pub tables: Vec<Table>,
    /// Each limit that was measured.
    pub bars: Vec<Bar>,
}

impl Report {
    /// An empty report of one benchmark.
    pub fn of(bench: &str) -> Self {
        Self {
            benches: vec![bench.to_owned()],
            ..Self::default()
        }
    }

    /// Adds what another benchmark found.
    pub fn append(&mut self, other: Self) {
        self.benches.extend(other.benches);
        self.tables.extend(other.tables);
        self.bars.extend(other.bars);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &self.tables {
            writeln!(f, "{table}")?;
        }
        for bar in &self.bars {
            writeln!(f, "{bar}")?;
        }
        Ok(())
    }
}

/// The same quantity of ours and of the peer, one entry a paired run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pairs {
    ours: Vec<f64>,
    peers: Vec<f64>,
}

impl Pairs {
    /// Adds one run.
    pub fn push(&mut self, ours: f64, peer: f64) {
        self.ours.push(ours);
        self.peers.push(peer);
    }

    /// Median of ours.
    pub fn ours(&self) -> f64 {
        median(self.ours.clone())
    }

    /// Median of the peer's.
    pub fn peer(&self) -> f64 {
        median(self.peers.clone())
    }

    /// Ratio of ours to the peer's in each run, sorted.
    pub fn ratios(&self) -> Vec<f64> {
        let mut ratios: Vec<_> = self
            .ours
            .iter()
            .zip(&self.peers)
            .map(|(ours, peer)| ours / peer)
            .collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }

    /// Median of the ratios.
    pub fn ratio(&self) -> f64 {
        median(self.ratios())
    }

    /// The ratio as a cell: median and range.
    pub fn ratio_cell(&self) -> String {
        let ratios = self.ratios();
        let (Some(least), Some(most)) = (ratios.first(), ratios.last()) else {
            return "-".to_owned();
        };
        format!("{:.2} ({least:.2}-{most:.2})", median(ratios.clone()))
    }
}

/// The middle value, or the mean of the two in the middle; not a number when there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle.wrapping_sub(1)), values.get(middle)) {
        (Some(below), Some(above)) if values.len().is_multiple_of(2) => {
            f64::midpoint(*below, *above)
        }
        (_, Some(middle)) => *middle,
        _ => f64::NAN,
    }
}

/// The value below which `percent` of the values lie; not a number when there is none.
pub fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = (values.len() * percent / 100).min(values.len().saturating_sub(1));
    values.get(index).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles() {
        assert!(median(vec![]).is_nan() && percentile(vec![], 50).is_nan());
        assert_eq!(median(vec![3.0]).to_bits(), 3.0_f64.to_bits());
        assert_eq!(median(vec![9.0, 1.0, 5.0]).to_bits(), 5.0_f64.to_bits());
        assert_eq!(
            median(vec![4.0, 1.0, 2.0, 9.0]).to_bits(),
            3.0_f64.to_bits()
        );
        let hundred: Vec<f64> = (0..100).map(f64::from).collect();
        assert_eq!(
            percentile(hundred.clone(), 99).to_bits(),
            99.0_f64.to_bits()
        );
        assert_eq!(percentile(hundred, 100).to_bits(), 99.0_f64.to_bits());
    }

    #[test]
    fn ratios_are_of_neighbours() {
        let mut pairs = Pairs::default();
        for (ours, peer) in [(2.0, 1.0), (30.0, 10.0), (4.0, 4.0)] {
            pairs.push(ours, peer);
        }
        assert_eq!(pairs.ratio_cell(), "2.00 (1.00-3.00)");
        assert_eq!(pairs.ours().to_bits(), 4.0_f64.to_bits());
    }

    #[test]
    fn a_report_is_one_object_with_its_bars() {
        let mut report = Report::of("link");
        report.bars.push(Bar::new("ratio", 0.95, Op::AtLeast, 0.9));
        let mut other = Report::of("boot");
        other.bars.push(Bar::new("memory", 9.5, Op::AtMost, 8.0));
        report.append(other);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["benches"][1], "boot");
        assert_eq!(
            json["bars"],
            serde_json::json!([
                {"name": "ratio", "value": 0.95, "op": ">=", "limit": 0.9, "holds": true},
                {"name": "memory", "value": 9.5, "op": "<=", "limit": 8.0, "holds": false},
            ])
        );
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new("t", &["frame", "Mpps"]);
        table.row(["64 B".to_owned(), "1.25".to_owned()]);
        assert_eq!(table.to_string(), "t\n  frame  Mpps\n  64 B   1.25\n");
    }
}
