//! The files of `docs/deploy`, and the page about them: the profile allows what a ring needs, the unit and
//! the manifests say what the page promises, the recipe runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use coreloop_tests::python::with_module;

const PAGE: &str = include_str!("../../docs/guide/production.md");
const RING: [&str; 3] = ["io_uring_setup", "io_uring_enter", "io_uring_register"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn deploy_the_seccomp_profile_allows_rings_and_forbids_what_it_says() {
    let profile: serde_json::Value = serde_json::from_str(&read("seccomp.json")).unwrap();
    let action = |call: &str| {
        let rules = profile["syscalls"].as_array().unwrap().iter();
        let mut named =
            rules.filter(|rule| rule["names"].as_array().unwrap().iter().any(|n| n == call));
        let rule = named.next();
        assert!(named.next().is_none(), "{call} is named once");
        rule.map_or(&profile["defaultAction"], |rule| &rule["action"]).as_str().unwrap().to_owned()
    };
    for call in
        RING.into_iter().chain(["socket", "accept4", "clone3", "mmap", "eventfd2", "execve"])
    {
        assert_eq!(action(call), "SCMP_ACT_ALLOW", "{call}");
    }
    for call in
        ["mount", "ptrace", "init_module", "kexec_load", "bpf", "setns", "unshare", "reboot"]
    {
        assert_eq!(action(call), "SCMP_ACT_ERRNO", "{call}");
    }
    let named: Vec<&str> = profile["syscalls"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|rule| rule["names"].as_array().unwrap())
        .map(|name| name.as_str().unwrap())
        .filter(|name| name.starts_with("io_uring"))
        .collect();
    assert_eq!(named, RING, "by name, so that a change of the default does not take them away");
}

#[test]
fn deploy_the_unit_says_what_the_page_promises() {
    let unit = read("coreloop.service");
    let values = |key: &str| -> Vec<String> {
        let lines = unit.lines().filter_map(|line| line.split_once('='));
        lines.filter(|(k, _)| *k == key).map(|(_, v)| v.to_owned()).collect()
    };
    assert_eq!(values("Type"), ["notify"]);
    for key in ["LimitNOFILE", "LimitMEMLOCK", "CPUAffinity", "WatchdogSec", "TimeoutStopSec"] {
        assert_eq!(values(key).len(), 1, "{key}");
        assert!(PAGE.contains(&format!("`{key}=")), "the page tells of {key}");
    }
    assert!(values("SystemCallFilter").iter().any(|line| line == &RING.join(" ")));
    let sections: Vec<_> = unit.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(sections, ["[Unit]", "[Service]", "[Install]"]);
    for line in unit.lines() {
        let known = line.is_empty() || line.starts_with(['#', '[']) || line.contains('=');
        assert!(known, "{line}");
    }
}

#[test]
fn deploy_every_file_is_told_of_and_every_file_told_of_is_there() {
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let told = PAGE.contains(&format!("../deploy/{name}"))
            || PAGE.contains(&format!("docs/deploy/{name}"));
        assert!(told, "{name}");
    }
    for rest in PAGE.split("](../deploy/").skip(1) {
        let name = rest.split(')').next().unwrap();
        assert!(folder().join(name).exists(), "{name}");
    }
    for manifest in ["kubernetes.yaml", "load-job.yaml"] {
        let text = read(manifest);
        assert!(
            text.contains("type: Localhost") && text.contains("localhostProfile:"),
            "{manifest}"
        );
        // A Service's variables may begin as settings do, and would be refused as unknown ones.
        assert!(text.contains("\n      enableServiceLinks: false\n"), "{manifest}");
    }
    let variable = [("CORELOOP_ECHO_SERVICE_HOST", "10.0.0.7")];
    let refused = coreloop::config::Sources::new().environment(variable).unwrap_err();
    assert!(refused.to_string().contains("CORELOOP_ECHO_SERVICE_HOST"), "{refused}");
    assert!(PAGE.contains("`enableServiceLinks: false`"));
    let deployment = read("kubernetes.yaml");
    for part in ["path: /readyz", "path: /livez", "terminationGracePeriodSeconds"] {
        assert!(deployment.contains(part), "{part}");
    }
}

#[test]
fn deploy_manifests_are_yaml_and_their_resources_guaranteed() {
    const CHECK: &str = r#"
import sys, yaml
for path in sys.argv[1:]:
    document = yaml.safe_load(open(path))
    if path.endswith("prometheus.yml"):
        assert document["scrape_configs"][0]["static_configs"], path
        continue
    pod = document["spec"]["template"]["spec"]
    assert pod["enableServiceLinks"] is False, path
    for container in pod["containers"]:
        resources = container["resources"]
        assert resources["requests"] == resources["limits"], path
        assert str(resources["limits"]["cpu"]).isdigit(), path
"#;
    let files =
        ["kubernetes.yaml", "load-job.yaml", "prometheus.yml"].map(|name| folder().join(name));
    let build = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let Some(python) = with_module("yaml", "pyyaml==6.0.2", build) else {
        coreloop_tests::skip!("no python3 with PyYAML, and it can't be installed");
    };
    let output = Command::new(python).args(["-c", CHECK]).args(files).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
