//! Starts everything, and stops it in good order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use nova_api::cluster::cluster_server::ClusterServer;
use nova_api::files::files_server::FilesServer;
use nova_api::keys::keys_server::KeysServer;
use nova_raft::{COMMAND_BYTES_MAX, Group, GroupOptions, Peers, StateMachine};
use nova_security::{Credentials, Role};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::attendance::Attendance;
use crate::cluster_service::ClusterService;
use crate::collection::{Collector, FilesDoor};
use crate::config::Config;
use crate::files_service::FilesService;
use crate::keys::KeyService;
use crate::keys_service::KeysService;
use crate::leader::{Leading, lead_cluster, lead_files};
use crate::machine::{Cluster, Files};
use crate::reads::Reads;
use crate::spread::{spread_leaders, step_down};
use crate::writes::Writes;

/// Largest answer: a page of a listing, or the blocks of the largest file.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// A peer that does not answer this long is gone.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Requests of one connection at a time.
const REQUESTS_PER_CONNECTION_MAX: u32 = 1024;
/// How long requests under way may take when the controller stops.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// Runs a controller until it is told to stop.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let tls = &config.tls;
    let credentials =
        Credentials::load_files(&tls.ca, &tls.certificate, &tls.key).context("read the certificates")?;
    let identity = credentials.identity();
    ensure!(
        identity.region() == config.region && identity.role() == Role::Controller,
        "the certificate is {identity}; it must be a controller of region {:?}",
        config.region
    );
    let members = Arc::new(config.members());
    let mut stop = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("listen on {}", config.listen))?;

    let peers = Peers::new();
    let cluster = open(&config, &credentials, &peers, "cluster", Cluster::default()).await?;
    let files = open(&config, &credentials, &peers, "files", Files::default()).await?;

    let mut tasks = JoinSet::new();
    let attendance = Arc::new(Attendance::default());
    let renewals = Arc::default();
    let (leading_now, leading) = watch::channel(Leading::default());
    let (cluster_reads, files_reads) = (Reads::start(cluster.clone()), Reads::start(files.clone()));
    tasks.spawn(lead_cluster(
        cluster.clone(),
        files.clone(),
        cluster_reads.clone(),
        Arc::clone(&attendance),
        config.groups_wanted,
        leading_now,
    ));
    tasks.spawn(lead_files(files.clone(), files_reads.clone(), Arc::clone(&renewals)));
    tasks.spawn(spread_leaders(cluster.clone(), files.clone(), Arc::clone(&members)));
    let writes = Writes::start(files.clone());
    let collector = Collector::new(
        config.collection,
        cluster.clone(),
        files.clone(),
        Arc::clone(&attendance),
        leading.clone(),
        FilesDoor::new(writes.clone(), credentials.clone()),
    );
    let collecting = collector.running();
    tasks.spawn(collector.run());

    let keys = KeyService::open(config.keys.as_ref(), cluster.clone())?;
    tasks.spawn(keys.clone().run(leading.clone()));
    let keys_service = KeysService {
        keys,
        cluster: cluster.clone(),
        files: files.clone(),
        reads: cluster_reads.clone(),
        leading: leading.clone(),
    };

    let cluster_service = ClusterService {
        id: config.id,
        members: Arc::clone(&members),
        cluster: cluster.clone(),
        files: files.clone(),
        reads: cluster_reads,
        attendance,
        leading,
        collecting,
    };
    let files_service = FilesService {
        reads: files_reads,
        writes: Writes::start(files.clone()),
        files: files.clone(),
        cluster: cluster.clone(),
        renewals,
        turn: Arc::default(),
    };
    let server = Server::builder()
        .tls_config(credentials.server_tls())
        .context("set up TLS")?
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(REQUESTS_PER_CONNECTION_MAX)
        .add_service(peers.service())
        .add_service(ClusterServer::new(cluster_service))
        .add_service(KeysServer::new(keys_service))
        .add_service(
            FilesServer::new(files_service)
                .max_decoding_message_size(COMMAND_BYTES_MAX)
                .max_encoding_message_size(ANSWER_BYTES_MAX),
        );
    let (drain, drained) = oneshot::channel::<()>();
    // Set on the connections: the `tcp_nodelay` of a server reaches only listeners that it binds itself, and Nagle's
    // delay costs every round of ReadIndex 40 ms.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = server.serve_with_incoming_shutdown(incoming, async {
        // A dropped sender means the same: stop.
        let _ = drained.await;
    });
    let mut serving = tokio::spawn(serving);
    tracing::info!(id = config.id, listen = %config.listen, region = config.region, "nova-control serves");

    tokio::select! {
        _ = stop.recv() => tracing::info!("SIGTERM: stops"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stops"),
        ended = &mut serving => {
            ended.context("serve")?.context("serve")?;
            bail!("the server ended by itself");
        }
        Some(ended) = tasks.join_next() => {
            ended.context("a leader's task failed")?;
            bail!("a leader's task ended by itself");
        }
    }
    step_down(&cluster, &members).await;
    step_down(&files, &members).await;
    tasks.shutdown().await;
    let _ = drain.send(());
    // The other controllers keep streams open to a group for as long as it is there.
    files.shutdown().await.context("stop the files group")?;
    cluster.shutdown().await.context("stop the cluster group")?;
    if timeout(DRAIN_MAX, &mut serving).await.is_err() {
        serving.abort();
    }
    tracing::info!("stopped");
    Ok(())
}

/// Opens this controller's member of a group; all members begin it together.
async fn open<S: StateMachine>(
    config: &Config,
    credentials: &Credentials,
    peers: &Peers,
    name: &str,
    initial: S,
) -> anyhow::Result<Group<S>> {
    let options = GroupOptions {
        name: name.to_owned(),
        id: config.id,
        members: config.members(),
        folder: config.folder.join(name),
        credentials: credentials.clone(),
        peers: peers.clone(),
        bootstrap: true,
        timing: config.snapshots.timing(),
    };
    Group::open(options, initial).await.with_context(|| format!("open the {name} group"))
}
