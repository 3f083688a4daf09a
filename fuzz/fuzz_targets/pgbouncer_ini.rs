#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| pgweir::fuzzing::pgbouncer_ini(data));
