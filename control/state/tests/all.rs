//! Integration tests of the composed states.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use nova_state::{ClusterCommand, ClusterState, FilesCommand, FilesState, StepAnswer, digest};
use novafs_namespace::{Command, MakeDirectory, Op};

fn bytes_of(encode: impl FnOnce(&mut dyn FnMut(&[u8]))) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut |piece| bytes.extend_from_slice(piece));
    bytes
}

fn register(name: &str) -> nova_fleet::Command {
    let register = nova_fleet::Register {
        name: name.into(),
        roles: vec!["storage".into()],
        addr: "127.0.0.1:1".into(),
        boot: 5,
        zone: "z".into(),
    };
    nova_fleet::Command { at_ms: 7, op: Some(nova_fleet::Op::Register(register)) }
}

fn mount(node: u64) -> nova_groups::Command {
    let mount = nova_groups::Mount {
        node,
        boot: 5,
        device: vec![1; 16],
        mount_counter: 1,
        incarnation: 0,
        bytes_total: 9,
        trail: Vec::new(),
    };
    let restart = nova_groups::Restart { mounts: vec![mount], confirm: vec![] };
    nova_groups::Command { at_ms: 7, op: Some(nova_groups::Op::Restart(restart)) }
}

#[test]
fn a_batch_is_applied_in_order_and_answered_step_by_step() {
    let mut state = ClusterState::default();
    let batch = ClusterCommand { steps: vec![register("a").into(), mount(1).into(), Default::default()] };
    let answers = state.apply(42, &batch);
    assert!(matches!(
        answers.as_slice(),
        [StepAnswer::Fleet(nova_fleet::Answer::Registered(_)), StepAnswer::Groups(_), StepAnswer::Unknown]
    ));
    assert_eq!(state.version, 42);
    let bytes = bytes_of(|out| state.encode(out));
    assert_eq!(&bytes[..12], b"NOVACLUS\x01\0\0\0");
    assert_eq!(ClusterState::decode(&bytes).unwrap(), state);
    for end in 0..12 {
        assert!(ClusterState::decode(&bytes[..end]).is_err());
    }
}

#[test]
fn the_cluster_snapshot_keeps_its_bytes() {
    let mut state = ClusterState::default();
    state.apply(3, &ClusterCommand { steps: vec![register("a").into(), mount(1).into()] });
    let bytes = bytes_of(|out| state.encode(out));
    let golden = format!("{}/testdata/cluster-v1.bin", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("NOVA_BLESS").is_some() {
        std::fs::write(&golden, &bytes).unwrap();
    }
    assert_eq!(std::fs::read(&golden).unwrap(), bytes, "{golden}: a new form needs a new version");
}

#[test]
fn the_cluster_snapshot_with_keys_keeps_its_bytes() {
    let key = |op| nova_keys::Command { at_ms: 9, op: Some(op) }.into();
    let create = |domain, name: &str| {
        let name = name.into();
        nova_keys::Op::Create(nova_keys::Create {
            domain,
            name,
            version: 1,
            root_version: 2,
            wrapped: vec![5; 3],
        })
    };
    let rotate = nova_keys::Rotate { domain: 1, version: 2, root_version: 2, wrapped: vec![6; 4] };
    let steps = vec![
        key(create(1, "default")),
        key(create(2, "gone")),
        key(nova_keys::Op::Rotate(rotate)),
        key(nova_keys::Op::Drop(nova_keys::Drop { domain: 2 })),
    ];
    let mut state = ClusterState::default();
    assert!(
        state
            .apply(4, &ClusterCommand { steps })
            .iter()
            .all(|answer| { matches!(answer, StepAnswer::Keys(nova_keys::Answer::Done { .. })) })
    );
    let bytes = bytes_of(|out| state.encode(out));
    let golden = format!("{}/testdata/cluster-keys-v1.bin", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("NOVA_BLESS").is_some() {
        std::fs::write(&golden, &bytes).unwrap();
    }
    assert_eq!(std::fs::read(&golden).unwrap(), bytes, "{golden}: a new form needs a new version");
    assert_eq!(ClusterState::decode(&bytes).unwrap(), state);
}

#[test]
fn the_digest_tells_states_apart() {
    let make = |path: &str| Command {
        client: 1,
        sequence: 1,
        at_ms: 9,
        op: Some(Op::MakeDirectory(MakeDirectory {
            path: path.into(),
            mode: 0,
            parents: true,
            ..MakeDirectory::default()
        })),
    };
    let state_after = |path: &str| {
        let mut state = FilesState::default();
        state.apply(1, &FilesCommand { commands: vec![make(path), make("/hot/again")] });
        state
    };
    let sum = |state: &FilesState| digest(|out| state.encode(out));
    let (one, same, other) = (state_after("/hot/a"), state_after("/hot/a"), state_after("/hot/b"));
    assert_eq!(sum(&one), sum(&same));
    assert_ne!(sum(&one), sum(&other));
    assert!(one.namespace.stat(0, "/hot/again").is_err(), "the second command had the number of the first");
    assert_eq!(FilesState::decode(&bytes_of(|out| one.encode(out))).unwrap(), one);
}
