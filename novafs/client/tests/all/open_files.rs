//! Files that are opened and changed in place: what is seen, what survives, and what is said when it does not.
use std::time::{Duration, Instant};

use novafs_client::{At, Attributes, Client, ClientError, File, OpenOptions, RefusalCode};

use super::region::{Region, options, put};

const MAKE: OpenOptions = OpenOptions {
    write: true,
    create: true,
    exclusive: false,
    truncate: false,
    mode: 0o640,
    owner: novafs_client::Owner { uid: 0, gid: 0 },
};
const WRITE: OpenOptions = OpenOptions { create: false, ..MAKE };
const PATH: &str = "/hot/open";

fn read_all(file: &File) -> Vec<u8> {
    let mut found = vec![0; usize::try_from(file.bytes()).unwrap() + 10];
    let count = file.read_at(0, &mut found).unwrap();
    found.truncate(count);
    found
}

/// What a program on another host sees.
fn seen_by_others(client: &Client) -> Vec<u8> {
    let mut found = Vec::new();
    client.read(PATH, 0..u64::MAX, &mut found, &novafs_client::Progress::default()).unwrap();
    found
}

fn pattern(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from((at * 7 + at / 253 + seed * 31) % 251 + 1).unwrap()).collect()
}

#[test]
fn small_writes_are_gathered_and_read_before_anyone_else_sees_them() {
    let region = Region::start();
    let (client, other) = (region.client(), region.client());
    let file = client.open(PATH, &MAKE).unwrap();
    let content = pattern(100_000, 1);
    for (index, piece) in content.chunks(100).enumerate() {
        file.write_at(index as u64 * 100, piece).unwrap();
    }
    assert_eq!(region.disk.lock().unwrap().writes, 0, "under 1 MiB nothing is sent");
    assert_eq!(read_all(&file), content);
    assert_eq!(client.stat(PATH).unwrap().bytes, 100_000, "the writer sees its own length");
    assert_eq!(other.stat(At::inode(file.inode())).unwrap().bytes, 0);
    file.sync().unwrap();
    assert_eq!(seen_by_others(&other), content);
    let writes = region.disk.lock().unwrap().writes;
    file.sync().unwrap();
    file.close().unwrap();
    assert_eq!(region.disk.lock().unwrap().writes, writes, "nothing new, nothing sent");
    assert!(writes <= 2, "{writes}");
    assert_eq!(region.metadata().inodes.at(PATH).writer, None, "the place is given up");
    assert_eq!(region.metadata().inodes.at(PATH).mode, 0o640);
}

#[test]
fn any_order_of_writes_cuts_syncs_and_reopens_gives_the_bytes_of_a_local_file() {
    let region = Region::start();
    let client = region.client();
    let mut random = fastrand::Rng::with_seed(11);
    let mut model: Vec<u8> = Vec::new();
    let mut file = client.open(PATH, &MAKE).unwrap();
    for step in 0..600 {
        let at = random.usize(0..3 << 20);
        match random.u8(0..100) {
            0..50 => {
                let bytes =
                    if random.u8(0..8) == 0 { random.usize(1..2 << 20) } else { random.usize(1..9000) };
                let data = pattern(bytes, step);
                file.write_at(at as u64, &data).unwrap();
                model.resize(model.len().max(at + bytes), 0);
                model[at..at + bytes].copy_from_slice(&data);
            }
            50..60 => {
                let data = pattern(random.usize(1..5000), step);
                assert_eq!(file.append(&data).unwrap(), model.len() as u64);
                model.extend_from_slice(&data);
            }
            60..75 => {
                let bytes = if random.bool() { at } else { model.len() / 2 };
                file.set_bytes(bytes as u64).unwrap();
                model.resize(bytes, 0);
            }
            75..85 => {
                let mut found = vec![0; random.usize(1..200_000)];
                let count = file.read_at(at as u64, &mut found).unwrap();
                let end = model.len().min(at + found.len()).max(at.min(model.len()));
                assert!(found[..count] == model[at.min(end)..end], "step {step}");
            }
            85..92 => file.sync().unwrap(),
            92..96 => {
                file.close().unwrap();
                assert!(seen_by_others(&client) == model, "step {step}");
                file = client.open(PATH, &WRITE).unwrap();
            }
            _ => assert!(read_all(&file) == model, "step {step}"),
        }
        assert_eq!(file.bytes(), model.len() as u64, "step {step}");
    }
    file.close().unwrap();
    assert!(seen_by_others(&client) == model);
    assert!(region.disk.lock().unwrap().trims > 0);
}

#[test]
fn far_apart_writes_make_blocks_and_holes_between_them() {
    let region = Region::start();
    let client = region.client();
    let file = client.open(PATH, &MAKE).unwrap();
    let edge = 128 << 20;
    file.write_at(edge - 3, b"abcdef").unwrap();
    file.write_at(5 * edge + 7, b"end").unwrap();
    file.close().unwrap();
    let blocks = region.metadata().inodes.at(PATH).blocks.clone();
    let shape: Vec<_> = blocks.iter().map(|block| (block.offset, block.bytes)).collect();
    assert_eq!(shape, [(0, edge), (edge, 3), (5 * edge, 10)]);
    let file = client.open(PATH, &OpenOptions::default()).unwrap();
    let mut found = [9; 8];
    file.read_at(edge - 4, &mut found).unwrap();
    assert_eq!(&found, b"\0abcdef\0");
    assert_eq!(file.read_at(5 * edge + 5, &mut found).unwrap(), 5);
    assert_eq!(&found[..5], b"\0\0end");
}

#[test]
fn what_was_put_is_changed_in_place_and_fenced_once_a_turn() {
    let region = Region::start();
    let client = region.client();
    let files = region.make_files(&[3_000_000]);
    put(&client, &files, &options());
    let (path, mut content) = (&files[0].0.target, files[0].1.clone());
    for turn in 1..=2 {
        let file = client.open(path, &WRITE).unwrap();
        for at in [10, 2_000_000, 2_999_999] {
            file.write_at(at, b"new").unwrap();
            let at = usize::try_from(at).unwrap();
            content.resize(content.len().max(at + 3), 0);
            content[at..at + 3].copy_from_slice(b"new");
        }
        file.close().unwrap();
        assert_eq!(region.disk.lock().unwrap().fences, turn);
    }
    let file = client.open(path, &OpenOptions::default()).unwrap();
    assert!(read_all(&file) == content);
}

#[test]
fn what_was_cut_off_does_not_come_back_when_the_file_grows() {
    let region = Region::start();
    let client = region.client();
    let file = client.open(PATH, &MAKE).unwrap();
    file.write_at(0, &pattern(200_000, 3)).unwrap();
    file.set_bytes(70_000).unwrap();
    file.set_bytes(150_000).unwrap();
    file.write_at(199_999, b"x").unwrap();
    file.close().unwrap();
    let mut expected = pattern(70_000, 3);
    expected.resize(199_999, 0);
    expected.push(b'x');
    assert!(seen_by_others(&client) == expected);
    assert!(!region.metadata().inodes.at(PATH).blocks[0].trim_pending);
}

#[test]
fn a_data_plane_that_dies_is_written_to_again_in_another_turn() {
    let mut region = Region::start();
    let client = region.client();
    let file = client.open(PATH, &MAKE).unwrap();
    let content = pattern(8 << 20, 5);
    file.write_at(0, &content[..1 << 20]).unwrap();
    region.disk.lock().unwrap().dies_after_writes = Some(3);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for (index, piece) in content.chunks(300_000).enumerate() {
                file.write_at(index as u64 * 300_000, piece)?;
            }
            file.sync()
        });
        let started = Instant::now();
        while !region.novad.as_ref().unwrap().is_dead() {
            assert!(started.elapsed() < Duration::from_secs(10), "it never died");
            std::thread::sleep(Duration::from_millis(5));
        }
        region.disk.lock().unwrap().dies_after_writes = None;
        region.start_novad();
        writing.join().unwrap().unwrap();
    });
    assert!(seen_by_others(&client) == content);
    assert_eq!(region.metadata().inodes.at(PATH).turn, 2);
}

#[test]
fn a_session_that_ends_with_uncommitted_writes_breaks_the_file_and_says_so() {
    let region = Region::start();
    let client = region.client();
    let file = client.open(PATH, &MAKE).unwrap();
    file.write_at(0, b"first").unwrap();
    file.sync().unwrap();
    file.write_at(0, &pattern(2 << 20, 1)).unwrap();
    region.metadata().end_sessions();
    let error = file.sync().unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error}");
    assert!(error.to_string().contains("lost"), "{error}");
    assert!(matches!(file.sync(), Err(ClientError::Broken { .. })), "also the second time");
    assert!(matches!(file.read_at(0, &mut [0; 5]), Err(ClientError::Broken { .. })));
    assert!(file.close().is_err());
    let file = client.open(PATH, &WRITE).unwrap();
    file.write_at(5, b" and more").unwrap();
    file.close().unwrap();
    // The first five bytes were overwritten durably before the session ended; the length was not.
    assert_eq!(seen_by_others(&client)[5..], *b" and more");
}

#[test]
fn a_session_that_ends_while_nothing_is_uncommitted_is_replaced() {
    let region = Region::start();
    let client = region.client();
    let file = client.open(PATH, &MAKE).unwrap();
    file.write_at(0, b"first").unwrap();
    file.sync().unwrap();
    region.metadata().end_sessions();
    // The client hears of it with its next request.
    client.open("/hot/other", &MAKE).unwrap().close().unwrap();
    file.write_at(5, b" second").unwrap();
    file.sync().unwrap();
    file.close().unwrap();
    assert_eq!(seen_by_others(&client), b"first second");
}

#[test]
fn a_file_has_one_writing_client() {
    let region = Region::start();
    let (client, other) = (region.client(), region.client());
    let file = client.open(PATH, &MAKE).unwrap();
    let second = client.open(PATH, &WRITE).unwrap();
    let refused = other.open(PATH, &WRITE).unwrap_err();
    assert!(matches!(refused, ClientError::Refused { code: RefusalCode::Busy, .. }), "{refused}");
    file.write_at(0, b"one").unwrap();
    second.write_at(3, b" two").unwrap();
    file.close().unwrap();
    assert!(other.open(PATH, &WRITE).is_err(), "the second handle still writes");
    assert_eq!(read_all(&second), b"one two");
    second.close().unwrap();
    let third = other.open(PATH, &OpenOptions { truncate: true, ..WRITE }).unwrap();
    assert_eq!(third.bytes(), 0);
    let exists = client.open(PATH, &OpenOptions { exclusive: true, ..MAKE }).unwrap_err();
    assert!(matches!(exists, ClientError::Refused { code: RefusalCode::AlreadyExists, .. }), "{exists}");
}

#[test]
fn an_open_that_metadata_hears_before_the_close_before_it_takes_a_place_of_its_own() {
    for bytes in [0, 5] {
        let region = Region::start();
        let client = region.client();
        let first = client.open(PATH, &MAKE).unwrap();
        first.write_at(0, &b"first"[..bytes]).unwrap();
        region.metadata().delay_leaving = true;
        std::thread::scope(|scope| {
            scope.spawn(|| first.close().unwrap());
            while region.metadata().leaving == 0 {
                std::thread::yield_now();
            }
            let second = client.open(PATH, &WRITE).unwrap();
            second.set_bytes(3).unwrap();
            second.close().unwrap();
        });
        assert_eq!(seen_by_others(&client).len(), 3);
    }
}

#[test]
fn full_replicas_are_an_error_and_what_was_gathered_is_tried_again() {
    let region = Region::start();
    let client = region.client();
    let file = client.open(PATH, &MAKE).unwrap();
    file.write_at(0, b"kept").unwrap();
    region.disk.lock().unwrap().full = true;
    let error = file.sync().unwrap_err();
    assert!(error.to_string().contains("is full"), "{error}");
    assert_eq!(read_all(&file), b"kept");
    region.disk.lock().unwrap().full = false;
    file.close().unwrap();
    assert_eq!(seen_by_others(&client), b"kept");
}

#[test]
fn a_time_that_is_set_stays_when_the_file_is_closed() {
    let region = Region::start();
    let client = region.client();
    let file = client.open(PATH, &MAKE).unwrap();
    file.write_at(0, b"x").unwrap();
    assert!(client.stat(At::inode(file.inode())).unwrap().modified_ns > 1_000_000_000_000_000_000);
    let time = Attributes { modified_ns: Some(42), ..Attributes::default() };
    assert_eq!(client.set_attributes(At::inode(file.inode()), time).unwrap().modified_ns, 42);
    file.sync().unwrap();
    file.close().unwrap();
    assert_eq!(region.metadata().inodes.at(PATH).modified_ns, 42);
    assert_eq!(seen_by_others(&client), b"x");
}

#[test]
fn appends_of_many_threads_do_not_overlap() {
    let region = Region::start();
    let client = region.client();
    let file = client.open(PATH, &MAKE).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let file = &file;
            scope.spawn(move || {
                for _ in 0..200 {
                    file.append(&[thread + 1; 1000]).unwrap();
                }
            });
        }
    });
    let found = read_all(&file);
    assert_eq!(found.len(), 800_000);
    assert!(found.chunks(1000).all(|piece| piece[0] != 0 && piece.iter().all(|byte| *byte == piece[0])));
}
