//! What a simulation sees of memory that was freed, where the system does not let it copy as a kernel does.

#![allow(unsafe_code)]

use coreloop::sim::{Quarantine, Sim};
use coreloop_tests::child::Child;
use coreloop_tests::process::block_syscall;

#[global_allocator]
static ALLOCATOR: Quarantine = Quarantine;

const NAME: &str = "sim_memory_that_was_freed_is_looked_at_without_process_vm_readv_too";

#[test]
fn sim_memory_that_was_freed_is_looked_at_without_process_vm_readv_too() {
    // Where filters can't be had, the child says so with the same words.
    Child::new(NAME).says("process_vm_readv(2) is not allowed here").run(|| {
        if block_syscall(libc::SYS_process_vm_readv, libc::EPERM).is_err() {
            println!("SKIPPED {NAME}: no seccomp filter; process_vm_readv(2) is not allowed here");
            return;
        }
        let sim = Sim::builder().build();
        sim.client("only", async || {
            let bytes = std::hint::black_box(vec![1u8; 100]);
            let at = bytes.as_ptr().cast_mut();
            drop(bytes);
            // SAFETY: none is needed: the block is in quarantine and has not been given back.
            unsafe { at.add(50).write_volatile(7) };
        });
        let failed = sim.run().unwrap_err();
        assert!(failed.to_string().contains("FreedTouched at "), "{failed}");
    });
}
