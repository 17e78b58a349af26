#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stayput_dataplane::fuzz::policy(data));
