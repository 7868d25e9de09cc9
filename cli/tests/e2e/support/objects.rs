//! An S3 server on loopback: moto, which keeps its buckets in memory.

use std::process::{Command, Stdio};

use super::{PATH, Running, TestSpace, find_program};

/// Serves until it is dropped.
pub struct ObjectServer {
    address: String,
    _server: Running,
}

impl ObjectServer {
    /// Starts one with an empty bucket `cache`; none, with a skip, where it isn't installed.
    pub fn start(space: &TestSpace) -> Option<Self> {
        let program = find_program("moto_server")?;
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", "0"]).current_dir(space.path("")).env_clear().stdin(Stdio::null());
        command.envs([("PATH", PATH), ("PYTHONUNBUFFERED", "1")]);
        let mut server = Running::start(command);
        let line = server.wait_for("Running on http://");
        let address = line.split("http://").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        let made = put(&address, "/cache");
        assert!(made.contains("200"), "{made}");
        Some(Self { address, _server: server })
    }

    /// The keys of the bucket, as `--cache-to` and `--cache-from` take them.
    pub fn bucket(&self) -> String {
        format!(
            "type=s3,bucket=cache,region=us-east-1,endpoint_url=http://{},use_path_style=true,\
             access_key_id=test,secret_access_key=secret",
            self.address
        )
    }
}

/// The first line of the answer to a PUT without a body.
fn put(address: &str, path: &str) -> String {
    use std::io::{BufRead, BufReader, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let host = address;
    write!(stream, "PUT {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}
