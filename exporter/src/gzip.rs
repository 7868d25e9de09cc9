//! Compresses on all processors into one gzip member (RFC 1952), which every reader understands; some read only the first of
//! several members. Blocks are deflated on their own, each with the 32 KiB before it as dictionary and a sync flush behind
//! it, so that they can be put one after another (as pigz does). The result depends on data and level alone.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use flate2::{Compress, Crc, FlushCompress, Status};

/// Bytes per block. Larger ones gain 0.1 % in size, smaller ones balance better.
const BLOCK: usize = 256 << 10;

/// The farthest back deflate can refer.
const WINDOW: usize = 32 << 10;

/// ID, deflate, no flags, no time, no hints, unknown system: nothing that differs from one run to the next.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Compresses all of `input`, in parallel on the rayon pool. Must not be called on a thread of that pool, which it waits for.
/// At most two blocks per processor are in memory.
///
/// # Errors
/// Those of `input` and `output`.
pub(crate) fn compress(input: &mut dyn Read, output: &mut dyn Write, level: u32) -> io::Result<()> {
    output.write_all(&HEADER)?;
    let limit = rayon::current_num_threads() * 2;
    let mut pending: VecDeque<Receiver<io::Result<Vec<u8>>>> = VecDeque::with_capacity(limit);
    let mut crc = Crc::new();
    let mut before = Arc::new(Vec::new());
    loop {
        let block = Arc::new(read_block(input)?);
        crc.update(&block);
        let last = block.len() < BLOCK;
        if pending.len() >= limit {
            write_first(&mut pending, output)?;
        }
        pending.push_back(start(before, block.clone(), level, last));
        before = block;
        if last {
            break;
        }
    }
    while !pending.is_empty() {
        write_first(&mut pending, output)?;
    }
    output.write_all(&crc.sum().to_le_bytes())?;
    output.write_all(&crc.amount().to_le_bytes())
}

fn read_block(input: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut block = Vec::with_capacity(BLOCK);
    input.take(BLOCK as u64).read_to_end(&mut block)?;
    Ok(block)
}

fn start(before: Arc<Vec<u8>>, block: Arc<Vec<u8>>, level: u32, last: bool) -> Receiver<io::Result<Vec<u8>>> {
    let (done, result) = sync_channel(1);
    rayon::spawn(move || {
        let dictionary = &before[before.len().saturating_sub(WINDOW)..];
        // Nobody waits any more when reading or writing has failed.
        done.send(deflate(dictionary, &block, level, last)).unwrap_or_default();
    });
    result
}

fn write_first(pending: &mut VecDeque<Receiver<io::Result<Vec<u8>>>>, output: &mut dyn Write) -> io::Result<()> {
    match pending.pop_front() {
        None => Ok(()),
        Some(block) => output.write_all(&block.recv().map_err(io::Error::other)??),
    }
}

/// One block, ended on a byte border.
fn deflate(dictionary: &[u8], block: &[u8], level: u32, last: bool) -> io::Result<Vec<u8>> {
    let mut deflater = Compress::new(flate2::Compression::new(level), false);
    if !dictionary.is_empty() {
        deflater.set_dictionary(dictionary).map_err(io::Error::other)?;
    }
    // Data that does not shrink grows by 5 bytes per 16 KiB.
    let mut out = Vec::with_capacity(block.len() + block.len() / 1024 + 64);
    let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
    loop {
        let read = usize::try_from(deflater.total_in()).map_err(io::Error::other)?;
        let status = deflater.compress_vec(&block[read..], &mut out, flush).map_err(io::Error::other)?;
        let all_read = deflater.total_in() == block.len() as u64;
        match status {
            Status::StreamEnd => return Ok(out),
            // A flush is complete when it left room (zlib.h, "deflate").
            Status::Ok | Status::BufError if !last && all_read && out.len() < out.capacity() => return Ok(out),
            _ => out.reserve(out.capacity() / 2 + 64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::bufread::GzDecoder;
    use proptest::prelude::*;

    fn compressed(data: &[u8], level: u32) -> Vec<u8> {
        let mut out = Vec::new();
        compress(&mut &data[..], &mut out, level).unwrap();
        out
    }

    #[track_caller]
    fn survives(data: &[u8], level: u32) {
        let packed = compressed(data, level);
        let mut rest = packed.as_slice();
        let mut back = Vec::new();
        GzDecoder::new(&mut rest).read_to_end(&mut back).unwrap();
        assert!(back == data, "level {level}, {} bytes", data.len());
        assert!(rest.is_empty(), "one member");
    }

    /// Bytes of middling entropy without a generator.
    fn noise(len: usize) -> Vec<u8> {
        let mut x = 1u32;
        let step = |_| {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (x >> 24) as u8
        };
        (0..len).map(step).collect()
    }

    #[test]
    fn sizes_around_the_block_survive() {
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 20 * BLOCK + 17] {
            survives(&noise(len), 5);
            survives(&vec![b'a'; len], 5);
        }
        for level in 0..=9 {
            survives(&noise(BLOCK + 100), level);
        }
    }

    #[test]
    fn the_result_does_not_depend_on_the_number_of_threads() {
        let data = noise(9 * BLOCK);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let alone = deflate(&data[..WINDOW], &data[WINDOW..BLOCK], 5, false).unwrap();
        assert_eq!(pool.install(|| deflate(&data[..WINDOW], &data[WINDOW..BLOCK], 5, false).unwrap()), alone);
        assert_eq!(compressed(&data, 5), compressed(&data, 5));
    }

    #[test]
    fn blocks_share_a_window() {
        let once = noise(WINDOW / 2);
        let repeated = once.repeat(128);
        assert!(compressed(&repeated, 6).len() < repeated.len() / 40);
    }

    proptest! {
        #[test]
        fn anything_survives(data in proptest::collection::vec(any::<u8>(), 0..5000), level in 0u32..10) {
            survives(&data, level);
        }
    }
}
