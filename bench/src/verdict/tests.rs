//! Each rule, from the figures that call for it, and from those just short of it.

use super::*;
use crate::report::core::CoreUsage;

const SECOND_NS: u64 = 1_000_000_000;

fn row(role: Role, core: usize, cpu_percent: u64, run_delay_percent: u64) -> CoreRow {
    let mut usage = CoreUsage::new(role, core);
    usage.wall_ns = SECOND_NS;
    usage.cpu_ns = cpu_percent * SECOND_NS / 100;
    usage.run_delay_ns = Some(run_delay_percent * SECOND_NS / 100);
    usage.into()
}

fn rows(server: u64, load: u64) -> Vec<CoreRow> {
    vec![row(Role::Server, 0, server, 0), row(Role::Load, 1, load, 0)]
}

fn closed(cores: &[CoreRow]) -> Figures<'_> {
    Figures {
        cores,
        requests: 50_000,
        errors: 0,
        unanswered: 0,
        window_ns: SECOND_NS,
        open: None,
        clipped: 0,
        missing: &[],
        congestion_control: Some("reno"),
    }
}

fn open(cores: &[CoreRow], p99_ns: u64, lag_p99_ns: u64) -> Figures<'_> {
    let summary = |p99_ns| Summary { count: 1, p99_ns, ..Summary::default() };
    let (corrected, lag) = (summary(p99_ns), summary(lag_p99_ns));
    Figures {
        open: Some(OpenFigures { rate: 50_000, random: false, corrected, lag }),
        ..closed(cores)
    }
}

fn only(mut list: Vec<String>) -> String {
    assert_eq!(list.len(), 1, "{list:?}");
    list.remove(0)
}

#[test]
fn a_run_with_room_on_both_sides_is_valid_and_needs_no_words() {
    let verdict = judge(&closed(&rows(70, 60)));
    assert_eq!(verdict, Verdict { valid: true, ..Verdict::default() });
    assert!(judge(&open(&rows(70, 60), 110_000, 9_000)).notes.is_empty());
}

#[test]
fn closed_loops_name_the_side_that_was_the_limit() {
    let note = only(judge(&closed(&rows(61, 99))).notes);
    assert!(note.starts_with("the load side was the limit: server at 61.0 %, load at 99.0 %"));
    let note = only(judge(&closed(&rows(99, 70))).notes);
    assert!(note.starts_with("the server was the limit"));
    let note = &judge(&closed(&rows(98, 98))).notes[0];
    assert!(note.starts_with("both CPUs were full (server 98.0 %, load 98.0 %)"), "{note}");
    let note = only(judge(&closed(&[row(Role::Load, 1, 99, 0)])).notes);
    assert!(note.contains("compare with its own report"));
}

#[test]
fn one_full_load_core_of_several_is_a_limit() {
    let mut cores = rows(50, 40);
    cores.push(row(Role::Load, 2, 97, 0));
    assert!(only(judge(&closed(&cores)).notes).contains("load at 97.0 %"));
}

#[test]
fn spinning_is_not_being_busy() {
    let mut spinning = CoreUsage::new(Role::Load, 1);
    (spinning.wall_ns, spinning.cpu_ns, spinning.spun_ns) = (SECOND_NS, SECOND_NS, SECOND_NS / 2);
    let cores = [row(Role::Server, 0, 50, 0), spinning.into()];
    assert!(judge(&open(&cores, 110_000, 9_000)).valid);
}

#[test]
fn a_missed_rate_is_invalid_and_the_remedy_fits_the_cause() {
    for (cores, remedy) in
        [(rows(50, 50), "--connections, --depth"), (rows(99, 50), "the server's CPU was full")]
    {
        let run = Figures { requests: 49_000, ..open(&cores, 110_000, 9_000) };
        let verdict = judge(&run);
        assert!(!verdict.valid);
        assert_eq!(verdict.server_reasons, verdict.reasons, "the generator had time for more");
        let reason = only(verdict.reasons);
        assert!(reason.starts_with("49,000 requests/s were reached of 50,000 asked for (98.0"));
        assert!(reason.contains(remedy), "{reason}");
    }
    let full = rows(99, 96);
    let full = judge(&Figures { requests: 40_000, ..open(&full, 110_000, 9_000) });
    assert_eq!((full.reasons.len(), full.server_reasons.len()), (2, 0), "nobody can tell whose");
    let cores = rows(50, 50);
    assert!(judge(&Figures { requests: 49_500, ..open(&cores, 110_000, 9_000) }).valid);
}

#[test]
fn lag_spoils_a_run_by_its_share_of_the_latency() {
    let cores = rows(50, 50);
    assert!(judge(&open(&cores, 120_000, 90_000)).valid, "one wake's worth is tolerated");
    assert!(judge(&open(&cores, 500_000_000, 2_000_000)).valid, "2 ms of 500");
    let reason = only(judge(&open(&cores, 1_000_000, 900_000)).reasons);
    assert!(reason.contains("p99 900 µs of a latency p99 of 1.00 ms: use more load cores"));
    let verdict = judge(&open(&cores, 1_000_000, 300_000));
    assert!(verdict.valid && only(verdict.notes).contains("up to 300 µs"));
}

#[test]
fn a_slow_tail_does_not_hide_that_every_send_was_late() {
    let cores = rows(50, 50);
    let mut run = open(&cores, 9_000_000, 300_000);
    if let Some(open) = &mut run.open {
        (open.corrected.p50_ns, open.lag.p50_ns) = (144_000, 90_000);
    }
    assert!(only(judge(&run).notes).starts_with("of the corrected p50 (144 µs) up to 90.0 µs"));
    if let Some(open) = &mut run.open {
        (open.corrected.p50_ns, open.lag.p50_ns) = (300_000, 250_000);
    }
    assert!(only(judge(&run).reasons).contains("p50 250 µs of a latency p50 of 300 µs"));
}

#[test]
fn a_full_generator_spoils_an_open_loop() {
    let reason = only(judge(&open(&rows(50, 96), 110_000, 9_000)).reasons);
    assert!(reason.starts_with("the generator's CPU was full (96.0 %)"));
}

#[test]
fn failures_silence_and_lost_cores_are_invalid() {
    let cores = rows(50, 50);
    let errors = judge(&Figures { errors: 3, ..closed(&cores) });
    assert!(only(errors.reasons).starts_with("3 requests or connections failed"));
    let silent = judge(&Figures { requests: 0, ..open(&cores, 0, 0) });
    assert!(only(silent.reasons).starts_with("no request was answered"));
    let lost = judge(&Figures { missing: &[4], ..closed(&cores) });
    assert!(only(lost.reasons).starts_with("load core 4 did not report"));
}

#[test]
fn answers_that_never_came_spoil_a_run() {
    let cores = rows(10, 10);
    let verdict = judge(&Figures { unanswered: 1_000, ..closed(&cores) });
    assert!(!verdict.valid);
    assert!(only(verdict.reasons).starts_with("1,000 requests were still unanswered"));
    assert_eq!(verdict.server_reasons.len(), 1);
}

#[test]
fn readers_are_told_of_shared_disturbed_and_clipped() {
    let shared = [row(Role::Server, 0, 50, 0), row(Role::Load, 0, 50, 0)];
    assert!(only(judge(&closed(&shared)).notes).starts_with("server and load shared CPU 0"));
    let disturbed = [row(Role::Server, 0, 50, 7), row(Role::Load, 1, 50, 0)];
    assert!(only(judge(&closed(&disturbed)).notes).starts_with("core 0 was ready but waited"));
    let cores = rows(50, 50);
    let paced = judge(&Figures { congestion_control: Some("bbr"), ..closed(&cores) });
    assert!(paced.valid && only(paced.notes).contains("cubic or reno"));
    let clipped = judge(&Figures { clipped: 2, ..closed(&cores) });
    assert!(clipped.valid && only(clipped.notes).contains("above 60 s"));
}

#[test]
fn a_generator_that_sets_the_pace_is_told_from_a_server_that_does() {
    let limited = |cores: &[CoreRow]| judge(&closed(cores)).generator_limited;
    assert!(limited(&rows(60, 99)));
    assert!(!limited(&rows(99, 60)));
    assert!(!limited(&rows(99, 99)), "both were full");
    assert!(limited(&[row(Role::Load, 1, 99, 0)]), "the server is elsewhere");
    let all = rows(60, 30);
    let mut figures = open(&all, 110_000, 9_000);
    assert!(!judge(&figures).generator_limited);
    let full = rows(60, 99);
    figures.cores = &full;
    assert!(judge(&figures).generator_limited);
}
