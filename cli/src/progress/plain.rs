//! Progress as lines, for logs and pipes: `#3 [2/4] RUN make`, `#3 0.120 output`, `#3 DONE 1.2s`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Instant;

use solver::{Event, How, VertexId};

/// State of the line display.
#[derive(Default)]
pub(super) struct Plain {
    vertices: HashMap<VertexId, Vertex>,
    /// The vertex that the last line was about.
    current: Option<VertexId>,
}

struct Vertex {
    name: String,
    number: usize,
    started: Instant,
    /// The part of a line that has no end yet.
    partial: Vec<u8>,
}

impl Plain {
    pub(super) fn event(&mut self, event: &Event) {
        let text = self.render(event);
        // A closed standard error is no reason to stop a build.
        drop(std::io::stderr().lock().write_all(text.as_bytes()));
    }

    fn render(&mut self, event: &Event) -> String {
        let mut out = String::new();
        match event {
            Event::Started { vertex, name } => {
                let number = self.vertices.len() + 1;
                let started = Instant::now();
                self.vertices.insert(*vertex, Vertex { name: name.clone(), number, started, partial: Vec::new() });
                self.turn_to(*vertex, &mut out);
            }
            Event::Log { vertex, bytes, .. } => self.log(*vertex, bytes, &mut out),
            Event::Progress { vertex, what, current, total } => {
                let number = self.turn_to(*vertex, &mut out);
                let total = total.map_or(String::new(), |total| format!(" / {}", size(total)));
                push(&mut out, format_args!("#{number} {what}: {}{total}", size(*current)));
            }
            Event::Finished { vertex, how, took } => {
                self.flush(*vertex, &mut out);
                let number = self.turn_to(*vertex, &mut out);
                match how {
                    How::Hit(None) => push(&mut out, format_args!("#{number} CACHED")),
                    How::Hit(Some(reason)) => push(&mut out, format_args!("#{number} CACHED {}", reason.line())),
                    How::Worked | How::Miss(_) => {
                        push(&mut out, format_args!("#{number} DONE {:.1}s", took.as_secs_f64()));
                    }
                }
                out.push('\n');
                self.current = None;
            }
            Event::Missed { vertex, reason } => {
                let number = self.turn_to(*vertex, &mut out);
                push(&mut out, format_args!("#{number} MISS  {}", reason.line()));
            }
            Event::Failed { vertex, message } => {
                self.flush(*vertex, &mut out);
                let number = self.turn_to(*vertex, &mut out);
                push(&mut out, format_args!("#{number} ERROR: {message}\n"));
            }
            Event::Cancelled { vertex } => {
                let number = self.turn_to(*vertex, &mut out);
                push(&mut out, format_args!("#{number} CANCELED\n"));
            }
            Event::Warning { message } => push(&mut out, format_args!("WARN: {message}")),
        }
        out
    }

    /// Names the vertex when the line before was about another one, and gives its number.
    fn turn_to(&mut self, vertex: VertexId, out: &mut String) -> usize {
        let Some(known) = self.vertices.get(&vertex) else { return 0 };
        if self.current != Some(vertex) {
            if self.current.is_some() {
                out.push('\n');
            }
            push(out, format_args!("#{} {}", known.number, known.name));
            self.current = Some(vertex);
        }
        known.number
    }

    fn log(&mut self, vertex: VertexId, bytes: &[u8], out: &mut String) {
        let Some(known) = self.vertices.get_mut(&vertex) else { return };
        let mut text = std::mem::take(&mut known.partial);
        text.extend_from_slice(bytes);
        let seconds = known.started.elapsed().as_secs_f64();
        let complete = text.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        known.partial = text.split_off(complete);
        for line in text.split_inclusive(|b| *b == b'\n') {
            let number = self.turn_to(vertex, out);
            push(out, format_args!("#{number} {seconds:.3} {}", String::from_utf8_lossy(line).trim_end()));
        }
    }

    fn flush(&mut self, vertex: VertexId, out: &mut String) {
        if self.vertices.get(&vertex).is_some_and(|known| !known.partial.is_empty()) {
            self.log(vertex, b"\n", out);
        }
    }
}

fn push(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("writing to a string does not fail");
}

/// Bytes as docker prints them: `1.5MB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes}B"),
        _ if value >= 100.0 => format!("{value:.0}{}", UNITS[unit]),
        _ if value >= 10.0 => format!("{value:.1}{}", UNITS[unit]),
        _ => format!("{value:.2}{}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use solver::{Reason, Stream};
    use std::time::Duration;

    #[test]
    fn lines_name_the_vertex_when_it_changes() {
        let mut plain = Plain::default();
        let (a, b) = (VertexId(1), VertexId(2));
        let log = |vertex, text: &str| Event::Log { vertex, stream: Stream::Stdout, bytes: text.into() };
        let mut text = String::new();
        for event in [
            Event::Started { vertex: a, name: "[1/2] RUN a".to_owned() },
            Event::Missed { vertex: a, reason: Reason::File(vec!["x changed".to_owned()]) },
            log(a, "one\ntw"),
            Event::Started { vertex: b, name: "[2/2] COPY b".to_owned() },
            Event::Finished { vertex: b, how: How::Hit(None), took: Duration::ZERO },
            log(a, "o"),
            Event::Finished { vertex: a, how: How::Worked, took: Duration::from_millis(1234) },
        ] {
            text.push_str(&plain.render(&event));
        }
        let seconds = |line: &str| line.replace("0.000", "T").replace("0.001", "T");
        insta::assert_snapshot!(seconds(&text), @r"
        #1 [1/2] RUN a
        #1 MISS  x changed
        #1 T one

        #2 [2/2] COPY b
        #2 CACHED

        #1 [1/2] RUN a
        #1 T two
        #1 DONE 1.2s
        ");
    }

    #[test]
    fn sizes_have_three_digits() {
        assert_eq!([size(999), size(1500), size(15_600_000), size(170_400_000)], ["999B", "1.50kB", "15.6MB", "170MB"]);
    }
}
