//! Successive halving: how many blocks each round has, and how many candidates it begins with.
//!
//! Owns the arithmetic. In each block of a round every candidate runs once, and so does what they are compared
//! with; after a round the better half goes on. Rounds cost about the same: few blocks of many, then many
//! blocks of few. Never more runs than were given.

/// A round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// Candidates at its beginning.
    pub candidates: usize,
    /// Blocks.
    pub blocks: usize,
}

/// The rounds that fit into `runs`, from `candidates` down to `keep` or fewer. If not even one block of all
/// of them fits, the first round has as many as do: none for less than two runs.
pub fn halving(candidates: usize, runs: usize, keep: usize) -> Vec<Round> {
    let mut candidates = candidates.min(runs.saturating_sub(1));
    let mut left = runs;
    let mut rounds = Vec::new();
    while candidates > 0 {
        let to_come = rounds_down_to(candidates, keep.max(1));
        let fair = left / to_come / (candidates + 1);
        let fits = left / (candidates + 1);
        let blocks = fair.max(1).min(fits);
        if blocks == 0 {
            break;
        }
        rounds.push(Round { candidates, blocks });
        left -= blocks * (candidates + 1);
        if to_come == 1 {
            break;
        }
        candidates = candidates.div_ceil(2);
    }
    rounds
}

/// Rounds until no more than `keep` are left after one, this one included.
fn rounds_down_to(mut candidates: usize, keep: usize) -> usize {
    let mut rounds = 1;
    while candidates.div_ceil(2) > keep && candidates > 1 {
        candidates = candidates.div_ceil(2);
        rounds += 1;
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(rounds: &[Round]) -> usize {
        rounds.iter().map(|round| round.blocks * (round.candidates + 1)).sum()
    }

    #[test]
    fn rounds_halve_the_candidates_and_cost_alike() {
        let rounds = halving(21, 150, 4);
        let shape: Vec<(usize, usize)> = rounds.iter().map(|r| (r.candidates, r.blocks)).collect();
        assert_eq!(shape, [(21, 2), (11, 4), (6, 8)]);
    }

    #[test]
    fn no_schedule_costs_more_than_it_was_given_or_has_an_empty_round() {
        for candidates in 0..60 {
            for runs_given in 0..400 {
                for keep in [1, 4] {
                    let rounds = halving(candidates, runs_given, keep);
                    let cost = runs(&rounds);
                    assert!(cost <= runs_given, "{candidates} {runs_given}: {rounds:?}");
                    assert!(rounds.iter().all(|round| round.blocks > 0));
                    let halved =
                        |pair: &[Round]| pair[1].candidates == pair[0].candidates.div_ceil(2);
                    assert!(rounds.windows(2).all(halved), "{rounds:?}");
                    assert_eq!(rounds.is_empty(), candidates == 0 || runs_given < 2);
                    // Within a block of the last round, all is spent.
                    if let Some(last) =
                        rounds.last().filter(|last| last.candidates.div_ceil(2) <= keep)
                    {
                        assert!(runs_given - cost < (last.candidates + 1) * 2, "{rounds:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn where_not_all_fit_as_many_begin_as_do() {
        assert_eq!(halving(30, 11, 4)[0].candidates, 10);
        assert_eq!(halving(30, 1, 4), []);
    }
}
