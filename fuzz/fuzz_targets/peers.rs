//! Any bytes as what a peer asks, answers or tells: refused or read, never a panic; and what can be read
//! can be written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_node::codec::peers::{
    decode_ask, decode_reply, decode_tell, encode_ask, encode_reply, encode_tell,
};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(ask) = decode_ask(bytes) {
        decode_ask(&encode_ask(&ask)).expect("our own bytes can be read");
    }
    if let Ok(reply) = decode_reply(bytes) {
        decode_reply(&encode_reply(&reply)).expect("our own bytes can be read");
    }
    if let Ok(tell) = decode_tell(bytes) {
        decode_tell(&encode_tell(&tell)).expect("our own bytes can be read");
    }
});
