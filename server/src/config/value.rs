//! One function per kind of value: text becomes a type, or a phrase that says what would have been right.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anvil_model::profile::Profile;
use anvil_node::encryption::{KEY_BYTES, OperatorKey};
use anvil_node::metadata::rows::StorageClass;
use anvil_runtime::Io;
use ipnet::IpNet;
use zeroize::Zeroizing;

use super::CORES_MAX;
use crate::admission::PER_MINUTE_MAX;
use crate::auth::Secret;
use crate::grpc::AdminFrom;
use crate::s3::Domains;
use crate::telemetry::LogFormat;

/// What a setting takes, as the end of "..., and takes".
pub(super) type Takes = String;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size {
    /// How many.
    pub bytes: u64,
}

impl std::str::FromStr for Size {
    type Err = InvalidSize;

    /// Takes `123`, `64KiB`, `10GiB`, `1.5TiB` (powers of 1024), `10GB` (powers of 1000); `10G` is `10GiB`.
    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start().to_ascii_lowercase();
        let (_, factor) = UNITS.iter().find(|(names, _)| names.contains(&unit.as_str())).ok_or(InvalidSize)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: u128 = whole.parse().map_err(|_| InvalidSize)?;
        let mut bytes = whole.checked_mul(u128::from(*factor)).ok_or(InvalidSize)?;
        if number.contains('.') {
            let valid = (1..=6).contains(&fraction.len()) && fraction.bytes().all(|b| b.is_ascii_digit());
            let part: u128 = if valid { fraction.parse().map_err(|_| InvalidSize)? } else { return Err(InvalidSize) };
            let scale = 10u128.pow(u32::try_from(fraction.len()).expect("at most 6"));
            bytes += part * u128::from(*factor) / scale;
        }
        Ok(Self { bytes: u64::try_from(bytes).map_err(|_| InvalidSize)? })
    }
}

impl fmt::Display for Size {
    /// The largest binary unit that says it exactly.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let exact = units.iter().find(|(_, shift)| self.bytes > 0 && self.bytes.is_multiple_of(1 << shift));
        match exact {
            Some((name, shift)) => write!(f, "{}{name}", self.bytes >> shift),
            None => write!(f, "{}", self.bytes),
        }
    }
}

/// The text is not a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a size such as 512MiB, 10GiB or 2TB")]
pub struct InvalidSize;

const UNITS: [(&[&str], u64); 9] = [
    (&["", "b"], 1),
    (&["k", "kib"], 1 << 10),
    (&["m", "mib"], 1 << 20),
    (&["g", "gib"], 1 << 30),
    (&["t", "tib"], 1 << 40),
    (&["kb"], 1_000),
    (&["mb"], 1_000_000),
    (&["gb"], 1_000_000_000),
    (&["tb"], 1_000_000_000_000),
];

/// A disk as the operator names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskChoice {
    /// A directory, or a block device.
    pub path: PathBuf,
    /// The most that it may take; all that there is when `None`.
    pub capacity: Option<Size>,
}

impl fmt::Display for DiskChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        self.capacity.map_or(Ok(()), |size| write!(f, ":{size}"))
    }
}

pub(super) fn path(text: &str) -> Result<PathBuf, Takes> {
    if text.is_empty() || text.contains('\0') { Err("the path of a directory".to_owned()) } else { Ok(text.into()) }
}

/// `PATH[:SIZE]`. What follows the last colon is a size when it begins with a digit.
pub(super) fn disk(text: &str) -> Result<DiskChoice, Takes> {
    let takes = || "PATH or PATH:SIZE, such as /mnt/nvme0:500GiB".to_owned();
    let sized = text.rsplit_once(':').filter(|(_, size)| size.starts_with(|c: char| c.is_ascii_digit()));
    let (path, capacity) = match sized {
        Some((path, size)) => (path, Some(size.parse::<Size>().map_err(|_| takes())?)),
        None => (text, None),
    };
    if path.is_empty() || path.contains('\0') {
        return Err(takes());
    }
    Ok(DiskChoice { path: path.into(), capacity })
}

/// A storage class with its profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClassChoice {
    /// Which class.
    pub(super) class: StorageClass,
    /// How its objects are spread.
    pub(super) profile: Profile,
}

/// `NAME=k+m`.
pub(super) fn class(text: &str) -> Result<ClassChoice, Takes> {
    let takes =
        || "NAME=k+m, such as STANDARD=4+2 or COLD=2+2: a name in capitals, profiles from 1+0 to 16+4".to_owned();
    let (name, profile) = text.split_once('=').ok_or_else(takes)?;
    match (name.parse(), profile.parse()) {
        (Ok(class), Ok(profile)) => Ok(ClassChoice { class, profile }),
        _ => Err(takes()),
    }
}

/// `HOST:PORT`. A host name is looked up once; its first address counts.
pub(super) fn address(text: &str) -> Result<SocketAddr, Takes> {
    let takes = || "HOST:PORT, such as 127.0.0.1:50051 or [::]:50051".to_owned();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next()).ok_or_else(takes)
}

pub(super) fn region(text: &str) -> Result<String, Takes> {
    let valid = (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if valid { Ok(text.to_owned()) } else { Err("1 to 63 characters of a-z, 0-9 and '-'".to_owned()) }
}

/// `NAME[:PORT]`, separated by commas.
pub(super) fn domains(text: &str) -> Result<Domains, Takes> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_domain = |domain: &str| {
        let (name, port) = domain.split_once(':').map_or((domain, None), |(name, port)| (name, Some(port)));
        name.len() <= 253
            && name.split('.').all(is_label)
            && name.parse::<std::net::Ipv4Addr>().is_err()
            && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    if names.iter().all(|name| is_domain(name)) {
        Ok(Domains::new(names))
    } else {
        Err("host names, each with a port or without, separated by commas, such as s3.example.com".to_owned())
    }
}

pub(super) fn access_key(text: &str) -> Result<String, Takes> {
    let valid =
        (3..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if valid { Ok(text.to_owned()) } else { Err("3 to 128 letters, digits, '-', '_' and '.'".to_owned()) }
}

pub(super) fn secret(text: &str) -> Result<Secret, Takes> {
    Secret::new(text).map_err(|_| "8 to 256 visible ASCII characters".to_owned())
}

/// `HEX`, or `NAME:HEX`, several of them separated by commas.
pub(super) fn operator_keys(text: &str) -> Result<Vec<OperatorKey>, Takes> {
    let takes = || {
        format!(
            "64 hexadecimal digits, or up to {OPERATOR_KEYS_MAX} such keys as NAME:DIGITS, separated by commas, of which \
             the first one is used for what is new; a name has 1 to {} letters, digits, '-', '_' and '.'",
            OperatorKey::NAME_BYTES_MAX
        )
    };
    let is_name = |name: &str| {
        (1..=OperatorKey::NAME_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let mut names = BTreeSet::new();
    let mut key = |text: &str| {
        let (name, digits) = match text.trim().split_once(':') {
            Some((name, digits)) if is_name(name) => (name, digits),
            Some(_) => return None,
            None => ("", text.trim()),
        };
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        hex::decode_to_slice(digits, &mut bytes[..]).ok()?;
        names.insert(name.to_owned()).then(|| OperatorKey::new(name, &bytes))
    };
    let keys: Option<Vec<_>> = text.split(',').map(&mut key).collect();
    let named = |keys: &Vec<OperatorKey>| keys.len() == 1 || !names.contains("");
    keys.filter(named).filter(|keys| keys.len() <= OPERATOR_KEYS_MAX).ok_or_else(takes)
}

/// One that is used, and those of former times; a start tries them all.
const OPERATOR_KEYS_MAX: usize = 8;

pub(super) fn cores(text: &str) -> Result<u16, Takes> {
    let number = text.parse().ok().filter(|cores| (1..=CORES_MAX).contains(cores));
    number.ok_or_else(|| format!("a number of cores, 1 to {CORES_MAX}"))
}

pub(super) fn core(text: &str) -> Result<u16, Takes> {
    let number = text.parse().ok().filter(|core| *core < CORES_MAX);
    number.ok_or_else(|| format!("the number of a core, 0 to {}", CORES_MAX - 1))
}

pub(super) fn buffer_memory(text: &str) -> Result<Size, Takes> {
    text.parse().map_err(|_| "a size, such as 256MiB".to_owned())
}

/// `90s`, `15m`, `12h`, `7d`, or `0`; at most a year.
pub(super) fn duration(text: &str) -> Result<Duration, Takes> {
    let takes = || "a duration such as 90s, 15m, 12h or 7d, at most 365d".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(takes)?;
    let unit_seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(takes()),
    };
    let number = Some(number).filter(|number| number.bytes().all(|b| b.is_ascii_digit()));
    let seconds = number.and_then(|number| number.parse::<u64>().ok()).and_then(|n| n.checked_mul(unit_seconds));
    seconds.filter(|&seconds| seconds <= DURATION_SECONDS_MAX).map(Duration::from_secs).ok_or_else(takes)
}

/// A whole number of seconds.
pub(super) fn seconds(text: &str) -> Result<Duration, Takes> {
    let seconds = text.parse().ok().filter(|seconds| (1..=86_400).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| "a number of seconds, 1 to 86400".to_owned())
}

/// So many bytes per second; `None` for `off` and `0`.
pub(super) fn scrub_rate(text: &str) -> Result<Option<Size>, Takes> {
    if matches!(text, "off" | "0") {
        return Ok(None);
    }
    let rate = text.parse().ok().filter(|rate| *rate >= SCRUB_RATE_MIN);
    rate.map(Some).ok_or_else(|| format!("a size per second, such as 16MiB, at least {SCRUB_RATE_MIN}, or off"))
}

/// So many bytes per second.
pub(super) fn repair_rate(text: &str) -> Result<Size, Takes> {
    let rate = text.parse().ok().filter(|rate| *rate >= REPAIR_RATE_MIN);
    rate.ok_or_else(|| format!("a size per second, such as 256MiB, at least {REPAIR_RATE_MIN}"))
}

/// At least a second: a pass over an empty disk takes no time.
pub(super) fn scrub_every(text: &str) -> Result<Duration, Takes> {
    let every = duration(text).ok().filter(|every| *every >= Duration::from_secs(1));
    every.ok_or_else(|| "a duration such as 90s, 15m, 12h or 7d, 1s to 365d".to_owned())
}

/// Less than a second would close connections that are used, more than a day keep those of clients that are gone.
pub(super) fn idle_timeout(text: &str) -> Result<Duration, Takes> {
    let timeout =
        duration(text).ok().filter(|timeout| (Duration::from_secs(1)..=Duration::from_hours(24)).contains(timeout));
    timeout.ok_or_else(|| "a duration such as 75s, 5m or 1h, 1s to 1d".to_owned())
}

/// Slower, one window would take longer than anybody means.
const SCRUB_RATE_MIN: Size = Size { bytes: 64 << 10 };
/// Slower, what is lost would not be made again before more is.
const REPAIR_RATE_MIN: Size = Size { bytes: 1 << 20 };
/// A year.
const DURATION_SECONDS_MAX: u64 = 365 * 86_400;

pub(super) fn io(text: &str) -> Result<Io, Takes> {
    match text {
        "auto" => Ok(Io::Auto),
        "uring" => Ok(Io::Uring),
        "blocking" => Ok(Io::Blocking),
        _ => Err("auto, uring or blocking".to_owned()),
    }
}

pub(super) fn admin_from(text: &str) -> Result<AdminFrom, Takes> {
    match text {
        "loopback" => Ok(AdminFrom::Loopback),
        "tls" => Ok(AdminFrom::Tls),
        "anywhere" => Ok(AdminFrom::Anywhere),
        _ => Err("loopback, tls or anywhere".to_owned()),
    }
}

/// `10.0.0.0/8`, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, Takes> {
    let one = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let network = text.parse::<IpNet>().ok().or_else(one);
    network
        .ok_or_else(|| "networks or addresses, separated by commas, such as 127.0.0.0/8,10.1.2.3,fd00::/8".to_owned())
}

/// Requests per minute, or `off`.
pub(super) fn per_minute(text: &str) -> Result<Option<u32>, Takes> {
    if text == "off" {
        return Ok(None);
    }
    let number = text.parse().ok().filter(|limit| (1..=PER_MINUTE_MAX).contains(limit));
    number.map(Some).ok_or_else(|| format!("a number of requests per minute, 1 to {PER_MINUTE_MAX}, or off"))
}

pub(super) fn file(text: &str) -> Result<PathBuf, Takes> {
    path(text).map_err(|_| "the path of a file".to_owned())
}

pub(super) fn yes_or_no(text: &str) -> Result<bool, Takes> {
    text.parse().map_err(|_| "true or false".to_owned())
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, Takes> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("text or json".to_owned()),
    }
}

pub(super) fn log_filter(text: &str) -> Result<String, Takes> {
    let parsed: Result<tracing_subscriber::EnvFilter, _> = tracing_subscriber::EnvFilter::builder().parse(text);
    match parsed {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("levels and targets, such as info or anvil=debug,warn".to_owned()),
    }
}
