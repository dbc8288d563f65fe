//! What the guide's page on cores says of memory is what is asked of the allocator: a channel for each pair
//! of cores, and a runtime without one.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use coreloop::placement::allowed_cpus;
use coreloop::{Cores, Runtime, Settings, cross};
use coreloop_tests::in_child;

struct Counting;

thread_local! {
    static MINE: Cell<usize> = const { Cell::new(0) };
}

static ALL: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything goes on to the system's allocator unchanged, also a `realloc`, which is the default one;
// counting touches a thread-local without a destructor.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MINE.set(MINE.get().wrapping_add(layout.size()));
        ALL.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        MINE.set(MINE.get().wrapping_sub(layout.size()));
        ALL.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BEGINS: &str = "<!-- measured: begin -->\n";
const ENDS: &str = "<!-- measured: end -->\n";

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/cores.md")
}

/// What a channel holds of the heap, empty and after it was full.
fn held<T: Send + Clone + 'static>(capacity: usize, value: &T) -> usize {
    let before = MINE.get();
    let (mut tx, mut rx) = cross::channel(capacity);
    let new = MINE.get().wrapping_sub(before);
    while tx.try_send(value.clone()).is_ok() {}
    while rx.try_recv().is_ok() {}
    let used = MINE.get().wrapping_sub(before);
    drop((tx, rx));
    assert_eq!(MINE.get(), before, "all of it is given back");
    assert_eq!(new, used, "nothing is asked for later");
    new
}

fn row<T: Send + Clone + 'static>(name: &str, value: &T, capacity: usize) -> String {
    let bytes = held(capacity, value);
    let mesh = (bytes * 128 * 128) as f64 / f64::from(1 << 20);
    format!("| {capacity} of {} bytes ({name}) | {bytes} | {mesh:.0} MiB |\n", size_of::<T>())
}

fn rows() -> String {
    let mut out =
        "| values in a channel | bytes | for each of 128² pairs |\n|---|---|---|\n".to_owned();
    for capacity in [1, 16, 52, 64, 1024] {
        out.push_str(&row("a number, a `Box`", &7u64, capacity));
    }
    out.push_str(&row("a slice of them", &[7u64; 7], 64));
    out
}

/// `CORELOOP_WRITE_GUIDE=1` writes it.
#[test]
fn cores_guide_says_what_a_channel_for_each_pair_takes() {
    let text = fs::read_to_string(page()).unwrap();
    let (before, rest) = text.split_once(BEGINS).expect("the mark where the rows begin");
    let (written, after) = rest.split_once(ENDS).expect("the mark where they end");
    let rows = rows();
    if std::env::var_os("CORELOOP_WRITE_GUIDE").is_some() {
        fs::write(page(), format!("{before}{BEGINS}{rows}{ENDS}{after}")).unwrap();
        return;
    }
    assert!(
        written == rows,
        "docs/guide/cores.md says\n{written}and it is\n{rows}CORELOOP_WRITE_GUIDE=1 cargo test -p \
         coreloop-tests --test cores_guide writes it"
    );
}

/// The heap of so many cores that are all there.
fn heap_of(cores: usize) -> usize {
    let cpus = vec![allowed_cpus()[0]; cores];
    let settings = Settings::default().buffers(1, 64);
    let runtime = Runtime::builder().cores(Cores::These(cpus)).settings(settings).build().unwrap();
    let before = ALL.load(Ordering::Relaxed);
    let all_here = std::sync::Arc::new(std::sync::Barrier::new(cores));
    let held = runtime.run(move |core| {
        let all_here = all_here.clone();
        async move {
            // Nobody goes before all have come and the first has counted.
            all_here.wait();
            let held = (core.index() == 0).then(|| ALL.load(Ordering::Relaxed));
            all_here.wait();
            held
        }
    });
    held.unwrap()[0].unwrap() - before
}

/// A runtime has no mesh of its own: what twice as many cores take is twice as much.
#[test]
fn cores_guide_a_runtime_grows_with_its_cores_and_not_with_their_square() {
    in_child("cores_guide_a_runtime_grows_with_its_cores_and_not_with_their_square", || {
        // What a process makes once is made by the first.
        heap_of(2);
        let [two, four, twelve] = [2, 4, 12].map(heap_of);
        let each = (four - two) / 2;
        let more = (twelve - four) / 8;
        // With the smallest channel for each pair a core of 4 would take 5 of them, and one of 12 fifteen.
        assert!(more.abs_diff(each) < 2048, "a core takes {each} bytes of 4, and {more} of 12");
    });
}
