//! Reading layers of any form: tells the compression by the first bytes, since media types are often wrong.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use oci::{Descriptor, Digest, DigestWriter};
use std::io::Write;

const BUFFER: usize = 256 << 10;

/// The forms layers and archives come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Gzip,
    Zstd,
    /// One that is not read here, by its name.
    Foreign(&'static str),
}

/// Tells a form by the first bytes.
pub(crate) fn sniff(start: &[u8]) -> Form {
    match start {
        [0x1f, 0x8b, ..] => Form::Gzip,
        // The second is a skippable frame (RFC 8878 §3.1.2), which may come first.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Form::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Form::Foreign("xz"),
        [b'B', b'Z', b'h', ..] => Form::Foreign("bzip2"),
        _ => Form::Plain,
    }
}

/// A reader of the plain bytes.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] for a form that is not read here; those of `input`.
pub(crate) fn plain<'a>(input: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut input = BufReader::with_capacity(BUFFER, input);
    Ok(match sniff(fill(&mut input)?) {
        Form::Plain => Box::new(input),
        Form::Gzip => Box::new(MultiGzDecoder::new(input)),
        Form::Zstd => Box::new(zstd::Decoder::with_buffer(input)?),
        Form::Foreign(name) => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, format!("{name} compression is not supported")));
        }
    })
}

/// The first bytes, at least six if there are so many.
fn fill<R: Read>(input: &mut BufReader<R>) -> io::Result<&[u8]> {
    // A short first read is rare, and then told as plain: pipes deliver far more than six bytes at once.
    input.fill_buf()?;
    Ok(input.buffer())
}

/// Passes bytes through and knows in the end whether they were the blob of a descriptor.
pub(crate) struct Checked<R> {
    inner: R,
    hasher: DigestWriter<io::Sink>,
}

/// What a blob turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl Seen {
    pub(crate) fn is(self, blob: &Descriptor) -> bool {
        self.digest == blob.digest && self.size == blob.size
    }
}

impl<R: Read> Checked<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, hasher: DigestWriter::new(io::sink()) }
    }

    /// Reads what is left and tells what all of it was.
    pub(crate) fn finish(mut self) -> io::Result<Seen> {
        io::copy(&mut self, &mut io::sink())?;
        let (_, digest, size) = self.hasher.finish();
        Ok(Seen { digest, size })
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.write_all(&buf[..n])?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        plain(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        crate::gzip::compress(&mut &data[..], &mut out, 5).unwrap();
        out
    }

    #[test]
    fn forms_are_told_by_their_bytes() {
        assert_eq!(read(b"plain").unwrap(), b"plain");
        assert_eq!(read(b"").unwrap(), b"");
        assert_eq!(read(&[gzip(b"one "), gzip(b"two")].concat()).unwrap(), b"one two");
        let frame = |data: &[u8]| zstd::encode_all(data, 3).unwrap();
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        let frames = [&skippable[..], &frame(b"one "), &skippable, &frame(b"two"), &skippable].concat();
        assert_eq!(read(&frames).unwrap(), b"one two");
        assert_eq!(read(b"BZh91AY").unwrap_err().kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn torn_streams_are_errors() {
        let whole = gzip(&[7; 1000]);
        assert!(read(&whole[..whole.len() - 4]).is_err());
        let whole = zstd::encode_all(&[7; 1000][..], 3).unwrap();
        assert!(read(&whole[..whole.len() - 1]).is_err());
    }
}
