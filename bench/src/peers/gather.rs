//! The peers' binaries: built, found, and asked what they are.
//!
//! Owns the way from a checkout to contenders. A peer that did not build, or can't say what it is, becomes a
//! contender that is broken: it is reported, not dropped.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::peers::child::{Running, Trouble, how_ended};
use crate::peers::contenders::{Contender, Launch, OURS, broken, parse_description, served};

/// The checkout this program was built from.
const BUILT_FROM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

const DESCRIBING: Duration = Duration::from_secs(20);

/// Where the peers' sources are.
pub fn folder(asked: Option<&Path>) -> Result<PathBuf, String> {
    let folder = asked.unwrap_or(Path::new(BUILT_FROM)).to_owned();
    if folder.is_dir() {
        return Ok(folder);
    }
    Err(format!(
        "{} is not there: the peers are built from a checkout of the project; name its bench/peers \
         with --peers-dir",
        folder.display()
    ))
}

/// Builds them; cargo shows its own progress. Some may fail: what it then says is returned as a note.
pub fn build(folder: &Path, only: &[String]) -> Result<Option<String>, String> {
    let manifest = folder.join("Cargo.toml");
    if !manifest.is_file() {
        return Err(format!(
            "{} is not there, so that there is nothing to build: name the sources with --peers-dir, or \
             pass --no-build to run the binaries in {}",
            manifest.display(),
            binaries(folder).display()
        ));
    }
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--keep-going", "--manifest-path"]).arg(&manifest);
    cargo.arg("--target-dir").arg(folder.join("target"));
    for name in only_binaries(folder, only) {
        cargo.args(["--bin", &name]);
    }
    eprintln!("building the peers in {} (the first time takes minutes)", folder.display());
    match cargo.status() {
        Err(error) => Err(format!("cargo did not start ({error}): install it, or pass --no-build")),
        Ok(status) if status.success() => Ok(None),
        Ok(status) => Ok(Some(format!("not all peers were built: cargo {}", how_ended(status)))),
    }
}

/// The binaries that the names of contenders stand for; none for all of them.
fn only_binaries(folder: &Path, only: &[String]) -> BTreeSet<String> {
    if only.is_empty() {
        return BTreeSet::new();
    }
    let runtimes = sources(folder);
    let named = only.iter().map(|name| name.split(' ').next().unwrap_or(name));
    named
        .chain([OURS])
        .flat_map(|runtime| match runtime {
            "raw" => vec!["raw-echo".to_owned(), "raw-cross".to_owned()],
            "epoll" => vec!["epoll-echo".to_owned()],
            runtime if runtimes.contains(runtime) => vec![format!("peer-{runtime}")],
            _ => Vec::new(),
        })
        .collect()
}

/// Everybody: ours, the peers, the hand-written loops.
pub fn contenders(folder: &Path, bench: &Path) -> Vec<Contender> {
    let binaries = binaries(folder);
    let mut all = Vec::new();
    for runtime in sources(folder).union(&built(&binaries)) {
        all.extend(peer(runtime, binaries.join(format!("peer-{runtime}"))));
    }
    let ours = all.iter().filter(|who| who.is_ours() && who.broken.is_none()).cloned();
    let ours: Vec<Contender> = ours.collect();
    all.retain(|who| !who.is_ours());
    let mut everybody = ours_with(bench, &ours);
    everybody.append(&mut all);
    everybody.extend(hand_written(&binaries));
    everybody
}

/// Ours serves through this program, and works in process through its peer's binary, if there is one.
fn ours_with(bench: &Path, peer: &[Contender]) -> Vec<Contender> {
    let work = peer.first().and_then(|who| match &who.launch {
        Launch::Peer { binary } => Some(binary.clone()),
        _ => None,
    });
    let launch = Launch::Bench { binary: bench.to_owned(), work };
    ["default", "spin-off", "spin-50us"]
        .map(|variant| {
            let mut who = served(OURS, variant, env!("CARGO_PKG_VERSION"), launch.clone());
            who.spins = variant == "spin-50us";
            if let Some(peer) = peer.iter().find(|peer| peer.variant == variant) {
                who.workloads.extend(peer.workloads.iter().filter(|name| *name != "echo").cloned());
                who.unsupported = peer.unsupported.clone();
            }
            who
        })
        .to_vec()
}

fn peer(runtime: &str, binary: PathBuf) -> Vec<Contender> {
    match describe(&binary) {
        Ok(text) => match parse_description(&text) {
            Ok(described) => described.contenders(&Launch::Peer { binary }),
            Err(why) => vec![broken(runtime, binary, why)],
        },
        Err(why) => vec![broken(runtime, binary, why)],
    }
}

fn describe(binary: &Path) -> Result<String, String> {
    if !binary.is_file() {
        return Err("was not built".into());
    }
    let told = |trouble| match trouble {
        Trouble::Failed(words) => words,
        Trouble::Interrupted => "interrupted".to_owned(),
    };
    let mut command = Command::new(binary);
    command.arg("describe");
    let mut running = Running::start(&mut command, "peer").map_err(told)?;
    let ended = running.wait(DESCRIBING, || ()).map_err(told)?;
    match ended.success() {
        true => Ok(running.stdout()),
        false => Err(told(running.failure(&how_ended(ended)))),
    }
}

fn hand_written(binaries: &Path) -> Vec<Contender> {
    let (raw, epoll) = (binaries.join("raw-echo"), binaries.join("epoll-echo"));
    let mut all = Vec::new();
    for form in ["select", "own", "multishot"] {
        let mut who = served("raw", form, "hand-written", Launch::Raw { binary: raw.clone() });
        who.broken = (!raw.is_file()).then(|| "was not built".into());
        all.push(who);
    }
    all.extend(between_cores(binaries.join("raw-cross")));
    let mut who =
        served("epoll", "default", "hand-written", Launch::Epoll { binary: epoll.clone() });
    who.ring = false;
    who.broken = (!epoll.is_file()).then(|| "was not built".into());
    all.push(who);
    all
}

/// What two cores can tell each other without a runtime. It describes itself as a peer does; that a loop
/// can't
/// do what takes tasks is nothing to report.
fn between_cores(binary: PathBuf) -> Vec<Contender> {
    let mut all = peer("raw", binary);
    for who in &mut all {
        who.unsupported.clear();
        if who.broken.is_some() {
            (who.id, who.variant) = ("raw cross".into(), "cross".into());
            who.workloads = vec!["cross-round-trip".into(), "cross-one-way".into()];
        }
    }
    all
}

/// Those that were asked for, and ours, which they are compared with.
pub fn filter(all: Vec<Contender>, only: &[String]) -> Result<Vec<Contender>, String> {
    let is = |who: &Contender, name: &String| who.runtime == *name || who.id == *name;
    if let Some(name) = only.iter().find(|name| !all.iter().any(|who| is(who, name))) {
        let known: Vec<&str> = all.iter().map(|who| who.id.as_str()).collect();
        return Err(format!("no contender '{name}': there are {}", known.join(", ")));
    }
    let wanted =
        |who: &Contender| only.is_empty() || who.is_ours() || only.iter().any(|name| is(who, name));
    Ok(all.into_iter().filter(wanted).collect())
}

fn binaries(folder: &Path) -> PathBuf {
    folder.join("target/release")
}

/// Names of runtimes that have sources.
fn sources(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder.join("runtimes")).into_iter().flatten().flatten();
    let with_manifest = entries.filter(|entry| entry.path().join("Cargo.toml").is_file());
    with_manifest.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Names of runtimes that have a binary.
fn built(binaries: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(binaries).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let peers = names.filter_map(|name| name.strip_prefix("peer-").map(str::to_owned));
    peers.filter(|name| !name.contains('.')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[Contender]) -> Vec<&str> {
        all.iter().map(|who| who.id.as_str()).collect()
    }

    #[test]
    fn a_folder_that_is_not_there_is_told_with_the_remedy() {
        let error = folder(Some(Path::new("/nonexistent/peers"))).unwrap_err();
        assert!(error.contains("/nonexistent/peers") && error.contains("--peers-dir"), "{error}");
        let error = build(Path::new("/nonexistent/peers"), &[]).unwrap_err();
        assert!(
            error.contains("Cargo.toml is not there") && error.contains("--no-build"),
            "{error}"
        );
    }

    #[test]
    fn ours_and_hand_written_loops_are_always_there_though_not_built() {
        let all = contenders(Path::new("/nonexistent/peers"), Path::new("coreloop-bench"));
        assert_eq!(
            names(&all),
            [
                "coreloop",
                "coreloop spin-off",
                "coreloop spin-50us",
                "raw select",
                "raw own",
                "raw multishot",
                "raw cross",
                "epoll"
            ]
        );
        assert_eq!(all[3].broken.as_deref(), Some("was not built"));
        assert_eq!((all[0].spins, all[2].spins), (false, true));
    }

    #[test]
    fn a_filter_keeps_ours_and_names_what_there_is() {
        let all = || contenders(Path::new("/nonexistent/peers"), Path::new("coreloop-bench"));
        let kept = filter(all(), &["raw own".into(), "epoll".into()]).unwrap();
        assert_eq!(
            names(&kept),
            ["coreloop", "coreloop spin-off", "coreloop spin-50us", "raw own", "epoll"]
        );
        let error = filter(all(), &["nodejs".into()]).unwrap_err();
        assert!(error.contains("no contender 'nodejs'") && error.contains("raw select"), "{error}");
    }

    #[test]
    fn a_peer_that_can_not_describe_itself_is_broken() {
        let broken = peer("false", "/bin/false".into());
        assert!(broken[0].broken.as_ref().unwrap().contains("exit status: 1"), "{broken:?}");
        let silent = peer("true", "/bin/true".into());
        assert_eq!(silent[0].broken.as_deref(), Some("describe printed no JSON"));
    }
}
