//! The bytes that were written to a client and not acknowledged by its system.

use tokio::net::TcpStream;

/// Returns the bytes written to `stream` that the peer has not acknowledged; `None` where the system does not tell.
#[cfg(not(target_os = "linux"))]
pub fn unacknowledged_bytes(_: &TcpStream) -> Option<u32> {
    None
}

/// Returns the bytes written to `stream` that the peer has not acknowledged; `None` where the system does not tell.
///
/// Asks the kernel by [`sock_diag`](https://man7.org/linux/man-pages/man7/sock_diag.7.html): the `ioctl` and the socket option
/// with the same figure are `unsafe` to call.
#[cfg(target_os = "linux")]
pub fn unacknowledged_bytes(stream: &TcpStream) -> Option<u32> {
    linux::ask(stream).ok().flatten()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{Read, Result, Write};
    use std::net::{IpAddr, SocketAddr};

    use socket2::{Domain, Protocol, Socket, Type};
    use tokio::net::TcpStream;

    const AF_NETLINK: i32 = 16;
    const NETLINK_SOCK_DIAG: i32 = 4;
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLM_F_REQUEST: u16 = 1;
    const IPPROTO_TCP: u8 = 6;
    /// `struct nlmsghdr`.
    const HEADER_BYTES: usize = 16;
    /// `struct inet_diag_req_v2`.
    const REQUEST_BYTES: usize = 56;
    /// `idiag_wqueue` in `struct inet_diag_msg`, which follows the header.
    const SEND_QUEUE: usize = HEADER_BYTES + 60;

    pub fn ask(stream: &TcpStream) -> Result<Option<u32>> {
        let mut socket =
            Socket::new(Domain::from(AF_NETLINK), Type::DGRAM.nonblocking(), Some(Protocol::from(NETLINK_SOCK_DIAG)))?;
        socket.write_all(&request(stream.local_addr()?, stream.peer_addr()?))?;
        let mut reply = [0; 1024];
        let length = socket.read(&mut reply)?;
        // The kernel reports an error by a message of another type.
        let is_found = reply[4..6] == SOCK_DIAG_BY_FAMILY.to_ne_bytes();
        let queue = reply[..length].get(SEND_QUEUE..SEND_QUEUE + 4).and_then(|bytes| bytes.try_into().ok());
        Ok(queue.filter(|_| is_found).map(u32::from_ne_bytes))
    }

    fn request(local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
        let family: u8 = if local.is_ipv4() { 2 } else { 10 };
        let length = (HEADER_BYTES + REQUEST_BYTES) as u32;
        let mut request = Vec::with_capacity(length as usize);
        request.extend(length.to_ne_bytes());
        request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        request.extend(NLM_F_REQUEST.to_ne_bytes());
        // Sequence number and port are not needed: the socket is used for a single reply.
        request.extend([0; 8]);
        request.extend([family, IPPROTO_TCP, 0, 0]);
        // Connections in every state.
        request.extend(u32::MAX.to_ne_bytes());
        request.extend(local.port().to_be_bytes());
        request.extend(peer.port().to_be_bytes());
        for address in [local.ip(), peer.ip()] {
            match address {
                IpAddr::V4(address) => {
                    request.extend(address.octets());
                    request.extend([0; 12]);
                }
                IpAddr::V6(address) => request.extend(address.octets()),
            }
        }
        // On any interface, with any cookie.
        request.extend([0; 4]);
        request.extend([0xff; 8]);
        request
    }

    #[cfg(test)]
    mod tests {
        use std::time::Duration;

        use tokio::io::AsyncReadExt;
        use tokio::net::{TcpListener, TcpStream};

        use super::super::unacknowledged_bytes;

        #[tokio::test]
        async fn bytes_that_the_client_has_not_taken_are_counted_until_it_takes_them() {
            for address in ["127.0.0.1:0", "[::1]:0"] {
                let listener = match TcpListener::bind(address).await {
                    // A machine without IPv6.
                    Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable && address.contains("::1") => {
                        continue;
                    }
                    bound => bound.unwrap(),
                };
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                let (server, _) = listener.accept().await.unwrap();
                assert_eq!(unacknowledged_bytes(&server), Some(0), "{address}");
                let mut written = 0;
                while let Ok(bytes) = server.try_write(&[0; 64 * 1024]) {
                    written += bytes;
                }
                assert!(unacknowledged_bytes(&server).unwrap() > 0, "{address}");
                client.read_exact(&mut vec![0; written]).await.unwrap();
                while unacknowledged_bytes(&server) != Some(0) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    }
}
