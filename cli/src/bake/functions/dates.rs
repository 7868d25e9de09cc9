//! Functions of times, which are RFC 3339 strings.

use jiff::civil::{DateTime, Weekday};
use jiff::fmt::temporal::Pieces;
use jiff::tz::Offset;

use super::strings::string;
use super::{Function, exactly};

pub(super) const FUNCTIONS: &[Function] = &[
    exactly("formatdate", 2, |args| string(formatdate(&args[0].to_text()?, &args[1].to_text()?)?)),
    exactly("timeadd", 2, |args| {
        let (text, duration) = (args[0].to_text()?, args[1].to_text()?);
        let (negative, amount) = duration.strip_prefix('-').map_or((false, duration.as_str()), |rest| (true, rest));
        let amount = parser::duration::parse_duration(amount).map_err(|error| error.to_string())?;
        let amount = i64::try_from(amount.as_secs()).map_err(|_| "the duration is too long")?;
        let (civil, offset) = parse(&text)?;
        let span = jiff::SignedDuration::from_secs(if negative { -amount } else { amount });
        let moved = civil.checked_add(span).map_err(|error| error.to_string())?;
        string(format!("{}{}", moved.strftime("%Y-%m-%dT%H:%M:%S"), colon_offset(offset)))
    }),
];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

fn parse(text: &str) -> Result<(DateTime, Offset), String> {
    let bad = || format!("{text:?} is no RFC 3339 time");
    let pieces = Pieces::parse(text).map_err(|_| bad())?;
    let time = pieces.time().ok_or_else(bad)?;
    let offset = pieces.to_numeric_offset().ok_or_else(bad)?;
    Ok((DateTime::from_parts(pieces.date(), time), offset))
}

/// Letters stand for parts of the time, runs of one letter for one part; what is quoted by `'` stands for itself.
fn formatdate(format: &str, time: &str) -> Result<String, String> {
    let (time, offset) = parse(time)?;
    let mut out = String::new();
    let mut rest = format;
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            let (quoted, after) = quoted(&rest[1..])?;
            out.push_str(&quoted);
            rest = after;
            continue;
        }
        let after = rest.trim_start_matches(first);
        let run = &rest[..rest.len() - after.len()];
        out.push_str(&part(run, time, offset)?);
        rest = after;
    }
    Ok(out)
}

/// The text up to the next single quote; two of them are one that is meant.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut out = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('\'').ok_or("a quote is not closed")?;
        out.push_str(part);
        match after.strip_prefix('\'') {
            Some(more) => {
                out.push('\'');
                rest = more;
            }
            None => return Ok((out, after)),
        }
    }
}

fn part(run: &str, time: DateTime, offset: Offset) -> Result<String, String> {
    let month = MONTHS[usize::from(time.month().unsigned_abs()).saturating_sub(1).min(11)];
    let twelve = match time.hour() % 12 {
        0 => 12,
        hour => hour,
    };
    let half = if time.hour() < 12 { "am" } else { "pm" };
    Ok(match run {
        "YYYY" => format!("{:04}", time.year()),
        "YY" => format!("{:02}", time.year().rem_euclid(100)),
        "MMMM" => month.to_owned(),
        "MMM" => month[..3].to_owned(),
        "MM" => format!("{:02}", time.month()),
        "M" => time.month().to_string(),
        "DD" => format!("{:02}", time.day()),
        "D" => time.day().to_string(),
        "EEEE" => weekday(time.weekday()).to_owned(),
        "EEE" => weekday(time.weekday())[..3].to_owned(),
        "hh" => format!("{:02}", time.hour()),
        "h" => time.hour().to_string(),
        "HH" => format!("{twelve:02}"),
        "H" => twelve.to_string(),
        "AA" => half.to_uppercase(),
        "aa" => half.to_owned(),
        "mm" => format!("{:02}", time.minute()),
        "m" => time.minute().to_string(),
        "ss" => format!("{:02}", time.second()),
        "s" => time.second().to_string(),
        "ZZZZZ" => colon(offset),
        "ZZZZ" => colon(offset).replace(':', ""),
        "ZZZ" if offset == Offset::UTC => "UTC".to_owned(),
        "ZZZ" => colon(offset).replace(':', ""),
        "Z" => colon_offset(offset),
        other if other.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            return Err(format!("`{other}` stands for no part of a time"));
        }
        other => other.to_owned(),
    })
}

/// `Z`, or `+01:00`.
fn colon_offset(offset: Offset) -> String {
    if offset == Offset::UTC { "Z".to_owned() } else { colon(offset) }
}

fn colon(offset: Offset) -> String {
    let sign = if offset.seconds() < 0 { '-' } else { '+' };
    let minutes = offset.seconds().unsigned_abs() / 60;
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

fn weekday(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "Monday",
        Weekday::Tuesday => "Tuesday",
        Weekday::Wednesday => "Wednesday",
        Weekday::Thursday => "Thursday",
        Weekday::Friday => "Friday",
        Weekday::Saturday => "Saturday",
        Weekday::Sunday => "Sunday",
    }
}
