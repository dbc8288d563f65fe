//! The terminal while `top` has it.
//!
//! Owns that the terminal is given back as it was: at the end, at an error, at a panic (by the hook that
//! ratatui sets), and at SIGTERM, SIGINT and SIGHUP, which end the view in good order.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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

#[cfg(test)]
mod tests {
    use super::*;

    /// In a terminal of its own, by `a_panic_gives_the_terminal_back` in `bench/tests/top.rs`; nothing elsewhere.
    #[test]
    fn panics_where_it_has_the_terminal() {
        if std::env::var_os("CORELOOP_TEST_PANIC_ON_SCREEN").is_some() {
            let _screen = Screen::open().unwrap();
            panic!("as it was asked to");
        }
    }
}
