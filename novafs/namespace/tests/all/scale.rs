//! A million files: memory, speed, and a snapshot that stalls nobody.

use std::time::{Duration, Instant};

use novafs_namespace::{FILES_PER_PUBLISH_MAX, ListAsk, Namespace};

use crate::kit::{Log, file};

const FILES: usize = 1_000_000;

/// Resident memory of this process, in bytes.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// What this thread has had of a core; on a busy machine that is the figure.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test measures; the state still sees no clock")]
fn long_a_million_files_are_published_and_written_out_while_writes_go_on() {
    let mut log = Log::default();
    let session = log.open();
    let path = |n: usize| format!("/hot/d{}/e{}/file-{n}", n / 100_000, n / 1000);
    let numbers: Vec<usize> = (0..FILES).collect();
    let empty = resident_bytes();
    let mut publishing = Duration::ZERO;
    let publish = |log: &mut Log, numbers: &[usize]| {
        let first = log.reserve(session, u32::try_from(numbers.len()).unwrap());
        let files = numbers.iter().zip(first..).map(|(n, block)| file(&path(*n), block, 100)).collect();
        let used = cpu_time();
        assert!(log.publish(session, files, false).iter().all(|outcome| outcome.failure.is_none()));
        cpu_time() - used
    };
    for chunk in numbers.chunks(FILES_PER_PUBLISH_MAX) {
        publishing += publish(&mut log, chunk);
    }
    let bytes_per_file = (resident_bytes() - empty) / FILES;
    let per_second = FILES as f64 / publishing.as_secs_f64();

    // Another thread writes a snapshot out while commands go on.
    let state = log.namespace.clone();
    let writer = std::thread::spawn(move || {
        let (begun, used, mut bytes) = (Instant::now(), cpu_time(), 0_usize);
        state.encode(&mut |piece| bytes += piece.len());
        (begun.elapsed(), cpu_time() - used, bytes)
    });
    let (mut slowest, mut meanwhile) = (Duration::ZERO, 0_usize);
    while !writer.is_finished() {
        let numbers: Vec<usize> = (FILES + meanwhile..FILES + meanwhile + 100).collect();
        slowest = slowest.max(publish(&mut log, &numbers));
        meanwhile += 100;
    }
    let (encoding, encoding_cpu, encoded) = writer.join().unwrap();

    let begun = Instant::now();
    let (mut pages, mut listed, mut after) = (0, 0, String::new());
    loop {
        let ask = ListAsk { path: "/hot/d3/e300", after: &after, with_blocks: true, ..ListAsk::default() };
        let page = log.namespace.list(&ask).unwrap();
        (pages, listed) = (pages + 1, listed + page.entries.len());
        after = page.entries.last().unwrap().name.to_string();
        if !page.more {
            break;
        }
    }
    let listing = begun.elapsed();
    eprintln!(
        "{bytes_per_file} bytes of memory a file, {per_second:.0} files published per CPU-second, snapshot of \
         {encoded} bytes in {encoding:?} ({encoding_cpu:?} of CPU) while {meanwhile} files were published, the slowest 100 in {slowest:?} of CPU; {listed} files with \
         blocks in {pages} pages in {listing:?}"
    );
    assert_eq!(log.namespace.usage(0, "/hot").unwrap().0.files, (FILES + meanwhile) as u64);
    assert_eq!((listed, pages), (1000, 1));
    assert!(bytes_per_file < 700, "{bytes_per_file} bytes a file");
    assert!(meanwhile > 0, "writes go on");

    let mut bytes = Vec::new();
    log.namespace.encode(&mut |piece| bytes.extend_from_slice(piece));
    let used = cpu_time();
    let read = Namespace::decode(&bytes).unwrap();
    eprintln!("read again in {:?} of CPU", cpu_time() - used);
    assert_eq!(read.usage(0, "/").unwrap(), log.namespace.usage(0, "/").unwrap());
}
