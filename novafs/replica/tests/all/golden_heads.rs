//! Bytes on the wire stay as they were. `NOVA_BLESS=1` writes the files anew after a deliberate change of the
//! protocol, which then also raises `HEAD_VERSION`.

use std::path::PathBuf;

use novafs_format::LogEntry;
use novafs_replica::message::{HEAD_BYTES_MAX, HEAD_VERSION, UNITS_MAX};
use novafs_replica::{Answer, HeadError, Message};

use super::samples;

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz/heads")
}

fn check(name: &str, head: &[u8]) {
    let path = folder().join(format!("{name}.bin"));
    if std::env::var_os("NOVA_BLESS").is_some() {
        std::fs::create_dir_all(folder()).unwrap();
        std::fs::write(&path, head).unwrap();
    }
    let golden = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(head, golden, "{name}");
}

#[test]
fn every_head_has_the_bytes_it_always_had_and_comes_back() {
    for (name, message) in samples::messages() {
        let head = message.encode();
        check(name, &head);
        assert_eq!(Message::decode(&head), Ok(message));
    }
    for (name, answer) in samples::answers() {
        let head = answer.encode();
        check(name, &head);
        assert_eq!(Answer::decode(&head), Ok(answer));
    }
}

#[test]
fn a_write_of_256_units_fits_a_head() {
    let (_, Message::Prepare { group, epoch, grant, previous, at, commit, .. }) =
        samples::messages().swap_remove(6)
    else {
        panic!("the seventh sample is a prepare")
    };
    let units = (0..u16::try_from(UNITS_MAX).unwrap())
        .map(|unit| {
            let mut sealed = samples::sealed(unit);
            (sealed.plain_bytes, sealed.stored_bytes) = (4096, 4096);
            sealed.page_crc[1] = 0;
            sealed
        })
        .collect();
    let message =
        Message::Prepare { group, epoch, grant, previous, at, commit, entry: LogEntry::Units(units) };
    let head = message.encode();
    assert!(head.len() <= HEAD_BYTES_MAX, "{} bytes", head.len());
    assert_eq!(Message::decode(&head), Ok(message));
}

#[test]
fn a_head_of_another_version_is_named_as_such() {
    assert_eq!(Message::decode(&[1, 16]), Err(HeadError::Version(1)));
    assert_eq!(Message::decode(&[HEAD_VERSION, 200]), Err(HeadError::Kind(200)));
    assert_eq!(Answer::decode(&[HEAD_VERSION]), Err(HeadError::Truncated));
    assert_eq!(Answer::decode(&[HEAD_VERSION, 167, 0]), Err(HeadError::TooLong));
}
