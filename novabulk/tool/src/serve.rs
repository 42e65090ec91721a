//! `nova bulk serve`: lends and takes the files of a folder.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use nova_device::Listener as _;
use novabulk_copy::{Door, Folder, Host, HostOptions};
use serde::Serialize;

use crate::exit::{Kind, Stop};
use crate::interrupt::Interrupt;
use crate::{Global, identity, machine, output};

/// What to serve, and where.
#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// Where to listen: an address of this host and a port; port 0 is any.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9470")]
    listen: SocketAddr,
    /// The folder; nothing above it is reached, and no symbolic link in it is followed.
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Lend files, and take none.
    #[arg(long)]
    read_only: bool,
    /// Let others have this host copy to a third one.
    #[arg(long)]
    relay: bool,
    /// Take no file longer than this, as 500M or 2T.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_file: Option<u64>,
}

#[derive(Debug, Serialize)]
struct View {
    listening: String,
    root: String,
    read_only: bool,
}

pub(crate) fn run(global: &Global, serve: Serve) -> anyhow::Result<()> {
    let certificates = identity::read(global)?;
    let root = serve.root.canonicalize().map_err(|error| {
        Stop::error(Kind::NotFound, format!("{}: {error}; make the folder first", serve.root.display()))
    })?;
    let interrupt = Interrupt::listen().context("listen for signals")?;
    machine::run("bulk-serve", machine::HOST_BYTES, async |shard| {
        let folder = Folder::open(&root).with_context(|| format!("open {}", root.display()))?;
        let listener = shard
            .listen(serve.listen)
            .with_context(|| format!("listen on {}: is another process there?", serve.listen))?;
        let options = HostOptions {
            read_only: serve.read_only,
            relay: serve.relay,
            file_bytes_max: serve.max_file.unwrap_or(HostOptions::default().file_bytes_max),
        };
        let view = View {
            listening: listener.address().0.to_string(),
            root: root.display().to_string(),
            read_only: serve.read_only,
        };
        let door = Door::new(certificates).context("take memory for TLS")?;
        let host = Host::new(shard.clone(), folder, options, Some(door.clone()));
        novabulk_copy::serve(&door, &shard, listener, &host);
        output::print(global.json, &view, View::text)?;
        interrupt.asked(&shard).await.context("wait for a signal")
    })
}

impl View {
    fn text(&self) -> String {
        let how = if self.read_only { "lending only" } else { "lending and taking" };
        format!("serving {} on {}, {how}; Ctrl-C ends it\n", self.root, self.listening)
    }
}

/// Bytes as people write them: 4096, 10M, 2G, 1T.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text} is no size: give bytes, or a number with K, M, G or T");
    let (number, shift) = match text.char_indices().last().ok_or_else(wrong)? {
        (at, 'K' | 'k') => (&text[..at], 10),
        (at, 'M' | 'm') => (&text[..at], 20),
        (at, 'G' | 'g') => (&text[..at], 30),
        (at, 'T' | 't') => (&text[..at], 40),
        _ => (text, 0),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).filter(|&bytes| bytes > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_powers_of_1024() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("10M"), Ok(10 << 20));
        assert_eq!(parse_size("2t"), Ok(2 << 40));
        for text in ["", "M", "1.5G", "-1", "0", "99999999999T"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
