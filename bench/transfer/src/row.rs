//! A row of the table: which files go over which link.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum as _;

use crate::link::{Length, Rate};
use crate::set::Kind as SetKind;

/// Which files go over which link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) set: SetKind,
    pub(crate) rate: Rate,
    /// Of a long line.
    pub(crate) length: Option<Length>,
}

impl FromStr for Row {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (set, rate) =
            text.split_once('@').ok_or_else(|| format!("{text} is no row: give SET@GBIT, as large@1"))?;
        let set =
            SetKind::from_str(set, true).map_err(|_| format!("{set} is no set: large, text or small"))?;
        Ok(Self { set, rate: rate.parse()?, length: None })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.set.name(), self.rate)?;
        self.length.map_or(Ok(()), |length| write!(f, ", {length}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_row_is_a_set_and_a_rate() {
        let mut row: Row = "small@10".parse().unwrap();
        assert_eq!(row.to_string(), "small at 10 Gbit/s");
        row.length = Some(Length { round_trip: Duration::from_millis(80), loss: 0.0001 });
        assert_eq!(row.to_string(), "small at 10 Gbit/s, 80 ms there and back, 0.01 % lost");
        for text in ["small", "tiny@1", "large@", "large@x"] {
            assert!(text.parse::<Row>().is_err(), "{text}");
        }
    }
}
