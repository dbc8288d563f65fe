//! Reads past the page cache, in flight when their loop ends: the device writes into nobody else's memory.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use coreloop::buf::{IoBuf, IoBufMut};
use coreloop::op::{Read, submit};
use coreloop::{EventLoop, Settings, spawn};
use coreloop_tests::{Child, fd_count, fds_settle_at, figure, poll_once, skip};

const SOON: Duration = Duration::from_secs(10);
const BLOCK: usize = 4096;
const READS: usize = 256;
/// What the file holds, and what the memory is filled with once it is somebody else's.
const OF_FILE: u8 = 0xF1;
const OF_NEXT: u8 = 0x3E;

/// Memory as O_DIRECT wants it.
#[repr(align(4096))]
struct Aligned([u8; BLOCK]);

struct Block {
    bytes: Box<Aligned>,
    len: usize,
}

impl Block {
    fn filled(byte: u8) -> Self {
        Self { bytes: Box::new(Aligned([byte; BLOCK])), len: BLOCK }
    }
}

#[allow(unsafe_code, reason = "a buffer of one's own says so")]
mod buffers {
    use super::{BLOCK, Block, IoBuf, IoBufMut};

    // SAFETY: boxed memory stays put when the box moves.
    unsafe impl IoBuf for Block {
        fn as_ptr(&self) -> *const u8 {
            self.bytes.0.as_ptr()
        }

        fn len(&self) -> usize {
            self.len
        }
    }

    // SAFETY: as above; the box is the only way to its memory, all of which is initialised.
    unsafe impl IoBufMut for Block {
        fn as_mut_ptr(&mut self) -> *mut u8 {
            self.bytes.0.as_mut_ptr()
        }

        fn capacity(&self) -> usize {
            BLOCK
        }

        unsafe fn set_len(&mut self, n: usize) {
            self.len = n;
        }
    }
}

/// 256 files at 256 places of one file, opened past the cache.
fn files(path: &Path) -> std::io::Result<Vec<File>> {
    (0..READS)
        .map(|i| {
            let mut file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
            file.seek(SeekFrom::Start((i * BLOCK) as u64))?;
            Ok(file)
        })
        .collect()
}

/// Whether a file's system is tmpfs, which takes O_DIRECT and has nothing to wait for.
#[allow(unsafe_code)]
fn is_in_memory(file: &File) -> bool {
    // SAFETY: all zeroes are a value of this plain structure, and the call fills it in.
    let mut of: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, the structure lives through the call.
    let told = unsafe { libc::fstatfs(file.as_raw_fd(), &mut of) };
    told == 0 && of.f_type == libc::TMPFS_MAGIC
}

/// 50 loops, each with 256 such reads in flight at its end; freed memory is taken and filled at once.
#[test]
fn cancel_shutdown_256_direct_reads_in_flight_write_into_nobodys_memory() {
    const NAME: &str = "cancel_shutdown_256_direct_reads_in_flight_write_into_nobodys_memory";
    // AddressSanitizer would keep what was freed from being used again.
    Child::new(NAME).asan("quarantine_size_mb=0:thread_local_quarantine_size_kb=0").run(|| {
        let path = std::env::temp_dir().join(format!("coreloop-direct-{}", std::process::id()));
        let mut made = File::create(&path).unwrap();
        if is_in_memory(&made) {
            std::fs::remove_file(&path).unwrap();
            skip!("temporary files are in memory: a read past the cache ends as it begins");
        }
        made.write_all(&vec![OF_FILE; READS * BLOCK]).unwrap();
        made.sync_all().unwrap();
        drop(made);
        if let Err(e) = files(&path) {
            std::fs::remove_file(&path).unwrap();
            skip!("no O_DIRECT where temporary files are: {e}");
        }
        let before = fd_count();
        let (mut wrong, mut reused, mut in_flight) = (0, 0, 0);
        for round in 0..50 {
            let mut event_loop = EventLoop::with(Settings::default()).unwrap();
            let opened = files(&path).unwrap();
            let places = event_loop.block_on(async {
                let mut places = Vec::new();
                for file in opened {
                    let block = Block::filled(0);
                    places.push(block.as_ptr() as usize);
                    let mut read = Box::pin(submit(Read::new(file, block)));
                    drop(poll_once(read.as_mut()).await);
                    // Half are a task's that ends with the loop, half are let go of.
                    if round % 2 == 0 {
                        drop(spawn(read));
                    }
                }
                if round % 3 == 0 {
                    coreloop::yield_now().await;
                }
                places
            });
            in_flight += event_loop.stats().gauges.ops;
            if round % 2 == 0 {
                assert_eq!(event_loop.close(SOON).ops_leaked, 0);
            } else {
                drop(event_loop);
            }
            let next: Vec<Block> = (0..2 * READS).map(|_| Block::filled(OF_NEXT)).collect();
            reused += next.iter().filter(|b| places.contains(&(b.as_ptr() as usize))).count();
            std::thread::sleep(Duration::from_millis(5));
            wrong += next.iter().filter(|b| b.bytes.0.iter().any(|x| *x != OF_NEXT)).count();
        }
        std::fs::remove_file(&path).unwrap();
        figure!("{in_flight} reads at 50 ends, {reused} blocks reused, {wrong} overwritten");
        assert!(in_flight > 1000, "only {in_flight} reads were in flight: nothing is shown");
        assert!(reused > 1000, "only {reused} blocks were reused: nothing is shown");
        assert_eq!(wrong, 0, "blocks of the next owner were overwritten");
        assert_eq!(fds_settle_at(before, SOON), before);
    });
}
