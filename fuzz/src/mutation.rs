//! Seeded mutations of a corpus, for the tests on stable: every run mutates alike.

/// Calls `check` with so many mutations of the corpus. `pieces` are put in where the syntax may care.
pub fn each(times: u64, corpus: &[&[u8]], pieces: &[&[u8]], check: impl Fn(&[u8])) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = move |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % limit.max(1) as u64) as usize
    };
    for sample in corpus {
        check(sample);
    }
    for _ in 0..times {
        let mut bytes = corpus[below(corpus.len())].to_vec();
        for _ in 0..=below(4) {
            let from = below(bytes.len() + 1);
            let to = (from + below(9)).min(bytes.len());
            let piece = match below(4) {
                0 => Vec::new(),
                1 => vec![below(256) as u8],
                2 => bytes[from..to].repeat(2),
                _ => pieces[below(pieces.len())].to_vec(),
            };
            bytes.splice(from..to, piece);
        }
        check(&bytes);
    }
}
