//! The attributes: what they make of a function, and what they say of one that they can't take.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use coreloop::sim::Sim;
use coreloop::time::{Instant, sleep, timeout};
use coreloop_tests::skip;

#[coreloop::test]
async fn macros_a_test_runs_on_a_loop() {
    let slept = coreloop::spawn(sleep(Duration::from_millis(1)));
    slept.await.unwrap();
}

#[coreloop::test]
async fn macros_a_test_may_give_a_result() -> Result<(), Box<dyn std::error::Error>> {
    let number: u32 = "7".parse()?;
    assert_eq!(number, 7);
    Ok(())
}

#[coreloop::test]
#[should_panic(expected = "as it should")]
async fn macros_other_attributes_stay() {
    panic!("as it should");
}

#[coreloop::test(sim)]
async fn macros_a_simulated_test_has_a_clock_of_its_own() {
    let began = Instant::now();
    sleep(Duration::from_secs(24 * 3600 - 1)).await;
    assert!(began.elapsed() >= Duration::from_secs(24 * 3600 - 1));
}

#[coreloop::test(sim, seeds = 3)]
async fn macros_a_simulated_test_may_take_the_simulation(sim: Sim) -> Result<(), String> {
    assert_eq!(sim.addr("test"), sim.addr("test"));
    sim.host("late", 1, |_core| async { sleep(Duration::MAX).await });
    timeout(Duration::from_secs(1), sleep(Duration::from_secs(2)))
        .await
        .map_or(Ok(()), |()| Err("the limit did not hold".to_owned()))
}

#[coreloop::test(sim, seeds = 3)]
fn macros_a_plain_function_adds_hosts(sim: &Sim) {
    sim.client("a", || sleep(Duration::from_secs(1)));
    sim.client("b", || sleep(Duration::from_secs(2)));
}

#[coreloop::test(sim, seeds = 1_000)]
#[should_panic(expected = "CORELOOP_SEED=")]
async fn macros_a_failing_seed_is_told(sim: Sim) {
    assert_ne!(sim.random() % 16, 0, "an unlucky number");
}

/// Where this build put the macros: the newest of that name beside the tests; none in a build for another
/// target, which keeps what runs in the compiler elsewhere.
fn macros_library() -> Option<PathBuf> {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let files = std::fs::read_dir(deps).unwrap().map(|e| e.unwrap().path());
    let ours = files.filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("libcoreloop_macros-") && name.ends_with(".so")
    });
    ours.max_by_key(|path| path.metadata().unwrap().modified().unwrap())
}

/// What the compiler says of `source`, which does not compile.
fn errors_of(source: &str, macros: &Path) -> String {
    let dir = std::env::temp_dir().join(format!("coreloop-macros-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("wrong.rs");
    std::fs::write(&file, source).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--edition", "2024", "--test", "--emit", "metadata", "--out-dir"])
        .arg(&dir)
        .arg("--extern")
        .arg(format!("coreloop_macros={}", macros.display()))
        .arg(&file)
        .output()
        .unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(!output.status.success(), "this is to be refused: {source}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn macros_errors_name_what_is_wrong_and_where() {
    let Some(macros) = macros_library() else {
        skip!("the macros' library is not beside the tests")
    };
    let cases = [
        ("#[test]\nfn a() {}", "`#[coreloop::test]` is for an `async fn`"),
        ("#[test]\nasync fn a(x: u32) {}", "takes no arguments"),
        ("#[test]\nasync fn a<T>() {}", "no generic parameters"),
        ("#[test]\nstruct A;", "`#[coreloop::test]` is for functions"),
        ("#[test]\nunsafe fn a() {}", "is not for `unsafe` functions"),
        ("#[test(seeds = 3)]\nasync fn a() {}", "`seeds` is for simulated tests"),
        ("#[test(sim, seeds)]\nasync fn a() {}", "write how many: `seeds = 100`"),
        ("#[test(sim, seeds = many)]\nasync fn a() {}", "write how many: `seeds = 100`"),
        ("#[test(sim, seeds = 0)]\nasync fn a() {}", "would test nothing"),
        ("#[test(sim seeds = 3)]\nasync fn a() {}", "a comma is missing"),
        ("#[test(simulated)]\nasync fn a() {}", "unknown argument `simulated`; there are `sim`"),
        ("#[test(sim)]\nfn a() {}", "takes `sim: &Sim`"),
        ("#[main(cores = 2)]\nasync fn a() {}", "`#[coreloop::main]` takes no arguments"),
        ("#[main]\nfn a() {}", "`#[coreloop::main]` is for an `async fn`"),
    ];
    for (source, said) in cases {
        let source = format!("use coreloop_macros::{{main, test}};\n\n{source}\n");
        let errors = errors_of(&source, &macros);
        assert!(errors.contains(said), "{source}\n{errors}");
    }
}
