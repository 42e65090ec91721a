//! Any commands in any order keep the tree whole.

use novafs_namespace::{
    Code, EndSession, MakeDirectory, Namespace, NewFile, Op, OpenSession, Publish, Remove, Rename,
    ReserveBlocks, Sweep,
};
use proptest::prelude::*;

use crate::kit::{Log, block, check};

#[derive(Clone, Debug)]
enum Step {
    Open,
    End(u64),
    Reserve(u64, u32),
    Publish { session: u64, paths: Vec<String>, first_block: u64, make_parents: bool, replace: bool },
    Make(String, bool),
    Rename(String, String, bool),
    Remove(String, bool),
    Sweep(u32),
}

fn path() -> impl Strategy<Value = String> {
    let space = prop_oneof![Just("hot"), Just("warm"), Just("mine"), Just("..")];
    (space, prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 0..4)).prop_map(
        |(space, names)| names.iter().fold(format!("/{space}"), |path, name| format!("{path}/{name}")),
    )
}

fn step() -> impl Strategy<Value = Step> {
    let session = 0..4_u64;
    prop_oneof![
        1 => Just(Step::Open),
        1 => session.clone().prop_map(Step::End),
        3 => (session.clone(), 0..6_u32).prop_map(|(session, count)| Step::Reserve(session, count)),
        8 => (session, prop::collection::vec(path(), 0..4), 0..30_u64, any::<bool>(), any::<bool>()).prop_map(
            |(session, paths, first_block, make_parents, replace)| Step::Publish {
                session, paths, first_block, make_parents, replace
            }
        ),
        4 => (path(), any::<bool>()).prop_map(|(path, parents)| Step::Make(path, parents)),
        6 => (path(), path(), any::<bool>()).prop_map(|(source, target, replace)| Step::Rename(source, target, replace)),
        4 => (path(), any::<bool>()).prop_map(|(path, recursive)| Step::Remove(path, recursive)),
        2 => (0..4_u32).prop_map(Step::Sweep),
    ]
}

fn op(step: &Step) -> Op {
    match step.clone() {
        Step::Open => Op::OpenSession(OpenSession { lease_ms: 0 }),
        Step::End(session) => Op::EndSession(EndSession { session }),
        Step::Reserve(session, count) => {
            Op::ReserveBlocks(ReserveBlocks { session, count, groups: vec![1, 2] })
        }
        Step::Publish { session, paths, first_block, make_parents, replace } => {
            let first = (1 << 48) + first_block;
            let files = (first..)
                .zip(paths)
                .map(|(id, path)| NewFile {
                    bytes: 10,
                    blocks: vec![block(id, 0, 10)],
                    ..crate::kit::file(&path, 0, 0)
                })
                .collect();
            Op::Publish(Publish { session, files, make_parents, replace })
        }
        Step::Make(path, parents) => {
            Op::MakeDirectory(MakeDirectory { path, mode: 0, parents, ..MakeDirectory::default() })
        }
        Step::Rename(source, target, replace) => {
            Op::Rename(Rename { source, target, replace, ..Rename::default() })
        }
        Step::Remove(path, recursive) => Op::Remove(Remove { path, recursive }),
        Step::Sweep(limit) => Op::Sweep(Sweep { limit }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_keeps_the_tree_whole(steps in prop::collection::vec((step(), 0..3_u64), 0..60)) {
        let mut log = Log::default();
        log.open();
        log.open();
        log.reserve(1, 8);
        log.reserve(2, 8);
        let mut twin = log.clone();
        for (number, (step, client)) in steps.iter().enumerate() {
            let sequence = number as u64 / 2;
            let before = log.namespace.clone();
            let answer = log.apply_from(*client, sequence, op(step));
            prop_assert_eq!(&twin.apply_from(*client, sequence, op(step)), &answer, "apply is deterministic");
            if answer.failure().is_some_and(|failure| failure.code() != Code::Unspecified) {
                prop_assert_eq!(before.usage("/"), log.namespace.usage("/"), "a refused command changes no file");
            }
            check(&log.namespace);
        }
        prop_assert_eq!(&twin.namespace, &log.namespace);
        let mut bytes = Vec::new();
        log.namespace.encode(&mut |piece| bytes.extend_from_slice(piece));
        prop_assert_eq!(&Namespace::decode(&bytes).unwrap(), &log.namespace);
        for _ in 0..100 {
            log.apply(Op::Sweep(Sweep { limit: 2 }));
        }
        prop_assert!(!log.namespace.has_trash());
        check(&log.namespace);
    }
}
