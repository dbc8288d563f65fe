//! `top` on a terminal, which tmux is: what it shows, its keys, its colours, and that it gives the terminal
//! back.

mod common;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::{io_uring_works, run, serve_with_ops};

const PATIENCE: Duration = Duration::from_secs(60);

/// A tmux server of one test alone, with one window.
struct Tmux {
    name: String,
}

impl Tmux {
    /// None, and a line that says so, without tmux.
    fn start(test: &str, columns: u16, rows: u16, command: &str) -> Option<Tmux> {
        let tmux = Tmux { name: format!("coreloop-{test}-{}", std::process::id()) };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let size = ["-x", columns.as_str(), "-y", rows.as_str()];
        let started = tmux.say(&[&["new-session", "-d"], &size[..], &[command]].concat());
        match started {
            Ok(output) if output.status.success() => Some(tmux),
            failed => {
                let line = format!("SKIPPED {test}: tmux can't be used: {failed:?}\n");
                let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), line.as_bytes());
                None
            }
        }
    }

    fn say(&self, args: &[&str]) -> std::io::Result<Output> {
        Command::new("tmux").args(["-L", &self.name, "-f", "/dev/null"]).args(args).output()
    }

    fn keys(&self, keys: &[&str]) {
        assert!(self.say(&[&["send-keys"], keys].concat()).unwrap().status.success());
    }

    fn shown(&self, escapes: bool) -> String {
        let args: &[&str] =
            if escapes { &["capture-pane", "-p", "-e"] } else { &["capture-pane", "-p"] };
        String::from_utf8_lossy(&self.say(args).unwrap().stdout).into_owned()
    }

    /// The screen, as soon as it is as it should be.
    fn wait(&self, what: &str, is_there: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let shown = self.shown(false);
            if is_there(&shown) {
                return shown;
            }
            assert!(Instant::now() < until, "{what}:\n{shown}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // One that has ended by itself is as good.
        let _ = self.say(&["kill-server"]);
    }
}

/// `top`, and then what the terminal is like.
fn top(port: &str, more: &str) -> String {
    let bench = env!("CARGO_BIN_EXE_coreloop-bench");
    format!(
        "{more} '{bench}' top {port} --interval 200ms; echo \"code=$?\"; stty -a; \
         tmux display -p 'alternate=#{{alternate_on}}'; sleep 60"
    )
}

fn is_as_before(screen: &str) {
    assert!(screen.contains("alternate=0"), "{screen}");
    for flag in ["icanon", "echo", "isig"] {
        assert!(screen.split_whitespace().any(|word| word == flag), "{flag}: {screen}");
    }
}

#[test]
fn top_shows_cores_and_answers_to_keys_at_two_sizes() {
    if !io_uring_works() {
        return;
    }
    let (server, port) = serve_with_ops(&[]);
    let name = "top_shows_cores_and_answers_to_keys_at_two_sizes";
    let Some(tmux) = Tmux::start(name, 80, 24, &top(&port, "")) else { return };
    let screen = tmux.wait("a frame", |s| {
        s.contains("p99 WAKE") && s.contains("ops connection") && s.contains("h help")
    });
    let lines: Vec<&str> = screen.lines().collect();
    assert!(lines[0].contains("ready") && lines[0].contains(&port), "{screen}");
    assert!(lines[23].contains("q quit") && lines[23].contains("h help"), "{screen}");
    assert!(!screen.contains("ENTERS/S"), "there is no room for it: {screen}");
    assert!(screen.contains("sort: core"), "{screen}");
    tmux.keys(&["s"]);
    tmux.wait("another order", |s| s.contains("sort: busy"));
    tmux.keys(&["h"]);
    tmux.wait("the help", |s| s.contains("any key closes it"));
    tmux.keys(&["q"]);
    tmux.wait("no help", |s| !s.contains("any key closes it"));
    tmux.keys(&["g"]);
    tmux.wait("tasks one by one", |s| s.contains("tasks one by one"));
    assert!(tmux.say(&["resize-window", "-x", "120", "-y", "40"]).unwrap().status.success());
    // Of the whole frame: the terminal may show a part of one.
    let in_the_last_line = |s: &str| s.lines().nth(39).is_some_and(|line| line.contains("q quit"));
    tmux.wait("more columns and rows", |s| {
        s.contains("p99 TICK") && s.contains("SPIN") && in_the_last_line(s)
    });
    tmux.keys(&["p"]);
    tmux.wait("the pause", |s| s.contains("paused: p goes on"));
    tmux.keys(&["p", "q"]);
    let screen = tmux.wait("the end", |s| s.contains("alternate="));
    assert!(screen.contains("code=0") && !screen.contains("p99 WAKE"), "{screen}");
    is_as_before(&screen);
    drop(server);
}

#[test]
fn top_has_colours_unless_they_are_not_wanted() {
    if !io_uring_works() {
        return;
    }
    let (_server, port) = serve_with_ops(&[]);
    let name = "top_has_colours_unless_they_are_not_wanted";
    for (environment, coloured) in [("NO_COLOR=", true), ("NO_COLOR=1", false)] {
        let Some(tmux) = Tmux::start(name, 80, 24, &top(&port, environment)) else { return };
        tmux.wait("a frame", |s| s.contains("p99 WAKE"));
        let escaped = tmux.shown(true);
        // The form in which tmux tells foreground colours; bold, dim and reversed are none.
        let found = escaped.contains("[38;");
        assert_eq!(found, coloured, "{environment}: {escaped:?}");
    }
}

#[test]
fn a_signal_and_a_server_that_goes_leave_the_terminal_as_it_was() {
    if !io_uring_works() {
        return;
    }
    let (mut server, port) = serve_with_ops(&[]);
    let name = "a_signal_and_a_server_that_goes_leave_the_terminal_as_it_was";
    let Some(tmux) = Tmux::start(name, 80, 24, &top(&port, "")) else { return };
    tmux.wait("a frame", |s| s.contains("p99 WAKE"));
    let pid = server.pid().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(server.wait().code(), Some(0));
    tmux.wait("what is wrong", |s| s.contains("nobody listens on") && s.contains("p99 WAKE"));
    // The shell's child of this window.
    let pane = tmux.say(&["display", "-p", "#{pane_pid}"]).unwrap();
    let pane = String::from_utf8_lossy(&pane.stdout).trim().to_owned();
    let killed = Command::new("pkill").args(["-TERM", "-P", &pane]).status();
    assert!(killed.is_ok_and(|status| status.success()), "one child of {pane}");
    let screen = tmux.wait("the end", |s| s.contains("alternate="));
    assert!(screen.contains("code=143"), "{screen}");
    is_as_before(&screen);
    // And without a server from the beginning: the view waits for one.
    let ended = run(&["top", &port, "--once"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

#[test]
fn a_terminal_that_goes_takes_the_view_with_it() {
    if !io_uring_works() {
        return;
    }
    let (_server, port) = serve_with_ops(&[]);
    let name = "a_terminal_that_goes_takes_the_view_with_it";
    let Some(tmux) = Tmux::start(name, 80, 24, &top(&port, "")) else { return };
    tmux.wait("a frame", |s| s.contains("p99 WAKE"));
    let views = || {
        let found = Command::new("pgrep").args(["-f", &format!(" top {port} --interval")]).output();
        String::from_utf8_lossy(&found.unwrap().stdout).lines().count()
    };
    assert!(views() > 0);
    drop(tmux);
    let until = Instant::now() + PATIENCE;
    while views() > 0 {
        assert!(Instant::now() < until, "a view that has lost its terminal goes on");
        std::thread::sleep(Duration::from_millis(50));
    }
}
