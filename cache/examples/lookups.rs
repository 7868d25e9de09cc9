//! How long it takes to look up the steps of a build in a large store: fills a store in a temporary directory with records, then looks
//! some of them up from a fresh opening, as a build does. `cargo run -p cache --example lookups -- [RECORDS [LOOKUPS]]`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::time::{Duration, Instant};

use cache::{Filing, Manifest, Record, Store, Timestamp};
use oci::{DiffId, Digest};

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>().unwrap());
    let (records, lookups) = (numbers.next().unwrap_or(100_000), numbers.next().unwrap_or(1_000));
    let dir = std::env::temp_dir().join(format!("rbuild-lookups-{}", std::process::id()));
    let began = Instant::now();
    fill(&dir, records, lookups);
    println!("{records} records filed in {:.1?}", began.elapsed());
    for round in 1..=5 {
        let began = Instant::now();
        let store = Store::open(&dir).unwrap();
        for number in 0..lookups {
            assert!(store.record(&key(spread(number, records, lookups))).unwrap().is_some());
        }
        let found = began.elapsed();
        store.flush().unwrap();
        println!("round {round}: {lookups} steps looked up in {found:.1?}, {:.1?} with the flush", began.elapsed());
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// The records that are looked up lie all over the table.
fn spread(number: usize, records: usize, lookups: usize) -> usize {
    number * records / lookups
}

fn text(number: usize) -> String {
    format!(
        "schema: 1\nop: run\nbase: sha256:{number:064x}\nplatform: linux/amd64\narg: /bin/sh\narg: -c\narg: make {number}\n"
    )
}

fn key(number: usize) -> Digest {
    Digest::of(text(number))
}

/// Layers are only asked whether they are there, so each is one empty file.
fn fill(dir: &std::path::Path, records: usize, lookups: usize) {
    let store = Store::open(dir).unwrap();
    for number in 0..records {
        let text = text(number);
        let key = Digest::of(&text);
        let record = Record {
            key,
            slot: format!("/app\n/app/Dockerfile\n0\n{}", number % 50),
            layer: Some(DiffId(key)),
            base: None,
            created: Timestamp::now(),
            last_used: Timestamp(0),
            duration: Duration::from_millis(12),
            log: Some(key),
        };
        store.put_record(&record, Filing { manifest: Manifest { text: &text, blobs: &[] }, definition: None }).unwrap();
    }
    for number in 0..lookups {
        std::fs::write(store.layer_tar_path(&DiffId(key(spread(number, records, lookups)))), "").unwrap();
    }
    store.flush().unwrap();
}
