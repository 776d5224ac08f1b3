//! A toy S3 endpoint, which keeps objects in a map and can be told to misbehave.
#![allow(dead_code, reason = "not every test misbehaves in every way")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Every GET has its last byte changed.
    Rot,
    /// Every PUT of an object is refused.
    Refuse,
    /// Nobody is answered for half a second, once, at the 50th PUT of an object.
    Stall,
}

/// Objects by path, and what was asked for.
#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) objects: BTreeMap<String, Vec<u8>>,
    /// Of objects, by method.
    pub(crate) requests: BTreeMap<String, u64>,
    pub(crate) content_sha256: Vec<String>,
    /// Parts of uploads that are not complete, by path and number.
    pub(crate) parts: BTreeMap<(String, u32), Vec<u8>>,
}

pub(crate) struct Toy {
    pub(crate) address: SocketAddr,
    pub(crate) shelf: Arc<Mutex<Shelf>>,
}

impl Toy {
    pub(crate) fn start(fault: Fault) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").unwrap(), fault)
    }

    pub(crate) fn listen(listener: TcpListener, fault: Fault) -> Self {
        let (address, shelf) = (listener.local_addr().unwrap(), Arc::<Mutex<Shelf>>::default());
        let served = Arc::clone(&shelf);
        // Ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shelf = Arc::clone(&served);
                std::thread::spawn(move || serve(stream.unwrap(), &shelf, fault));
            }
        });
        Self { address, shelf }
    }
}

fn serve(stream: TcpStream, shelf: &Mutex<Shelf>, fault: Fault) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let header = |name: &str| {
            lines[1..].iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
        };
        let mut body = vec![0; header("content-length").unwrap().parse().unwrap()];
        reader.read_exact(&mut body).ok()?;
        assert!(header("authorization").unwrap().starts_with("AWS4-HMAC-SHA256 Credential="));
        let mut words = lines[0].split(' ');
        let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let is_object = path.trim_start_matches('/').contains('/') && query.is_empty();
        let mut shelf = shelf.lock().unwrap();
        *shelf.requests.entry(method.clone()).or_default() += u64::from(is_object);
        if fault == Fault::Stall && method == "PUT" && is_object && shelf.requests["PUT"] == 50 {
            std::thread::sleep(Duration::from_millis(500));
        }
        let part = query.split('&').find_map(|pair| pair.strip_prefix("partNumber=")?.parse().ok());
        let (status, answer) = match method.as_str() {
            "POST" if query == "uploads=" => (200, b"<UploadId>one/two</UploadId>".to_vec()),
            "POST" => {
                assert_eq!(query, "uploadId=one%2Ftwo");
                let whole = (path.to_owned(), 0)..(path.to_owned(), u32::MAX);
                let parts: Vec<_> = shelf.parts.range(whole).map(|(at, bytes)| (at.clone(), bytes.clone())).collect();
                let list = String::from_utf8(body).unwrap();
                assert_eq!(list.matches("<ETag>&quot;etag&quot;</ETag>").count(), parts.len(), "{list}");
                parts.iter().for_each(|(at, _)| drop(shelf.parts.remove(at)));
                let content = parts.into_iter().flat_map(|(_, bytes)| bytes).collect();
                shelf.objects.insert(path.to_owned(), content);
                (200, b"<ETag>whole</ETag>".to_vec())
            }
            "PUT" if part.is_some() => {
                shelf.parts.insert((path.to_owned(), part.unwrap()), body);
                (200, Vec::new())
            }
            "PUT" if is_object && fault == Fault::Refuse => (503, b"<Error><Code>SlowDown</Code></Error>".to_vec()),
            "PUT" => {
                shelf.content_sha256.push(header("x-amz-content-sha256").unwrap());
                shelf.objects.insert(path.to_owned(), body);
                (200, Vec::new())
            }
            "DELETE" => {
                shelf.objects.remove(path);
                (204, Vec::new())
            }
            _ if query.contains("list-type=2") => {
                let keys = shelf.objects.keys().filter(|key| key.matches('/').count() > 1);
                (200, keys.map(|key| format!("<Key>{key}</Key>")).collect::<String>().into_bytes())
            }
            _ => match shelf.objects.get(path) {
                None => (404, Vec::new()),
                Some(content) => {
                    let mut content = content.clone();
                    if fault == Fault::Rot
                        && let Some(last) = content.last_mut()
                    {
                        *last ^= 1;
                    }
                    (200, content)
                }
            },
        };
        drop(shelf);
        // Listings come in chunks, as some servers send them.
        let is_chunked = query.contains("list-type=2");
        let length = if is_chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {}", answer.len())
        };
        let mut bytes = format!("HTTP/1.1 {status} X\r\n{length}\r\nETag: \"etag\"\r\n\r\n").into_bytes();
        if is_chunked {
            for chunk in answer.chunks(100) {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else if method != "HEAD" {
            bytes.extend_from_slice(&answer);
        }
        writer.write_all(&bytes).ok()?;
    }
}
