//! Binary nova-agent: stands beside novad, speaks for it to the controllers and serves local programs.
//!
//! Four tasks share one [`picture::Picture`]: [`novad`] holds the ring to the data plane, [`cluster`] the streams to
//! the controllers, [`keys`] brings keys, [`programs`] the rings of local programs. Each one may lose its other side and find it again
//! without the others noticing more than a gap.
#![forbid(unsafe_code)]

mod blocks;
mod cluster;
mod config;
mod controllers;
mod devices;
mod doorbell;
mod keys;
mod map;
mod novad;
mod picture;
mod programs;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use nova_security::Credentials;
use tokio::signal::unix::{SignalKind, signal};

/// The agent of a host: registers it, carries the cluster's decisions to novad and its reports back, serves programs.
#[derive(Debug, Parser)]
#[command(version, after_help = "Example:\n  nova-agent --config /etc/nova/agent.toml")]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, required_unless_present = "explain_config")]
    config: Option<PathBuf>,
    /// Print every key of the configuration with its meaning and default, then exit.
    #[arg(long)]
    explain_config: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.explain_config {
        print!("{}", config::EXPLANATION);
        return ExitCode::SUCCESS;
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("NOVA_LOG").unwrap_or_else(|_| "info".into()),
        )
        .init();
    match run(arguments.config.expect("clap asks for it")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nova-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: PathBuf) -> anyhow::Result<()> {
    let config = Arc::new(config::Config::load(&path)?);
    nova_security::install_crypto().context("install the TLS provider")?;
    let credentials = Credentials::load_files(&config.tls.ca, &config.tls.certificate, &config.tls.key)
        .context("load the certificate")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.threads)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let picture = Arc::new(picture::Picture::new());
        let controllers = Arc::new(controllers::Controllers::new(&config, &credentials)?);
        let programs = programs::listen(&config, Arc::clone(&picture), Arc::clone(&controllers))?;
        let novad = tokio::spawn(novad::attend(config.novad_socket.clone(), Arc::clone(&picture)));
        let cluster = tokio::spawn(cluster::attend(
            Arc::clone(&config),
            Arc::clone(&picture),
            Arc::clone(&controllers),
        ));
        let keys = tokio::spawn(keys::attend(Arc::clone(&picture), Arc::clone(&controllers)));
        tracing::info!(name = config.name, socket = %config.socket.display(), "the agent is up");
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            ended = novad => anyhow::bail!("the task that holds the ring to novad ended: {ended:?}"),
            ended = keys => anyhow::bail!("the task that brings keys ended: {ended:?}"),
            ended = cluster => anyhow::bail!("the task that speaks to the controllers ended: {ended:?}"),
        }
        tracing::info!("the agent stops");
        drop(programs);
        Ok(())
    })
}
