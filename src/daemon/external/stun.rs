//! Asks a STUN server how it sees a relayed address (RFC 8489 section 3: a Binding request).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::dns;
use crate::daemon::random;
use crate::wire::{Class, Encoder, Message, Method, TransactionId, attribute};

/// How long each request waits for its response, as RFC 8489 section 6.2.1 has it, but fewer times.
const WAITS: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(1)];

/// The address and port of a socket on `local` as `server`, `host:port`, sees it, and the port of that socket.
///
/// # Errors
/// There is no answer.
pub async fn ask(local: IpAddr, server: &str) -> Result<(SocketAddr, u16), String> {
    let failed = |why: String| format!("STUN server {server}: {why}");
    let found = dns::sockets(server).await.map_err(failed)?;
    let server = found.into_iter().find(|found| found.is_ipv4() == local.is_ipv4());
    let family = if local.is_ipv4() { "IPv4" } else { "IPv6" };
    let server = server.ok_or_else(|| failed(format!("it has no {family} address")))?;
    exchange(local, server).await.map_err(failed)
}

async fn exchange(local: IpAddr, server: SocketAddr) -> Result<(SocketAddr, u16), String> {
    let io = |error: std::io::Error| error.to_string();
    let socket = UdpSocket::bind(SocketAddr::new(local, 0)).await.map_err(io)?;
    // Only its packets are received, and ICMP errors are.
    socket.connect(server).await.map_err(io)?;
    let port = socket.local_addr().map_err(io)?.port();
    let id = TransactionId(random::bytes().map_err(|error| error.to_string())?);
    let mut request = Encoder::new(Class::Request, Method::Binding, id);
    request.fingerprint();
    let request = request.finish();
    let mut buffer = [0; 1500];
    let mut error = None;
    for wait in WAITS {
        let end = Instant::now() + wait;
        if let Err(failure) = socket.send(&request).await {
            error = Some(failure);
        }
        while let Ok(received) = timeout_at(end, socket.recv(&mut buffer)).await {
            match received {
                Ok(len) => {
                    if let Some(mapped) = mapped(&buffer[..len], id, local) {
                        return Ok((mapped, port));
                    }
                }
                Err(failure) => {
                    error = Some(failure);
                    tokio::time::sleep_until(end).await;
                }
            }
        }
    }
    Err(error.map_or("no response".to_owned(), |error| error.to_string()))
}

/// The mapped address of a success response to this transaction.
fn mapped(bytes: &[u8], id: TransactionId, local: IpAddr) -> Option<SocketAddr> {
    let message = Message::parse(bytes).ok()?;
    if (message.class(), message.method(), message.transaction_id()) != (Class::Success, Method::Binding, id)
    {
        return None;
    }
    let mapped = message.attribute(attribute::XOR_MAPPED_ADDRESS)?.xor_address().ok()?;
    (mapped.is_ipv4() == local.is_ipv4()).then_some(mapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8489 §6.3.3: a response belongs to a request if it has its transaction ID.
    #[tokio::test]
    async fn only_the_response_to_the_request_counts() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = server.local_addr().unwrap().to_string();
        let serve = tokio::spawn(async move {
            let mut buffer = [0; 1500];
            let (len, client) = server.recv_from(&mut buffer).await.unwrap();
            let id = Message::parse(&buffer[..len]).unwrap().transaction_id();
            for (id, mapped) in [
                (TransactionId([7; 12]), "203.0.113.1:1"),
                (id, "[2001:db8::1]:1"),
                (id, "203.0.113.2:2"),
                (id, "203.0.113.3:3"),
            ] {
                let mut response = Encoder::new(Class::Success, Method::Binding, id);
                response.xor_address(attribute::XOR_MAPPED_ADDRESS, mapped.parse().unwrap());
                server.send_to(&response.finish(), client).await.unwrap();
            }
            client.port()
        });
        let (mapped, port) = ask("127.0.0.1".parse().unwrap(), &at).await.unwrap();
        assert_eq!((mapped, port), ("203.0.113.2:2".parse().unwrap(), serve.await.unwrap()));
    }

    #[tokio::test]
    async fn a_silent_server_is_an_error_in_bounded_time() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = silent.local_addr().unwrap().to_string();
        let error = ask("127.0.0.1".parse().unwrap(), &at).await.unwrap_err();
        assert_eq!(error, format!("STUN server {at}: no response"));
    }
}
