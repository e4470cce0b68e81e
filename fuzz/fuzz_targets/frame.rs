//! Any bytes as a frame of a peer: refused or read, never a panic; and what can be read is written
//! back as the same frame.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_node::codec::frames::{decode_frame, encode_frame};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(frame) = decode_frame(bytes) {
        let again = decode_frame(&encode_frame(&frame)).expect("our own bytes can be read");
        assert_eq!(again, frame);
    }
});
