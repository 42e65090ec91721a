//! One control header of every kind, used by the other tests.
use std::time::Duration;

use nova_units::{BootId, NodeId, Priority};
use novabulk_frame::{
    Accept, Blocked, Control, Credit, GoAway, Hello, Hop, LinkRole, Message, MessageId, MessageKind, Open,
    Reject, Reset, ResetReason, Stop, StopReason, StreamId,
};

/// Name of its golden file, and the header.
pub(crate) fn controls() -> Vec<(&'static str, Control)> {
    let hop = Hop::from_number(2).unwrap();
    vec![
        (
            "hello",
            Control::Hello(Hello {
                version_min: 1,
                version_max: 1,
                role: LinkRole::Control,
                features: 0,
                node: NodeId(7),
                boot: BootId(0x1122_3344_5566_7788),
                body_bytes_max: 1 << 20,
                port_base: 7400,
                port_count: 2,
                grants: [8, 6, 5],
            }),
        ),
        ("open", Control::Open(Open { class: Priority::P2, transfer: 99, token: b"token".to_vec() })),
        ("accept", Control::Accept(Accept { grant: 4 })),
        ("reject", Control::Reject(Reject { retry_after: Duration::from_millis(1500) })),
        (
            "request",
            Control::Message(Message {
                kind: MessageKind::Request,
                hop: Hop::from_number(1).unwrap(),
                priority: Priority::P3,
                id: MessageId(42),
                body_bytes: 65_536,
                reply_max: 4096,
                deadline: Duration::from_millis(2000),
                head: b"append".to_vec(),
            }),
        ),
        (
            "reply",
            Control::Message(Message {
                kind: MessageKind::Reply,
                hop: Hop::default(),
                priority: Priority::P0,
                id: MessageId(42),
                body_bytes: 0,
                reply_max: 0,
                deadline: Duration::ZERO,
                head: Vec::new(),
            }),
        ),
        ("credit", Control::Credit(Credit { hop, total: 1 << 40 })),
        ("blocked", Control::Blocked(Blocked { hop, total: 17 })),
        ("stop", Control::Stop(Stop { reason: StopReason::Deadline, id: MessageId(43) })),
        (
            "reset",
            Control::Reset(Reset {
                kind: MessageKind::Reply,
                reason: ResetReason::ReplyTooLong,
                id: MessageId(44),
            }),
        ),
        ("goaway", Control::GoAway(GoAway { last_stream: StreamId(5), last_message: MessageId(45) })),
    ]
}

/// A control frame as it stands on the wire.
pub(crate) fn control_frame(control: &Control) -> Vec<u8> {
    let mut payload = Vec::new();
    control.encode(&mut payload);
    let header = novabulk_frame::FrameHeader {
        kind: novabulk_frame::FrameKind::Control,
        more: false,
        end: false,
        stream: StreamId::CONNECTION,
        payload_bytes: u32::try_from(payload.len()).unwrap(),
    };
    [&header.encode(&payload)[..], &payload].concat()
}
