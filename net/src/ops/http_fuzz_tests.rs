//! Whatever comes as a request is taken in parts, whole or refused; its corpus lies in
//! `tests/corpus`.

use std::path::Path;
use std::time::UNIX_EPOCH;

use coreloop_tests::fuzz::{fuzz, signature};

use super::http::{Answer, HEAD_MAX, Parsed, Status, parse};

const WORDS: [&str; 16] = [
    "GET ",
    "HEAD ",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    "\r\n\r\n",
    "\r\n",
    "Accept: application/json",
    "Connection: close",
    "Connection: keep-alive",
    "Content-Length: 0",
    "Content-Length: 1",
    "Transfer-Encoding: chunked",
    "http://",
    "?format=json&core=",
    "/metrics",
    ": a\r\nb",
];

#[test]
fn fuzz_http_requests() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/ops_http");
    let fuzzed = fuzz(&corpus, &WORDS, |input| match parse(input) {
        Parsed::Partial => {
            assert!(input.len() < HEAD_MAX);
            0
        }
        Parsed::Refused(status) => signature(status.line()),
        Parsed::Whole(request, len) => {
            assert!((1..=input.len().min(HEAD_MAX)).contains(&len));
            // A request is the same whatever follows it, and there is none in less of it.
            assert_eq!(parse(&input[..len]), Parsed::Whole(request.clone(), len));
            assert!(!matches!(parse(&input[..len - 1]), Parsed::Whole(..)), "{len}");
            let core = request.parameter("core").map(|core| core.parse::<u16>().is_ok());
            let answer = Answer::text(Status::Ok, &request.path);
            let head = answer.head(request.keep_alive, UNIX_EPOCH);
            assert_eq!(head.find("\r\n\r\n"), Some(head.len() - 4), "one head");
            signature((request.head_only, request.keep_alive, request.wants_json(), core))
        }
    });
    println!("{fuzzed:?}");
    assert!(fuzzed.signatures >= 8, "{fuzzed:?}");
}
