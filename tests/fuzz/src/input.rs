//! Bytes as choices, and as changes of good bytes.

/// Chance that can be repeated: splitmix64.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x5bd1_e995_9d1b_58d3)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An index below `count` (which is not 0).
    pub fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.bits() % (count as u64)).unwrap_or(0)
    }

    /// A random byte.
    pub fn byte(&mut self) -> u8 {
        self.bits().to_le_bytes()[7]
    }
}

/// An input that is read from front to back; zeroes follow its end.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// From its start.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether its end is reached.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// The next `N` bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        core::array::from_fn(|_| self.byte())
    }

    /// The next number of 16 bits.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    /// The next number of 64 bits.
    pub fn long(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// A number below `count` (which is not 0).
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }
}

/// Numbers at which something may happen.
pub const EDGES: [u64; 16] = [
    0,
    1,
    7,
    8,
    63,
    64,
    4095,
    4096,
    4097,
    u32::MAX as u64,
    1 << 41,
    (1 << 41) + 1,
    1 << 62,
    (1 << 62) + 1,
    u64::MAX - 1,
    u64::MAX,
];

/// One change of `bytes`, as the input says: a byte, a number, a copy of another place, or a run.
pub fn patch(input: &mut Input<'_>, bytes: &mut [u8]) {
    let (what, place) = (input.byte(), usize::from(input.short()));
    if bytes.is_empty() {
        return;
    }
    let place = place % bytes.len();
    let mut put = |new: &[u8]| {
        for (old, new) in bytes[place..].iter_mut().zip(new) {
            *old = *new;
        }
    };
    match what % 6 {
        0 => put(&[input.byte()]),
        1 => put(&input.long().to_le_bytes()),
        2 => put(&EDGES[input.below(EDGES.len())].to_le_bytes()),
        3 => put(&vec![input.byte(); usize::from(input.byte()) * 16]),
        4 => bytes[place] ^= 1 << (input.byte() % 8),
        _ => {
            let from = usize::from(input.short()) % bytes.len();
            let count = [8, 16, 24, 64][usize::from(what / 6) % 4];
            let copy: Vec<u8> = bytes[from..].iter().take(count).copied().collect();
            for (old, new) in bytes[place..].iter_mut().zip(copy) {
                *old = new;
            }
        }
    }
}
