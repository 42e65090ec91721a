//! Files in and out, and what is said when it does not go.
use novafs_client::{ClientError, GetOptions, Progress, PutOptions, Trouble};

use super::region::{Region, check, names_below, options, put};

const LENGTHS: [usize; 9] = [0, 1, 4095, 65_536, 65_537, 1 << 20, (1 << 20) + 1, 3 << 20, 12_345_678];

#[test]
fn files_of_every_shape_come_back_byte_by_byte() {
    let region = Region::start();
    let client = region.client();
    let files = region.make_files(&LENGTHS);
    let report = put(&client, &files, &options());
    assert_eq!((report.files, report.failed), (9, 0), "{:?}", report.failures);
    assert_eq!(report.bytes, LENGTHS.iter().map(|&length| length as u64).sum::<u64>());
    check(&client, &files);
    let published = region.metadata().files.clone();
    for (source, content) in &files {
        let file = &published[&source.target];
        assert_eq!(file.bytes, content.len() as u64);
        assert!(file.blocks.iter().all(|block| block.root == [9; 32][..] && block.key_domain == 3));
        assert!(
            file.blocks
                .iter()
                .all(|block| block.group == 4 + u32::try_from((block.block - 1000) % 3).unwrap())
        );
    }
}

#[test]
fn what_is_put_and_copied_has_the_units_of_its_namespace() {
    let region = Region::start();
    let client = region.client();
    region.metadata().unit_log2 = 12;
    let files = region.make_files(&[10_000]);
    put(&client, &files, &options());
    client.copy_file("/hot/d0/f0000", "/hot/copy", false, &Progress::default()).unwrap();
    let chosen = PutOptions { unit_log2: Some(14), replace: true, ..options() };
    assert_eq!(region.metadata().files["/hot/d0/f0000"].blocks[0].unit_log2, 12);
    put(&client, &files, &chosen);
    assert_eq!(region.metadata().files["/hot/copy"].blocks[0].unit_log2, 12);
    assert_eq!(region.metadata().files["/hot/d0/f0000"].blocks[0].unit_log2, 14);
    check(&client, &files);
    let wrong = PutOptions { unit_log2: Some(17), ..options() };
    let refused = client.put(std::iter::empty(), &wrong, &Progress::default()).unwrap_err();
    assert_eq!(refused.trouble(), Trouble::Usage);
}

#[test]
fn a_block_ends_at_128_mib_and_the_file_goes_on_in_the_next() {
    let region = Region::start();
    let client = region.client();
    let files = region.make_files(&[(128 << 20) + 5]);
    assert_eq!(put(&client, &files, &options()).failed, 0);
    let blocks = region.metadata().files["/hot/d0/f0000"].blocks.clone();
    assert_eq!(
        blocks.iter().map(|block| (block.offset, block.bytes)).collect::<Vec<_>>(),
        [(0, 128 << 20), (128 << 20, 5)]
    );
    let mut tail = Vec::new();
    let range = (128 << 20) - 3..u64::MAX;
    assert_eq!(client.read("/hot/d0/f0000", range, &mut tail, &Progress::default()).unwrap(), 8);
    assert_eq!(tail, files[0].1[(128 << 20) - 3..]);
}

#[test]
fn a_range_is_cut_at_the_end_of_the_file() {
    let region = Region::start();
    let client = region.client();
    let files = region.make_files(&[(3 << 20) + 77]);
    put(&client, &files, &options());
    for (range, expected) in [
        (0..10, 0..10),
        (1_048_570..1_048_590, 1_048_570..1_048_590),
        ((3 << 20) + 70..u64::MAX, (3 << 20) + 70..(3 << 20) + 77),
        (1 << 40..u64::MAX, 0..0),
    ] {
        let mut found = Vec::new();
        client.read("/hot/d0/f0000", range.clone(), &mut found, &Progress::default()).unwrap();
        assert_eq!(found, files[0].1[expected], "{range:?}");
    }
}

#[test]
fn small_files_share_publishes() {
    let region = Region::start();
    let client = region.client();
    let files = region.make_files(&vec![100; 600]);
    let many = PutOptions { files_in_flight: 32, ..options() };
    assert_eq!(put(&client, &files, &many).files, 600);
    let publishes = region.metadata().publishes;
    let largest = region.metadata().largest_publish;
    assert!(publishes < 300 && largest <= 256, "{publishes} publishes, the largest of {largest} files");
    check(&client, &files[..20]);
}

#[test]
fn a_tree_is_fetched_whole_with_modes_and_times() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let region = Region::start();
    let client = region.client();
    let files = region.make_files(&[10, 70_000, 0, 5, 6, 7, 8, 2 << 20]);
    std::fs::set_permissions(&files[1].0.local, std::fs::Permissions::from_mode(0o750)).unwrap();
    put(&client, &files, &options());
    let out = region.folder.path().join("out");
    let report = client.get("/hot", &out, &GetOptions::default(), &Progress::default()).unwrap();
    assert_eq!((report.files, report.failed), (8, 0));
    assert_eq!(region.metadata().resolves, 1, "only the file that is too large for a page is asked for");
    assert_eq!(names_below(&out).len(), 8, "no temporary file is left");
    for (source, content) in &files {
        let place = out.join(source.target.strip_prefix("/hot/").unwrap());
        assert!(std::fs::read(&place).unwrap() == *content);
        let (new, old) = (std::fs::metadata(&place).unwrap(), std::fs::metadata(&source.local).unwrap());
        assert_eq!((new.mode() & 0o777, new.mtime()), (old.mode() & 0o777, old.mtime()));
    }
}

#[test]
fn a_file_that_exists_is_refused_and_the_others_go_on() {
    let region = Region::start();
    let client = region.client();
    let files = region.make_files(&[10, 20, 30]);
    put(&client, &files[..1], &options());
    let report = put(&client, &files, &options());
    assert_eq!((report.files, report.failed), (2, 1));
    assert!(report.failures[0].1.to_string().contains("it exists"));
    assert_eq!(put(&client, &files, &PutOptions { replace: true, ..options() }).failed, 0);
}

#[test]
fn what_is_wrong_is_said_in_a_kind_and_in_words() {
    let region = Region::start();
    let client = region.client();
    let missing = client.stat("/nowhere").unwrap_err();
    assert_eq!((missing.trouble(), missing.to_string().contains("no such file")), (Trouble::NotFound, true));
    region.disk.lock().unwrap().full = true;
    let files = region.make_files(&[10]);
    let report = put(&client, &files, &options());
    let (path, error) = &report.failures[0];
    assert_eq!(*path, files[0].0.local);
    assert!(error.to_string().contains("is full; remove files or add a storage host"), "{error}");
    let nobody = novafs_client::Client::connect(&region.folder.path().join("nobody.sock")).unwrap_err();
    assert_eq!(nobody.trouble(), Trouble::Unavailable);
    assert!(matches!(nobody, ClientError::Agent(_)));
}

#[test]
fn locate_tells_every_unit_on_every_replica() {
    let region = Region::start();
    let client = region.client();
    put(&client, &region.make_files(&[200_000, 40 << 20]), &options());
    let places = client.locate("/hot/d0/f0000").unwrap();
    assert_eq!(places.untold, [(33, "the host refused the request".to_owned())].into());
    let large = client.locate("/hot/d1/f0001").unwrap();
    assert_eq!(large.units.len(), 2 * (40 << 20 >> 16), "more units than one question may be about");
    let found: Vec<_> =
        places.units.iter().map(|place| (place.unit, place.node, place.device >> 64)).collect();
    let expected: Vec<_> = (0..4).flat_map(|unit| [(unit, 11, 11), (unit, 22, 22)]).collect();
    assert_eq!(found, expected);
}
