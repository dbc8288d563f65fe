//! The terminal while `top` has it.
//!
//! Owns that the terminal is given back as it was: at the end, at an error, at a panic (by the hook that
//! ratatui sets), and at SIGTERM, SIGINT and SIGHUP, which end the view in good order. Of a terminal that is
//! gone crossterm reads the end for ever and comes back to nobody, so a thread beside sees to it that a hang-up
//! ends the program.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ratatui::DefaultTerminal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The whole terminal, in raw mode, on its alternate screen. Dropping it gives it back.
#[derive(Debug)]
pub struct Screen {
    /// What is drawn on.
    pub terminal: DefaultTerminal,
    signal: Arc<AtomicUsize>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// The terminal's, or the system's.
    pub fn open() -> io::Result<Screen> {
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [SIGTERM, SIGINT, SIGHUP] {
            // Before the terminal is taken: one that came between would leave it as it must not be left.
            let value = usize::try_from(number).expect("signals have positive numbers");
            signal_hook::flag::register_usize(number, signal.clone(), value)?;
        }
        let terminal = ratatui::try_init()?;
        end_at_hang_up(signal.clone());
        Ok(Screen { terminal, signal })
    }

    /// The signal that asks for the end, if one came.
    pub fn signal(&self) -> Option<u8> {
        u8::try_from(self.signal.load(Ordering::Relaxed)).ok().filter(|signal| *signal > 0)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // It says itself what could not be given back; there is nothing more to be done about it.
        ratatui::restore();
    }
}

/// Ends the program if the view has not done so some time after a hang-up.
fn end_at_hang_up(signal: Arc<AtomicUsize>) {
    let hung_up = move || signal.load(Ordering::Relaxed) == SIGHUP as usize;
    thread::spawn(move || {
        let mut before = false;
        loop {
            thread::sleep(LOOK);
            if before && hung_up() {
                ratatui::restore();
                std::process::exit(128 + SIGHUP);
            }
            before = hung_up();
        }
    });
}

/// Between two looks for a hang-up.
const LOOK: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Instant;

    use super::*;

    /// Set in the terminal that the test below makes.
    const VARIABLE: &str = "CORELOOP_TEST_PANIC_ON_SCREEN";

    fn tmux(args: &[&str]) -> std::io::Result<std::process::Output> {
        let server = format!("coreloop-panic-{}", std::process::id());
        Command::new("tmux").args(["-L", &server, "-f", "/dev/null"]).args(args).output()
    }

    struct Killed;

    impl Drop for Killed {
        fn drop(&mut self) {
            // One that has ended by itself is as good.
            let _ = tmux(&["kill-server"]);
        }
    }

    #[test]
    fn a_panic_gives_the_terminal_back() {
        if std::env::var_os(VARIABLE).is_some() {
            let _screen = Screen::open().unwrap();
            panic!("as it was asked to");
        }
        let own = std::env::current_exe().unwrap();
        let test = std::thread::current().name().unwrap().to_owned();
        let command = format!(
            "{VARIABLE}=1 RUST_BACKTRACE=0 '{}' --exact {test} --nocapture; \
             stty -a; tmux display -p 'alternate=#{{alternate_on}}'; sleep 60",
            own.display()
        );
        let _killed = Killed;
        match tmux(&["new-session", "-d", "-x", "100", "-y", "40", &command]) {
            Ok(output) if output.status.success() => {}
            failed => {
                let line = format!("SKIPPED {test}: no tmux: {failed:?}\n");
                let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), line.as_bytes());
                return;
            }
        }
        let until = Instant::now() + Duration::from_secs(60);
        let screen = loop {
            let shown = tmux(&["capture-pane", "-p"]).unwrap();
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            if shown.contains("alternate=") {
                break shown;
            }
            assert!(Instant::now() < until, "{shown}");
            thread::sleep(Duration::from_millis(20));
        };
        assert!(
            screen.contains("as it was asked to"),
            "the words are on the ordinary screen: {screen}"
        );
        assert!(screen.contains("alternate=0"), "{screen}");
        for flag in ["icanon", "echo", "isig"] {
            assert!(screen.split_whitespace().any(|word| word == flag), "{flag}: {screen}");
        }
    }
}
