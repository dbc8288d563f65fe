//! Commands in the guide and in the files for deployment are taken by this program.

use clap::Parser;

use super::Cli;

const TEXTS: [(&str, &str); 5] = [
    ("production.md", include_str!("../../../docs/guide/production.md")),
    ("coreloop.service", include_str!("../../../docs/deploy/coreloop.service")),
    ("kubernetes.yaml", include_str!("../../../docs/deploy/kubernetes.yaml")),
    ("load-job.yaml", include_str!("../../../docs/deploy/load-job.yaml")),
    ("Dockerfile", include_str!("../../../docs/deploy/Dockerfile")),
];

/// Each command with all its words, as a shell would part them.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let joined = text.replace("\\\n", " ");
    let lines: Vec<&str> = joined.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let line = line.trim();
        let plain = ["coreloop-bench ", "ExecStart=/usr/local/bin/coreloop-bench "];
        let words = if let Some(rest) = plain.iter().find_map(|start| line.strip_prefix(start)) {
            rest.to_owned()
        } else if let Some(rest) = line.strip_prefix("exec coreloop-bench ") {
            // A folded text: its lines go on for as long as they are indented.
            let more = lines[at + 1..].iter().take_while(|line| !line.trim().starts_with("env:"));
            let more: Vec<&str> = more.map(|line| line.trim()).collect();
            format!("{rest} {}", more.join(" "))
        } else if let Some((run, rest)) = line.split_once(" coreloop-bench ")
            && run.starts_with("docker run")
        {
            rest.to_owned()
        } else if let Some(list) = line.strip_prefix("args: [") {
            list.trim_end_matches(']').replace(['"', ','], " ")
        } else {
            continue;
        };
        found.push(words.split_whitespace().map(str::to_owned).collect());
    }
    found
}

#[test]
fn commands_of_the_guide_are_taken() {
    let mut count = 0;
    for (name, text) in TEXTS {
        for words in commands(text) {
            // What Kubernetes puts in.
            let words = words.iter().map(|word| word.replace("$SERVER", "10.0.0.10"));
            let words: Vec<String> =
                ["coreloop-bench".to_owned()].into_iter().chain(words).collect();
            if let Err(error) = Cli::try_parse_from(&words) {
                panic!("{name}: {words:?}: {error}");
            }
            count += 1;
        }
    }
    assert!(count >= 10, "only {count} commands were found: the reading is wrong");
}
