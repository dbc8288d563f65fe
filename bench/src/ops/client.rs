//! Fetching a page of an ops listener.
//!
//! Owns one request per connection, with an end to every wait and a bound on what is read. It speaks
//! HTTP/1.0, so that no server answers in chunks.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::cli::ops::OpsUrl;

/// How long connecting, and each read, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A page that is larger is none of an ops listener.
const BYTES_MAX: u64 = 512 << 20;

/// The document at `path`.
///
/// # Errors
/// In words: nobody there, no ops listener, or not in time.
pub fn fetch<T: DeserializeOwned>(url: &OpsUrl, path: &str) -> Result<T, String> {
    let answer = get(url, path)?;
    let body = body_of(&answer).map_err(|why| format!("{url}{path}: {why}"))?;
    serde_json::from_str(body)
        .map_err(|error| format!("{url}{path} gives something else than expected: {error}"))
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
    fn nobody_there_is_told_with_what_to_do() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let url = OpsUrl { host: "127.0.0.1".into(), port };
        let error = fetch::<serde_json::Value>(&url, "/cores").unwrap_err();
        assert!(error.contains("--ops"), "{error}");
    }
}
