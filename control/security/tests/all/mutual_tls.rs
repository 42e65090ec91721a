use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use nova_api::raft::raft_peer_client::RaftPeerClient;
use nova_api::raft::raft_peer_server::{RaftPeer, RaftPeerServer};
use nova_api::raft::{
    AppendReply, AppendRequest, SnapshotChunk, SnapshotReply, TransferLeaderReply, TransferLeaderRequest,
    VoteReply, VoteRequest,
};
use nova_security::{Authority, Credentials, Identity, Role, Zone, authorize, install_crypto};
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

/// Grants a vote to every controller.
struct Voter;

#[tonic::async_trait]
impl RaftPeer for Voter {
    type AppendStream = Pin<Box<dyn Stream<Item = Result<AppendReply, Status>> + Send>>;

    async fn vote(&self, request: Request<VoteRequest>) -> Result<Response<VoteReply>, Status> {
        let caller = authorize(&request, &[Role::Controller])?;
        assert_eq!(caller.node(), "one");
        Ok(Response::new(VoteReply { granted: true, ..VoteReply::default() }))
    }
    async fn pre_vote(&self, _: Request<VoteRequest>) -> Result<Response<VoteReply>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }
    async fn append(
        &self,
        _: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }
    async fn snapshot(
        &self,
        _: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SnapshotReply>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }
    async fn transfer_leader(
        &self,
        _: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderReply>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }
}

async fn serve(credentials: &Credentials) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder()
        .tls_config(credentials.server_tls())
        .unwrap()
        .add_service(RaftPeerServer::new(Voter));
    let task =
        tokio::spawn(
            async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() },
        );
    (address, task)
}

async fn ask(address: SocketAddr, tls: ClientTlsConfig) -> Result<bool, Status> {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap();
    let endpoint = endpoint.timeout(Duration::from_secs(5)).connect_timeout(Duration::from_secs(5));
    let reply = RaftPeerClient::new(endpoint.connect_lazy()).vote(VoteRequest::default()).await?;
    Ok(reply.into_inner().granted)
}

fn issue(authority: &Authority, folder: &Path, role: Role, node: &str) -> Credentials {
    let identity = Identity::new(authority.region(), Zone::Management, role, node).unwrap();
    authority.issue(folder, node, &identity, &[]).unwrap();
    Credentials::load(folder, node).unwrap()
}

#[tokio::test]
async fn controllers_talk_and_every_other_caller_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(&folder.path().join("ca"), "eu-1").unwrap();
    let server = issue(&authority, folder.path(), Role::Controller, "server");
    let (address, task) = serve(&server).await;

    let one = issue(&authority, folder.path(), Role::Controller, "one");
    assert!(ask(address, one.client_tls(Role::Controller)).await.unwrap());

    // Of this region, but not a controller: TLS lets it in, the service turns it away.
    let agent = issue(&authority, folder.path(), Role::Agent, "agent");
    let refused = ask(address, agent.client_tls(Role::Controller)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");

    // No certificate at all.
    let ca = Certificate::from_pem(authority.certificate_pem());
    let bare = ClientTlsConfig::new().ca_certificate(ca).domain_name(Role::Controller.server_name("eu-1"));
    assert!(ask(address, bare).await.is_err());

    // A certificate of another CA that calls itself by the same name; it trusts our server, so only the server can
    // turn it away.
    let foreign_folder = tempfile::tempdir().unwrap();
    let foreign = Authority::create(&foreign_folder.path().join("ca"), "eu-1").unwrap();
    issue(&foreign, foreign_folder.path(), Role::Controller, "one");
    let mixed = Credentials::load_files(
        &folder.path().join("ca.pem"),
        &foreign_folder.path().join("one.pem"),
        &foreign_folder.path().join("one.key"),
    );
    assert!(ask(address, mixed.unwrap().client_tls(Role::Controller)).await.is_err());

    // A client that expects an agent there does not talk to a controller.
    assert!(ask(address, one.client_tls(Role::Agent)).await.is_err());
    task.abort();
}

#[tokio::test]
async fn an_operator_certificate_cannot_serve() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(&folder.path().join("ca"), "eu-1").unwrap();
    let operator = issue(&authority, folder.path(), Role::Operator, "ann");
    let (address, task) = serve(&operator).await;
    let one = issue(&authority, folder.path(), Role::Controller, "one");
    assert!(ask(address, one.client_tls(Role::Operator)).await.is_err());
    task.abort();
}

#[test]
fn only_tls_1_3_is_spoken() {
    install_crypto().unwrap();
    let provider = rustls::crypto::CryptoProvider::get_default().expect("installed above");
    assert!(!provider.cipher_suites.is_empty());
    assert!(
        provider
            .cipher_suites
            .iter()
            .all(|suite| suite.version().version == rustls::ProtocolVersion::TLSv1_3)
    );
    install_crypto().expect("a second call does no harm");
}

#[tokio::test]
async fn a_client_of_tls_1_2_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(&folder.path().join("ca"), "eu-1").unwrap();
    let server = issue(&authority, folder.path(), Role::Controller, "server");
    let (address, task) = serve(&server).await;
    let handshake = |version: &'static rustls::SupportedProtocolVersion| {
        let certificate =
            rustls::pki_types::CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = Role::Controller.server_name("eu-1").try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        tokio::task::spawn_blocking(move || {
            let mut socket = TcpStream::connect(address).unwrap();
            while client.is_handshaking() {
                client.complete_io(&mut socket)?;
            }
            Ok::<_, std::io::Error>(())
        })
    };
    let refused = handshake(&rustls::version::TLS12).await.unwrap().unwrap_err().to_string();
    assert!(refused.contains("ProtocolVersion") || refused.contains("HandshakeFailure"), "{refused}");
    // The same client of TLS 1.3 gets through the handshake; that it has no certificate shows only after it.
    handshake(&rustls::version::TLS13).await.unwrap().unwrap();
    task.abort();
}
