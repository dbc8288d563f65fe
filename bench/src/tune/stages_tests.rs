//! The search on made-up runs: what is planted is found, what is not is not, and time is kept.

use super::*;
use crate::trial::synthetic::Synthetic;
use crate::tune::space::space;

const MINUTE: Duration = Duration::from_secs(60);

/// The more there is to try, the longer it takes to find: these, however many settings there come to be.
const TRIED: [&str; 6] =
    ["spin", "tick_quota", "chunk_quota", "buffers", "ring_entries", "timer_resolution"];

fn plan(goal: &str, budget: Duration, seed: u64) -> Plan {
    let candidates = space(&TRIED.map(String::from), &[], |_| Ok(())).candidates;
    Plan { goal: goal.parse().unwrap(), seed, budget, candidates }
}

fn search(runner: &mut Synthetic, plan: &Plan) -> Found {
    tune(runner, plan, Rate::Closed, |_| true, &mut |_, _| ()).unwrap()
}

fn has(changes: &[(String, String)], name: &str, value: &str) -> bool {
    changes.iter().any(|(n, v)| n == name && v == value)
}

/// 5 % less with one value of one setting.
fn five_percent(changes: &[(String, String)]) -> f64 {
    if has(changes, "chunk_quota", "32") { 0.95 } else { 1.0 }
}

#[test]
fn a_planted_effect_of_five_percent_is_found() {
    let mut found = 0;
    for seed in 0..20 {
        let mut runner =
            Synthetic { effects: five_percent, drift: 0.1, ..Synthetic::noisy(0.03, seed) };
        let result = search(&mut runner, &plan("cpu", 5 * MINUTE, seed));
        if let Outcome::Tuned(ratio) = result.outcome {
            let winner = result.winner.unwrap();
            assert!(has(&winner.changes, "chunk_quota", "32"), "{}", winner.label());
            assert!(ratio.low < 0.955 && ratio.high > 0.945, "the interval is about it: {ratio:?}");
            found += 1;
        }
    }
    assert!(found >= 18, "{found} of 20");
}

#[test]
fn where_nothing_is_to_be_found_the_defaults_hold_at_about_the_nominal_rate() {
    let mut won = 0;
    let searches = 200;
    for seed in 0..searches {
        let mut runner = Synthetic { drift: 0.1, ..Synthetic::noisy(0.03, 1_000 + seed) };
        let result = search(&mut runner, &plan("cpu", 3 * MINUTE, seed));
        match result.outcome {
            Outcome::Tuned(_) => won += 1,
            Outcome::DefaultsHold(_) => {}
            other => panic!("{other:?}"),
        }
    }
    println!("{won} of {searches} by chance");
    // 2.5 % lie below the interval; more than three times that is no chance.
    assert!(won <= searches * 15 / 200, "{won} of {searches}");
}

/// 10 % less with one setting, 7 % with another.
fn two_that_add_up(changes: &[(String, String)]) -> f64 {
    let one = if has(changes, "spin", "off") { 0.9 } else { 1.0 };
    let two = if has(changes, "tick_quota", "2ms") { 0.93 } else { 1.0 };
    one * two
}

#[test]
fn effects_that_add_up_are_combined_and_idle_ones_left_out() {
    // Without noise an idle change has no effect at all, and chance no say.
    for seed in 0..50 {
        let mut runner = Synthetic { effects: two_that_add_up, ..Synthetic::noisy(0.0, seed) };
        let result = search(&mut runner, &plan("cpu", 5 * MINUTE, seed));
        assert!(
            matches!(result.outcome, Outcome::Tuned(r) if (r.median - 0.837).abs() < 1e-9),
            "seed {seed}: {:?}",
            result.outcome
        );
        assert_eq!(result.winner.as_ref().unwrap().label(), "tick_quota=2ms spin=off");
        let kept: Vec<&str> =
            result.effects.iter().filter(|e| e.kept).map(|e| e.name.as_str()).collect();
        assert_eq!(kept, ["tick_quota", "spin"], "seed {seed}");
    }
}

#[test]
fn effects_that_add_up_are_found_in_noise_and_idle_ones_kept_at_the_nominal_rate() {
    let (mut idle, mut kept) = (0, 0);
    for seed in 0..60 {
        let mut runner =
            Synthetic { effects: two_that_add_up, ..Synthetic::noisy(0.01, 7_000 + seed) };
        let result = search(&mut runner, &plan("cpu", 5 * MINUTE, seed));
        // Seven times the noise in each of many blocks: no seed misses one of these.
        assert!(
            matches!(result.outcome, Outcome::Tuned(r) if (r.median - 0.837).abs() < 0.02),
            "seed {seed}: {:?}",
            result.outcome
        );
        let of = |name: &str| result.effects.iter().find(|e| e.name == name).unwrap();
        for (name, planted) in [("spin", 0.9), ("tick_quota", 0.93)] {
            let effect = of(name);
            assert!(effect.kept, "seed {seed}: {name}");
            assert!((effect.ratio.unwrap().median - planted).abs() < 0.02, "seed {seed}: {name}");
        }
        for effect in result.effects.iter().filter(|e| e.name != "spin" && e.name != "tick_quota") {
            idle += 1;
            kept += usize::from(effect.kept);
        }
    }
    println!("{kept} of {idle} idle changes were kept by chance");
    // 2.5 % of the intervals lie beyond 1 on the one side; more than three times that is no chance.
    assert!(kept <= idle * 3 / 40 + 3, "{kept} of {idle}");
}

#[test]
fn what_saves_cpu_but_breaks_the_bound_does_not_win() {
    let mut runner = Synthetic {
        effects: |changes| match () {
            () if has(changes, "spin", "off") => 0.5,
            () if has(changes, "tick_quota", "2ms") => 0.9,
            () => 1.0,
        },
        ..Synthetic::noisy(0.005, 3)
    };
    // Latencies move with the CPU here: 45 to 90 µs would all hold 95.
    let held = search(&mut runner, &plan("p99<200us", 3 * MINUTE, 3));
    assert_eq!(held.judged.key, "cpu_ns_per_request");
    assert_eq!(held.winner.unwrap().label(), "spin=off");
    let mut runner = Synthetic { p99_us: |_| 300.0, ..runner };
    let missed = search(&mut runner, &plan("p99<200us", 3 * MINUTE, 3));
    assert_eq!(missed.judged.key, "p99_us");
}

#[test]
fn more_is_better_where_the_rate_counts() {
    let mut runner = Synthetic { effects: five_percent, ..Synthetic::noisy(0.01, 5) };
    let result = search(&mut runner, &plan("max-rate", 5 * MINUTE, 5));
    assert!(matches!(result.outcome, Outcome::Tuned(r) if r.low > 1.03), "{:?}", result.outcome);
    assert_eq!(result.winner.unwrap().label(), "chunk_quota=32");
}

#[test]
fn no_search_takes_longer_than_its_budget_by_more_than_a_run() {
    for (seed, budget_s, cost_ms) in
        [(1, 2, 900), (2, 10, 900), (3, 30, 400), (4, 300, 700), (5, 5, 6_000), (6, 60, 50)]
    {
        let (budget, cost) = (Duration::from_secs(budget_s), Duration::from_millis(cost_ms));
        let mut runner = Synthetic { cost, effects: five_percent, ..Synthetic::noisy(0.03, seed) };
        let result = search(&mut runner, &plan("cpu", budget, seed));
        let took = runner.elapsed();
        assert!(took <= budget + 2 * cost, "{took:?} of {budget:?} with runs of {cost:?}");
        let short = budget_s * 1_000 / cost_ms < 3;
        assert!(!short || result.outcome == Outcome::TooShort, "{:?}", result.outcome);
        // How many there are to try is the table's to say.
        let plenty = budget_s * 1_000 / cost_ms > 400;
        let few = budget_s * 1_000 / cost_ms < 20;
        assert!(!plenty || result.untried.is_empty(), "{budget:?}: {:?}", result.untried);
        assert!(!few || !result.untried.is_empty(), "{budget:?}");
    }
}

#[test]
fn a_winner_whose_changes_can_not_be_told_apart_is_confirmed_as_it_is() {
    let mut runner = Synthetic {
        effects: |changes| {
            let chunks = if has(changes, "chunk_quota", "32") { 0.95 } else { 1.0 };
            two_that_add_up(changes) * chunks
        },
        // All three or one alone.
        fails: |changes| changes.len() == 2,
        ..Synthetic::noisy(0.0, 3)
    };
    let result = search(&mut runner, &plan("cpu", 5 * MINUTE, 3));
    // And not the defaults, beside themselves.
    let winner = result.winner.unwrap().label();
    assert_eq!(winner, "chunk_quota=32 tick_quota=2ms spin=off", "{:?}", result.outcome);
    assert!(matches!(result.outcome, Outcome::Tuned(_)), "{:?}", result.outcome);
    assert!(result.effects.iter().all(|effect| effect.kept && effect.ratio.is_none()));
}

#[test]
fn a_change_that_can_not_be_left_out_stays_beside_one_that_can() {
    let mut runner = Synthetic {
        effects: |changes| {
            let chunks = if has(changes, "chunk_quota", "32") { 0.95 } else { 1.0 };
            two_that_add_up(changes) * chunks
        },
        // Of two, only those without the third one.
        fails: |changes| changes.len() == 2 && has(changes, "chunk_quota", "32"),
        ..Synthetic::noisy(0.0, 3)
    };
    let result = search(&mut runner, &plan("cpu", 5 * MINUTE, 3));
    let winner = result.winner.unwrap().label();
    assert_eq!(winner, "chunk_quota=32 tick_quota=2ms spin=off", "{:?}", result.effects);
    let looked_at: Vec<_> = result.effects.iter().map(|effect| effect.ratio.is_some()).collect();
    assert_eq!(looked_at, [true, false, false], "{:?}", result.effects);
}

/// Who changes something goes wrong from some run on.
struct Late {
    inner: Synthetic,
    from: usize,
    how: GaveUp,
    /// Whether the defaults do, too.
    all: bool,
}

impl Runner for Late {
    fn run(&mut self, ask: &Ask<'_>) -> Result<Measured, Trouble> {
        let mut measured = self.inner.run(ask)?;
        // The first run does not count.
        let late = self.inner.runs > self.from + 1 && (self.all || !ask.changes.is_empty());
        match self.how {
            GaveUp::Failed if late => return Err(Trouble::Failed("boom".into())),
            GaveUp::FellBehind if late => measured.usage.faults.push("80 of 100 reached".into()),
            _ => {}
        }
        Ok(measured)
    }

    fn elapsed(&self) -> Duration {
        self.inner.elapsed
    }
}

#[test]
fn a_winner_that_fails_or_falls_behind_when_it_is_confirmed_is_out_and_not_short_of_time() {
    let plan = plan("cpu", 5 * MINUTE, 3);
    let searched = |from, how, all| {
        let inner = Synthetic { effects: five_percent, ..Synthetic::noisy(0.01, 3) };
        let mut runner = Late { inner, from, how, all };
        tune(&mut runner, &plan, Rate::Closed, |_| true, &mut |_, _| ()).unwrap()
    };
    let confirming = |found: &Found| -> usize {
        found.log.runs.iter().filter(|run| run.stage == "confirm").count()
    };
    let whole = searched(usize::MAX - 1, GaveUp::Failed, false);
    assert!(matches!(whole.outcome, Outcome::Tuned(_)), "{:?}", whole.outcome);
    let from = whole.log.runs.len() - confirming(&whole);
    let failed = searched(from, GaveUp::Failed, false);
    assert_eq!(failed.outcome, Outcome::GaveUp(GaveUp::Failed));
    assert_eq!(confirming(&failed), 4, "then it is known, and the defaults alone say nothing");
    let behind = searched(from, GaveUp::FellBehind, false);
    assert_eq!(behind.outcome, Outcome::GaveUp(GaveUp::FellBehind));
    let behind = searched(from, GaveUp::FellBehind, true);
    assert_eq!(behind.outcome, Outcome::TooShort, "a load that the defaults miss says nothing");
}

#[test]
fn where_all_fail_the_defaults_hold() {
    let mut runner =
        Synthetic { fails: |changes| !changes.is_empty(), ..Synthetic::noisy(0.01, 3) };
    let result = search(&mut runner, &plan("cpu", 5 * MINUTE, 3));
    assert_eq!(result.outcome, Outcome::DefaultsHold(None));
    let defaults = result.log.runs.iter().filter(|run| run.error.is_none()).count();
    assert_eq!(defaults, 2, "beside nobody they are not run");
}

#[test]
fn runs_that_get_slower_do_not_break_the_budget() {
    let mut runner = Synthetic::noisy(0.03, 9);
    runner.fails = |changes| has(changes, "spin", "off");
    let result = search(&mut runner, &plan("cpu", 2 * MINUTE, 9));
    assert!(runner.elapsed() <= 2 * MINUTE + Duration::from_secs(2));
    assert!(result.log.errors().iter().any(|(who, _)| who == "spin=off"));
}

#[test]
fn an_interrupt_ends_it_anywhere_with_what_is_known() {
    for runs in 1..120 {
        let mut runner = Synthetic { runs_left: Some(runs), ..Synthetic::noisy(0.02, 4) };
        let result = search(&mut runner, &plan("cpu", 3 * MINUTE, 4));
        assert_eq!(result.outcome, Outcome::Interrupted, "after {runs}");
        assert_eq!(result.log.runs.len(), runs - 1, "the first run does not count");
    }
    let mut none = Synthetic { runs_left: Some(0), ..Synthetic::calm() };
    let plan = plan("cpu", MINUTE, 4);
    let result = search(&mut none, &plan);
    assert_eq!((result.outcome, result.log.runs.len()), (Outcome::Interrupted, 0));
}

#[test]
fn the_rate_is_a_share_of_what_the_defaults_do() {
    let mut runner = Synthetic::calm();
    let plan = plan("p99<1ms", MINUTE, 1);
    let result = tune(&mut runner, &plan, Rate::Share(0.7), |_| true, &mut |_, _| ()).unwrap();
    assert!((69_000..=70_000).contains(&result.rate.unwrap()), "{:?}", result.rate);
}

#[test]
fn combinations_change_different_things_and_stay_few() {
    let screened = [
        Candidate::single("spin", "off"),
        Candidate::single("spin", "50us"),
        Candidate::single("buffers", "64"),
        Candidate::single("tick_quota", "2ms"),
    ];
    let labels = |can: &dyn Fn(&Candidate) -> bool| -> Vec<String> {
        combinations(&screened, &can).iter().map(Candidate::label).collect()
    };
    assert_eq!(
        labels(&|_| true),
        [
            "spin=off",
            "buffers=64 spin=off",
            "buffers=64 tick_quota=2ms spin=off",
            "tick_quota=2ms spin=off",
            "buffers=64 tick_quota=2ms"
        ]
    );
    let impossible = |c: &Candidate| !has(&c.changes, "buffers", "64");
    assert_eq!(labels(&impossible), ["spin=off", "tick_quota=2ms spin=off"]);
    assert_eq!(combinations(&[], &|_: &Candidate| true), []);
}
