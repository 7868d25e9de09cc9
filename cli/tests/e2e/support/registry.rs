//! A real registry on loopback: Debian's docker-registry.

use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::{Running, TestSpace, find_program};

/// Serves until it is dropped.
pub struct Registry {
    address: String,
    server: Running,
}

impl Registry {
    /// Starts one with its files in `name` of the space; none, with a skip, where it isn't installed.
    pub fn start(space: &TestSpace, name: &str) -> Option<Self> {
        let program = find_program("docker-registry")?;
        let storage = space.path(name);
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp:\n  \
             addr: 127.0.0.1:0\n",
            storage.display()
        );
        space.write(&format!("{name}.yml"), config);
        let mut command = Command::new(program);
        command.arg("serve").arg(space.path(&format!("{name}.yml"))).env_clear().stdin(Stdio::null());
        let mut server = Running::start(command);
        let line = server.wait_for("listening on ");
        let address = line.split("listening on ").nth(1).unwrap();
        let address = address.split(['"', ',', ' ']).next().unwrap().to_owned();
        Some(Self { address, server })
    }

    /// `127.0.0.1:PORT/name`.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Ends it; its address refuses connections afterwards.
    pub fn stop(self) -> String {
        self.server.signal(Signal::TERM);
        self.server.end();
        self.address
    }
}
