//! Where a layer tar goes: gathered in large buffers, hashed and written, in the caller's thread or on one of its own. With a
//! thread, reading the next files goes on beside hashing and writing the last ones. Knows nothing of what the bytes mean.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::{Digest, DigestWriter};

/// Bytes that are hashed and written at a time.
const BUFFER: usize = 1 << 20;
/// Full buffers that may wait for the thread.
const WAITING: usize = 2;

/// Takes the bytes of a tar.
pub(super) struct TarOutput<W> {
    /// What is not passed on yet; never longer than [`BUFFER`].
    buffer: Vec<u8>,
    /// Bytes taken in all.
    written: u64,
    sink: Sink<W>,
}

/// Who hashes and writes.
enum Sink<W> {
    /// The caller's thread.
    Here(DigestWriter<W>),
    /// A thread, once there is more than one buffer for it.
    Later(DigestWriter<W>, fn(DigestWriter<W>) -> Background<W>),
    /// A thread.
    Background(Background<W>),
    /// Nobody any more: the thread has failed.
    Failed,
}

/// A thread at work.
struct Background<W> {
    full: SyncSender<Vec<u8>>,
    /// Buffers come back, so that their pages are not asked from the kernel again and again.
    empty: Receiver<Vec<u8>>,
    thread: JoinHandle<io::Result<DigestWriter<W>>>,
}

impl<W: Write> TarOutput<W> {
    /// Hashes and writes in the caller's thread.
    pub(super) fn new(out: W) -> Self {
        Self { buffer: Vec::new(), written: 0, sink: Sink::Here(DigestWriter::new(out)) }
    }

    /// Bytes taken so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Takes at most `want` bytes from `data`, and says how many: none at its end.
    ///
    /// # Errors
    /// [`Taken::Input`] when `data` can't be read, [`Taken::Output`] when earlier bytes could not be written.
    pub(super) fn take(&mut self, data: &mut dyn Read, want: usize) -> Result<usize, Taken> {
        if self.buffer.len() == BUFFER {
            self.pass_on().map_err(Taken::Output)?;
        }
        let start = self.buffer.len();
        self.buffer.resize(start.saturating_add(want).min(BUFFER), 0);
        let got = loop {
            match data.read(&mut self.buffer[start..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(start + got.as_ref().copied().unwrap_or(0));
        let got = got.map_err(Taken::Input)?;
        self.written += got as u64;
        Ok(got)
    }

    /// Passes everything on and waits until it is written; the writer, the digest of all and its size.
    ///
    /// # Errors
    /// When something could not be written.
    pub(super) fn finish(mut self) -> io::Result<(W, Digest, u64)> {
        let mut out = match self.sink {
            Sink::Here(out) | Sink::Later(out, _) => out,
            Sink::Background(background) => background.end()?,
            Sink::Failed => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        out.write_all(&self.buffer)?;
        out.flush()?;
        self.buffer.clear();
        Ok(out.finish())
    }

    fn pass_on(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::Here(out) => {
                out.write_all(&self.buffer)?;
                self.buffer.clear();
                return Ok(());
            }
            Sink::Background(background) => {
                let next = background.empty.try_recv().unwrap_or_default();
                let full = std::mem::replace(&mut self.buffer, next);
                if background.full.send(full).is_ok() {
                    return Ok(());
                }
            }
            Sink::Later(..) | Sink::Failed => {}
        }
        match std::mem::replace(&mut self.sink, Sink::Failed) {
            Sink::Later(out, start) => {
                self.sink = Sink::Background(start(out));
                self.pass_on()
            }
            // It takes nothing any more, so it has failed; its end says with what.
            Sink::Background(background) => background.end().and(Err(io::ErrorKind::BrokenPipe.into())),
            Sink::Here(_) | Sink::Failed => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Why bytes were not taken.
#[derive(Debug)]
pub(super) enum Taken {
    /// They can't be read.
    Input(io::Error),
    /// What came before them can't be written.
    Output(io::Error),
}

impl<W: Write + Send + 'static> TarOutput<W> {
    /// Hashes and writes on a thread, unless it is all so little that a thread is not worth it.
    pub(super) fn in_background(out: W) -> Self {
        Self { buffer: Vec::new(), written: 0, sink: Sink::Later(DigestWriter::new(out), Background::start) }
    }
}

impl<W: Write> Write for TarOutput<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == BUFFER {
            self.pass_on()?;
        }
        let taken = buf.len().min(BUFFER - self.buffer.len());
        self.buffer.extend_from_slice(&buf[..taken]);
        self.written += taken as u64;
        Ok(taken)
    }

    /// Nothing is promised before [`TarOutput::finish`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write + Send + 'static> Background<W> {
    fn start(mut out: DigestWriter<W>) -> Self {
        let (full, work) = sync_channel::<Vec<u8>>(WAITING);
        let (give_back, empty) = sync_channel(WAITING + 1);
        let thread = std::thread::spawn(move || {
            while let Ok(mut buffer) = work.recv() {
                out.write_all(&buffer)?;
                buffer.clear();
                // The other side may have ended meanwhile; then nobody needs the buffer.
                drop(give_back.try_send(buffer));
            }
            Ok(out)
        });
        Self { full, empty, thread }
    }
}

impl<W> Background<W> {
    /// Waits until all is written.
    fn end(self) -> io::Result<DigestWriter<W>> {
        drop((self.full, self.empty));
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl<W> fmt::Debug for TarOutput<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TarOutput").field("written", &self.written).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn a_thread_writes_the_same() {
        for len in [0, 1, BUFFER - 1, BUFFER, BUFFER + 1, 7 * BUFFER + 3] {
            let data = bytes(len);
            for mut output in [TarOutput::new(Vec::new()), TarOutput::in_background(Vec::new())] {
                let (head, tail) = data.split_at(len / 3);
                output.write_all(head).unwrap();
                let mut tail = tail;
                while output.take(&mut tail, 300_000).unwrap() > 0 {}
                assert_eq!(output.written(), len as u64);
                let (out, digest, size) = output.finish().unwrap();
                assert!(out == data, "{len}");
                assert_eq!((digest, size), (Digest::of(&data), len as u64));
            }
        }
    }

    /// Takes so many bytes.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(buf.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_noticed() {
        let data = bytes(9 * BUFFER);
        for fits in [0, 1, 5 * BUFFER, 9 * BUFFER - 1] {
            for mut output in [TarOutput::new(Full(fits)), TarOutput::in_background(Full(fits))] {
                let written = output.write_all(&data);
                let ended = written.and_then(|()| output.finish().map(drop));
                assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::StorageFull, "{fits}");
            }
        }
    }
}
