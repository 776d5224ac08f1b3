use anvil_model::profile::Profile;

use super::*;

fn read(form: Form, flags: &Flags, variables: &[(&str, &str)]) -> Result<Checked, ConfigError> {
    Config::read(form, flags, &Environment::of(variables.iter().copied()))
}

fn variables(variables: &[(&str, &str)]) -> Result<Checked, ConfigError> {
    read(Form::Dev, &Flags::default(), variables)
}

fn sentence(settings: &[(&str, &str)]) -> String {
    variables(settings).unwrap_err().to_string()
}

#[test]
fn nothing_set_gives_the_documented_defaults() {
    let config = variables(&[]).unwrap().config;
    assert_eq!(config.data_dir, Path::new("anvil-data"));
    assert_eq!(config.disks, [DiskChoice { path: "anvil-data/disk".into(), capacity: None }]);
    assert_eq!(config.listen, ["127.0.0.1:50051".parse().unwrap()]);
    assert_eq!(config.region, "us-east-1");
    assert_eq!((config.io, config.log_format, config.credentials), (Io::Auto, LogFormat::Text, None));
    let server = read(Form::Server, &Flags::default(), &[]).unwrap().config;
    assert_eq!(server.listen, ["0.0.0.0:50051".parse().unwrap()]);
}

#[test]
fn a_flag_counts_more_than_its_variable_and_empty_is_unset() {
    let flags = Flags { region: Some("eu-west-1".to_owned()), ..Flags::default() };
    let checked = read(Form::Dev, &flags, &[("REGION", "us-west-2"), ("ANVIL_CORES", "")]).unwrap();
    assert_eq!(checked.config.region, "eu-west-1");
    assert_eq!(checked.config.cores, None);
    assert!(checked.listing.contains("REGION=eu-west-1  # flag\n"), "{}", checked.listing);
}

#[test]
fn one_address_is_one_listener_and_two_are_two() {
    let listen = |settings: &[(&str, &str)]| variables(settings).map(|checked| checked.config.listen);
    let (a, b): (SocketAddr, SocketAddr) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
    assert_eq!(listen(&[("HTTP_BIND_ADDR", "127.0.0.1:1")]), Ok(vec![a]));
    assert_eq!(listen(&[("GRPC_BIND_ADDR", "127.0.0.1:1")]), Ok(vec![a]));
    assert_eq!(listen(&[("API_LISTEN_ADDR", "127.0.0.1:1")]), Ok(vec![a]));
    assert_eq!(listen(&[("HTTP_BIND_ADDR", "127.0.0.1:1"), ("GRPC_BIND_ADDR", "127.0.0.1:1")]), Ok(vec![a]));
    assert_eq!(listen(&[("HTTP_BIND_ADDR", "127.0.0.1:1"), ("GRPC_BIND_ADDR", "127.0.0.1:2")]), Ok(vec![a, b]));
    assert_eq!(listen(&[("API_LISTEN_ADDR", "127.0.0.1:1"), ("GRPC_BIND_ADDR", "127.0.0.1:1")]), Ok(vec![a]));
    let both = sentence(&[("API_LISTEN_ADDR", "127.0.0.1:1"), ("GRPC_BIND_ADDR", "127.0.0.1:2")]);
    assert!(both.contains("GRPC_BIND_ADDR") && both.contains("API_LISTEN_ADDR"), "{both}");
}

#[test]
fn disks_come_repeated_or_separated_by_commas() {
    let disks = |text: &str| variables(&[("ANVIL_DISKS", text)]).map(|checked| checked.config.disks);
    let disk =
        |path: &str, bytes: Option<u64>| DiskChoice { path: path.into(), capacity: bytes.map(|bytes| Size { bytes }) };
    assert_eq!(disks("/a:10GiB, /b"), Ok(vec![disk("/a", Some(10 << 30)), disk("/b", None)]));
    assert_eq!(disks("/with:colon"), Ok(vec![disk("/with:colon", None)]));
    let flags = Flags { disks: vec!["/c".to_owned()], ..Flags::default() };
    assert_eq!(read(Form::Dev, &flags, &[("ANVIL_DISKS", "/a")]).unwrap().config.disks, [disk("/c", None)]);
    assert!(sentence(&[("ANVIL_DISKS", "/a:10Pizza")]).contains("\"/a:10Pizza\""));
    assert!(sentence(&[("ANVIL_DISKS", "/a,/a:1GiB")]).contains("twice"));
}

#[test]
fn storage_classes_have_profiles_that_fit_the_disks() {
    let classes = |text: &str| variables(&[("ANVIL_DISKS", "/a,/b,/c,/d"), ("ANVIL_STORAGE_CLASSES", text)]);
    let told = |text: &str| {
        let choice = classes(text).unwrap().config.classes;
        let classes = choice.with_standard(choice.standard.unwrap_or(Profile { data: 2, parity: 2 }));
        classes.iter().map(|(name, profile)| format!("{name}={profile}")).collect::<Vec<_>>().join(",")
    };
    assert_eq!(told("COLD=1+1, STANDARD=2+1"), "STANDARD=2+1,COLD=1+1");
    assert_eq!(told("COLD=1+1"), "STANDARD=2+2,COLD=1+1", "as somebody else says");
    let flags = Flags { storage_classes: vec!["STANDARD=1+0".to_owned()], ..Flags::default() };
    let flagged = read(Form::Dev, &flags, &[("ANVIL_STORAGE_CLASSES", "STANDARD=9+9")]).unwrap();
    assert_eq!(flagged.config.classes.standard, Some(Profile::SINGLE));
    assert_eq!(classes("COLD=1+1").unwrap().config.classes.standard, None);
    let refused = |text: &str| classes(text).unwrap_err().to_string();
    assert!(refused("STANDARD=4+2").contains("STANDARD=4+2, which takes 6 disks, and there are 4"));
    assert!(refused("A=1+0,A=1+1").contains("twice"));
    for wrong in ["A", "A=", "=2+2", "cold=2+2", "A=0+1", "A=17+1", "A=2"] {
        assert!(refused(wrong).contains(&format!("{wrong:?}, and takes NAME=k+m")), "{wrong}");
    }
}

#[test]
fn durations_have_units() {
    let delay = |text: &str| variables(&[("ANVIL_RECLAIM_DELAY", text)]).map(|checked| checked.config.reclaim_delay);
    for (text, seconds) in [("0", 0), ("90s", 90), ("15m", 900), ("12h", 43_200), ("365d", 31_536_000)] {
        assert_eq!(delay(text), Ok(Duration::from_secs(seconds)), "{text}");
    }
}

#[test]
fn connections_may_be_idle_for_as_long_as_it_is_said() {
    let idle = |text| variables(&[("ANVIL_IDLE_TIMEOUT", text)]).map(|checked| checked.config.idle_timeout);
    assert_eq!(idle("5m"), Ok(Duration::from_mins(5)));
    for text in ["0", "2d", "long"] {
        let refused = idle(text).unwrap_err().to_string();
        assert!(
            refused.contains("ANVIL_IDLE_TIMEOUT (or --idle-timeout)") && refused.contains("1s to 1d"),
            "{refused}"
        );
    }
}

#[test]
fn uploads_have_a_week_unless_it_is_said_otherwise() {
    let expiry = |settings: &[(&str, &str)]| variables(settings).map(|checked| checked.config.upload_expiry);
    assert_eq!(expiry(&[]), Ok(Some(Duration::from_hours(7 * 24))));
    assert_eq!(expiry(&[("ANVIL_UPLOAD_EXPIRY", "12h")]), Ok(Some(Duration::from_hours(12))));
    assert_eq!(expiry(&[("ANVIL_UPLOAD_EXPIRY", "0")]), Ok(None));
    let refused = expiry(&[("ANVIL_UPLOAD_EXPIRY", "soon")]).unwrap_err().to_string();
    assert!(refused.contains("ANVIL_UPLOAD_EXPIRY") && refused.contains("90s, 15m, 12h or 7d"), "{refused}");
}

#[test]
fn metrics_are_read_from_networks_that_were_named() {
    let allow = |settings: &[(&str, &str)]| variables(settings).map(|checked| checked.config.metrics_allow);
    let named = |networks: &[&str]| MetricsAllow::new(networks.iter().map(|text| text.parse().unwrap()).collect());
    let default: Vec<_> = METRICS_ALLOW_DEFAULT.split(',').collect();
    assert_eq!(allow(&[]), Ok(named(&default)));
    assert_eq!(allow(&[("ANVIL_METRICS_ALLOW", "")]), Ok(named(&default)));
    let chosen = allow(&[("ANVIL_METRICS_ALLOW", "10.1.2.3, fd00::/8")]);
    assert_eq!(chosen, Ok(named(&["10.1.2.3/32", "fd00::/8"])));
}

#[test]
fn limits_are_per_minute_or_off() {
    let limits = |settings: &[(&str, &str)]| variables(settings).map(|checked| checked.config.limits);
    let default = limits(&[]).unwrap();
    assert_eq!((default.anonymous, default.logins, default.apps), (Some(120), Some(10), None));
    assert_eq!(default.trusted_proxies, []);
    let listing = variables(&[]).unwrap().listing;
    assert!(listing.contains("ANVIL_LIMIT_ANONYMOUS=120  # default\nANVIL_LIMIT_LOGINS=10  # default\n"), "{listing}");
    let chosen = limits(&[
        ("ANVIL_LIMIT_ANONYMOUS", "off"),
        ("ANVIL_LIMIT_LOGINS", "10000000"),
        ("ANVIL_LIMIT_APPS", "1"),
        ("ANVIL_TRUSTED_PROXIES", "10.0.0.0/8, fd00::1"),
    ]);
    let networks = ["10.0.0.0/8", "fd00::1/128"].map(|text| text.parse().unwrap()).to_vec();
    let expected = Limits { anonymous: None, logins: Some(10_000_000), apps: Some(1), trusted_proxies: networks };
    assert_eq!(chosen, Ok(expected));
    for wrong in ["0", "-1", "none", "10000001", "1.5", "10/m"] {
        let error = sentence(&[("ANVIL_LIMIT_APPS", wrong)]);
        assert!(error.contains("ANVIL_LIMIT_APPS (or --limit-apps)") && error.contains("or off"), "{error}");
    }
    for wrong in ["10.0.0.0/33", "proxy.example.com", "10.0.0.1:80"] {
        let error = sentence(&[("ANVIL_TRUSTED_PROXIES", wrong)]);
        assert!(error.contains(&format!("{wrong:?}, and takes networks or addresses")), "{error}");
    }
    let warned = |networks: &str| !variables(&[("ANVIL_TRUSTED_PROXIES", networks)]).unwrap().warnings.is_empty();
    assert_eq!((warned("10.0.0.0/8"), warned("10.0.0.0/8,::/0"), warned("0.0.0.0/0")), (false, true, true));
}

#[test]
fn repair_has_a_rate() {
    let rate = |settings: &[(&str, &str)]| variables(settings).map(|checked| checked.config.repair_rate.bytes);
    assert_eq!(rate(&[]).unwrap(), 256 << 20);
    assert_eq!(rate(&[("ANVIL_REPAIR_RATE", "1GiB")]).unwrap(), 1 << 30);
    for wrong in ["off", "0", "1023KiB", "-1", "fast"] {
        let error = rate(&[("ANVIL_REPAIR_RATE", wrong)]).unwrap_err().to_string();
        assert!(error.contains("ANVIL_REPAIR_RATE (or --repair-rate)") && error.contains("1MiB"), "{error}");
    }
}

#[test]
fn scrub_has_a_rate_or_is_off() {
    let scrub = |settings: &[(&str, &str)]| variables(settings).unwrap().config.scrub;
    assert_eq!(scrub(&[]), Some(ScrubOptions::default()));
    assert!(variables(&[]).unwrap().listing.contains("ANVIL_SCRUB_RATE=16MiB  # default\nANVIL_SCRUB_EVERY=30d"));
    assert_eq!((scrub(&[("ANVIL_SCRUB_RATE", "off")]), scrub(&[("ANVIL_SCRUB_RATE", "0")])), (None, None));
    let chosen = scrub(&[("ANVIL_SCRUB_RATE", "2GB"), ("ANVIL_SCRUB_EVERY", "7d")]).unwrap();
    assert_eq!((chosen.rate.bytes_per_second, chosen.every), (2_000_000_000, Duration::from_hours(7 * 24)));
}

#[test]
fn encryption_wants_a_secret_that_nobody_sees() {
    let digits = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
    let other = digits.replace('0', "9");
    let name = "ANVIL_SECRET_ENCRYPTION_KEY";
    let keys = |secret: &str| variables(&[(name, secret)]).map(|checked| checked.config.encryption.keys.len());
    assert_eq!(keys(digits), Ok(1));
    assert_eq!(keys(&format!("2026:{digits}")), Ok(1));
    assert_eq!(keys(&format!("2027:{other}, 2026:{digits}")), Ok(2));
    let nine: Vec<String> = (0..9).map(|number| format!("{number}:{digits}")).collect();
    for wrong in [
        &digits[1..],
        &format!("{digits}00"),
        &digits.replace('0', "g"),
        &format!("{digits},{other}"),
        &format!("a:{digits},{other}"),
        &format!("a:{digits},a:{other}"),
        &format!("{}:{digits}", "n".repeat(17)),
        &format!("ü:{digits}"),
        &format!("{digits},"),
        &nine.join(","),
    ] {
        let sentence = sentence(&[(name, wrong)]);
        assert!(
            sentence.starts_with("ANVIL_SECRET_ENCRYPTION_KEY is wrong, and takes 64 hexadecimal digits"),
            "{sentence}"
        );
        assert!(!sentence.contains("2233445566"), "{sentence}");
    }
    let checked = variables(&[("ANVIL_ENCRYPT_AT_REST", "true"), (name, digits)]).unwrap();
    assert!(checked.config.encryption.encrypt);
    let shown = format!("{checked:?}");
    assert!(shown.contains("ANVIL_SECRET_ENCRYPTION_KEY=(hidden)"), "{shown}");
    assert!(!shown.contains("2233445566") && !shown.contains("34, 51, 68"), "{shown}");
    let flags = Flags { encrypt_at_rest: true, ..Flags::default() };
    assert!(read(Form::Dev, &flags, &[]).unwrap_err().to_string().contains("openssl rand -hex 32"));
    assert!(sentence(&[("ANVIL_ENCRYPT_AT_REST", "yes")]).contains("true or false"));
}

#[test]
fn a_wrong_value_is_one_sentence_with_name_value_and_what_it_takes() {
    for (name, value, takes) in [
        ("HTTP_BIND_ADDR", "nowhere", "HOST:PORT"),
        ("REGION", "US East", "a-z"),
        ("ANVIL_CORES", "0", "1 to 1024"),
        ("ANVIL_CONTROL_CORE", "-1", "0 to 1023"),
        ("ANVIL_BUFFER_MEMORY", "much", "a size"),
        ("ANVIL_DOMAIN", "s3.example.com,a_b", "host names"),
        ("ANVIL_DOMAIN", "10.0.0.1", "host names"),
        ("ANVIL_DOMAIN", "s3.example.com:0", "host names"),
        ("ANVIL_RECLAIM_DELAY", "5", "a duration"),
        ("ANVIL_RECLAIM_DELAY", "-5m", "a duration"),
        ("ANVIL_RECLAIM_DELAY", "366d", "a duration"),
        ("ANVIL_SCRUB_RATE", "16", "at least 64KiB, or off"),
        ("ANVIL_ADMIN_FROM", "here", "loopback, tls or anywhere"),
        ("ANVIL_METRICS_ALLOW", "localhost", "networks or addresses"),
        ("ANVIL_METRICS_ALLOW", "10.0.0.0/33", "networks or addresses"),
        ("ANVIL_SCRUB_RATE", "fast", "a size per second"),
        ("ANVIL_SCRUB_EVERY", "0", "1s to 365d"),
        ("ANVIL_IO", "iouring", "auto, uring or blocking"),
        ("ANVIL_LOG_FORMAT", "xml", "text or json"),
        ("RUST_LOG", "anvil=loud", "levels"),
        ("ANVIL_DEV_ACCESS_KEY", "a/b", "letters"),
    ] {
        let sentence = sentence(&[(name, value)]);
        assert!(sentence.starts_with(name) && sentence.contains(&format!("{value:?}")), "{sentence}");
        assert!(sentence.contains(takes) && !sentence.contains('\n'), "{sentence}");
    }
    assert!(sentence(&[("ANVIL_CORES", "2"), ("ANVIL_CONTROL_CORE", "2")]).contains("0 to 1"));
}

#[test]
fn secrets_appear_in_no_sentence_and_no_listing() {
    let pair = [("ANVIL_DEV_ACCESS_KEY", "mykey"), ("ANVIL_DEV_SECRET_KEY", "not-to-be-seen")];
    let checked = variables(&pair).unwrap();
    assert!(!format!("{checked:?}").contains("not-to-be-seen"));
    assert!(checked.report().contains("ANVIL_DEV_SECRET_KEY=(hidden)"));
    assert!(!sentence(&[pair[0], ("ANVIL_DEV_SECRET_KEY", "seen ü")]).contains("seen"));
    assert!(sentence(&pair[..1]).contains("ANVIL_DEV_SECRET_KEY"));
    assert!(sentence(&pair[1..]).contains("ANVIL_DEV_ACCESS_KEY"));
}

#[test]
fn a_secret_in_a_flag_is_warned_about() {
    let flags = Flags {
        access_key: Some("mykey".to_owned()),
        secret_key: Some("not-to-be-seen".to_owned()),
        ..Flags::default()
    };
    let checked = read(Form::Dev, &flags, &[]).unwrap();
    assert!(checked.warnings.iter().any(|warning| warning.contains("ANVIL_DEV_SECRET_KEY")));
    assert!(!checked.report().contains("not-to-be-seen"));
}

#[test]
fn a_certificate_has_its_key() {
    let both = [("ANVIL_TLS_CERT", "/c"), ("ANVIL_TLS_KEY", "/k")];
    let tls = variables(&both).unwrap().config.tls.unwrap();
    assert_eq!((tls.files.certificate.to_str(), tls.files.key.to_str(), tls.only), (Some("/c"), Some("/k"), false));
    let flags = Flags { tls_only: true, ..Flags::default() };
    assert!(read(Form::Dev, &flags, &both).unwrap().config.tls.unwrap().only);
    assert_eq!(variables(&[]).unwrap().config.tls, None);
    assert!(sentence(&both[..1]).contains("ANVIL_TLS_KEY is not"));
    assert!(sentence(&both[1..]).contains("ANVIL_TLS_CERT is not"));
    assert!(sentence(&[("ANVIL_TLS_ONLY", "true")]).contains("ANVIL_TLS_CERT"));
    assert!(sentence(&[("ANVIL_TLS_ONLY", "1")]).contains("true or false"));
}

#[test]
fn databases_are_both_named_or_none() {
    let (global, regional) = ("GLOBAL_DATABASE_URL", "REGIONAL_DATABASE_URL");
    let url = "postgres://worka:pa55word@db:5433/anvil";
    let checked = variables(&[(global, url), (regional, url), ("INIT_CLUSTER", "true")]).unwrap();
    assert!(checked.config.databases.is_some() && checked.config.init_cluster && checked.warnings.is_empty());
    assert!(checked.listing.contains("anvil on db") && !checked.listing.contains("pa55word"), "{}", checked.listing);
    for (set, unset) in [(global, regional), (regional, global)] {
        assert!(sentence(&[(set, url)]).contains(&format!("{unset} is not")), "{set}");
        let sentence = sentence(&[(set, "postgres://worka:pa55word@db")]);
        assert!(sentence.contains(set) && !sentence.contains("pa55word"), "{sentence}");
    }
}

#[test]
fn unknown_and_unused_variables_are_warned_about() {
    let warnings =
        variables(&[("ANVIL_DISK", "/a"), ("ANVIL_CLUSTER_SECRET", "x"), ("PATH", "/bin")]).unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("ANVIL_CLUSTER_SECRET has no effect"), "{warnings:?}");
    assert!(warnings[1].contains("did you mean ANVIL_DISKS?"), "{warnings:?}");
}

#[test]
fn sizes_have_binary_and_decimal_units() {
    let bytes = |text: &str| text.parse::<Size>().map(|size| size.bytes);
    for (text, expected) in [
        ("0", 0),
        ("123", 123),
        ("64k", 64 << 10),
        ("64KiB", 64 << 10),
        ("10 GiB", 10 << 30),
        ("10G", 10 << 30),
        ("10GB", 10_000_000_000),
        ("1.5TiB", 3 << 39),
        ("16777215TiB", 16_777_215 << 40),
    ] {
        assert_eq!(bytes(text), Ok(expected), "{text}");
    }
    for wrong in ["", "GiB", "-1", "1.GiB", "1e3", "1..2", "16777216TiB", "1 PiB", "١"] {
        assert_eq!(bytes(wrong), Err(value::InvalidSize), "{wrong}");
    }
    for text in ["0", "1", "1023", "1KiB", "1536MiB", "3GiB", "2TiB"] {
        assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
    }
}

#[test]
fn cores_and_memory_fit_the_host() {
    let runtime = |form, settings: &[(&str, &str)], cpus: &[usize]| {
        read(form, &Flags::default(), settings).unwrap().config.runtime(cpus).map_err(|error| error.to_string())
    };
    let cpus: Vec<usize> = (2..18).collect();
    assert_eq!(runtime(Form::Server, &[], &cpus).unwrap().cpus, cpus);
    assert_eq!(runtime(Form::Dev, &[], &cpus).unwrap().cpus, [2, 3, 4, 5]);
    assert_eq!(runtime(Form::Dev, &[("ANVIL_CORES", "3")], &[0, 1]).unwrap().cpus, [0, 1, 0]);
    let memory = |size| runtime(Form::Dev, &[("ANVIL_BUFFER_MEMORY", size), ("ANVIL_CORES", "2")], &cpus);
    assert_eq!(memory("138MiB").unwrap().buffers_per_core, 64);
    assert!(memory("16MiB").unwrap_err().contains("ANVIL_BUFFER_MEMORY"));
    assert!(runtime(Form::Dev, &[("ANVIL_CONTROL_CORE", "2")], &[0, 1]).unwrap_err().contains("0 to 1"));
}
