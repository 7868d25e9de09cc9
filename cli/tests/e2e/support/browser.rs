//! A headless Chromium, steered through chromedriver by the WebDriver protocol (W3C WebDriver, and Chromium's own commands for
//! what is not in it). Everything stays on loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{PATH, find_program};

/// What the page is looked at with.
#[derive(Debug, Clone, Copy)]
pub enum Screen {
    /// 390 pixels wide, with touch.
    Phone,
    /// 1440 pixels wide.
    Desktop,
}

/// A browser with one tab. Gone with all it started when dropped.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    /// Removed with it.
    home: tempfile::TempDir,
}

/// Keys as WebDriver writes them.
pub const ESCAPE: &str = "\u{e00c}";
pub const ENTER: &str = "\u{e007}";
pub const DOWN: &str = "\u{e015}";

impl Browser {
    /// Starts one with a profile of its own; a skip where there is none.
    pub fn start(screen: Screen) -> Option<Self> {
        let chromium = find_program("chromium")?;
        let chromedriver = find_program("chromedriver")?;
        // A short path: sockets lie in it, and theirs have at most 108 bytes (unix(7)).
        let home = tempfile::Builder::new().prefix("browser").tempdir_in("/tmp").unwrap();
        let mut driver = Command::new(chromedriver)
            .arg("--port=0")
            .env_clear()
            .envs([("PATH", PATH), ("LC_ALL", "C.UTF-8")])
            .env("HOME", home.path())
            .env("TMPDIR", home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let port = port_of(&mut driver);
        let mut browser = Self { driver, port, session: String::new(), home };
        let answer = browser.post("/session", &capabilities(&chromium, browser.home.path(), screen));
        browser.session = answer["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {answer}")).to_owned();
        Some(browser)
    }

    /// Opens a file.
    pub fn open(&self, path: &Path) {
        self.command("url", &json!({ "url": format!("file://{}", path.display()) }));
    }

    /// What JavaScript in the page gives.
    pub fn eval(&self, expression: &str) -> Value {
        self.command("execute/sync", &json!({ "script": format!("return {expression}"), "args": [] }))
    }

    /// Number of elements that are shown.
    pub fn shown(&self, css: &str) -> u64 {
        let count = format!("[...document.querySelectorAll({css:?})].filter(e => e.offsetParent !== null).length");
        self.eval(&count).as_u64().unwrap()
    }

    /// The text of an element as it is shown.
    pub fn text(&self, css: &str) -> String {
        self.eval(&format!("document.querySelector({css:?}).innerText")).as_str().unwrap().to_owned()
    }

    /// Clicks as a user does: fails when something else is in the way.
    pub fn click(&self, css: &str) {
        self.command(&format!("element/{}/click", self.element(css)), &json!({}));
    }

    /// Types into an element.
    pub fn type_into(&self, css: &str, text: &str) {
        self.command(&format!("element/{}/value", self.element(css)), &json!({ "text": text }));
    }

    /// Presses a key, wherever the focus is.
    pub fn press(&self, key: &str) {
        let strokes = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        self.command("actions", &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": strokes }] }));
    }

    /// Says whether the user likes it dark.
    pub fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let command = json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "features": features } });
        self.command("goog/cdp/execute", &command);
    }

    /// What the browser complained of since it was asked last: errors of scripts, breaches of the page's policy, failed requests.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.command("se/log", &json!({ "type": "browser" }));
        log.as_array().unwrap().iter().map(|entry| entry["message"].to_string()).collect()
    }

    fn element(&self, css: &str) -> String {
        let found = self.command("element", &json!({ "using": "css selector", "value": css }));
        found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn command(&self, name: &str, body: &Value) -> Value {
        self.post(&format!("/session/{}/{name}", self.session), body)
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.request("POST", path, &body.to_string());
        assert!(status.contains(" 200 "), "{path}: {answer}");
        answer
    }

    /// One request on a connection of its own; gives the status line and the `value` of the answer.
    fn request(&self, method: &str, path: &str, body: &str) -> (String, Value) {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        connection.write_all((head + body).as_bytes()).unwrap();
        let mut reader = BufReader::new(connection);
        let (mut status, mut length) = (String::new(), 0);
        reader.read_line(&mut status).unwrap();
        for line in reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()) {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap();
            }
        }
        let mut text = vec![0; length];
        reader.read_exact(&mut text).unwrap();
        let mut answer: Value = serde_json::from_slice(&text).unwrap();
        (status, answer["value"].take())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium, which chromedriver alone knows.
        if !self.session.is_empty() && !std::thread::panicking() {
            self.request("DELETE", &format!("/session/{}", self.session), "");
        }
        let pid = rustix::process::Pid::from_child(&self.driver);
        // A driver that is asked to end takes its browser with it.
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        drop(self.driver.wait());
    }
}

/// The port that the driver has picked, which it prints when it is ready.
fn port_of(driver: &mut Child) -> u16 {
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
    let ready = lines.find(|line| line.contains("was started successfully on port")).unwrap();
    // It may print more, and must not stop over a closed pipe.
    std::thread::spawn(move || lines.for_each(drop));
    ready.rsplit(' ').next().unwrap().trim_end_matches('.').parse().unwrap()
}

fn capabilities(chromium: &Path, home: &Path, screen: Screen) -> Value {
    let profile = format!("--user-data-dir={}", home.join("profile").display());
    let mut options = json!({
        "binary": chromium,
        "args": [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1440,900", profile,
        ],
    });
    if let Screen::Phone = screen {
        let metrics = json!({ "width": 390, "height": 844, "pixelRatio": 2.0, "mobile": true, "touch": true });
        options["mobileEmulation"] = json!({ "deviceMetrics": metrics });
    }
    json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } } } })
}
