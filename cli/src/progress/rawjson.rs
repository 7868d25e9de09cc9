//! Progress as JSON lines, in the shape that buildx prints with `--progress=rawjson`.

use std::collections::HashMap;
use std::io::Write as _;

use serde_json::{Value, json};
use solver::{Event, How, Stream, VertexId};

/// State of the JSON display.
#[derive(Default)]
pub(super) struct RawJson {
    vertices: HashMap<VertexId, (String, String)>,
}

impl RawJson {
    pub(super) fn event(&mut self, event: &Event) {
        if let Some(value) = self.render(event) {
            // A closed standard error is no reason to stop a build.
            drop(writeln!(std::io::stderr().lock(), "{value}"));
        }
    }

    fn render(&mut self, event: &Event) -> Option<Value> {
        let now = jiff::Timestamp::now().to_string();
        Some(match event {
            Event::Started { vertex, name } => {
                self.vertices.insert(*vertex, (name.clone(), now));
                json!({"vertexes": [self.vertex(*vertex)]})
            }
            Event::Finished { vertex, how, .. } => {
                let mut value = self.vertex(*vertex);
                value["completed"] = json!(now);
                value["cached"] = json!(matches!(how, How::Hit(_)));
                json!({"vertexes": [value]})
            }
            Event::Failed { vertex, message } => {
                let mut value = self.vertex(*vertex);
                value["completed"] = json!(now);
                value["error"] = json!(message);
                json!({"vertexes": [value]})
            }
            Event::Cancelled { vertex } => {
                let mut value = self.vertex(*vertex);
                value["completed"] = json!(now);
                value["error"] = json!("canceled");
                json!({"vertexes": [value]})
            }
            Event::Log { vertex, stream, bytes } => {
                let stream = if *stream == Stream::Stdout { 1 } else { 2 };
                json!({"logs": [{"vertex": digest(*vertex), "stream": stream, "data": base64(bytes), "timestamp": now}]})
            }
            Event::Progress { vertex, what, current, total } => json!({"statuses": [{
                "id": what, "vertex": digest(*vertex), "name": what, "total": total.unwrap_or(0), "current": current,
                "timestamp": now,
            }]}),
            Event::Warning { message } => json!({"warnings": [{"short": base64(message.as_bytes())}]}),
            Event::Missed { .. } => return None,
        })
    }

    fn vertex(&self, vertex: VertexId) -> Value {
        let (name, started) = self.vertices.get(&vertex).cloned().unwrap_or_default();
        json!({"digest": digest(vertex), "name": name, "started": started})
    }
}

/// Vertices are told apart by digests there; any will do.
fn digest(vertex: VertexId) -> String {
    oci::Digest::of(vertex.0.to_be_bytes()).to_string()
}

/// RFC 4648 base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let index = (word >> (18 - 6 * i) & 63) as usize;
            out.push(if i <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_pads() {
        let encoded: Vec<String> = ["", "f", "fo", "foo", "foob"].iter().map(|s| super::base64(s.as_bytes())).collect();
        assert_eq!(encoded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }
}
