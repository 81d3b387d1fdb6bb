//! A TCP proxy between two parts that delays, cuts and swallows: a bad network on loopback.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

use crate::wait::spawn;

/// What the network does to every connection, open ones included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weather {
    /// Passes everything on at once.
    #[default]
    Fine,
    /// Each piece of data arrives this much later.
    Slow(Duration),
    /// Takes connections and data, and passes nothing on: the peer seems to hang.
    Swallow,
    /// Ends every connection and refuses new ones.
    Cut,
}

/// A proxy on a free port of loopback. Ends with its connections when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    weather: Arc<watch::Sender<Weather>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens, and forwards to `target`.
    pub async fn to(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let weather = Arc::new(watch::Sender::new(Weather::Fine));
        let accepting = spawn(accept(listener, target, Arc::clone(&weather)));
        Ok(Self {
            address,
            weather,
            accepting,
        })
    }

    /// Where clients connect.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the weather for open and for new connections.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.weather.send_replace(Weather::Cut);
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, weather: Arc<watch::Sender<Weather>>) {
    while let Ok((client, _)) = listener.accept().await {
        if *weather.borrow() == Weather::Cut {
            continue;
        }
        let weather = weather.subscribe();
        spawn(async move {
            let Ok(server) = TcpStream::connect(target).await else {
                return;
            };
            let (client_read, client_write) = client.into_split();
            let (server_read, server_write) = server.into_split();
            tokio::select! {
                () = pump(client_read, server_write, weather.clone()) => {}
                () = pump(server_read, client_write, weather) => {}
            }
        });
    }
}

/// One direction of one connection, until either side or the weather ends it.
async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
) {
    let mut buffer = vec![0_u8; 16 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = weather.wait_for(|weather| *weather == Weather::Cut) => return,
        };
        let Ok(count @ 1..) = read else { return };
        let now = *weather.borrow();
        if let Weather::Slow(delay) = now {
            sleep(delay).await;
        }
        // What came in while it swallows is held back, not lost: TCP loses nothing either.
        let passes = weather
            .wait_for(|weather| *weather != Weather::Swallow)
            .await
            .map(|weather| *weather);
        if matches!(passes, Err(_) | Ok(Weather::Cut)) || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    /// An echo server behind a proxy, and a connection through it.
    async fn echo() -> (Proxy, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let target = listener.local_addr().unwrap();
        spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ended = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let proxy = Proxy::to(target).await.unwrap();
        let stream = TcpStream::connect(proxy.address()).await.unwrap();
        (proxy, stream)
    }

    async fn ping(stream: &mut TcpStream) -> std::io::Result<u8> {
        stream.write_all(b"x").await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn fine_weather_passes_everything() {
        let (_proxy, mut stream) = echo().await;
        assert_eq!(ping(&mut stream).await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn a_slow_network_delays_both_ways() {
        let (proxy, mut stream) = echo().await;
        proxy.set(Weather::Slow(Duration::from_millis(60)));
        let before = Instant::now();
        assert_eq!(ping(&mut stream).await.unwrap(), b'x');
        assert!(before.elapsed() >= Duration::from_millis(120), "{:?}", before.elapsed());
    }

    #[tokio::test]
    async fn a_swallowing_network_hangs_and_later_delivers() {
        let (proxy, mut stream) = echo().await;
        proxy.set(Weather::Swallow);
        assert!(timeout(Duration::from_millis(100), ping(&mut stream)).await.is_err());
        proxy.set(Weather::Fine);
        assert_eq!(
            timeout(Duration::from_secs(5), stream.read_u8())
                .await
                .unwrap()
                .unwrap(),
            b'x'
        );
    }

    #[tokio::test]
    async fn a_cut_ends_open_connections_and_refuses_new_ones_until_it_is_mended() {
        let (proxy, mut stream) = echo().await;
        assert_eq!(ping(&mut stream).await.unwrap(), b'x');
        proxy.set(Weather::Cut);
        assert!(
            timeout(Duration::from_secs(5), ping(&mut stream))
                .await
                .unwrap()
                .is_err()
        );
        let mut second = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(
            timeout(Duration::from_secs(5), ping(&mut second))
                .await
                .unwrap()
                .is_err()
        );
        proxy.set(Weather::Fine);
        let mut third = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(
            timeout(Duration::from_secs(5), ping(&mut third))
                .await
                .unwrap()
                .unwrap(),
            b'x'
        );
    }
}
