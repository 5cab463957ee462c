//! What is printed of a message shows none of its bytes.

use seeway_proto::wire::{Direction, Framer, Limits};

#[test]
fn a_frame_prints_its_length_only() {
    let mut bytes = 12_u32.to_le_bytes().to_vec();
    bytes.extend(b"PIN 12345678");
    let frame = Framer::new(Direction::Commands, Limits::default()).next(&mut &bytes[..]).expect("valid");
    let shown = format!("{frame:?}");
    assert!(!shown.contains("80, 73, 78"), "{shown}");
}
