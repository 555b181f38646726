//! SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF",
//! 2012), written so that a program in the kernel can have it: no memory, and
//! no loop.

/// A hash under way.
#[derive(Clone, Copy)]
pub(crate) struct State([u64; 4]);

impl State {
    /// Nothing is hashed yet.
    #[inline(always)]
    pub(crate) const fn new([k0, k1]: [u64; 2]) -> Self {
        // The paper's constants, "somepseudorandomlygeneratedbytes".
        Self([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    /// The next eight bytes of the message, as a little-endian word.
    #[inline(always)]
    pub(crate) const fn word(self, word: u64) -> Self {
        let Self([v0, v1, v2, v3]) = self;
        let Self([v0, v1, v2, v3]) = Self([v0, v1, v2, v3 ^ word]).round().round();
        Self([v0 ^ word, v1, v2, v3])
    }

    /// The hash, after a last word that has the message's length, modulo 256,
    /// as its highest byte.
    #[inline(always)]
    pub(crate) const fn finish(self) -> u64 {
        let Self([v0, v1, v2, v3]) = self;
        let Self([v0, v1, v2, v3]) = Self([v0, v1, v2 ^ 0xff, v3]).round().round().round().round();
        v0 ^ v1 ^ v2 ^ v3
    }

    #[inline(always)]
    const fn round(self) -> Self {
        let Self([v0, v1, v2, v3]) = self;
        let (v0, v2) = (v0.wrapping_add(v1), v2.wrapping_add(v3));
        let (v1, v3) = (v1.rotate_left(13) ^ v0, v3.rotate_left(16) ^ v2);
        let v0 = v0.rotate_left(32);
        let (v2, v0) = (v2.wrapping_add(v1), v0.wrapping_add(v3));
        let (v1, v3) = (v1.rotate_left(17) ^ v2, v3.rotate_left(21) ^ v0);
        Self([v0, v1, v2.rotate_left(32), v3])
    }
}
