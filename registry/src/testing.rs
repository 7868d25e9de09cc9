//! A registry in this process, for tests: a plain HTTP/1.1 server on a thread per connection, and a store in memory behind it.
//! A hook sees every request first and may answer it itself, to play servers that are slow, broken or hostile.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use oci::Digest;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, …
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// What follows the question mark, decoded.
    pub query: Vec<(String, String)>,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// The first value of a query parameter.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A header's value, empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers besides `Content-Length`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Breaks the connection after so many bytes of the body.
    pub cut: Option<usize>,
}

impl Reply {
    /// An empty answer.
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// The answer with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The answer with a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The answer with a connection that breaks.
    #[must_use]
    pub fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    fn error(status: u16, code: &str) -> Self {
        Self::new(status).body(format!(r#"{{"errors":[{{"code":"{code}","message":"as a test"}}]}}"#))
    }
}

type Hook = dyn Fn(&Request) -> Option<Reply> + Send + Sync;

/// A running server; dropping it stops it.
pub struct Server {
    address: SocketAddr,
    state: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

struct State {
    hook: Box<Hook>,
    stop: AtomicBool,
    sessions: AtomicU64,
    data: Mutex<Data>,
}

#[derive(Default)]
struct Data {
    log: Vec<Request>,
    /// Repository and digest.
    blobs: HashMap<(String, String), Vec<u8>>,
    /// Repository and tag or digest, to media type and bytes.
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    uploads: HashMap<String, Vec<u8>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// A registry that anyone may use.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start() -> io::Result<Self> {
        Self::with_hook(|_| None)
    }

    /// A registry with a hook that may answer in its place.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn with_hook(hook: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            hook: Box::new(hook),
            stop: AtomicBool::new(false),
            sessions: AtomicU64::new(0),
            data: Mutex::default(),
        });
        let shared = state.clone();
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                let state = shared.clone();
                // A connection that breaks is the client's to notice.
                std::thread::spawn(move || stream.and_then(|stream| state.serve(stream)).unwrap_or_default());
            }
        });
        Ok(Self { address, state, accepting: Some(accepting) })
    }

    /// `127.0.0.1:PORT`, which is also the registry's name in references.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Requests so far, as `METHOD path`.
    pub fn log(&self) -> Vec<String> {
        self.state.data().log.iter().map(|r| format!("{} {}", r.method, r.path)).collect()
    }

    /// Requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state.data().log.clone()
    }

    /// Forgets the requests so far.
    pub fn clear_log(&self) {
        self.state.data().log.clear();
    }

    /// Puts a blob there.
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.state.data().blobs.insert((repository.to_owned(), digest.to_string()), bytes.to_vec());
        digest
    }

    /// Puts a manifest there, under its digest and a tag.
    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        for name in [tag, &digest.to_string()] {
            let value = (media_type.to_owned(), bytes.to_vec());
            self.state.data().manifests.insert((repository.to_owned(), name.to_owned()), value);
        }
        digest
    }

    /// A blob that is there.
    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Vec<u8>> {
        self.state.data().blobs.get(&(repository.to_owned(), digest.to_string())).cloned()
    }

    /// Media type and bytes of a manifest that is there.
    pub fn manifest(&self, repository: &str, name: &str) -> Option<(String, Vec<u8>)> {
        self.state.data().manifests.get(&(repository.to_owned(), name.to_owned())).cloned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.accepting.take() {
            thread.join().unwrap_or_default();
        }
    }
}

impl State {
    fn data(&self) -> MutexGuard<'_, Data> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut out = stream.try_clone()?;
        let mut input = BufReader::new(stream);
        while let Some(request) = read_request(&mut input)? {
            self.data().log.push(request.clone());
            let reply = (self.hook)(&request).unwrap_or_else(|| self.answer(&request));
            let cut = reply.cut;
            write_reply(&mut out, &request, reply)?;
            if cut.is_some() {
                return out.shutdown(std::net::Shutdown::Both);
            }
        }
        Ok(())
    }

    fn answer(&self, request: &Request) -> Reply {
        let Some(rest) = request.path.strip_prefix("/v2/") else { return Reply::new(404) };
        if rest.is_empty() {
            return Reply::new(200).body("{}");
        }
        if let Some((repository, session)) = rest.split_once("/blobs/uploads/") {
            return self.upload(request, repository, session);
        }
        if let Some((repository, digest)) = rest.split_once("/blobs/") {
            return match self.data().blobs.get(&(repository.to_owned(), digest.to_owned())) {
                Some(bytes) => range(request, bytes),
                None => Reply::error(404, "BLOB_UNKNOWN"),
            };
        }
        match rest.split_once("/manifests/") {
            Some((repository, name)) => self.manifests(request, repository, name),
            None => Reply::new(404),
        }
    }

    fn manifests(&self, request: &Request, repository: &str, name: &str) -> Reply {
        let mut data = self.data();
        if request.method == "PUT" {
            let digest = Digest::of(&request.body).to_string();
            for name in [name.to_owned(), digest.clone()] {
                let value = (request.header("content-type").to_owned(), request.body.clone());
                data.manifests.insert((repository.to_owned(), name), value);
            }
            return Reply::new(201).header("Docker-Content-Digest", digest);
        }
        match data.manifests.get(&(repository.to_owned(), name.to_owned())) {
            None => Reply::error(404, "MANIFEST_UNKNOWN"),
            Some((media_type, bytes)) => Reply::new(200)
                .header("Content-Type", media_type)
                .header("Docker-Content-Digest", Digest::of(bytes).to_string())
                .body(bytes.clone()),
        }
    }

    fn upload(&self, request: &Request, repository: &str, session: &str) -> Reply {
        let mut data = self.data();
        let here = |session: &str| format!("/v2/{repository}/blobs/uploads/{session}?state=a%2Bb");
        match request.method.as_str() {
            "POST" => {
                if let (Some(digest), Some(from)) = (request.query("mount"), request.query("from"))
                    && let Some(bytes) = data.blobs.get(&(from.to_owned(), digest.to_owned())).cloned()
                {
                    data.blobs.insert((repository.to_owned(), digest.to_owned()), bytes);
                    return Reply::new(201);
                }
                let session = self.sessions.fetch_add(1, Ordering::SeqCst).to_string();
                data.uploads.insert(session.clone(), Vec::new());
                Reply::new(202).header("Location", here(&session))
            }
            _ if request.query("state") != Some("a+b") => Reply::error(400, "BLOB_UPLOAD_INVALID"),
            "PATCH" | "PUT" => {
                let Some(bytes) = data.uploads.get_mut(session) else {
                    return Reply::error(404, "BLOB_UPLOAD_UNKNOWN");
                };
                let start = request.header("content-range").split('-').next().and_then(|start| start.parse().ok());
                if start.is_some_and(|start: usize| start != bytes.len()) {
                    return Reply::error(416, "BLOB_UPLOAD_INVALID");
                }
                bytes.extend_from_slice(&request.body);
                if request.method == "PATCH" {
                    return Reply::new(202).header("Location", here(session));
                }
                let bytes = std::mem::take(bytes);
                if request.query("digest") != Some(&Digest::of(&bytes).to_string()) {
                    return Reply::error(400, "DIGEST_INVALID");
                }
                data.blobs.insert((repository.to_owned(), Digest::of(&bytes).to_string()), bytes);
                Reply::new(201)
            }
            _ => Reply::new(405),
        }
    }
}

/// The part of a blob that `Range: bytes=N-` asks for.
fn range(request: &Request, bytes: &[u8]) -> Reply {
    let start = request.header("range").strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
    match start.and_then(|start| start.parse::<usize>().ok()).filter(|start| *start < bytes.len()) {
        None => Reply::new(200).body(bytes),
        Some(start) => Reply::new(206)
            .header("Content-Range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()))
            .body(&bytes[start..]),
    }
}

fn read_request(input: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query.split('&').filter(|pair| !pair.is_empty());
    let query = query.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(n, v)| (decode(n), decode(v)));
    let (path, query) = (path.to_owned(), query.collect());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            None => break,
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
        };
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    Ok(Some(Request { method, path, query, headers, body }))
}

/// Undoes percent-encoding and `+`.
fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn write_reply(out: &mut TcpStream, request: &Request, reply: Reply) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Test\r\nContent-Length: {}\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    out.write_all(head.as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    let end = reply.cut.unwrap_or(reply.body.len()).min(reply.body.len());
    out.write_all(&reply.body[..end])
}
