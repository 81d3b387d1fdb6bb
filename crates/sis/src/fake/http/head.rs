//! The head of an HTTP/1.1 request, parsed as strictly and as generously as the container does.

use super::Request;

/// Of the request line, and of all headers together.
const LONGEST: usize = 8 << 10;
const MOST_HEADERS: usize = 100;

/// A request without its body.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) request: Request,
    pub(super) length: usize,
    pub(super) is_chunked: bool,
    pub(super) keeps_connection: bool,
    pub(super) expects_continue: bool,
}

pub(super) enum Parsed {
    /// With the number of bytes that it takes.
    Head(Box<Head>, usize),
    /// Not yet all there.
    More,
    /// Not HTTP, or beyond a limit: the container's own 400.
    Bad,
}

impl Head {
    pub(super) fn parse(bytes: &[u8]) -> Parsed {
        // A client may send an empty line before its request.
        let start = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let rest = &bytes[start..];
        let Some(line_end) = rest.iter().position(|byte| *byte == b'\n') else {
            return if rest.len() > LONGEST {
                Parsed::Bad
            } else {
                Parsed::More
            };
        };
        if line_end > LONGEST {
            return Parsed::Bad;
        }
        let Some(headers_end) = end_of_headers(&rest[line_end + 1..]) else {
            return if rest.len() - line_end > LONGEST + 4 {
                Parsed::Bad
            } else {
                Parsed::More
            };
        };
        let headers = &rest[line_end + 1..=line_end + headers_end];
        if headers.len() > LONGEST {
            return Parsed::Bad;
        }
        match Self::of(&rest[..line_end], headers) {
            Some(head) => Parsed::Head(Box::new(head), start + line_end + 1 + headers_end),
            None => Parsed::Bad,
        }
    }

    fn of(line: &[u8], headers: &[u8]) -> Option<Self> {
        let line = str::from_utf8(line).ok()?.trim_end_matches('\r');
        let mut words = line.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        let is_token = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.!#$&'*+^`|~".contains(&b))
        };
        if words.next().is_some() || !is_token(method) || !target.starts_with(['/', '*', 'h']) {
            return None;
        }
        let is_old = match version {
            "HTTP/1.1" => false,
            "HTTP/1.0" => true,
            _ => return None,
        };
        let mut request = Request {
            method: method.to_owned(),
            target: absolute(target).to_owned(),
            ..Request::default()
        };
        // Headers are Latin-1.
        let text: String = headers.iter().map(|byte| char::from(*byte)).collect();
        for line in text
            .split('\n')
            .map(|line| line.trim_end_matches('\r'))
            .filter(|line| !line.is_empty())
        {
            let (name, value) = line.split_once(':')?;
            if !is_token(name) {
                return None;
            }
            request
                .headers
                .push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if request.headers.len() > MOST_HEADERS || (!is_old && request.header("host").is_none()) {
            return None;
        }
        let length = match request.header("content-length") {
            Some(length) => length.parse().ok()?,
            None => 0,
        };
        let has = |name: &str, word: &str| {
            let value = request.header(name).unwrap_or_default();
            value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
        };
        let keeps_connection = if is_old {
            has("connection", "keep-alive")
        } else {
            !has("connection", "close")
        };
        Some(Self {
            length,
            is_chunked: has("transfer-encoding", "chunked"),
            keeps_connection,
            expects_continue: has("expect", "100-continue"),
            request,
        })
    }
}

/// Where the empty line ends.
fn end_of_headers(bytes: &[u8]) -> Option<usize> {
    let mut start = 0;
    loop {
        let length = bytes[start..].iter().position(|byte| *byte == b'\n')?;
        let line = &bytes[start..start + length];
        start += length + 1;
        if line.is_empty() || line == b"\r" {
            return Some(start);
        }
    }
}

/// The path of an absolute target.
fn absolute(target: &str) -> &str {
    let Some(rest) = target.strip_prefix("http://") else {
        return target;
    };
    rest.find('/').map_or("/", |slash| &rest[slash..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Head, bool> {
        match Head::parse(text.as_bytes()) {
            Parsed::Head(head, length) => {
                assert_eq!(length, text.len(), "all of it");
                Ok(*head)
            }
            Parsed::More => Err(false),
            Parsed::Bad => Err(true),
        }
    }

    #[test]
    fn a_head_is_parsed_when_it_is_all_there() {
        let head = parse("PUT /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n").unwrap();
        assert_eq!(
            (head.request.method.as_str(), head.request.target.as_str(), head.length),
            ("PUT", "/a?b=c", 7)
        );
        assert!(head.keeps_connection && !head.is_chunked);
        assert!(!parse("PUT /a HTTP/1.1\r\nHost: x\r\n").unwrap_err());
        let old = parse("GET / HTTP/1.0\r\n\r\n").unwrap();
        assert!(!old.keeps_connection);
    }

    #[test]
    fn the_limits_are_those_of_the_container() {
        let with = |header: String| parse(&format!("GET / HTTP/1.1\r\nHost: x\r\n{header}\r\n"));
        assert!(with(format!("X: {}\r\n", "a".repeat(7500))).is_ok());
        assert!(with(format!("X: {}\r\n", "a".repeat(8300))).unwrap_err());
        assert!(with("X: a\r\n".repeat(99)).is_ok(), "100 with Host");
        assert!(with("X: a\r\n".repeat(100)).unwrap_err());
        assert!(parse(&format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(8200))).unwrap_err());
        for bad in [
            "GET / HTTP/1.1\r\n\r\n",
            "hello\r\n\r\n",
            "GET / HTTP/3\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost\r\n\r\n",
        ] {
            assert!(parse(bad).unwrap_err(), "{bad}");
        }
    }
}
