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
    let [ip, sp, fp, _lr] = sample.registers.map(|register| register as u64);
    if ip == 0 {
        return Backtrace::default();
    }
    let unwinder = unwinder();
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
    Backtrace { addresses }
}

/// The unwind tables of everything that is loaded now.
fn unwinder() -> UnwinderNative<Vec<u8>, MayAllocateDuringUnwind> {
    let mut unwinder = UnwinderNative::new();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for loaded in Loaded::all(&maps) {
        if let Ok(elf) = Elf::open(&loaded.path) {
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
            let range = loaded.begin..loaded.end;
            unwinder.add_module(Module::new(loaded.path, range, loaded.begin, sections));
        }
    }
    unwinder
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
