//! HTTP as the real service's container speaks it: its limits, its pages, its connections. Knows no route.
//!
//! Written here because no library has these limits and these answers. HTTP/2 in clear text (prior knowledge) goes to a
//! library, with the limits of that.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Fake,
    faults::Outcome,
    message::{Answer, Request},
};

mod h2;
mod head;

use head::{Head, Parsed};

/// A connection that says nothing is closed then.
const IDLE: Duration = Duration::from_mins(1);
/// The last answer of a connection.
const MOST_ANSWERS: u32 = 100;
/// The service takes what comes (30 MB were seen); this keeps a test's machine whole.
const LONGEST_BODY: usize = 64 << 20;
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves one connection to its end.
pub(super) async fn serve(mut stream: TcpStream, fake: Arc<Fake>, stop: CancellationToken) {
    // A closed or broken connection is the client's business.
    let served = async {
        if is_http2(&stream).await? {
            h2::serve(stream, fake).await;
            return Ok(());
        }
        serve_http1(&mut stream, &fake).await
    };
    drop(stop.run_until_cancelled(served).await);
}

async fn is_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; HTTP2.len()];
    loop {
        let Ok(peeked) = timeout(IDLE, stream.peek(&mut start)).await else {
            return Ok(false);
        };
        let count = peeked?;
        if count == 0 || start[..count] != HTTP2[..count] {
            return Ok(false);
        }
        if count == HTTP2.len() {
            return Ok(true);
        }
        // Part of the preface: the rest is on its way.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn serve_http1(stream: &mut TcpStream, fake: &Fake) -> io::Result<()> {
    let mut buffer = Vec::new();
    for answered in 1..=MOST_ANSWERS {
        let Some(head) = read_head(stream, &mut buffer).await? else {
            return Ok(());
        };
        let (mut request, keeps) = match head {
            Ok(head) => {
                if head.expects_continue {
                    stream.write_all(b"HTTP/1.1 100 \r\n\r\n").await?;
                }
                let Some(body) = read_body(stream, &mut buffer, &head).await? else {
                    return write(stream, fake, "GET", Answer::container(), true).await;
                };
                let mut request = head.request;
                request.body = body;
                (request, head.keeps_connection)
            }
            Err(()) => return write(stream, fake, "GET", Answer::container(), true).await,
        };
        let is_last = answered == MOST_ANSWERS || !keeps;
        let method = std::mem::take(&mut request.method);
        request.method.clone_from(&method);
        match fake.answer(request).await {
            Outcome::Answer(answer) => write(stream, fake, &method, answer, is_last).await?,
            Outcome::Hang => return std::future::pending().await,
            Outcome::Close => return Ok(()),
        }
        if is_last {
            return Ok(());
        }
    }
    Ok(())
}

/// `None`: the client is gone or was silent for too long. `Err`: not HTTP, or beyond a limit.
async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Result<Head, ()>>> {
    loop {
        match Head::parse(buffer) {
            Parsed::Head(head, length) => {
                buffer.drain(..length);
                return Ok(Some(Ok(*head)));
            }
            Parsed::Bad => return Ok(Some(Err(()))),
            Parsed::More => {}
        }
        let Ok(read) = timeout(IDLE, stream.read_buf(buffer)).await else {
            return Ok(None);
        };
        if read? == 0 {
            return Ok(None);
        }
    }
}

/// `None`: the body is no body.
async fn read_body(stream: &mut TcpStream, buffer: &mut Vec<u8>, head: &Head) -> io::Result<Option<Vec<u8>>> {
    if head.is_chunked {
        return read_chunks(stream, buffer).await;
    }
    if head.length > LONGEST_BODY {
        return Ok(None);
    }
    fill(stream, buffer, head.length).await?;
    Ok(Some(buffer.drain(..head.length).collect()))
}

async fn read_chunks(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let line = loop {
            if let Some(end) = buffer.windows(2).position(|two| two == b"\r\n") {
                break buffer.drain(..end + 2).collect::<Vec<u8>>();
            }
            let so_far = buffer.len();
            fill(stream, buffer, so_far + 1).await?;
        };
        let line = String::from_utf8_lossy(&line);
        let size = line.split(';').next().unwrap_or_default().trim();
        let Ok(size) = usize::from_str_radix(size, 16) else {
            return Ok(None);
        };
        if body.len() + size > LONGEST_BODY {
            return Ok(None);
        }
        fill(stream, buffer, size + 2).await?;
        body.extend(buffer.drain(..size));
        buffer.drain(..2);
        if size == 0 {
            return Ok(Some(body));
        }
    }
}

async fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>, length: usize) -> io::Result<()> {
    while buffer.len() < length {
        let read = timeout(IDLE, stream.read_buf(buffer)).await;
        if read.unwrap_or(Ok(0))? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

async fn write(stream: &mut TcpStream, fake: &Fake, method: &str, answer: Answer, is_last: bool) -> io::Result<()> {
    let Answer { status, headers, body } = answer;
    let mut text = format!("HTTP/1.1 {status} \r\n");
    let mut header = |name: &str, value: &str| {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
        text.push_str("\r\n");
    };
    for (name, value) in &headers {
        header(name, value);
    }
    header("Content-Length", &body.len().to_string());
    header("Date", &super::time::http_date(fake.now_unix_ms()));
    if is_last {
        header("Connection", "close");
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    if method != "HEAD" {
        bytes.extend_from_slice(&body);
    }
    stream.write_all(&bytes).await?;
    if is_last {
        stream.shutdown().await?;
    }
    Ok(())
}
