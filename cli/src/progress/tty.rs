//! Progress on a terminal: a header, a line for each vertex, and the last lines of what is running. Drawn again over itself; what
//! has scrolled out of a small window is not touched.

use std::collections::{HashMap, VecDeque};
use std::io::Write as _;
use std::time::{Duration, Instant};

use solver::{Event, How, VertexId};

use super::plain::size;

/// Lines of output shown below a running step.
const LOG_LINES: usize = 6;

/// State of the live display.
pub(super) struct Tty {
    started: Instant,
    order: Vec<VertexId>,
    vertices: HashMap<VertexId, Vertex>,
    warnings: Vec<String>,
    /// Lines drawn last time, which the cursor stands below.
    drawn: usize,
    color: bool,
}

struct Vertex {
    name: String,
    started: Instant,
    state: State,
    note: Option<String>,
    transfer: Option<String>,
    log: VecDeque<String>,
    partial: Vec<u8>,
}

enum State {
    Running,
    Done(Duration),
    Cached,
    Failed(String),
    Cancelled,
}

impl Tty {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            order: Vec::new(),
            vertices: HashMap::new(),
            warnings: Vec::new(),
            drawn: 0,
            color: std::env::var_os("NO_COLOR").is_none(),
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        match event {
            Event::Started { vertex, name } => {
                self.order.push(vertex);
                let vertex_state = Vertex {
                    name,
                    started: Instant::now(),
                    state: State::Running,
                    note: None,
                    transfer: None,
                    log: VecDeque::new(),
                    partial: Vec::new(),
                };
                self.vertices.insert(vertex, vertex_state);
            }
            Event::Log { vertex, bytes, .. } => self.with(vertex, |v| v.log(&bytes)),
            Event::Progress { vertex, what, current, total } => self.with(vertex, |v| {
                let total = total.map_or(String::new(), |total| format!(" / {}", size(total)));
                v.transfer = Some(format!("{what} {}{total}", size(current)));
            }),
            Event::Missed { vertex, reason } => self.with(vertex, |v| v.note = Some(reason.line())),
            Event::Finished { vertex, how, took } => self.with(vertex, |v| match how {
                How::Hit(reason) => {
                    v.state = State::Cached;
                    v.note = reason.map(|reason| reason.line());
                }
                How::Worked | How::Miss(_) => v.state = State::Done(took),
            }),
            Event::Failed { vertex, message } => self.with(vertex, |v| v.state = State::Failed(message)),
            Event::Cancelled { vertex } => self.with(vertex, |v| v.state = State::Cancelled),
            Event::Warning { message } => self.warnings.push(message),
        }
    }

    fn with(&mut self, vertex: VertexId, change: impl FnOnce(&mut Vertex)) {
        if let Some(vertex) = self.vertices.get_mut(&vertex) {
            change(vertex);
        }
    }

    /// Draws the present state over the last one.
    pub(super) fn draw(&mut self) {
        let (width, height) = window();
        let mut lines = self.lines(width);
        let room = height.saturating_sub(1).max(2);
        if lines.len() > room {
            let cut = lines.len() - room;
            lines.drain(1..=cut);
        }
        self.put(&lines);
    }

    /// Draws everything once more, however long it is.
    pub(super) fn finish(&mut self) {
        let lines = self.lines(window().0);
        self.put(&lines);
        self.drawn = 0;
    }

    fn put(&mut self, lines: &[String]) {
        let mut out = String::new();
        if self.drawn > 0 {
            out.push_str(&format!("\x1b[{}A", self.drawn));
        }
        out.push_str("\r\x1b[J");
        for line in lines {
            out.push_str(line);
            out.push('\n');
        }
        self.drawn = lines.len();
        let mut stderr = std::io::stderr().lock();
        // A closed terminal is no reason to stop a build.
        drop(stderr.write_all(out.as_bytes()));
        drop(stderr.flush());
    }

    fn lines(&self, width: usize) -> Vec<String> {
        let finished = self.vertices.values().filter(|v| !matches!(v.state, State::Running)).count();
        let over = finished == self.order.len();
        let head = format!(
            "[+] Building {:.1}s ({finished}/{}){}",
            self.started.elapsed().as_secs_f64(),
            self.order.len(),
            if over { " FINISHED" } else { "" }
        );
        let mut lines = vec![self.paint(&clip(&head, width), if over { "34" } else { "1" })];
        lines.extend(self.warnings.iter().map(|warning| self.paint(&clip(&format!(" ! {warning}"), width), "33")));
        for vertex in self.order.iter().filter_map(|id| self.vertices.get(id)) {
            self.vertex_lines(vertex, width, &mut lines);
        }
        lines
    }

    fn vertex_lines(&self, vertex: &Vertex, width: usize, lines: &mut Vec<String>) {
        let (mark, seconds, color) = match &vertex.state {
            State::Running => ("", vertex.started.elapsed().as_secs_f64(), None),
            State::Done(took) => ("", took.as_secs_f64(), Some("34")),
            State::Cached => ("CACHED ", 0.0, Some("34")),
            State::Failed(_) => ("ERROR ", vertex.started.elapsed().as_secs_f64(), Some("31")),
            State::Cancelled => ("CANCELED ", 0.0, Some("33")),
        };
        let time = format!(" {seconds:.1}s");
        let name = clip(&format!(" => {mark}{}", vertex.name), width.saturating_sub(time.len()));
        let gap = width.saturating_sub(name.chars().count() + time.len());
        let line = format!("{name}{}{time}", " ".repeat(gap));
        lines.push(color.map_or(line.clone(), |color| self.paint(&line, color)));
        if let Some(note) = &vertex.note {
            let mark = if matches!(vertex.state, State::Cached) { "" } else { "MISS " };
            lines.push(self.paint(&clip(&format!(" => => {mark}{note}"), width), "33"));
        }
        if let State::Running = vertex.state {
            lines.extend(vertex.transfer.iter().map(|transfer| clip(&format!(" => => {transfer}"), width)));
            lines.extend(vertex.log.iter().map(|line| self.paint(&clip(&format!(" => => # {line}"), width), "2")));
        }
        if let State::Failed(message) = &vertex.state {
            lines.push(self.paint(&clip(&format!(" => => {message}"), width), "31"));
        }
    }

    fn paint(&self, text: &str, color: &str) -> String {
        if self.color { format!("\x1b[{color}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Vertex {
    fn log(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        while let Some(end) = self.partial.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            self.log.push_back(printable(&line));
            if self.log.len() > LOG_LINES {
                self.log.pop_front();
            }
        }
    }
}

/// A line of output without what would move the cursor; of a line that was overwritten by carriage returns, the last state.
pub(crate) fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let last = text.trim_end().rsplit('\r').next().unwrap_or_default();
    let mut out = String::new();
    let mut chars = last.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => drop(chars.by_ref().find(|c| c.is_ascii_alphabetic())),
            '\t' => out.push_str("    "),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

fn clip(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

/// Columns and rows of the terminal.
fn window() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_cannot_move_the_cursor() {
        assert_eq!(printable(b"\x1b[31mred\x1b[0m\ttab\x07\n"), "red    tab");
        assert_eq!(printable(b"10%\r20%\r\n"), "20%");
    }
}
