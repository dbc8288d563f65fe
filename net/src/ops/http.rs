//! As much HTTP/1.1 as a scraper, a probe and a person with curl need.
//!
//! Owns reading the head of a request, and writing that of an answer. Invariants: a head is at most
//! [`HEAD_MAX`] bytes and [`FIELDS_MAX`] fields, no request has a body, and each answer says where it ends,
//! if only by the end of its connection to who knows no better (HTTP/1.0).
//! Knows no socket, no clock but the one that it is given, and none of the pages.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of a request's head; a longer one is refused with 431.
pub(super) const HEAD_MAX: usize = 8 * 1024;
/// Fields of a request's head; more are refused with 431.
const FIELDS_MAX: usize = 64;

/// A request: there is nothing to say but which page, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// HEAD and not GET: the answer goes without its body.
    pub(super) head_only: bool,
    /// Without the query.
    pub(super) path: String,
    /// What stands after `?`, or nothing.
    pub(super) query: String,
    /// All fields `Accept`, in lower case.
    pub(super) accept: String,
    /// Whether the connection may serve another request.
    pub(super) keep_alive: bool,
    /// Whether an answer may come in chunks: HTTP/1.1.
    pub(super) chunks: bool,
}

/// What the bytes so far make.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A part of a head.
    Partial,
    /// A request, and its length in bytes.
    Whole(Request, usize),
    /// Something else; the connection is of no more use after the answer.
    Refused(Status),
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    BadRequest,
    NotFound,
    NotAllowed,
    BodyRefused,
    HeadTooLarge,
    Unavailable,
}

impl Status {
    pub(super) fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::NotAllowed => "405 Method Not Allowed",
            Self::BodyRefused => "413 Content Too Large",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

/// An answer whose body is whole before its first byte goes out.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Answer {
    /// Words.
    pub(super) fn text(status: Status, body: impl Into<String>) -> Self {
        Self { status, content_type: PLAIN, body: body.into() }
    }

    /// The words for a status, where there is no more to say.
    pub(super) fn of(status: Status) -> Self {
        let more = match status {
            Status::NotAllowed => ": only GET and HEAD",
            Status::BodyRefused => ": a request has no body here",
            _ => "",
        };
        Self::text(status, format!("{}{more}\n", status.line()))
    }

    /// Its head, up to and with the empty line.
    pub(super) fn head(&self, keep_alive: bool, now: SystemTime) -> String {
        head(self.status, self.content_type, Length::Bytes(self.body.len()), keep_alive, now)
    }
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Length {
    Bytes(usize),
    Chunks,
    /// The connection ends with it.
    Connection,
}

/// The head of an answer, up to and with the empty line.
pub(super) fn head(
    status: Status,
    content_type: &str,
    length: Length,
    keep_alive: bool,
    now: SystemTime,
) -> String {
    let mut head = format!(
        "HTTP/1.1 {}\r\nDate: {}\r\nContent-Type: {content_type}\r\n",
        status.line(),
        date(now),
    );
    match length {
        Length::Bytes(bytes) => {
            write!(head, "Content-Length: {bytes}\r\n").expect("a String takes everything");
        }
        Length::Chunks => head.push_str("Transfer-Encoding: chunked\r\n"),
        Length::Connection => {}
    }
    head.push_str("Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
    if status == Status::NotAllowed {
        head.push_str("Allow: GET, HEAD\r\n");
    }
    let ends = if keep_alive { "keep-alive" } else { "close" };
    write!(head, "Connection: {ends}\r\n\r\n").expect("a String takes everything");
    head
}

pub(super) const PLAIN: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";

/// Reads the first request of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return Parsed::Partial,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Parsed::Refused(Status::HeadTooLarge);
        }
        Err(_) => return Parsed::Refused(Status::BadRequest),
    };
    if len > HEAD_MAX {
        return Parsed::Refused(Status::HeadTooLarge);
    }
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Parsed::Refused(Status::NotAllowed),
    };
    let (mut accept, mut close) = (String::new(), request.version == Some(0));
    for field in request.headers.iter() {
        let value = String::from_utf8_lossy(field.value).to_ascii_lowercase();
        match field.name.to_ascii_lowercase().as_str() {
            "accept" => {
                accept.push_str(&value);
                accept.push(',');
            }
            "connection" => {
                let says = |word| value.split(',').any(|part| part.trim() == word);
                close = says("close") || close && !says("keep-alive");
            }
            "content-length" if value.trim() == "0" => {}
            // What follows the head is not ours to tell from a next request.
            "content-length" | "transfer-encoding" => return Parsed::Refused(Status::BodyRefused),
            _ => {}
        }
    }
    let target = request.path.unwrap_or_default();
    // A proxy may send the whole address.
    let target = target
        .strip_prefix("http://")
        .map_or(target, |rest| rest.find('/').map_or("/", |at| &rest[at..]));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (path, query) = (path.to_owned(), query.to_owned());
    let chunks = request.version == Some(1);
    Parsed::Whole(Request { head_only, path, query, accept, keep_alive: !close, chunks }, len)
}

impl Request {
    /// The value of `name` in the query. Nothing in it is decoded: no page takes what would need it.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
    }

    /// Whether JSON is asked for: `?format=json`, or a field `Accept` that names it.
    pub(super) fn wants_json(&self) -> bool {
        match self.parameter("format") {
            Some(format) => format == "json",
            None => self.accept.contains("application/json"),
        }
    }
}

/// A moment as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn date(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, second) = (since / 86_400, since % 86_400);
    // Days of the Gregorian calendar from 1 March of the year 0 on: a leap day is then a year's last.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 2, 0) } else { (month - 10, 1) };
    let year = era * 400 + year + next;
    let mut text = String::with_capacity(29);
    let weekday = WEEKDAYS[(days % 7) as usize];
    let month = MONTHS[month as usize];
    let (h, m, s) = (second / 3_600, second / 60 % 60, second % 60);
    write!(text, "{weekday}, {day:02} {month} {year:04} {h:02}:{m:02}:{s:02} GMT")
        .expect("a String takes everything");
    text
}

/// Beginning with that of 1 January 1970.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Parsed::Whole(request, len) => {
                assert_eq!(len, text.len());
                request
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn a_request_is_read_once_it_is_whole() {
        let text = "GET /tasks?format=json&core=1 HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\
                    accept: Application/JSON\r\n\r\n";
        for len in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..len]), Parsed::Partial, "{len}");
        }
        let request = whole(text);
        assert_eq!(
            (request.path.as_str(), request.query.as_str()),
            ("/tasks", "format=json&core=1")
        );
        assert_eq!(request.accept, "text/html,application/json,");
        assert!(request.keep_alive && !request.head_only && request.wants_json());
        assert!(request.chunks);
        assert_eq!(request.parameter("core"), Some("1"));
        let text = "HEAD http://127.0.0.1:9100/livez HTTP/1.0\r\n\r\n";
        let request = whole(text);
        assert_eq!(request.path, "/livez");
        assert!(request.head_only && !request.keep_alive && !request.wants_json());
        assert!(!request.chunks, "HTTP/1.0 knows none");
    }

    #[test]
    fn a_second_request_waits_behind_the_first() {
        let text = "GET / HTTP/1.1\r\n\r\nGET /livez HTTP/1.1\r\n\r\n";
        let Parsed::Whole(first, len) = parse(text.as_bytes()) else {
            panic!("the first is whole")
        };
        assert_eq!(first.path, "/");
        assert_eq!(whole(&text[len..]).path, "/livez");
    }

    #[test]
    fn connections_end_when_either_side_says_so() {
        let keeps = |text: &str| whole(&format!("GET / HTTP/{text}\r\n\r\n")).keep_alive;
        assert!(keeps("1.1") && keeps("1.1\r\nConnection: keep-alive, x"));
        assert!(!keeps("1.1\r\nConnection: x, Close"));
        assert!(!keeps("1.0") && keeps("1.0\r\nConnection: Keep-Alive"));
    }

    #[test]
    fn what_is_no_request_of_ours_is_refused() {
        let refused = |text: &str| match parse(text.as_bytes()) {
            Parsed::Refused(status) => status,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused("POST / HTTP/1.1\r\n\r\n"), Status::NotAllowed);
        assert_eq!(refused("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n"), Status::BodyRefused);
        assert_eq!(
            refused("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Status::BodyRefused
        );
        assert_eq!(refused("\x16\x03\x01\x02\x00\x01\x00"), Status::BadRequest);
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(HEAD_MAX));
        assert_eq!(refused(&long), Status::HeadTooLarge);
        assert_eq!(refused(&long[..HEAD_MAX]), Status::HeadTooLarge);
        let many = "a: b\r\n".repeat(FIELDS_MAX + 1);
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{many}\r\n")), Status::HeadTooLarge);
        assert_eq!(whole("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n").path, "/");
    }

    #[test]
    fn an_answer_says_how_long_it_is() {
        let answer = Answer::text(Status::Ok, "ä\n");
        let head = answer.head(true, UNIX_EPOCH + Duration::from_secs(784_111_777));
        assert!(
            head.starts_with("HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
            "{head}"
        );
        assert!(head.contains("Content-Length: 3\r\n"), "{head}");
        assert!(head.ends_with("Connection: keep-alive\r\n\r\n"), "{head}");
        let chunks = super::head(Status::Ok, JSON, Length::Chunks, true, UNIX_EPOCH);
        assert!(chunks.contains("\r\nTransfer-Encoding: chunked\r\n"), "{chunks}");
        assert!(!chunks.contains("Content-Length"), "{chunks}");
        let refused = Answer::of(Status::NotAllowed).head(false, UNIX_EPOCH);
        assert!(refused.contains("Allow: GET, HEAD\r\nConnection: close\r\n\r\n"), "{refused}");
    }

    #[test]
    fn dates_know_leap_years() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
