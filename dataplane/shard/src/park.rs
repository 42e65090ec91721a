//! Waits for a descriptor that glommio does not know.
//!
//! glommio 0.9.0 has no public wait for a descriptor. Its TCP stream has one inside: it asks its ring whether the
//! descriptor is readable before it receives. An eventfd is no socket, so the receive then fails, and by that the
//! descriptor is readable. This leans on the inside of exactly that version, hence the pinned dependency, and the test
//! below that fails should it change.

use std::{io, net::TcpStream, os::fd::BorrowedFd};

use futures_lite::AsyncReadExt;

/// Waits until `event` is readable; reads nothing from it.
///
/// # Cancel safety
/// Safe: nothing is consumed.
pub(crate) async fn readable(event: BorrowedFd<'_>) -> io::Result<()> {
    let socket = socket2_park::Socket::from(TcpStream::from(event.try_clone_to_owned()?));
    let mut stream = glommio::net::TcpStream::from(socket);
    match stream.read(&mut [0; 8]).await {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOTSOCK.raw_os_error()) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("an eventfd took part in a conversation")),
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::{os::fd::AsFd, time::Instant};

    use rustix::event::{EventfdFlags, eventfd};

    #[test]
    fn an_eventfd_is_waited_for_and_not_read() {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
        let far = event.try_clone().unwrap();
        let started = Instant::now();
        let writer = std::thread::spawn(move || {
            for _ in 0..5 {
                std::thread::sleep(Duration::from_millis(10));
                rustix::io::write(&far, &1u64.to_le_bytes()).unwrap();
            }
        });
        let executor = glommio::LocalExecutorBuilder::default().make().unwrap();
        let total = executor.run(async move {
            let mut total = 0;
            while total < 5 {
                super::readable(event.as_fd()).await.unwrap();
                let mut count = [0; 8];
                rustix::io::read(&event, &mut count).expect("readable, as was said");
                total += u64::from_le_bytes(count);
            }
            total
        });
        writer.join().unwrap();
        assert_eq!(total, 5);
        assert!(started.elapsed() >= Duration::from_millis(50), "it waited");
    }
}
