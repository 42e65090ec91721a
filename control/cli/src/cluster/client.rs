//! Asks the controllers, whichever of them can answer.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use nova_api::cluster::check_reply::Reply;
use nova_api::cluster::cluster_client::ClusterClient;
use nova_api::cluster::{
    CheckRequest, CloseDeviceRequest, DrainRequest, DrainResponse, ForgetDeviceRequest, ForgetDeviceResponse,
    OpenDevicesRequest, StatusRequest, StatusResponse,
};
use nova_security::{Credentials, Role};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::dev::config::{OPERATOR, operator_folder};
use crate::dev::region::Region;
use crate::exit::Stop;

/// Metadata of a refusal: address of the leader.
const LEADER_KEY: &str = "nova-leader";
/// How long one controller may take to answer.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// A check that says nothing this long has broken off; a member that is silent takes 15 seconds.
const QUIET_MAX: Duration = Duration::from_secs(60);
/// Largest answer: the map of a large region.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Connections to all controllers, made when they are first used.
pub(crate) struct Controllers {
    runtime: Runtime,
    channels: Vec<(String, Channel)>,
    /// Whom to ask first.
    next: usize,
}

impl Controllers {
    /// The controllers of a region, to be asked as its operator.
    pub(crate) fn of(region: &Region) -> anyhow::Result<Self> {
        let credentials = Credentials::load(&operator_folder(&region.folder), OPERATOR)
            .context("read the operator's certificate")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start the runtime")?;
        let entered = runtime.enter();
        let channels = region
            .controller_addresses()
            .into_iter()
            .map(|address| {
                let endpoint = Endpoint::from_shared(format!("https://{address}"))
                    .with_context(|| format!("controller address {address:?}"))?
                    .tls_config(credentials.client_tls(Role::Controller))
                    .context("set up TLS towards the controllers")?
                    .connect_timeout(ATTEMPT)
                    .tcp_nodelay(true);
                Ok((address, endpoint.connect_lazy()))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        drop(entered);
        Ok(Self { runtime, channels, next: 0 })
    }

    /// What the controllers know. Asks one after the other until one answers, for `patience` at most.
    pub(super) fn status(&mut self, patience: Duration) -> anyhow::Result<StatusResponse> {
        let status = async |channel| cluster(channel).status(StatusRequest { stored: false }).await;
        self.ask(patience, status)
    }

    /// The same, and what files have in each group.
    pub(super) fn status_with_stored(&mut self, patience: Duration) -> anyhow::Result<StatusResponse> {
        let status = async |channel| cluster(channel).status(StatusRequest { stored: true }).await;
        self.ask(patience, status)
    }

    /// Lets the leading controller compare the file metadata with what is stored; gives `each` reply to a function as
    /// it comes. It may take `patience` until it begins, and [`QUIET_MAX`] between two replies.
    pub(super) fn check(&mut self, patience: Duration, mut each: impl FnMut(Reply)) -> anyhow::Result<()> {
        let check = async |channel| cluster(channel).check(CheckRequest {}).await;
        let mut replies = self.ask(patience, check)?;
        self.runtime.block_on(async {
            loop {
                match tokio::time::timeout(QUIET_MAX, replies.message()).await {
                    Ok(Ok(Some(reply))) => reply.reply.into_iter().for_each(&mut each),
                    Ok(Ok(None)) => return Ok(()),
                    Ok(Err(refusal)) => {
                        return Err(Stop::unavailable(format!("the check broke off: {}", said(&refusal))));
                    }
                    Err(_) => {
                        return Err(Stop::unavailable(
                            "the check broke off: the controller says nothing any more",
                        ));
                    }
                }
            }
        })
    }

    /// Forgets a device.
    pub(super) fn forget_device(
        &mut self,
        request: &ForgetDeviceRequest,
        patience: Duration,
    ) -> anyhow::Result<ForgetDeviceResponse> {
        self.ask(patience, async |channel| cluster(channel).forget_device(request.clone()).await)
    }

    /// Has a host open the devices of its configuration that are not open; answers the number of the order.
    pub(super) fn open_devices(&mut self, host: &str, patience: Duration) -> anyhow::Result<u64> {
        let request = OpenDevicesRequest { name: host.to_owned() };
        let open = async |channel| cluster(channel).open_devices(request.clone()).await;
        self.ask(patience, open).map(|answer| answer.order)
    }

    /// Takes a device out of service and has its host close it; answers the number of the order.
    pub(super) fn close_device(
        &mut self,
        host: &str,
        device: &[u8],
        patience: Duration,
    ) -> anyhow::Result<u64> {
        let request = CloseDeviceRequest { name: host.to_owned(), device: device.to_vec().into() };
        let close = async |channel| cluster(channel).close_device(request.clone()).await;
        self.ask(patience, close).map(|answer| answer.order)
    }

    /// Begins or ends the drain of a host; the same again changes nothing.
    pub(super) fn drain(
        &mut self,
        request: &DrainRequest,
        patience: Duration,
    ) -> anyhow::Result<DrainResponse> {
        self.ask(patience, async |channel| cluster(channel).drain(request.clone()).await)
    }

    /// Asks one controller after the other until one answers, for `patience` at most.
    pub(crate) fn ask<T>(
        &mut self,
        patience: Duration,
        ask: impl AsyncFn(Channel) -> Result<tonic::Response<T>, Status>,
    ) -> anyhow::Result<T> {
        let begun = Instant::now();
        let mut asked = 0;
        loop {
            let left = patience.saturating_sub(begun.elapsed());
            let (address, channel) = &self.channels[self.next];
            let channel = channel.clone();
            let answer = self.runtime.block_on(async {
                match tokio::time::timeout(ATTEMPT.min(left), ask(channel)).await {
                    Ok(answer) => answer.map(tonic::Response::into_inner),
                    Err(_) => Err(Status::deadline_exceeded("no answer in time")),
                }
            });
            let refusal = match answer {
                Ok(answer) => return Ok(answer),
                Err(refusal) => refusal,
            };
            asked += 1;
            if refusal.code() == Code::NotFound {
                return Err(Stop::not_found(refusal.message()));
            }
            if !may_pass(refusal.code()) {
                anyhow::bail!("controller {address} refuses: {}", refusal.message());
            }
            if begun.elapsed() + PAUSE >= patience {
                return Err(Stop::unavailable(format!(
                    "no controller answered (the last of {asked} attempts, {address}: {}): `nova dev status` shows \
                     which run",
                    said(&refusal)
                )));
            }
            self.next = after(self.next, &refusal, &self.channels);
            // All were asked once without a pause: one that is down must not make the others wait.
            if asked >= self.channels.len() {
                std::thread::sleep(PAUSE);
            }
        }
    }
}

fn cluster(channel: Channel) -> ClusterClient<Channel> {
    ClusterClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// Whom to ask after this refusal: the leader that it names, else the next.
fn after<T>(now: usize, refusal: &Status, controllers: &[(String, T)]) -> usize {
    let leader = refusal.metadata().get(LEADER_KEY).and_then(|value| value.to_str().ok());
    leader
        .and_then(|leader| controllers.iter().position(|(address, _)| address == leader))
        .unwrap_or((now + 1) % controllers.len())
}

/// Whether another controller, or the same one later, may answer.
fn may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::FailedPrecondition
            | Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
    )
}

/// The refusal with what lies below it: tonic's own words for a connection are "transport error".
fn said(refusal: &Status) -> String {
    let mut text = refusal.message().to_owned();
    let mut below = std::error::Error::source(refusal);
    while let Some(cause) = below {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        below = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::config::{Plan, lay_out};
    use crate::exit::{Kind, kind_of};

    #[test]
    fn the_named_leader_is_asked_next_else_the_next_in_turn() {
        let controllers = [("a:1".to_owned(), ()), ("b:2".to_owned(), ()), ("c:3".to_owned(), ())];
        let mut refusal = Status::failed_precondition("not me");
        assert_eq!(after(2, &refusal, &controllers), 0);
        refusal.metadata_mut().insert(LEADER_KEY, "b:2".parse().unwrap());
        assert_eq!(after(2, &refusal, &controllers), 1);
        refusal.metadata_mut().insert(LEADER_KEY, "elsewhere:9".parse().unwrap());
        assert_eq!(after(0, &refusal, &controllers), 1);
    }

    #[test]
    fn controllers_that_are_down_are_unavailable_not_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan {
            folder: folder.path().into(),
            controllers: 3,
            storage: 3,
            compute: 0,
            devices: 1,
            device_mib: 256,
            scrub_mib: None,
            profile: nova_profile::Profile::built_in_text("ci").unwrap().into(),
            bins: "/opt/nova".into(),
        };
        let region = lay_out(&plan).unwrap();
        let mut controllers = Controllers::of(&region).unwrap();
        let error = controllers.status(Duration::from_millis(300)).unwrap_err();
        assert_eq!(kind_of(&error), Kind::Unavailable);
        assert!(error.to_string().contains("nova dev status"), "{error}");
    }
}
