//! Sections of ELF files, as far as unwinding needs them.
//!
//! Owns the reading of a 64-bit ELF file's section table: names, places, contents. What is no such file, or
//! is cut short, is an error and nothing worse. Knows nothing of what is in a section.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Sections that a file may have at most, and bytes of one that are read at most.
const SECTIONS_MAX: u64 = 4096;
const SECTION_BYTES_MAX: u64 = 256 << 20;
/// Bytes of a name that are kept. Names may overlap, so that those of a file may be far longer than
/// it is; the ones that are asked for are short.
const NAME_BYTES_MAX: usize = 64;

/// A file and its table of sections.
pub(super) struct Elf {
    file: File,
    sections: Vec<Section>,
    /// Lowest address that any of it is loaded to, as the file states it.
    pub(super) base: u64,
}

struct Section {
    name: String,
    address: u64,
    offset: u64,
    size: u64,
}

impl Elf {
    pub(super) fn open(path: &str) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut head = [0; 64];
        file.read_exact_at(&mut head, 0)?;
        // Magic, 64 bits, little-endian.
        if !head.starts_with(b"\x7fELF\x02\x01") {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let programs = (u64_at(&head, 32), u16_at(&head, 54), u16_at(&head, 56));
        let (table, entry, count) = (u64_at(&head, 40), u16_at(&head, 58), u16_at(&head, 60));
        let names = usize::from(u16_at(&head, 62));
        let headers = read(&file, table, u64::from(entry) * u64::from(count).min(SECTIONS_MAX))?;
        let headers: Vec<_> = headers.chunks_exact(usize::from(entry).max(64)).collect();
        let names = headers.get(names).ok_or(io::ErrorKind::InvalidData)?;
        let names = read(&file, u64_at(names, 24), u64_at(names, 32))?;
        let section = |header: &&[u8]| Section {
            name: text_at(&names, u32_at(header, 0) as usize),
            address: u64_at(header, 16),
            offset: u64_at(header, 24),
            size: u64_at(header, 32),
        };
        let sections = headers.iter().map(section).collect();
        Ok(Self { base: base(&file, programs)?, file, sections })
    }

    /// Where a section is loaded to, as the file states it.
    pub(super) fn range(&self, name: &str) -> Option<Range<u64>> {
        let section = self.section(name)?;
        Some(section.address..section.address.checked_add(section.size)?)
    }

    /// What is in a section.
    pub(super) fn data(&self, name: &str) -> Option<Vec<u8>> {
        let section = self.section(name)?;
        read(&self.file, section.offset, section.size).ok()
    }

    fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }
}

/// The lowest address of the loaded parts, whose headers lie at `offset`.
fn base(file: &File, (offset, entry, count): (u64, u16, u16)) -> io::Result<u64> {
    const LOAD: u32 = 1;
    let headers = read(file, offset, u64::from(entry) * u64::from(count))?;
    let headers = headers.chunks_exact(usize::from(entry).max(56));
    let loaded = headers.filter(|header| u32_at(header, 0) == LOAD);
    Ok(loaded.map(|header| u64_at(header, 16) - u64_at(header, 16) % 4096).min().unwrap_or(0))
}

fn read(file: &File, offset: u64, size: u64) -> io::Result<Vec<u8>> {
    let end = offset.checked_add(size).ok_or(io::ErrorKind::InvalidData)?;
    if size > SECTION_BYTES_MAX || end > file.metadata()?.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut data = vec![0; size as usize];
    file.read_exact_at(&mut data, offset)?;
    Ok(data)
}

fn text_at(names: &[u8], at: usize) -> String {
    let text = names.get(at..).unwrap_or_default();
    let text = &text[..text.len().min(NAME_BYTES_MAX)];
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    String::from_utf8_lossy(&text[..end]).into_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_has_its_sections_and_others_are_refused() {
        let elf = Elf::open("/proc/self/exe").unwrap();
        let text = elf.range(".text").unwrap();
        assert_eq!(elf.data(".text").unwrap().len() as u64, text.end - text.start);
        assert!(elf.range(".no-such-section").is_none());
        assert!(elf.base <= text.start);
        assert!(Elf::open("/proc/self/maps").is_err());
        assert!(Elf::open("/dev/null").is_err());
    }

    /// Each of 4,096 sections is called by a mebibyte that has no end: that would be 4 GiB of names.
    #[test]
    fn names_without_an_end_take_no_memory() {
        let (names, sections) = (64_u64, SECTIONS_MAX);
        let names_size = 1_u64 << 20;
        let mut file = b"\x7fELF\x02\x01".to_vec();
        file.resize((names + names_size) as usize, b'n');
        file[..64][6..].fill(0);
        file[40..48].copy_from_slice(&(names + names_size).to_le_bytes());
        file[58..60].copy_from_slice(&64_u16.to_le_bytes());
        file[60..62].copy_from_slice(&(sections as u16).to_le_bytes());
        for _ in 0..sections {
            let mut header = [0; 64];
            header[24..32].copy_from_slice(&names.to_le_bytes());
            header[32..40].copy_from_slice(&names_size.to_le_bytes());
            file.extend_from_slice(&header);
        }
        let path = std::env::temp_dir().join(format!("coreloop-names-{}", std::process::id()));
        std::fs::write(&path, &file).unwrap();
        let elf = Elf::open(path.to_str().unwrap());
        std::fs::remove_file(path).unwrap();
        let elf = elf.unwrap();
        assert_eq!(elf.sections.len() as u64, sections);
        assert!(elf.sections.iter().all(|section| section.name.capacity() <= NAME_BYTES_MAX));
    }

    #[test]
    fn files_that_are_cut_or_spoilt_are_errors_at_worst() {
        let whole = std::fs::read("/proc/self/exe").unwrap();
        let path = std::env::temp_dir().join(format!("coreloop-elf-{}", std::process::id()));
        for byte in 0..64 {
            let mut spoilt = whole[..8192.min(whole.len())].to_vec();
            spoilt[byte] ^= 0xff;
            std::fs::write(&path, &spoilt[..spoilt.len() - byte]).unwrap();
            let elf = Elf::open(path.to_str().unwrap());
            drop(elf.map(|elf| elf.data(".text")));
        }
        std::fs::remove_file(path).unwrap();
    }
}
