//! What is encoded comes back, for every value.
use std::time::Duration;

use nova_units::Priority;
use novabulk_frame::{
    CONTROL_BYTES_MAX, Codec, Control, FrameHeader, FrameKind, HEAD_BYTES_MAX, Hop, Message, MessageId,
    MessageKind, StreamId, decode,
};
use proptest::prelude::*;

fn kinds() -> impl Strategy<Value = FrameKind> {
    prop_oneof![
        Just(FrameKind::Control),
        Just(FrameKind::Data(Codec::Raw)),
        Just(FrameKind::Data(Codec::Lz4)),
        Just(FrameKind::Data(Codec::Zstd)),
    ]
}

proptest! {
    #[test]
    fn every_frame_comes_back(
        kind in kinds(),
        more: bool,
        end: bool,
        stream: u32,
        payload in prop::collection::vec(any::<u8>(), 1..5000),
    ) {
        let payload_bytes = u32::try_from(payload.len()).unwrap();
        let header = FrameHeader { kind, more, end, stream: StreamId(stream), payload_bytes };
        let received = decode(&header.encode(&payload)).unwrap();
        prop_assert_eq!(received.unverified(), &header);
        prop_assert_eq!(received.verify(&payload).unwrap(), header);
        prop_assert!(received.verify(&payload[1..]).is_err());
    }

    #[test]
    fn every_message_comes_back(
        reply: bool,
        hop in 0u8..3,
        priority in 0u8..5,
        id in 1u64..,
        body_bytes: u32,
        reply_max: u32,
        deadline_ms: u32,
        head in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let message = Control::Message(Message {
            kind: if reply { MessageKind::Reply } else { MessageKind::Request },
            hop: Hop::from_number(hop).unwrap(),
            priority: Priority::from_number(priority).unwrap(),
            id: MessageId(id),
            body_bytes,
            reply_max: if reply { 0 } else { reply_max },
            deadline: Duration::from_millis(deadline_ms.into()),
            head,
        });
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        prop_assert_eq!(Control::decode(&bytes).unwrap(), message);
    }
}

#[test]
fn longest_head_fits_one_control_frame_exactly() {
    let message = Message {
        kind: MessageKind::Request,
        hop: Hop::default(),
        priority: Priority::P4,
        id: MessageId(1),
        body_bytes: 0,
        reply_max: 0,
        deadline: Duration::from_nanos(1),
        head: vec![7; HEAD_BYTES_MAX],
    };
    let mut bytes = Vec::new();
    Control::Message(message.clone()).encode(&mut bytes);
    assert_eq!(bytes.len(), usize::try_from(CONTROL_BYTES_MAX).unwrap());
    // A wait of a nanosecond becomes a millisecond, not none.
    let rounded = Message { deadline: Duration::from_millis(1), ..message };
    assert_eq!(Control::decode(&bytes), Ok(Control::Message(rounded)));
    bytes.push(0);
    assert!(Control::decode(&bytes).is_err());
}
