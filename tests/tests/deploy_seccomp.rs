//! The seccomp profile of `docs/deploy` in force: a runtime does all that it does elsewhere, and what the
//! profile forbids is refused.

#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use coreloop::{Cores, EventLoop, Runtime, spawn_blocking, time::sleep};
use coreloop_tests::net::echoes;
use coreloop_tests::process::block_syscall;
use coreloop_tests::{in_child, skip};

/// The calls that the profile forbids, as this architecture has them.
const NUMBERS: &[(&str, libc::c_long)] = &[
    ("acct", libc::SYS_acct),
    ("add_key", libc::SYS_add_key),
    ("adjtimex", libc::SYS_adjtimex),
    ("bpf", libc::SYS_bpf),
    ("clock_adjtime", libc::SYS_clock_adjtime),
    ("clock_settime", libc::SYS_clock_settime),
    ("delete_module", libc::SYS_delete_module),
    ("finit_module", libc::SYS_finit_module),
    ("fsconfig", libc::SYS_fsconfig),
    ("fsmount", libc::SYS_fsmount),
    ("fsopen", libc::SYS_fsopen),
    ("fspick", libc::SYS_fspick),
    ("init_module", libc::SYS_init_module),
    ("ioperm", libc::SYS_ioperm),
    ("iopl", libc::SYS_iopl),
    ("kcmp", libc::SYS_kcmp),
    ("kexec_file_load", libc::SYS_kexec_file_load),
    ("kexec_load", libc::SYS_kexec_load),
    ("keyctl", libc::SYS_keyctl),
    ("lookup_dcookie", libc::SYS_lookup_dcookie),
    ("mount", libc::SYS_mount),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("move_mount", libc::SYS_move_mount),
    ("move_pages", libc::SYS_move_pages),
    ("name_to_handle_at", libc::SYS_name_to_handle_at),
    ("nfsservctl", libc::SYS_nfsservctl),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("open_tree", libc::SYS_open_tree),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("personality", libc::SYS_personality),
    ("pivot_root", libc::SYS_pivot_root),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("ptrace", libc::SYS_ptrace),
    ("quotactl", libc::SYS_quotactl),
    ("quotactl_fd", libc::SYS_quotactl_fd),
    ("reboot", libc::SYS_reboot),
    ("request_key", libc::SYS_request_key),
    ("setdomainname", libc::SYS_setdomainname),
    ("sethostname", libc::SYS_sethostname),
    ("setns", libc::SYS_setns),
    ("settimeofday", libc::SYS_settimeofday),
    ("swapoff", libc::SYS_swapoff),
    ("swapon", libc::SYS_swapon),
    ("sysfs", libc::SYS_sysfs),
    ("syslog", libc::SYS_syslog),
    ("umount2", libc::SYS_umount2),
    ("unshare", libc::SYS_unshare),
    ("uselib", libc::SYS_uselib),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("ustat", libc::SYS_ustat),
    ("vhangup", libc::SYS_vhangup),
];

/// Forbidden, and not there: calls of 32 bits, and of kernels long gone.
const OLD: [&str; 7] =
    ["create_module", "get_kernel_syms", "query_module", "stime", "umount", "vm86", "vm86old"];

/// What the profile answers with an error.
fn forbidden() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy/seccomp.json");
    let profile: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ALLOW");
    let rules = profile["syscalls"].as_array().unwrap().iter();
    let refusing = rules.filter(|rule| rule["action"] == "SCMP_ACT_ERRNO");
    let names = refusing.flat_map(|rule| rule["names"].as_array().unwrap());
    names.map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn deploy_a_runtime_works_under_the_seccomp_profile() {
    in_child("deploy_a_runtime_works_under_the_seccomp_profile", || {
        let numbers: HashMap<_, _> = NUMBERS.iter().copied().collect();
        for name in forbidden().iter().filter(|name| !OLD.contains(&name.as_str())) {
            let number =
                *numbers.get(name.as_str()).unwrap_or_else(|| panic!("{name} is new here"));
            if let Err(e) = block_syscall(number, libc::EPERM) {
                skip!("no seccomp filters: {e}");
            }
        }
        // SAFETY: a call without pointers, which asks for nothing.
        let refused = unsafe { libc::syscall(libc::SYS_unshare, 0) };
        let errno = std::io::Error::last_os_error().raw_os_error();
        assert_eq!((refused, errno), (-1, Some(libc::EPERM)));
        let served = EventLoop::new().unwrap().block_on(async {
            sleep(Duration::from_millis(1)).await;
            assert_eq!(spawn_blocking(|| 7).await.unwrap(), 7);
            echoes(4, 100).await.unwrap()
        });
        assert_eq!(served, 100, "each came back");
        // Threads that are started under it, pinned, and that speak to each other.
        let cpu = Cores::Count(1).resolve().unwrap()[0];
        let runtime = Runtime::builder().cores(Cores::These(vec![cpu, cpu])).build().unwrap();
        let other = runtime.run(|core| async move {
            let other = 1 - core.index();
            core.handle().spawn_on(other, || async { 1 }).unwrap().await.unwrap_or_default()
        });
        assert_eq!(other.unwrap().len(), 2);
    });
}
