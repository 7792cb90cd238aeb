//! Cron schedules of five fields, and when they fire next.

use jiff::civil::{Date, DateTime, Time, date};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::zone::zone;

/// How many years ahead a schedule is searched. The longest wait of a schedule that fires at all is the eight years
/// from one 29 February to the next around a year like 2100, plus a change of the clock that skips the hour then.
const HORIZON_YEARS: i32 = 13;

/// A field's name, bounds and names of values.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    words: &'static [&'static str],
}

const MINUTE: Field = Field { name: "minute", min: 0, max: 59, words: &[] };
const HOUR: Field = Field { name: "hour", min: 0, max: 23, words: &[] };
const DAY: Field = Field { name: "day of month", min: 1, max: 31, words: &[] };
const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    words: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAY: Field =
    Field { name: "day of week", min: 0, max: 6, words: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// A parsed schedule: the allowed values of each field as bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    minutes: u64,
    hours: u32,
    days: u32,
    months: u16,
    weekdays: u8,
    /// The day of month is `*` or `?` without a step.
    any_day: bool,
    /// The day of week is `*` or `?` without a step.
    any_weekday: bool,
    /// The zone of a leading `TZ=` or `CRON_TZ=`.
    zone: Option<TimeZone>,
}

/// A field's values as bits, and whether it is `*` or `?` without a step.
#[derive(Clone, Copy, Default)]
struct Bits {
    bits: u64,
    any: bool,
}

impl Schedule {
    /// Parses five fields with blanks between: minute, hour, day of month, month, day of week; in front of them possibly
    /// `TZ=Zone` or `CRON_TZ=Zone`.
    ///
    /// # Errors
    /// Anything else, with the field at fault.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut fields: Vec<&str> = text.split_whitespace().collect();
        let named = fields.first().and_then(|first| first.strip_prefix("TZ=").or(first.strip_prefix("CRON_TZ=")));
        let zone = named.map(zone).transpose()?;
        if zone.is_some() {
            fields.remove(0);
        }
        let &[minute, hour, day, month, weekday] = &fields[..] else {
            return Err(format!("expected exactly 5 fields, found {}: \"{text}\"", fields.len()));
        };
        let (day, weekday) = (DAY.parse(day)?, WEEKDAY.parse(weekday)?);
        Ok(Self {
            minutes: MINUTE.parse(minute)?.bits,
            hours: HOUR.parse(hour)?.bits as u32,
            days: day.bits as u32,
            months: MONTH.parse(month)?.bits as u16,
            weekdays: weekday.bits as u8,
            any_day: day.any,
            any_weekday: weekday.any,
            zone,
        })
    }

    /// Whether the calendar has a day that the schedule allows.
    pub fn ever_fires(&self) -> bool {
        // With a day of week of its own, or with any day, every month has one.
        if !self.any_weekday || self.any_day {
            return true;
        }
        // 2024 was a leap year: each month has the most days that it can have.
        let mut months = (1..=12).filter(|month| self.month(*month)).map(|month| date(2024, month, 1).days_in_month());
        months.any(|days| (1..=days).any(|day| self.days & (1 << day) != 0))
    }

    /// The first instant strictly after `after`, in whole seconds, at which the clock of the zone shows a time that the
    /// schedule allows: a time that the clock skips does not occur, one that it repeats occurs twice. The schedule's
    /// own zone goes before `zone`. `None` when there is none within 13 years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let zone = self.zone.as_ref().unwrap_or(zone);
        let floor = after.as_second() - i64::from(after.subsec_nanosecond() < 0);
        let mut from = Timestamp::from_second(floor + 1).ok()?;
        let last = zone.to_datetime(from).date().checked_add(HORIZON_YEARS.years()).unwrap_or(Date::MAX);
        loop {
            // Between two changes of the clock, local times follow each other as instants do.
            let offset = zone.to_offset(from);
            let instant = offset.to_timestamp(self.next_civil(offset.to_datetime(from), last)?).ok()?;
            match zone.following(from).next().map(|change| change.timestamp()) {
                Some(change) if change <= instant => from = change,
                _ => return Some(instant),
            }
        }
    }

    /// The first allowed local time from `from` on, on a day up to `last`.
    fn next_civil(&self, from: DateTime, last: Date) -> Option<DateTime> {
        let whole = from.time().second() == 0 && from.time().subsec_nanosecond() == 0;
        let minute = from.date().to_datetime(Time::constant(from.hour(), from.minute(), 0, 0));
        let from = if whole { minute } else { minute.checked_add(1.minute()).ok()? };
        let (mut day, mut earliest) = (from.date(), from.time());
        while day <= last {
            if !self.month(day.month()) {
                day = day.last_of_month().tomorrow().ok()?;
                earliest = Time::midnight();
                continue;
            }
            if self.day(day)
                && let Some(time) = self.time(earliest)
            {
                return Some(day.to_datetime(time));
            }
            day = day.tomorrow().ok()?;
            earliest = Time::midnight();
        }
        None
    }

    fn month(&self, month: i8) -> bool {
        self.months & (1 << month) != 0
    }

    fn day(&self, day: Date) -> bool {
        let by_day = self.days & (1 << day.day()) != 0;
        let by_weekday = self.weekdays & (1 << day.weekday().to_sunday_zero_offset()) != 0;
        if self.any_day || self.any_weekday { by_day && by_weekday } else { by_day || by_weekday }
    }

    /// The first allowed time of a day from `from` on.
    fn time(&self, from: Time) -> Option<Time> {
        let hours = (from.hour()..24).filter(|hour| self.hours & (1 << hour) != 0);
        hours.into_iter().find_map(|hour| {
            let first = if hour == from.hour() { from.minute() } else { 0 };
            let minute = (first..60).find(|minute| self.minutes & (1 << minute) != 0)?;
            Time::new(hour, minute, 0, 0).ok()
        })
    }
}

impl Field {
    fn parse(&self, text: &str) -> Result<Bits, String> {
        let items = text.split(',').filter(|item| !item.is_empty());
        let mut field = Bits::default();
        for item in items {
            let item = self.item(item).map_err(|cause| format!("{} \"{text}\": {cause}", self.name))?;
            field.bits |= item.bits;
            field.any |= item.any;
        }
        if field.bits == 0 { Err(format!("{} \"{text}\" has no value", self.name)) } else { Ok(field) }
    }

    /// A value, a range or any, with or without a step.
    fn item(&self, text: &str) -> Result<Bits, String> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (text, None),
        };
        let (first, last, single, any) = if matches!(range, "*" | "?") {
            (self.min, self.max, true, true)
        } else if let Some((first, last)) = range.split_once('-') {
            (self.value(first)?, self.value(last)?, false, false)
        } else {
            let value = self.value(range)?;
            (value, value, true, false)
        };
        let step_by = match step {
            Some(step) => step.parse::<usize>().map_err(|_| format!("\"{step}\" is no step"))?,
            None => 1,
        };
        if step_by == 0 {
            return Err("a step is at least 1".to_owned());
        }
        // `5/20` means from 5 to the end.
        let last = if single && step.is_some() { self.max } else { last };
        if first > last {
            return Err(format!("the range {range} ends before it begins"));
        }
        let bits = (first..=last).step_by(step_by).fold(0, |bits, value| bits | 1 << value);
        Ok(Bits { bits, any: any && step_by == 1 })
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let word = self.words.iter().position(|word| word.eq_ignore_ascii_case(text));
        let value = match word {
            Some(i) => Some(self.min + i as u32),
            None => text.parse().ok(),
        };
        let value = value.ok_or_else(|| format!("\"{text}\" is no value of it"))?;
        if (self.min..=self.max).contains(&value) {
            Ok(value)
        } else {
            Err(format!("{value} is not within {} to {}", self.min, self.max))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str, zone_name: &str) -> Option<String> {
        let zone = zone(zone_name).unwrap();
        let after = after.parse::<Timestamp>().unwrap();
        Schedule::parse(schedule).unwrap().next(after, &zone).map(|next| next.to_string())
    }

    fn utc(schedule: &str, after: &str) -> String {
        next(schedule, after, "UTC").unwrap()
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        let cases = [
            "* * * *",
            "* * * * * *",
            "",
            "@daily",
            "@every 5m",
            "0 0 * * 7",
            "0 22-2 * * *",
            "0 0 * * 5-1",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 32 * *",
            "* * * 13 *",
            "0 0 L * *",
            "0 0 15W * *",
            "0 0 * * 5#2",
            "*/0 * * * *",
            "*/-1 * * * *",
            "-50 * * * *",
            "0 0 * * Monday",
            "0 0 * * Mon-",
            "1-2-3 * * * *",
            "1/2/3 * * * *",
            ", * * * *",
            "TZ=Nowhere/City 0 0 * * *",
            "TZ= 0 0 * * *",
            "TZ=UTC",
        ];
        for case in cases {
            assert!(Schedule::parse(case).is_err(), "{case}");
        }
    }

    #[test]
    fn an_error_names_the_field() {
        assert_eq!(Schedule::parse("0 25 * * *").unwrap_err(), "hour \"25\": 25 is not within 0 to 23");
        assert_eq!(
            Schedule::parse("0 0 * * Monday").unwrap_err(),
            "day of week \"Monday\": \"Monday\" is no value of it"
        );
    }

    #[test]
    fn each_form_means_what_it_says() {
        let from = "2026-01-01T00:00:00Z"; // a Thursday
        let cases = [
            ("5/20 * * * *", "2026-01-01T00:05:00Z"),
            ("0-59/100 * * * *", "2026-01-01T01:00:00Z"),
            ("15,,45, * * * *", "2026-01-01T00:15:00Z"),
            ("0 0 * FEB ?", "2026-02-01T00:00:00Z"),
            ("0 0 * * sUn", "2026-01-04T00:00:00Z"),
            ("0 0 ? * Fri-Sat", "2026-01-02T00:00:00Z"),
            ("007 06 * * *", "2026-01-01T06:07:00Z"),
            ("  0   3\t* * *  ", "2026-01-01T03:00:00Z"),
            ("TZ=Asia/Kolkata 0 6 * * *", "2026-01-01T00:30:00Z"),
            ("CRON_TZ=Asia/Kolkata 30 5 * * *", "2026-01-02T00:00:00Z"),
        ];
        for (schedule, expected) in cases {
            assert_eq!(utc(schedule, from), expected, "{schedule}");
        }
    }

    #[test]
    fn next_is_strictly_later_in_whole_seconds() {
        assert_eq!(utc("* * * * *", "2026-01-01T00:00:00Z"), "2026-01-01T00:01:00Z");
        assert_eq!(utc("* * * * *", "2026-01-01T00:00:59.999Z"), "2026-01-01T00:01:00Z");
        assert_eq!(utc("* * * * *", "2026-01-01T00:00:00.5Z"), "2026-01-01T00:01:00Z");
        assert_eq!(utc("* * * * *", "1969-12-31T23:58:59.5Z"), "1969-12-31T23:59:00Z");
    }

    #[test]
    fn either_day_field_counts_unless_one_is_any() {
        let days = |schedule: &str| {
            let (schedule, utc) = (Schedule::parse(schedule).unwrap(), TimeZone::UTC);
            let mut at: Timestamp = "2026-01-31T23:59:00Z".parse().unwrap();
            let mut days = Vec::new();
            loop {
                at = schedule.next(at, &utc).unwrap();
                let day = utc.to_datetime(at).date();
                if day.month() != 2 {
                    return days;
                }
                days.push(day.day());
            }
        };
        // Fridays of February 2026: 6, 13, 20, 27.
        assert_eq!(days("0 0 * * 5"), [6, 13, 20, 27]);
        assert_eq!(days("0 0 */1 * 5"), [6, 13, 20, 27]);
        assert_eq!(days("0 0 13 * 5"), [6, 13, 20, 27]);
        assert_eq!(days("0 0 1,2 * 5"), [1, 2, 6, 13, 20, 27]);
        assert_eq!(days("0 0 */9 * 5"), [1, 6, 10, 13, 19, 20, 27, 28]);
        assert_eq!(days("0 0 1-31 * 5").len(), 28);
        assert_eq!(days("0 0 13 * ?"), [13]);
        assert_eq!(days("0 0 13 * */2").len(), 17, "Su, Tu, Th, Sa and Friday the 13th");
    }

    #[test]
    fn a_schedule_without_a_day_never_fires() {
        for schedule in ["0 0 31 2 *", "0 0 30 2 ?", "0 0 31 4,6,9,11 *", "0 0 31 2 */1"] {
            assert!(!Schedule::parse(schedule).unwrap().ever_fires(), "{schedule}");
            assert_eq!(next(schedule, "2026-01-01T00:00:00Z", "America/New_York"), None, "{schedule}");
        }
        for schedule in ["0 0 29 2 *", "0 0 31 2 1", "0 0 31 2 */2", "0 0 31 1,2 *", "0 0 * 2 *"] {
            assert!(Schedule::parse(schedule).unwrap().ever_fires(), "{schedule}");
            assert!(next(schedule, "2026-01-01T00:00:00Z", "America/New_York").is_some(), "{schedule}");
        }
        assert_eq!(utc("0 0 29 2 *", "2096-03-01T00:00:00Z"), "2104-02-29T00:00:00Z");
    }

    #[test]
    fn a_skipped_time_does_not_occur() {
        let new_york = |schedule, after| next(schedule, after, "America/New_York").unwrap();
        assert_eq!(new_york("30 2 * * *", "2024-03-09T07:30:00Z"), "2024-03-11T06:30:00Z");
        assert_eq!(new_york("0 3 * * *", "2024-03-10T06:59:59Z"), "2024-03-10T07:00:00Z");
        let sao_paulo = |schedule, after| next(schedule, after, "America/Sao_Paulo").unwrap();
        assert_eq!(sao_paulo("0 0 * * *", "2018-11-03T03:00:00Z"), "2018-11-05T02:00:00Z");
        assert_eq!(sao_paulo("0 1 * * *", "2018-11-03T12:00:00Z"), "2018-11-04T03:00:00Z");
    }

    #[test]
    fn a_repeated_time_occurs_twice() {
        let new_york = |schedule, after: &str| next(schedule, after, "America/New_York").unwrap();
        assert_eq!(new_york("15 1 * * *", "2024-11-03T04:00:00Z"), "2024-11-03T05:15:00Z");
        assert_eq!(new_york("15 1 * * *", "2024-11-03T05:15:00Z"), "2024-11-03T06:15:00Z");
        assert_eq!(new_york("15 1 * * *", "2024-11-03T06:15:00Z"), "2024-11-04T06:15:00Z");
        assert_eq!(new_york("0 2 * * *", "2024-11-03T06:00:00Z"), "2024-11-03T07:00:00Z");
    }

    /// The next instant by trying every minute, as the rule has it: up to four days.
    fn by_trial(schedule: &Schedule, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let first = after.as_second() / 60 + 1;
        (first..first + 4 * 24 * 60).map(|minute| Timestamp::from_second(minute * 60).unwrap()).find(|instant| {
            let local = zone.to_datetime(*instant);
            let time = schedule.hours & (1 << local.hour()) != 0 && schedule.minutes & (1 << local.minute()) != 0;
            time && schedule.month(local.month()) && schedule.day(local.date())
        })
    }

    #[test]
    fn around_every_change_of_the_clock_each_minute_is_as_the_rule_says() {
        let schedules = ["30 2 * * *", "*/20 0-3 * * *", "0 0 * * *", "15,45 1 * * 0", "0 3 3,4,30 * 0", "50 23 * * *"];
        let changes = [
            ("America/New_York", "2024-03-10T07:00:00Z"),
            ("America/New_York", "2024-11-03T06:00:00Z"),
            ("America/Sao_Paulo", "2018-11-04T03:00:00Z"),
            // Half an hour.
            ("Australia/Lord_Howe", "2025-04-05T15:00:00Z"),
            ("Australia/Lord_Howe", "2025-10-04T15:30:00Z"),
            // A whole day that did not exist.
            ("Pacific/Apia", "2011-12-30T10:00:00Z"),
            // Two hours.
            ("Antarctica/Troll", "2026-03-29T01:00:00Z"),
        ];
        for (zone_name, change) in changes {
            let zone = zone(zone_name).unwrap();
            let change: Timestamp = change.parse().unwrap();
            for schedule in schedules {
                let parsed = Schedule::parse(schedule).unwrap();
                for minutes in (-30 * 60..12 * 60).step_by(37) {
                    let after = change + minutes.minutes();
                    let expected = by_trial(&parsed, after, &zone);
                    let found = parsed.next(after, &zone);
                    let near = found.filter(|found| *found <= after + (4 * 24 * 60).minutes());
                    assert_eq!(near, expected, "{schedule} after {after} in {zone_name}");
                }
            }
        }
    }

    #[test]
    fn away_from_changes_of_the_clock_croner_agrees() {
        let schedules = [
            "0 6 * * *",
            "*/7 * * * *",
            "3-50/9 1,13 * * *",
            "0 0 29 2 *",
            "15 12 31 * *",
            "0 9-17/2 * * MON-FRI",
            "30 4 1,15 * 5",
            "59 23 * 2,11 0",
            "0 0 1 1 *",
            "5,10,55 0-5 10-20 3-9/2 *",
        ];
        let starts = ["2024-02-27T22:13:05Z", "2025-06-30T11:59:59Z", "2026-12-31T23:59:30Z", "2027-01-15T00:00:00Z"];
        // Neither zone changes its clock in these years.
        for zone_name in ["UTC", "Asia/Kolkata"] {
            let zone = zone(zone_name).unwrap();
            for schedule in schedules {
                let ours = Schedule::parse(schedule).unwrap();
                let theirs: croner::Cron = schedule.parse().unwrap();
                for start in starts {
                    let mut at: Timestamp = start.parse().unwrap();
                    for _ in 0..50 {
                        let expected = theirs.find_next_occurrence(&at.to_zoned(zone.clone()), false).unwrap();
                        at = ours.next(at, &zone).unwrap();
                        assert_eq!(at, expected.timestamp(), "{schedule} from {start} in {zone_name}");
                    }
                }
            }
        }
    }
}
