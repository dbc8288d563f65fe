//! From a copy of a stack to functions and lines.
//!
//! Owns the unwinding of a [`Sample`] with the unwind tables of what the process has loaded, and the looking
//! up of names. All of it is done by whoever asked, on its own thread, long after the handler has gone: the
//! stalled thread goes on meanwhile.

use std::fmt;

use framehop::{
    CacheNative, ExplicitModuleSectionInfo, MayAllocateDuringUnwind, Module, UnwindRegsNative,
    Unwinder, UnwinderNative,
};

use super::Backtrace;
use super::elf::Elf;
use crate::sys::sample::Sample;

/// Functions of one backtrace.
const FRAMES_MAX: usize = 128;

pub(super) fn backtrace_of(sample: &Sample) -> Backtrace {
    if sample.registers[0] == 0 {
        return Backtrace::default();
    }
    Backtrace { addresses: addresses(&unwinder(), sample) }
}

/// What the sample's functions are at, the innermost first.
fn addresses(unwinder: &Tables, sample: &Sample) -> Vec<usize> {
    let [ip, sp, fp, _lr] = sample.registers.map(|register| register as u64);
    let mut cache = CacheNative::<MayAllocateDuringUnwind>::new();
    let mut read_stack = |address: u64| {
        let at = address.checked_sub(sp).ok_or(())? as usize;
        let bytes = sample.stack.get(at..).and_then(|rest| rest.first_chunk::<8>()).ok_or(())?;
        Ok(u64::from_le_bytes(*bytes))
    };
    #[cfg(target_arch = "x86_64")]
    let registers = UnwindRegsNative::new(ip, sp, fp);
    #[cfg(target_arch = "aarch64")]
    let registers = UnwindRegsNative::new(_lr, sp, fp);
    let mut frames = unwinder.iter_frames(ip, registers, &mut cache, &mut read_stack);
    let mut addresses = Vec::new();
    // A stack that can't be followed to its end is told as far as it could be.
    while let Ok(Some(frame)) = frames.next()
        && addresses.len() < FRAMES_MAX
    {
        addresses.push(frame.address_for_lookup() as usize);
    }
    addresses
}

/// Unwind tables.
type Tables = UnwinderNative<Vec<u8>, MayAllocateDuringUnwind>;

/// The unwind tables of everything that is loaded now.
fn unwinder() -> Tables {
    let mut unwinder = Tables::new();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for loaded in Loaded::all(&maps) {
        if let Ok(elf) = Elf::open(&loaded.path) {
            unwinder.add_module(module(loaded, &elf));
        }
    }
    unwinder
}

fn module(loaded: Loaded, elf: &Elf) -> Module<Vec<u8>> {
    let sections = ExplicitModuleSectionInfo {
        base_svma: elf.base,
        text_svma: elf.range(".text"),
        got_svma: elf.range(".got"),
        eh_frame_svma: elf.range(".eh_frame"),
        eh_frame: elf.data(".eh_frame"),
        eh_frame_hdr_svma: elf.range(".eh_frame_hdr"),
        eh_frame_hdr: elf.data(".eh_frame_hdr"),
        ..Default::default()
    };
    Module::new(loaded.path, loaded.begin..loaded.end, loaded.begin, sections)
}

/// A file that is mapped, with code in it.
#[derive(Debug, PartialEq, Eq)]
struct Loaded {
    path: String,
    begin: u64,
    end: u64,
}

impl Loaded {
    /// Those that `maps`, the text of `/proc/self/maps`, names: lines of a file follow each other.
    fn all(maps: &str) -> Vec<Self> {
        let (mut all, mut code) = (Vec::<Self>::new(), Vec::<bool>::new());
        for line in maps.lines() {
            let Some((begin, end, executable, offset, path)) = parts(line) else { continue };
            match all.last_mut() {
                Some(last) if last.path == path && offset != 0 => last.end = end,
                _ => {
                    all.push(Self { path: path.to_owned(), begin, end });
                    code.push(false);
                }
            }
            *code.last_mut().expect("one was pushed") |= executable;
        }
        let with_code = all.into_iter().zip(code).filter(|(_, code)| *code);
        with_code.map(|(loaded, _)| loaded).collect()
    }
}

/// `begin-end perms offset device inode path`.
fn parts(line: &str) -> Option<(u64, u64, bool, u64, &str)> {
    let mut words = line.split_whitespace();
    let (begin, end) = words.next()?.split_once('-')?;
    let permissions = words.next()?;
    let offset = u64::from_str_radix(words.next()?, 16).ok()?;
    let path = line[line.find('/')?..].trim_end();
    let hex = |text| u64::from_str_radix(text, 16).ok();
    Some((hex(begin)?, hex(end)?, permissions.contains('x'), offset, path))
}

/// Writes the functions at an address: several if some were inlined.
pub(super) fn write_frame(
    f: &mut fmt::Formatter<'_>,
    number: usize,
    address: usize,
) -> fmt::Result {
    let (mut written, mut known) = (Ok(()), false);
    let place = std::ptr::without_provenance_mut(address);
    backtrace::resolve(place, |symbol| {
        known = true;
        written = written.and_then(|()| {
            let name = symbol.name().map_or_else(|| "?".to_owned(), |name| format!("{name:#}"));
            writeln!(f, "{number:>4}: {name}")?;
            match (symbol.filename(), symbol.lineno()) {
                (Some(file), Some(line)) => writeln!(f, "          at {}:{line}", file.display()),
                _ => Ok(()),
            }
        });
    });
    written?;
    if known { Ok(()) } else { writeln!(f, "{number:>4}: {address:#x}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz_tests::{corpus, fuzz, signature};

    #[test]
    fn files_with_code_are_found_in_the_maps() {
        let maps = "\
555000-556000 r--p 00000000 08:01 11 /usr/bin/a b
556000-557000 r-xp 00001000 08:01 11 /usr/bin/a b
557000-558000 rw-p 00000000 00:00 0
7f0000-7f1000 r--p 00000000 08:01 12 /usr/share/data
7f2000-7f3000 r-xp 00000000 08:01 13 /lib/c.so
7f3000-7f4000 rw-p 00001000 08:01 13 /lib/c.so
7fff00-7fff10 r-xp 00000000 00:00 0 [vdso]
";
        let loaded = |path: &str, begin, end| Loaded { path: path.into(), begin, end };
        let expected =
            [loaded("/usr/bin/a b", 0x555000, 0x557000), loaded("/lib/c.so", 0x7f2000, 0x7f4000)];
        assert_eq!(Loaded::all(maps), expected);
    }

    /// What a file says of itself is nobody's promise: a loader looks at none of its sections.
    #[test]
    fn fuzz_files_with_code() {
        let path = std::env::temp_dir().join(format!("coreloop-code-{}", std::process::id()));
        let path = path.to_str().unwrap().to_owned();
        // Where the corpus's file is loaded, in its second function, whose caller the stack names.
        let (begin, end) = (0x40_0000_u64, 0x40_1000);
        let stack: Vec<u8> =
            (0..32_u64).flat_map(|n| (begin + 0xb0 + n % 0x19).to_le_bytes()).collect();
        let words =
            ["\u{7f}ELF\u{2}\u{1}", ".text\0", ".eh_frame\0", ".eh_frame_hdr\0", "\0\0\0\0"];
        let mut followed = 0;
        let fuzzed = fuzz(&corpus("machine_elf"), &words, |input| {
            std::fs::write(&path, input).unwrap();
            let elf = match Elf::open(&path) {
                Ok(elf) => elf,
                Err(e) => return signature(e.kind()),
            };
            let parts = [".text", ".got", ".eh_frame", ".eh_frame_hdr"].map(|name| {
                let (range, data) = (elf.range(name), elf.data(name));
                assert!(range.as_ref().is_none_or(|range| range.start <= range.end));
                assert!(data.as_ref().is_none_or(|data| data.len() <= input.len()));
                (range.is_some(), data.is_some_and(|data| !data.is_empty()))
            });
            assert_eq!(elf.base % 4096, 0);
            let mut tables = Tables::new();
            tables.add_module(module(Loaded { path: path.clone(), begin, end }, &elf));
            let depths = [0xb0, 0xb5, 0xbc, 0xbe, 0xc4, 0xc8].map(|at| {
                let registers = [begin as usize + at, 0x7000, 0x7010, 0];
                let sample = Sample { said: (0, None), registers, stack: stack.clone() };
                addresses(&tables, &sample).len()
            });
            assert!(depths.iter().all(|depth| (1..=FRAMES_MAX).contains(depth)), "{depths:?}");
            followed += usize::from(depths.iter().any(|depth| *depth > 1));
            signature((parts, depths.map(|depth| depth.min(4)), elf.base == begin))
        });
        std::fs::remove_file(path).unwrap();
        println!("{fuzzed:?}, {followed} with a caller");
        assert!(fuzzed.signatures >= 4 && followed > 0, "{fuzzed:?}, {followed}");
    }

    #[test]
    fn fuzz_maps_of_a_process() {
        let words =
            ["r-xp ", "00000000", "-", "/lib/c.so", "[vdso]", "\n", "ffffffffffffffff", " 0 "];
        let fuzzed = fuzz(&corpus("machine_maps"), &words, |input| {
            let text = String::from_utf8_lossy(input);
            let all = Loaded::all(&text);
            assert!(all.len() <= text.lines().count());
            for loaded in &all {
                assert!(loaded.path.starts_with('/') && text.contains(&loaded.path));
            }
            signature((all.len(), all.iter().filter(|loaded| loaded.begin < loaded.end).count()))
        });
        println!("{fuzzed:?}");
        assert!(fuzzed.signatures >= 4, "{fuzzed:?}");
    }
}
