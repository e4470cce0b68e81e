//! Frames between nodes: a version, a head, and messages.
//!
//! The head says which link the frame belongs to and what its sender has dealt with so far, which
//! is all the flow control there is. Versions are per frame, so that a node may speak to older ones
//! while a cluster is updated: a change of these types is a new version beside the old one. Both
//! ends refuse a frame above the cap; what is damaged is an error, never a panic and never an
//! allocation beyond the cap.

use bincode::{Decode, Encode};
use weir_config::limits::PEER_FRAME_BYTES_MAX;

use super::CodecError;

/// Version of the layout.
const FRAME_VERSION: u8 = 1;

/// What a frame carries.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Frame {
    /// The link's number, which only its two ends know.
    pub link: u64,
    /// Tells of the receiver that the sender has dealt with, since the link began.
    pub told: u64,
    /// Answers of the receiver that the sender has taken, since the link began.
    pub answered: u64,
    /// In the order they were sent.
    pub messages: Vec<PeerMessage>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PeerMessage {
    /// Are you there?
    Ping(u64),
    /// The answer to that ping.
    Pong(u64),
    /// Wants the answer of this number.
    Request(u64, Vec<u8>),
    /// Of that request.
    Answer(u64, Vec<u8>),
    /// There will be no answer to that request.
    NoAnswer(u64),
    /// Wants no answer.
    Tell(Vec<u8>),
}

/// A frame as bytes. Whoever gathers the messages keeps them within the cap.
pub fn encode_frame(frame: &Frame) -> Vec<u8> {
    let bytes = super::encode(FRAME_VERSION, frame);
    debug_assert!(bytes.len() <= PEER_FRAME_BYTES_MAX, "{} bytes in a frame", bytes.len());
    bytes
}

/// A frame from bytes.
///
/// # Errors
/// [`CodecError`] when the version is unknown, or the bytes are too many, too few or no frame.
pub fn decode_frame(bytes: &[u8]) -> Result<Frame, CodecError> {
    super::decode_capped::<_, DECODED_BYTES_MAX>(
        "frame",
        FRAME_VERSION,
        PEER_FRAME_BYTES_MAX,
        bytes,
    )
}

/// Bytes that a frame may claim in memory: bodies as they came, messages at their size in memory,
/// which is below twenty times that on the wire.
const DECODED_BYTES_MAX: usize = 20 * PEER_FRAME_BYTES_MAX;

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::*;

    fn frame() -> Frame {
        Frame {
            link: 0x0102_0304_0506_0708,
            told: 300,
            answered: 7,
            messages: vec![
                PeerMessage::Ping(1),
                PeerMessage::Pong(2),
                PeerMessage::Request(3, b"ask".to_vec()),
                PeerMessage::Answer(4, b"answer".to_vec()),
                PeerMessage::NoAnswer(5),
                PeerMessage::Tell(b"tell".to_vec()),
            ],
        }
    }

    #[test]
    fn the_golden_frame_never_changes() {
        let bytes = encode_frame(&frame());
        let hex = bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        assert_eq!(hex, GOLDEN_FRAME);
        assert_eq!(decode_frame(&bytes).ok(), Some(frame()));
    }

    #[test]
    fn a_frame_cut_anywhere_made_longer_or_of_another_version_is_refused() {
        let bytes = encode_frame(&frame());
        for length in 0..bytes.len() {
            assert!(decode_frame(&bytes[..length]).is_err(), "{length} bytes");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(decode_frame(&longer).is_err());
        let mut newer = bytes;
        newer[0] = 2;
        assert!(matches!(decode_frame(&newer), Err(CodecError::Version { version: 2, .. })));
    }

    #[test]
    fn a_length_that_claims_more_than_there_is_allocates_nothing() {
        // link, told, answered, then a count of messages; or one request whose body claims as much.
        for start in [&[1, 0, 0, 0][..], &[1, 0, 0, 0, 1, 2, 0]] {
            let mut bytes = start.to_vec();
            bytes.extend([0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
            assert!(decode_frame(&bytes).is_err());
        }
    }

    #[test]
    fn the_largest_body_fits_a_frame_and_a_larger_frame_is_refused() {
        let body = vec![7; weir_config::limits::PEER_BODY_BYTES_MAX];
        let one = Frame { messages: vec![PeerMessage::Request(u64::MAX, body)], ..frame() };
        let bytes = encode_frame(&one);
        assert!(bytes.len() <= PEER_FRAME_BYTES_MAX);
        assert_eq!(decode_frame(&bytes).ok(), Some(one));
        let mut above = vec![0; PEER_FRAME_BYTES_MAX + 1];
        above[0] = FRAME_VERSION;
        assert!(decode_frame(&above).is_err());
    }

    #[test]
    fn a_frame_of_nothing_but_the_smallest_messages_is_read_whole() {
        let messages = vec![PeerMessage::NoAnswer(1); PEER_FRAME_BYTES_MAX / 2 - 16];
        let many = Frame { messages, ..frame() };
        let bytes = encode_frame(&many);
        assert_eq!(decode_frame(&bytes).ok(), Some(many));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_an_error(rest in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = vec![FRAME_VERSION];
            bytes.extend(rest);
            // What can be read is written back as the same frame.
            if let Ok(frame) = decode_frame(&bytes) {
                let again = decode_frame(&encode_frame(&frame));
                assert_eq!(again.ok(), Some(frame));
            }
        }
    }

    const GOLDEN_FRAME: &str =
        "01fd0807060504030201fb2c0107060001010202030361736b030406616e737765720405050474656c6c";
}
