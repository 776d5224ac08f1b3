//! From the bytes of a head to a request, or to the reason why it is none.

use httparse::{EMPTY_HEADER, Error};

use super::{HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};

/// Why there is no request to serve. The connection closes behind the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// As in S3's errors.
    pub(crate) code: &'static str,
    pub(crate) message: &'static str,
}

/// A head, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Begins with `/`.
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: BodyLength,
    pub(crate) expects_continue: bool,
    /// What the client wants of the connection: to keep it.
    pub(crate) keep_alive: bool,
}

/// How long a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// Known beforehand; 0 when nothing is said.
    Known(u64),
    /// In the chunked coding.
    Chunked,
}

/// Looks for the end of a head, each byte once, however slowly they come.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    scanned: usize,
    /// Bytes of empty lines in front of the request line.
    skipped: usize,
    line_start: usize,
}

/// What the scanner found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scan {
    /// The head is not complete.
    More,
    /// It is the bytes `start..end`.
    Head { start: usize, end: usize },
}

/// Empty lines that a client may send before a request (RFC 9112, 2.2 asks for one).
const BLANK_BYTES_MAX: usize = 8;
/// The longest method there is room for before a target's limit counts, with the spaces around it.
const METHOD_BYTES_MAX: usize = 32;

impl Scanner {
    /// Goes on where it stopped; `input` is the same bytes as before with more at their end.
    pub(crate) fn scan(&mut self, input: &[u8]) -> Result<Scan, Refusal> {
        while let Some(offset) = input[self.scanned..].iter().position(|&b| b == b'\r' || b == b'\n') {
            let at = self.scanned + offset;
            if input[at] == b'\n' {
                return Err(BARE_NEWLINE);
            }
            match input.get(at + 1) {
                None => break,
                Some(b'\n') => {}
                Some(_) => return Err(BARE_NEWLINE),
            }
            let (line_start, line_end, next) = (self.line_start, at, at + 2);
            let in_first_line = line_start == self.skipped;
            self.scanned = next;
            self.line_start = next;
            if line_start < line_end {
                if in_first_line && line_end - line_start > TARGET_BYTES_MAX + METHOD_BYTES_MAX {
                    return Err(TARGET_TOO_LONG);
                }
            } else if in_first_line {
                self.skipped = next;
                if self.skipped > BLANK_BYTES_MAX {
                    return Err(MALFORMED);
                }
            } else if next - self.skipped > HEAD_BYTES_MAX {
                return Err(HEAD_TOO_LARGE);
            } else {
                return Ok(Scan::Head { start: self.skipped, end: next });
            }
        }
        // A carriage return at the very end is looked at again with what follows it.
        self.scanned = input.len() - usize::from(input.ends_with(b"\r"));
        let in_first_line = self.line_start == self.skipped;
        if in_first_line && input.len() - self.skipped > TARGET_BYTES_MAX + METHOD_BYTES_MAX {
            return Err(TARGET_TOO_LONG);
        }
        if input.len() - self.skipped > HEAD_BYTES_MAX {
            return Err(HEAD_TOO_LARGE);
        }
        Ok(Scan::More)
    }
}

/// Reads a whole head, as [`Scanner`] found it.
pub(crate) fn parse(head: &[u8]) -> Result<Request, Refusal> {
    let mut fields = [EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(head) {
        Ok(status) if status == httparse::Status::Complete(head.len()) => {}
        Ok(_) => return Err(MALFORMED),
        Err(Error::TooManyHeaders) => return Err(TOO_MANY_HEADERS),
        Err(Error::Version) => return Err(version_refusal(head)),
        Err(_) => return Err(MALFORMED),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(MALFORMED);
    };
    let mut headers: Vec<(String, Vec<u8>)> = parsed
        .headers
        .iter()
        .map(|field| (field.name.to_ascii_lowercase(), field.value.trim_ascii().to_vec()))
        .collect();
    let http_1_1 = minor == 1;
    let (path, query) = read_target(method, target, http_1_1, &mut headers)?;
    Ok(Request {
        method: method.to_owned(),
        path,
        query,
        body: body_length(&headers, http_1_1)?,
        expects_continue: http_1_1 && expects_continue(&headers)?,
        keep_alive: http_1_1 && !has_token(&headers, "connection", "close"),
        headers,
    })
}

/// `HTTP/2.0` and the like are versions that are not spoken here; anything else is no HTTP.
fn version_refusal(head: &[u8]) -> Refusal {
    let line = head.split(|&b| b == b'\r').next().unwrap_or_default();
    let word = line.rsplit(|&b| b == b' ').next().unwrap_or_default();
    let is_version = matches!(word, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit());
    if is_version { VERSION } else { MALFORMED }
}

/// Path and query of the target. An absolute target names the host itself (RFC 9112, 3.2.2); here it must name the
/// same as `Host`, so that nobody in front of us can have understood another.
fn read_target(
    method: &str,
    target: &str,
    http_1_1: bool,
    headers: &mut Vec<(String, Vec<u8>)>,
) -> Result<(String, Option<String>), Refusal> {
    if target.len() > TARGET_BYTES_MAX {
        return Err(TARGET_TOO_LONG);
    }
    if method == "CONNECT" {
        return Err(CONNECT);
    }
    if target.contains('#') {
        return Err(TARGET);
    }
    let mut hosts = headers.iter().filter(|(name, _)| name == "host").map(|(_, value)| value);
    let host = hosts.next();
    if hosts.next().is_some() || (http_1_1 && host.is_none()) || host.is_some_and(|host| !is_host(host)) {
        return Err(HOST);
    }
    if target.starts_with('/') {
        return Ok(split_query(target));
    }
    let (scheme, rest) = target.split_once("://").ok_or(TARGET)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(TARGET);
    }
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.is_empty() || !is_host(authority.as_bytes()) {
        return Err(TARGET);
    }
    match host {
        Some(host) if !host.eq_ignore_ascii_case(authority.as_bytes()) => return Err(HOST),
        Some(_) => {}
        None => headers.push(("host".to_owned(), authority.as_bytes().to_vec())),
    }
    Ok(if rest.starts_with('/') { split_query(rest) } else { split_query(&format!("/{rest}")) })
}

pub(crate) fn split_query(target: &str) -> (String, Option<String>) {
    match target.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (target.to_owned(), None),
    }
}

/// A name, an address, perhaps a port: no user, no path, nothing that ends a header. May be empty (RFC 9110, 7.2).
pub(crate) fn is_host(host: &[u8]) -> bool {
    host.iter().all(|&b| b.is_ascii_alphanumeric() || b"-._~:[]%".contains(&b))
}

/// RFC 9112, 6: one length or one coding, never both, never two.
pub(crate) fn body_length(headers: &[(String, Vec<u8>)], http_1_1: bool) -> Result<BodyLength, Refusal> {
    let mut lengths = headers.iter().filter(|(name, _)| name == "content-length").map(|(_, value)| value);
    let mut codings = headers.iter().filter(|(name, _)| name == "transfer-encoding").map(|(_, value)| value);
    let (length, coding) = (lengths.next(), codings.next());
    if lengths.next().is_some() || codings.next().is_some() || (length.is_some() && coding.is_some()) {
        return Err(LENGTH);
    }
    if let Some(coding) = coding {
        return match coding {
            _ if !http_1_1 => Err(LENGTH),
            coding if coding.eq_ignore_ascii_case(b"chunked") => Ok(BodyLength::Chunked),
            _ => Err(CODING),
        };
    }
    let Some(digits) = length else { return Ok(BodyLength::Known(0)) };
    // `parse` alone would take a sign.
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(LENGTH);
    }
    let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    number.map(BodyLength::Known).ok_or(LENGTH)
}

pub(crate) fn expects_continue(headers: &[(String, Vec<u8>)]) -> Result<bool, Refusal> {
    let mut expectations = headers.iter().filter(|(name, _)| name == "expect").map(|(_, value)| value);
    match (expectations.next(), expectations.next()) {
        (None, _) => Ok(false),
        (Some(value), None) if value.eq_ignore_ascii_case(b"100-continue") => Ok(true),
        _ => Err(EXPECTATION),
    }
}

fn has_token(headers: &[(String, Vec<u8>)], name: &str, token: &str) -> bool {
    let values = headers.iter().filter(|(n, _)| n == name);
    values
        .flat_map(|(_, value)| value.split(|&b| b == b','))
        .any(|t| t.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

const fn refusal(status: u16, code: &'static str, message: &'static str) -> Refusal {
    Refusal { status, code, message }
}

const MALFORMED: Refusal = refusal(400, "BadRequest", "An error occurred when parsing the HTTP request.");
const BARE_NEWLINE: Refusal = refusal(400, "BadRequest", "The lines of a request head end in CR LF.");
pub(crate) const HOST: Refusal = refusal(400, "BadRequest", "A request names its host once, and only one.");
const LENGTH: Refusal =
    refusal(400, "BadRequest", "The length of the body is said once, as a number or by chunked coding.");
const CODING: Refusal = refusal(501, "NotImplemented", "A Transfer-Encoding other than chunked is not implemented.");
pub(crate) const CONNECT: Refusal =
    refusal(405, "MethodNotAllowed", "The specified method is not allowed against this resource.");
pub(crate) const TARGET: Refusal = refusal(400, "InvalidURI", "Couldn't parse the specified URI.");
pub(crate) const TARGET_TOO_LONG: Refusal = refusal(414, "InvalidURI", "The URI of the request is too long.");
const HEAD_TOO_LARGE: Refusal = refusal(
    431,
    "RequestHeaderSectionTooLarge",
    "Your request header section exceeds the maximum allowed size of 65536 bytes.",
);
pub(crate) const TOO_MANY_HEADERS: Refusal =
    refusal(431, "RequestHeaderSectionTooLarge", "Your request has more than 100 header fields.");
const VERSION: Refusal = refusal(505, "HttpVersionNotSupported", "The HTTP version specified is not supported.");
const EXPECTATION: Refusal = refusal(417, "ExpectationFailed", "The only expectation that can be met is 100-continue.");

const _: () = assert!(HEAD_BYTES_MAX == 65536 && HEADERS_MAX == 100, "the refusals say these numbers");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Request, Refusal> {
        match Scanner::default().scan(bytes)? {
            Scan::Head { start, end } => parse(&bytes[start..end]),
            Scan::More => panic!("not a whole head: {:?}", String::from_utf8_lossy(bytes)),
        }
    }

    fn request(lines: &[&str]) -> Result<Request, Refusal> {
        read(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes())
    }

    fn header(line: &str) -> Result<Request, Refusal> {
        request(&["PUT /b/k HTTP/1.1", "Host: h", line])
    }

    #[test]
    fn a_head_is_read_as_it_came() {
        let read =
            request(&["GET /b/k%2f?x=1?y HTTP/1.1", "HOST: a:1", "X-Amz-Meta-A: \t\u{e9} b ", "Empty:"]).unwrap();
        assert_eq!(
            (read.method.as_str(), read.path.as_str(), read.query.as_deref()),
            ("GET", "/b/k%2f", Some("x=1?y"))
        );
        let expected = [("host", "a:1"), ("x-amz-meta-a", "\u{e9} b"), ("empty", "")];
        assert_eq!(read.headers, expected.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())));
        assert_eq!((read.body, read.expects_continue, read.keep_alive), (BodyLength::Known(0), false, true));
    }

    #[test]
    fn connections_are_kept_by_1_1_unless_the_client_closes() {
        assert!(!header("Connection: Upgrade, CLOSE").unwrap().keep_alive);
        assert!(header("Connection: closed").unwrap().keep_alive);
        assert!(!request(&["GET / HTTP/1.0", "Connection: keep-alive"]).unwrap().keep_alive);
    }

    #[test]
    fn a_body_has_one_length_or_is_chunked() {
        assert_eq!(header("Content-Length: 007").unwrap().body, BodyLength::Known(7));
        assert_eq!(header("Transfer-Encoding: Chunked").unwrap().body, BodyLength::Chunked);
        for line in [
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1\r\ncontent-length: 2",
            "Content-Length: 1, 1",
            "Content-Length: +1",
            "Content-Length: -1",
            "Content-Length: 0x1",
            "Content-Length: 1 1",
            "Content-Length:",
            "Content-Length: 18446744073709551616",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ] {
            assert_eq!(header(line), Err(LENGTH), "{line}");
        }
        for coding in ["gzip, chunked", "chunked, chunked", "identity", "xchunked", "chunked;q=1", "chun ked", ""] {
            assert_eq!(header(&format!("Transfer-Encoding: {coding}")), Err(CODING), "{coding}");
        }
        assert_eq!(request(&["PUT / HTTP/1.0", "Transfer-Encoding: chunked"]), Err(LENGTH));
    }

    #[test]
    fn what_readers_could_understand_differently_is_refused() {
        for line in [
            "Content-Length : 1",
            " Content-Length: 1",
            "A: b\r\n folded",
            "A: b\r\n\tfolded",
            "A: \0",
            "A: \x7f",
            "A\0: b",
            ": b",
            "A",
            "A b: c",
            "Transfer-Encoding: \x0bchunked",
        ] {
            assert_eq!(header(line), Err(MALFORMED), "{line:?}");
        }
        for bytes in
            ["GET / HTTP/1.1\nHost: h\n\n", "GET / HTTP/1.1\r\nHost: h\n", "GET / HTTP/1.1\r\nA: b\rc", "\n", "\rG"]
        {
            assert_eq!(Scanner::default().scan(bytes.as_bytes()), Err(BARE_NEWLINE), "{bytes:?}");
        }
    }

    #[test]
    fn the_request_line_is_read_strictly() {
        let line = |line: &str| request(&[line, "Host: h"]);
        for malformed in
            ["GET  / HTTP/1.1", "GET / HTTP/1.1 ", "GET /", "G(T / HTTP/1.1", "GET / http/1.1", "GET /\x7f HTTP/1.1"]
        {
            assert_eq!(line(malformed), Err(MALFORMED), "{malformed}");
        }
        assert_eq!(line("GET / HTTP/2.0"), Err(VERSION));
        assert_eq!(line("GET / HTTP/0.9"), Err(VERSION));
        for target in ["*", "b/k", "ftp://h/", "http:///", "http://u@h/", "/a#b", "h:1"] {
            assert_eq!(line(&format!("OPTIONS {target} HTTP/1.1")), Err(TARGET), "{target}");
        }
        assert_eq!(line("CONNECT h:1 HTTP/1.1"), Err(CONNECT));
        assert_eq!(read(b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n"), Err(MALFORMED));
    }

    #[test]
    fn a_host_is_named_once_and_the_same_by_an_absolute_target() {
        assert_eq!(request(&["GET / HTTP/1.1"]), Err(HOST));
        assert!(request(&["GET / HTTP/1.0"]).is_ok());
        for line in ["Host: a", "Host: h", "Host: a/b", "Host: a@b", "Host: a b", "Host: a,b"] {
            assert_eq!(request(&["GET / HTTP/1.1", "Host: h", line]), Err(HOST), "{line}");
        }
        assert_eq!(request(&["GET / HTTP/1.1", "Host: a b"]), Err(HOST));

        let absolute = |target: &str, host: &str| request(&[&format!("GET {target} HTTP/1.1"), host]);
        let read = absolute("HTTP://h:1/b?c", "Host: H:1").unwrap();
        assert_eq!((read.path.as_str(), read.query.as_deref()), ("/b", Some("c")));
        let read = absolute("http://h?c", "Host: h").unwrap();
        assert_eq!((read.path.as_str(), read.query.as_deref()), ("/", Some("c")));
        assert_eq!(absolute("http://h/", "Host: other"), Err(HOST));
        assert_eq!(request(&["GET http://h/ HTTP/1.0"]).unwrap().headers, [("host".to_owned(), b"h".to_vec())]);
    }

    #[test]
    fn the_only_expectation_is_100_continue() {
        assert!(header("Expect: 100-Continue").unwrap().expects_continue);
        assert_eq!(header("Expect: 200-ok"), Err(EXPECTATION));
        assert_eq!(header("Expect: 100-continue\r\nExpect: 100-continue"), Err(EXPECTATION));
        assert!(!request(&["PUT / HTTP/1.0", "Expect: 100-continue"]).unwrap().expects_continue);
    }

    #[test]
    fn heads_have_limits() {
        let fields = |count: usize| (0..count).map(|i| format!("a{i}: b\r\n")).collect::<String>();
        assert!(header(fields(HEADERS_MAX - 1).trim_end()).is_ok());
        assert_eq!(header(fields(HEADERS_MAX).trim_end()), Err(TOO_MANY_HEADERS));

        let target = |bytes: usize| request(&[&format!("GET /{} HTTP/1.1", "a".repeat(bytes - 1)), "Host: h"]);
        assert!(target(TARGET_BYTES_MAX).is_ok());
        assert_eq!(target(TARGET_BYTES_MAX + 1), Err(TARGET_TOO_LONG));
        assert_eq!(Scanner::default().scan(&[b'a'; TARGET_BYTES_MAX + 100]), Err(TARGET_TOO_LONG));

        let around = "PUT /b/k HTTP/1.1\r\nHost: h\r\nA: \r\n\r\n".len();
        assert!(header(&format!("A: {}", "b".repeat(HEAD_BYTES_MAX - around))).is_ok());
        assert_eq!(header(&format!("A: {}", "b".repeat(HEAD_BYTES_MAX - around + 1))), Err(HEAD_TOO_LARGE));
        let endless = [b"GET / HTTP/1.1\r\nA: ".to_vec(), vec![b'b'; HEAD_BYTES_MAX]].concat();
        assert_eq!(Scanner::default().scan(&endless), Err(HEAD_TOO_LARGE));
    }

    #[test]
    fn a_few_empty_lines_may_come_first() {
        assert!(read(b"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n").is_ok());
        assert_eq!(Scanner::default().scan(&b"\r\n".repeat(5)), Err(MALFORMED));
    }

    /// Feeds `stream` in growing prefixes.
    fn scan_in_steps(stream: &[u8], mut cuts: Vec<usize>) -> Result<Scan, Refusal> {
        let mut scanner = Scanner::default();
        cuts.iter_mut().for_each(|cut| *cut %= stream.len() + 1);
        cuts.sort_unstable();
        for cut in cuts {
            match scanner.scan(&stream[..cut])? {
                Scan::More => {}
                found @ Scan::Head { .. } => return Ok(found),
            }
        }
        scanner.scan(stream)
    }

    proptest! {
        #[test]
        fn any_division_of_a_stream_scans_the_same(
            stream in prop::collection::vec(prop::sample::select(b"\r\n\r\nGET /: a".to_vec()), 0..60),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            prop_assert_eq!(scan_in_steps(&stream, cuts), Scanner::default().scan(&stream));
        }

        #[test]
        fn arbitrary_heads_do_not_panic(head in prop::collection::vec(any::<u8>(), 0..200), line in "[A-Z]{1,4} [ -~]{0,20} HTTP/1.[01]") {
            let _ = parse(&head);
            let _ = parse(&[line.as_bytes(), b"\r\n", &head, b"\r\n\r\n"].concat());
        }
    }
}
