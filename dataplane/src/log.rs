//! JSON lines on stderr. Nothing per packet above `trace`, never a key that is not public.

use std::fmt::Display;
use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    Trace = 10,
    Debug = 20,
    Info = 30,
    Warn = 40,
    Error = 50,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

pub fn parse_level(text: &str) -> Option<Level> {
    Some(match text {
        "trace" => Level::Trace,
        "debug" => Level::Debug,
        "info" => Level::Info,
        "warn" => Level::Warn,
        "error" => Level::Error,
        _ => return None,
    })
}

pub type Field<'a> = (&'a str, &'a dyn Display);

pub fn enabled(level: Level) -> bool {
    level as u8 >= LEVEL.load(Ordering::Relaxed)
}

pub fn write(level: Level, message: &str, fields: &[Field<'_>]) {
    if !enabled(level) {
        return;
    }
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
    let mut line = format!(r#"{{"level":{},"time":{time},"name":"stayput-dataplane""#, level as u8);
    for (name, value) in fields {
        line.push_str(&format!(",{}:{}", quoted(name), quoted(&value.to_string())));
    }
    line.push_str(&format!(",\"msg\":{}}}\n", quoted(message)));
    // A full or closed stderr must not stop forwarding.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

pub fn debug(message: &str, fields: &[Field<'_>]) {
    write(Level::Debug, message, fields);
}
pub fn info(message: &str, fields: &[Field<'_>]) {
    write(Level::Info, message, fields);
}
pub fn warn(message: &str, fields: &[Field<'_>]) {
    write(Level::Warn, message, fields);
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
