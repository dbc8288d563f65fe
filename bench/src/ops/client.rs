//! Fetching a page of an ops listener.
//!
//! Owns one request per connection, with an end to every wait and a bound on what is read. It speaks
//! HTTP/1.0, so that no server answers in chunks. What answers is another process: its words reach a terminal
//! without anything that a terminal acts on ([`printable`]).

use std::borrow::Cow;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use coreloop_net::ops::doc::{SCHEMA_VERSION, is_acted_on, printable};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::ops::OpsUrl;

/// How long connecting, and each read, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A page that is larger is none of an ops listener.
const BYTES_MAX: u64 = 512 << 20;

/// The document at `path`, to be shown: every text in it is [`printable`].
///
/// # Errors
/// In words: nobody there, no ops listener, or not in time.
pub fn fetch<T: DeserializeOwned>(url: &OpsUrl, path: &str) -> Result<T, String> {
    shown(&get(url, path)?).map_err(|why| format!("{url}{path} {why}"))
}

/// What [`fetch`] makes of an answer.
///
/// # Errors
/// In words.
pub fn shown<T: DeserializeOwned>(answer: &str) -> Result<T, String> {
    let mut document = document(answer)?;
    make_printable(&mut document);
    serde_json::from_value(document).map_err(|error| unexpected(&error))
}

/// What [`fetch_as_it_is`] makes of an answer.
fn as_it_is<T: DeserializeOwned>(answer: &str) -> Result<T, String> {
    serde_json::from_value(document(answer)?).map_err(|error| unexpected(&error))
}

/// The document at `path` as it is, to be written as JSON ([`json`]).
///
/// # Errors
/// As [`fetch`].
pub fn fetch_as_it_is<T: DeserializeOwned>(url: &OpsUrl, path: &str) -> Result<T, String> {
    as_it_is(&get(url, path)?).map_err(|why| format!("{url}{path} {why}"))
}

/// JSON without what a terminal acts on, which is the same JSON.
///
/// # Errors
/// If the value has no JSON.
pub fn json(value: &impl serde::Serialize) -> Result<String, String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    let escaped = |c: char| match c != '\n' && is_acted_on(c) {
        // Within a text, and of the first 65,536 characters: JSON has no other place for it.
        true => format!("\\u{:04x}", u32::from(c)),
        false => c.to_string(),
    };
    Ok(text.chars().map(escaped).collect())
}

/// A document of the version that this program reads: of another one the same words may mean something else.
fn document(answer: &str) -> Result<Value, String> {
    let body = body_of(answer).map_err(|why| format!("answers: {}", printable(&why)))?;
    let document: Value = serde_json::from_str(body).map_err(|error| unexpected(&error))?;
    match document.get("schema_version").map(Value::as_u64) {
        None => Ok(document),
        Some(Some(version)) if version == u64::from(SCHEMA_VERSION) => Ok(document),
        Some(version) => Err(format!(
            "gives a document of schema_version {}; this program reads {SCHEMA_VERSION}: use the \
             coreloop-bench of the server's version",
            version.map_or("?".to_owned(), |version| version.to_string())
        )),
    }
}

fn unexpected(error: &serde_json::Error) -> String {
    format!("gives something else than expected: {}", printable(&error.to_string()))
}

/// All names and texts of a document of somebody else's, for a terminal: see [`printable`].
///
/// No recursion beyond what the reader of JSON allows: 128 levels.
pub fn make_printable(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(shown) = printable(text) {
                *text = shown;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(make_printable),
        Value::Object(fields) => {
            let named = std::mem::take(fields).into_iter();
            fields.extend(named.map(|(name, mut value)| {
                make_printable(&mut value);
                (printable(&name).into_owned(), value)
            }));
        }
        _ => {}
    }
}

fn get(url: &OpsUrl, path: &str) -> Result<String, String> {
    let told = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("{url} does not answer within {PATIENCE:?}")
        }
        _ => format!("{url}: {error}"),
    };
    let mut stream = connect(url)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(told)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(told)?;
    let (host, port) = (&url.host, url.port);
    let request =
        format!("GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\nAccept: application/json\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(told)?;
    let mut answer = Vec::new();
    stream.take(BYTES_MAX).read_to_end(&mut answer).map_err(told)?;
    String::from_utf8(answer).map_err(|_| format!("{url}{path} is no text"))
}

fn connect(url: &OpsUrl) -> Result<TcpStream, String> {
    let addrs = (url.host.as_str(), url.port).to_socket_addrs();
    let addrs = addrs.map_err(|error| format!("{}: {error}", url.host))?;
    let mut why = format!("{} has no address", url.host);
    for addr in addrs {
        match TcpStream::connect_timeout(&addr, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                why = format!(
                    "nobody listens on {addr}: start the server with an ops listener (`serve echo --ops {}`, \
                     or `coreloop_net::ops` in a program)",
                    addr.port()
                );
            }
            Err(error) => why = format!("{addr}: {error}"),
        }
    }
    Err(why)
}

/// What follows the head of an answer, if it is one of success.
fn body_of(answer: &str) -> Result<&str, String> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is not HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    let status = status.split_once(' ').map_or("", |(_, status)| status);
    if !status.starts_with("200") {
        let body = body.lines().next().unwrap_or_default();
        return Err(format!("{status}: {body}"));
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if length.is_some_and(|length| length != body.len()) {
        return Err("the answer ends early".into());
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_taken_from_a_whole_answer_of_success_only() {
        assert_eq!(body_of("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), Ok("{}"));
        assert_eq!(body_of("HTTP/1.1 200 OK\r\nA: b\r\n\r\n{}"), Ok("{}"));
        let cut = body_of("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}").unwrap_err();
        assert!(cut.contains("ends early"), "{cut}");
        let missing = body_of("HTTP/1.1 404 Not Found\r\n\r\nno such page\nx").unwrap_err();
        assert_eq!(missing, "404 Not Found: no such page");
        assert!(body_of("SSH-2.0").unwrap_err().contains("not HTTP"));
    }

    #[test]
    fn a_document_of_another_version_is_refused() {
        let answer = |body: &str| format!("HTTP/1.1 200 OK\r\n\r\n{body}");
        let newer = answer(r#"{"schema_version":2,"cores":[]}"#);
        for refused in [shown::<Value>(&newer), as_it_is::<Value>(&newer)] {
            let refused = refused.unwrap_err();
            assert!(refused.contains("schema_version 2; this program reads 1"), "{refused}");
        }
        for body in [r#"{"schema_version":1}"#, "{}"] {
            assert!(
                shown::<Value>(&answer(body)).is_ok() && as_it_is::<Value>(&answer(body)).is_ok()
            );
        }
        assert!(shown::<Value>(&answer(r#"{"schema_version":"x"}"#)).is_err());
    }

    #[test]
    fn nobody_there_is_told_with_what_to_do() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let url = OpsUrl { host: "127.0.0.1".into(), port };
        let error = fetch::<serde_json::Value>(&url, "/cores").unwrap_err();
        assert!(error.contains("--ops"), "{error}");
    }
}
