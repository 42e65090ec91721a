//! A handshake over a lane: rustls decides, this carries its bytes.

use nova_buf::{DmaBuf, Pool};
use nova_device::Lane;
use rustls::Error;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;

use crate::end::{End, Next};
use crate::{ALPN, HANDSHAKE_BYTES_MAX, PeerName, TlsConfig, TlsError};

/// Received at once; a flight with certificates is some 2 KiB.
const RECEIVE_BYTES: usize = 4096;

/// What a handshake gives.
pub(crate) struct Shaken {
    pub(crate) peer: PeerName,
    /// rustls, which has the traffic keys.
    pub(crate) end: End,
    /// Plaintext that came along with the last flight.
    pub(crate) early: Vec<u8>,
    /// Sealed bytes behind it.
    pub(crate) rest: Vec<u8>,
}

/// Shakes hands as the end that dialled.
pub(crate) async fn connect(lane: &impl Lane, config: &TlsConfig, memory: &Pool) -> Result<Shaken, TlsError> {
    // Names are judged by who called, from the certificate; this one is not sent.
    let name = ServerName::try_from("novabulk.invalid").expect("a name");
    let end = UnbufferedClientConnection::new(config.client.clone(), name)?;
    shake(lane, End::Client(Box::new(end)), memory).await
}

/// Shakes hands as the end that was dialled.
pub(crate) async fn accept(lane: &impl Lane, config: &TlsConfig, memory: &Pool) -> Result<Shaken, TlsError> {
    let end = UnbufferedServerConnection::new(config.server.clone())?;
    shake(lane, End::Server(Box::new(end)), memory).await
}

async fn shake(lane: &impl Lane, mut end: End, memory: &Pool) -> Result<Shaken, TlsError> {
    let (mut incoming, mut out, mut early) = (Vec::new(), Vec::new(), Vec::new());
    let mut buffer = Some(room(memory)?);
    let mut received = 0;
    loop {
        match end.step(&mut incoming, &mut out, &mut early) {
            Ok(Next::Go) => {}
            Ok(Next::Send) => {
                lane.send(&out, None).await?;
                out.clear();
            }
            Ok(Next::Receive) => {
                let into = buffer.take().expect("back after every receive");
                let (count, back) = lane.recv_some(into, 1).await;
                let count = count?;
                received += count;
                if received > HANDSHAKE_BYTES_MAX {
                    return Err(TlsError::TooLong);
                }
                incoming.extend_from_slice(&back[..count]);
                buffer = Some(back);
            }
            Ok(Next::Done) => break,
            Ok(Next::Closed) => return Err(Error::HandshakeNotComplete.into()),
            Err(error) => {
                tell(lane, end, &mut incoming, &mut out).await;
                return Err(error.into());
            }
        }
    }
    // What is left to send, such as a client's last flight.
    if !out.is_empty() {
        lane.send(&out, None).await?;
    }
    let spoken = end.common().alpn_protocol().unwrap_or_default();
    if spoken != ALPN {
        return Err(TlsError::Protocol { spoken: String::from_utf8_lossy(spoken).into_owned() });
    }
    let certificate = end.common().peer_certificates().and_then(<[_]>::first);
    let peer = PeerName::of_certificate(certificate.ok_or(TlsError::Nameless("was not shown"))?)?;
    Ok(Shaken { peer, end, early, rest: incoming })
}

/// Sends the alert that says why, so that the other end need not guess; it may be gone.
async fn tell(lane: &impl Lane, mut end: End, incoming: &mut Vec<u8>, out: &mut Vec<u8>) {
    // Only what is queued: looking at the same bytes again would find the same fault again.
    if end.common().wants_write() && end.step(incoming, out, &mut Vec::new()).is_ok() && !out.is_empty() {
        let _ = lane.send(out, None).await;
    }
}

fn room(memory: &Pool) -> Result<DmaBuf, TlsError> {
    memory.try_take(RECEIVE_BYTES).map_err(|_| TlsError::Busy("no memory for another TLS connection"))
}
