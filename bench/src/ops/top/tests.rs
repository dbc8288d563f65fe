//! Frames, drawn in memory.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::draw::{self, Theme};
use super::samples;
use super::state::State;
use crate::cli::ops::{OpsUrl, SortBy, TopArgs};

fn args() -> TopArgs {
    TopArgs {
        url: OpsUrl::here(),
        interval: Duration::from_secs(1),
        sort: SortBy::Core,
        once: false,
        json: false,
    }
}

fn seen() -> State {
    let mut state = State::new(&args());
    let (early, late) = samples::cores();
    state.looked(early);
    state.looked(late);
    state.tasks_read(Ok(samples::tasks()));
    state
}

fn drawn(state: &State, width: u16, height: u16, colour: bool) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::frame(frame, state, Theme { colour })).unwrap();
    terminal
}

fn lines(terminal: &Terminal<TestBackend>) -> Vec<String> {
    let buffer = terminal.backend().buffer();
    let area = buffer.area;
    (0..area.height)
        .map(|y| (0..area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>())
        .map(|line| line.trim_end().to_owned())
        .collect()
}

#[test]
fn a_server_that_does_not_answer_is_not_ready() {
    let mut state = seen();
    state.failed("nobody listens".into());
    let first = lines(&drawn(&state, 80, 24, false))[0].clone();
    assert!(first.starts_with(" coreloop top   NO ANSWER   http://127.0.0.1:9464"), "{first}");
    let (_, late) = samples::cores();
    state.looked(late);
    assert!(lines(&drawn(&state, 80, 24, false))[0].starts_with(" coreloop top   ready   "));
}

#[test]
fn a_frame_of_eighty_columns_has_everything() {
    let lines = lines(&drawn(&seen(), 80, 24, false));
    let text = lines.join("\n");
    assert_eq!(
        lines[0],
        " coreloop top   ready   http://127.0.0.1:9464   server (4711)   up 12.0 s"
    );
    assert_eq!(
        lines[1],
        " 1 of 2 cores   busy 40.0 %   1,000 polls/s   500 enters/s   0 accepts/s"
    );
    assert_eq!(lines[2], " process   CPU 50.0 %   memory 12.0 MiB   files 70 of 1,024");
    let core = lines.iter().find(|line| line.starts_with("    0 ")).unwrap();
    for part in ["██", "▒", "··", "40.0 %", "1,000", "µs", "64"] {
        assert!(core.contains(part), "{part}: {text}");
    }
    assert!(
        lines.iter().any(|line| line.starts_with("    1 ") && line.contains("ended")),
        "{text}"
    );
    assert!(lines.iter().any(|line| line.contains("3   1m 30s        -  echo")), "{text}");
    let slowest = lines.iter().position(|line| line.contains("5.0 s  3.00 ms  nap")).unwrap();
    assert!(lines[slowest + 1].contains("echo"), "the longest poll stands first: {text}");
    let queue = lines.iter().find(|line| line.starts_with(" batch ")).unwrap();
    assert!(queue.contains("    10     1       4        50 10.0 %"), "{text}");
    assert!(lines[23].starts_with(" q quit  sr sort: core"), "{text}");
    assert!(lines[23].ends_with("h help"), "{text}");
}

#[test]
fn a_narrow_frame_has_tasks_without_their_places() {
    let lines = lines(&drawn(&seen(), 60, 24, false));
    let text = lines.join("\n");
    let heads = lines.iter().find(|line| line.contains("WAITS FOR")).unwrap();
    assert!(heads.ends_with("WAITS FOR"), "{text}");
    assert!(lines.iter().any(|line| line.contains("5.0 s  3.00 ms  nap")), "{text}");
    assert!(!text.contains(".rs"), "{text}");
}

#[test]
fn any_size_is_drawn() {
    let mut state = seen();
    for help in [false, true] {
        state.help = help;
        for width in [0, 1, 10, 37, 60, 80, 120, 300] {
            for height in [0, 1, 2, 5, 9, 24, 60] {
                drawn(&state, width, height, true);
            }
        }
    }
    drawn(&State::new(&args()), 1, 1, false);
}

#[test]
fn without_colour_there_is_none() {
    let coloured = drawn(&seen(), 120, 40, true);
    let plain = drawn(&seen(), 120, 40, false);
    assert_eq!(lines(&coloured), lines(&plain), "colour repeats what the text says");
    let colours = |terminal: &Terminal<TestBackend>| {
        let cells = terminal.backend().buffer().content.iter();
        cells.filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset).count()
    };
    assert!(colours(&coloured) > 0);
    assert_eq!(colours(&plain), 0);
}

#[test]
fn what_is_wrong_is_said_in_words() {
    let mut state = State::new(&args());
    let text = lines(&drawn(&state, 80, 24, false)).join("\n");
    assert!(text.contains("two looks make a frame"), "{text}");
    state.failed("nobody listens there".into());
    let text = lines(&drawn(&state, 80, 24, false)).join("\n");
    assert!(text.contains("nobody listens there"), "{text}");
    let long =
        "nobody listens on 127.0.0.1:9464: start the server with an ops listener (`--ops 9464`)";
    state.failed(long.into());
    let text = lines(&drawn(&state, 80, 24, false)).join("\n");
    assert!(text.contains("ops listener\n (`--ops 9464`)"), "it is wrapped: {text}");

    let mut state = seen();
    state.failed("does not answer".into());
    state.tasks_read(Err("a million tasks".into()));
    let view = state.view.as_mut().unwrap();
    view.ready = false;
    view.cores[0].answered_s = 3.0;
    let text = lines(&drawn(&state, 80, 24, false)).join("\n");
    for part in ["does not answer", "a million tasks", "NO ANSWER", "\n    0!"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    state.notice = None;
    state.paused = true;
    let text = lines(&drawn(&state, 80, 24, false)).join("\n");
    assert!(text.contains("paused") && text.contains("NOT READY"), "{text}");
}

#[test]
fn many_cores_leave_room_for_tasks_and_scroll() {
    let mut state = seen();
    let view = state.view.as_mut().unwrap();
    view.cores = (0..64)
        .map(|core| {
            let mut one = view.cores[0].clone();
            one.core = core;
            one
        })
        .collect();
    let text = lines(&drawn(&state, 80, 24, false)).join("\n");
    assert!(text.contains("cores above") && text.contains("echo"), "{text}");
    state.scroll = 63;
    let text = lines(&drawn(&state, 80, 24, false)).join("\n");
    assert!(text.contains("\n   62 "), "{text}");
}

#[test]
fn one_frame_as_text_ends_with_its_last_line() {
    let text = super::text(&seen(), 80);
    assert!(text.ends_with("src/echo.rs:7:9\n"), "{text}");
    assert!(!text.contains("quit"), "keys are for who can press them: {text}");
}

#[test]
fn without_stats_what_is_not_known_is_not_shown_as_a_number() {
    let (mut early, mut late) = samples::cores();
    for core in early.cores.iter_mut().chain(&mut late.cores) {
        core.level = coreloop::StatsLevel::Off;
        core.histograms = None;
        core.long_polls.clear();
    }
    let mut state = State::new(&args());
    state.looked(early);
    state.looked(late);
    state.tasks_read(Ok(samples::tasks()));
    for (width, words) in [(80, "stats off"), (140, "unknown (stats off)")] {
        let lines = lines(&drawn(&state, width, 30, false));
        let text = lines.join("\n");
        assert!(lines[1].contains("busy unknown (stats off)"), "{text}");
        let core = lines.iter().find(|line| line.starts_with("    0 ")).unwrap();
        assert!(core.contains(words) && !core.contains('%'), "{text}");
        assert!(text.contains("the oldest first"), "{text}");
        assert!(text.contains("known at the server's level --stats histograms"), "{text}");
    }
}
