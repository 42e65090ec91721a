//! What was measured, and the lines it becomes.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use nova_measure::rounds::{median, per, real};
use serde_json::{Value, json};

use crate::peer::Kind;
use crate::row::Row;

/// One transfer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) bytes: u64,
    pub(crate) files: u64,
    pub(crate) took: Duration,
    /// Processor time of each end.
    pub(crate) sender: Duration,
    pub(crate) receiver: Duration,
    /// It was ended because it took too long: what is told is less than it took.
    pub(crate) cut: bool,
}

impl Work {
    fn gbit_per_s(&self) -> f64 {
        per(self.bytes, self.took) * 8.0 / 1e9
    }

    fn cost(&self, time: Duration) -> f64 {
        time.as_secs_f64() / (real(self.bytes) / 1e9).max(1e-9)
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = if self.cut { "less than " } else { "" };
        write!(
            f,
            "{cut}{:.3} Gbit/s, {:.0} files/s, {:.2} and {:.2} CPU-s/GB at sender and receiver",
            self.gbit_per_s(),
            per(self.files, self.took),
            self.cost(self.sender),
            self.cost(self.receiver),
        )
    }
}

/// All rounds of all rows.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<(Row, BTreeMap<Kind, Vec<Work>>)>);

impl Table {
    /// Begins a row.
    pub(crate) fn begin(&mut self, row: Row) {
        self.0.push((row, BTreeMap::new()));
    }

    /// Notes a transfer of the row that was begun last.
    pub(crate) fn note(&mut self, peer: Kind, work: Work) {
        let (_, works) = self.0.last_mut().expect("a row was begun before its transfers");
        works.entry(peer).or_default().push(work);
    }

    /// Whether a peer took too long in this row, and need not be asked again.
    pub(crate) fn was_cut(&self, peer: Kind) -> bool {
        let works = self.0.last().and_then(|(_, works)| works.get(&peer));
        works.is_some_and(|works| works.iter().any(|work| work.cut))
    }

    /// A line for each row and peer, medians over the rounds.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let mut lines = Vec::new();
        for (row, works) in &self.0 {
            let ours = works.get(&Kind::Nova).map(Vec::as_slice).unwrap_or_default();
            lines.extend(works.iter().map(|(&peer, works)| line(row, peer, works, ours)));
        }
        lines
    }
}

fn line(row: &Row, peer: Kind, works: &[Work], ours: &[Work]) -> Value {
    // Rounds that took too long say nothing but that, as long as another one came to its end.
    let cut = works.iter().filter(|work| work.cut).count();
    let counts = |work: &Work| !work.cut || cut == works.len();
    let over = |pick: &dyn Fn(&Work) -> f64| median(works.iter().filter(|work| counts(work)).map(pick));
    let times = |pick: &dyn Fn(&Work) -> f64| {
        let pairs = ours.iter().zip(works).filter(|(_, work)| counts(work));
        (peer != Kind::Nova && !ours.is_empty())
            .then(|| median(pairs.map(|(ours, work)| pick(ours) / pick(work).max(1e-9))))
    };
    let both = |work: &Work| work.cost(work.sender + work.receiver);
    let rate = row.rate.0;
    json!({
        "bench": "transfer",
        "row": row.to_string(),
        "set": row.set.name(),
        "link_bits_per_s": rate,
        "round_trip_ms": row.length.map(|length| length.round_trip.as_secs_f64() * 1e3),
        "loss": row.length.map(|length| length.loss),
        "peer": peer.name(),
        "sealed": peer.is_sealed(),
        "copies": peer.copies(),
        "rounds": works.len(),
        "rounds_too_long": cut,
        "took_too_long": cut == works.len(),
        "share_of_link": rate.map(|rate| over(&|work| work.gbit_per_s() * 1e9 / real(rate))),
        "gbit_per_s": over(&Work::gbit_per_s),
        "files_per_s": over(&|work| per(work.files, work.took)),
        "sender_cpu_s_per_gb": over(&|work| work.cost(work.sender)),
        "receiver_cpu_s_per_gb": over(&|work| work.cost(work.receiver)),
        "cpu_s_per_gb": over(&both),
        "ours_by_it": {"rate": times(&Work::gbit_per_s), "cpu_s_per_gb": times(&both)},
    })
}

/// The lines for people, a block for each row. More is better in rates, less in processor time.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        for (row, _) in &self.0 {
            let name = row.to_string();
            writeln!(f, "{name}")?;
            writeln!(
                f,
                "  {:<13} {:>6} {:>9} {:>8} {:>8} {:>8} {:>9} {:>8} {:>11} {:>8}",
                "",
                "sealed",
                "% of link",
                "Gbit/s",
                "files/s",
                "CPU-s/GB",
                "at sender",
                "receiver",
                "ours by it",
                "and CPU"
            )?;
            for line in lines.iter().filter(|line| line["row"] == name) {
                writeln!(f, "{}", text(line))?;
            }
        }
        Ok(())
    }
}

fn text(line: &Value) -> String {
    let number = |key: &str| line[key].as_f64().unwrap_or(f64::NAN);
    let ratio =
        |key: &str| line["ours_by_it"][key].as_f64().map_or_else(String::new, |ratio| format!("{ratio:.2}"));
    let is = |key: &str| line[key].as_bool().unwrap_or_default();
    let cut = if is("took_too_long") { "<" } else { "" };
    let share =
        line["share_of_link"].as_f64().map_or_else(String::new, |share| format!("{:.1}", share * 100.0));
    format!(
        "  {:<13} {:>6} {:>9} {:>8} {:>8.0} {:>8.2} {:>9.2} {:>8.2} {:>11} {:>8}",
        line["peer"].as_str().unwrap_or_default(),
        if is("sealed") { "yes" } else { "no" },
        share,
        format!("{cut}{:.3}", number("gbit_per_s")),
        number("files_per_s"),
        number("cpu_s_per_gb"),
        number("sender_cpu_s_per_gb"),
        number("receiver_cpu_s_per_gb"),
        ratio("rate"),
        ratio("cpu_s_per_gb"),
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn table() -> Table {
        let second = Duration::from_secs(1);
        let work =
            |bytes, sender| Work { bytes, files: 1, took: second, sender, receiver: second, cut: false };
        let mut table = Table::default();
        table.begin("large@1".parse().unwrap());
        table.note(Kind::Nova, work(100_000_000, second));
        table.note(Kind::Scp, work(50_000_000, second * 3));
        table.begin("small@none".parse().unwrap());
        table.note(Kind::Nc, Work { cut: true, ..work(1_000_000_000, second) });
        table
    }

    #[test]
    fn ours_is_told_as_so_many_times_the_peers_and_as_a_share_of_the_link() {
        let lines = table().lines();
        assert_eq!(lines[0]["share_of_link"], 0.8);
        assert_eq!(lines[0]["cpu_s_per_gb"], 20.0);
        assert_eq!(lines[0]["ours_by_it"]["rate"], Value::Null);
        assert_eq!(lines[1]["ours_by_it"]["rate"], 2.0);
        assert_eq!(lines[1]["ours_by_it"]["cpu_s_per_gb"], 0.25);
        assert_eq!((&lines[2]["share_of_link"], &lines[2]["took_too_long"]), (&Value::Null, &json!(true)));
    }

    #[test]
    fn a_round_that_took_too_long_does_not_hide_one_that_ended() {
        let second = Duration::from_secs(1);
        let work = |seconds, cut| Work {
            bytes: 100_000_000,
            files: 1,
            took: second * seconds,
            sender: second,
            receiver: second,
            cut,
        };
        let (ours, theirs) = ([work(1, false), work(1, false)], [work(2, false), work(60, true)]);
        let line = line(&"large@1".parse().unwrap(), Kind::Scp, &theirs, &ours);
        assert_eq!((&line["rounds_too_long"], &line["took_too_long"]), (&json!(1), &json!(false)));
        assert_eq!((&line["gbit_per_s"], &line["ours_by_it"]["rate"]), (&json!(0.4), &json!(2.0)));
    }

    #[test]
    fn a_table_has_a_block_for_each_row() {
        let text = table().to_string();
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0].join(" "), "large at 1 Gbit/s");
        assert_eq!(rows[2], ["nova", "bulk", "yes", "80.0", "0.800", "1", "20.00", "10.00", "10.00"]);
        assert_eq!(rows[3], ["scp", "yes", "40.0", "0.400", "1", "80.00", "60.00", "20.00", "2.00", "0.25"]);
        assert_eq!(rows[4].join(" "), "small without a limit");
        assert_eq!(rows[6], ["nc", "no", "<8.000", "1", "2.00", "1.00", "1.00"]);
    }
}
