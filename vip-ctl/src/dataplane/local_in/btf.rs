//! Where a struct of the running kernel has a field: a reader for as much of the
//! kernel's type information (BTF) as that takes. aya's own reader keeps members
//! to itself.

/// The first word of the header, in the host's byte order.
const MAGIC: u16 = 0xeb9f;
/// Bytes of a type without what follows it.
const TYPE_LEN: usize = 12;
/// Bytes of a member of a struct or union.
const MEMBER_LEN: usize = 12;
/// Kinds of types that have members.
const STRUCT: u32 = 4;
const UNION: u32 = 5;
/// How deep anonymous structs and unions may be in each other.
const DEPTH_MAX: usize = 8;

/// Types of the kernel, and of modules that were added to them.
#[derive(Debug, Default)]
pub(super) struct Btf {
    types_bytes: Vec<u8>,
    strings: Vec<u8>,
    /// Where each type begins; the first has the id 1.
    types: Vec<usize>,
}

impl Btf {
    /// Adds the types of the kernel, or then those of a module, whose ids and strings go on
    /// where the kernel's end. `None` if the bytes are no BTF; then some may have been added.
    #[must_use]
    pub(super) fn add(&mut self, bytes: &[u8]) -> Option<()> {
        if u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let header = |at: usize| {
            let word = bytes.get(at..at.checked_add(4)?)?;
            usize::try_from(u32::from_ne_bytes(word.try_into().ok()?)).ok()
        };
        let (header_len, types_at, types_len) = (header(4)?, header(8)?, header(12)?);
        let (strings_at, strings_len) = (header(16)?, header(20)?);
        let part = |at: usize, len: usize| {
            let begin = header_len.checked_add(at)?;
            bytes.get(begin..begin.checked_add(len)?)
        };
        let (types, strings) = (part(types_at, types_len)?, part(strings_at, strings_len)?);
        let mut at = self.types_bytes.len();
        self.types_bytes.extend(types);
        self.strings.extend(strings);
        while at < self.types_bytes.len() {
            self.types.push(at);
            at = at.checked_add(TYPE_LEN)?.checked_add(self.trailing(at)?)?;
        }
        Some(())
    }

    /// The offset in bytes of a field that has one; a field of an anonymous struct or
    /// union counts as the outer struct's own. `None` without such a struct or field.
    #[must_use]
    pub(super) fn field_offset(&self, structure: &str, field: &str) -> Option<u32> {
        let outer = self.types.iter().find(|at| {
            self.kind(**at) == Some(STRUCT)
                && self.word(**at).is_some_and(|name| self.is_named(name, structure))
        })?;
        let bits = self.field_bits(*outer, field, DEPTH_MAX)?;
        (bits % 8 == 0).then_some(bits / 8)
    }

    fn word(&self, at: usize) -> Option<u32> {
        let bytes = self.types_bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    }

    fn info(&self, at: usize) -> Option<u32> {
        self.word(at + 4)
    }

    fn kind(&self, at: usize) -> Option<u32> {
        Some(self.info(at)? >> 24 & 0x1f)
    }

    /// Bytes that follow the type at `at`, as Documentation/bpf/btf.rst has them.
    fn trailing(&self, at: usize) -> Option<usize> {
        let count = usize::try_from(self.info(at)? & 0xffff).ok()?;
        Some(match self.kind(at)? {
            1 | 14 | 17 => 4, // integer, variable, declaration tag
            3 => 12,          // array
            STRUCT | UNION => count * MEMBER_LEN,
            6 | 13 => count * 8,   // enumeration, prototype
            15 | 19 => count * 12, // section, enumeration of 64 bits
            2 | 7..=12 | 16 | 18 => 0,
            _ => return None,
        })
    }

    fn is_named(&self, name: u32, wanted: &str) -> bool {
        let rest = usize::try_from(name).ok().and_then(|at| self.strings.get(at..));
        rest.and_then(|rest| rest.strip_prefix(wanted.as_bytes())).and_then(<[u8]>::first) == Some(&0)
    }

    fn field_bits(&self, structure: usize, field: &str, depth: usize) -> Option<u32> {
        let info = self.info(structure)?;
        let has_bitfields = info >> 31 == 1;
        let count = usize::try_from(info & 0xffff).ok()?;
        (0..count).find_map(|number| {
            let member = structure + TYPE_LEN + number * MEMBER_LEN;
            let (name, kind, place) = (self.word(member)?, self.word(member + 4)?, self.word(member + 8)?);
            // With bit fields in the struct, the upper byte is a field's width.
            let (width, bits) = if has_bitfields { (place >> 24, place & 0xff_ffff) } else { (0, place) };
            if self.is_named(name, field) {
                return (width == 0).then_some(bits);
            }
            let inner = *self.types.get(usize::try_from(kind).ok()?.checked_sub(1)?)?;
            let is_anonymous = self.is_named(name, "") && matches!(self.kind(inner)?, STRUCT | UNION);
            let within = is_anonymous.then(|| self.field_bits(inner, field, depth.checked_sub(1)?))??;
            bits.checked_add(within)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `struct outer { int; struct { union { int seen; int other; }; }; int :3 }`, with
    /// names, after an unlike struct.
    fn btf_bytes() -> Vec<u8> {
        let strings = b"\0outer\0first\0seen\0other\0narrow\0int\0";
        let name = |wanted: &[u8]| {
            let at = strings.windows(wanted.len()).position(|found| found == wanted);
            u32::try_from(at.unwrap_or(0)).unwrap_or(0)
        };
        let with_bitfields = 1 << 31;
        let types = [
            vec![name(b"int\0"), 1 << 24, 4, 32],
            vec![0, UNION << 24 | 2, 4, name(b"seen\0"), 1, 0, name(b"other\0"), 1, 0],
            vec![0, STRUCT << 24 | 2, 8, 0, 1, 0, 0, 2, 32],
            vec![
                name(b"outer\0"),
                with_bitfields | STRUCT << 24 | 3,
                16,
                name(b"first\0"),
                1,
                0,
                0,
                3,
                32,
                name(b"narrow\0"),
                1,
                3 << 24 | 96,
            ],
        ];
        let types: Vec<u8> = types.concat().iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
        made(&types, strings)
    }

    fn made(types: &[u8], strings: &[u8]) -> Vec<u8> {
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(0).to_ne_bytes();
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for word in [24_u32.to_ne_bytes(), [0; 4], len(types), len(types), len(strings)] {
            bytes.extend(word);
        }
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    fn field_offset(bytes: &[u8], structure: &str, field: &str) -> Option<u32> {
        let mut btf = Btf::default();
        btf.add(bytes)?;
        btf.field_offset(structure, field)
    }

    #[test]
    fn a_module_adds_to_the_kernels_types() {
        let strings = b"within\0mark\0";
        let kernels = u32::try_from(b"\0outer\0first\0seen\0other\0narrow\0int\0".len()).unwrap_or(0);
        // `struct within { struct outer; int mark; }`, with names and types of the kernel's.
        let types = [kernels, STRUCT << 24 | 2, 20, 0, 4, 0, kernels + 7, 1, 128];
        let types: Vec<u8> = types.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
        let mut btf = Btf::default();
        assert_eq!(btf.add(&btf_bytes()), Some(()));
        assert_eq!((btf.field_offset("within", "mark"), btf.add(&made(&types, strings))), (None, Some(())));
        assert_eq!(
            (btf.field_offset("within", "mark"), btf.field_offset("outer", "seen")),
            (Some(16), Some(8))
        );
        assert_eq!(btf.field_offset("within", "seen"), Some(8));
    }

    #[test]
    fn a_field_is_found_also_in_anonymous_structs() {
        let found = |field| field_offset(&btf_bytes(), "outer", field);
        assert_eq!([found("first"), found("seen"), found("other")], [Some(0), Some(8), Some(8)]);
        assert_eq!([found("narrow"), found("see"), found("nothing")], [None; 3]);
        assert_eq!(field_offset(&btf_bytes(), "oute", "first"), None);
    }

    #[test]
    fn what_is_cut_short_has_no_fields() {
        let whole = btf_bytes();
        for len in 0..whole.len() {
            let found = field_offset(&whole[..len], "outer", "seen");
            assert_eq!(found, None, "{len}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_read_beyond_the_end(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
            let mut bytes = btf_bytes();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = field_offset(&bytes, "outer", "seen");
        }
    }
}
