//! The names of new objects.

use serde_json::Value;

use super::failure::{Cause, Failure};
use super::resource::Resource;
use super::world::World;

/// Characters of generated names: no vowels and nothing that looks like another.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Longest name to which a suffix is added.
const LONGEST_GENERATED: usize = 58;

/// The name of a new object, generated where asked.
pub(super) fn name_for(
    world: &mut World,
    resource: &Resource,
    namespace: &str,
    value: &Value,
) -> Result<String, Failure> {
    let metadata = &value["metadata"];
    if let Some(name) = metadata["name"].as_str().filter(|name| !name.is_empty()) {
        return Ok(name.to_owned());
    }
    let Some(prefix) = metadata["generateName"].as_str().filter(|prefix| !prefix.is_empty()) else {
        let cause = Cause::required("metadata.name", "name or generateName is required");
        return Err(resource.invalid("", &[cause]));
    };
    let prefix = match prefix.char_indices().nth(LONGEST_GENERATED) {
        Some((end, _)) => &prefix[..end],
        None => prefix,
    };
    loop {
        let name = format!("{prefix}{}", suffix(world.store.next_identity()));
        if world.store.get(&resource.collection, namespace, &name).is_none() {
            return Ok(name);
        }
    }
}

/// Five characters that look random and follow from the number alone.
fn suffix(number: u64) -> String {
    // The finalizer of SplitMix64: neighbours come out far apart.
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let base = ALPHABET.len() as u64;
    (0..5)
        .map(|_| {
            let index = (mixed % base) as usize;
            mixed /= base;
            char::from(ALPHABET[index])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_suffixes_are_five_of_the_alphabet_and_differ() {
        let all: std::collections::BTreeSet<_> = (1..2000).map(suffix).collect();
        assert_eq!(all.len(), 1999);
        assert!(all.iter().all(|text| text.len() == 5 && text.bytes().all(|byte| ALPHABET.contains(&byte))));
    }
}
