//! One end of a connection, as rustls has it: it takes bytes that came, and gives bytes to be sent.

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{CommonState, Error, ExtractedSecrets};

use crate::record::sealed_bytes;
use crate::secrets::Schedule;

/// One end.
pub(crate) enum End {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// What to do next.
pub(crate) enum Next {
    /// Look again.
    Go,
    /// Send what was encoded, then look again.
    Send,
    /// Nothing happens before more bytes come.
    Receive,
    /// Traffic keys stand, and nothing more is known of what came.
    Done,
    /// The peer has ended its direction in order.
    Closed,
}

impl End {
    pub(crate) fn common(&self) -> &CommonState {
        match self {
            Self::Client(end) => end,
            Self::Server(end) => end,
        }
    }

    /// One step; takes what it used off the front of `incoming`.
    pub(crate) fn step(
        &mut self,
        incoming: &mut Vec<u8>,
        out: &mut Vec<u8>,
        opened: &mut Vec<u8>,
    ) -> Result<Next, Error> {
        let (used, next) = match self {
            Self::Client(end) => take(end.process_tls_records(incoming), out, opened),
            Self::Server(end) => take(end.process_tls_records(incoming), out, opened),
        };
        incoming.drain(..used);
        next
    }

    /// Seals `plain` behind `out`, after a step answered [`Next::Done`].
    pub(crate) fn seal(&mut self, incoming: &mut [u8], plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            Self::Client(end) => seal(end.process_tls_records(incoming), Some(plain), out),
            Self::Server(end) => seal(end.process_tls_records(incoming), Some(plain), out),
        }
    }

    /// Seals `close_notify` behind `out`, after a step answered [`Next::Done`].
    pub(crate) fn close(&mut self, incoming: &mut [u8], out: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            Self::Client(end) => seal(end.process_tls_records(incoming), None, out),
            Self::Server(end) => seal(end.process_tls_records(incoming), None, out),
        }
    }

    /// Gives the traffic keys up: from here on rustls knows their schedule and nothing else.
    pub(crate) fn into_keys(self) -> Result<(ExtractedSecrets, Schedule), Error> {
        match self {
            Self::Client(end) => {
                let (secrets, schedule) = end.dangerous_into_kernel_connection()?;
                Ok((secrets, Schedule::Client(Box::new(schedule))))
            }
            Self::Server(end) => {
                let (secrets, schedule) = end.dangerous_into_kernel_connection()?;
                Ok((secrets, Schedule::Server(Box::new(schedule))))
            }
        }
    }
}

fn take<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    out: &mut Vec<u8>,
    opened: &mut Vec<u8>,
) -> (usize, Result<Next, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let next = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let begin = out.len();
            let mut room = 4096;
            loop {
                out.resize(begin + room, 0);
                match data.encode(&mut out[begin..]) {
                    Ok(bytes) => {
                        out.truncate(begin + bytes);
                        break Ok(Next::Go);
                    }
                    Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                        room = required_size;
                    }
                    Err(EncodeError::AlreadyEncoded) => {
                        out.truncate(begin);
                        break Ok(Next::Go);
                    }
                }
            }
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Next::Send)
        }
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    opened.extend_from_slice(record.payload);
                    discard += record.discard;
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Next::Go),
            }
        },
        Ok(ConnectionState::BlockedHandshake) => Ok(Next::Receive),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Next::Done),
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Next::Closed),
        // Early data is switched off, and whatever is added later is nothing that we asked for.
        Ok(_) => Err(Error::General("a state of TLS that was not asked for".to_owned())),
    };
    (discard, next)
}

/// Seals data, or that none follows.
fn seal<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plain: Option<&[u8]>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let UnbufferedStatus { state, .. } = status;
    let ConnectionState::WriteTraffic(mut traffic) = state? else {
        return Err(Error::General("data before the handshake has ended, or after the end".to_owned()));
    };
    let begin = out.len();
    let mut room = sealed_bytes(plain.map_or(1, <[u8]>::len));
    loop {
        out.resize(begin + room, 0);
        let sealed = match plain {
            Some(plain) => traffic.encrypt(plain, &mut out[begin..]),
            None => traffic.queue_close_notify(&mut out[begin..]),
        };
        match sealed {
            Ok(bytes) => {
                out.truncate(begin + bytes);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                room = required_size;
            }
            Err(EncryptError::EncryptExhausted) => return Err(Error::EncryptError),
        }
    }
}
