//! Two implementations, one cipher: what either seals the other opens, and the bytes are the same.

use nova_units::{BlockId, Generation, UnitIndex};
use novafs_format::PAGE;
use novafs_format::seal::{BlockKey, CipherKind, DomainKey};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_ciphers_give_the_same_bytes_and_open_each_others(
        (secret, salt) in any::<([u8; 32], [u8; 16])>(),
        (block, generation, unit, counter) in any::<(u64, u32, u16, u64)>(),
        plain in vec(any::<u8>(), 1..9000),
        flipped in any::<proptest::sample::Index>(),
    ) {
        let keys = CipherKind::ALL.map(|cipher| {
            let domain = DomainKey::new(1, 1, secret).with_cipher(cipher);
            BlockKey::derive(&domain, &salt, BlockId(block), Generation(generation))
        });
        let padded = plain.len().next_multiple_of(PAGE);
        let sealed = keys.each_ref().map(|key| {
            let mut stored = vec![0xEE; padded];
            (key.seal(UnitIndex(unit), counter, &plain, &mut stored), stored)
        });
        prop_assert_eq!(&sealed[0], &sealed[1]);
        let (unit, stored) = &sealed[0];
        let mut damaged = stored.clone();
        damaged[flipped.index(plain.len())] ^= 0x10;
        for key in &keys {
            let mut opened = vec![0; plain.len()];
            prop_assert!(key.open(unit, stored, &mut opened).is_ok());
            prop_assert_eq!(&opened, &plain);
            prop_assert!(key.open(unit, &damaged, &mut opened).is_err());
        }
    }
}
