//! The smallest HTTP/1.1 client that can ask an admin endpoint or an extender. One connection per request.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(15);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Status line and headers, as sent.
    pub head: String,
    pub body: String,
}

/// `GET URL`.
///
/// # Errors
/// No answer within 15 s. A status of 500 is an answer.
pub async fn get(url: &str) -> anyhow::Result<Answer> {
    request("GET", url, "").await
}

/// `METHOD URL` with a body; JSON if it looks like it.
///
/// # Errors
/// No answer within 15 s. A status of 500 is an answer.
pub async fn request(method: &str, url: &str, body: &str) -> anyhow::Result<Answer> {
    timeout(DEADLINE, exchange(method, url, body))
        .await
        .with_context(|| format!("{method} {url}: no answer in time"))?
}

async fn exchange(method: &str, url: &str, body: &str) -> anyhow::Result<Answer> {
    let rest = url
        .strip_prefix("http://")
        .with_context(|| format!("{url} is not http"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let kind = if body.starts_with(['{', '[']) {
        "application/json"
    } else {
        "text/plain"
    };
    let length = body.len();
    let mut stream = TcpStream::connect(host)
        .await
        .with_context(|| format!("connect to {host}"))?;
    // HTTP/1.0: the answer ends with the connection and is not sent in chunks.
    let head = format!(
        "{method} /{path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no head")?;
    let status = head.split(' ').nth(1).context("the answer has no status")?;
    ensure!(head.starts_with("HTTP/1."), "not HTTP: {head}");
    Ok(Answer {
        status: status.parse()?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::spawn;

    #[tokio::test]
    async fn request_sends_method_path_and_body_and_returns_all_of_the_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/a/b?c=d", listener.local_addr().unwrap());
        let server = spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = vec![0; 4096];
            let mut length = 0;
            while !seen[..length].ends_with(b"{\"x\":1}") {
                length += stream.read(&mut seen[length..]).await.unwrap();
            }
            stream
                .write_all(b"HTTP/1.0 503 Service Unavailable\r\nX-Y: z\r\n\r\nnot\r\n\r\nyet")
                .await
                .unwrap();
            String::from_utf8(seen[..length].to_vec()).unwrap()
        });
        let answer = request("PUT", &url, "{\"x\":1}").await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "not\r\n\r\nyet"));
        assert!(answer.head.contains("X-Y: z"));
        let seen = server.await.unwrap();
        assert!(
            seen.starts_with("PUT /a/b?c=d HTTP/1.0\r\n") && seen.contains("application/json"),
            "{seen}"
        );
    }
}
