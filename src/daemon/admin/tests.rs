//! Sockets of an API that responds to everything.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

struct Agreeable;

impl Api for Agreeable {
    fn configure(&self, _: &AdminSettings) {}

    fn call(&self, _: Caller, _: Request<Incoming>) -> Pending {
        Box::pin(async { Response::new("yes".to_owned()) })
    }
}

fn over_tcp(tls: bool) -> AdminSettings {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    AdminSettings { socket: ControlSocket::Off, listen: vec![free], tls, ..AdminSettings::default() }
}

/// What a plain HTTP request gets.
async fn plain(addr: SocketAddr) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response).await;
    String::from_utf8_lossy(&response).into_owned()
}

/// Tokens are never served in the clear where TLS is configured, even while no certificate can be used.
#[tokio::test]
async fn without_a_certificate_nobody_is_served_instead_of_everyone_in_the_clear() {
    let mut sockets = AdminSockets::new(Arc::new(Agreeable));
    let mut settings = over_tcp(false);
    sockets.apply(sockets.open(&settings, None, &[]).unwrap(), None).unwrap();
    assert!(plain(settings.listen[0]).await.ends_with("yes"));

    settings.tls = true;
    let error = sockets.open(&settings, None, &[]).err().unwrap().to_string();
    assert!(error.contains("no certificate that can be used"), "{error}");
    assert!(plain(settings.listen[0]).await.ends_with("yes"), "nothing has changed");

    sockets.server.secure(Security::of(settings.tls, None));
    sockets.settings = settings.clone();
    assert_eq!(plain(settings.listen[0]).await, "");
    sockets.use_certificates(None);
    assert_eq!(plain(settings.listen[0]).await, "");
    assert!(
        sockets.open(&settings, None, &[]).is_ok(),
        "what is open and closed to all holds up no other change"
    );
}

/// Whoever has removed the socket gets it back with a reload.
#[tokio::test]
async fn a_control_socket_that_has_disappeared_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let settings = AdminSettings { socket: ControlSocket::At(path.clone()), ..AdminSettings::default() };
    let mut sockets = AdminSockets::new(Arc::new(Agreeable));
    sockets.apply(sockets.open(&settings, None, &[]).unwrap(), None).unwrap();
    assert!(sockets.open(&settings, None, &[]).unwrap().control.is_none(), "it stays");
    std::fs::remove_file(&path).unwrap();
    sockets.apply(sockets.open(&settings, None, &[]).unwrap(), None).unwrap();
    assert!(UnixStream::connect(&path).await.is_ok());
}

/// What turns out when everything else is applied holds up nothing: the socket in use stays, and the next reload tries again.
#[tokio::test]
async fn a_control_socket_that_cannot_take_its_name_leaves_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| {
        let socket = ControlSocket::At(folder.path().join(name));
        AdminSettings { socket, ..AdminSettings::default() }
    };
    let mut sockets = AdminSockets::new(Arc::new(Agreeable));
    sockets.apply(sockets.open(&at("one"), None, &[]).unwrap(), None).unwrap();
    let opened = sockets.open(&at("two"), None, &[]).unwrap();
    std::fs::create_dir(folder.path().join("two")).unwrap();
    assert!(sockets.apply(opened, None).is_err());
    assert!(UnixStream::connect(folder.path().join("one")).await.is_ok());
    std::fs::remove_dir(folder.path().join("two")).unwrap();
    sockets.apply(sockets.open(&at("two"), None, &[]).unwrap(), None).unwrap();
    assert!(UnixStream::connect(folder.path().join("two")).await.is_ok());
    assert!(UnixStream::connect(folder.path().join("one")).await.is_err());
}

/// One reload may give the address of a listener for metrics to the admin API.
#[tokio::test]
async fn an_address_that_another_listener_leaves_is_taken_over() {
    let settings = over_tcp(false);
    let address = settings.listen[0];
    let leaving = http::open(address, false).unwrap();
    let sockets = AdminSockets::new(Arc::new(Agreeable));
    assert!(sockets.open(&settings, None, &[]).is_err());
    assert!(sockets.open(&settings, None, &[address]).is_ok());
    drop(leaving);
}
