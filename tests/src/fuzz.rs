//! Fuzzing of what reads text, on any compiler.
//!
//! Owns [`fuzz`]: inputs from a corpus in the repository, mutated from a seed, thrown at a target that must
//! not panic nor take long. What a target gives is its *signature* of an input (what kind of error, which
//! parts were used); inputs with signatures that are new join the corpus of the run, so that it works its way
//! inwards as one that watches branches would. An input that fails is written down and named; put into the
//! corpus it is run first ever after. `CORELOOP_FUZZ_SECONDS` says how long each target is run (1 s; 0: the
//! corpus alone), `CORELOOP_FUZZ_SEED` where it begins.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::rng::Rng;

/// Longest input that is made.
const LEN_MAX: usize = 16 << 10;
/// Inputs that a run keeps beside those of the repository.
const KEPT_MAX: usize = 2_000;
/// A single input that takes longer has found something.
pub const TIME_MAX: Duration = Duration::from_secs(2);

/// What a run did.
#[derive(Clone, Copy, Debug)]
pub struct Fuzzed {
    /// Inputs tried.
    pub tried: u64,
    /// Different signatures seen.
    pub signatures: usize,
}

/// A signature of any value, such as an error's text.
pub fn signature(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// A signature of a message: what is quoted in it, and numbers, don't count.
pub fn message_signature(text: &str) -> u64 {
    let unquoted = text.split('"').step_by(2);
    let words: String = unquoted.flat_map(str::chars).filter(char::is_ascii_alphabetic).collect();
    signature(words)
}

/// Runs `target` on the corpus in the folder, then on mutations of it, with words of `dictionary` among them.
///
/// # Panics
/// If the target does, takes longer than [`TIME_MAX`] for one input, or the folder has no corpus.
pub fn fuzz(corpus: &Path, dictionary: &[&str], mut target: impl FnMut(&[u8]) -> u64) -> Fuzzed {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse().expect("a number"));
    let until = Instant::now() + Duration::from_secs(number("CORELOOP_FUZZ_SECONDS").unwrap_or(1));
    let mut rng = Rng::new(number("CORELOOP_FUZZ_SEED").unwrap_or(1));
    let mut kept = read(corpus);
    assert!(!kept.is_empty(), "no corpus in {}", corpus.display());
    let of_repository = kept.len();
    let mut seen = HashSet::new();
    let mut tried = 0;
    for input in &kept {
        seen.insert(try_one(corpus, input, &mut target));
        tried += 1;
    }
    while Instant::now() < until {
        for _ in 0..64 {
            let input = mutated(&kept, dictionary, &mut rng);
            tried += 1;
            if seen.insert(try_one(corpus, &input, &mut target)) {
                if kept.len() - of_repository < KEPT_MAX {
                    kept.push(input);
                } else {
                    let at = of_repository + rng.below(KEPT_MAX as u64) as usize;
                    kept[at] = input;
                }
            }
        }
    }
    Fuzzed { tried, signatures: seen.len() }
}

fn read(corpus: &Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(corpus).unwrap_or_else(|e| panic!("{}: {e}", corpus.display()));
    let mut files: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    files.sort();
    files.iter().map(|f| std::fs::read(f).expect("a file of the corpus")).collect()
}

fn try_one(corpus: &Path, input: &[u8], target: &mut impl FnMut(&[u8]) -> u64) -> u64 {
    let began = Instant::now();
    let ended = catch_unwind(AssertUnwindSafe(|| target(input)));
    let took = began.elapsed();
    let why = match &ended {
        Ok(_) if took <= TIME_MAX => None,
        Ok(_) => Some(format!("it took {took:?}")),
        Err(_) => Some("it panicked".into()),
    };
    if let Some(why) = why {
        let name = corpus.file_name().unwrap_or_default().to_string_lossy();
        let file = std::env::temp_dir().join(format!("{name}-{:016x}", signature(input)));
        let kept = std::fs::write(&file, input);
        let text = String::from_utf8_lossy(input);
        eprintln!("{why}; the input, also in {} ({kept:?}): {text:?}", file.display());
        assert!(ended.is_err(), "{name}: {why}");
    }
    ended.unwrap_or_else(|payload| resume_unwind(payload))
}

fn mutated(kept: &[Vec<u8>], dictionary: &[&str], rng: &mut Rng) -> Vec<u8> {
    let any = |rng: &mut Rng, n: usize| rng.below(n.max(1) as u64) as usize;
    let mut input = kept[any(rng, kept.len())].clone();
    for _ in 0..=rng.below(5) {
        let at = any(rng, input.len() + 1);
        let end = at + any(rng, (input.len() - at).min(40) + 1);
        match rng.below(9) {
            0 => drop(input.drain(at..end)),
            1 => input.insert(at, rng.number() as u8),
            2 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << rng.below(8);
                }
            }
            3 => {
                let piece = input[at..end].to_vec();
                let most = 1 << rng.below(10);
                let times = 1 + any(rng, most);
                let room = LEN_MAX.saturating_sub(input.len()) / piece.len().max(1);
                input.splice(at..at, piece.repeat(times.min(room)));
            }
            4 | 5 if !dictionary.is_empty() => {
                let word = dictionary[any(rng, dictionary.len())].bytes();
                drop(input.splice(at..if rng.below(2) == 0 { at } else { end }, word));
            }
            6 => {
                let edges = ["0", "-1", "1", "255", "65536", "4294967296", "18446744073709551616"];
                drop(input.splice(at..end, edges[any(rng, edges.len())].bytes()));
            }
            7 => {
                let other = &kept[any(rng, kept.len())];
                let from = any(rng, other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => input.splice(at..end, [b" \n\t=,.:-\"'[]{}\0"[any(rng, 15)]]).for_each(drop),
        }
    }
    input.truncate(LEN_MAX);
    input
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn a_planted_panic_is_found_and_its_way_in_is_kept() {
        let corpus = std::env::temp_dir().join(format!("coreloop-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&corpus).unwrap();
        std::fs::write(corpus.join("one"), "aaaa").unwrap();
        // Four steps, of which each alone is a signature: blind mutation would need them all at once.
        let found = catch_unwind(|| {
            for _ in 0..20 {
                fuzz(&corpus, &["core", "loop"], |input| {
                    let steps = [&b"co"[..], b"core", b"coreloop", b"coreloop9"];
                    let at = steps.iter().take_while(|s| input.starts_with(s)).count();
                    assert!(at < 4, "planted");
                    at as u64
                });
            }
        });
        std::fs::remove_dir_all(&corpus).unwrap();
        let name = format!("{}-", corpus.file_name().unwrap().to_string_lossy());
        let kept = std::fs::read_dir(std::env::temp_dir()).unwrap().map(|entry| entry.unwrap());
        let kept: Vec<_> =
            kept.filter(|e| e.file_name().to_string_lossy().starts_with(&name)).collect();
        for entry in &kept {
            let input = std::fs::read(entry.path()).unwrap();
            assert!(input.starts_with(b"coreloop9"), "{input:?}");
            std::fs::remove_file(entry.path()).unwrap();
        }
        assert!(found.is_err(), "the planted panic was not found");
        assert_eq!(kept.len(), 1, "its input is kept");
    }

    #[test]
    fn signatures_of_messages_ignore_what_was_given() {
        assert_eq!(
            message_signature("\"a\" is no name at 3"),
            message_signature("\"b\" is no name at 14")
        );
        assert_ne!(message_signature("is no name"), message_signature("is no number"));
    }
}
