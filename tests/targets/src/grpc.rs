//! gRPC messages as the path of a job reads them, held against the generated types.

use prost::Message as _;
use seeway_proto::grpc::{Request, Submit, has_message, next_message};
use seeway_proto::v1::{Priority, StreamRequest, SubmitRequest};

use crate::seeds::{Seeds, seed};

/// The most bytes of a message.
const LIMIT: usize = 4096;

/// Reads the bytes as a body of messages, and as one message of each kind.
pub fn run(bytes: &[u8]) {
    let mut input = bytes;
    while let Ok(Some(message)) = next_message(&mut input, LIMIT) {
        assert!(message.len() <= LIMIT && message.len() + 5 <= bytes.len());
        request(message);
    }
    let whole = !matches!(next_message(&mut { input }, LIMIT), Ok(None));
    assert_eq!(has_message(input, LIMIT), whole);
    request(bytes);
    submit(bytes);
}

fn request(bytes: &[u8]) {
    match (Request::decode(bytes), StreamRequest::decode(bytes)) {
        (Ok(mine), Ok(generated)) => {
            assert_eq!((mine.id, mine.timeout), (generated.id, generated.timeout));
            assert_eq!(mine.submit.is_some(), generated.submit.is_some());
            if let (Some(mine), Some(generated)) = (&mine.submit, &generated.submit) {
                same(mine, generated);
            }
        }
        (Err(error), Err(_)) => assert!(error.to_string().contains("does not decode")),
        (mine, generated) => panic!("{} here, {} there", mine.is_ok(), generated.is_ok()),
    }
}

fn submit(bytes: &[u8]) {
    match (Submit::decode(bytes), SubmitRequest::decode(bytes)) {
        (Ok(mine), Ok(generated)) => same(&mine, &generated),
        (Err(_), Err(_)) => {}
        (mine, generated) => panic!("{} here, {} there", mine.is_ok(), generated.is_ok()),
    }
}

fn same(mine: &Submit<'_>, generated: &SubmitRequest) {
    assert_eq!(mine.world, generated.world);
    assert_eq!(mine.job, &generated.job[..]);
    assert_eq!(mine.idempotent, generated.idempotent);
    assert_eq!(mine.affinity_key, generated.affinity_key);
    assert_eq!(mine.priority, generated.priority());
}

/// What the generated types write.
pub fn seeds() -> Seeds {
    let job = SubmitRequest {
        world: "signer".to_owned(),
        job: b"job".to_vec().into(),
        idempotent: true,
        affinity_key: "account-1".to_owned(),
        priority: Priority::Low.into(),
    };
    let timeout = std::time::Duration::from_millis(2500).try_into().ok();
    let streamed = StreamRequest { id: 7, submit: Some(job.clone()), timeout }.encode_to_vec();
    let head = |length: usize| [&[0][..], &u32::try_from(length).expect("short").to_be_bytes()].concat();
    let framed = [head(streamed.len()), streamed.clone()].concat();
    // Fields that come twice are merged; those of later versions are passed over.
    let twice = [&streamed[..], &streamed].concat();
    let later = [&streamed[..], &[0x9a, 6, 2, b'h', b'i', 0xa0, 6, 1, 0xad, 6, 1, 2, 3, 4]].concat();
    vec![
        seed("empty", b""),
        seed("submit", job.encode_to_vec()),
        seed("request", &streamed),
        seed("request-twice", twice),
        seed("request-of-a-later-version", later),
        seed("request-cut", &streamed[..streamed.len() - 2]),
        seed("body-of-two", [&framed[..], &framed].concat()),
        seed("body-too-long", head(LIMIT + 1)),
        seed("body-compressed", [&[1][..], &framed[1..]].concat()),
        seed("group", b"\x0b\x08\x01\x0c"),
    ]
}
