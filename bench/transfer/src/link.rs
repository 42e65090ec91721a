//! What is between the ends: a pair of virtual Ethernet devices with a rate, or a long line.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nova_measure::recipe::Recipe;

use crate::end::End;
use crate::line::tun::{self, Line};
use crate::line::{Counts, Shape};

/// Addresses of sender and receiver.
pub(crate) const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 77, 1), Ipv4Addr::new(10, 77, 77, 2)];
/// The device in each namespace.
const DEVICE: &str = "eth0";
/// What may go out at once is what the rate gives in this time, and what waits is four times as much.
const BURSTS_PER_SECOND: u64 = 1000;
/// A packet of segments has at most 64 KiB, and must fit into a burst.
const BURST_BYTES_MIN: u64 = 80 << 10;
const QUEUE_BURSTS: u64 = 4;

/// Bits a second; none is as fast as it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rate(pub(crate) Option<u64>);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is no rate: give Gbit/s, as 1 or 0.5, or none");
        if text == "none" {
            return Ok(Self(None));
        }
        let gigabits: f64 = text.parse().map_err(|_| wrong())?;
        if !(0.001..=400.0).contains(&gigabits) {
            return Err(wrong());
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was just checked")]
        let megabits = (gigabits * 1000.0).round() as u64;
        Ok(Self(Some(megabits * 1_000_000)))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("without a limit"),
            Some(bits) if bits % 1_000_000_000 == 0 => write!(f, "at {} Gbit/s", bits / 1_000_000_000),
            Some(bits) => write!(f, "at {} Mbit/s", bits / 1_000_000),
        }
    }
}

/// A long line: how long there and back, and which part of the packets it loses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Length {
    pub(crate) round_trip: Duration,
    pub(crate) loss: f64,
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ms there and back, {} % lost",
            self.round_trip.as_millis(),
            (self.loss * 1e6).round() / 1e4
        )
    }
}

/// What joins both ends.
#[derive(Debug)]
pub(crate) enum Link {
    /// Two devices, each with a queue that sends at a rate.
    Cable,
    /// Our own line.
    Line(Line),
}

impl Link {
    /// Joins `ends`, sender first.
    pub(crate) fn join(ends: &[End; 2], is_long: bool) -> Result<Self> {
        let [one, other] = [&ends[0].space, &ends[1].space];
        let (link, device) = if is_long {
            let shape = Shape { bits_per_second: 1_000_000_000, delay: Duration::ZERO, loss: 0.0 };
            (Self::Line(Line::between(one, other, shape)?), tun::DEVICE)
        } else {
            one.ip(&["link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", other.name()])?;
            (Self::Cable, DEVICE)
        };
        for end in ends {
            end.space.ip(&["addr", "add", &format!("{}/24", end.address), "dev", device])?;
            end.space.ip(&["link", "set", device, "up"])?;
        }
        Ok(link)
    }

    /// Gives it the rate, and the length when it is a line; notes how.
    pub(crate) fn set(
        &self,
        ends: &[End; 2],
        rate: Rate,
        length: Option<Length>,
        recipe: &mut Recipe,
    ) -> Result<()> {
        match self {
            Self::Line(line) => {
                let length = length.context("a line has a length")?;
                let bits = rate.0.context("a line has a rate: give one in --row, as large@0.5")?;
                let shape = Shape { bits_per_second: bits, delay: length.round_trip / 2, loss: length.loss };
                line.reshape(shape);
            }
            Self::Cable => {
                for end in ends {
                    // There is none at first.
                    let _ = end.space.tc(&["qdisc", "del", "dev", DEVICE, "root"]);
                    let Some(bits) = rate.0 else { continue };
                    let burst = (bits / 8 / BURSTS_PER_SECOND).max(BURST_BYTES_MIN);
                    let (rate, burst, queue) =
                        (format!("{bits}bit"), burst.to_string(), (burst * QUEUE_BURSTS).to_string());
                    let words = [
                        "qdisc", "add", "dev", DEVICE, "root", "tbf", "rate", &rate, "burst", &burst,
                        "limit", &queue,
                    ];
                    end.space.tc(&words)?;
                    recipe.note_command(&[&["tc"], &words[..]].concat());
                }
            }
        }
        Ok(())
    }

    /// What a long line did with its packets since it was set.
    pub(crate) fn counts(&self) -> Option<[Counts; 2]> {
        match self {
            Self::Cable => None,
            Self::Line(line) => Some(line.counts()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_in_gigabits() {
        assert_eq!("1".parse(), Ok(Rate(Some(1_000_000_000))));
        assert_eq!("0.5".parse::<Rate>().map(|rate| rate.to_string()), Ok("at 500 Mbit/s".to_owned()));
        assert_eq!("none".parse(), Ok(Rate(None)));
        for text in ["", "0", "-1", "1e9", "fast"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
