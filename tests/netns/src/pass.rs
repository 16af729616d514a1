//! The smallest XDP program, as an object file: it returns one and the same action for every packet.
//!
//! A frame that XDP sends out of one end of a veth pair reaches the other end only if an XDP program sits there too;
//! otherwise it is lost without a trace. The object is written here by hand, so that the testbed needs no BPF toolchain.

/// Section (and so the name for `ip link set .. xdp .. section`) that holds the program.
pub const SECTION: &str = "xdp";

/// Length of the program: `r0 = action; exit` (RFC 9669).
const PROGRAM: usize = 16;
/// Names for sections and symbols, by offset: 1 `.strtab`, 9 `.symtab`, 17 `xdp`, 21 `license`, 29 `pass`.
const STRINGS: &[u8] = b"\0.strtab\0.symtab\0xdp\0license\0pass\0";
const LICENSE: &[u8] = b"GPL\0";
/// Bytes of an ELF64 file header, section header and symbol.
const FILE_HEADER: usize = 64;
const SECTION_HEADER: u16 = 64;
const SYMBOL: u64 = 24;
/// Every section begins at a multiple of this.
const ALIGNMENT: usize = 8;

/// What a program does with every packet; the values are those of `enum xdp_action` in `linux/bpf.h`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Action {
    /// Hands it to the network stack.
    Pass = 2,
    /// Sends it back out of the interface as it came.
    Tx = 3,
}

/// The object file: little-endian ELF64 for BPF with sections null, `.strtab`, `xdp`, `license`, `.symtab`.
#[must_use]
pub fn object(action: Action) -> Vec<u8> {
    let program: [u8; PROGRAM] = [0xb7, 0, 0, 0, action as u8, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let symbols = symbols();
    let mut body = Vec::new();
    let mut headers = vec![0; usize::from(SECTION_HEADER)];
    // (name, type: 1 program data, 2 symbols, 3 strings, flags: 2 allocated, 4 executable, 1 writable, content)
    let sections: [(u32, u32, u64, &[u8]); 4] =
        [(1, 3, 0, STRINGS), (17, 1, 2 | 4, &program), (21, 1, 2 | 1, LICENSE), (9, 2, 0, &symbols)];
    for (name, kind, flags, content) in sections {
        let offset = (FILE_HEADER + body.len()) as u64;
        body.extend(content);
        headers.extend([name.to_le_bytes(), kind.to_le_bytes()].concat());
        for word in [flags, 0, offset, content.len() as u64] {
            headers.extend(word.to_le_bytes());
        }
        // Of a symbol table: the section with its names, its first global symbol, the size of an entry.
        let (link, info, entry) = if kind == 2 { (1, 1, SYMBOL) } else { (0u32, 0u32, 0) };
        headers.extend([link.to_le_bytes(), info.to_le_bytes()].concat());
        headers.extend([ALIGNMENT as u64, entry].map(u64::to_le_bytes).concat());
        body.resize(body.len().next_multiple_of(ALIGNMENT), 0);
    }
    let mut object = file_header((FILE_HEADER + body.len()) as u64, 5);
    object.extend(body);
    object.extend(headers);
    object
}

/// The null symbol, and the program as a global function: name 29, section 2, offset 0, 16 bytes.
fn symbols() -> Vec<u8> {
    let mut symbols = vec![0; 24];
    symbols.extend(29u32.to_le_bytes());
    symbols.extend([0x12, 0, 2, 0]);
    symbols.extend([0, PROGRAM as u64].map(u64::to_le_bytes).concat());
    symbols
}

/// ELF header of a relocatable BPF object whose section headers lie at `headers_at`; names are in section 1.
fn file_header(headers_at: u64, sections: u16) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01".to_vec(); // 64 bits, little-endian, version 1
    header.resize(16, 0);
    header.extend(1u16.to_le_bytes()); // relocatable
    header.extend(247u16.to_le_bytes()); // EM_BPF
    header.extend(1u32.to_le_bytes());
    header.extend([0; 16]); // no entry point, no program headers
    header.extend(headers_at.to_le_bytes());
    header.extend([0; 4]);
    for half in [64, 0, 0, SECTION_HEADER, sections, 1] {
        header.extend(u16::to_le_bytes(half));
    }
    header
}
